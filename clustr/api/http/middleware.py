"""Runs before and after every request: id, log line, headers, checks of host and origin."""

import re
import time
from secrets import token_hex

import structlog
from flask import Flask, Response, g, request
from werkzeug.middleware.proxy_fix import ProxyFix

from clustr import logs
from clustr.api.http.origins import AllowedHosts, AllowedOrigins
from clustr.api.http.request_context import elapsed_milliseconds
from clustr.settings import Settings

log = logs.logger("clustr.access")

REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "default-src 'none'; sandbox",
    "Referrer-Policy": "no-referrer",
}


def register_middleware(app: Flask, settings: Settings) -> None:
    """Register the checks of host and origin, and the id, log line and headers of requests."""
    if settings.proxy_hops:
        hops = settings.proxy_hops
        proxied = ProxyFix(app.wsgi_app, x_for=hops, x_proto=hops, x_host=hops, x_prefix=hops)
        app.wsgi_app = proxied  # type: ignore[method-assign]  # Flask is to be wrapped so.
    hosts = AllowedHosts(settings)
    origins = AllowedOrigins(settings.cors_origins, settings.base_url)
    app.before_request(begin_request)
    app.before_request(hosts.check)
    app.before_request(origins.check)
    app.after_request(origins.add_headers)
    app.after_request(end_request)


def begin_request() -> None:
    """Note when the request came in, and take the client's id for it or make one."""
    g.clock = time.perf_counter
    g.began_at = g.clock()
    sent_id = request.environ.get("HTTP_X_REQUEST_ID", "")
    g.request_id = sent_id if REQUEST_ID.fullmatch(sent_id) else token_hex(16)
    structlog.contextvars.bind_contextvars(request_id=g.request_id)


def end_request(response: Response) -> Response:
    response.headers.add("X-Request-ID", g.request_id)
    # A page of the documentation has a policy of its own.
    own_headers = set(response.headers.keys())
    for name, value in HEADERS.items():
        if name not in own_headers:
            response.headers.add(name, value)
    log.info(
        "request",
        method=request.method,
        path=request.path,
        status=response.status_code,
        duration_ms=elapsed_milliseconds(),
    )
    return response
