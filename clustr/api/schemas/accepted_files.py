"""Schemas of `POST /api/upload`: what was accepted, and what was refused."""

from typing import Any

from marshmallow import Schema, fields, validate

from clustr.api.http.fields import (
    EXAMPLE_ID,
    HEX_ID,
    NOT_NEGATIVE,
    POSITIVE,
    Pattern,
    number,
    one_of,
    text,
)
from clustr.api.http.problem_schema import ProblemSchema
from clustr.api.http.urls import url_of
from clustr.api.schemas.uploads import (
    EXAMPLE_FILENAME,
    EXAMPLE_URL,
    FILENAME_PATTERN,
    NAME_LENGTH,
    STATUS_DESCRIPTION,
    content_type_field,
    duplicate_of_field,
)
from clustr.api.schemas.waiting import wait_for_field
from clustr.domain.models import Status
from clustr.services.intake import AcceptedFile

# Why a file was refused.
REFUSAL_CODES = (
    "unsupported_type",
    "too_large",
    "too_many_pixels",
    "undecodable",
    "empty",
    "no_files",
)


class RefusedFileSchema(Schema):
    """A file that was not accepted."""

    index = number(
        "Which file of the request it is, from 0; null when the request has no file.",
        1,
        required=True,
        allow_none=True,
        validate=NOT_NEGATIVE,
    )
    original_filename = text(
        "The name that the client gave it; null when the request has no file.",
        "notes.png",
        required=True,
        allow_none=True,
    )
    code = fields.String(
        required=True,
        validate=validate.OneOf(REFUSAL_CODES),
        metadata={"description": "Why it was refused.", "example": "unsupported_type"},
    )
    detail = text(
        "The same for people.",
        "The content is none of the image formats that are accepted: jpg, png.",
        required=True,
    )


class UploadProblemSchema(ProblemSchema):
    """The error of an upload request of which no file was accepted."""

    errors = fields.Raw(
        metadata={
            "description": "The refused files, in the order of the request; the first decides on "
            "`type` and `status`. Not there when the request as a whole was refused, but for an "
            "option or header that cannot be used: then by its name what is wrong.",
            "oneOf": [
                {"type": "array", "items": {"$ref": "#/components/schemas/RefusedFile"}},
                {
                    "type": "object",
                    "additionalProperties": {"type": "array", "items": {"type": "string"}},
                },
            ],
        },
    )


class AcceptedFileSchema(Schema):
    """A file that was accepted and is safely stored."""

    index = number(
        "Which file of the request it is, from 0.", 0, required=True, validate=NOT_NEGATIVE
    )
    id = text("The id of the upload.", EXAMPLE_ID, required=True, validate=HEX_ID)
    stored_filename = text(
        "Its name on the server: the id and the extension of the true type.",
        EXAMPLE_FILENAME,
        required=True,
        validate=Pattern(FILENAME_PATTERN),
    )
    preview_url = text("Where its bytes are.", EXAMPLE_URL, required=True)
    original_filename = text(
        "The name that the client gave it, without folders and control characters.",
        "cat.jpg",
        required=True,
        validate=NAME_LENGTH,
    )
    file_size = number("Bytes.", 125_000, required=True, validate=POSITIVE)
    content_type = content_type_field()
    status = one_of(Status, STATUS_DESCRIPTION)
    duplicate_of = duplicate_of_field()
    reused = fields.Boolean(
        required=True,
        metadata={
            "description": "Whether it is an upload that was there already, and the file was not "
            "kept: with `duplicates=reuse`.",
            "example": False,
        },
    )


class UploadedSchema(Schema):
    """The accepted and the refused files of a request."""

    message = text("A sentence.", "Successfully uploaded 2 files", required=True)
    data = fields.List(
        fields.Nested(AcceptedFileSchema),
        required=True,
        metadata={"description": "The files that were accepted, in the order of the request."},
    )
    errors = fields.List(
        fields.Nested(RefusedFileSchema),
        required=True,
        metadata={"description": "The files that were refused, in the order of the request."},
    )


class UploadOptionsSchema(Schema):
    """The query of an upload request."""

    duplicates = fields.String(
        load_default="keep",
        validate=validate.OneOf(["keep", "reuse"]),
        metadata={
            "description": "What to do with a file whose bytes are stored already: `keep` makes an "
            "upload of its own, `reuse` answers with the upload that is there and keeps nothing."
        },
    )
    wait_for = wait_for_field("all analyses of the uploads")


class UploadHeadersSchema(Schema):
    """The headers of an upload request."""

    # It has no example, because Swagger UI would send that key with every request.
    key = fields.String(
        data_key="Idempotency-Key",
        validate=Pattern("^[!-~]{1,255}$", error="Expected 1 to 255 visible ASCII characters."),
        metadata={
            "description": "A name for this request, new for each, such as a UUID: sent again with "
            "the same name and files, it is answered as before and stores nothing more.",
        },
    )


def dump_accepted(accepted: AcceptedFile) -> dict[str, Any]:
    """Convert an accepted file to the shape of `AcceptedFileSchema`."""
    upload = accepted.upload
    return {
        "index": accepted.index,
        "id": upload.id,
        "stored_filename": upload.filename,
        "preview_url": url_of(upload.filename),
        "original_filename": upload.original_name,
        "file_size": upload.size,
        "content_type": upload.content_type,
        "status": upload.status,
        "duplicate_of": upload.duplicate_of,
        "reused": accepted.reused,
    }
