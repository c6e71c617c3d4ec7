"""`POST /api/upload`: images come in."""

from typing import Any

from flask import Response, jsonify, request
from werkzeug.exceptions import RequestEntityTooLarge
from werkzeug.formparser import FormDataParser

from clustr.api.blueprint import Blueprint
from clustr.api.current import parts, request_id
from clustr.api.errors import PROBLEM, TABLE, problem
from clustr.api.schemas import (
    EXAMPLE_HASH,
    EXAMPLE_ID,
    UploadedSchema,
    UploadProblemSchema,
    accepted_on_wire,
)
from clustr.errors import InvalidInput, NoFiles
from clustr.intake import Received, Reception, Refused

FIELD = "files"

# A form for uploads has few other fields, and small ones. The parser's own buffer of 64 KiB counts.
OTHER_PARTS = 20
OTHER_BYTES = 256 * 1024

BODY = {
    "required": True,
    "content": {
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "required": [FIELD],
                "properties": {
                    FIELD: {
                        "type": "array",
                        "minItems": 1,
                        "items": {"type": "string", "format": "binary"},
                        "description": "The images, each in a part of its own of this name.",
                    }
                },
            }
        }
    },
}
REFUSED = {
    "type": "urn:clustr:problem:unsupported_type",
    "title": "Unsupported type",
    "status": 415,
    "detail": "The content is none of the image formats that are accepted: jpg, png.",
    "instance": "/api/upload",
    "request_id": EXAMPLE_HASH[:32],
    "errors": [
        {
            "original_filename": "notes.png",
            "code": "unsupported_type",
            "detail": "The content is none of the image formats that are accepted: jpg, png.",
        }
    ],
}
ACCEPTED = {
    "message": "Successfully uploaded 1 file",
    "data": [
        {
            "id": EXAMPLE_ID,
            "stored_filename": f"{EXAMPLE_ID}.jpg",
            "preview_url": f"http://127.0.0.1:5000/uploads/{EXAMPLE_ID}.jpg",
            "original_filename": "cat.jpg",
            "file_size": 125000,
            "content_type": "image/jpeg",
            "status": "pending",
            "duplicate_of": None,
        }
    ],
    "errors": REFUSED["errors"],
}

blueprint = Blueprint("upload", __name__, description="Images come in")


def refusal(status: int, description: str) -> Any:
    """Document an answer that nothing was accepted."""
    return blueprint.alt_response(
        status,
        schema=UploadProblemSchema,
        content_type=PROBLEM,
        description=description,
        example=REFUSED,
    )


@blueprint.route("/api/upload", methods=["POST"])
@blueprint.doc(requestBody=BODY)
@blueprint.response(201, UploadedSchema, example=ACCEPTED)
@refusal(413, "The first file, or the request, is too large or has too many pixels.")
@refusal(415, "The first file is no image of an accepted format.")
@refusal(422, "There is no file, or the first one is empty or broken.")
@blueprint.alt_response(503, "SERVICE_UNAVAILABLE")
@blueprint.alt_response(507, "INSUFFICIENT_STORAGE")
def upload_files() -> Response:
    """Upload images

    Send one or more parts named `files`. Each is accepted or refused on its own: what was accepted
    is in `data` and safely stored, what was refused is in `errors`. When nothing was accepted, the
    answer is a problem with the status of the first refused file.
    """
    with parts.intake.receiving() as reception:
        received = receive(reception)
        uploads, refused = parts.intake.accept(received, request_id())
        errors = [refused_on_wire(refusal) for refusal in refused]
        if not uploads:
            first = refused[0].error
            return problem(TABLE[type(first)], str(first), errors=errors)
        message = f"Successfully uploaded {len(uploads)} file{'s' if len(uploads) > 1 else ''}"
        data = [accepted_on_wire(upload) for upload in uploads]
        response = jsonify({"message": message, "data": data, "errors": errors})
        response.status_code = 201
        return response


def receive(reception: Reception) -> list[Received]:
    """Read the request's files, straight to where they are stored."""
    settings = parts.settings
    request.max_content_length = settings.max_request_size
    if (request.content_length or 0) > settings.max_request_size:
        raise RequestEntityTooLarge(
            f"A request may have {settings.max_request_size} bytes at most."
        )
    parser = FormDataParser(
        stream_factory=lambda *_args, **_kwargs: reception.open(),
        max_form_memory_size=OTHER_BYTES,
        max_content_length=settings.max_request_size,
        max_form_parts=settings.max_files_per_request + OTHER_PARTS,
    )
    _, form, files = parser.parse(
        request.stream, request.mimetype, request.content_length, request.mimetype_params
    )
    sent = files.getlist(FIELD)
    if not sent:
        other = ", ".join(sorted({*form, *files})[:5])
        found = f"only {other}" if other else "none"
        raise NoFiles(f"Send the images as multipart/form-data in parts named files; got {found}.")
    if len(sent) > settings.max_files_per_request:
        problem = f"Send {settings.max_files_per_request} files at most in one request."
        raise InvalidInput({FIELD: [problem]})
    return [Received(file.filename or "", file.stream) for file in sent]


def refused_on_wire(refused: Refused) -> dict[str, str]:
    return {
        "original_filename": refused.original_name,
        "code": refused.error.code,
        "detail": str(refused.error),
    }
