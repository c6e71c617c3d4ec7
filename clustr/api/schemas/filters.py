"""Schemas of the filters of uploads, for queries and bodies."""

from typing import Any

from marshmallow import INCLUDE, Schema, ValidationError, fields, validate, validates_schema

from clustr.api.http.fields import (
    EXAMPLE_HASH,
    EXAMPLE_ID,
    HEX_ID,
    HEX_SHA256,
    BodySchema,
    Pattern,
    StrictBoolean,
    compose_text,
    date_time_input,
    day_or_time_input,
    normalize_text,
    strip_spaces,
)
from clustr.domain.errors import InvalidInput
from clustr.domain.models import State, Status
from clustr.imaging.formats import CONTENT_TYPES
from clustr.search.query import parse
from clustr.search.terms import Stemming

MAX_IDS = 10_000
MAX_TAGS = 20
LONGEST_TAG = 200
LONGEST_SEARCH = 500
LONGEST_FILTER_NAME = 300
MAX_PLUGIN_FILTERS = 20
LARGEST_NUMBER = 2**53 - 1
ANALYZER_NAME = Pattern(
    r"^[a-z][a-z0-9_]{0,99}$", error="A name is a-z, 0-9 and _, and begins with a letter."
)
# Descriptions by parameter; the values are booleans in a body and texts in a query.
BOOLEAN_DESCRIPTIONS = {
    "duplicate": "With `true` those beside which there is an older upload with the same bytes at "
    "this moment, outside of the trash; with `false` the others. Whatever is deleted by `true`, of "
    "the same bytes one upload stays.",
    "untagged": "With `true` those without any tag, with `false` those with at least one.",
    "undated": "With `true` those of which nothing says when they were taken (`taken_at` is null), "
    "with `false` the others.",
}
# Descriptions by parameter; the values are JSON numbers in a body and digits in a query.
LIMIT_DESCRIPTIONS = {
    "min_width": "Those at least so wide, in pixels.",
    "max_width": "Those at most so wide, in pixels.",
    "min_height": "Those at least so high, in pixels.",
    "max_height": "Those at most so high, in pixels.",
    "min_size": "Those of at least so many bytes.",
    "max_size": "Those of at most so many bytes.",
}


def upload_ids(description: str) -> fields.List[Any]:
    """Make a field for a list of upload ids."""
    return fields.List(
        fields.String(validate=HEX_ID),
        validate=validate.Length(1, MAX_IDS),
        metadata={"description": description, "example": [EXAMPLE_ID]},
    )


def limit_fields(field_type: type[fields.Integer], **more: Any) -> dict[str, fields.Integer]:
    """Make the fields for the limits of width, height and size, by name."""
    valid = validate.Range(0, LARGEST_NUMBER)
    return {
        name: field_type(validate=valid, metadata={"description": description}, **more)
        for name, description in LIMIT_DESCRIPTIONS.items()
    }


def boolean_fields(field_type: type[fields.Boolean], **more: Any) -> dict[str, fields.Boolean]:
    """Make the fields for the filters that are true or false, by name."""
    return {
        name: field_type(metadata={"description": description}, **more)
        for name, description in BOOLEAN_DESCRIPTIONS.items()
    }


def tags_field(description: str) -> fields.List[Any]:
    """Make a field for tags that uploads have, or have not."""
    return fields.List(
        fields.String(pre_load=normalize_text, validate=validate.Length(1, LONGEST_TAG)),
        validate=validate.Length(1, MAX_TAGS),
        metadata={"description": description},
    )


def check_search(text: str) -> None:
    """Raise for a search that cannot be understood, whatever the languages of its words."""
    try:
        parse(text, Stemming(()))
    except InvalidInput as error:
        raise ValidationError(error.errors["q"]) from error


class CommonFilterSchema(Schema):
    """The filters that have the same types in a body and in a query."""

    q = fields.String(
        pre_load=compose_text,
        validate=[validate.Length(1, LONGEST_SEARCH), check_search],
        metadata={
            "description": "Those in which all of this is found: words, in a tag, the caption or "
            "the original name, also in another form such as the plural, whatever the case of "
            'letters and the marks on them; every phrase in `"quotation marks"`, word for word; '
            "with `tag:`, `caption:` or `name:` before a word or a phrase, just there; with "
            "`taken:2024-07`, `before:2024` or `after:2024-07-31`, by the date where the picture "
            "was taken. A minus before any of these leaves out what has it. In Chinese, Japanese, "
            "Korean and Thai any part of a text is found.",
            "example": 'dogs "on a beach" -tag:cat taken:2024',
        },
    )
    status = fields.Enum(
        Status, by_value=fields.String, metadata={"description": "Those of this status."}
    )
    tag = tags_field(
        "Those with this tag, whatever the case of its letters; given several, with all of them."
    )
    tag_not = tags_field(
        "Those without this tag, whatever the case of its letters; given several, with none of "
        "them."
    )
    content_type = fields.String(
        pre_load=strip_spaces,
        validate=validate.OneOf(sorted(CONTENT_TYPES.values())),
        metadata={"description": "Those of this true type."},
    )
    sha256 = fields.String(
        validate=HEX_SHA256,
        metadata={
            "description": "Those with these bytes: all copies of an image, by its SHA-256.",
            "example": EXAMPLE_HASH,
        },
    )
    analyzer = fields.String(
        pre_load=strip_spaces,
        validate=ANALYZER_NAME,
        metadata={"description": "The analyzer that `analysis_status` is about."},
    )
    analysis_status = fields.Enum(
        State,
        by_value=fields.String,
        metadata={"description": "Those of which the analysis of `analyzer` is in this state."},
    )
    uploaded_after = date_time_input("Those uploaded at this time or later.")
    uploaded_before = date_time_input("Those uploaded before this time.")
    taken_after = day_or_time_input(
        "Those taken at this time or later; with a day alone (`2024-07-01`) those taken on that "
        "day or later, as the clock showed it there."
    )
    taken_before = day_or_time_input(
        "Those taken before this time, or before this day (`2024-08-01`) as the clock showed it."
    )
    updated_after = date_time_input(
        "Those of which anything changed at this time or later (`updated_at`)."
    )

    @validates_schema
    def check_analysis(self, filters: dict[str, Any], **_more: Any) -> None:
        for given, needed in (("analyzer", "analysis_status"), ("analysis_status", "analyzer")):
            if given in filters and needed not in filters:
                raise ValidationError(f"It goes with `{given}`; give both.", needed)


# mypy cannot know a class that `from_dict` makes.
class FilterSchema(
    BodySchema.from_dict(  # type: ignore[misc]
        limit_fields(fields.Integer, strict=True) | boolean_fields(StrictBoolean)
    ),
    CommonFilterSchema,
):
    """The filters of the listing in a body.

    Those of plugins with short names are checked by `clustr.api.plugin_filters`.
    """

    class Meta:
        unknown = INCLUDE

    analyses = fields.Dict(
        keys=fields.String(validate=validate.Length(1, LONGEST_FILTER_NAME)),
        values=fields.Raw(),
        validate=validate.Length(1, MAX_PLUGIN_FILTERS),
        metadata={
            "description": "Those whose results meet these filters of plugins, which the listing "
            "has as parameters. The names are without the `analyses.` at the beginning: "
            "`analyses.brightness.mean__gte=128` there is `brightness.mean__gte` here.",
        },
    )
