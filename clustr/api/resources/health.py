"""`/api/health`: the health of the service and of all services that it needs."""

import base64
import hashlib
from datetime import UTC, datetime
from typing import Any

from flask import Response, current_app, jsonify, make_response, render_template
from markupsafe import Markup

from clustr import __version__
from clustr.api.http.access import current_access
from clustr.api.http.blueprint import Blueprint
from clustr.api.http.request_context import components, elapsed_milliseconds
from clustr.api.schemas.service import AliveSchema, HealthSchema, ServiceSchema
from clustr.domain.access import ANY_SCOPE, NOTHING, Scope
from clustr.domain.errors import NotFound
from clustr.services.health import HEALTHY, ServiceHealth, overall_status

SERVICE_PARAMETER = {
    "in": "path",
    "name": "service",
    "required": True,
    "schema": {"type": "string", "minLength": 1},
    "description": "One of the names in `services` of `GET /api/health`.",
    "example": "database",
}

# Inlined in the page; the content security policy allows this style by its hash, and no script.
STYLE = Markup("""
body { font: 1rem/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 60rem; padding: 0 1rem; }
table { border-collapse: collapse; width: 100%; }
th, td { border-bottom: 1px solid #bbb; padding: .4rem .8rem .4rem 0; text-align: left; }
td, th { overflow-wrap: anywhere; vertical-align: top; }
.healthy { color: #196127; }
.degraded { color: #8a5300; }
.unhealthy, .critical { color: #b3261e; font-weight: bold; }
""")
STYLE_HASH = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
PAGE_POLICY = "; ".join(
    [
        "default-src 'none'",
        f"style-src 'sha256-{STYLE_HASH}'",
        "img-src data:",  # an empty icon, so that browsers ask for none
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    ]
)

FOR_ADMIN = ("url", "detail", "not_loaded")

blueprint = Blueprint(
    "health",
    __name__,
    url_prefix="/api/health",
    description="How the service and everything that it needs are",
)


@blueprint.route("", needs=ANY_SCOPE)
@blueprint.response(200, HealthSchema)
def health() -> Response:
    """See how the service and everything that it needs are

    `critical` without the database or the storage, `degraded` without something else. With
    `AUTH=keys` it is 503 while the database is away, because the key cannot be checked; else it is
    always 200.
    Of keys, those with `admin` alone are told the address of a service (`url`) and what was said
    there (`detail`, `error`). A key with `own` is told no numbers of uploads, nor how much room
    they leave.
    """
    services = components.health.check_services()
    return jsonify(
        {
            "status": overall_status(services),
            "timestamp": datetime.now(UTC),
            "services": {name: dump_service(service) for name, service in services.items()},
            "response_time": format_milliseconds(elapsed_milliseconds()),
        }
    )


@blueprint.route("/live", needs=NOTHING)
@blueprint.response(200, AliveSchema)
def live() -> Response:
    """See whether the process serves

    Asks nothing of any other service.
    """
    return jsonify({"status": "alive"})


@blueprint.route("/ready", needs=NOTHING)
@blueprint.response(200, AliveSchema)
@blueprint.alt_response(503, schema=AliveSchema, description="Uploads cannot be taken now.")
def ready() -> Response:
    """See whether uploads can be taken

    That is so while the database and the storage are there; a queue that is away delays analyses.
    With `AUTH=keys` it is not before there is a key to come with.
    """
    if components.health.is_ready():
        return jsonify({"status": "ready"})
    response = jsonify({"status": "not ready"})
    response.status_code = 503
    return response


@blueprint.route("/page", needs=ANY_SCOPE)
@blueprint.response(
    200, {"type": "string"}, content_type="text/html", description="The page, in HTML."
)
def page() -> Response:
    """See it as a page

    What `GET /api/health` says, for people with a browser. It needs no JavaScript.
    """
    services = components.health.check_services()
    response = make_response(
        render_template(
            "clustr_health.html",
            style=STYLE,
            status=overall_status(services),
            services={name: dump_service(service) for name, service in services.items()},
            timestamp=datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S UTC"),
            version=__version__,
            as_text=detail_text,
        )
    )
    response.headers["Content-Security-Policy"] = PAGE_POLICY
    response.headers["Cache-Control"] = "no-store"
    return response


@blueprint.route("/<service>", parameters=[SERVICE_PARAMETER], needs=ANY_SCOPE)
@blueprint.response(200, ServiceSchema)
@blueprint.alt_response(404, "NOT_FOUND")
def one_service(service: str) -> Response:
    """See how one service is

    The same as its member of `services` in `GET /api/health`. The names are those of that answer.
    """
    services = components.health.check_services()
    if service not in services:
        raise NotFound(f"There is no service {service}; there are {', '.join(services)}.")
    return jsonify(dump_service(services[service]))


def dump_service(service: ServiceHealth) -> dict[str, Any]:
    """Convert the health of a service to the shape of `ServiceSchema`.

    Where a service is and what it said is for operators: it may name hosts of the inner network.
    """
    details = dict(service.details)
    if Scope.ADMIN not in current_access().scopes:
        details = {name: details[name] for name in details if name not in FOR_ADMIN}
    reason = details.get("detail")
    error = {"error": reason} if reason and service.status != HEALTHY else {}
    response_time = {"response_time": format_milliseconds(service.milliseconds)}
    return {"status": service.status, **response_time, **details, **error}


def detail_text(value: Any) -> str:
    """Format a detail of a service for people: a text as it is, anything else as JSON."""
    return value if isinstance(value, str) else current_app.json.dumps(value)


def format_milliseconds(milliseconds: float) -> str:
    return f"{milliseconds:.1f} ms"
