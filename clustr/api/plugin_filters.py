"""The filters of the listing that the plugins of this installation bring.

`?analyses.brightness.mean__gte=0.5` names an analyzer, a field of its results and an operator; `eq`
is the default. The value is parsed by the field type that the filter declares, then serialized to
JSON, as results are stored, and compared with those.
"""

import difflib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from copy import deepcopy
from dataclasses import asdict
from decimal import Decimal
from functools import lru_cache
from typing import Any, cast

from flask import current_app, request
from marshmallow import Schema, ValidationError, fields, missing
from werkzeug.local import LocalProxy

from clustr import logs
from clustr.api.http.blueprint import Blueprint
from clustr.api.http.fields import normalize_text
from clustr.api.http.json_schema import query_parameters
from clustr.api.schemas.listing import UploadQuerySchema
from clustr.database import Condition
from clustr.domain.errors import InvalidInput
from clustr.plugins import Filter

log = logs.logger(__name__)

PARAMETER_NAME = re.compile(
    r"analyses\.(?P<analyzer>[^.]*)\.(?P<field>.+?)(__(?P<operator>[^_]*))?\Z"
)
OPERATOR_MEANINGS = {
    "eq": "is",
    "ne": "is not",
    "gt": "is greater than",
    "gte": "is at least",
    "lt": "is less than",
    "lte": "is at most",
}
UNKNOWN_FIELD = Schema().error_messages["unknown"]
LONGEST_NAME = 100
LARGEST_NUMBER = 2**63 - 1
CACHED_QUERIES = 100
REPEATABLE = ("tag", "tag_not")
EXTENSION = "clustr.plugin_filters"


def parameter_name(filter: Filter, operator: str) -> str:
    """Return the name of the query parameter for a filter with one of its operators."""
    name = f"analyses.{filter.analyzer}.{filter.field}"
    return name if operator == "eq" else f"{name}__{operator}"


class PluginFilters:
    """All filters of an installation, as query parameters of the listing.

    Args:
        explain_missing: says of a name which plugin is not loaded that may bring it.

    Attributes:
        schema: the schema of the whole query, with the filters of plugins.
    """

    def __init__(self, filters: Iterable[Filter], explain_missing: Callable[[str], str]):
        self._explain_missing = explain_missing
        self._declared = {
            parameter_name(filter, operator): (filter, operator)
            for filter in filters
            if _is_usable(filter)
            for operator in filter.operators
        }
        # marshmallow reads a dot in the name of a field as a path, hence the neutral names.
        self._names = {f"filter{i}": name for i, name in enumerate(self._declared)}
        declared = {
            key: _parameter_field(name, *self._declared[name]) for key, name in self._names.items()
        }
        plugin_filters = self

        class ListingQuery(UploadQuerySchema):
            """The query of the listing in this installation."""

            def handle_error(self, error: ValidationError, *_: Any, **__: Any) -> None:
                all_messages = error.messages_dict
                for name, messages in all_messages.items():
                    if messages == [UNKNOWN_FIELD]:
                        all_messages[name] = [plugin_filters.explain_unknown(name, self.fields)]

        self.schema = type("ListingQuery", (ListingQuery,), declared)()
        # Clients repeat their queries, and parsing one takes a tenth of the time of an answer.
        self._parse_cached = lru_cache(CACHED_QUERIES)(self._parse)

    def read_query(self) -> tuple[Mapping[str, Any], Sequence[Condition]]:
        """Parse the query of this request.

        Returns:
            The parameters that are no filters of plugins, by name, and the conditions of those
            that are.

        Raises:
            UnprocessableEntity, InvalidInput: parameters are invalid; the error names each.
        """
        return self._parse_cached(request.query_string)

    def _parse(self, _query: bytes) -> tuple[Mapping[str, Any], Sequence[Condition]]:
        query = Blueprint.ARGUMENTS_PARSER.parse(self.schema, location="query")
        repeated = [
            name
            for name, values in request.args.lists()
            if len(values) > 1 and name not in REPEATABLE
        ]
        if repeated:
            raise InvalidInput({name: ["Give it once."] for name in repeated})
        filter_values = {self._names[key]: query.pop(key) for key in self._names if key in query}
        return query, [self._condition(name, value) for name, value in filter_values.items()]

    def _condition(self, name: str, value: Any) -> Condition:
        """The condition for a filter's value, in the form that results are stored in."""
        filter, operator = self._declared[name]
        stored = filter.type._serialize(value, None, None)
        stored = float(stored) if isinstance(stored, Decimal) else stored
        if isinstance(stored, int) and abs(stored) > LARGEST_NUMBER:
            raise InvalidInput({name: ["A whole number here has at most 63 bits."]})
        return Condition(filter.analyzer, filter.field, operator, stored)

    def read_order(self, order: dict[str, Any]) -> dict[str, Any]:
        """Parse the filters of plugins in the order of a job.

        Args:
            order: its `filter`, if it has one, is in the shape of `FilterSchema`.

        Returns:
            The order with `conditions` in its filter instead of `analyses`.

        Raises:
            InvalidInput: there is no such filter, or a value is invalid; the error names each.
        """
        given = order.get("filter", {}).get("analyses")
        if given is None:
            return order
        others = {name: value for name, value in order["filter"].items() if name != "analyses"}
        known = {name: self.schema.fields[key] for key, name in self._names.items()}
        if not known:
            missing = self._explain_missing(next(iter(given)).partition(".")[0])
            problem = f"No plugin that is installed has filters.{missing}"
            raise InvalidInput({"filter.analyses": [problem]})
        conditions: list[dict[str, Any]] = []
        errors: dict[str, list[str]] = {}
        for short_name, value in given.items():
            name = f"analyses.{short_name}"
            try:
                if name not in known:
                    raise ValidationError(self.explain_unknown(name, known))
                loaded = _load_json_value(known[name], value)
                conditions.append(asdict(self._condition(name, loaded)))
            except ValidationError as error:
                errors[f"filter.{name}"] = [*map(str, error.messages)]
            except InvalidInput as error:
                errors[f"filter.{name}"] = error.errors[name]
        if errors:
            raise InvalidInput(errors)
        return {**order, "filter": {**others, "conditions": conditions}}

    def explain_unindexed(self, conditions: Iterable[Condition]) -> dict[str, list[str]]:
        """Return an error for each condition without an index, after a search took too long."""
        return {
            name: ["It has no index, and there are too many uploads to look at each of them."]
            for name, (filter, operator) in self._declared.items()
            if not filter.indexed
            for condition in conditions
            if (condition.analyzer, condition.field) == (filter.analyzer, filter.field)
            and condition.operator == operator
        }

    def explain_unknown(self, name: str, known: Mapping[str, fields.Field[Any]]) -> str:
        """Say which part of a parameter's name is unknown, and which names there are."""
        parts = PARAMETER_NAME.match(name)
        if not parts or not self._declared:
            names = [field.data_key or key for key, field in known.items()]
            analyzer = parts["analyzer"] if parts else name
            missing = self._explain_missing(analyzer) if name.startswith("analyses.") else ""
            return _unknown_name_message("parameter", name, names) + missing
        filters = [filter for filter, _ in self._declared.values()]
        analyzers = sorted({filter.analyzer for filter in filters})
        if parts["analyzer"] not in analyzers:
            message = _unknown_name_message("analyzer with filters", parts["analyzer"], analyzers)
            return message + self._explain_missing(parts["analyzer"])
        by_field = {f.field: f for f in filters if f.analyzer == parts["analyzer"]}
        if parts["field"] not in by_field:
            what = f"field of {parts['analyzer']} with a filter"
            return _unknown_name_message(what, parts["field"], sorted(by_field))
        what = f"operator of {parts['analyzer']}.{parts['field']}"
        operators = by_field[parts["field"]].operators
        return _unknown_name_message(what, parts["operator"] or "eq (no suffix)", operators)


installed_filters = cast(PluginFilters, LocalProxy(lambda: current_app.extensions[EXTENSION]))


def _load_json_value(field: fields.Field[Any], value: Any) -> Any:
    """Load a JSON value by a field of a query, which takes texts for numbers and booleans, too."""
    types = (
        (fields.Boolean, {bool}),
        (fields.Integer, {int}),
        (fields.Number, {int, float}),
    )
    allowed = next((json for kind, json in types if isinstance(field, kind)), {type(value)})
    if type(value) not in allowed:
        raise field.make_error("invalid", input=value)
    return field.deserialize(value)


def _is_usable(filter: Filter) -> bool:
    """Whether the field type of a filter can be copied and described in OpenAPI."""
    try:
        query_parameters(Schema.from_dict({"filter": _parameter_field("filter", filter, "eq")})())
    except Exception:
        name = f"{filter.analyzer}.{filter.field}"
        log.error("filter_not_usable", filter=name, exc_info=True)
        return False
    return True


def _unknown_name_message(what: str, name: str, known: Sequence[str]) -> str:
    """Say that a name is unknown, suggest a close one, and list all."""
    close = difflib.get_close_matches(name, known, n=1)
    suggestion = f"; did you mean `{close[0]}`?" if close else "."
    choices = ", ".join(f"`{choice}`" for choice in known)
    return f"There is no {what} `{name[:LONGEST_NAME]}`{suggestion} There are {choices}."


def _parameter_field(name: str, filter: Filter, operator: str) -> fields.Field[Any]:
    """Make the marshmallow field for a filter with one of its operators."""
    field = deepcopy(filter.type)
    field.data_key = name
    field.required, field.allow_none, field.load_default = False, False, missing
    summary = f"{filter.summary}: " if filter.summary else ""
    condition = f"`{filter.field}` of `{filter.analyzer}` {OPERATOR_MEANINGS[operator]} this"
    cost = "" if filter.indexed else "; without an index, so slow among very many uploads"
    field.pre_load = [normalize_text, *field.pre_load]
    field.metadata = {**field.metadata, "description": f"{summary}{condition}{cost}."}
    return field
