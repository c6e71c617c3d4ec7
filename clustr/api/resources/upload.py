"""`POST /api/upload`: receives images."""

from collections.abc import Mapping
from typing import IO, Any

from flask import Response, jsonify, request
from werkzeug.exceptions import RequestEntityTooLarge
from werkzeug.wsgi import get_input_stream

from clustr.api.http.access import current_access
from clustr.api.http.blueprint import Blueprint
from clustr.api.http.errors import (
    ERROR_TABLE,
    PROBLEM_CONTENT_TYPE,
    example_problem,
    problem_response,
)
from clustr.api.http.etags import refuse_if_match
from clustr.api.http.fields import EXAMPLE_ID, links_to_upload
from clustr.api.http.multipart import (
    Form,
    LimitExceeded,
    UnreadableBody,
    read_file,
    read_form,
    too_large_message,
)
from clustr.api.http.preferences import (
    PREFER_PARAMETER,
    PREFERENCE_APPLIED_HEADER,
    WaitPreference,
)
from clustr.api.http.quotas import UPLOAD_PATH, count_bytes
from clustr.api.http.request_context import components, request_id
from clustr.api.schemas.accepted_files import (
    UploadedSchema,
    UploadHeadersSchema,
    UploadOptionsSchema,
    UploadProblemSchema,
    dump_accepted,
)
from clustr.api.schemas.upload_metadata import METADATA_FIELD, edits_from_metadata
from clustr.domain.access import Scope
from clustr.domain.edits import NO_EDIT
from clustr.domain.errors import (
    DatabaseUnavailable,
    NoFiles,
    RefusedFile,
    TooManyPixels,
    Undecodable,
    UnsupportedType,
)
from clustr.domain.models import Status, status_of
from clustr.services.intake import (
    AcceptedFile,
    IntakeOptions,
    ReceivedFile,
    RejectedFile,
    UploadSession,
)
from clustr.storage import IncomingFile

FORM_FIELD = "files"
HOW_TO_SEND = (
    "Send the images as multipart/form-data, each in a part named files with a file name, or one "
    "image as the body with its type, such as image/jpeg"
)

REQUEST_BODY = {
    "required": True,
    "content": {
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "required": [FORM_FIELD],
                "properties": {
                    FORM_FIELD: {
                        "type": "array",
                        "minItems": 1,
                        "items": {"type": "string", "format": "binary"},
                        "description": "The images, each in a part of its own of this name.",
                    },
                    # Swagger UI sends the example, or without one the word “string”.
                    METADATA_FIELD: {
                        "type": "string",
                        "description": "JSON: what you say of each image, as in `PATCH "
                        "/api/uploads/{upload_id}`: a list with an object or null for each, in "
                        "their order, or an object for one image, such as "
                        '`{"caption": "our cat", "tags": {"add": ["cat"]}}`. Send it before the '
                        "images. An empty one is as none.",
                        "example": "",
                    },
                },
            }
        }
    },
}
EXAMPLE_UNSUPPORTED_TYPE = {
    "index": 1,
    "original_filename": "notes.pdf",
    "code": "unsupported_type",
    "detail": "This is a file of the kind PDF, which is none of the image formats that are "
    "accepted: jpg, png.",
}
EXAMPLE_TOO_MANY_PIXELS = {
    "index": 0,
    "original_filename": "poster.png",
    "code": "too_many_pixels",
    "detail": "The image has more than 50 megapixels (50000000 pixels), the most accepted.",
}
EXAMPLE_UNDECODABLE = {
    "index": 0,
    "original_filename": "cat.jpg",
    "code": "undecodable",
    "detail": "The image is broken or incomplete.",
}
RESPONSE_LINKS = links_to_upload(
    "$response.body#/data/0/id",
    {
        "get_upload": "The upload, and how far its analyses are.",
        "get_original": "The image under the name that it had.",
        "get_thumbnail": "A small copy.",
        "edit_upload": "Say what is to be seen.",
        "remove_upload": "Put it into the trash.",
        "list_analyses_of_upload": "Its analyses.",
    },
) | {
    "get_file": {
        "operationId": "get_file",
        "parameters": {"stored_filename": "$response.body#/data/0/stored_filename"},
        "description": "The image's bytes.",
    },
    "list_uploads": {
        "operationId": "list_uploads",
        "description": "The listing, which begins with it.",
    },
}
EXAMPLE_ACCEPTED = {
    "message": "Successfully uploaded 1 file",
    "data": [
        {
            "index": 0,
            "id": EXAMPLE_ID,
            "stored_filename": f"{EXAMPLE_ID}.jpg",
            "preview_url": f"http://127.0.0.1:5000/uploads/{EXAMPLE_ID}.jpg",
            "original_filename": "cat.jpg",
            "file_size": 125000,
            "content_type": "image/jpeg",
            "status": "pending",
            "duplicate_of": None,
            "reused": False,
        }
    ],
    "errors": [EXAMPLE_UNSUPPORTED_TYPE],
}

blueprint = Blueprint("upload", __name__, description="Images come in")
blueprint.before_request(refuse_if_match)


def document_refusal(
    error: type[RefusedFile], description: str, refused_file: Mapping[str, Any]
) -> Any:
    """Document a response to a request of which no file was accepted."""
    row = ERROR_TABLE[error]
    return blueprint.alt_response(
        row.status,
        schema=UploadProblemSchema,
        content_type=PROBLEM_CONTENT_TYPE,
        description=description,
        example=example_problem(row, refused_file["detail"], "/api/upload", errors=[refused_file]),
    )


@blueprint.route(
    UPLOAD_PATH, methods=["POST"], parameters=[PREFER_PARAMETER], needs=Scope.UPLOADS_WRITE
)
@blueprint.arguments(UploadOptionsSchema, location="query")
@blueprint.arguments(UploadHeadersSchema, location="headers")
@blueprint.doc(requestBody=REQUEST_BODY, responses={201: {"links": RESPONSE_LINKS}})
@blueprint.response(
    201,
    UploadedSchema,
    description="What came of each.",
    example=EXAMPLE_ACCEPTED,
    headers=PREFERENCE_APPLIED_HEADER,
)
@document_refusal(
    TooManyPixels,
    "The first file has too many bytes (`too_large`) or pixels (`too_many_pixels`); without "
    "`errors`: the request as a whole is too large or has too many files.",
    EXAMPLE_TOO_MANY_PIXELS,
)
@document_refusal(
    UnsupportedType,
    "The first file is no image of an accepted format, whatever its name, or of a kind of it that "
    "cannot be read here, which `detail` names (`unsupported_type`).",
    EXAMPLE_UNSUPPORTED_TYPE,
)
@document_refusal(
    Undecodable,
    "The first file has no bytes (`empty`) or is broken (`undecodable`), or the request has no "
    "part named `files` with a file name (`no_files`).",
    EXAMPLE_UNDECODABLE,
)
@blueprint.alt_response(409, "CONFLICT")
@blueprint.alt_response(412, "PRECONDITION_FAILED")
@blueprint.alt_response(503, "SERVICE_UNAVAILABLE")
@blueprint.alt_response(507, "INSUFFICIENT_STORAGE")
def upload_files(options: dict[str, Any], headers: dict[str, str]) -> Response:
    """Upload images

    Send one or more parts named `files`, or one image as the body with its type (`curl
    --data-binary @cat.jpg -H 'Content-Type: image/jpeg'`) and, if you like, its name in
    `Content-Disposition` (`attachment; filename="cat.jpg"`).

    Each is accepted or refused on its own: what was accepted is in `data` and safely stored, what
    was refused is in `errors`, with a `code`: it is no image of an accepted format
    (`unsupported_type`), has too many bytes (`too_large`) or pixels (`too_many_pixels`), is broken
    (`undecodable`) or has no bytes (`empty`). When nothing was accepted, the answer is a problem
    with the status of the first refused file.

    What you say of the images goes along in a part `metadata`, best before them, and is stored with
    them: JSON, a list with an object or null for each image in their order (an object for one), as
    in `PATCH /api/uploads/{upload_id}`: `[{"caption": "our cat", "tags": {"add": ["cat"]}}, null]`.
    When it cannot be used, nothing is stored (422). An upload that is answered again, by
    `Idempotency-Key` or `duplicates=reuse`, keeps the words that it has.

    What counts is the content of a file, not its name and not the type it is sent with. The limits
    are settings: by default 50 MiB and 50 million pixels for a file, and 100 files in a request.

    To try again safely after a broken connection, give the request an `Idempotency-Key`: the same
    files under the same key are stored once, and answered as the first time. A key stands for the
    uploads that it was last used for: while one of them is in the trash or gone, its file is stored
    again under the key, which stands for the new upload from then on, also when the one in the
    trash is restored. One that is restored before that is the answer again.

    A client that would rather not store the same bytes twice asks with `duplicates=reuse`, or
    beforehand at `POST /api/uploads/exists`. Of several who do so at once with the same new bytes
    one stores them; the others are answered with that upload.

    While too many clients are sending, the answer is 503 (`too_busy`): try again after the seconds
    of `Retry-After`.

    The analyses go on after the answer: `GET /api/uploads/{upload_id}` shows how far they are. With
    `Prefer: wait=10` the answer comes when they have ended; the `status` of each upload is then as
    they have left it. The uploads are stored before it is waited.
    """
    preference = WaitPreference(options.get("wait_for"))
    with components.intake.receiving() as session:
        try:
            received = receive_files(session)
        except NoFiles as error:
            return refusal_response([RejectedFile(None, None, error)])
        finally:
            count_bytes(session.received_bytes)
        intake_options = IntakeOptions(
            headers.get("key"), options["duplicates"] == "reuse", current_access().name
        )
        accepted, refused = components.intake.accept(received, request_id(), intake_options)
        if not accepted:
            return refusal_response(refused)
    statuses = wait_for_analyses(accepted, preference)
    message = f"Successfully uploaded {len(accepted)} file{'s' if len(accepted) > 1 else ''}"
    data = [dump_accepted(file) | statuses.get(file.upload.id, {}) for file in accepted]
    errors = [dump_refused(file) for file in refused]
    response = jsonify({"message": message, "data": data, "errors": errors})
    response.status_code = 201
    return preference.add_to(response)


def wait_for_analyses(
    accepted: list[AcceptedFile], preference: WaitPreference
) -> dict[str, dict[str, Status]]:
    """Wait for the analyses of new uploads as the request prefers.

    Returns:
        the `status` that each upload has then, by its id. One that is removed meanwhile has none,
        and none has one when the database does not answer: the uploads are stored all the same.
    """
    upload_ids = [file.upload.id for file in accepted]
    try:
        preference.wait_for(upload_ids)
        if not preference.is_applied:
            return {}
        found = components.database.analyses.of_uploads(upload_ids)
    except DatabaseUnavailable:
        return {}
    return {
        upload_id: {"status": status_of([analysis.state for analysis in analyses])}
        for upload_id, analyses in found.items()
    }


def refusal_response(refused: list[RejectedFile]) -> Response:
    """Respond that no file was accepted; the first refused file decides the status."""
    first = refused[0].error
    errors = [dump_refused(file) for file in refused]
    return problem_response(ERROR_TABLE[type(first)], str(first), errors=errors)


def receive_files(session: UploadSession) -> list[ReceivedFile]:
    """Read the request's files and write them to storage as they arrive.

    Raises:
        NoFiles: there are none, or the body cannot be read.
        RequestEntityTooLarge: there are too many files, or the body exceeds another limit.
        InvalidInput: what is said of the files cannot be used.
    """
    settings = components.settings
    # `request.stream` would copy the whole body twice to count its bytes.
    stream = get_input_stream(request.environ)
    try:
        if (request.content_length or 0) > settings.max_request_size:
            raise LimitExceeded(too_large_message(settings.max_request_size))
        if is_single_file(request.mimetype):
            return [receive_file(session, stream)]
        form = read_form(
            stream,
            request.headers.get("Content-Type", ""),
            FORM_FIELD,
            METADATA_FIELD,
            session.open,
            settings.max_files_per_request,
            settings.max_request_size,
        )
    except LimitExceeded as error:
        raise RequestEntityTooLarge(str(error)) from error
    except UnreadableBody as error:
        raise NoFiles(f"{HOW_TO_SEND}; got {error}.") from error
    if not form.files:
        raise NoFiles(f"{HOW_TO_SEND}; got {describe_parts(form)}.")
    edits = [NO_EDIT] * len(form.files)
    if form.metadata:
        edits = edits_from_metadata(form.metadata, len(form.files))
    return [
        ReceivedFile(name, file, edit) for (name, file), edit in zip(form.files, edits, strict=True)
    ]


def is_single_file(content_type: str) -> bool:
    """Return whether a body of this type is one file and not a form."""
    return content_type.startswith("image/") or content_type == "application/octet-stream"


def receive_file(session: UploadSession, stream: IO[bytes]) -> ReceivedFile:
    """Read a body that is one file."""
    disposition = request.headers.get("Content-Disposition", "")
    file, max_bytes = session.open(), components.settings.max_request_size
    return ReceivedFile(
        read_file(stream, request.content_length, disposition, file, max_bytes), file
    )


def describe_parts(form: Form[IncomingFile]) -> str:
    """Describe the parts of a form without files, for the error."""
    if FORM_FIELD in form.other_names:
        return "a part named files without a file name"
    return f"only {', '.join(sorted(set(form.other_names))[:5])}" if form.other_names else "none"


def dump_refused(refused: RejectedFile) -> dict[str, str | int | None]:
    """Convert a refused file to the shape of `RefusedFileSchema`."""
    return {
        "index": refused.index,
        "original_filename": refused.original_name,
        "code": refused.error.code,
        "detail": str(refused.error),
    }
