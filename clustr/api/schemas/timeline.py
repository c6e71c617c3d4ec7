"""Schemas of `/api/timeline`."""

from typing import Any

from marshmallow import Schema, fields

from clustr.api.http.fields import NOT_NEGATIVE, POSITIVE, Pattern, number, text
from clustr.api.schemas.listing import CURSOR_PATTERN, EXAMPLE_CURSOR
from clustr.database import Timeline, Unit

# The parameters of the query beside the filters of the list of uploads.
PARAMETERS: dict[str, fields.Field[Any]] = {
    "unit": fields.Enum(
        Unit,
        by_value=fields.String,
        load_default=Unit.MONTH,
        metadata={"description": "Whether uploads are counted by `month` or by `day`."},
    ),
}
# Those of the list of uploads that this has not.
LEFT_OUT = ("page", "limit", "cursor", "sort", "fields_")


class PeriodSchema(Schema):
    """A month or a day in which there are uploads."""

    month = text("The month; not there by day.", "2024-07", validate=Pattern("^[0-9]{4}-[0-9]{2}$"))
    day = text(
        "The day; not there by month.",
        "2024-07-01",
        validate=Pattern("^[0-9]{4}-[0-9]{2}-[0-9]{2}$"),
    )
    count = number("How many uploads are in it.", 12, required=True, validate=POSITIVE)
    cursor = text(
        "Where it begins: `GET /api/uploads?sort=-date` with it and the same filters gives its "
        "newest upload, and what follows.",
        EXAMPLE_CURSOR,
        required=True,
        validate=Pattern(CURSOR_PATTERN),
    )


class TimelineSchema(Schema):
    """The months or days in which there are uploads."""

    data = fields.List(
        fields.Nested(PeriodSchema),
        required=True,
        metadata={
            "description": "The newest first, and none without uploads.",
            "example": [{"month": "2024-07", "count": 12, "cursor": EXAMPLE_CURSOR}],
        },
    )
    undated = number(
        "Of how many nothing says when they were taken: those are where they were uploaded.",
        3,
        required=True,
        validate=NOT_NEGATIVE,
    )
    total = number("How many match.", 12, required=True, validate=NOT_NEGATIVE)


def dump_timeline(timeline: Timeline, unit: Unit) -> dict[str, Any]:
    """Convert a timeline to the shape of `TimelineSchema`."""
    return {
        "data": [
            {unit.value: period.name, "count": period.count, "cursor": period.cursor}
            for period in timeline.periods
        ],
        "undated": timeline.undated,
        "total": timeline.total,
    }
