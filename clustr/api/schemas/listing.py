"""Schemas of the listing: its query parameters, and a page of it."""

from collections.abc import Iterable, Mapping
from copy import copy
from typing import Any

from marshmallow import Schema, ValidationError, fields, validate, validates_schema

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
from clustr.api.http.request_context import components
from clustr.api.schemas.analyses import AnalysisSchema
from clustr.api.schemas.filters import CommonFilterSchema, boolean_fields, limit_fields
from clustr.api.schemas.uploads import UploadSchema
from clustr.database import (
    COUNTED_TOTAL,
    MAX_RANKED,
    RANGE_FILTERS,
    Sort,
    UploadFilter,
    range_limit,
)
from clustr.plugin_manager import private_names, problem_with_path
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
    if path and (problem := problem_with_path(path, schema(exclude=private_names(schema)))):
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
