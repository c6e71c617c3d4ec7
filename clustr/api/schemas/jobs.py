"""Schemas of jobs, and of the analyses of all uploads together."""

from collections.abc import Mapping
from typing import Any

from marshmallow import Schema, fields, validate

from clustr.api.http.fields import (
    EXAMPLE_HASH,
    EXAMPLE_ID,
    HEX_ID,
    NOT_NEGATIVE,
    BodySchema,
    QueryInteger,
    StrictBoolean,
    date_time,
    number,
    one_of,
    text,
)
from clustr.api.http.service_addresses import without_addresses
from clustr.api.schemas.analyses import STATE_DESCRIPTION
from clustr.api.schemas.filters import FilterSchema, upload_ids
from clustr.database import (
    AnalysisSelection,
    AnalyzerCounts,
    Job,
    JobState,
    ReanalysisSelection,
)
from clustr.domain.models import State
from clustr.plugin_manager import Plugin
from clustr.plugins import Analyzer
from clustr.services.jobs import Estimate

LARGEST_LIMIT = 1_000_000_000
EXAMPLE_COUNTS = {
    "selected": 500,
    "waiting": 0,
    "queued": 187,
    "running": 1,
    "deferred": 0,
    "succeeded": 309,
    "skipped": 2,
    "failed": 1,
    "cancelled": 0,
}


class AnalysisOrderSchema(BodySchema):
    """An order to run an analyzer on uploads."""

    analyzer = text("Its name.", "dimensions", required=True)
    select = one_of(
        AnalysisSelection,
        "Of the analyses that are not under way: `missing`, those of uploads without a result "
        "(that came before the analyzer, or where it failed or was cancelled or could not begin); "
        "`stale`, those of an earlier version of the analyzer; `other_config`, those whose result "
        "was made with another configuration of its plugin; `failed`; or `all`.",
    )
    ids = upload_ids("Only these uploads. Unknown ones are no error.")
    filter = fields.Nested(
        FilterSchema,
        metadata={"description": "Only uploads that meet all of this."},
    )
    limit = fields.Integer(
        strict=True,
        validate=validate.Range(1, LARGEST_LIMIT),
        metadata={"description": "How many at most, the oldest first.", "example": 500},
    )
    dry_run = StrictBoolean(
        load_default=False,
        metadata={
            "description": "Change nothing; only say how many there are, and how long they take.",
            "example": False,
        },
    )


class EstimateSchema(Schema):
    """The answer to an order with `dry_run`."""

    matched = number("How many uploads are selected.", 500, required=True, validate=NOT_NEGATIVE)
    estimated_seconds = fields.Float(
        required=True,
        allow_none=True,
        validate=NOT_NEGATIVE,
        metadata={
            "description": "How long one worker would take for them, by what its latest runs took "
            "in the middle; several share the work. Null while nothing is known of any run.",
            "example": 61.5,
        },
    )


class JobCountsSchema(Schema):
    """How many uploads of a job are in each state."""

    selected = number("How many were selected so far.", 500, required=True, validate=NOT_NEGATIVE)
    waiting = number("They wait for another analysis.", 0, required=True, validate=NOT_NEGATIVE)
    queued = number("They wait for a worker.", 187, required=True, validate=NOT_NEGATIVE)
    running = number("They are being analyzed.", 1, required=True, validate=NOT_NEGATIVE)
    deferred = number(
        "They wait for a service that is away.", 0, required=True, validate=NOT_NEGATIVE
    )
    succeeded = number(
        "It is done to them; they have a new result.", 309, required=True, validate=NOT_NEGATIVE
    )
    skipped = number(
        "There was nothing to say about them.", 2, required=True, validate=NOT_NEGATIVE
    )
    failed = number(
        "They failed; a result from before is still there.", 1, required=True, validate=NOT_NEGATIVE
    )
    cancelled = number("They were cancelled with the job.", 0, required=True, validate=NOT_NEGATIVE)


class JobFailureSchema(Schema):
    """The error of one upload of a job."""

    id = text("The id of the upload.", EXAMPLE_ID, required=True, validate=HEX_ID)
    error = text("Why.", "took longer than 60 seconds", required=True)


class JobSchema(Schema):
    """A job on many uploads, and its progress."""

    id = text("24 hexadecimal digits.", EXAMPLE_ID, required=True, validate=HEX_ID)
    kind = fields.String(
        required=True,
        validate=validate.OneOf(["analyze", "delete", "restore", "tag", "untag", "forget"]),
        metadata={"description": "What is done.", "example": "analyze"},
    )
    state = one_of(
        JobState,
        "`queued` until a worker takes it up, `running` until all is done; in the end `succeeded` "
        "(also when single uploads failed), `failed` when the job as a whole could not go on, or "
        "`cancelled`.",
    )
    parameters = fields.Dict(
        required=True,
        metadata={
            "description": "What was ordered; `ids` are left out of lists.",
            "example": {"analyzer": "dimensions", "select": "stale", "limit": 500},
        },
    )
    total = number(
        "How many uploads it is about; null while they are being found.",
        500,
        required=True,
        allow_none=True,
        validate=NOT_NEGATIVE,
    )
    counts = fields.Nested(JobCountsSchema, required=True)
    error = text(
        "Why the job as a whole failed.",
        "Unknown analyzer dimension; did you mean dimensions?",
        required=True,
        allow_none=True,
    )
    failures = fields.List(
        fields.Nested(JobFailureSchema),
        metadata={
            "description": "The first 1,000 uploads that failed, of analyses once all have ended; "
            "left out of lists.",
        },
    )
    request_id = text(
        "The `X-Request-ID` of the request that ordered it.", EXAMPLE_HASH[:32], required=True
    )
    created_at = date_time("When it was ordered.", required=True)
    started_at = date_time("When a worker took it up.", required=True, allow_none=True)
    finished_at = date_time(
        "When it ended. It is removed thirty days later, or when 1,000 others have ended since.",
        required=True,
        allow_none=True,
    )
    cancel_requested_at = date_time(
        "When somebody wanted it to end.", required=True, allow_none=True
    )
    updated_at = date_time("When anything of it last changed.", required=True)


class JobListSchema(Schema):
    """The newest jobs."""

    data = fields.List(fields.Nested(JobSchema), required=True)


class JobQuerySchema(Schema):
    """The query of the list of jobs."""

    limit = QueryInteger(
        load_default=20,
        validate=validate.Range(1, 100),
        metadata={"description": "How many jobs."},
    )


class DurationsSchema(Schema):
    """Percentiles of the duration of one image in the latest runs, in milliseconds."""

    p50 = fields.Float(
        required=True,
        validate=NOT_NEGATIVE,
        metadata={"description": "Half of them took so long at most.", "example": 123.0},
    )
    p95 = fields.Float(
        required=True,
        validate=NOT_NEGATIVE,
        metadata={"description": "95 of 100 took so long at most.", "example": 310.5},
    )


class AnalyzerStatisticsSchema(Schema):
    """Statistics of the analyses of one analyzer."""

    analyzer = text("Its name.", "dimensions", required=True)
    plugin = text("The plugin that brings it.", "dimensions", required=True)
    version = number("The version of the analyzer.", 1, required=True)
    states = fields.Dict(
        keys=fields.String(validate=validate.OneOf([state.value for state in State])),
        values=fields.Integer(validate=NOT_NEGATIVE),
        required=True,
        metadata={
            "description": f"How many are in each state; those in which there is none are left "
            f"out. {STATE_DESCRIPTION}",
            "example": {"succeeded": 4807, "skipped": 12, "failed": 3, "queued": 187},
        },
    )
    oldest_waiting_at = date_time(
        "Since when the one waits that has waited longest for its turn; null when none does.",
        required=True,
        allow_none=True,
    )
    rate_per_minute = fields.Float(
        required=True,
        allow_none=True,
        validate=NOT_NEGATIVE,
        metadata={"description": "How many ended a minute, of late.", "example": 486.2},
    )
    durations_ms = fields.Nested(
        DurationsSchema,
        required=True,
        allow_none=True,
        metadata={"description": "How long one image takes; null when nothing is known."},
    )
    stale = number(
        "How many ended that are of an earlier version of the analyzer.",
        0,
        required=True,
        allow_none=True,
        validate=NOT_NEGATIVE,
    )
    missing = number(
        "Of how many uploads there is no result, and no reason known why there is none: what "
        "`select: missing` orders.",
        0,
        required=True,
        allow_none=True,
        validate=NOT_NEGATIVE,
    )
    counted_at = date_time(
        "When all this was counted, which is done every ten seconds while uploads change, or less "
        "often when there is much to count; null when it never was, because no worker has run.",
        required=True,
        allow_none=True,
    )


class AnalysesSchema(Schema):
    """Statistics of the analyses of all analyzers."""

    data = fields.List(fields.Nested(AnalyzerStatisticsSchema), required=True)


def selection_from(order: dict[str, Any]) -> ReanalysisSelection:
    """Return the selection of an order in the shape of `AnalysisOrderSchema`."""
    ids = order.get("ids")
    return ReanalysisSelection(
        analyzer=order["analyzer"],
        select=order["select"],
        ids=tuple(ids) if ids is not None else None,
        filter=order.get("filter", {}),
        limit=order.get("limit"),
    )


def dump_estimate(estimate: Estimate) -> dict[str, Any]:
    """Convert an estimate to the shape of `EstimateSchema`."""
    return {"matched": estimate.matched, "estimated_seconds": estimate.seconds}


def dump_job(job: Job, in_list: bool = False) -> dict[str, Any]:
    """Convert a job to the shape of `JobSchema`."""
    wire: dict[str, Any] = {
        "id": job.id,
        "kind": job.kind,
        "state": job.state,
        "parameters": dump_parameters(job.parameters),
        "total": job.total,
        "counts": {name: job.counts.get(name, 0) for name in EXAMPLE_COUNTS},
        "error": job.error and without_addresses(job.error),
        "request_id": job.request_id,
        "created_at": job.created_at,
        "started_at": job.started_at,
        "finished_at": job.finished_at,
        "cancel_requested_at": job.cancel_requested_at,
        "updated_at": job.updated_at,
    }
    if not in_list:
        wire["failures"] = [
            {"id": f.upload_id, "error": without_addresses(f.error)} for f in job.failures
        ]
    return wire


def dump_parameters(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Convert the parameters of a job to the shape of the order that it was created by."""
    order = {name: value for name, value in parameters.items() if name != "config_hash"}
    if "filter" in order:
        order["filter"] = {n: value for n, value in order["filter"].items() if n != "conditions"}
    return order


def dump_statistics(
    analyzer: Analyzer, plugin: Plugin, counts: AnalyzerCounts | None
) -> dict[str, Any]:
    """Convert an analyzer's counts to the shape of `AnalyzerStatisticsSchema`."""
    durations = counts.durations if counts else None
    return {
        "analyzer": analyzer.name,
        "plugin": plugin.name,
        "version": analyzer.version,
        "states": counts.states if counts else {},
        "oldest_waiting_at": counts.oldest_waiting_at if counts else None,
        "rate_per_minute": counts.rate_per_minute if counts else None,
        "durations_ms": {"p50": durations.p50, "p95": durations.p95} if durations else None,
        "stale": counts.stale if counts else None,
        "missing": counts.missing if counts else None,
        "counted_at": counts.counted_at if counts else None,
    }
