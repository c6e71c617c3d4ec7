"""`/api/uploads/<id>/similar`: uploads whose vectors are near to that of one."""

from flask import Response, jsonify, request

from clustr.api.http.blueprint import Blueprint
from clustr.api.http.fields import UPLOAD_ID_PARAMETER
from clustr.api.http.request_context import components
from clustr.api.plugin_filters import installed_filters
from clustr.api.schemas.listed_fields import FieldSelection
from clustr.api.schemas.similar import SimilarPageSchema, dump_neighbors
from clustr.database import filter_from_query
from clustr.domain.access import Scope
from clustr.domain.errors import InvalidInput, TooSlow

TOO_FEW_NEAR = (
    "Too few of the nearest uploads meet the filters, and too many others do to compare them in "
    "time; say how far they may be, or narrow the filters down."
)

blueprint = Blueprint(
    "similar", __name__, url_prefix="/api/uploads", description="What has been uploaded"
)


@blueprint.route(
    "/<upload_id:upload_id>/similar", parameters=[UPLOAD_ID_PARAMETER], needs=Scope.UPLOADS_READ
)
@blueprint.response(200, SimilarPageSchema)
@blueprint.alt_response(404, "NOT_FOUND")
@blueprint.alt_response(422, "UNPROCESSABLE_ENTITY")
@blueprint.alt_response(503, "SERVICE_UNAVAILABLE")
@blueprint.alt_response(507, "INSUFFICIENT_STORAGE")
def list_similar(upload_id: str) -> Response:
    """List the uploads that are similar to one

    `by` names a vector of an analyzer. All uploads that have one are compared, and the nearest come
    first, each with its `distance`; at the same distance those that were uploaded earlier. They can
    be narrowed down by every filter of the list of uploads.

    An upload that has no such vector (yet) is answered 404 with a `type` of its own, `no_result`.
    After a start the first search reads all vectors from the database: until that is done the
    answer is 503 with `Retry-After`.
    """
    query, conditions = installed_filters.read_similar_query()
    field = components.nearest.field(query["by"])
    filters = filter_from_query(query, components.database.search_terms.stemming, conditions)
    upload = components.database.uploads.get(upload_id)
    try:
        neighbors = components.nearest.find(
            field,
            components.nearest.vector_of(upload, field),
            query["limit"],
            filters,
            query.get("max_distance"),
            besides=upload_id,
        )
    except TooSlow as error:
        reason = installed_filters.explain_unindexed(request.args)
        raise InvalidInput(reason or {"max_distance": [TOO_FEW_NEAR]}) from error
    selection = FieldSelection(components, query.get("fields_"))
    documents = components.database.listing.of_ids(
        [each.upload_id for each in neighbors], selection.projection
    )
    data = dump_neighbors(neighbors, documents, selection)
    return jsonify({"data": data, "by": field.name, "metric": field.vector.metric})
