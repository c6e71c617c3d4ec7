"""`/api/suggest`: what the last word of a search may become, while somebody is typing it."""

from typing import Any

from flask import Response, jsonify
from marshmallow import Schema, fields, validate

from clustr.api.http.blueprint import Blueprint
from clustr.api.http.fields import POSITIVE, QueryInteger, number, text
from clustr.api.http.request_context import components
from clustr.api.schemas.filters import LONGEST_SEARCH
from clustr.domain.access import Scope
from clustr.services.suggestions import KINDS, suggest

MAX_SUGGESTIONS = 50

blueprint = Blueprint(
    "suggest",
    __name__,
    url_prefix="/api/suggest",
    description="Completions of a search while it is typed",
)


class SuggestQuerySchema(Schema):
    """The query of suggestions."""

    q = fields.String(
        required=True,
        validate=validate.Length(1, LONGEST_SEARCH),
        metadata={
            "description": "The search as far as it is typed, in the language of `q` of "
            "`GET /api/uploads`. Suggestions are for its last word. A field before that is heeded: "
            "for `tag:gold` there are tags alone, and for `tag:` the most used ones. Behind a "
            "space there is no word yet, and nothing is suggested.",
            "example": "beach gold",
        },
    )
    limit = QueryInteger(
        load_default=10,
        validate=validate.Range(1, MAX_SUGGESTIONS),
        metadata={"description": "How many at most."},
    )
    kind = fields.List(
        fields.String(validate=validate.OneOf([*KINDS])),
        validate=validate.Length(1, len(KINDS)),
        metadata={
            "description": "Only of this kind; given several, of one of them. By default all."
        },
    )


class SuggestionSchema(Schema):
    """What the last word of a search may become."""

    kind = fields.String(
        required=True,
        validate=validate.OneOf([*KINDS]),
        metadata={
            "description": "`tag`: a whole tag; `word`: a word of captions, tags or names; "
            "`filter`: a field of the language of searches.",
            "example": "tag",
        },
    )
    value = text(
        "What is put in place of the last word. Tags are written as most uploads have them, words "
        "as searches compare them: in lower case and without marks on Latin and Greek letters.",
        'tag:"golden retriever"',
        required=True,
    )
    search = text(
        "The whole search with it, for `q`.", 'beach tag:"golden retriever"', required=True
    )
    count = number(
        "How many uploads have it, as workers counted last; a new word counts 1 until then. Of a "
        "word, how many have it in the same field, where these are the most: so at least as many "
        "have it at all. Null for a filter.",
        42,
        required=True,
        allow_none=True,
        validate=POSITIVE,
    )


class SuggestionListSchema(Schema):
    """Suggestions for the last word of a search."""

    data = fields.List(fields.Nested(SuggestionSchema), required=True)


@blueprint.route("", needs=Scope.UPLOADS_READ)
@blueprint.arguments(SuggestQuerySchema, location="query")
@blueprint.response(200, SuggestionListSchema)
@blueprint.alt_response(422, "UNPROCESSABLE_ENTITY")
@blueprint.alt_response(503, "SERVICE_UNAVAILABLE")
def list_suggestions(query: dict[str, Any]) -> Response:
    """Complete a search while it is typed

    The kinds take turns, and of each the most frequent come first. Numbers and words with more
    than two digits are suggested only as tags. For a key with `own` they are of its uploads alone,
    counted when it asks.
    """
    found = suggest(components.database, query["q"], query["limit"], query.get("kind"))
    return jsonify({"data": found})
