"""The pages for the OpenAPI document, and the files that browsers and crawlers ask every site for.

Swagger UI is at /docs and ReDoc at /redoc.

Both load files from `static/` in `clustr/api/` alone, so no request leaves the host. The files of
other projects are listed in `static/ASSETS.toml`; the two scripts that start the pages are ours.
"""

import hashlib
from functools import cache
from pathlib import Path

from flask import (
    Blueprint,
    Response,
    abort,
    current_app,
    make_response,
    render_template,
    send_from_directory,
)

from clustr.domain.access import needs

# The names of the templates begin with `clustr_` because flask-smorest has a `redoc.html`, too, and
# Flask takes the first template of a name.
blueprint = Blueprint("docs", __name__, template_folder="../templates")

_FOLDER = Path(__file__).parent.parent / "static"

# The types are stated because Python guesses them from tables of the machine, and with `nosniff` a
# browser refuses a script of another type.
_ASSETS = {
    "swagger-ui.css": "text/css",
    "swagger-ui-bundle.js": "text/javascript",
    "swagger-ui-page.js": "text/javascript",
    "redoc.standalone.js": "text/javascript",
    "redoc-page.js": "text/javascript",
}

_ONE_YEAR_SECONDS = 365 * 24 * 60 * 60

# Both pages write styles into the document, hence 'unsafe-inline' for styles, never for scripts.
_POLICY = {
    "default-src": "'none'",
    "script-src": "'self'",
    "style-src": "'self' 'unsafe-inline'",
    "img-src": "'self' data:",
    "connect-src": "'self'",
    "base-uri": "'none'",
    "form-action": "'none'",
    "frame-ancestors": "'none'",
}


@blueprint.get("/docs")
@needs()
def swagger_ui() -> Response:
    """Swagger UI: every operation, and a form to try it with."""
    # An image that was fetched with such a form is shown from a blob: address.
    return _page("clustr_docs.html", _POLICY | {"img-src": "'self' data: blob:"})


@blueprint.get("/redoc")
@needs()
def redoc() -> Response:
    """ReDoc: the same operations, to be read."""
    # Its search runs in a worker that it makes from a blob: address.
    return _page("clustr_redoc.html", _POLICY | {"worker-src": "blob:"})


@blueprint.get("/docs/assets/<name>")
@needs()
def asset(name: str) -> Response:
    """One of the files that the two pages load."""
    if name not in _ASSETS:
        abort(404)
    response = send_from_directory(_FOLDER, name, mimetype=_ASSETS[name], max_age=_ONE_YEAR_SECONDS)
    response.cache_control.public = True
    response.cache_control.immutable = True
    return response


@blueprint.get("/favicon.ico")
@needs()
def icon() -> Response:
    """The icon that browsers show beside the pages."""
    return send_from_directory(_FOLDER, "icon.svg", mimetype="image/svg+xml", max_age=86400)


@blueprint.get("/robots.txt")
@needs()
def robots() -> Response:
    """Nothing here is for search engines (RFC 9309)."""
    return Response("User-agent: *\nDisallow: /\n", mimetype="text/plain")


def _page(template: str, policy: dict[str, str]) -> Response:
    title = current_app.config["API_TITLE"]
    response = make_response(render_template(template, title=title, address_of=_asset_url))
    response.headers["Content-Security-Policy"] = "; ".join(
        f"{directive} {sources}" for directive, sources in policy.items()
    )
    return response


def _asset_url(name: str) -> str:
    """Return the URL of an asset: relative, so that it works behind a proxy that adds a prefix.

    It changes with the content, because browsers cache the asset for a year.
    """
    return f"docs/assets/{name}?v={_digest(name)}"


@cache
def _digest(name: str) -> str:
    return hashlib.sha256((_FOLDER / name).read_bytes()).hexdigest()[:16]
