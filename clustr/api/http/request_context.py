"""The current request: its id, its duration so far, and the components of its app."""

from typing import cast

from flask import current_app, g
from werkzeug.local import LocalProxy

from clustr.api.http.access import owner_of_request
from clustr.components import WebComponents

EXTENSION = "clustr"

# They are bound to the uploads that the request may see: views have no way to any others.
components = cast(
    WebComponents,
    LocalProxy(lambda: current_app.extensions[EXTENSION].seen_by(owner_of_request())),
)


def request_id() -> str:
    """Return the id of the request, which is in its response and in all its log lines."""
    current_id: str = g.request_id
    return current_id


def elapsed_milliseconds() -> float:
    """Return the milliseconds since the request came in."""
    seconds: float = g.clock() - g.began_at
    return round(seconds * 1000, 2)
