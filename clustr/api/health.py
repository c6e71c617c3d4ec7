"""`/api/health`: how the service and everything that it needs are."""

from datetime import UTC, datetime
from typing import Any

from flask import Response, jsonify

from clustr.api.blueprint import Blueprint
from clustr.api.current import milliseconds_so_far, parts
from clustr.api.service_schemas import AliveSchema, HealthSchema, ServiceSchema
from clustr.errors import NotFound
from clustr.health import HEALTHY, Service, overall

SERVICE = {
    "in": "path",
    "name": "service",
    "required": True,
    "schema": {"type": "string", "minLength": 1},
    "description": "One of the names in `services` of `GET /api/health`.",
    "example": "database",
}

blueprint = Blueprint(
    "health",
    __name__,
    url_prefix="/api/health",
    description="How the service and everything that it needs are",
)


@blueprint.route("")
@blueprint.response(200, HealthSchema)
def health() -> Response:
    """See how the service and everything that it needs are

    `critical` without the database or the storage, `degraded` without something else. Always 200.
    """
    services = parts.health.services()
    return jsonify(
        {
            "status": overall(services),
            "timestamp": datetime.now(UTC),
            "services": {name: on_wire(service) for name, service in services.items()},
            "response_time": in_words(milliseconds_so_far()),
        }
    )


@blueprint.route("/live")
@blueprint.response(200, AliveSchema)
def live() -> Response:
    """See whether the process serves

    Asks nothing of any other service.
    """
    return jsonify({"status": "alive"})


@blueprint.route("/ready")
@blueprint.response(200, AliveSchema)
@blueprint.alt_response(503, schema=AliveSchema, description="Uploads cannot be taken now.")
def ready() -> Response:
    """See whether uploads can be taken

    That is so while the database and the storage are there; a queue that is away delays analyses.
    """
    if parts.health.ready():
        return jsonify({"status": "ready"})
    response = jsonify({"status": "not ready"})
    response.status_code = 503
    return response


@blueprint.route("/<service>", parameters=[SERVICE])
@blueprint.response(200, ServiceSchema)
@blueprint.alt_response(404, "NOT_FOUND")
def one_service(service: str) -> Response:
    """See how one service is

    The same as its member of `services` in `GET /api/health`, whose other services are not waited
    for. The names are those of that answer.
    """
    services = parts.health.services()
    if service not in services:
        raise NotFound(f"There is no service {service}; there are {', '.join(services)}.")
    return jsonify(on_wire(services[service]))


def on_wire(service: Service) -> dict[str, Any]:
    """A service in the shape of `ServiceSchema`."""
    reason = service.details.get("detail")
    error = {"error": reason} if reason and service.status != HEALTHY else {}
    took = {"response_time": in_words(service.milliseconds)}
    return {"status": service.status, **took, **service.details, **error}


def in_words(milliseconds: float) -> str:
    return f"{milliseconds:.1f} ms"
