"""Values of the filters of plugins: read from a query or a body, and as results are stored."""

import re
import unicodedata
from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import replace
from decimal import Decimal
from functools import partial
from itertools import pairwise
from typing import Any

from marshmallow import ValidationError, fields, validate

from clustr.database import Condition, tag_key
from clustr.plugins import Filter

LARGEST_NUMBER = 2**63 - 1
MAX_VALUES = 20
COMPARISONS = {"=": "eq", "!=": "ne", ">=": "gte", "<=": "lte", ">": "gt", "<": "lt"}
TEXT_COMPARISONS = ("=", "!=")
VALUE = r'(?:"[^"]*"|[^",|=<>]+)'
VALUES = rf"{VALUE}(?:\|{VALUE})*"
COMPARISON = "(?:!=|>=|<=|=|>|<)"
CONDITION = re.compile(
    rf"(?:(?P<key>[^\"=<>!|,]*)(?P<comparison>{COMPARISON}))?(?P<values>{VALUES})(?:,|\Z)"
)


class AllOf(fields.List[Any]):
    """A parameter that can be given several times; an upload has to meet all of its values."""

    def __init__(self, inner: fields.Field[Any]):
        super().__init__(inner, validate=validate.Length(1, MAX_VALUES))

    def _deserialize(self, value: Any, *arguments: Any, **named: Any) -> list[Any]:
        return _without_positions(super()._deserialize, value, *arguments, **named)


class OneOfSeveral(fields.List[Any]):
    """Values with commas between them, of which an upload has to have one.

    It is what `DelimitedList` of webargs is, which takes 20 ms to import in every worker.
    """

    is_multiple = False  # For webargs: the parameter is given once.

    def __init__(self, inner: fields.Field[Any]):
        super().__init__(inner, validate=validate.Length(1, MAX_VALUES))

    def _deserialize(self, value: Any, *arguments: Any, **named: Any) -> list[Any]:
        values = value.split(",") if isinstance(value, str) else value
        return _without_positions(super()._deserialize, values, *arguments, **named)


class Objects(fields.String):
    """Conditions on one object of a list: `dog,score>=0.9`.

    Args:
        types: of the keys that can be asked for; a value alone is of the first of them.
    """

    def __init__(self, types: Mapping[str, fields.Field[Any]]):
        self._types = {key: prepared(type) for key, type in types.items()}
        keys = "|".join(self._types)
        condition = rf"(?:(?:{keys}){COMPARISON})?{VALUES}"
        super().__init__(
            metadata={"pattern": f"^{condition}(?:,{condition})*$", "example": self._example()}
        )

    def _example(self) -> str:
        first, *others = self._types
        numbers = [key for key in others if isinstance(self._types[key], fields.Number)]
        return ",".join([f"{first}=…", *(f"{key}>=0.9" for key in numbers[:1])])

    def _deserialize(self, value: Any, *arguments: Any, **named: Any) -> Any:
        """Return comparisons in the form that `clustr.database.Condition` has them."""
        text = normalize_text(super()._deserialize(value, *arguments, **named))
        conditions: list[re.Match[str]] = []
        comparisons: list[dict[str, Any]] = []
        position = 0
        while position < len(text) or not comparisons:
            found = CONDITION.match(text, position)
            if not found:
                raise ValidationError(self._explain(text[position:]))
            comparisons += self._comparisons(found)
            conditions.append(found)
            position = found.end()
        if text.endswith(","):
            raise ValidationError(self._explain(""))
        self._refuse_decimal_comma(conditions)
        self._refuse_two_values_of_one_key(conditions)
        if len(comparisons) > MAX_VALUES:
            raise ValidationError(f"Give at most {MAX_VALUES} conditions.")
        return comparisons

    def _comparisons(self, found: re.Match[str]) -> list[dict[str, Any]]:
        key, comparison = self._key(found), found["comparison"] or "="
        if key not in self._types:
            raise ValidationError(f"There is no key `{key[:50]}`; there are {self._keys()}.")
        type = self._types[key]
        allowed = TEXT_COMPARISONS if _is_text(type) else tuple(COMPARISONS)
        if comparison not in allowed:
            raise ValidationError(f"`{key}` can be compared with {', '.join(allowed)}.")
        values = [_load_value(key, type, each) for each in re.findall(VALUE, found["values"])]
        if len(values) > MAX_VALUES:
            raise ValidationError(f"Give at most {MAX_VALUES} values.")
        if len(values) > 1 and comparison not in TEXT_COMPARISONS:
            raise ValidationError(f"Give one value for `{key}{comparison}`.")
        about = {"field": key, "folded": is_folded(type)}
        if comparison == "!=":
            return [{**about, "operator": "ne", "value": each} for each in values]
        if len(values) > 1:
            return [{**about, "operator": "in", "value": values}]
        return [{**about, "operator": COMPARISONS[comparison], "value": values[0]}]

    def _key(self, found: re.Match[str]) -> str:
        return next(iter(self._types)) if found["key"] is None else found["key"].strip()

    def _refuse_decimal_comma(self, conditions: list[re.Match[str]]) -> None:
        """Refuse `score>=0,9`, which would ask for another key with the value 9."""
        for before, after in pairwise(conditions):
            type, digits = self._types[self._key(before)], after["values"].strip()
            if (
                isinstance(type, fields.Number)
                and not isinstance(type, fields.Integer)
                and before["values"].strip().isdecimal()
                and after["key"] is None
                and digits.isdecimal()
            ):
                whole = before[0].removesuffix(",").strip()
                raise ValidationError(
                    f"Write `{whole[:50]}.{digits[:50]}` for `{whole[:50]},{digits[:50]}`: commas "
                    f"are between conditions. Or write `{self._key(after)}={digits[:50]}`."
                )

    def _refuse_two_values_of_one_key(self, conditions: list[re.Match[str]]) -> None:
        """Refuse `dog,car`: no object has two values of a key."""
        values_of: dict[str, str] = {}
        for found in conditions:
            if (found["comparison"] or "=") != "=":
                continue
            key, values = self._key(found), found["values"].strip()
            if key in values_of:
                either = f"{values_of[key]}|{values}"
                raise ValidationError(
                    f"`{key}` is asked twice of one object, which has one. Write `{either[:100]}` "
                    "for either, or give each of them on its own for two objects."
                )
            values_of[key] = values

    def _keys(self) -> str:
        return ", ".join(f"`{key}`" for key in self._types)

    def _explain(self, rest: str) -> str:
        what = f"`{rest[:50]}`" if rest else "what is missing at the end"
        return (
            f"Cannot read {what}. Give conditions with commas between them, such as "
            f"`{self._example()}`; there are the keys {self._keys()}, and a text with one "
            "of `,|=<>` in it goes in double quotes."
        )


def _load_value(key: str, type: fields.Field[Any], written: str) -> Any:
    text = written.strip()
    text = text[1:-1] if text.startswith('"') else text
    try:
        return stored_value(type, type.deserialize(text))
    except ValidationError as error:
        raise ValidationError([f"{key}: {message}" for message in error.messages]) from error


def _without_positions(
    deserialize: Callable[..., list[Any]], *arguments: Any, **named: Any
) -> list[Any]:
    """Deserialize a list, with the messages of an error for all of it."""
    try:
        return deserialize(*arguments, **named)
    except ValidationError as error:
        if isinstance(error.messages, dict):
            messages = [message for each in error.messages.values() for message in each]
            raise ValidationError([*dict.fromkeys(messages)]) from error
        raise


def value_field(filter: Filter, operator: str, is_repeatable: bool) -> fields.Field[Any]:
    """Make the marshmallow field for the value of a filter with one of its operators."""
    if isinstance(filter.type, Mapping):
        return AllOf(Objects(filter.type))
    if operator == "in":
        return OneOfSeveral(prepared(filter.type))
    return AllOf(prepared(filter.type)) if is_repeatable else prepared(filter.type)


def conditions_of(
    filter: Filter, operator: str, is_repeatable: bool, value: Any
) -> list[Condition]:
    """The conditions for a value that `value_field` has loaded.

    Raises:
        ValidationError: MongoDB cannot have such a number.
    """
    if isinstance(filter.type, Mapping):
        return [Condition(filter.analyzer, filter.field, "element", each) for each in value]
    stored, folded = partial(stored_value, filter.type), is_folded(filter.type)
    condition = Condition(filter.analyzer, filter.field, operator, None, folded)
    if operator == "in":
        return [replace(condition, value=[*map(stored, value)])]
    values = value if is_repeatable else [value]
    return [replace(condition, value=stored(each)) for each in values]


def normalize_text(value: Any) -> Any:
    """Normalize a text as stored texts are: in NFC, without surrounding whitespace."""
    return unicodedata.normalize("NFC", value).strip() if isinstance(value, str) else value


def prepared(type: fields.Field[Any]) -> fields.Field[Any]:
    """Copy the field type of a filter, with texts normalized as stored ones are."""
    field = deepcopy(type)
    field.pre_load = [normalize_text, *field.pre_load]
    if choices := _choices(field):
        by_key = {tag_key(choice): choice for choice in choices}

        def spell_as_declared(value: Any) -> Any:
            return by_key.get(tag_key(value), value) if isinstance(value, str) else value

        field.pre_load.append(spell_as_declared)
    return field


def _choices(type: fields.Field[Any]) -> list[str]:
    """The texts that a field type allows, where it names them."""
    for validator in type.validators:
        if isinstance(validator, validate.OneOf):
            return [choice for choice in validator.choices if isinstance(choice, str)]
    return []


def _is_text(type: fields.Field[Any]) -> bool:
    return isinstance(type, fields.String | fields.Boolean | fields.Enum)


def is_folded(type: fields.Field[Any] | Mapping[str, fields.Field[Any]]) -> bool:
    """Whether values of a type are compared whatever the case of their letters."""
    return isinstance(type, fields.String) and not _choices(type)


def stored_value(type: fields.Field[Any], value: Any) -> Any:
    """Convert a loaded value to the form that results are stored in.

    Raises:
        ValidationError: MongoDB cannot have such a number.
    """
    stored = type._serialize(value, None, None)
    stored = float(stored) if isinstance(stored, Decimal) else stored
    if isinstance(stored, int) and abs(stored) > LARGEST_NUMBER:
        raise ValidationError("A whole number here has at most 63 bits.")
    return stored


def load_json_value(field: fields.Field[Any], value: Any) -> Any:
    """Load a JSON value by a field of a query, which takes texts for numbers and booleans, too."""
    if isinstance(field, AllOf | OneOfSeveral):
        values = value if isinstance(value, list) else [value]
        loaded = [load_json_value(field.inner, each) for each in values]
        field._validate(loaded)
        return loaded
    types = (
        (fields.Boolean, {bool}),
        (fields.Integer, {int}),
        (fields.Number, {int, float}),
    )
    allowed = next((json for kind, json in types if isinstance(field, kind)), {type(value)})
    if type(value) not in allowed:
        raise field.make_error("invalid", input=value)
    return field.deserialize(value)
