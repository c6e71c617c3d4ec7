"""`/uploads/<filename>`: the originals' bytes, without a look into the database."""

import re
from datetime import UTC, datetime

from flask import Response, request
from werkzeug.wsgi import wrap_file

from clustr.api.blueprint import Blueprint
from clustr.api.current import parts
from clustr.api.schemas import EXAMPLE_FILENAME, FILENAME_PATTERN
from clustr.errors import NotFound
from clustr.images import CONTENT_TYPES

FILENAME = re.compile(rf"([0-9a-f]{{24}})\.({'|'.join(CONTENT_TYPES)})")

BYTES = {"type": "string", "format": "binary"}
STORED_FILENAME = {
    "in": "path",
    "name": "stored_filename",
    "required": True,
    "schema": {"type": "string", "pattern": FILENAME_PATTERN},
    "description": "The `filename` of an upload, its `stored_filename` when it was accepted.",
    "example": EXAMPLE_FILENAME,
}

blueprint = Blueprint("files", __name__, description="The originals")


@blueprint.route("/<stored_filename>", parameters=[STORED_FILENAME])
@blueprint.response(200, BYTES, content_type="image/*", description="The image.")
@blueprint.alt_response(
    206, schema=BYTES, content_type="image/*", description="The range that was asked for."
)
@blueprint.alt_response(304, description="The client has it already.")
@blueprint.alt_response(404, "NOT_FOUND")
@blueprint.alt_response(416, "REQUESTED_RANGE_NOT_SATISFIABLE")
@blueprint.alt_response(503, "SERVICE_UNAVAILABLE")
def get_file(stored_filename: str) -> Response:
    """Get an original

    Its bytes never change, so it can be cached for ever. `Range`, `If-Range`, `If-None-Match` and
    `If-Modified-Since` are understood.
    """
    name = FILENAME.fullmatch(stored_filename)
    if name is None:
        raise NotFound(f"There is no file {stored_filename}.")
    file = parts.storage.open(stored_filename)
    file.seek(0, 2)
    size = file.tell()
    file.seek(0)
    response = Response(
        wrap_file(request.environ, file),
        mimetype=CONTENT_TYPES[name[2]],
        direct_passthrough=True,
    )
    response.content_length = size
    response.set_etag(name[1])
    response.last_modified = datetime.fromtimestamp(int(name[1][:8], 16), UTC)
    response.cache_control.public = True
    response.cache_control.max_age = 365 * 24 * 3600
    response.cache_control.immutable = True
    everybody = "*" in parts.settings.cors_origins
    response.headers["Cross-Origin-Resource-Policy"] = "cross-origin" if everybody else "same-site"
    return response.make_conditional(request, accept_ranges=True, complete_length=size)
