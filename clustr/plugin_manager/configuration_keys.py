"""Descriptions of the keys of a plugin's configuration and results, from their schemas."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from marshmallow import Schema, fields, missing, validate

from clustr.plugin_manager.configuration import (
    is_secret,
    keys_of,
    named_variables,
    variable_prefix,
)

# The description of a field is that of the first of its classes here.
TYPES: dict[type, str] = {
    fields.Boolean: "true or false",
    fields.TimeDelta: "a duration",
    fields.Integer: "a whole number",
    fields.Number: "a number",
    fields.Url: "an address",
    fields.Email: "an e-mail address",
    fields.DateTime: "a time",
    fields.Dict: "a table",
    fields.Nested: "a table",
    fields.Enum: "a name",
    fields.String: "text",
}


@dataclass(frozen=True, slots=True)
class ConfigurationKey:
    """A key of a plugin's configuration.

    Attributes:
        attribute: the key of the loaded value.
        type: a description of the type and of the allowed values.
        default: in the form in which one writes it; None when there is none.
        variables: environment variables, in the order of their precedence.
    """

    name: str
    attribute: str
    type: str
    description: str
    required: bool
    secret: bool
    default: Any
    variables: tuple[str, ...]


def configuration_keys_of(plugin: str, schema: type[Schema]) -> list[ConfigurationKey]:
    """The keys of a plugin's configuration."""
    instance = schema()
    return [
        ConfigurationKey(
            name=name,
            attribute=declared.attribute or declared.name or name,
            type=type_of(declared),
            description=str(declared.metadata.get("description", "")),
            required=declared.required,
            secret=is_secret(declared),
            default=None if is_secret(declared) else _default_of(declared),
            variables=(*named_variables(declared), variable_prefix(plugin) + name.upper()),
        )
        for name, declared in keys_of(instance).items()
    ]


def type_of(declared: fields.Field[Any]) -> str:
    """A description of a field's type and of its allowed values."""
    if isinstance(declared, fields.List):
        name = f"a list of {type_of(declared.inner)}"
    else:
        kinds = (TYPES[kind] for kind in TYPES if isinstance(declared, kind))
        name = next(kinds, type(declared).__name__)
    allowed = list(_allowed_values(declared))
    return ", ".join([name, *allowed])


def _allowed_values(declared: fields.Field[Any]) -> Iterator[str]:
    if isinstance(declared, fields.Enum):
        yield f"one of {declared.choices_text}"
    for validator in declared.validators:
        match validator:
            case validate.OneOf():
                yield f"one of {', '.join(map(str, validator.choices))}"
            case validate.Length(equal=int(length)):
                yield f"of length {length}"
            case validate.Range() | validate.Length():
                yield from _describe_limits(validator)
            case validate.Regexp(error=error) if error != validate.Regexp.default_message:
                yield str(error)
            case validate.Regexp():
                yield f"matching {validator.regex.pattern!s}"


def _describe_limits(validator: validate.Range | validate.Length) -> Iterator[str]:
    limits = []
    if validator.min is not None:
        word = "from" if getattr(validator, "min_inclusive", True) else "above"
        limits.append(f"{word} {validator.min}")
    if validator.max is not None:
        word = "to" if getattr(validator, "max_inclusive", True) else "below"
        limits.append(f"{word} {validator.max}")
    if limits:
        what = "of a length " if isinstance(validator, validate.Length) else ""
        yield what + " ".join(limits)


def _default_of(declared: fields.Field[Any]) -> Any:
    default = declared.load_default
    value = default() if callable(default) else default
    if value is missing or value is None:
        return None
    return declared.serialize("value", {"value": value}, lambda values, *_: values["value"])
