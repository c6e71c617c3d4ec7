"""JSON from outside: read within limits, so that whoever walks through it afterwards is safe.

Python's own reader accepts halves of characters, which nothing can write again, and fails in ways
of its own on deep nesting and on numbers of more than 4,300 digits.
"""

from typing import Any

import orjson

LARGEST_BYTES = 1_000_000
DEEPEST = 50


class InvalidJSON(ValueError):
    """It is no JSON, or beyond a limit; the message is one sentence that names it."""


def loads(text: bytes | str, deepest: int = DEEPEST, largest_bytes: int = LARGEST_BYTES) -> Any:
    """Read a JSON document (RFC 8259).

    Args:
        deepest: how many arrays and objects may be inside one another.

    Raises:
        InvalidJSON: it is none, or too large or too deep, or it has a number beyond those of IEEE
            754 or a text with half a character.
    """
    if len(text) > largest_bytes:
        raise InvalidJSON(f"The JSON has {len(text)} bytes; at most {largest_bytes} are allowed.")
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise InvalidJSON(_said(error, deepest)) from None
    if not is_within(value, deepest):
        raise InvalidJSON(_too_deep(deepest))
    return value


def is_within(value: Any, deepest: int) -> bool:
    """Whether no more than so many arrays and objects are inside one another."""
    containers = [value] if isinstance(value, dict | list) else []
    for _ in range(deepest):
        if not containers:
            return True
        containers = [
            inner
            for one in containers
            for inner in (one.values() if isinstance(one, dict) else one)
            if isinstance(inner, dict | list)
        ]
    return not containers


def _too_deep(deepest: int) -> str:
    return f"The JSON is nested too deeply; at most {deepest} levels are allowed."


def _said(error: orjson.JSONDecodeError, deepest: int) -> str:
    where = f"at line {error.lineno}, column {error.colno}"
    if "depth limit" in error.msg:
        return _too_deep(deepest)
    if "infinity" in error.msg:
        return f"A number {where} is beyond the largest that is allowed, 1.7976931348623157e308."
    if "surrogate" in error.msg:
        return f"A text {where} has half a character: a surrogate without its other half."
    return f"This is no JSON; what is wrong is {where}."
