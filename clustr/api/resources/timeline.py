"""`/api/timeline`: in which months, or on which days, there are uploads."""

from flask import Response, jsonify, request

from clustr.api.http.blueprint import Blueprint
from clustr.api.http.etags import send_page
from clustr.api.http.request_context import components
from clustr.api.plugin_filters import installed_filters
from clustr.api.resources.uploads import IF_NONE_MATCH_PARAMETER, PAGE_ETAG_HEADER
from clustr.api.schemas.timeline import TimelineSchema, dump_timeline
from clustr.database import filter_from_query
from clustr.domain.access import Scope
from clustr.domain.errors import InvalidInput, TooSlow

blueprint = Blueprint(
    "timeline", __name__, url_prefix="/api/timeline", description="What has been uploaded"
)


@blueprint.route("", needs=Scope.UPLOADS_READ, parameters=[IF_NONE_MATCH_PARAMETER])
@blueprint.response(200, TimelineSchema, headers=PAGE_ETAG_HEADER)
@blueprint.alt_response(304, description="It is as the client has it.")
@blueprint.alt_response(422, "UNPROCESSABLE_ENTITY")
@blueprint.alt_response(503, "SERVICE_UNAVAILABLE")
def get_timeline() -> Response:
    """See in which months there are uploads, or on which days

    It takes every filter of the list of uploads, and says how many meet all of them in each month:
    that in which the picture was taken as the clock showed it there, or where nothing is known of
    that, in which it was uploaded, in UTC. Each has a `cursor`, with which
    `GET /api/uploads?sort=-date` and the same filters begins there, so that a page can show any
    month without those before it. The cursor of a month leads to its newest upload of that time,
    whatever the count was.

    Up to 20,000 uploads are counted whenever you ask. More are counted now and then while somebody
    asks for them: an answer can be some time old, after a pause up to an hour, and to ask once more
    gives the newer one. What takes long to count is answered 503 first, and is counted meanwhile.
    """
    query, conditions = installed_filters.read_timeline_query()
    filters = filter_from_query(query, components.database.search_terms.stemming, conditions)
    try:
        timeline = components.database.timelines.of(filters, query["unit"])
    except TooSlow as error:
        if reason := installed_filters.explain_unindexed(request.args):
            raise InvalidInput(reason) from error
        raise
    return send_page(jsonify(dump_timeline(timeline, query["unit"])))
