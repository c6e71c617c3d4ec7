"""The fields of results that are kept, and not shown to clients."""

from collections.abc import Iterable, Iterator
from functools import cache
from typing import Any

from marshmallow import Schema, fields

PRIVATE = "private"
Field = fields.Field[Any]
# The name of each field on the way, and its key in results (`data_key`).
FieldPath = tuple[tuple[str, str], ...]


@cache
def private_fields(schema: type[Schema]) -> tuple[str, ...]:
    """The paths of the fields of a result whose metadata says `{"private": True}`.

    Where such a field can have no path of its own, the path is that of what it is in.
    """
    return tuple(".".join(key for _, key in path) for path in _private_paths(schema(), ()))


@cache
def private_names(schema: type[Schema]) -> tuple[str, ...]:
    """The same paths by the names in the schema, which `exclude` of marshmallow takes."""
    return tuple(".".join(name for name, _ in path) for path in _private_paths(schema(), ()))


def _private_paths(schema: Schema, parents: tuple[type[Schema], ...]) -> Iterator[FieldPath]:
    parents = (*parents, type(schema))
    for name, field in schema.fields.items():
        step = (name, field.data_key or name)
        nested = _nested_schema(field)
        # One of its parents would have paths without end.
        if nested is not None and type(nested) not in parents:
            for below in _private_paths(nested, parents):
                yield (step, *below)
        elif _has_private(field, set()):
            yield (step,)


def _nested_schema(field: Field) -> Schema | None:
    """The schema of what a field has, whose fields a path can name, also in lists."""
    while isinstance(field, fields.List) and not field.metadata.get(PRIVATE):
        field = field.inner
    # A `Pluck` has the value of a field in place of the field.
    if not isinstance(field, fields.Nested) or isinstance(field, fields.Pluck):
        return None
    return None if field.metadata.get(PRIVATE) else field.schema


def _has_private(field: Field, seen: set[type[Schema]]) -> bool:
    """Whether a field is private or has private ones.

    Args:
        seen: the schemas that were looked into.
    """
    if field.metadata.get(PRIVATE):
        return True
    if isinstance(field, fields.Nested):
        if type(field.schema) in seen:
            return False
        seen.add(type(field.schema))
    return any(_has_private(inner, seen) for inner in _inner_fields(field))


def _inner_fields(field: Field) -> Iterable[Field]:
    if isinstance(field, fields.Nested):
        # All of them: what `only` leaves out here may be reached another way.
        return field.schema.declared_fields.values()
    if isinstance(field, fields.List):
        return [field.inner]
    if isinstance(field, fields.Tuple):
        return field.tuple_fields
    if isinstance(field, fields.Mapping):
        return [inner for inner in (field.key_field, field.value_field) if inner is not None]
    return []
