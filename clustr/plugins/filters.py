"""Filters of the listing that a plugin brings, on the results of its own analyzers."""

from dataclasses import dataclass
from typing import Any

from marshmallow import fields

OPERATORS = ("eq", "ne", "gt", "gte", "lt", "lte")


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """One field of a result by which uploads can be listed.

    `Filter(analyzer="brightness", field="mean", type=fields.Float(), operators=("gte", "lte"))`
    makes `GET /api/uploads?analyses.brightness.mean__gte=0.5` possible. A field that is a list
    matches when one of its elements does.

    Attributes:
        analyzer: one of the plugin's own.
        field: the key in the result; with dots for one inside another.
        type: how a value in the query is read and checked.
        operators: some of `eq` (which needs no suffix), `ne`, `gt`, `gte`, `lt`, `lte`.
        summary: one line for those who read the API's pages.
        indexed: whether to make an index, which costs a little at each result and makes the filter
            fast however many uploads there are.
    """

    analyzer: str
    field: str
    type: fields.Field[Any]
    operators: tuple[str, ...] = ("eq",)
    summary: str = ""
    indexed: bool = False
