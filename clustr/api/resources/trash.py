"""`/api/trash`: the removed uploads, which can still be read and restored."""

from typing import Any

from flask import Response, jsonify, request

from clustr.api.http.blueprint import Blueprint
from clustr.api.http.fields import UPLOAD_ID_PARAMETER, links_to_upload
from clustr.api.http.json_provider import page_response
from clustr.api.http.request_context import components
from clustr.api.http.signatures import sent_metadata
from clustr.api.resources.files import (
    DISPOSITION_HEADER,
    document_file_responses,
    file_response,
    headers_of_original,
    headers_of_thumbnail,
    preferred_extension,
)
from clustr.api.schemas.changes import (
    TrashedSchema,
    TrashPageSchema,
    TrashQuerySchema,
    dump_trash_page,
    dump_trashed,
)
from clustr.api.schemas.files import FileQuerySchema, ThumbnailQuerySchema
from clustr.api.schemas.listing import RESULTS_FIELD
from clustr.domain.access import Scope
from clustr.services.thumbnails import snap_size

RESPONSE_LINKS = links_to_upload(
    "$response.body#/data/0/id",
    {
        "get_trashed_upload": "The first upload of the page with its results.",
        "get_trashed_original": "The image under the name that it had.",
        "get_trashed_thumbnail": "A small copy.",
    },
)

blueprint = Blueprint(
    "trash", __name__, url_prefix="/api/trash", description="What was removed and can be restored"
)


@blueprint.route("", needs=Scope.UPLOADS_READ)
@blueprint.arguments(TrashQuerySchema, location="query")
@blueprint.doc(responses={200: {"links": RESPONSE_LINKS}})
@blueprint.response(200, TrashPageSchema)
@blueprint.alt_response(422, "UNPROCESSABLE_ENTITY")
@blueprint.alt_response(503, "SERVICE_UNAVAILABLE")
def list_trash(query: dict[str, Any]) -> Response:
    """List what is in the trash, what was removed last first

    Walk on with `cursor`, which costs the same at any depth.
    """
    results = RESULTS_FIELD in query.get("fields_", ())
    page = components.database.trash.page(query["limit"], query.get("cursor"), results)
    return page_response(dump_trash_page(page, query, components))


@blueprint.route(
    "/<upload_id:upload_id>", parameters=[UPLOAD_ID_PARAMETER], needs=Scope.UPLOADS_READ
)
@blueprint.response(200, TrashedSchema)
@blueprint.alt_response(404, "NOT_FOUND")
@blueprint.alt_response(503, "SERVICE_UNAVAILABLE")
def get_trashed_upload(upload_id: str) -> Response:
    """Get one upload of the trash with the results of its analyses

    `POST /api/uploads/{upload_id}/restore` brings it back.
    """
    trashed = components.database.trash.get(upload_id)
    return jsonify(dump_trashed(trashed, components, with_results=True))


@blueprint.route(
    "/<upload_id:upload_id>/file", parameters=[UPLOAD_ID_PARAMETER], needs=Scope.UPLOADS_READ
)
@blueprint.arguments(FileQuerySchema, location="query")
@document_file_responses("image/*", description="The image.", headers=DISPOSITION_HEADER)
@blueprint.alt_response(422, "UNPROCESSABLE_ENTITY")
def get_trashed_original(query: dict[str, int], upload_id: str) -> Response:
    """Get the original of an upload of the trash under its own name

    As of an upload that is not in the trash; it is there until it is removed for good.
    """
    upload = components.database.trash.get(upload_id).upload
    sent = components.originals.open_trashed(upload.filename, sent_metadata())
    headers = headers_of_original(upload, sent.variant, query["download"])
    return file_response(sent.content, sent.key, headers)


@blueprint.route(
    "/<upload_id:upload_id>/thumbnail", parameters=[UPLOAD_ID_PARAMETER], needs=Scope.UPLOADS_READ
)
@blueprint.arguments(ThumbnailQuerySchema, location="query")
@document_file_responses(
    "image/*", description="The thumbnail: `image/jpeg`, `image/webp` or `image/avif`."
)
@blueprint.alt_response(413, "REQUEST_ENTITY_TOO_LARGE")
@blueprint.alt_response(415, "UNSUPPORTED_MEDIA_TYPE")
@blueprint.alt_response(422, "UNPROCESSABLE_ENTITY")
def get_trashed_thumbnail(query: dict[str, int], upload_id: str) -> Response:
    """Get a thumbnail of an upload of the trash

    As of an upload that is not in the trash.
    """
    extension = preferred_extension(request.environ.get("HTTP_ACCEPT", ""))
    thumbnail = components.thumbnails.get_trashed(upload_id, snap_size(query["size"]), extension)
    headers = headers_of_thumbnail(thumbnail, extension, is_final=False)
    return file_response(thumbnail.content, thumbnail.key, headers)
