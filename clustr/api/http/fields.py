"""The kinds of fields and parameters that the schemas of requests and responses share."""

import re
import unicodedata
from datetime import UTC, date, datetime
from enum import StrEnum
from typing import Any

from marshmallow import Schema, ValidationError, fields, validate

from clustr.domain import failure_messages

EXAMPLE_ID = "692192f4e13f5a0c4d1b7a90"
EXAMPLE_HASH = "5f2b7a0d4c8e9f1a3b6c7d8e0f1a2b3c4d5e6f7a8b9c0d1e2f3a4b5c6d7e8f90"
EXAMPLE_DATE_TIME = "2026-11-22T10:38:28.000000Z"
NO_OBJECT = {"type": "Expected a JSON object, in braces: {…}."}
DATE_TIME_EXPECTED = f"Expected a date and time (ISO 8601), such as {EXAMPLE_DATE_TIME}."
DAY = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
DAY_EXPECTED = f"Expected a day or a date and time (ISO 8601), 2024-07-01 or {EXAMPLE_DATE_TIME}."


class Pattern(validate.Regexp):
    """A validator for a pattern that a whole text has to match.

    Python's `$` also matches before a trailing line break. `\\Z` would not, but the patterns are in
    the OpenAPI document, and JavaScript has no `\\Z`.
    """

    def __call__(self, value: Any) -> Any:
        if not self.regex.fullmatch(value):
            raise ValidationError(self._format_error(value))
        return value


ID_PATTERN = "^[0-9a-f]{24}$"
HEX_ID = Pattern(ID_PATTERN, error="An id is 24 hexadecimal digits, in lower case.")
HEX_SHA256 = Pattern("^[0-9a-f]{64}$", error="A SHA-256 is 64 hexadecimal digits, in lower case.")
# The search for the name that was meant is slow.
MAX_SUGGESTIONS = 20
POSITIVE = validate.Range(min=1)
NOT_NEGATIVE = validate.Range(min=0)


def text(description: str, example: Any = None, **more: Any) -> fields.String:
    """Make a string field; `more` goes to marshmallow."""
    return fields.String(metadata=_metadata(description, example), **more)


def number(description: str, example: Any = None, **more: Any) -> fields.Integer:
    """Make an integer field; `more` goes to marshmallow."""
    return fields.Integer(metadata=_metadata(description, example), **more)


def date_time(description: str, **more: Any) -> fields.AwareDateTime:
    """Make a field for a time in responses; for one that a client sends see `date_time_input`."""
    return fields.AwareDateTime(metadata=_metadata(description, EXAMPLE_DATE_TIME), **more)


def one_of(names: type[StrEnum], description: str) -> fields.Enum[Any]:
    """Make a required field for one of these names."""
    return fields.Enum(
        names, by_value=fields.String, required=True, metadata={"description": description}
    )


def _metadata(description: str, example: Any) -> dict[str, Any]:
    return {"description": description} | ({} if example is None else {"example": example})


def id_path_parameter(name: str, description: str) -> dict[str, Any]:
    """Describe a path parameter that is an id, for the OpenAPI document."""
    return {
        "in": "path",
        "name": name,
        "required": True,
        "schema": {"type": "string", "pattern": ID_PATTERN},
        "description": description,
        "example": EXAMPLE_ID,
    }


UPLOAD_ID_PARAMETER = id_path_parameter("upload_id", "The id of the upload.")


def links_to_upload(upload_id: str, operations: dict[str, str]) -> dict[str, Any]:
    """Build OpenAPI links from a response to operations on an upload.

    Args:
        upload_id: the expression for the id in the response (OpenAPI 3.0, runtime expressions).
        operations: by operation id, what following the link gives.
    """
    return {
        operation: {
            "operationId": operation,
            "parameters": {"upload_id": upload_id},
            "description": description,
        }
        for operation, description in operations.items()
    }


def compose_text(value: Any) -> Any:
    """Normalize a text to NFC, in which letters are composed with their marks."""
    return unicodedata.normalize("NFC", value) if isinstance(value, str) else value


def normalize_text(value: Any) -> Any:
    """Normalize a text as stored texts are: in NFC, without surrounding whitespace."""
    return compose_text(value).strip() if isinstance(value, str) else value


def strip_spaces(value: Any) -> Any:
    """Strip spaces around a name, but no line breaks: those make a name invalid."""
    return value.strip(" ") if isinstance(value, str) else value


def normalize_hash(value: Any) -> Any:
    """Normalize a hash as stored hashes are: in lower case, without surrounding spaces."""
    return strip_spaces(value).lower() if isinstance(value, str) else value


class QueryInteger(fields.Integer):
    """An integer in ASCII digits; Python's `int` also takes 1_000, other scripts and spaces."""

    def _validated(self, value: Any) -> int:
        if not re.fullmatch(r"-?[0-9]+", value):
            raise self.make_error("invalid", input=value)
        return super()._validated(value)


class StrictBoolean(fields.Boolean):
    """A boolean of JSON; marshmallow's also takes numbers and texts such as "yes"."""

    def _deserialize(self, value: Any, *args: Any, **kwargs: Any) -> bool:
        if not isinstance(value, bool):
            raise self.make_error("invalid", input=value)
        return value


def date_time_input(description: str, **more: Any) -> fields.AwareDateTime:
    """Make a field for a time that a client sends; without an offset it is in UTC."""
    return fields.AwareDateTime(
        default_timezone=UTC,
        error_messages={"invalid": DATE_TIME_EXPECTED, "invalid_awareness": DATE_TIME_EXPECTED},
        validate=_check_fits_utc,
        metadata={"description": description, "example": EXAMPLE_DATE_TIME},
        **more,
    )


class DayOrDateTime(fields.AwareDateTime):
    """A time that a client sends, or a day, which is loaded as its text."""

    def _deserialize(self, value: Any, *arguments: Any, **named: Any) -> Any:
        if isinstance(value, str) and DAY.fullmatch(value):
            try:
                date.fromisoformat(value)
            except ValueError as error:
                raise self.make_error("invalid", input=value) from error
            return value
        return super()._deserialize(value, *arguments, **named)


def day_or_time_input(description: str) -> DayOrDateTime:
    """Make a field for a time that a client sends, or for a day where the picture was taken."""
    return DayOrDateTime(
        default_timezone=UTC,
        error_messages={"invalid": DAY_EXPECTED, "invalid_awareness": DAY_EXPECTED},
        validate=_check_fits_utc,
        metadata={"description": description, "example": EXAMPLE_DATE_TIME},
    )


def _check_fits_utc(value: datetime | str) -> None:
    try:
        if isinstance(value, datetime):
            value.astimezone(UTC)
    except OverflowError as error:
        raise ValidationError(DATE_TIME_EXPECTED) from error


class BodySchema(Schema):
    """A JSON body; the error for an unknown member suggests the one that was meant."""

    error_messages = NO_OBJECT

    def handle_error(self, error: ValidationError, *_: Any, **__: Any) -> None:
        """Replace the messages for unknown members by ones with a suggestion."""
        unknown = [self.error_messages["unknown"]]
        all_messages = error.messages_dict
        names = [name for name, messages in all_messages.items() if messages == unknown]
        for name in names[:MAX_SUGGESTIONS]:
            all_messages[name] = [failure_messages.unknown_name("field", name, self.fields)]
