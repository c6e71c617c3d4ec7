"""The current request: its id, its duration so far, and the components of its app."""

from typing import cast

from flask import current_app, g
from werkzeug.local import LocalProxy

from clustr.components import WebComponents

EXTENSION = "clustr"

components = cast(WebComponents, LocalProxy(lambda: current_app.extensions[EXTENSION]))


def request_id() -> str:
    """Return the id of the request, which is in its response and in all its log lines."""
    current_id: str = g.request_id
    return current_id


def elapsed_milliseconds() -> float:
    """Return the milliseconds since the request came in."""
    seconds: float = g.clock() - g.began_at
    return round(seconds * 1000, 2)
