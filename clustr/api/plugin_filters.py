"""The filters of the listing that the plugins of this installation bring.

`?analyses.brightness.mean__gte=0.5` names an analyzer, a field of its results and an operator, of
which `eq` goes without saying. What a client sends is a value and nothing else: it is read by the
type that the filter declares, and compared as the results are stored, that is as JSON.
"""

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from copy import deepcopy
from decimal import Decimal
from functools import lru_cache
from typing import Any, cast

from flask import current_app, request
from marshmallow import Schema, ValidationError, fields, missing
from werkzeug.local import LocalProxy

from clustr import logs
from clustr.api.http.blueprint import Blueprint
from clustr.api.http.fields import as_stored
from clustr.api.http.json_schema import query_parameters
from clustr.api.schemas.listing import UploadQuerySchema
from clustr.database import Condition
from clustr.domain.errors import InvalidInput
from clustr.plugins import Filter

log = logs.logger(__name__)

PARAMETER = re.compile(r"analyses\.(?P<analyzer>[^.]*)\.(?P<field>.+?)(__(?P<operator>[^_]*))?\Z")
MEANINGS = {
    "eq": "is",
    "ne": "is not",
    "gt": "is greater than",
    "gte": "is at least",
    "lt": "is less than",
    "lte": "is at most",
}
UNKNOWN = Schema().error_messages["unknown"]
LONGEST_NAME = 100
LARGEST_NUMBER = 2**63 - 1
QUERIES_KEPT = 100
EXTENSION = "clustr.plugin_filters"


def parameter(filter: Filter, operator: str) -> str:
    """The name in the query of a filter with one of its operators."""
    name = f"analyses.{filter.analyzer}.{filter.field}"
    return name if operator == "eq" else f"{name}__{operator}"


class PluginFilters:
    """All filters of an installation, as parameters of the listing.

    Attributes:
        schema: of the whole query of the listing, the filters included.
    """

    def __init__(self, filters: Iterable[Filter]):
        self._declared = {
            parameter(filter, operator): (filter, operator)
            for filter in filters
            if _usable(filter)
            for operator in filter.operators
        }
        # A schema would take a dot in the name of a field for one inside another.
        self._names = {f"filter{i}": name for i, name in enumerate(self._declared)}
        declared = {key: _field(name, *self._declared[name]) for key, name in self._names.items()}
        found = self

        class ListingQuery(UploadQuerySchema):
            """The query of the listing in this installation."""

            def handle_error(self, error: ValidationError, *_: Any, **__: Any) -> None:
                for name, said in error.messages.items():
                    if said == [UNKNOWN]:
                        error.messages[name] = [found.unknown(name, self.fields)]

        self.schema = type("ListingQuery", (ListingQuery,), declared)()
        # The same is asked again and again, and to understand it takes a tenth of an answer.
        self._understood = lru_cache(QUERIES_KEPT)(self._understand)

    def read(self) -> tuple[Mapping[str, Any], Sequence[Condition]]:
        """The query of this request: what is no filter by its name, and the conditions.

        Raises:
            UnprocessableEntity, InvalidInput: something cannot be used; each is named.
        """
        return self._understood(request.query_string)

    def _understand(self, _query: bytes) -> tuple[Mapping[str, Any], Sequence[Condition]]:
        query = Blueprint.ARGUMENTS_PARSER.parse(self.schema, location="query")
        twice = [name for name, given in request.args.lists() if len(given) > 1 and name != "tag"]
        if twice:
            raise InvalidInput({name: ["Give it once."] for name in twice})
        given = {self._names[key]: query.pop(key) for key in self._names if key in query}
        conditions = []
        for name, value in given.items():
            filter, operator = self._declared[name]
            stored = filter.type._serialize(value, None, None)
            stored = float(stored) if isinstance(stored, Decimal) else stored
            if isinstance(stored, int) and abs(stored) > LARGEST_NUMBER:
                raise InvalidInput({name: ["A whole number here has at most 63 bits."]})
            conditions.append(Condition(filter.analyzer, filter.field, operator, stored))
        return query, conditions

    def unindexed(self, conditions: Iterable[Condition]) -> dict[str, list[str]]:
        """What to say of those conditions of a search that took too long that have no index."""
        return {
            name: ["It has no index, and there are too many uploads to look at each of them."]
            for name, (filter, operator) in self._declared.items()
            if not filter.indexed
            for condition in conditions
            if (condition.analyzer, condition.field) == (filter.analyzer, filter.field)
            and condition.operator == operator
        }

    def unknown(self, name: str, known: Mapping[str, fields.Field[Any]]) -> str:
        """What is wrong with the name of a parameter, and what it can be."""
        asked = PARAMETER.match(name)
        if not asked or not self._declared:
            names = [field.data_key or key for key, field in known.items()]
            return _unknown("parameter", name, names)
        filters = [filter for filter, _ in self._declared.values()]
        analyzers = sorted({filter.analyzer for filter in filters})
        if asked["analyzer"] not in analyzers:
            return _unknown("analyzer with filters", asked["analyzer"], analyzers)
        of_this = {f.field: f for f in filters if f.analyzer == asked["analyzer"]}
        if asked["field"] not in of_this:
            what = f"field of {asked['analyzer']} with a filter"
            return _unknown(what, asked["field"], sorted(of_this))
        what = f"operator of {asked['analyzer']}.{asked['field']}"
        operators = of_this[asked["field"]].operators
        return _unknown(what, asked["operator"] or "eq (no suffix)", operators)


installed_filters = cast(PluginFilters, LocalProxy(lambda: current_app.extensions[EXTENSION]))


def _usable(filter: Filter) -> bool:
    """Whether the type of a filter can be copied and described, as marshmallow's own can."""
    try:
        query_parameters(Schema.from_dict({"filter": _field("filter", filter, "eq")})())
    except Exception:
        name = f"{filter.analyzer}.{filter.field}"
        log.error("filter_not_usable", filter=name, exc_info=True)
        return False
    return True


def _unknown(what: str, name: str, known: Sequence[str]) -> str:
    """That there is no such name, which one may have been meant, and which there are."""
    close = difflib.get_close_matches(name, known, n=1)
    meant = f"; did you mean `{close[0]}`?" if close else "."
    there = ", ".join(f"`{one}`" for one in known)
    return f"There is no {what} `{name[:LONGEST_NAME]}`{meant} There are {there}."


def _field(name: str, filter: Filter, operator: str) -> fields.Field[Any]:
    """The parameter of a filter with one of its operators."""
    field = deepcopy(filter.type)
    field.data_key = name
    field.required, field.allow_none, field.load_default = False, False, missing
    said = f"{filter.summary}: " if filter.summary else ""
    matched = f"`{filter.field}` of `{filter.analyzer}` {MEANINGS[operator]} this"
    slow = "" if filter.indexed else "; without an index, so slow among very many uploads"
    field.pre_load = [as_stored, *field.pre_load]
    field.metadata = {**field.metadata, "description": f"{said}{matched}{slow}."}
    return field
