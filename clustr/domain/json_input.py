"""Reading JSON from outside within limits, so that code which walks through it is safe.

The `json` module of Python accepts lone surrogates, which cannot be encoded again, and raises other
exceptions for deep nesting and for numbers of more than 4,300 digits.
"""

from typing import Any

import orjson

MAX_BYTES = 1_000_000
MAX_DEPTH = 50


class InvalidJSON(ValueError):
    """The text is no JSON, or exceeds a limit; the message is one sentence that says which."""


def loads(text: bytes | str, max_depth: int = MAX_DEPTH, max_bytes: int = MAX_BYTES) -> Any:
    """Read a JSON document (RFC 8259).

    Args:
        max_depth: how many levels of nested arrays and objects are allowed.
        max_bytes: the largest size of the text.

    Raises:
        InvalidJSON: it is no JSON, or too large or too deep, or has a number beyond those of IEEE
            754 or a text with a lone surrogate.
    """
    if len(text) > max_bytes:
        raise InvalidJSON(f"The JSON has {len(text)} bytes; at most {max_bytes} are allowed.")
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise InvalidJSON(_describe_error(error, max_depth)) from None
    if not is_within_depth(value, max_depth):
        raise InvalidJSON(_too_deep_message(max_depth))
    return value


def is_within_depth(value: Any, max_depth: int) -> bool:
    """Whether arrays and objects are nested at most `max_depth` levels deep."""
    containers = [value] if isinstance(value, dict | list) else []
    for _ in range(max_depth):
        if not containers:
            return True
        containers = [
            inner
            for one in containers
            for inner in (one.values() if isinstance(one, dict) else one)
            if isinstance(inner, dict | list)
        ]
    return not containers


def _too_deep_message(max_depth: int) -> str:
    return f"The JSON is nested too deeply; at most {max_depth} levels are allowed."


def _describe_error(error: orjson.JSONDecodeError, max_depth: int) -> str:
    where = f"at line {error.lineno}, column {error.colno}"
    if "depth limit" in error.msg:
        return _too_deep_message(max_depth)
    if "infinity" in error.msg:
        return f"A number {where} is beyond the largest that is allowed, 1.7976931348623157e308."
    if "surrogate" in error.msg:
        return f"A text {where} has half a character: a surrogate without its other half."
    return f"This is no JSON; what is wrong is {where}."
