"""The kinds of fields and parameters of which the shapes on the wire are made."""

import re
import unicodedata
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, ClassVar

from marshmallow import Schema, ValidationError, fields, validate

from clustr.domain import failure_messages

EXAMPLE_ID = "692192f4e13f5a0c4d1b7a90"
EXAMPLE_HASH = "5f2b7a0d4c8e9f1a3b6c7d8e0f1a2b3c4d5e6f7a8b9c0d1e2f3a4b5c6d7e8f90"
EXAMPLE_MOMENT = "2026-11-22T10:38:28.000000Z"
NO_MOMENT = f"Expected a date and time (ISO 8601), such as {EXAMPLE_MOMENT}."


class Pattern(validate.Regexp):
    """A pattern that a whole text has to match.

    `$` matches before a line break at the end, too; but patterns are also read by clients, of
    which those in JavaScript have no `\\Z`.
    """

    def __call__(self, value: str) -> str:
        if not self.regex.fullmatch(value):
            raise ValidationError(self._format_error(value))
        return value


ID_PATTERN = "^[0-9a-f]{24}$"
HEX_ID = Pattern(ID_PATTERN, error="An id is 24 hexadecimal digits, in lower case.")
HEX_SHA256 = Pattern("^[0-9a-f]{64}$", error="A SHA-256 is 64 hexadecimal digits, in lower case.")
# To look for what a name may have meant takes its time.
MOST_EXPLAINED = 20
POSITIVE = validate.Range(min=1)
NOT_NEGATIVE = validate.Range(min=0)


def text(description: str, example: Any = None, **more: Any) -> fields.String:
    return fields.String(metadata=_metadata(description, example), **more)


def number(description: str, example: Any = None, **more: Any) -> fields.Integer:
    return fields.Integer(metadata=_metadata(description, example), **more)


def moment(description: str, **more: Any) -> fields.AwareDateTime:
    return fields.AwareDateTime(metadata=_metadata(description, EXAMPLE_MOMENT), **more)


def one_of(names: type[StrEnum], description: str) -> fields.Enum[Any]:
    """A field for one of these names, which is always there."""
    return fields.Enum(
        names, by_value=fields.String, required=True, metadata={"description": description}
    )


def _metadata(description: str, example: Any) -> dict[str, Any]:
    return {"description": description} | ({} if example is None else {"example": example})


def id_in_path(name: str, description: str) -> dict[str, Any]:
    """A parameter of a path, in the words of the OpenAPI document."""
    return {
        "in": "path",
        "name": name,
        "required": True,
        "schema": {"type": "string", "pattern": ID_PATTERN},
        "description": description,
        "example": EXAMPLE_ID,
    }


UPLOAD_ID = id_in_path("upload_id", "The id of the upload.")


def links_to_upload(upload_id: str, operations: dict[str, str]) -> dict[str, Any]:
    """Where a client goes on from an answer, for programs that read the OpenAPI document.

    Args:
        upload_id: the expression for the id, in the language of OpenAPI's links.
        operations: what each operation that it can go on with is for.
    """
    return {
        operation: {
            "operationId": operation,
            "parameters": {"upload_id": upload_id},
            "description": description,
        }
        for operation, description in operations.items()
    }


def as_stored(value: Any) -> Any:
    """What a client asks for, written as what is stored: in NFC, and without spaces around it."""
    return unicodedata.normalize("NFC", value).strip() if isinstance(value, str) else value


def without_spaces(value: Any) -> Any:
    """A name that a client asks for, without spaces around it; a line break belongs to no name."""
    return value.strip(" ") if isinstance(value, str) else value


def hash_as_stored(value: Any) -> Any:
    """A hash that a client asks for, written as what is stored."""
    return without_spaces(value).lower() if isinstance(value, str) else value


class WholeNumber(fields.Integer):
    """Digits as everybody writes them; Python also reads 1_000, other scripts and spaces."""

    def _validated(self, value: Any) -> int:
        if not re.fullmatch(r"-?[0-9]+", value):
            raise self.make_error("invalid", input=value)
        return super()._validated(value)


class TrueOrFalse(fields.Boolean):
    """A truth value of JSON, and not a number or a text that can be taken for one."""

    def _deserialize(self, value: Any, *args: Any, **kwargs: Any) -> bool | None:
        if not isinstance(value, bool):
            raise self.make_error("invalid", input=value)
        return value


def point_in_time(description: str, **more: Any) -> fields.AwareDateTime:
    """A moment that a client sends; without an offset it is UTC."""
    return fields.AwareDateTime(
        default_timezone=UTC,
        error_messages={"invalid": NO_MOMENT, "invalid_awareness": NO_MOMENT},
        validate=_within_utc,
        metadata={"description": description, "example": EXAMPLE_MOMENT},
        **more,
    )


def _within_utc(value: datetime) -> None:
    try:
        value.astimezone(UTC)
    except OverflowError as error:
        raise ValidationError(NO_MOMENT) from error


class BodySchema(Schema):
    """What a client sends; of a misspelt member it is said what may have been meant."""

    error_messages: ClassVar = {"type": "Expected a JSON object, in braces: {…}."}

    def handle_error(self, error: ValidationError, *_: Any, **__: Any) -> None:
        """Say more of what is unknown than that it is."""
        unknown = [self.error_messages["unknown"]]
        names = [name for name, said in error.messages.items() if said == unknown]
        for name in names[:MOST_EXPLAINED]:
            error.messages[name] = [failure_messages.unknown_name("field", name, self.fields)]
