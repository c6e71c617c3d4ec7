"""`/api/stats`: how many uploads there are, of each kind."""

from flask import Response, jsonify
from marshmallow import Schema, fields

from clustr.api.http.blueprint import Blueprint
from clustr.api.http.fields import NOT_NEGATIVE, moment, number
from clustr.api.http.request_context import components
from clustr.domain.models import State, Status

blueprint = Blueprint(
    "stats", __name__, url_prefix="/api/stats", description="How many uploads there are"
)


def counts(description: str, example: dict[str, int]) -> fields.Dict:
    return fields.Dict(
        keys=fields.String(),
        values=fields.Integer(validate=NOT_NEGATIVE),
        required=True,
        metadata={"description": description, "example": example},
    )


class AnalyzerCountsSchema(Schema):
    """The analyses of one analyzer."""

    states = counts("How many are in each state; without those in which there is none.", {})
    counted_at = moment("When they were counted.", required=True)


class StatsSchema(Schema):
    """All uploads together, as they were counted last."""

    uploads = number("How many there are.", 42, required=True, validate=NOT_NEGATIVE)
    bytes = number("The bytes of all originals.", 5_250_000, required=True, validate=NOT_NEGATIVE)
    statuses = counts("How many are of each status.", {Status.PROCESSED: 41, Status.ERROR: 1})
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
    days = counts(
        "How many were uploaded on each day, in UTC, of the last 366 days on which there were any.",
        {"2026-11-22": 42},
    )
    counted_at = moment(
        "When they were counted; null when they have not been yet.", required=True, allow_none=True
    )


@blueprint.route("")
@blueprint.response(200, StatsSchema)
@blueprint.alt_response(503, "SERVICE_UNAVAILABLE")
def get_stats() -> Response:
    """See how many uploads there are, of each status, analyzer and day

    Workers count them now and then, so that to ask costs the same however many uploads there are.
    """
    tally = components.database.counters.totals()
    analyzers = {
        name: {"states": counted.states, "counted_at": counted.counted_at}
        for name, counted in components.database.statistics.all().items()
    }
    return jsonify(
        {
            "uploads": tally.uploads if tally else 0,
            "bytes": tally.bytes if tally else 0,
            "statuses": tally.statuses if tally else {},
            "analyzers": analyzers,
            "days": tally.days if tally else {},
            "counted_at": tally.counted_at if tally else None,
        }
    )
