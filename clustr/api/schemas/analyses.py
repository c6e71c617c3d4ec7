"""Schemas of the analyses of an upload."""

from typing import Any

from marshmallow import Schema, fields

from clustr.api.http.fields import (
    EXAMPLE_HASH,
    NOT_NEGATIVE,
    date_time,
    number,
    one_of,
    text,
)
from clustr.api.http.service_addresses import without_addresses
from clustr.components import WebComponents
from clustr.domain.models import Analysis, State
from clustr.domain.result_fields import field_tree, without_fields
from clustr.plugin_manager import private_fields
from clustr.plugins import Analyzer

STATE_DESCRIPTION = (
    "`waiting` for another analysis, `queued`, `running`, `deferred` until a service that is away "
    "is back; and in the end `succeeded`, `skipped`, `failed` or `cancelled`."
)


class ProvenanceSchema(Schema):
    """The plugin, model and configuration that produced a result."""

    plugin = text("The plugin that brings the analyzer.", "dimensions", required=True)
    plugin_version = text(
        "The version of the plugin's package; null for a drop-in.",
        "0.1.0",
        required=True,
        allow_none=True,
    )
    model = fields.Dict(
        required=True,
        metadata={
            "description": "What the analyzer says of its model; without one it is empty.",
            "example": {"name": "blip-base", "version": "2024-05"},
        },
    )
    config_hash = text(
        "Of the plugin's configuration: another one gives another text.",
        EXAMPLE_HASH[:16],
        required=True,
    )


class AnalysisSchema(Schema):
    """The state of one analyzer's analysis of one upload."""

    status = one_of(State, STATE_DESCRIPTION)
    version = number("The version of the analyzer.", 1, required=True)
    attempts = number("How many runs began.", 1, required=True, validate=NOT_NEGATIVE)
    started_at = date_time("When the last run began.", required=True, allow_none=True)
    finished_at = date_time("When the last run ended.", required=True, allow_none=True)
    stale = fields.Boolean(
        required=True,
        metadata={
            "description": "Whether the analyzer has a newer version by now.",
            "example": False,
        },
    )
    provenance = fields.Nested(
        ProvenanceSchema,
        required=True,
        allow_none=True,
        metadata={"description": "What gave the result; null without one."},
    )
    error = text("Why there is no result, or not yet.", "HTTP 503", required=True, allow_none=True)
    failed_version = number(
        "The version of the analyzer that failed; only of an analysis that has failed, whose "
        "`version` is that of an earlier result, if there is one.",
        2,
    )
    result = fields.Dict(
        allow_none=True,
        metadata={
            "description": "What the analyzer found, in the shape of its `result_schema` in "
            "`GET /api/plugins`; left out of listings.",
            "example": {"width": 1920, "height": 1080},
        },
    )


def dump_analysis(
    analysis: Analysis, components: WebComponents, with_result: bool
) -> dict[str, Any]:
    """Convert an analysis to the shape of `AnalysisSchema`."""
    analyzer = components.plugin_manager.analyzers.get(analysis.name)
    private = field_tree((*analysis.private, *private_fields_of(analyzer)))
    wire = {
        "status": analysis.state,
        "version": analysis.version,
        "attempts": analysis.attempts,
        "started_at": analysis.started_at,
        "finished_at": analysis.finished_at,
        "stale": analyzer is not None and analysis.version < analyzer.version,
        "provenance": analysis.provenance,
        "error": analysis.error and without_addresses(analysis.error),
    }
    if analysis.state is State.FAILED and analysis.failed_version is not None:
        wire["failed_version"] = analysis.failed_version
    return wire | {"result": without_fields(analysis.result, private)} if with_result else wire


def private_fields_of(analyzer: Analyzer | None) -> tuple[str, ...]:
    """The paths of the private fields of an analyzer's results; none when it is not there."""
    return private_fields(analyzer.result_schema) if analyzer else ()
