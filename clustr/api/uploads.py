"""`/api/uploads`: what has been uploaded."""

from flask import Response, jsonify

from clustr.api.blueprint import Blueprint
from clustr.api.current import filters, parts
from clustr.api.schemas import (
    EXAMPLE_ID,
    ID_PATTERN,
    ExistingSchema,
    HashesSchema,
    UploadPageSchema,
    UploadSchema,
    upload_on_wire,
)
from clustr.errors import TooSlow

# Where a client goes on from a page, for programs that read the document.
LINKS = {
    "list_uploads": {
        "operationId": "list_uploads",
        "parameters": {"cursor": "$response.body#/next_cursor"},
        "description": "What follows, while `next_cursor` is not null.",
    },
    "get_upload": {
        "operationId": "get_upload",
        "parameters": {"upload_id": "$response.body#/data/0/id"},
        "description": "The first upload of the page with its results.",
    },
    "get_file": {
        "operationId": "get_file",
        "parameters": {"stored_filename": "$response.body#/data/0/filename"},
        "description": "The bytes of the first image of the page.",
    },
}

ID = {
    "in": "path",
    "name": "upload_id",
    "required": True,
    "schema": {"type": "string", "pattern": ID_PATTERN},
    "description": "The id of the upload.",
    "example": EXAMPLE_ID,
}

blueprint = Blueprint(
    "uploads", __name__, url_prefix="/api/uploads", description="What has been uploaded"
)


@blueprint.route("")
@blueprint.doc(responses={200: {"links": LINKS}})
@blueprint.response(200, UploadPageSchema)
@blueprint.alt_response(422, "UNPROCESSABLE_ENTITY")
@blueprint.alt_response(503, "SERVICE_UNAVAILABLE")
def list_uploads() -> Response:
    """List uploads, newest first

    Walk on with `cursor`, which costs the same at any depth and neither skips nor repeats what was
    there before; or ask for a `page`. Results of analyses are left out.

    Filters are those of the plugins that are installed. An upload is listed when it meets all of
    them; one whose analysis has no result yet meets none. The last good result counts, whatever has
    become of the analysis since.
    """
    query, conditions = filters.read()
    number = None if "cursor" in query else query.get("page", 1)
    try:
        page = parts.catalog.uploads.page(
            query["limit"], number or 1, query.get("cursor"), conditions
        )
    except TooSlow as error:
        raise filters.too_slow(conditions, error) from error
    return jsonify(
        {
            "data": [upload_on_wire(upload, with_results=False) for upload in page.uploads],
            "total": page.total,
            "page": number,
            "limit": query["limit"],
            "next_cursor": page.next_cursor,
        }
    )


@blueprint.route("/exists", methods=["POST"])
@blueprint.arguments(HashesSchema)
@blueprint.response(200, ExistingSchema)
@blueprint.alt_response(503, "SERVICE_UNAVAILABLE")
def find_existing(wanted: dict[str, list[str]]) -> Response:
    """Ask which files are stored already, by their SHA-256

    So that a client need not send what is known.
    """
    hashes = wanted["sha256"]
    known = parts.catalog.uploads.first_with_bytes(hashes)
    return jsonify({"data": {each: known.get(each) for each in hashes}})


@blueprint.route("/<upload_id:upload_id>", parameters=[ID])
@blueprint.response(200, UploadSchema)
@blueprint.alt_response(404, "NOT_FOUND")
@blueprint.alt_response(422, "UNPROCESSABLE_ENTITY")
@blueprint.alt_response(503, "SERVICE_UNAVAILABLE")
def get_upload(upload_id: str) -> Response:
    """Get one upload with the results of its analyses"""
    return jsonify(upload_on_wire(parts.catalog.uploads.get(upload_id), with_results=True))
