"""`/api/trash`: the uploads that were removed and can be restored."""

from typing import Any

from flask import Response, jsonify

from clustr.api.blueprint import Blueprint
from clustr.api.change_schemas import TrashPageSchema, TrashQuerySchema, trashed_on_wire
from clustr.api.current import parts

blueprint = Blueprint(
    "trash", __name__, url_prefix="/api/trash", description="What was removed and can be restored"
)


@blueprint.route("")
@blueprint.arguments(TrashQuerySchema, location="query")
@blueprint.response(200, TrashPageSchema)
@blueprint.alt_response(422, "UNPROCESSABLE_ENTITY")
@blueprint.alt_response(503, "SERVICE_UNAVAILABLE")
def list_trash(query: dict[str, Any]) -> Response:
    """List what is in the trash, what was removed last first

    Walk on with `cursor`, which costs the same at any depth.
    """
    page = parts.catalog.trash.page(query["limit"], query.get("cursor"))
    days = parts.settings.trash_days
    return jsonify(
        {
            "data": [trashed_on_wire(each, days) for each in page.found],
            "limit": query["limit"],
            "next_cursor": page.next_cursor,
        }
    )
