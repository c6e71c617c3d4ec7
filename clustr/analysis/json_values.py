"""What analyzers return, as plain JSON values: what is stored, and sent to clients."""

import json
from collections.abc import Iterable
from typing import Any

import orjson

from clustr.domain import failure_messages
from clustr.domain.json_input import is_within_depth

DEEPEST_RESULT = 50
LARGEST_ARRAY = 10_000  # of NumPy, in elements
LONGEST_KEY = 100  # in an error
UNWRITABLE = (TypeError, ValueError, RecursionError)


def _plain_number(value: Any) -> Any:
    """Numbers and small arrays of NumPy as those of Python; for what JSON does not know itself."""
    if type(value).__module__ == "numpy" and hasattr(value, "tolist"):
        if value.size > LARGEST_ARRAY:
            message = f"an array of {value.size} elements; at most {LARGEST_ARRAY} are allowed"
            raise TypeError(message)
        return value.tolist()
    raise TypeError(f"Object of type {type(value).__name__} is not JSON serializable")


_encode = json.JSONEncoder(allow_nan=False, default=_plain_number).encode


def to_json_values(value: dict[str, Any], what: str, max_bytes: int) -> dict[str, Any]:
    """A value as it comes back from JSON.

    Args:
        what: the value's name in errors.
        max_bytes: how long its JSON may be.

    Raises:
        ValueError: JSON or MongoDB cannot hold it, or it is too large.
    """
    try:
        text, plain = _written_and_read(value, max_bytes)
    except UNWRITABLE as error:
        key = _unwritable_key(value, max_bytes)
        where = f" at {failure_messages.as_plain_text(key)[:LONGEST_KEY]}" if key else ""
        raise ValueError(f"{what} cannot be written as JSON{where}: {error}") from error
    if len(text) > max_bytes:
        raise ValueError(f"{what} has {len(text)} bytes of JSON")
    if "\\u0000" in text or not is_within_depth(plain, DEEPEST_RESULT):
        raise ValueError(f"{what} has NUL characters or is nested too deeply")
    return plain


def _written_and_read(value: Any, max_bytes: int) -> tuple[str, dict[str, Any]]:
    """A value as JSON, and as it comes back from that; an empty one where it is too long.

    Raises:
        TypeError, ValueError, RecursionError: it cannot be written; they are `UNWRITABLE`.
    """
    text = _encode(value)
    plain: dict[str, Any] = json.loads(text) if len(text) <= max_bytes else {}
    # JavaScript and MongoDB hold no larger integers. orjson refuses lone surrogates, too.
    orjson.dumps(plain, option=orjson.OPT_STRICT_INTEGER)
    return text, plain


def _unwritable_key(value: Any, max_bytes: int) -> str:
    """The path of the first value in another one that cannot be written; empty for itself."""
    path = ""
    for _ in range(DEEPEST_RESULT):
        for key, each in _items(value):
            try:
                _written_and_read(each, max_bytes)
            except UNWRITABLE:
                separator = "." if path else ""
                path += f"{separator}{key}" if isinstance(value, dict) else f"[{key}]"
                value = each
                break
        else:
            return path
    return path


def _items(value: Any) -> Iterable[tuple[Any, Any]]:
    if isinstance(value, dict):
        return value.items()
    return enumerate(value) if isinstance(value, list | tuple) else ()
