"""Schemas of the queries for files, thumbnails and dimensions."""

from marshmallow import Schema, fields, validate

from clustr.api.http.fields import (
    EXAMPLE_ID,
    HEX_ID,
    QueryInteger,
    text,
)
from clustr.api.schemas.uploads import DimensionsSchema
from clustr.services.thumbnails import DEFAULT_SIZE, SIZES


class DimensionsQuerySchema(Schema):
    """The query of `/api/debug/dimensions`."""

    id = text("The id of an upload.", EXAMPLE_ID, required=True, validate=HEX_ID)


class FileQuerySchema(Schema):
    """The query of an original."""

    download = QueryInteger(
        load_default=0,
        validate=validate.Range(0, 1),
        metadata={"description": "1 to have browsers save it instead of showing it."},
    )


class ThumbnailQuerySchema(Schema):
    """The query of a thumbnail."""

    size = QueryInteger(
        load_default=DEFAULT_SIZE,
        validate=validate.Range(SIZES[0], SIZES[-1]),
        metadata={
            "description": "Pixels of the longer side at most; the next larger of "
            f"{', '.join(map(str, SIZES))} is taken."
        },
    )
    v = QueryInteger(
        metadata={
            "description": "How the thumbnail was made, as the `thumbnail_url` has it: with it the "
            "answer can be cached for ever, without it or with an older one for some minutes."
        },
    )


METADATA = "Of a signed address: what is sent of metadata, as `FILES_METADATA` has it."
SHARE = "Of a signed address: the `id` of the share that it belongs to."
EXPIRES = "Of a signed address: when it expires, in seconds since 1970."
SIGNATURE = "Of a signed address: the signature of all before it."


class SignedThumbnailQuerySchema(ThumbnailQuerySchema):
    """The query of a thumbnail, whose address may be signed."""

    share = fields.String(metadata={"description": SHARE})
    expires = QueryInteger(metadata={"description": EXPIRES})
    signature = fields.String(metadata={"description": SIGNATURE})


class ComparedDimensionsSchema(Schema):
    """The stored dimensions of an upload, and those of its file."""

    id = text("The id of the upload.", EXAMPLE_ID, required=True, validate=HEX_ID)
    stored = fields.Nested(DimensionsSchema, required=True)
    read = fields.Nested(DimensionsSchema, required=True)
    match = fields.Boolean(
        required=True, metadata={"description": "Whether both are the same.", "example": True}
    )
