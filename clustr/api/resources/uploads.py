"""`/api/uploads`: lists, searches and reads uploads."""

from typing import Any
from urllib.parse import urlencode

from flask import Response, jsonify, request

from clustr.api.http.blueprint import Blueprint
from clustr.api.http.etags import add_etag, send_page, send_unless_known
from clustr.api.http.fields import UPLOAD_ID_PARAMETER, links_to_upload
from clustr.api.http.json_provider import page_response
from clustr.api.http.preferences import (
    PREFER_PARAMETER,
    PREFERENCE_APPLIED_HEADER,
    WaitPreference,
)
from clustr.api.http.request_context import components
from clustr.api.http.urls import base_url
from clustr.api.plugin_filters import installed_filters
from clustr.api.schemas.listed_fields import FieldSelection, dump_page, dump_search_page
from clustr.api.schemas.listing import UploadPageSchema, explain_too_slow, sort_from_query
from clustr.api.schemas.uploads import EXAMPLE_ETAG, ExistingSchema, HashesSchema, UploadSchema
from clustr.api.schemas.waiting import WaitQuerySchema
from clustr.database import Page, filter_from_query, reading_record
from clustr.domain.access import Scope
from clustr.domain.errors import InvalidInput, TooSlow

RESPONSE_LINKS = links_to_upload(
    "$response.body#/data/0/id",
    {
        "edit_upload": "Say what is to be seen on the first upload of the page.",
        "list_analyses_of_upload": "The analyses of the first upload of the page.",
        "get_upload": "The first upload of the page with its results.",
    },
) | {
    "list_uploads": {
        "operationId": "list_uploads",
        "parameters": {"cursor": "$response.body#/next_cursor"},
        "description": "What follows, while `next_cursor` is not null.",
    },
    "get_file": {
        "operationId": "get_file",
        "parameters": {"stored_filename": "$response.body#/data/0/filename"},
        "description": "The bytes of the first image of the page.",
    },
}

IF_NONE_MATCH_PARAMETER = {
    "in": "header",
    "name": "If-None-Match",
    "schema": {"type": "string"},
    "description": "The `ETag` of an answer before: what is still the same is not sent.",
}
ETAG_HEADER = {
    "ETag": {
        "schema": {"type": "string"},
        "description": "Of the whole answer, for `If-None-Match`. It begins with the `version` of "
        "the upload, which is all that `If-Match` compares.",
        "example": EXAMPLE_ETAG,
    }
}
PAGE_ETAG_HEADER = {
    "ETag": {
        "schema": {"type": "string"},
        "description": "Of the whole answer, for `If-None-Match`.",
        "example": '"6b0320122fce94d4"',
    }
}
LINK_HEADER = {
    "Link": {
        "schema": {"type": "string"},
        "description": "Where the `first` page is, and the `next` and `prev` one as far as there "
        "is one and it is known (RFC 8288).",
    }
}

blueprint = Blueprint(
    "uploads", __name__, url_prefix="/api/uploads", description="What has been uploaded"
)


@blueprint.route("", needs=Scope.UPLOADS_READ, parameters=[IF_NONE_MATCH_PARAMETER])
@blueprint.doc(responses={200: {"links": RESPONSE_LINKS}})
@blueprint.response(200, UploadPageSchema, headers=LINK_HEADER | PAGE_ETAG_HEADER)
@blueprint.alt_response(304, description="It is as the client has it.")
@blueprint.alt_response(422, "UNPROCESSABLE_ENTITY")
@blueprint.alt_response(503, "SERVICE_UNAVAILABLE")
def list_uploads() -> Response:
    """List uploads, by default the newest first

    Walk on with `cursor`, which costs the same at any depth: an upload that meets the filters and
    keeps its place in the order while you walk comes exactly once, whatever else comes or goes. By
    `upload_time` and `size` every upload keeps its place. By `name`, `date` and `taken_at` one that
    is given another meanwhile can come twice, or not at all: know uploads by their `id`. By `q`, in
    the order of the score, one whose caption, tags, name or date change is left out of what
    follows. Or ask for a `page`. Results of analyses are left out, unless `fields` asks for them.

    An upload is listed when it meets all filters. A filter for what something is goes with `sort`
    by `upload_time`, `date`, `size` and `name`, a range with the sort by its own field; what else
    is not found by looking at 50,000 uploads, nor within 300 milliseconds, is refused, and the
    answer says what goes together.

    To follow uploads while they are analyzed, ask for their `ids` and send the `ETag` of the answer
    before as `If-None-Match`: as long as nothing has changed, the answer is 304 and empty. With
    `Accept-Encoding: gzip` it is compressed, and has an `ETag` of its own.

    What has changed since you looked has `updated_after` the latest `updated_at` that you know, in
    the order `sort=updated_at`: what was uploaded, edited, analyzed or restored, by jobs, too. Ask
    from some seconds before that, because a change can become visible later than one after it, and
    come to what you know already. What was removed is in `GET /api/trash`, the newest first.

    Further filters are those of the plugins that are installed. An upload whose analysis has no
    result yet meets none of them. The last good result counts, whatever has become of the analysis
    since.
    """
    query, conditions = installed_filters.read_query()
    filters = filter_from_query(query, components.database.search_terms.stemming, conditions)
    sort = sort_from_query(query, filters)
    selection = FieldSelection(components, query.get("fields_"))
    number = None if "cursor" in query else query.get("page", 1)
    page_arguments = query["limit"], number or 1, query.get("cursor")
    try:
        if filters.search:
            search_page = components.database.search.page(
                filters,
                *page_arguments,
                sort if "sort" in query else None,
                selection.projection | {"search.terms": 1},
            )
            page = search_page.page
            body = dump_search_page(search_page, filters.search, selection, number, query["limit"])
        else:
            page = components.database.listing.page(
                *page_arguments, filters, sort, selection.projection
            )
            body = dump_page(page, selection, number, query["limit"])
    except TooSlow as error:
        if filters.tag_keys and not components.database.tag_keys.are_complete():
            raise  # The query is fine: the index of tags is still being built.
        reason = installed_filters.explain_unindexed(request.args)
        of_plugins = filter(installed_filters.parameters.__contains__, request.args)
        raise InvalidInput(reason or explain_too_slow(query, sort, of_plugins)) from error
    response = page_response(body)
    response.headers["Link"] = link_header(page, number)
    return send_page(response)


@blueprint.route("/exists", methods=["POST"], needs=Scope.UPLOADS_READ)
@blueprint.arguments(HashesSchema)
@blueprint.response(200, ExistingSchema)
@blueprint.alt_response(503, "SERVICE_UNAVAILABLE")
def find_existing(body: dict[str, list[str]]) -> Response:
    """Ask which files are stored already, by their SHA-256

    So that a client need not send what is known.
    """
    hashes = body["sha256"]
    known = components.database.uploads.first_ids_by_hash(hashes)
    return jsonify({"data": {sha256: known.get(sha256) for sha256 in hashes}})


@blueprint.route(
    "/<upload_id:upload_id>",
    parameters=[UPLOAD_ID_PARAMETER, IF_NONE_MATCH_PARAMETER, PREFER_PARAMETER],
    needs=Scope.UPLOADS_READ,
)
@blueprint.arguments(WaitQuerySchema, location="query")
@blueprint.response(200, UploadSchema, headers=ETAG_HEADER | PREFERENCE_APPLIED_HEADER)
@blueprint.alt_response(304, description="It is as the client has it.")
@blueprint.alt_response(404, "NOT_FOUND")
@blueprint.alt_response(503, "SERVICE_UNAVAILABLE")
def get_upload(query: dict[str, Any], upload_id: str) -> Response:
    """Get one upload with the results of its analyses

    Who has it already sends its `ETag` as `If-None-Match` and is answered 304 until it changes.
    Instead of asking again and again for an upload that is `pending`, send `Prefer: wait=10`: the
    answer comes when its analyses have ended.
    """
    preference = WaitPreference(query.get("wait_for"))
    preference.wait_for([upload_id])
    document = components.database.listing.get(upload_id)
    with reading_record(upload_id):
        body = FieldSelection(components, None, with_results=True).dump(document)
        response = add_etag(jsonify(body), body["version"])
    return preference.add_to(send_unless_known(response))


def link_header(page: Page, number: int | None) -> str:
    """Build the header `Link` of a page (RFC 8288), with the same filters and order."""
    parameters = [(k, v) for k, v in request.args.items(multi=True) if k not in ("page", "cursor")]
    path = f"{base_url()}{request.path}"

    def link(relation: str, **position: object) -> str:
        query = urlencode([*parameters, *position.items()])
        return f'<{path}?{query}>; rel="{relation}"' if query else f'<{path}>; rel="{relation}"'

    links = [link("first")]
    if number is not None and number > 1:
        links.append(link("prev", page=number - 1))
    if page.next_cursor:
        links.append(link("next", cursor=page.next_cursor))
    return ", ".join(links)
