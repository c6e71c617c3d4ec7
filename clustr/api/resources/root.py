"""`GET /`: the gallery for browsers; for others whether the service and its database answer."""

from datetime import UTC, datetime

from flask import Response, jsonify

from clustr import __version__
from clustr.api.http.blueprint import Blueprint
from clustr.api.http.request_context import components, elapsed_milliseconds
from clustr.api.resources import gallery
from clustr.api.schemas.service import OnlineSchema
from clustr.domain.access import NOTHING
from clustr.domain.errors import DatabaseUnavailable

blueprint = Blueprint("status", __name__, description="Whether the service is there")


@blueprint.route("/", needs=NOTHING)
@blueprint.response(200, OnlineSchema)
def online() -> Response:
    """See whether the service is there

    Answers 200 also when the database is away, and says so. Where keys are needed, it says no
    versions, since it needs none; `/api/health` does.

    A browser, which asks for `text/html` first, gets the gallery, which is always at `/gallery`.
    """
    if gallery.is_wanted():
        response = gallery.gallery()
        response.vary.add("Accept")
        return response
    says_versions = components.settings.auth == "off"
    database = database_status()
    response = jsonify(
        {
            "status": "online",
            "timestamp": datetime.now(UTC),
            "version": __version__ if says_versions else None,
            "database": database if says_versions else database | {"version": None},
            "response_time": elapsed_milliseconds(),
        }
    )
    response.vary.add("Accept")
    return response


def database_status() -> dict[str, str | None]:
    try:
        return {"status": "connected", "version": components.database.describe()["version"]}
    except DatabaseUnavailable:
        return {"status": "disconnected", "version": None}
