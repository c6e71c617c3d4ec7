"""Filters of the listing that a plugin brings, on the results of its own analyzers."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from marshmallow import fields

OPERATORS = ("eq", "ne", "gt", "gte", "lt", "lte", "in")

# The parameters of lists of uploads and the filters of jobs that Clustr has itself.
CORE_PARAMETERS = frozenset(
    (
        *("page", "limit", "cursor", "sort", "prefix", "fields"),
        *("q", "status", "tag", "tag_not", "content_type", "sha256", "analyzer", "analysis_status"),
        *("uploaded_after", "uploaded_before", "taken_after", "taken_before"),
        "updated_after",
        *("min_width", "max_width", "min_height", "max_height", "min_size", "max_size"),
        *("duplicate", "untagged", "undated", "analyses", "ids", "by", "max_distance", "unit"),
    )
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """One field of a result by which uploads can be listed.

    `Filter(analyzer="brightness", field="mean", type=fields.Float(), operators=("gte", "lte"))`
    makes `GET /api/uploads?analyses.brightness.mean__gte=0.5` possible. A field that is a list
    matches when one of its elements does; given more than once, each of the values has to.

    A field that is a list of objects can be asked for one object that meets several conditions:
    with `field="objects", type={"label": fields.String(), "score": fields.Float()}` that is
    `analyses.objects.objects=dog,score>=0.9`.

    Attributes:
        analyzer: one of the plugin's own.
        field: the key in the result; with dots for one inside another.
        type: how a value in the query is read and checked; for a list of objects one for each of
            their keys that can be asked for. A value without a key is of the first of them.
        operators: some of `eq` (which needs no suffix), `ne`, `gt`, `gte`, `lt`, `lte`, `in` (one
            of several, with commas between them). Not for a list of objects, which has `=`, `!=`
            and, for what is no text, `<`, `<=`, `>`, `>=`.
        name: a short name of the parameter, such as `min_sharpness`, beside the long one; for a
            filter with one operator.
        title: two or three words for people who choose among filters, such as "At least so sharp".
        summary: one line for readers of the API's pages.
        indexed: whether to make an index, which costs a little at each result and makes the filter
            fast however many uploads there are.
        internal: whether it is for the plugin's own use, and not to be offered to people.
    """

    analyzer: str
    field: str
    type: fields.Field[Any] | Mapping[str, fields.Field[Any]]
    operators: tuple[str, ...] = ("eq",)
    name: str = ""
    title: str = ""
    summary: str = ""
    indexed: bool = False
    internal: bool = False

    @property
    def index(self) -> str:
        """The name of its index: the field, and for a list of objects the keys behind a colon."""
        if isinstance(self.type, Mapping):
            return f"{self.field}:{','.join(self.type)}"
        return self.field
