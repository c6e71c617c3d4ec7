"""Schemas of the listing: its query parameters, and a page of it."""

from collections.abc import Callable, Iterable, Mapping
from copy import copy
from typing import Any

from marshmallow import Schema, ValidationError, fields, validate, validates_schema

from clustr.api.http.etags import version_of
from clustr.api.http.fields import (
    EXAMPLE_ID,
    HEX_ID,
    NOT_NEGATIVE,
    POSITIVE,
    Pattern,
    QueryInteger,
    number,
    text,
)
from clustr.api.http.json_provider import with_fraction
from clustr.api.http.request_context import components
from clustr.api.http.urls import FileUrls
from clustr.api.schemas.analyses import AnalysisSchema
from clustr.api.schemas.filters import CommonFilterSchema, boolean_fields, limit_fields
from clustr.api.schemas.uploads import UploadSchema, dump_local_time
from clustr.components import WebComponents
from clustr.database import (
    COUNTED_TOTAL,
    MALFORMED_RECORD_ERRORS,
    MAX_RANKED,
    RANGE_FILTERS,
    Page,
    SearchPage,
    Sort,
    UploadFilter,
    local_date_of,
    log_foreign_record,
    range_limit,
)
from clustr.domain.models import State
from clustr.domain.result_fields import field_tree, only_fields, without_fields
from clustr.plugin_manager import private_fields, problem_with_path
from clustr.search.query import SearchQuery
from clustr.search.terms import FIELDS

CURSOR_PATTERN = "^[A-Za-z0-9_-]{28,1500}$"
EXAMPLE_CURSOR = "AQAAACodYNqtaSGS9OE_WgwNG3uQAAABqIEKuBA"
SORT_FIELDS = ("upload_time", "date", "taken_at", "size", "name", "updated_at")
SORT_VALUES = [f"{sign}{name}" for name in SORT_FIELDS for sign in ("", "-")]
# Those that go with every filter for what something is, however many uploads there are.
SORTS_OF_ANY_FILTER = ("upload_time", "date", "size", "name")
TOO_FEW_MATCH = (
    "Among so many uploads too few match to be found in time, with any sort; narrow it down with a "
    f"range of what is sorted by, one of {', '.join(SORT_FIELDS)}."
)
RESULTS_FIELD = "analyses.results"
# As many fit into the line of a request.
MAX_LISTED_IDS = 100
MAX_UPLOADS, MAX_LIGHT_UPLOADS = 100, 1000


class NameList(fields.String):
    """A comma-separated list of known names."""

    def __init__(self, known: Iterable[str], **more: Any):
        super().__init__(**more)
        self.known = tuple(known)

    def _is_known(self, name: str) -> bool:
        return name in self.known

    def _deserialize(self, value: Any, *arguments: Any, **named: Any) -> Any:
        names = super()._deserialize(value, *arguments, **named).split(",")
        unknown = [name for name in names if not self._is_known(name)]
        if unknown:
            known = ", ".join(self.known)
            raise ValidationError(
                f"There is no field `{unknown[0][:100]}`. Give some of these, with commas between "
                f"them: {known}."
            )
        return tuple(names)


class UploadFieldList(NameList):
    """A comma-separated list of fields of uploads and of results: `caption,analyses.palette`."""

    def _is_known(self, name: str) -> bool:
        return super()._is_known(name) or name.startswith("analyses.")

    def _deserialize(self, value: Any, *arguments: Any, **named: Any) -> Any:
        names = super()._deserialize(value, *arguments, **named)
        for name in names:
            if name not in self.known:
                _check_result_field(name.removeprefix("analyses."))
        return names


class IdList(fields.String):
    """A comma-separated list of ids of uploads, each once."""

    def _deserialize(self, value: Any, *arguments: Any, **named: Any) -> Any:
        ids = dict.fromkeys(super()._deserialize(value, *arguments, **named).split(","))
        if len(ids) > MAX_LISTED_IDS:
            raise ValidationError(f"At most {MAX_LISTED_IDS} ids are looked up at once.")
        for upload_id in ids:
            HEX_ID(upload_id)
        return tuple(ids)


def _check_result_field(name: str) -> None:
    """Raise for a field of a result that is not there: `palette`, `palette.thumbhash`."""
    analyzers = components.plugin_manager.analyzers
    analyzer, _, path = name.partition(".")
    if analyzer not in analyzers:
        choices = ", ".join(f"`analyses.{each}`" for each in sorted(analyzers))
        raise ValidationError(
            f"There is no analyzer `{analyzer[:100]}`. There are `{RESULTS_FIELD}`, the results "
            f"of all, and {choices or 'no others'}."
        )
    schema = analyzers[analyzer].result_schema
    if path and (problem := problem_with_path(path, schema(exclude=private_fields(schema)))):
        raise ValidationError(f"Of the results of `{analyzer}`: {problem}.")


class PartSchema(Schema):
    """Query parameters for page, order, search and fields."""

    page = QueryInteger(
        validate=validate.Range(1, 1_000_000),
        metadata={
            "description": "Which page, from 1; not beside `cursor`, without which it is the "
            "first. Among many uploads pages reach to the 10,000th upload, and `cursor` any "
            "further.",
        },
    )
    limit = QueryInteger(
        load_default=20,
        validate=validate.Range(1, MAX_LIGHT_UPLOADS),
        metadata={
            "description": f"How many uploads on a page; more than {MAX_UPLOADS} only with "
            "`fields` that have no whole results or analyses, such as "
            "`fields=dimensions,analyses.palette.thumbhash`."
        },
    )
    # The database refuses an invalid cursor.
    cursor = fields.String(
        metadata={
            "description": "The `next_cursor` of the answer before, to go on from there with the "
            "same filters and sort; it costs the same at any depth. Not beside `page`.",
            "pattern": CURSOR_PATTERN,
        }
    )
    sort = fields.String(
        validate=validate.OneOf(SORT_VALUES),
        metadata={
            "description": "The order, downwards with a `-`; by default that of a range that is "
            "asked for, with `undated` `-taken_at`, else `-upload_time`. With `q` by default those "
            "come first that match best: with just this as a tag, with this word in a tag, in the "
            "caption, in the name, in another form, with a word that begins so; of what more than "
            f"{MAX_RANKED} uploads have, the newest. `date` is when the picture was taken as the "
            "clock showed it there; where nothing is known of that, when it was uploaded, in UTC. "
            "`taken_at` is the moment, and uploads without it count as the earliest."
        },
    )
    ids = IdList(
        metadata={
            "description": "Those of these ids that are there, with commas between them, at most "
            f"{MAX_LISTED_IDS}: to ask again for several at once, best with `If-None-Match`.",
            "pattern": f"^[0-9a-f]{{24}}(,[0-9a-f]{{24}}){{0,{MAX_LISTED_IDS - 1}}}$",
            "example": EXAMPLE_ID,
        },
    )
    prefix = fields.String(
        validate=validate.OneOf(["on", "off"]),
        load_default="on",
        metadata={
            "description": "Whether the last word of `q` may be the beginning of a word, while "
            "people type: one of at least 2 letters, without quotation marks, minus, or space "
            "behind it."
        },
    )
    fields_ = UploadFieldList(
        [*UploadSchema().fields, RESULTS_FIELD],
        data_key="fields",
        metadata={
            "description": "The fields of an upload to answer with besides its id, with commas "
            "between them; "
            f"with `{RESULTS_FIELD}` the results of all analyses, too; with the name of an "
            "analyzer, as in `analyses.palette`, its analysis with the result; with the names of "
            "keys behind it, as in `analyses.palette.thumbhash`, just this of its `result`. By "
            "default all but results.",
            "example": "id,caption,tags,analyses.palette.thumbhash",
        },
    )


# mypy cannot know a class that `from_dict` makes.
class UploadQuerySchema(
    Schema.from_dict(  # type: ignore[misc]
        limit_fields(QueryInteger)
        | boolean_fields(fields.Boolean, truthy={"true"}, falsy={"false"})
    ),
    CommonFilterSchema,
    PartSchema,
):
    """The query of the listing, without the filters of plugins."""

    @validates_schema
    def check_what_goes_together(self, query: dict[str, Any], **_more: Any) -> None:
        if "page" in query and "cursor" in query:
            raise ValidationError("Give either `page` or `cursor`, not both.", "cursor")
        if query.get("limit", 0) > MAX_UPLOADS and not _are_light(query.get("fields_")):
            raise ValidationError(
                f"More than {MAX_UPLOADS} go with `fields` that have no whole results or analyses, "
                "such as `fields=dimensions,analyses.palette.thumbhash`.",
                "limit",
            )


def _are_light(names: Iterable[str] | None) -> bool:
    """Whether an upload with these fields alone takes little of an answer."""
    heavy = names is None or any(
        name.startswith("analyses") and name.count(".") < 2 for name in names
    )
    return not heavy


def sort_from_query(query: Mapping[str, Any], filters: UploadFilter) -> Sort:
    """Return the sort of a query: the one asked for, else by the first range that can be sorted."""
    if sort := query.get("sort"):
        return Sort(sort.removeprefix("-"), sort.startswith("-"))
    otherwise = "taken_at" if filters.undated else "upload_time"
    return Sort(
        next((bound.sort for bound in filters.bounds if bound.sort in SORT_FIELDS), otherwise)
    )


def explain_too_slow(
    query: Mapping[str, Any], sort: Sort, of_plugins: Iterable[str]
) -> dict[str, list[str]]:
    """Return errors for a search that took too long: by parameter, what makes it fast.

    Args:
        of_plugins: the parameters of filters of plugins, which have an index.
    """
    if "q" in query:
        return {"q": ["Too many uploads would have to be looked at; give rarer words."]}
    messages = {}
    for name in filter(query.__contains__, RANGE_FILTERS):
        by = range_limit(name, query[name]).sort
        if by == sort.by:
            continue
        if by in SORT_FIELDS:
            messages[name] = [f"Among so many uploads it goes with `sort={by}` or `sort=-{by}`."]
        else:
            messages[name] = [TOO_FEW_MATCH]
    for name in (*filter(query.__contains__, ("tag_not", "untagged")), *of_plugins):
        messages[name] = [TOO_FEW_MATCH]
    if "undated" in query and sort.by != "taken_at":
        messages["undated"] = ["Among so many uploads it goes with `sort=-taken_at`."]
    if not messages:
        messages["sort"] = [
            "Too few of so many uploads match all filters to be found in time. Each filter by "
            f"itself goes with any of these sorts, up or down: {', '.join(SORTS_OF_ANY_FILTER)}."
        ]
    return messages


class ListedAnalysisSchema(AnalysisSchema):
    """An analysis of an upload in a list: with keys of its result selected, just those."""


class ListedUploadSchema(UploadSchema):
    """An upload in a list: its id, and the selected fields."""

    analyses = fields.Dict(
        keys=fields.String(),
        values=fields.Nested(ListedAnalysisSchema),
        metadata=UploadSchema._declared_fields["analyses"].metadata,
    )
    matched = fields.List(
        fields.String(validate=validate.OneOf([*FIELDS])),
        metadata={
            "description": "In what of it words of `q` were found; only there with `q`.",
            "example": ["tag", "caption"],
        },
    )


# These are copies, because the fields of the other schemas stay required.
for _schema in (ListedUploadSchema, ListedAnalysisSchema):
    for _name, _field in _schema._declared_fields.items():
        _schema._declared_fields[_name] = optional = copy(_field)
        optional.required = _name == "id"


class UploadPageSchema(Schema):
    """A page of the listing."""

    data = fields.List(fields.Nested(ListedUploadSchema), required=True)
    total = number(
        f"How many uploads match, exactly up to {COUNTED_TOTAL}. Where more do, it is an estimate "
        "without filters, and null with some, or where more have the words of `q`. It is also null "
        "where too many uploads would have to be looked at to count those that match. Behind a "
        "cursor it is what was counted for the first page. Records in the database that Clustr has "
        "not written are in no `data`; where they have fields of uploads, some may be counted, so "
        "walk until `next_cursor` is null rather than up to this number.",
        42,
        required=True,
        allow_none=True,
        validate=NOT_NEGATIVE,
    )
    total_is_estimate = fields.Boolean(
        required=True,
        metadata={
            "description": f"Whether `total` is an estimate, or null: more than {COUNTED_TOTAL} "
            "match, or too many would have to be looked at.",
            "example": False,
        },
    )
    order = fields.String(
        validate=validate.OneOf(["score", "newest"]),
        metadata={
            "description": "The order of what `q` found: by how well it matches, or the newest "
            "first; not there without `q`, and with `sort`.",
            "example": "score",
        },
    )
    page = number(
        "The page that was asked for; null with a cursor.",
        1,
        required=True,
        allow_none=True,
        validate=POSITIVE,
    )
    limit = number("How many were asked for.", 20, required=True, validate=POSITIVE)
    next_cursor = text(
        "Ask with it for what follows; null at the end.",
        EXAMPLE_CURSOR,
        required=True,
        allow_none=True,
        validate=Pattern(CURSOR_PATTERN),
    )


# The fields of an upload that the listing reads. Naming them costs MongoDB half of what naming the
# excluded fields would cost.
PROJECTION = dict.fromkeys(
    (
        *("original_name", "filename", "upload_time", "taken_at", "size", "content_type", "sha256"),
        *("dimensions", "status", "caption", "tags", "faces", "face_cluster_ids", "duplicate_of"),
        *("uploaded_by", "updated_at", "edited_at", "taken_at_local", "sort_date"),
    ),
    1,
)
ANALYSIS_FIELDS = (
    *("name", "state", "version", "attempts", "started_at", "finished_at", "provenance", "error"),
    "private",
    "failed_version",
)
PROJECTION_WITH_ANALYSES = PROJECTION | {f"analyses.{name}": 1 for name in ANALYSIS_FIELDS}


class FieldSelection:
    """Dumps the uploads of one page, with the selected fields.

    It reads documents of MongoDB directly: making objects of them first would take most of the time
    of a page of 100. A test checks that its output equals that of `dump_upload`.

    Args:
        components: gives the keys of files, and the current version of each analyzer.
        names: the fields to dump, as an `UploadFieldList` loads them; None for all without results.
        with_results: whether to include all results even if `names` does not.
    """

    def __init__(
        self,
        components: WebComponents,
        names: tuple[str, ...] | None,
        with_results: bool = False,
    ):
        asked = names or ()
        self._with_results = with_results or RESULTS_FIELD in asked
        self._paths: dict[str, list[str]] = {}
        for name in asked:
            if name.startswith("analyses.") and name != RESULTS_FIELD:
                analyzer_name, _, path = name.removeprefix("analyses.").partition(".")
                self._paths.setdefault(analyzer_name, []).append(path)
        self._trees = {
            analyzer_name: {} if "" in paths else field_tree(paths)
            for analyzer_name, paths in self._paths.items()
        }
        self._all_analyses = names is None or self._with_results or "analyses" in asked
        self._names = None
        if names is not None:
            own = [name for name in asked if not name.startswith("analyses.")]
            analyses = ["analyses"] if self._with_results or self._paths else []
            self._names = [*dict.fromkeys(["id", *own, *analyses])]
        self._versions, self._private = {}, {}
        for name, analyzer in components.plugin_manager.analyzers.items():
            self._versions[name] = analyzer.version
            self._private[name] = private_fields(analyzer.result_schema)
        self._key = components.storage.key
        self._urls = FileUrls()

    @property
    def projection(self) -> dict[str, int]:
        """The projection for MongoDB: the fields that the selection reads."""
        if self._names is not None and "analyses" not in self._names:
            return PROJECTION
        if self._with_results or not all(self._trees.values()):
            return PROJECTION_WITH_ANALYSES | {"analyses.result": 1}
        # MongoDB refuses a path that is inside another one.
        first_keys = {key for tree in self._trees.values() for key in tree}
        return PROJECTION_WITH_ANALYSES | {f"analyses.result.{key}": 1 for key in first_keys}

    def dump(self, document: Mapping[str, Any]) -> dict[str, Any]:
        """Convert a document of the database to the shape of `ListedUploadSchema`.

        For a document that Clustr did not write, it raises one of `MALFORMED_RECORD_ERRORS`.
        """
        get, upload_id, filename = document.get, str(document["_id"]), document["filename"]
        if not filename.startswith(upload_id):
            raise ValueError("its file cannot be called so")
        duplicate_of = get("duplicate_of")
        wire = {
            "id": upload_id,
            "original_name": document["original_name"],
            "filename": filename,
            "file_path": self._key(filename),
            "url": self._urls.of_file(filename),
            "thumbnail_url": self._urls.of_thumbnail(upload_id),
            "upload_time": with_fraction(document["upload_time"]),
            "taken_at": with_fraction(get("taken_at")),
            "taken_at_local": dump_local_time(local_date_of(document)),
            "size": document["size"],
            "content_type": document["content_type"],
            "sha256": document["sha256"],
            "dimensions": document["dimensions"],
            "status": document["status"],
            "caption": get("caption"),
            "tags": get("tags") or [],
            "faces": get("faces") or [],
            "face_cluster_ids": get("face_cluster_ids") or [],
            "analyses": {
                a["name"]: self._dump_analysis(a)
                for a in get("analyses", ())
                if self._all_analyses or a["name"] in self._paths
            },
            "duplicate_of": str(duplicate_of) if duplicate_of else None,
            "uploaded_by": get("uploaded_by"),
            "updated_at": with_fraction(document["updated_at"]),
            "version": version_of(upload_id, get("edited_at")),
        }
        return wire if self._names is None else {name: wire[name] for name in self._names}

    def _dump_analysis(self, analysis: Mapping[str, Any]) -> dict[str, Any]:
        get, name, version = analysis.get, analysis["name"], analysis["version"]
        if not self._all_analyses and self._trees[name]:
            return {"result": self._dump_result(analysis)}
        wire = {
            "status": analysis["state"],
            "version": version,
            "attempts": get("attempts", 0),
            "started_at": with_fraction(get("started_at")),
            "finished_at": with_fraction(get("finished_at")),
            "stale": version < self._versions.get(name, version),
            "provenance": get("provenance"),
            "error": get("error"),
        }
        if wire["status"] == State.FAILED and get("failed_version") is not None:
            wire["failed_version"] = get("failed_version")
        if self._with_results or name in self._paths:
            wire["result"] = self._dump_result(analysis)
        return wire

    def _dump_result(self, analysis: Mapping[str, Any]) -> Any:
        private = (*(analysis.get("private") or ()), *self._private.get(analysis["name"], ()))
        result = without_fields(analysis.get("result"), field_tree(private))
        return result if self._with_results else only_fields(result, self._trees[analysis["name"]])


def dump_page(
    page: Page, selection: FieldSelection, number: int | None, limit: int
) -> dict[str, Any]:
    """Convert a page of the listing to the shape of `UploadPageSchema`."""
    return _dump_page(page, selection.dump, number, limit)


def dump_search_page(
    search_page: SearchPage,
    search_query: SearchQuery,
    selection: FieldSelection,
    number: int | None,
    limit: int,
) -> dict[str, Any]:
    """Convert a page of a search to the shape of `UploadPageSchema`."""

    def dump(document: Mapping[str, Any]) -> dict[str, Any]:
        terms = frozenset(document["search"]["terms"])
        return selection.dump(document) | {"matched": search_query.matched_fields(terms)}

    body = _dump_page(search_page.page, dump, number, limit)
    return body | {"order": search_page.order} if search_page.order else body


def _dump_page(
    page: Page,
    dump: Callable[[Mapping[str, Any]], dict[str, Any]],
    number: int | None,
    limit: int,
) -> dict[str, Any]:
    data = []
    for document in page.uploads:
        try:
            data.append(dump(document))
        except MALFORMED_RECORD_ERRORS as error:  # Records that Clustr did not write are left out.
            log_foreign_record(str(document["_id"]), f"{type(error).__name__}: {error}")
    is_whole = number == 1 and page.next_cursor is None
    return {
        "data": data,
        "total": len(data) if is_whole else page.total,
        "total_is_estimate": page.total is None or page.total > COUNTED_TOTAL,
        "page": number,
        "limit": limit,
        "next_cursor": page.next_cursor,
    }
