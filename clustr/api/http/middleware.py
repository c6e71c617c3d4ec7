"""What is the same for every request and answer: id, log line, headers."""

import re
import time
from secrets import token_hex

import structlog
from flask import Flask, Response, g, request
from werkzeug.middleware.proxy_fix import ProxyFix

from clustr import logs
from clustr.api.http.origins import AllowedHosts, AllowedOrigins
from clustr.api.http.request_context import milliseconds_so_far
from clustr.settings import Settings

log = logs.logger("clustr.access")

REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "default-src 'none'; sandbox",
    "Referrer-Policy": "no-referrer",
}


def register_middleware(app: Flask, settings: Settings) -> None:
    """Give every answer its id, its headers and its line in the log, if the caller may call."""
    if settings.proxy_hops:
        hops = settings.proxy_hops
        app.wsgi_app = ProxyFix(app.wsgi_app, x_for=hops, x_proto=hops, x_host=hops, x_prefix=hops)
    hosts = AllowedHosts(settings)
    origins = AllowedOrigins(settings.cors_origins, settings.base_url)
    app.before_request(begin_request)
    app.before_request(hosts.check)
    app.before_request(origins.check)
    app.after_request(origins.add_headers)
    app.after_request(end_request)


def begin_request() -> None:
    """Note when the request came in, and take its id or make one."""
    g.clock = time.perf_counter
    g.began_at = g.clock()
    sent = request.environ.get("HTTP_X_REQUEST_ID", "")
    g.request_id = sent if REQUEST_ID.fullmatch(sent) else token_hex(16)
    structlog.contextvars.bind_contextvars(request_id=g.request_id)


def end_request(response: Response) -> Response:
    response.headers.add("X-Request-ID", g.request_id)
    own = set(response.headers.keys())  # A page of the documentation has a policy of its own.
    for name, value in HEADERS.items():
        if name not in own:
            response.headers.add(name, value)
    log.info(
        "request",
        method=request.method,
        path=request.path,
        status=response.status_code,
        duration_ms=milliseconds_so_far(),
    )
    return response
