"""JSON on the wire, written by orjson: times in UTC with a `Z`, everything else as it is.

Every time has six digits after its second, so that times have the same order as texts. orjson
leaves a fraction of zero out: such a time is written by us.
"""

import re
from datetime import UTC, datetime
from typing import Any

import orjson
from flask import Response, jsonify
from flask.json.provider import JSONProvider

from clustr.database import log_foreign

# A time without a zone is one of MongoDB's, which are in UTC.
OPTIONS = orjson.OPT_NAIVE_UTC | orjson.OPT_UTC_Z | orjson.OPT_NON_STR_KEYS


# The end of a time without a fraction. To look for the Z first takes a quarter of the time.
WHOLE_SECOND = re.compile(rb'Z(?<=:[0-9][0-9]Z)"')


def with_fraction(time: datetime | None) -> datetime | str | None:
    """A time as orjson is to be told it: one at a whole second as text.

    `dumps` sees to all times by itself, and takes many times longer where it has to: a listing,
    which has a thousand of them, does it before.
    """
    return time if time is None or time.microsecond else _written(time)


def _written(time: Any) -> str:
    if not isinstance(time, datetime):
        raise TypeError(f"{type(time).__name__} cannot be written as JSON.")
    in_utc = time.astimezone(UTC).replace(tzinfo=None) if time.tzinfo else time
    return f"{in_utc.isoformat(timespec='microseconds')}Z"


def dumps(value: Any) -> bytes:
    """A value as JSON."""
    written = orjson.dumps(value, option=OPTIONS)
    if WHOLE_SECOND.search(written):  # or a text of somebody that ends like one
        return orjson.dumps(value, _written, OPTIONS | orjson.OPT_PASSTHROUGH_DATETIME)
    return written


class Provider(JSONProvider):
    """Makes Flask read and write JSON with orjson."""

    def dumps(self, obj: Any, **_kwargs: Any) -> str:
        return dumps(obj).decode()

    def loads(self, s: str | bytes, **_kwargs: Any) -> Any:
        return orjson.loads(s)

    def response(self, *args: Any, **kwargs: Any) -> Response:
        body = dumps(self._prepare_response_obj(args, kwargs))
        return self._app.response_class(body, mimetype="application/json")


def page_response(wire: dict[str, Any]) -> Response:
    """An answer with a page, without those uploads in it that are no JSON.

    Such are of records that others have written; to look for them before would cost all others.
    """
    try:
        return jsonify(wire)
    except TypeError:
        return jsonify(wire | {"data": [one for one in wire["data"] if _is_json(one)]})


def _is_json(one: dict[str, Any]) -> bool:
    try:
        orjson.dumps(one, option=OPTIONS)
    except TypeError as error:
        log_foreign(str(one.get("id")), str(error))
        return False
    return True
