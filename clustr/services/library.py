"""The library: what plugins can read of the uploads, in whatever process they are."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from marshmallow import ValidationError

from clustr.database import Condition, DatabaseView, UploadFilter, filter_from_query
from clustr.domain import failure_messages
from clustr.domain.errors import InvalidInput, NotFound
from clustr.domain.models import Upload
from clustr.plugin_manager import Plugin
from clustr.plugins import Filter, SimilarUpload
from clustr.plugins.filters import CORE_PARAMETERS, OPERATORS
from clustr.services.filter_values import conditions_of, load_json_value, value_field
from clustr.services.nearest import Nearest

# Of the parameters of the list of uploads, those that are no filters.
NO_FILTERS = (
    *("page", "limit", "cursor", "sort", "prefix", "fields", "analyses", "ids"),
    *("by", "max_distance", "unit"),
)
FILTERS = sorted(CORE_PARAMETERS - {*NO_FILTERS})
PREFIX = "analyses."
MOST_NEAREST = 1000


class PluginLibrary:
    """Read access to uploads for one plugin: implements `clustr.plugins.Library`.

    Args:
        nearest: gives, when it is asked, the search among the uploads that there are; and so these.
        plugin: its indexed filters are the fields by which it can find uploads.
        url_of: says where clients find the file of this name.
    """

    def __init__(
        self, nearest: Callable[[], Nearest], plugin: Plugin, url_of: Callable[[str], str]
    ):
        self._nearest_now = nearest
        self._plugin = plugin
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
        conditions = [_condition(name, given.pop(name)) for name in [*given] if PREFIX in name]
        named = {filter.name: filter for filter in self._plugin.filters if filter.name}
        for name in named.keys() & given.keys():
            conditions += _conditions_of_named(named[name], given.pop(name))
        for name in given:
            if name not in FILTERS:
                problem = failure_messages.unknown_name("filter", name, [*FILTERS, *named])
                raise InvalidInput({name: [f"{problem[0].upper()}{problem[1:]}."]})
        if "tag" in given or "tag_not" in given:
            texts = {n: [v] if isinstance(v, str) else v for n, v in given.items() if "tag" in n}
            given |= {name: texts[name] for name in ("tag", "tag_not") if name in given}
        return filter_from_query(given, self._database.search_terms.stemming, conditions)


def _conditions_of_named(filter: Filter, value: Any) -> list[Condition]:
    """The conditions for a filter with a name.

    Raises:
        InvalidInput: the value is invalid.
    """
    (operator,) = filter.operators
    is_repeatable = isinstance(value, list)
    try:
        loaded = load_json_value(value_field(filter, operator, is_repeatable), value)
        return conditions_of(filter, operator, is_repeatable, loaded)
    except ValidationError as error:
        raise InvalidInput({filter.name: [*map(str, error.messages)]}) from error


def _condition(name: str, value: Any) -> Condition:
    """The condition of a name such as `analyses.brightness.mean__gte`.

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
    texts = value if operator == "in" else [value]
    return Condition(analyzer, field, operator, value, all(isinstance(t, str) for t in texts))


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
