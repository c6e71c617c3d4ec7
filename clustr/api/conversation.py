"""What is the same for every request and answer: id, log line, headers."""

import re
import time
from secrets import token_hex

import structlog
from flask import Flask, Response, g, request
from flask_cors import CORS
from werkzeug.middleware.proxy_fix import ProxyFix

from clustr import logs
from clustr.api.current import milliseconds_so_far
from clustr.settings import Settings

log = logs.logger("clustr.access")

REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
EXPOSED = "X-Request-ID, ETag, Location, Link, Retry-After"
HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "default-src 'none'; sandbox",
    "Referrer-Policy": "no-referrer",
}


def converse(app: Flask, settings: Settings) -> None:
    """Give every answer its id, its headers and its line in the log."""
    if settings.proxy_hops:
        hops = settings.proxy_hops
        app.wsgi_app = ProxyFix(app.wsgi_app, x_for=hops, x_proto=hops, x_host=hops, x_prefix=hops)
    allow_origins(app, settings.cors_origins)
    app.before_request(begin)
    app.after_request(end)


def allow_origins(app: Flask, origins: tuple[str, ...]) -> None:
    """Let pages of these origins call the API; with credentials only where they are named."""
    everybody = "*" in origins
    # Flask-CORS takes some texts for patterns, and finds those at the start of an origin, too.
    named = [re.compile(rf"{re.escape(origin)}\Z", re.IGNORECASE) for origin in origins]
    CORS(
        app,
        origins="*" if everybody else named,
        send_wildcard=everybody,
        vary_header=False,
        supports_credentials=not everybody,
        expose_headers=EXPOSED,
        max_age=600,
    )
    app.after_request(allow_everybody if everybody else vary_by_origin)


def allow_everybody(response: Response) -> Response:
    """Say at once what Flask-CORS would, which leaves such an answer alone: it takes its time."""
    if request.method != "OPTIONS":  # What a page asks beforehand has more to be answered.
        response.headers["Access-Control-Allow-Origin"] = "*"
        response.headers["Access-Control-Expose-Headers"] = EXPOSED
    return response


def vary_by_origin(response: Response) -> Response:
    """Tell caches that another origin gets another answer, whether or not this one is allowed."""
    response.vary.add("Origin")
    return response


def begin() -> None:
    """Note when the request came in, and take its id or make one."""
    g.clock = time.perf_counter
    g.began_at = g.clock()
    sent = request.environ.get("HTTP_X_REQUEST_ID", "")
    g.request_id = sent if REQUEST_ID.fullmatch(sent) else token_hex(16)
    structlog.contextvars.bind_contextvars(request_id=g.request_id)


def end(response: Response) -> Response:
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
