"""Who makes the current request, and whether its route is for them.

What a route needs is said beside it: `needs` of `Blueprint.route`, or the mark `needs` on a view.
"""

import hmac
from typing import TYPE_CHECKING, Any

from flask import Flask, g, has_request_context, request
from werkzeug.routing import Rule

from clustr.api.http.origins import SAFE_METHODS, is_own_page
from clustr.api.http.session_cookie import CSRF_HEADER, sent_session
from clustr.domain.access import NOBODY, NOTHING, UNRESTRICTED, Access, Scope, marked_needs
from clustr.domain.errors import (
    CsrfTokenRequired,
    KeyMistyped,
    KeyRefused,
    KeyRequired,
    MissingScope,
    SessionEnded,
    TwoKeys,
)
from clustr.domain.session_token import csrf_token_of
from clustr.services.authentication import Authentication

if TYPE_CHECKING:  # It asks this module who makes the request.
    from clustr.api.http.quotas import RequestQuotas

# What a plugin's route needs that says nothing itself.
PLUGIN_READS = frozenset({Scope.UPLOADS_READ})
PLUGIN_WRITES = frozenset({Scope.UPLOADS_WRITE})


def current_access() -> Access:
    """Who makes the current request, and what they may do."""
    access: Access = g.get("access", UNRESTRICTED)
    return access


def owner_of_request() -> str | None:
    """Whose uploads are the only ones there are for the current request; None: all are.

    Outside of requests all are, as for the rest of a plugin's code.
    """
    return current_access().only_uploads_of if has_request_context() else None


def require_scope(scope: Scope) -> None:
    """Check the scope of the current request, where a route's depends on what is sent.

    Raises:
        MissingScope: its key lacks it.
    """
    if scope not in current_access().scopes:
        raise MissingScope([scope])


def session_of_request() -> str | None:
    """The token of the session with which the current request comes; None: it has none."""
    session: str | None = g.get("session")
    return session


def endpoints_with_signatures(app: Flask) -> set[str]:
    """The routes that take signed addresses."""
    views = app.view_functions.items()
    return {name for name, view in views if getattr(view, "clustr_takes_signature", False)}


def needs_of(app: Flask, rule: Rule, method: str) -> frozenset[Scope]:
    """The scopes of which a request with this route and method needs one; none: it needs no key.

    Raises:
        LookupError: a route of ours says nothing of it.
    """
    view = app.view_functions[rule.endpoint]
    if method == "OPTIONS" and getattr(rule, "provide_automatic_options", False):
        return NOTHING  # Browsers send no key with the question whether they may (CORS).
    of_class = getattr(view, "view_class", None)  # a MethodView of a plugin
    handler = getattr(of_class, method.lower(), None)
    if handler is None and method == "HEAD":
        handler = getattr(of_class, "get", None)  # as Flask does
    for each in (handler, of_class, view):
        marked = marked_needs(each)
        if marked is not None:
            return marked
    if rule.endpoint.startswith("x-"):  # It is a plugin's.
        return PLUGIN_READS if method in SAFE_METHODS else PLUGIN_WRITES
    raise LookupError(f"the route {method} {rule.rule} does not say which scope it needs")


def require_keys(
    app: Flask, authentication: Authentication, quotas: "RequestQuotas", base_url: str
) -> None:
    """Have every request checked from now on; to be called when all routes are registered.

    A key in a header wins over the cookie of a session, which then is not looked at.

    Args:
        base_url: where clients reach the service; its pages are of that origin.
    """
    needs = {
        (rule.endpoint, method): needs_of(app, rule, method)
        for rule in app.url_map.iter_rules()
        for method in rule.methods or ()
    }

    # One page may show hundreds of pictures: as with signed addresses, they count for no limit.
    shown_by_pages = endpoints_with_signatures(app)

    def check() -> None:
        if "access" in g:  # It has a signed address.
            return
        g.access = NOBODY  # until its key has been checked
        rule = request.url_rule
        needed = NOTHING if rule is None else needs[rule.endpoint, request.method]
        if not needed:  # There is nothing at this path, or it is for everybody.
            quotas.check()
            return
        text = _sent_key(request.environ)
        if text is not None:
            g.access = _access_of_key(text, authentication, quotas)
            quotas.check()
        else:
            g.access = _access_of_session(base_url, authentication, quotas)
            if request.endpoint not in shown_by_pages:
                quotas.check()
        if needed.isdisjoint(g.access.scopes):
            raise MissingScope(needed)

    app.before_request(check)


def _access_of_key(text: str, authentication: Authentication, quotas: "RequestQuotas") -> Access:
    try:
        return authentication.access_of(text)
    except (KeyMistyped, KeyRefused):
        quotas.check_wrong_key()
        raise


def _access_of_session(
    base_url: str, authentication: Authentication, quotas: "RequestQuotas"
) -> Access:
    """What the session may do whose cookie a page of the service sends with the request.

    Raises:
        KeyRequired: there is no cookie, or the page is of another origin.
        SessionEnded: there is no such session any more.
        CsrfTokenRequired: the request changes something, and does not come with the token.
    """
    try:
        session = sent_session() if is_own_page(base_url) else None
        if session is None:
            raise KeyRequired
        access = authentication.access_of_session(session)
        if request.method not in SAFE_METHODS:
            sent = request.headers.get(CSRF_HEADER, "")
            if not hmac.compare_digest(sent.encode(), csrf_token_of(session).encode()):
                raise CsrfTokenRequired
    except (KeyRequired, SessionEnded, CsrfTokenRequired):
        quotas.check_without_key()
        raise
    g.session = session
    return access


def _sent_key(environ: dict[str, Any]) -> str | None:
    """The key of a request; another scheme than Bearer is for a proxy in front.

    Raises:
        TwoKeys: there are two different ones.
    """
    authorization: str = environ.get("HTTP_AUTHORIZATION", "")
    scheme, _, bearer = authorization.partition(" ")
    own: str | None = environ.get("HTTP_X_API_KEY")
    if scheme.lower() != "bearer":
        return own
    bearer = bearer.strip()
    if own is not None and own != bearer:
        raise TwoKeys
    return bearer
