"""Listings: uploads that match filters, in an order, a page at a time.

A page costs the same at any depth and for any number of uploads: it is a contiguous range of an
index. There is an index for every equality filter (`status`, a tag, …) with every sort order. For
other filters MongoDB examines uploads one by one: for a limited time first, and if that was not
enough, a limited number of them.
"""

import base64
import binascii
import hashlib
import re
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import pymongo
from bson import MaxKey, MinKey, ObjectId
from bson.errors import InvalidId
from pymongo.collection import Collection
from pymongo.cursor import Cursor
from pymongo.errors import OperationFailure, PyMongoError

from clustr.database import upload_counts
from clustr.database.analysis_updates import with_analysis
from clustr.database.connection import NAIVE_UTC, Document, translate_errors
from clustr.database.documents import (
    ANY_FACET,
    DUPLICATE_FACETS,
    FACETS,
    FIRST_MOMENT,
    LOOKS_LIKE_UPLOAD,
    MALFORMED_RECORD_ERRORS,
)
from clustr.database.search_conditions import SearchPlan, search_condition
from clustr.database.tag_keys import TagKeys
from clustr.database.upload_counts import UploadCounts
from clustr.database.uploads import (
    NEWEST_FIRST,
    Condition,
    find_document,
    result_conditions,
    result_index_name,
    search_with_fallback,
)
from clustr.domain.errors import InvalidInput, TooSlow
from clustr.search.query import SearchQuery

# The sort orders, each with the field of the document.
SORTS = {
    "upload_time": "upload_time",
    "taken_at": "taken_at",
    "size": "size",
    "name": "original_name",
}
# The types of the values of these fields.
VALUE_TYPES = {"upload_time": datetime, "taken_at": datetime | None, "size": int, "name": str}
# The filters by a range, each with the field of the document.
RANGE_FIELDS = {
    "upload_time": "upload_time",
    "taken_at": "taken_at",
    "size": "size",
    "width": "dimensions.width",
    "height": "dimensions.height",
}
# The first fields of the indexes for each kind of filter.
INDEX_PREFIXES = {
    "facets": [("facets", 1)],
    "tag_keys": [("tag_keys", 1)],
    "analyses": [("analyses.name", 1), ("analyses.state", 1)],
}
# The indexes for tags leave out uploads without tags, as all uploads are at first.
PARTIAL_FILTERS = {"tag_keys": {"partialFilterExpression": {"tag_keys": {"$exists": True}}}}
INDEXES = {
    f"{lead}_by_{sort}": {
        "keys": [*keys, (field, -1), ("_id", -1)],
        **PARTIAL_FILTERS.get(lead, {}),
    }
    for lead, keys in INDEX_PREFIXES.items()
    for sort, field in SORTS.items()
}

UNCOUNTED_TOTAL = 0xFFFFFFFF  # in a cursor: more uploads than are counted

# How far pages by number reach: MongoDB has to skip all index entries before a page.
MAX_SKIPPED = 10_000

# MongoDB's error code for a range that ends before it begins.
EMPTY_RANGE = 51175

FACETS_BATCH = 1000

# The limits for filters that no index answers: this time first, then this number of uploads.
# MongoDB takes about that time to examine that many.
SEARCH_SECONDS = 0.3
MAX_EXAMINED = 50_000
# The limit for counting what a search has found, beyond the page.
COUNT_SECONDS = 0.1

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

INVALID_CURSOR = "This is no cursor; take the `next_cursor` of an answer."
CURSOR_MISMATCH = "This cursor is of another sort or of other filters; give those again beside it."


@dataclass(frozen=True, slots=True)
class RangeLimit:
    """A limit of a range.

    Attributes:
        field: one of `RANGE_FIELDS`.
        operator: `gte`, `lte` or `lt`.
        value: a time, bytes or pixels.
    """

    field: str
    operator: str
    value: Any


@dataclass(frozen=True, slots=True)
class UploadFilter:
    """Which uploads are listed: those that meet all of these conditions. None is no condition.

    Attributes:
        tag_keys: the keys of tags, of which an upload needs all; see `clustr.database.tags`.
        excluded_tag_keys: the keys of tags, of which an upload has none.
        untagged: whether an upload has no tags.
        undated: whether only uploads without `taken_at` match. Those with one are a range.
        analysis: an analyzer and the state of its analysis.
        duplicate: whether there is an older upload with the same bytes.
        sha256: the SHA-256 of the bytes, in hexadecimal digits.
        bounds: limits of ranges.
        conditions: conditions on the results of analyses.
        search: the words, phrases and dates of a search.
        search_plan: how the uploads are found that match it; None where MongoDB decides.
        unkeyed: whether uploads may lack the keys of their tags; no index answers for those.
    """

    status: str | None = None
    tag_keys: tuple[str, ...] = ()
    content_type: str | None = None
    analysis: tuple[str, str] | None = None
    duplicate: bool | None = None
    sha256: str | None = None
    bounds: tuple[RangeLimit, ...] = ()
    conditions: tuple[Condition, ...] = ()
    excluded_tag_keys: tuple[str, ...] = ()
    untagged: bool | None = None
    undated: bool = False
    search: SearchQuery | None = None
    search_plan: SearchPlan | None = field(default=None, repr=False)
    unkeyed: bool = field(default=False, repr=False)

    @property
    def index_prefixes(self) -> list[str]:
        """The kinds of indexes for these filters, one for each filter, the most selective first."""
        return [
            *("tag_keys" for _ in self.tag_keys if not self.unkeyed),
            *(["analyses"] if self.analysis else []),
            *("facets" for _ in self.facets),
        ]

    @property
    def facets(self) -> list[str]:
        """The facets that match these filters; see `clustr.database.documents`."""
        duplicate = None if self.duplicate is None else DUPLICATE_FACETS[self.duplicate]
        return [facet for facet in (duplicate, self.status, self.content_type) if facet]

    def single_index_filters(self, sort: "Sort") -> list["UploadFilter"]:
        """Wider filters that one index answers each, the most selective first."""
        within = UploadFilter(
            bounds=tuple(bound for bound in self.bounds if bound.field == sort.by),
            undated=self.undated and sort.by == "taken_at",
        )
        ways = [replace(within, tag_keys=(k,)) for k in self.tag_keys if not self.unkeyed]
        if self.analysis:
            ways.append(replace(within, analysis=self.analysis))
        if self.status:
            ways.append(replace(within, status=self.status))
        if self.content_type:
            ways.append(replace(within, content_type=self.content_type))
        if self.duplicate is not None:
            ways.append(replace(within, duplicate=self.duplicate))
        return ways or [within]

    @property
    def is_only_search(self) -> bool:
        """Whether there is no other condition than a search."""
        return self == UploadFilter(search=self.search, search_plan=self.search_plan)

    def fingerprint(self) -> bytes:
        """Four bytes that differ between filters, for cursors."""
        return hashlib.blake2b(repr(self).encode(), digest_size=4).digest()


NO_FILTER = UploadFilter()


def include_unkeyed_uploads(upload_filter: UploadFilter, tag_keys: TagKeys) -> UploadFilter:
    """The filter, set to match uploads without tag keys, too, while there may be some."""
    asked = upload_filter.tag_keys or upload_filter.excluded_tag_keys
    unkeyed = bool(asked) and not tag_keys.are_complete()
    return replace(upload_filter, unkeyed=True) if unkeyed else upload_filter


@dataclass(frozen=True, slots=True)
class Sort:
    """A sort order: by one of `SORTS`, then by id."""

    by: str = "upload_time"
    descending: bool = True

    @property
    def field(self) -> str:
        return SORTS[self.by]

    @property
    def keys(self) -> list[tuple[str, int]]:
        """The sort order in the form that PyMongo takes."""
        direction = -1 if self.descending else 1
        return [(self.field, direction), ("_id", direction)]

    def code(self) -> int:
        """A number for the order, for cursors."""
        return [*SORTS].index(self.by) * 2 + self.descending


DEFAULT_SORT = Sort()


@dataclass(frozen=True, slots=True)
class CursorPosition:
    """Where the next page of a listing begins: after an upload.

    Attributes:
        value: the value of that upload in the sort field; None where it has none.
        key: the `_id` of that upload.
        total: how many uploads matched at the first page; None for too many to be counted.
    """

    value: Any
    key: ObjectId
    total: int | None


@dataclass(frozen=True, slots=True)
class Page:
    """One page of a listing.

    Attributes:
        uploads: documents as they are stored; their times are naive and in UTC.
        total: the number of all uploads of the listing; beyond `COUNTED_TOTAL` an estimate, or
            None where there is none.
        next_cursor: the cursor for the next page; None on the last page.
    """

    uploads: list[Document]
    total: int | None
    next_cursor: str | None


class Listing:
    """Lists the collection of uploads."""

    def __init__(
        self, collection: Collection[Document], upload_counts: UploadCounts, tag_keys: TagKeys
    ):
        self._collection = collection.with_options(codec_options=NAIVE_UTC)
        self._upload_counts = upload_counts
        self._tag_keys = tag_keys

    def get(self, upload_id: str) -> Document:
        """The document of one upload, in the form of a page's.

        Raises:
            NotFound: there is no such upload.
        """
        return find_document(self._collection, upload_id)

    def of_ids(self, upload_ids: Iterable[str], projection: Document) -> dict[str, Document]:
        """The documents of these uploads, as far as they are there, by their ids."""
        query = {"_id": {"$in": [ObjectId(upload_id) for upload_id in upload_ids]}}
        with translate_errors():
            found = self._collection.find(query, projection)
            return {str(document["_id"]): document for document in found}

    def page(
        self,
        limit: int,
        page: int = 1,
        cursor: str | None = None,
        upload_filter: UploadFilter = NO_FILTER,
        sort: Sort = DEFAULT_SORT,
        projection: Document | None = None,
    ) -> Page:
        """One page of the uploads that match the filter.

        Args:
            limit: the largest number of uploads.
            page: the number of the page, from 1; ignored when there is a cursor.
            cursor: the `next_cursor` of the page before; it costs the same at any depth.
            projection: the fields to read, as a MongoDB projection; by default all but the results
                of analyses.

        Raises:
            InvalidInput: the cursor is invalid or of another listing, or the page is too far.
            TooSlow: no index answers the filter, and it would take longer than `SEARCH_SECONDS` and
                more than `MAX_EXAMINED` examined uploads.
        """
        projection = {"analyses.result": 0, "search": 0} if projection is None else projection
        is_first_page = (
            cursor is None and page == 1 and upload_filter == NO_FILTER and sort == DEFAULT_SORT
        )
        total: int | None
        # Results may not fit into one batch.
        with_results = any(
            shown and name.startswith("analyses.result") for name, shown in projection.items()
        )
        if is_first_page and not with_results:
            with translate_errors():
                documents, total = self._newest(limit + 1, projection)
            total = total if len(documents) > limit else len(documents)
            return _page(documents, limit, sort, upload_filter, total)
        upload_filter = include_unkeyed_uploads(upload_filter, self._tag_keys)
        position = _read_cursor(cursor, sort, upload_filter) if cursor is not None else None
        skipped = (page - 1) * limit if position is None else 0
        if skipped > MAX_SKIPPED:
            self._refuse_deep_page()
        index = index_for(upload_filter, sort)

        def find(bounded: bool) -> tuple[list[Document], int | None]:
            arguments = upload_filter, sort, position, skipped, limit + 1, projection
            read = self.scan if bounded else partial(self._documents, index)
            documents = read(*arguments)
            if position:
                return documents, position.total
            # From a last page that is not empty the total follows, without a count.
            if len(documents) <= limit and (documents or not skipped):
                return documents, skipped + len(documents)
            seen = skipped + len(documents) if documents else 0
            return documents, self._count(upload_filter, sort, index, seen, bounded)

        if index is None:
            documents, total = search_with_fallback(SEARCH_SECONDS, find)
        else:
            with translate_errors():
                documents, total = find(bounded=False)
        return _page(documents, limit, sort, upload_filter, total)

    def _newest(self, count: int, projection: Document) -> tuple[list[Document], int]:
        """The newest uploads, and how many there are in all, in one round trip.

        This is the most frequent page; a second round trip would be a fifth of its cost.
        """
        newest: list[Document] = [
            {"$sort": dict(NEWEST_FIRST)},
            {"$limit": count},
            *([{"$project": projection}] if projection else []),
        ]
        return self._upload_counts.aggregate_with_count(newest, {"batchSize": count + 4})

    def _documents(
        self,
        index: str | None,
        upload_filter: UploadFilter,
        sort: Sort,
        position: CursorPosition | None,
        skipped: int,
        count: int,
        projection: Document,
    ) -> list[Document]:
        """Up to `count` matching uploads in the sort order, after a position or the first few."""
        if index is None:
            query = filter_query(upload_filter, sort, position)
            found = self._collection.find(query, projection).sort(sort.keys)
            if upload_filter.search_plan and upload_filter.search_plan.index:
                found = found.hint(upload_filter.search_plan.index)
            return list(found.skip(skipped).limit(count))
        if skipped:
            position = self._position_after(skipped, upload_filter, sort, None, index)
            if position is None:
                return []
        found = (
            self._collection.find(filter_query(upload_filter, sort), projection)
            .sort(sort.keys)
            .hint(index)
        )
        if position is None:
            return list(found.limit(count))
        return _find_in_range(found.limit(count), index_range(upload_filter, sort, position))

    def scan(
        self,
        upload_filter: UploadFilter,
        sort: Sort,
        position: CursorPosition | None,
        skipped: int,
        count: int,
        projection: Document,
    ) -> list[Document]:
        """Like `_documents`, for filters without an index: examines at most `MAX_EXAMINED` uploads.

        Raises:
            TooSlow: examining that many was not enough.
        """
        found = self._collection.find(filter_query(upload_filter, sort), projection)
        found = found.sort(sort.keys).skip(skipped).limit(count)
        for wider_filter in upload_filter.single_index_filters(sort):
            index = index_for(wider_filter, sort)
            assert index is not None
            last = self._position_after(MAX_EXAMINED, wider_filter, sort, position, index)
            within = _range_up_to(
                index_range(wider_filter, sort, position), last, wider_filter, sort
            )
            documents = _find_in_range(found.clone().hint(index), within)
            if last is None or len(documents) == count:
                return documents
        for index in self._selective_result_indexes(upload_filter.conditions):
            query = filter_query(upload_filter, sort, position)
            found = self._collection.find(query, projection)
            return list(found.sort(sort.keys).skip(skipped).limit(count).hint(index))
        raise TooSlow

    def _selective_result_indexes(self, conditions: Iterable[Condition]) -> Iterator[str]:
        """The indexes on results in which at most `MAX_EXAMINED` entries meet a condition."""
        existing = self._collection.index_information() if conditions else {}
        for condition in conditions:
            name = result_index_name(condition.field)
            by_objects = [each for each in existing if each.startswith(f"{name}:")]
            for index in by_objects if condition.operator == "element" else {name} & set(existing):
                met = self._collection.find({"$and": result_conditions([condition])}, {"_id": 1})
                if not [*met.hint(index).skip(MAX_EXAMINED).limit(1)]:
                    yield index

    def _position_after(
        self,
        count: int,
        upload_filter: UploadFilter,
        sort: Sort,
        position: CursorPosition | None,
        index: str,
    ) -> CursorPosition | None:
        """The position after `count` uploads, by the index alone; None if there are fewer."""
        keys = self._collection.find({}, {"_id": 1, sort.field: 1}).sort(sort.keys).hint(index)
        last = _find_in_range(
            keys.skip(count - 1).limit(1), index_range(upload_filter, sort, position)
        )
        return CursorPosition(last[0].get(sort.field), last[0]["_id"], None) if last else None

    def _count(
        self, upload_filter: UploadFilter, sort: Sort, index: str | None, seen: int, bounded: bool
    ) -> int | None:
        """How many uploads match, at least `seen`; None for more than are counted."""
        if upload_filter == NO_FILTER:
            return max(seen, self._upload_counts.aggregate_with_count([], {})[1])
        most = upload_counts.COUNTED_TOTAL
        if seen > most:
            return None
        if bounded:
            count = len(self.scan(upload_filter, sort, None, 0, most + 1, {"_id": 1}))
        elif upload_filter.search:
            return self._count_found(upload_filter, sort)
        else:
            options: Document = {"hint": index} if index else {}
            query = filter_query(upload_filter, sort)
            count = self._collection.count_documents(query, limit=most + 1, **options)
        return count if count <= most else None

    def _count_found(self, upload_filter: UploadFilter, sort: Sort) -> int | None:
        """How many uploads a search finds; None for too many, or where counting takes too long."""
        plan, most = upload_filter.search_plan, upload_counts.COUNTED_TOTAL
        if plan and upload_filter.is_only_search:
            if plan.is_common_word:
                return None
            if plan.ids is not None and not plan.conditions_beside_ids():
                return len(plan.ids)
        options: Document = {"hint": plan.index} if plan and plan.index else {}
        query = filter_query(upload_filter, sort)
        try:
            with pymongo.timeout(COUNT_SECONDS):
                count = self._collection.count_documents(query, limit=most + 1, **options)
        except PyMongoError as error:
            if not error.timeout:
                raise
            return None
        return count if count <= most else None

    def add_missing_facets(self) -> int:
        """Add `facets` to some uploads of an older version, which lack them.

        Returns:
            how many lacked them; 0 when the work is done.
        """
        lacking = {"facets": None, **LOOKS_LIKE_UPLOAD}
        with translate_errors():
            found = self._collection.find(lacking, {"_id": 1}).hint("facets_by_upload_time")
            keys = [document["_id"] for document in found.limit(FACETS_BATCH)]
            if keys:
                query = {"_id": {"$in": keys}, **lacking}
                self._collection.update_many(query, [{"$set": {"facets": FACETS}}])
        return len(keys)

    def _refuse_deep_page(self) -> None:
        keys = self._collection.find({}, {"_id": 1}).sort(NEWEST_FIRST).hint("newest_first")
        with translate_errors():
            further = [*keys.skip(MAX_SKIPPED).limit(1)]
        if further:
            reason = f"Pages reach to the upload of number {MAX_SKIPPED}; go on with `cursor`."
            raise InvalidInput({"page": [reason]})


def _page(
    documents: list[Document],
    limit: int,
    sort: Sort,
    upload_filter: UploadFilter,
    total: int | None,
) -> Page:
    """A page of these documents; one more than the limit shows that another page follows.

    A foreign record may have no position: then the next page begins after the last document that
    has one.
    """
    if len(documents) <= limit:
        return Page(documents, total, None)
    following: str | None = None
    for count in range(limit, 0, -1):
        try:
            following = _write_cursor(documents[count - 1], sort, upload_filter, total)
        except (*MALFORMED_RECORD_ERRORS, struct.error):
            continue
        return Page(documents[:count], total, following)
    if sort.by == "upload_time" and not sort.descending:  # Times sort after other types.
        first = {"_id": ObjectId(bytes(12)), sort.field: FIRST_MOMENT}
        last = documents[limit - 1].get(sort.field)
        if last is None or isinstance(last, int | float | str):
            following = _write_cursor(first, sort, upload_filter, total)
    return Page(documents[:limit], total, following)


def index_for(upload_filter: UploadFilter, sort: Sort) -> str | None:
    """The index that answers a filter by itself; None where MongoDB has to choose a plan."""
    leads = upload_filter.index_prefixes
    of_others = [bound for bound in upload_filter.bounds if bound.field != sort.by]
    # Few uploads have the same SHA-256: MongoDB finds and sorts them.
    if (
        len(leads) > 1
        or of_others
        or (upload_filter.undated and sort.by != "taken_at")
        or upload_filter.excluded_tag_keys
        or upload_filter.untagged is not None
        or upload_filter.conditions
        or upload_filter.sha256
        or upload_filter.search
        or upload_filter.unkeyed
    ):
        return None
    if leads:
        return f"{leads[0]}_by_{sort.by}"
    return "newest_first" if sort.by == "upload_time" else f"facets_by_{sort.by}"


IndexKey = list[tuple[str, Any]]


def index_range(
    upload_filter: UploadFilter, sort: Sort, position: CursorPosition | None = None
) -> tuple[IndexKey, IndexKey]:
    """The range of the index that holds the matching uploads, from a position on.

    Returns:
        the first key (inclusive) and the last key (exclusive). Every index is descending.
    """
    value_from: Any = MaxKey()
    id_from: Any = MaxKey()
    value_to: Any = MinKey()
    id_to: Any = MinKey()
    for bound in upload_filter.bounds:
        if bound.operator == "gte":
            value_to = bound.value
        else:
            value_from, id_from = bound.value, MaxKey() if bound.operator == "lte" else MinKey()
    if upload_filter.bounds and value_to == MinKey():
        value_to, id_to = None, MaxKey()  # Uploads without the field are in no range.
    if upload_filter.undated and sort.by == "taken_at":
        value_from = value_to = None
    if position and sort.descending:
        value_from, id_from = position.value, _preceding_id(position.key)
    elif position:
        value_to, id_to = position.value, position.key
    lead = _index_prefix(upload_filter, sort)
    return (
        [*lead, (sort.field, value_from), ("_id", id_from)],
        [*lead, (sort.field, value_to), ("_id", id_to)],
    )


def _range_up_to(
    range: tuple[IndexKey, IndexKey],
    last: CursorPosition | None,
    upload_filter: UploadFilter,
    sort: Sort,
) -> tuple[IndexKey, IndexKey]:
    """A range of the index, cut at an upload in it; an ascending order begins at its end."""
    if last is None:
        return range
    key = [*_index_prefix(upload_filter, sort), (sort.field, last.value), ("_id", last.key)]
    return (range[0], key) if sort.descending else (key, range[1])


def _index_prefix(upload_filter: UploadFilter, sort: Sort) -> IndexKey:
    """The first fields of the keys of that range."""
    if upload_filter.tag_keys:
        return [("tag_keys", upload_filter.tag_keys[0])]
    if upload_filter.analysis:
        name, state = upload_filter.analysis
        return [("analyses.name", name), ("analyses.state", state)]
    if upload_filter.facets:
        return [("facets", upload_filter.facets[0])]
    return [] if sort.by == "upload_time" else [("facets", ANY_FACET)]


def _find_in_range(found: Cursor[Document], range: tuple[IndexKey, IndexKey]) -> list[Document]:
    """The documents of a query within a range of an index."""
    try:
        return list(found.min(range[0]).max(range[1]))
    except OperationFailure as error:
        if error.code != EMPTY_RANGE:  # A client has forged a cursor.
            raise
        return []


def filter_query(
    upload_filter: UploadFilter, sort: Sort, position: CursorPosition | None = None
) -> Document:
    """The query for the matching uploads, from a position on.

    One branch is for uploads with the same sort value as at the position, one for those after it.
    """
    same = _equality_conditions(upload_filter, sort)
    within: Document = {}
    for bound in upload_filter.bounds:
        within.setdefault(RANGE_FIELDS[bound.field], {})[f"${bound.operator}"] = bound.value
    sort_range = within.pop(sort.field, {})
    same |= within
    if position is None:
        return same | ({sort.field: sort_range} if sort_range else {})
    follow = {"$lt": position.key} if sort.descending else {"$gt": position.key}
    level = {**same, sort.field: position.value, "_id": follow}
    beyond = _value_condition_after(sort, position.value, sort_range)
    return {"$or": [level, {**same, sort.field: beyond}]} if beyond else level


def _equality_conditions(upload_filter: UploadFilter, sort: Sort) -> Document:
    """The conditions that do not depend on the sort order."""
    conditions: list[Document] = []
    if upload_filter.unkeyed:
        conditions += map(_tagged_with, upload_filter.tag_keys)
    else:
        conditions += [{"tag_keys": key} for key in upload_filter.tag_keys]
    if upload_filter.sha256:
        conditions.append({"sha256": upload_filter.sha256})
    if upload_filter.analysis:
        name, state = upload_filter.analysis
        conditions.append(with_analysis(name=name, state=state))
    facets = upload_filter.facets
    if not conditions and not facets and sort.by != "upload_time":
        facets = [ANY_FACET]
    conditions += [{"facets": facet} for facet in facets]
    conditions += _conditions_without_index(upload_filter)
    conditions += result_conditions(upload_filter.conditions)
    if upload_filter.search_plan:
        conditions.append(upload_filter.search_plan.condition())
    elif upload_filter.search:
        conditions.append(search_condition(upload_filter.search))
    if len(conditions) == 1:
        return dict(conditions[0])
    return {"$and": conditions} if conditions else {}


def _conditions_without_index(upload_filter: UploadFilter) -> list[Document]:
    """The conditions on what an upload has not."""
    conditions: list[Document] = []
    if upload_filter.unkeyed:
        conditions += [{"$nor": [_tagged_with(key)]} for key in upload_filter.excluded_tag_keys]
    elif upload_filter.excluded_tag_keys:
        conditions.append({"tag_keys": {"$nin": [*upload_filter.excluded_tag_keys]}})
    if upload_filter.untagged is not None:
        conditions.append({"tags.0": {"$exists": not upload_filter.untagged}})
    if upload_filter.undated:
        # Nested, so that it is kept beside a range or a position in the order of `taken_at`.
        conditions.append({"$and": [{"taken_at": None}]})
    return conditions


def _tagged_with(key: str) -> Document:
    """The condition for a tag with this key, which uploads without tag keys can meet, too."""
    # MongoDB does not fold `ß` to `ss`.
    written = re.escape(key).replace("ss", "(?:ss|ß)")
    spelled = {"$regex": rf"^(?:{written})\z", "$options": "i"}
    return {"$or": [{"tag_keys": key}, {"tag_keys": None, "tags": spelled}]}


def _value_condition_after(sort: Sort, value: Any, sort_range: Document) -> Document | None:
    """The condition for sort values after this one, within a range; None when there are none.

    Uploads without the field are sorted before all others.
    """
    if sort.descending:
        if value is None:
            return None
        # This matches uploads without the field, too.
        return {**sort_range, "$lt": value} if sort_range else {"$not": {"$gte": value}}
    if value is None:
        return {"$gte": FIRST_MOMENT}
    return {**sort_range, "$gt": value}


def _preceding_id(key: ObjectId) -> ObjectId:
    """The id before this one. No upload has the lowest id, which has none before it."""
    number = int.from_bytes(key.binary, "big") - 1
    return ObjectId(max(number, 0).to_bytes(12, "big"))


def _write_cursor(
    document: Document, sort: Sort, upload_filter: UploadFilter, total: int | None
) -> str:
    """The cursor for the page after an upload: sort order, filters, total and position."""
    value = document.get(sort.field)
    if not isinstance(value, VALUE_TYPES[sort.by]):
        raise TypeError(f"{sort.field} cannot be sorted by")
    head = (
        struct.pack(">BI", sort.code(), UNCOUNTED_TOTAL if total is None else total)
        + upload_filter.fingerprint()
    )
    packed = head + document["_id"].binary + _pack_value(value)
    return base64.urlsafe_b64encode(packed).decode().rstrip("=")


def _pack_value(value: Any) -> bytes:
    if value is None:
        return b""
    if isinstance(value, str):
        return b"\0" + value.encode()  # so that an empty text differs from None
    if isinstance(value, datetime):
        value = (value.replace(tzinfo=UTC) - EPOCH) // timedelta(milliseconds=1)
    return struct.pack(">q", value)


def _read_cursor(cursor: str, sort: Sort, upload_filter: UploadFilter) -> CursorPosition:
    """The position in a cursor.

    Raises:
        InvalidInput: the cursor is invalid, or of another sort order or other filters.
    """
    try:
        padded = cursor + "=" * (-len(cursor) % 4)
        packed = base64.b64decode(padded, altchars=b"-_", validate=True)
        code, total = struct.unpack(">BI", packed[:5])
        fingerprint, key, value = packed[5:9], ObjectId(packed[9:21]), packed[21:]
        if (code, fingerprint) != (sort.code(), upload_filter.fingerprint()):
            raise InvalidInput({"cursor": [CURSOR_MISMATCH]})
        return CursorPosition(
            _unpack_value(value, sort), key, None if total == UNCOUNTED_TOTAL else total
        )
    except (binascii.Error, ValueError, struct.error, OverflowError, InvalidId, TypeError) as error:
        raise InvalidInput({"cursor": [INVALID_CURSOR]}) from error


def _unpack_value(packed: bytes, sort: Sort) -> Any:
    if not packed and sort.by == "taken_at":
        return None
    if sort.by == "name":
        return packed[1:].decode()
    (number,) = struct.unpack(">q", packed)
    return number if sort.by == "size" else EPOCH + timedelta(milliseconds=number)
