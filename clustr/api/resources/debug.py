"""`/api/debug`: help in finding faults; registered only with `DEBUG_ENDPOINTS`."""

from typing import Any

from flask import Response, jsonify

from clustr.api.http.blueprint import Blueprint
from clustr.api.http.request_context import components
from clustr.api.schemas.files import ComparedDimensionsSchema, DimensionsQuerySchema
from clustr.domain.access import Scope
from clustr.imaging import images
from clustr.imaging.formats import FORMATS

blueprint = Blueprint("debug", __name__, url_prefix="/api/debug", description="For debugging")


@blueprint.route("/dimensions", needs=Scope.ADMIN)
@blueprint.arguments(DimensionsQuerySchema, location="query")
@blueprint.response(200, ComparedDimensionsSchema)
@blueprint.alt_response(404, "NOT_FOUND")
@blueprint.alt_response(413, "REQUEST_ENTITY_TOO_LARGE")
@blueprint.alt_response(415, "UNSUPPORTED_MEDIA_TYPE")
@blueprint.alt_response(503, "SERVICE_UNAVAILABLE")
def compare_dimensions(query: dict[str, Any]) -> Response:
    """Compare the stored dimensions of an upload with those that its file has now

    The file is decoded for it; what is wrong with one that cannot be is said as for an upload.
    """
    upload = components.database.uploads.get(query["id"])
    with components.storage.open(upload.filename) as file:
        image = images.inspect(file, FORMATS)
    stored = {"width": upload.width, "height": upload.height}
    read = {"width": image.width, "height": image.height}
    return jsonify({"id": upload.id, "stored": stored, "read": read, "match": stored == read})
