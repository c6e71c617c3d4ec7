"""What the pages of the service have in common: their policy, and the files that they load."""

from http import HTTPStatus
from pathlib import Path
from typing import Any

from flask import Response, abort, make_response, render_template, send_from_directory

from clustr.api.http.compression import compress, is_to_be_compressed

# The types are stated because Python guesses them from tables of the machine, and with `nosniff` a
# browser refuses a script of another type.
CONTENT_TYPES = {".css": "text/css", ".js": "text/javascript"}

ONE_YEAR_SECONDS = 365 * 24 * 60 * 60

# Without any code or style in a page itself, and without any other host.
POLICY = {
    "default-src": "'none'",
    "script-src": "'self'",
    "style-src": "'self'",
    "img-src": "'self' data:",
    "connect-src": "'self'",
    "base-uri": "'none'",
    "form-action": "'none'",
    "frame-ancestors": "'none'",
}


def make_page(template: str, policy: dict[str, str], **values: Any) -> Response:
    """Render a page.

    Args:
        template: the name of its template.
        policy: its Content-Security-Policy, sources by directive.
        values: what the template needs.
    """
    response = make_response(render_template(template, **values))
    response.headers["Content-Security-Policy"] = "; ".join(
        f"{directive} {sources}" for directive, sources in policy.items()
    )
    return response


def send_asset(folder: Path, name: str) -> Response:
    """Send a script or style that browsers may keep for a year; 404 for any other file.

    It is compressed for who takes that: all of a page is on the way before anything of it is shown.
    """
    content_type = CONTENT_TYPES.get(Path(name).suffix)
    if content_type is None:
        abort(404)
    response = send_from_directory(folder, name, mimetype=content_type, max_age=ONE_YEAR_SECONDS)
    response.cache_control.public = True
    response.cache_control.immutable = True
    response.vary.add("Accept-Encoding")
    if response.status_code == HTTPStatus.OK and is_to_be_compressed(response):
        response.direct_passthrough = False  # It is read here, and not sent as a file.
        compress(response)
        # The tag is that of the other form; there is also the time of the last change.
        response.headers.remove("ETag")
    return response
