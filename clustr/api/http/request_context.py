"""What belongs to the request that is being answered."""

from typing import cast

from flask import current_app, g
from werkzeug.local import LocalProxy

from clustr.components import WebComponents

EXTENSION = "clustr"

components = cast(WebComponents, LocalProxy(lambda: current_app.extensions[EXTENSION]))


def request_id() -> str:
    """The id of the request, which is in its answer and in every log line about it."""
    return g.request_id


def milliseconds_so_far() -> float:
    """Milliseconds since the request came in."""
    return round((g.clock() - g.began_at) * 1000, 2)
