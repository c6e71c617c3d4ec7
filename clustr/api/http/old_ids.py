"""Leads from the ids that uploads had in Clustr's predecessor to those that they have now."""

from flask import Response, request

from clustr.api.http.errors import handle_clustr_error
from clustr.api.http.request_context import components
from clustr.api.http.routing import PATH_OF_UPLOAD
from clustr.api.http.urls import moved_response
from clustr.domain.errors import ClustrError, NotFound


def handle_not_found(error: NotFound) -> Response:
    """Answer with 308 what asks for an upload by its old id, and with 404 what else is missing."""
    rule, names = request.url_rule, request.view_args
    if not rule or not names or not rule.rule.startswith(PATH_OF_UPLOAD):
        return handle_clustr_error(error)
    try:
        upload_id = components.database.old_ids.find(names["upload_id"])
    except ClustrError as unavailable:
        return handle_clustr_error(unavailable)
    moved = upload_id and rule.build({**names, "upload_id": upload_id})
    return moved_response(moved[1]) if moved else handle_clustr_error(error)
