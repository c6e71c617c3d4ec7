"""The shapes on the wire of filters: which uploads are wanted."""

from typing import Any

from marshmallow import Schema, ValidationError, fields, validate, validates_schema

from clustr.api.http.fields import (
    EXAMPLE_HASH,
    EXAMPLE_ID,
    HEX_ID,
    HEX_SHA256,
    BodySchema,
    Pattern,
    TrueOrFalse,
    as_stored,
    point_in_time,
    without_spaces,
)
from clustr.domain.models import State, Status
from clustr.imaging.images import CONTENT_TYPES

MOST_IDS = 10_000
MOST_TAGS = 20
LONGEST_TAG = 200
LARGEST_NUMBER = 2**53 - 1
ANALYZER_NAME = Pattern(
    r"^[a-z][a-z0-9_]{0,99}$", error="A name is a-z, 0-9 and _, and begins with a letter."
)
DUPLICATE = {
    "description": "With `true` those beside which there is an older upload with the same bytes at "
    "this moment, outside of the trash; with `false` the others. Whatever is deleted by `true`, of "
    "the same bytes one upload stays.",
}
# By the names of the limits, which are numbers of JSON in a body and digits in a query.
LIMITS = {
    "min_width": "Those at least so wide, in pixels.",
    "max_width": "Those at most so wide, in pixels.",
    "min_height": "Those at least so high, in pixels.",
    "max_height": "Those at most so high, in pixels.",
    "min_size": "Those of at least so many bytes.",
    "max_size": "Those of at most so many bytes.",
}


def upload_ids(description: str) -> fields.List:
    """Ids of uploads that a client sends."""
    return fields.List(
        fields.String(validate=HEX_ID),
        validate=validate.Length(1, MOST_IDS),
        metadata={"description": description, "example": [EXAMPLE_ID]},
    )


def limits(kind: type[fields.Integer], **more: Any) -> dict[str, fields.Integer]:
    """A field for each limit of width, height and size."""
    valid = validate.Range(0, LARGEST_NUMBER)
    return {
        name: kind(validate=valid, metadata={"description": description}, **more)
        for name, description in LIMITS.items()
    }


class CommonFilterSchema(Schema):
    """Filters that are the same in a body and in a query."""

    status = fields.Enum(
        Status, by_value=fields.String, metadata={"description": "Those of this status."}
    )
    tag = fields.List(
        fields.String(pre_load=as_stored, validate=validate.Length(1, LONGEST_TAG)),
        validate=validate.Length(1, MOST_TAGS),
        metadata={
            "description": "Those with this tag, whatever the case of its letters; given several, "
            "with all of them."
        },
    )
    content_type = fields.String(
        pre_load=without_spaces,
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
        pre_load=without_spaces,
        validate=ANALYZER_NAME,
        metadata={"description": "The analyzer that `analysis_status` is about."},
    )
    analysis_status = fields.Enum(
        State,
        by_value=fields.String,
        metadata={"description": "Those of which the analysis of `analyzer` is in this state."},
    )
    uploaded_after = point_in_time("Those uploaded at this time or later.")
    uploaded_before = point_in_time("Those uploaded before this time.")
    taken_after = point_in_time("Those taken at this time or later.")
    taken_before = point_in_time("Those taken before this time.")

    @validates_schema
    def check_analysis(self, filters: dict[str, Any], **_more: Any) -> None:
        for one, other in (("analyzer", "analysis_status"), ("analysis_status", "analyzer")):
            if one in filters and other not in filters:
                raise ValidationError(f"It goes with `{one}`; give both.", other)


class FilterSchema(BodySchema.from_dict(limits(fields.Integer, strict=True)), CommonFilterSchema):
    """Which uploads are looked at, by the filters of the listing."""

    duplicate = TrueOrFalse(metadata=DUPLICATE)
