"""The filters of the listing that the plugins of this installation bring.

`?analyses.brightness.mean__gte=0.5` names an analyzer, a field of its results and an operator; `eq`
is the default. A filter may have a short name besides. The value is parsed by the field type that
the filter declares, then serialized to JSON, as results are stored, and compared with those.
"""

import difflib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from typing import Any, cast

from flask import current_app, request
from marshmallow import Schema, ValidationError, fields, missing
from werkzeug.local import LocalProxy

from clustr import logs
from clustr.api.http.blueprint import Blueprint
from clustr.api.http.json_schema import query_parameters
from clustr.api.schemas.filters import FilterSchema
from clustr.api.schemas.listing import UploadQuerySchema
from clustr.api.schemas.similar import LEFT_OUT as SIMILAR_LEFT_OUT
from clustr.api.schemas.similar import PARAMETERS as SIMILAR_PARAMETERS
from clustr.api.schemas.timeline import LEFT_OUT as TIMELINE_LEFT_OUT
from clustr.api.schemas.timeline import PARAMETERS as TIMELINE_PARAMETERS
from clustr.database import Condition
from clustr.domain import failure_messages
from clustr.domain.errors import InvalidInput
from clustr.plugin_manager import PluginManager, may_be_list
from clustr.plugins import Filter
from clustr.services.filter_values import conditions_of, load_json_value, value_field

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
    "in": "is one of these",
}
UNKNOWN_FIELD = Schema().error_messages["unknown"]
LONGEST_NAME = 100
MAX_ERRORS = 20
CACHED_QUERIES = 100
REPEATABLE = ("tag", "tag_not")
EXTENSION = "clustr.plugin_filters"


@dataclass(frozen=True, slots=True)
class Parameter:
    """A query parameter of the listing.

    Attributes:
        filter: what it is of.
        operator: one of the filter's.
        name: the long name or the short one.
        repeatable: whether it can be given more than once, to be met by all values.
    """

    filter: Filter
    operator: str
    name: str
    repeatable: bool

    @property
    def is_short(self) -> bool:
        return self.name == self.filter.name

    def field(self) -> fields.Field[Any]:
        """Make the marshmallow field."""
        filter = self.filter
        field = value_field(filter, self.operator, self.repeatable)
        field.data_key = self.name
        field.required, field.allow_none, field.load_default = False, False, missing
        title = {"title": filter.title} if filter.title else {}
        field.metadata = {**field.metadata, **title, "description": self._description()}
        return field

    def _description(self) -> str:
        filter = self.filter
        summary = f"{filter.summary}: " if filter.summary else ""
        where = f"`{filter.field}` of `{filter.analyzer}`"
        if isinstance(filter.type, Mapping):
            first = next(iter(filter.type))
            condition = (
                f"one and the same object in {where} meets all of these conditions, which have "
                f"commas between them: keys are `{'`, `'.join(filter.type)}`, comparisons `=`, "
                f"`!=`, and for what is no text `<`, `<=`, `>`, `>=`; a value alone is of "
                f"`{first}`, `|` is between values of which one will do, and a text with any of "
                "these signs in it goes in double quotes"
            )
        else:
            condition = f"{where} {OPERATOR_MEANINGS[self.operator]} this"
            if self.operator == "in":
                condition = f"{where} is one of these, with commas between them"
        repeat = "; given several times, all of them have to be met" if self.repeatable else ""
        cost = "" if filter.indexed else "; without an index, so slow among very many uploads"
        return f"{summary}{condition}{repeat}{cost}."

    def extensions(self) -> dict[str, Any]:
        """What the OpenAPI document says of it besides, for programs that offer filters."""
        filter = self.filter
        operator = "element" if isinstance(filter.type, Mapping) else self.operator
        about = {"analyzer": filter.analyzer, "field": filter.field, "operator": operator}
        internal = {"x-internal": True} if filter.internal else {}
        return {"x-clustr-filter": about, **internal}

    def conditions(self, value: Any) -> list[Condition]:
        """The conditions for a loaded value, in the form that results are stored in."""
        return conditions_of(self.filter, self.operator, self.repeatable, value)


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
        similar_schema: that of the query for similar uploads, which takes the same filters.
        timeline_schema: that of the query for the timeline, which takes them, too.
    """

    def __init__(self, plugin_manager: PluginManager):
        self._explain_missing = plugin_manager.explain_missing
        self.parameters: dict[str, Parameter] = {}
        for filter in plugin_manager.filters:
            is_list = may_be_list(filter, plugin_manager.analyzers[filter.analyzer])
            for operator in filter.operators:
                repeatable = is_list and operator in ("eq", "ne")
                parameter = Parameter(
                    filter, operator, parameter_name(filter, operator), repeatable
                )
                if not _is_usable(parameter):
                    break
                self.parameters[parameter.name] = parameter
                if filter.name:
                    self.parameters[filter.name] = replace(parameter, name=filter.name)
        # marshmallow reads a dot in the name of a field as a path, hence the neutral names.
        self._names = {f"filter{i}": name for i, name in enumerate(self.parameters)}
        declared = {key: self.parameters[name].field() for key, name in self._names.items()}
        plugin_filters = self

        class ListingQuery(UploadQuerySchema):
            """The query of the listing in this installation."""

            def handle_error(self, error: ValidationError, *_: Any, **__: Any) -> None:
                all_messages = error.messages_dict
                known = [field.data_key or key for key, field in self.fields.items()]
                for name, messages in all_messages.items():
                    if messages == [UNKNOWN_FIELD]:
                        all_messages[name] = [plugin_filters.explain_unknown(name, known)]

        self.schema = type("ListingQuery", (ListingQuery,), {**declared})()
        self.similar_schema = type(
            "SimilarQuery", (ListingQuery,), {**declared, **SIMILAR_PARAMETERS}
        )(exclude=SIMILAR_LEFT_OUT)
        self.timeline_schema = type(
            "TimelineQuery", (ListingQuery,), {**declared, **TIMELINE_PARAMETERS}
        )(exclude=TIMELINE_LEFT_OUT)
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
        return self._parse_cached(request.query_string, self.schema)

    def read_similar_query(self) -> tuple[Mapping[str, Any], Sequence[Condition]]:
        """Parse the query for similar uploads; it returns and raises what `read_query` does."""
        return self._parse_cached(request.query_string, self.similar_schema)

    def read_timeline_query(self) -> tuple[Mapping[str, Any], Sequence[Condition]]:
        """Parse the query for the timeline; it returns and raises what `read_query` does."""
        return self._parse_cached(request.query_string, self.timeline_schema)

    def _parse(
        self, _query: bytes, schema: Schema
    ) -> tuple[Mapping[str, Any], Sequence[Condition]]:
        query = Blueprint.ARGUMENTS_PARSER.parse(schema, location="query")
        repeatable = {*REPEATABLE, *(p.name for p in self.parameters.values() if p.repeatable)}
        repeated = [
            name
            for name, values in request.args.lists()
            if len(values) > 1 and name not in repeatable
        ]
        if repeated:
            raise InvalidInput({name: ["Give it once."] for name in repeated})
        filter_values = {self._names[key]: query.pop(key) for key in self._names if key in query}
        return query, [
            condition
            for name, value in filter_values.items()
            for condition in self._conditions(name, value)
        ]

    def _conditions(self, name: str, value: Any) -> list[Condition]:
        try:
            return self.parameters[name].conditions(value)
        except ValidationError as error:
            raise InvalidInput({name: [*map(str, error.messages)]}) from error

    def read_order(self, order: dict[str, Any]) -> dict[str, Any]:
        """Parse the filters of plugins in the order of a job.

        Args:
            order: its `filter`, if it has one, is in the shape of `FilterSchema`.

        Returns:
            The order with `conditions` in its filter, beside what was given.

        Raises:
            InvalidInput: there is no such filter, or a value is invalid; the error names each.
        """
        filter = order.get("filter", {})
        if "analyses" in filter and not self.parameters:
            missing = self._explain_missing(next(iter(filter["analyses"])).partition(".")[0])
            problem = f"No plugin that is installed has filters.{missing}"
            raise InvalidInput({"filter.analyses": [problem]})
        conditions: list[dict[str, Any]] = []
        errors: dict[str, list[str]] = {}
        for name, is_short, value in _given_in_order(filter):
            try:
                conditions += map(asdict, self._conditions_in_order(name, is_short, value))
            except ValidationError as error:
                errors[f"filter.{name}"] = [*map(str, error.messages)]
            if len(errors) == MAX_ERRORS:
                break
        if errors:
            raise InvalidInput(errors)
        return {**order, "filter": {**filter, "conditions": conditions}} if conditions else order

    def _conditions_in_order(self, name: str, is_short: bool, value: Any) -> list[Condition]:
        """The conditions for a JSON value.

        Raises:
            ValidationError: there is no such filter, or the value is invalid.
        """
        known = [each for each in self.parameters.values() if each.is_short == is_short]
        for parameter in known:
            if parameter.name == name:
                return parameter.conditions(load_json_value(parameter.field(), value))
        names = [parameter.name for parameter in known]
        if not is_short:
            raise ValidationError(self.explain_unknown(name, names))
        names += FilterSchema().fields
        raise ValidationError(failure_messages.unknown_name("field", name, names))

    def explain_unindexed(self, names: Iterable[str]) -> dict[str, list[str]]:
        """Return an error for each parameter without an index, after a search took too long."""
        return {
            name: ["It has no index, and there are too many uploads to look at each of them."]
            for name in names
            if name in self.parameters and not self.parameters[name].filter.indexed
        }

    def explain_unknown(self, name: str, known: Sequence[str]) -> str:
        """Say which part of a parameter's name is unknown, and which names there are."""
        parts = PARAMETER_NAME.match(name)
        if not parts or not self.parameters:
            # It may be the short name of a filter that a plugin would bring.
            missing = self._explain_missing(parts["analyzer"] if parts else name)
            return _unknown_name_message("parameter", name, known) + missing
        filters = [parameter.filter for parameter in self.parameters.values()]
        analyzers = sorted({filter.analyzer for filter in filters})
        if parts["analyzer"] not in analyzers:
            message = _unknown_name_message("analyzer with filters", parts["analyzer"], analyzers)
            return message + self._explain_missing(parts["analyzer"])
        own = [filter for filter in filters if filter.analyzer == parts["analyzer"]]
        if parts["field"] not in (filter.field for filter in own):
            what = f"field of {parts['analyzer']} with a filter"
            return _unknown_name_message(
                what, parts["field"], sorted({filter.field for filter in own})
            )
        what = f"operator of {parts['analyzer']}.{parts['field']}"
        operators = dict.fromkeys(
            operator
            for filter in own
            if filter.field == parts["field"]
            for operator in filter.operators
        )
        return _unknown_name_message(what, parts["operator"] or "eq (no suffix)", [*operators])


def _given_in_order(filter: Mapping[str, Any]) -> Iterator[tuple[str, bool, Any]]:
    """The filters of plugins in an order: name, whether it is a short one, and value."""
    for name, value in filter.get("analyses", {}).items():
        yield f"analyses.{name}", False, value
    own_names = FilterSchema().fields
    for name, value in filter.items():
        if name not in own_names:
            yield name, True, value


installed_filters = cast(PluginFilters, LocalProxy(lambda: current_app.extensions[EXTENSION]))


def _is_usable(parameter: Parameter) -> bool:
    """Whether the field type of a filter can be copied and described in OpenAPI."""
    try:
        query_parameters(Schema.from_dict({"filter": parameter.field()})())
    except Exception:
        log.error("filter_not_usable", filter=parameter.name, exc_info=True)
        return False
    return True


def _unknown_name_message(what: str, name: str, known: Sequence[str]) -> str:
    """Say that a name is unknown, suggest a close one, and list all."""
    close = difflib.get_close_matches(name, known, n=1)
    suggestion = f"; did you mean `{close[0]}`?" if close else "."
    choices = ", ".join(f"`{choice}`" for choice in known)
    return f"There is no {what} `{name[:LONGEST_NAME]}`{suggestion} There are {choices}."
