"""`/api/stats`: counts of uploads by status, analyzer and day."""

from flask import Response, jsonify
from marshmallow import Schema, fields

from clustr.api.http.blueprint import Blueprint
from clustr.api.http.fields import NOT_NEGATIVE, date_time, number
from clustr.api.http.request_context import components
from clustr.domain.access import Scope
from clustr.domain.models import State, Status

blueprint = Blueprint(
    "stats", __name__, url_prefix="/api/stats", description="How many uploads there are"
)


def counts_field(description: str, example: dict[str, int]) -> fields.Dict:
    return fields.Dict(
        keys=fields.String(),
        values=fields.Integer(validate=NOT_NEGATIVE),
        required=True,
        metadata={"description": description, "example": example},
    )


class AnalyzerCountsSchema(Schema):
    """How many analyses of one analyzer are in each state."""

    states = counts_field("How many are in each state; without those in which there is none.", {})
    counted_at = date_time("When they were counted.", required=True)


class StatsSchema(Schema):
    """The latest counts of all uploads."""

    uploads = number("How many there are.", 42, required=True, validate=NOT_NEGATIVE)
    bytes = number("The bytes of all originals.", 5_250_000, required=True, validate=NOT_NEGATIVE)
    statuses = counts_field("How many are of each status.", {Status.PROCESSED: 41, Status.ERROR: 1})
    analyzers = fields.Dict(
        keys=fields.String(),
        values=fields.Nested(AnalyzerCountsSchema),
        required=True,
        metadata={
            "description": "The analyses of each analyzer, by its name.",
            "example": {
                "blip": {
                    "states": {State.SUCCEEDED: 42},
                    "counted_at": "2026-11-22T10:38:28.000000Z",
                }
            },
        },
    )
    days = counts_field(
        "How many were uploaded on each day, in UTC, of the last 366 days on which there were any.",
        {"2026-11-22": 42},
    )
    counted_at = date_time(
        "When they were counted; null when they have not been yet.", required=True, allow_none=True
    )


@blueprint.route("", needs=Scope.UPLOADS_READ)
@blueprint.response(200, StatsSchema)
@blueprint.alt_response(503, "SERVICE_UNAVAILABLE")
def get_stats() -> Response:
    """See how many uploads there are, of each status, analyzer and day

    Workers count them now and then, so that to ask costs the same however many uploads there are.
    For a key with `own` they are counted when it asks: the newest 20,000 of its uploads.
    """
    totals = components.database.counters.totals()
    analyzers = {
        name: {"states": counts.states, "counted_at": counts.counted_at}
        for name, counts in components.database.statistics.all().items()
    }
    return jsonify(
        {
            "uploads": totals.uploads if totals else 0,
            "bytes": totals.bytes if totals else 0,
            "statuses": totals.statuses if totals else {},
            "analyzers": analyzers,
            "days": totals.days if totals else {},
            "counted_at": totals.counted_at if totals else None,
        }
    )
