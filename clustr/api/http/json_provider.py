"""JSON by orjson, with times in UTC and a `Z` at the end.

Every time has six digits after its second, so that times sort as texts. orjson leaves a fraction of
zero out, hence such a time is formatted here.
"""

import re
from datetime import UTC, datetime
from typing import Any

import orjson
from flask import Flask, Response, jsonify
from flask.json.provider import JSONProvider

from clustr.database import log_foreign_record

# A time without a zone is from MongoDB, which has them in UTC.
OPTIONS = orjson.OPT_NAIVE_UTC | orjson.OPT_UTC_Z | orjson.OPT_NON_STR_KEYS


# The end of a time without a fraction. The Z comes first because that is four times as fast.
WHOLE_SECOND = re.compile(rb'Z(?<=:[0-9][0-9]Z)"')


def with_fraction(time: datetime | None) -> datetime | str | None:
    """Return a time as orjson should get it: one at a whole second already formatted.

    `dumps` also formats such times, but then takes many times longer. A listing has a thousand
    times, so it formats them beforehand.
    """
    return time if time is None or time.microsecond else _format_time(time)


def _format_time(time: Any) -> str:
    if not isinstance(time, datetime):
        raise TypeError(f"{type(time).__name__} cannot be written as JSON.")
    in_utc = time.astimezone(UTC).replace(tzinfo=None) if time.tzinfo else time
    return f"{in_utc.isoformat(timespec='microseconds')}Z"


def dumps(value: Any) -> bytes:
    """Serialize a value as JSON."""
    body = orjson.dumps(value, option=OPTIONS)
    if WHOLE_SECOND.search(body):  # or another text that ends like one
        return orjson.dumps(value, _format_time, OPTIONS | orjson.OPT_PASSTHROUGH_DATETIME)
    return body


class OrjsonProvider(JSONProvider):
    """Makes Flask read and write JSON with orjson."""

    _app: Flask

    def dumps(self, obj: Any, **_kwargs: Any) -> str:
        return dumps(obj).decode()

    def loads(self, s: str | bytes, **_kwargs: Any) -> Any:
        return orjson.loads(s)

    def response(self, *args: Any, **kwargs: Any) -> Response:
        body = dumps(self._prepare_response_obj(args, kwargs))
        return self._app.response_class(body, mimetype="application/json")


def page_response(wire: dict[str, Any]) -> Response:
    """Respond with a page, leaving out uploads that cannot be serialized as JSON.

    Those come from records that other programs wrote. They are looked for only after an error, so
    that pages without them cost nothing more.
    """
    try:
        return jsonify(wire)
    except TypeError:
        return jsonify(
            wire | {"data": [upload for upload in wire["data"] if _is_serializable(upload)]}
        )


def _is_serializable(upload: dict[str, Any]) -> bool:
    try:
        orjson.dumps(upload, option=OPTIONS)
    except TypeError as error:
        log_foreign_record(str(upload.get("id")), str(error))
        return False
    return True
