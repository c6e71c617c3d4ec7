"""The gallery: the page of `clustr/web/`, at `/gallery`, and at `/` for browsers."""

import hashlib
from functools import cache
from pathlib import Path

from flask import Blueprint, Response, request

import clustr.web
from clustr.api.http.pages import CONTENT_TYPES, POLICY, make_page, send_asset
from clustr.domain.access import needs

blueprint = Blueprint("gallery", __name__, template_folder="../../web/templates")

_FOLDER = Path(clustr.web.__path__[0]) / "static"


@blueprint.get("/gallery")
@needs()
def gallery() -> Response:
    """The page. What it shows it asks the API for, with the session of whoever sees it."""
    response = make_page(
        "clustr_gallery.html",
        POLICY | {"img-src": "'self' blob: data:"},
        folder=f"gallery/{_digest()}",
        modules=[path.name for path in _files() if path.suffix == ".js"],
    )
    response.cache_control.no_cache = True
    return response


@blueprint.get("/gallery/<digest>/<name>")
@needs()
def asset(digest: str, name: str) -> Response:
    """One of the modules and styles of the page, below a name that changes with any of them."""
    response = send_asset(_FOLDER, name)
    if digest != _digest():  # Of another version of the service: it is not to be kept.
        response.cache_control.clear()
        response.cache_control.no_store = True
    return response


def is_wanted() -> bool:
    """Whether the client of this request would rather have the page than JSON: it is a browser."""
    accepted = request.accept_mimetypes
    return accepted.best_match(["application/json", "text/html"]) == "text/html"


@cache
def _digest() -> str:
    """Identify the files of the page, which load each other by their names."""
    return hashlib.sha256(b"".join(path.read_bytes() for path in _files())).hexdigest()[:16]


@cache
def _files() -> list[Path]:
    """The modules and styles of the page."""
    return sorted(path for path in _FOLDER.iterdir() if path.suffix in CONTENT_TYPES)
