"""`/api/tags`: the tags of all uploads, and how many uploads have each."""

from typing import Any

from flask import Response, jsonify
from marshmallow import Schema, fields, validate

from clustr.api.http.blueprint import Blueprint
from clustr.api.http.fields import POSITIVE, QueryInteger, date_time, normalize_text, number, text
from clustr.api.http.request_context import components
from clustr.domain.access import Scope

LONGEST_PREFIX = 200

blueprint = Blueprint(
    "tags", __name__, url_prefix="/api/tags", description="The words for what is to be seen"
)


class TagQuerySchema(Schema):
    """The query of the list of tags."""

    prefix = fields.String(
        pre_load=normalize_text,
        load_default="",
        validate=validate.Length(max=LONGEST_PREFIX),
        metadata={
            "description": "What they begin with, whatever the case of letters and the marks on "
            "them: `mun` finds München. Then they are in the order of their letters, and the most "
            "used first otherwise.",
            "example": "mun",
        },
    )
    limit = QueryInteger(
        load_default=100,
        validate=validate.Range(1, 1000),
        metadata={"description": "How many at most."},
    )


class TagSchema(Schema):
    """A tag, and how many uploads have it."""

    name = text("The tag, in its most frequent spelling.", "cat", required=True)
    count = number(
        "How many uploads have it, whatever the case of its letters.",
        42,
        required=True,
        validate=POSITIVE,
    )


class TagListSchema(Schema):
    """A list of tags, with the latest counts."""

    data = fields.List(fields.Nested(TagSchema), required=True)
    counted_at = date_time(
        "When they were counted; null when they have not been yet.", required=True, allow_none=True
    )


@blueprint.route("", needs=Scope.UPLOADS_READ)
@blueprint.arguments(TagQuerySchema, location="query")
@blueprint.response(200, TagListSchema)
@blueprint.alt_response(422, "UNPROCESSABLE_ENTITY")
@blueprint.alt_response(503, "SERVICE_UNAVAILABLE")
def list_tags(query: dict[str, Any]) -> Response:
    """List tags with how many uploads have each

    Tags that differ in the case of letters alone are one, and are shown as most uploads have them.

    Workers count them now and then, so that to ask costs the same however many uploads there are.
    For a key with `own` they are counted when it asks, in the newest 20,000 of its uploads.
    """
    counted_at = components.database.counters.counted_at()
    counts = components.database.counters.tags(query["prefix"], query["limit"])
    data = [{"name": name, "count": count} for name, count in counts.items()]
    return jsonify({"data": data, "counted_at": counted_at})
