"""The library: what plugins can read of the uploads, in whatever process they are."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import date, datetime
from typing import Any

from marshmallow import ValidationError

from clustr.database import (
    RANGE_FILTERS,
    Condition,
    DatabaseView,
    UploadFilter,
    filter_from_query,
)
from clustr.domain import failure_messages
from clustr.domain.errors import InvalidInput, NotFound
from clustr.domain.models import Upload
from clustr.plugin_manager import Plugin, PluginManager
from clustr.plugins import Filter, SimilarUpload
from clustr.plugins.filters import CORE_PARAMETERS, OPERATORS
from clustr.services.filter_values import conditions_of, load_json_value, prepared, value_field
from clustr.services.nearest import Nearest

# Of the parameters of the list of uploads, those that are no filters.
NO_FILTERS = (
    *("page", "limit", "cursor", "sort", "prefix", "fields", "analyses", "ids"),
    *("by", "max_distance", "unit"),
)
FILTERS = sorted(CORE_PARAMETERS - {*NO_FILTERS})
PREFIX = "analyses."
MOST_NEAREST = 1000
# The filters by a time, each with the time of an upload that it compares.
TIMES = {
    name: field
    for name, (field, _) in RANGE_FILTERS.items()
    if field in ("upload_time", "taken_at", "updated_at")
}
TIME_EXPECTED = "Expected a datetime, such as datetime(2026, 1, 1, tzinfo=UTC)"
IN_FOR_LISTS = "One value is expected; add __in to the name for one of several."


class PluginLibrary:
    """Read access to uploads for one plugin: implements `clustr.plugins.Library`.

    Args:
        nearest: gives, when it is asked, the search among the uploads that there are; and so these.
        plugin: its indexed filters are the fields by which it can find uploads, and those with a
            short name are known by it.
        plugin_manager: has all analyzers and their filters.
        url_of: says where clients find the file of this name.
    """

    def __init__(
        self,
        nearest: Callable[[], Nearest],
        plugin: Plugin,
        plugin_manager: PluginManager,
        url_of: Callable[[str], str],
    ):
        self._nearest_now = nearest
        self._plugin = plugin
        self._plugin_manager = plugin_manager
        self._url_of = url_of

    @property
    def _nearest(self) -> Nearest:
        return self._nearest_now()

    @property
    def _database(self) -> DatabaseView:
        return self._nearest_now().database

    def get(self, upload_id: str) -> Upload:
        return self._database.uploads.get(upload_id)

    def find(
        self, analyzer: str, field: str, values: Sequence[Any], limit: int = 1000
    ) -> list[Upload]:
        indexed_fields = [(f.analyzer, f.field) for f in self._plugin.filters if f.indexed]
        if (analyzer, field) not in indexed_fields:
            declared = ", ".join(".".join(pair) for pair in indexed_fields) or "none"
            raise ValueError(
                f"find() needs an indexed Filter of the plugin {self._plugin.name} on "
                f"{analyzer}.{field}; there are: {declared}"
            )
        return self._database.uploads.find(analyzer, field, values, limit)

    def walk(self, filters: Mapping[str, Any] | None = None) -> Iterator[Upload]:
        return self._database.reading.walk(self._filter(filters))

    def count(self, filters: Mapping[str, Any] | None = None) -> int:
        return self._database.reading.count(self._filter(filters))

    def nearest(
        self,
        to: Any,
        by: str,
        limit: int = 20,
        filters: Mapping[str, Any] | None = None,
        max_distance: float | None = None,
    ) -> list[SimilarUpload]:
        if not 1 <= limit <= MOST_NEAREST:
            raise InvalidInput({"limit": [f"It is a whole number from 1 to {MOST_NEAREST}."]})
        field = self._nearest.field(by)
        besides = to.id if isinstance(to, Upload) else None
        if isinstance(to, Upload):
            vector = self._nearest.vector_of(to, field)
        else:
            try:
                vector = field.vector.encode(to)
            except ValueError as error:
                raise InvalidInput({"to": [f"{error}."]}) from error
        upload_filter = self._filter(filters) if filters else None
        neighbors = self._nearest.find(field, vector, limit, upload_filter, max_distance, besides)
        uploads = self._database.reading.of_ids([each.upload_id for each in neighbors])
        return [
            SimilarUpload(uploads[each.upload_id], each.distance)
            for each in neighbors
            if each.upload_id in uploads
        ]

    def vector(self, upload: Upload, by: str) -> bytes:
        return self._nearest.vector_of(upload, self._nearest.field(by))

    def url_of(self, upload: Upload) -> str:
        return self._url_of(upload.filename)

    def _filter(self, filters: Mapping[str, Any] | None) -> UploadFilter:
        """The filter of these names and values.

        Raises:
            InvalidInput: there is no filter of a name, or a value is invalid.
        """
        given = dict(filters or {})
        conditions: list[Condition] = []
        for name in [*given]:
            if PREFIX in name:
                conditions += self._conditions_of_result(name, given.pop(name))
        named = {filter.name: filter for filter in self._plugin.filters if filter.name}
        for name in named.keys() & given.keys():
            [operator] = named[name].operators
            conditions += _conditions_of_declared(name, named[name], operator, given.pop(name))
        for name in given:
            if name not in FILTERS:
                problem = failure_messages.unknown_name("filter", name, [*FILTERS, *named])
                raise InvalidInput({name: [f"{problem[0].upper()}{problem[1:]}."]})
        _check_analysis(given)
        for name in TIMES.keys() & given.keys():
            _check_time(name, given[name])
        if "tag" in given or "tag_not" in given:
            texts = {n: [v] if isinstance(v, str) else v for n, v in given.items() if "tag" in n}
            given |= {name: texts[name] for name in ("tag", "tag_not") if name in given}
        return filter_from_query(given, self._database.search_terms.stemming, conditions)

    def _conditions_of_result(self, name: str, value: Any) -> list[Condition]:
        """The conditions of a name such as `analyses.brightness.mean__gte`.

        Where no plugin declares such a filter, the value is compared as it is.

        Raises:
            InvalidInput: no analyzer is called so, or the value is invalid.
        """
        analyzer, field, operator = _parts_of(name)
        analyzers = self._plugin_manager.analyzers
        if analyzer not in analyzers:
            problem = failure_messages.unknown_name("analyzer", analyzer, analyzers)
            end = "" if problem.endswith("?") else "."
            missing = self._plugin_manager.explain_missing(analyzer)
            raise InvalidInput({name: [f"{problem[0].upper()}{problem[1:]}{end}{missing}"]})
        for filter in self._plugin_manager.filters:
            is_on_field = (filter.analyzer, filter.field) == (analyzer, field)
            if is_on_field and operator in filter.operators:
                return _conditions_of_declared(name, filter, operator, value)
        is_list = isinstance(value, list | tuple)
        if is_list != (operator == "in"):
            wanted = "A list of values is expected." if operator == "in" else IN_FOR_LISTS
            raise InvalidInput({name: [wanted]})
        is_folded = all(isinstance(each, str) for each in (value if is_list else [value]))
        return [Condition(analyzer, field, operator, value, is_folded)]


def _check_analysis(filters: Mapping[str, Any]) -> None:
    """Check that the filters by an analyzer and by the state of its analysis come together.

    Raises:
        InvalidInput: there is an analyzer without the state of its analysis, or the reverse.
    """
    for given, needed in (("analyzer", "analysis_status"), ("analysis_status", "analyzer")):
        if given in filters and needed not in filters:
            raise InvalidInput({needed: [f"It goes with `{given}`; give both."]})


def _check_time(name: str, value: Any) -> None:
    """Check the value of a filter by a time.

    Raises:
        InvalidInput: the value is no time and, where the filter takes one, no day.
    """
    if isinstance(value, datetime):
        return
    if TIMES[name] != "taken_at":
        raise InvalidInput({name: [f"{TIME_EXPECTED}."]})
    try:
        date.fromisoformat(value)
    except (TypeError, ValueError) as error:
        raise InvalidInput({name: [f"{TIME_EXPECTED}, or a day, such as 2024-07-01."]}) from error


def _conditions_of_declared(
    name: str, filter: Filter, operator: str, value: Any
) -> list[Condition]:
    """The conditions for a filter that a plugin declares; given several values, all are to be met.

    Raises:
        InvalidInput: the value is invalid; the error is about `name`.
    """
    if operator == "in" and isinstance(value, str):  # As in a query.
        value = value.split(",")
    value = [*value] if isinstance(value, tuple) else value
    is_repeatable = isinstance(value, list)
    try:
        if operator == "in" and is_repeatable and not isinstance(filter.type, Mapping):
            field = prepared(filter.type)  # Code may give more values than a query, and none.
            loaded = [load_json_value(field, each) for each in value]
        else:
            loaded = load_json_value(value_field(filter, operator, is_repeatable), value)
        return conditions_of(filter, operator, is_repeatable, loaded)
    except ValidationError as error:
        raise InvalidInput({name: [*map(str, error.messages)]}) from error


def _parts_of(name: str) -> tuple[str, str, str]:
    """The analyzer, the field and the operator of a name.

    Raises:
        InvalidInput: the name is none of that kind.
    """
    path, _, operator = name.removeprefix(PREFIX).partition("__")
    analyzer, _, field = path.partition(".")
    operator = operator or "eq"
    if not (name.startswith(PREFIX) and analyzer and field and operator in OPERATORS):
        form = f"{PREFIX}<analyzer>.<field>__<operator>"
        operators = ", ".join(OPERATORS)
        raise InvalidInput({name: [f"A filter by a result is {form}; operators are {operators}."]})
    return analyzer, field, operator


def url_below(base_url: str | None, upload_url_path: str) -> Callable[[str], str]:
    """Make the `url_of` of a process that answers no requests.

    Raises (when it is called):
        NotFound: `BASE_URL` is not set, so nobody knows how clients call the service.
    """

    def url_of(filename: str) -> str:
        if not base_url:
            raise NotFound("How clients reach the service is not known here; set BASE_URL.")
        return f"{base_url.rstrip('/')}{upload_url_path}/{filename}"

    return url_of
