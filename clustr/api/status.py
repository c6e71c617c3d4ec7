"""`GET /`: a sign of life."""

from datetime import UTC, datetime

from flask import Response, jsonify

from clustr import __version__
from clustr.api.blueprint import Blueprint
from clustr.api.current import milliseconds_so_far, parts
from clustr.api.service_schemas import OnlineSchema
from clustr.errors import DatabaseUnavailable

blueprint = Blueprint("status", __name__, description="Whether the service is there")


@blueprint.route("/")
@blueprint.response(200, OnlineSchema)
def online() -> Response:
    """See whether the service is there

    Answers 200 also when the database is away, and says so.
    """
    return jsonify(
        {
            "status": "online",
            "timestamp": datetime.now(UTC),
            "version": __version__,
            "database": database(),
            "response_time": milliseconds_so_far(),
        }
    )


def database() -> dict[str, str | None]:
    try:
        return {"status": "connected", "version": parts.catalog.describe()["version"]}
    except DatabaseUnavailable:
        return {"status": "disconnected", "version": None}
