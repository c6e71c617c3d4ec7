"""`/uploads/<filename>`: the originals' bytes, without a look into the database."""

import os
import re

from flask import Response, request
from werkzeug.http import http_date
from werkzeug.wsgi import wrap_file

from clustr.api.blueprint import Blueprint
from clustr.api.current import parts
from clustr.api.schemas import EXAMPLE_FILENAME, FILENAME_PATTERN
from clustr.errors import NotFound
from clustr.images import CONTENT_TYPES

FILENAME = re.compile(rf"([0-9a-f]{{24}})\.({'|'.join(CONTENT_TYPES)})")

FOR_EVER = "public, max-age=31536000, immutable"

CONDITIONS = {
    "HTTP_RANGE",
    "HTTP_IF_RANGE",
    "HTTP_IF_MATCH",
    "HTTP_IF_NONE_MATCH",
    "HTTP_IF_MODIFIED_SINCE",
    "HTTP_IF_UNMODIFIED_SINCE",
}

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
    size = os.fstat(file.fileno()).st_size
    everybody = "*" in parts.settings.cors_origins
    response = Response(
        wrap_file(request.environ, file),
        headers=[
            ("Content-Type", CONTENT_TYPES[name[2]]),
            ("Content-Length", str(size)),
            ("ETag", f'"{name[1]}"'),
            ("Last-Modified", http_date(int(name[1][:8], 16))),
            ("Cache-Control", FOR_EVER),
            ("Accept-Ranges", "bytes"),
            ("Cross-Origin-Resource-Policy", "cross-origin" if everybody else "same-site"),
        ],
        direct_passthrough=True,
    )
    if CONDITIONS.isdisjoint(request.environ):  # Most have none, and looking for them takes time.
        return response
    return response.make_conditional(request, accept_ranges=True, complete_length=size)
