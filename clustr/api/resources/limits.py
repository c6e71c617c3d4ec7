"""`/api/limits`: what is accepted, for programs that check files before they send them."""

from flask import Response, jsonify
from marshmallow import Schema, fields, validate

from clustr.api.http.access import current_access
from clustr.api.http.blueprint import Blueprint
from clustr.api.http.fields import number, text
from clustr.api.http.request_context import components
from clustr.api.schemas.access import HeldScopesSchema
from clustr.domain.access import ANY_SCOPE

AT_LEAST_ONE = validate.Range(min=1)

blueprint = Blueprint("limits", __name__, url_prefix="/api/limits", description="What is accepted")


class FormatSchema(Schema):
    """An image format that is accepted."""

    content_type = text("Its media type.", "image/jpeg", required=True)
    extensions = fields.List(
        fields.String(),
        required=True,
        metadata={
            "description": "Its usual extensions. The first is that of stored files; what counts "
            "is the content of a file and not its name.",
            "example": ["jpg", "jpeg"],
        },
    )


class AllowedSchema(HeldScopesSchema):
    """What the request that asks may do."""

    key = text(
        "The name of the key that the request came with; `null` when the service asks for none.",
        "website",
        required=True,
        allow_none=True,
    )
    rate = text(
        "How many requests it may send in a time; `null`: any number.",
        "60/min",
        required=True,
        allow_none=True,
    )
    bytes_per_day = number(
        "How many bytes it may upload in a day; `null`: any number.",
        5_000_000_000,
        required=True,
        allow_none=True,
        validate=AT_LEAST_ONE,
    )


class LimitsSchema(Schema):
    """What is accepted, and what the request that asks may do."""

    formats = fields.List(
        fields.Nested(FormatSchema),
        required=True,
        metadata={"description": "The image formats that are accepted."},
    )
    max_file_bytes = number(
        "Bytes of one file at most.", 52_428_800, required=True, validate=AT_LEAST_ONE
    )
    max_request_bytes = number(
        "Bytes of one request at most, with all its files.",
        1_048_576_000,
        required=True,
        validate=AT_LEAST_ONE,
    )
    max_files_per_request = number(
        "Files in one request at most.", 100, required=True, validate=AT_LEAST_ONE
    )
    max_image_pixels = number(
        "Pixels of one image at most: its width times its height.",
        50_000_000,
        required=True,
        validate=AT_LEAST_ONE,
    )
    allowed = fields.Nested(
        AllowedSchema, required=True, metadata={"description": "What this request may do."}
    )


@blueprint.route("", needs=ANY_SCOPE)
@blueprint.response(200, LimitsSchema)
def get_limits() -> Response:
    """See what is accepted: formats, sizes, pixels, and what your key may do

    A program that reads this can say what will be refused before it sends a file.
    """
    settings, access = components.settings, current_access()
    rate = access.rate if access.key_id else settings.rate_limit
    return jsonify(
        {
            "formats": [
                {
                    "content_type": format.content_type,
                    "extensions": [format.extension, *format.other_extensions],
                }
                for format in components.intake.formats
            ],
            "max_file_bytes": settings.max_upload_size,
            "max_request_bytes": settings.max_request_size,
            "max_files_per_request": settings.max_files_per_request,
            "max_image_pixels": settings.max_image_pixels,
            "allowed": {
                "key": access.name,
                "scopes": sorted(access.scopes),
                "own_only": access.own_only,
                "rate": str(rate) if rate else None,
                "bytes_per_day": access.bytes_per_day,
            },
        }
    )
