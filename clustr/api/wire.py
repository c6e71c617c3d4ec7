"""JSON on the wire, written by orjson: times in UTC with a `Z`, everything else as it is."""

from typing import Any

import orjson
from flask import Response
from flask.json.provider import JSONProvider

# A time without a zone is one of MongoDB's, which are in UTC.
OPTIONS = orjson.OPT_NAIVE_UTC | orjson.OPT_UTC_Z | orjson.OPT_NON_STR_KEYS


class Provider(JSONProvider):
    """Makes Flask read and write JSON with orjson."""

    def dumps(self, obj: Any, **_kwargs: Any) -> str:
        return orjson.dumps(obj, option=OPTIONS).decode()

    def loads(self, s: str | bytes, **_kwargs: Any) -> Any:
        return orjson.loads(s)

    def response(self, *args: Any, **kwargs: Any) -> Response:
        body = orjson.dumps(self._prepare_response_obj(args, kwargs), option=OPTIONS)
        return self._app.response_class(body, mimetype="application/json")
