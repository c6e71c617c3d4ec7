"""Conditions on results of analyzers: their queries, and the indexes of these."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from clustr.database.case_folding import spellings
from clustr.database.connection import Document
from clustr.database.documents import NEWEST_FIRST


@dataclass(frozen=True, slots=True)
class Condition:
    """A condition on a result of an analyzer.

    Attributes:
        analyzer: the name of the analyzer.
        field: the key in the result; dots separate the keys of nested objects.
        operator: `eq`, `ne`, `gt`, `gte`, `lt`, `lte`, `in` or `element`. Only results that have
            the field are looked at; a list meets a condition when one of its elements does, `ne`
            when none is the value.
        value: text, a number or a boolean, to be compared with those of its kind; a list of them
            for `in`. For `element` a list of comparisons, each with `field`, `operator`, `value`
            and `folded`, all of which one and the same object of a list has to meet.
        folded: whether texts are compared whatever the case of their letters, by `eq`, `ne`, `in`.
    """

    analyzer: str
    field: str
    operator: str
    value: Any
    folded: bool = False

    def comparison(self) -> Document:
        """The condition for the field in a query of MongoDB."""
        if self.operator == "element":
            compared = [
                {each["field"]: compare(each["operator"], each["value"], each["folded"])}
                for each in self.value
            ]
            return {"$elemMatch": {"$and": compared}}
        return compare(self.operator, self.value, self.folded)


def compare(operator: str, value: Any, folded: bool) -> Document:
    """A comparison in a query of MongoDB; see `Condition`."""
    there = {"$exists": True} if operator == "ne" else {}  # `$ne` also matches missing fields.
    if folded and operator in ("eq", "ne", "in"):
        texts = value if operator == "in" else [value]
        spelled = [each for text in texts for each in spellings(text)]
        return {"$nin" if operator == "ne" else "$in": spelled, **there}
    return {f"${operator}": value, **there}


def result_indexes(fields: Iterable[str]) -> dict[str, Document]:
    """The indexes for conditions on fields of results; analyzers with the same field share one.

    They leave out uploads without such a result, as all uploads are at first.

    Args:
        fields: as in a `Condition`; keys of the objects of a list behind a colon, with commas
            between them (`objects:label,score`), are in one index.
    """
    return {
        result_index_name(field): {
            "keys": [
                *((path, 1) for path in _indexed_paths(field)),
                *NEWEST_FIRST,
            ],
            "partialFilterExpression": has_result_field(field.partition(":")[0]),
        }
        for field in fields
    }


def _indexed_paths(field: str) -> list[str]:
    path, _, keys = field.partition(":")
    if keys:
        return [f"analyses.result.{path}.{key}" for key in keys.split(",")]
    return ["analyses.name", f"analyses.result.{path}"]


def result_index_name(field: str) -> str:
    """The name of the index for conditions on a field of results."""
    return f"results.{field}"


def has_result_field(field: str) -> Document:
    """The condition that a result has the field; with it MongoDB can use the partial index."""
    return {f"analyses.result.{field}": {"$exists": True}}


def result_conditions(conditions: Sequence[Condition]) -> list[Document]:
    """Queries for uploads that meet all conditions; one result meets all those on its analyzer."""
    of_analyzer: dict[str, list[Document]] = {}
    besides: list[Document] = []
    there: Document = {}
    for condition in conditions:
        there |= has_result_field(condition.field)
        matched = of_analyzer.setdefault(condition.analyzer, [])
        matched.append({f"result.{condition.field}": condition.comparison()})
        if condition.operator == "element":
            # Inside of the other `$elemMatch`, MongoDB would not compare with the index.
            besides.append({f"analyses.result.{condition.field}": condition.comparison()})
    met = [
        {"analyses": {"$elemMatch": {"name": analyzer, "$and": matched}}}
        for analyzer, matched in of_analyzer.items()
    ]
    return [*met, *besides, there] if met else []
