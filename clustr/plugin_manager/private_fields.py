"""The fields of results that are kept, and not shown to clients."""

from collections.abc import Iterator
from functools import cache

from marshmallow import Schema, fields

PRIVATE = "private"


@cache
def private_fields(schema: type[Schema]) -> tuple[str, ...]:
    """The paths of the fields of a result whose metadata says `{"private": True}`."""
    return tuple(_private_paths(schema(), "", ()))


def _private_paths(schema: Schema, prefix: str, parents: tuple[type[Schema], ...]) -> Iterator[str]:
    if type(schema) in parents:  # A schema may contain itself.
        return
    for name, field in schema.fields.items():
        path = f"{prefix}{field.data_key or name}"
        if field.metadata.get(PRIVATE):
            yield path
            continue
        while isinstance(field, fields.List):
            field = field.inner
        if field.metadata.get(PRIVATE):
            yield path
        elif isinstance(field, fields.Nested):
            yield from _private_paths(field.schema, f"{path}.", (*parents, type(schema)))
