"""What belongs to the request that is being answered."""

from typing import TYPE_CHECKING, cast

from flask import current_app, g
from werkzeug.local import LocalProxy

from clustr.parts import WebParts

if TYPE_CHECKING:
    from clustr.api.filters import Filters

EXTENSION = "clustr"
FILTERS = "clustr.filters"

parts = cast(WebParts, LocalProxy(lambda: current_app.extensions[EXTENSION]))
filters = cast("Filters", LocalProxy(lambda: current_app.extensions[FILTERS]))


def request_id() -> str:
    """The id of the request, which is in its answer and in every log line about it."""
    return g.request_id


def milliseconds_so_far() -> float:
    """Milliseconds since the request came in."""
    return round((g.clock() - g.began_at) * 1000, 2)
