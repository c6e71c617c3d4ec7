"""`/api/session`: who asks, and the session that a page of the service has instead of a key."""

from flask import Response, g, jsonify

from clustr.api.http.access import current_access, session_of_request
from clustr.api.http.audit import recording
from clustr.api.http.blueprint import Blueprint
from clustr.api.http.fields import BodySchema, date_time, text
from clustr.api.http.origins import is_own_page
from clustr.api.http.quotas import count_wrong_key
from clustr.api.http.request_context import components
from clustr.api.http.session_cookie import remove_session, sent_session, set_session
from clustr.api.schemas.access import HeldScopesSchema
from clustr.domain.access import ANY_SCOPE, NOTHING, Access
from clustr.domain.audit import AuditAction
from clustr.domain.errors import KeyMistyped, KeyRefused, NotFound, OriginNotAllowed
from clustr.domain.key_text import EXAMPLE
from clustr.domain.session_token import csrf_token_of

blueprint = Blueprint("session", __name__, url_prefix="/api/session", description="Who asks")
# While anybody may do everything, there is nothing to log in to.
log_in_blueprint = Blueprint(
    "log_in", __name__, url_prefix="/api/session", description="Sessions of pages"
)


class LogInSchema(BodySchema):
    """The key with which a session is begun."""

    key = text("A key.", EXAMPLE, required=True)


class SessionSchema(HeldScopesSchema):
    """Who asks, and what they may do."""

    name = text(
        "The name of the key; `null` when the service asks for none.",
        "website",
        required=True,
        allow_none=True,
    )
    expires_at = date_time(
        "When the session ends at the latest, or the key; `null`: without end. A session ends "
        "earlier when it was not used for a day.",
        required=True,
        allow_none=True,
    )
    csrf_token = text(
        "What requests that change something need in the header `X-CSRF-Token`; `null` for those "
        "that come with a key, which need none.",
        "3b0c64f8d2a17e95c0b84d6f29e1a7533b0c64f8d2a17e95c0b84d6f29e1a753",
        required=True,
        allow_none=True,
    )


@blueprint.route("", needs=ANY_SCOPE)
@blueprint.response(200, SessionSchema)
@blueprint.alt_response(503, "SERVICE_UNAVAILABLE")
def get_session() -> Response:
    """See who you are to the service, and what you may do

    Whether the request comes with a key or with the cookie of a session. With `AUTH=off` everybody
    may do everything; with `AUTH=keys` a request with neither is answered 401.
    """
    return dump_session(current_access(), session_of_request())


@log_in_blueprint.route("", methods=["POST"], needs=NOTHING)
@log_in_blueprint.arguments(LogInSchema, example={"key": EXAMPLE})
@log_in_blueprint.response(
    201,
    SessionSchema,
    description="The session, whose cookie is set.",
    headers={"Set-Cookie": {"schema": {"type": "string"}, "description": "The cookie."}},
)
@log_in_blueprint.alt_response(401, "UNAUTHORIZED")
@log_in_blueprint.alt_response(403, "FORBIDDEN")
@log_in_blueprint.alt_response(503, "SERVICE_UNAVAILABLE")
def log_in(asked: dict[str, str]) -> Response:
    """Begin a session with a key

    For pages of the service itself. The cookie is `__Host-clustr_session` behind TLS and
    `clustr_session` without, `HttpOnly` and `SameSite=Strict`, and has nothing of the key in it.
    The session may do what the key may, and ends with it, when it was not used for a day, and after
    30 days. One that the page had before is ended.

    A wrong key is answered 401, as in a header, and counts as one there.
    """
    if not is_own_page(components.settings.base_url):
        raise OriginNotAllowed
    try:
        g.access = components.authentication.access_of(asked["key"])
    except (KeyMistyped, KeyRefused):
        count_wrong_key()
        raise
    with recording(AuditAction.LOG_IN):
        token, access = components.authentication.begin_session(asked["key"])
        if (before := sent_session()) is not None:
            components.authentication.end_session(before)
    response = dump_session(access, token)
    response.status_code = 201
    assert access.expires_at is not None  # Sessions end.
    set_session(response, token, access.expires_at)
    return response


@log_in_blueprint.route("", methods=["DELETE"], needs=ANY_SCOPE)
@log_in_blueprint.response(204, description="It has ended, and its cookie is removed.")
@log_in_blueprint.alt_response(404, "NOT_FOUND")
@log_in_blueprint.alt_response(503, "SERVICE_UNAVAILABLE")
def log_out() -> Response:
    """End the session

    Within 5 seconds no process takes its cookie any more. A request that comes with a key has no
    session, and is answered 404.
    """
    session = session_of_request()
    if session is None:
        raise NotFound("The request came with a key, and so with no session that could be ended.")
    with recording(AuditAction.LOG_OUT):
        components.authentication.end_session(session)
    response = Response(status=204)
    remove_session(response)
    return response


def dump_session(access: Access, session: str | None) -> Response:
    """Convert who asks to the shape of `SessionSchema`.

    Args:
        session: the token of their session.
    """
    response = jsonify(
        {
            "name": access.name,
            "scopes": sorted(access.scopes),
            "own_only": access.own_only,
            "expires_at": access.expires_at,
            "csrf_token": csrf_token_of(session) if session else None,
        }
    )
    response.headers["Cache-Control"] = "no-store"
    return response
