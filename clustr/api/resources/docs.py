"""The pages for the OpenAPI document, and the files that browsers and crawlers ask every site for.

Swagger UI is at /docs and ReDoc at /redoc.

Both load files from `static/` in `clustr/api/` alone, so no request leaves the host. The files of
other projects are listed in `static/ASSETS.toml`; the two scripts that start the pages are ours.
"""

import hashlib
from functools import cache
from pathlib import Path

from flask import Blueprint, Response, abort, current_app, send_from_directory

from clustr.api.http.pages import POLICY, make_page, send_asset
from clustr.domain.access import needs

# The names of the templates begin with `clustr_` because flask-smorest has a `redoc.html`, too, and
# Flask takes the first template of a name.
blueprint = Blueprint("docs", __name__, template_folder="../templates")

_FOLDER = Path(__file__).parent.parent / "static"

_ASSETS = {
    "swagger-ui.css",
    "swagger-ui-bundle.js",
    "swagger-ui-page.js",
    "redoc.standalone.js",
    "redoc-page.js",
}

# Both pages write styles into the document.
_POLICY = POLICY | {"style-src": "'self' 'unsafe-inline'"}


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
    return send_asset(_FOLDER, name)


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
    return make_page(template, policy, title=title, address_of=_asset_url)


def _asset_url(name: str) -> str:
    """Return the URL of an asset: relative, so that it works behind a proxy that adds a prefix.

    It changes with the content, because browsers cache the asset for a year.
    """
    return f"docs/assets/{name}?v={_digest(name)}"


@cache
def _digest(name: str) -> str:
    return hashlib.sha256((_FOLDER / name).read_bytes()).hexdigest()[:16]
