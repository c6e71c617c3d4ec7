"""Listings: uploads that match filters, in an order, a page at a time.

A page costs the same at any depth and for any number of uploads: it is a contiguous range of an
index. There is an index for every equality filter (`status`, a tag, …) with every sort order. For
other filters MongoDB examines uploads one by one: for a limited time first, and if that was not
enough, a limited number of them.
"""

import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial

import pymongo
from bson import ObjectId
from pymongo.collection import Collection
from pymongo.errors import PyMongoError

from clustr.database import upload_counts
from clustr.database.connection import NAIVE_UTC, Document, translate_errors
from clustr.database.documents import (
    FACETS,
    FIRST_MOMENT,
    LOOKS_LIKE_UPLOAD,
    MALFORMED_RECORD_ERRORS,
    NEWEST_FIRST,
)
from clustr.database.listing_cursors import CursorPosition, cursor_writer, read_cursor
from clustr.database.listing_queries import (
    filter_query,
    find_in_range,
    index_for,
    index_range,
    range_up_to,
)
from clustr.database.local_dates import LocalDates
from clustr.database.own_counts import OwnUploadCounts
from clustr.database.result_conditions import Condition, result_conditions, result_index_name
from clustr.database.search_limits import search_with_fallback
from clustr.database.tag_keys import TagKeys
from clustr.database.upload_counts import UploadCounts
from clustr.database.upload_filter import (
    DEFAULT_SORT,
    NO_FILTER,
    Sort,
    UploadFilter,
    include_unkeyed_uploads,
    require_dates,
)
from clustr.database.uploads import find_document
from clustr.domain.errors import InvalidInput, TooSlow

# How far pages by number reach: MongoDB has to skip all index entries before a page.
MAX_SKIPPED = 10_000

FACETS_BATCH = 1000

# The limits for filters that no index answers: this time first, then this number of uploads.
# MongoDB takes about that time to examine that many.
SEARCH_SECONDS = 0.3
MAX_EXAMINED = 50_000
# Up to so many uploads of an owner with an analysis in a state are sorted for a page.
MANY_TO_SORT = 1000
# The limit for counting what a search has found, beyond the page.
COUNT_SECONDS = 0.1


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
    """Lists the collection of uploads.

    Args:
        owner: whose uploads the collection has; None: it has all.
    """

    def __init__(
        self,
        collection: Collection[Document],
        upload_counts: UploadCounts | OwnUploadCounts,
        tag_keys: TagKeys,
        local_dates: LocalDates,
        owner: str | None = None,
    ):
        self._owner = owner
        self._collection = collection.with_options(codec_options=NAIVE_UTC)
        self._upload_counts = upload_counts
        self._tag_keys = tag_keys
        self._local_dates = local_dates

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
            BeingPrepared: the order is that of dates, and some uploads lack theirs.
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
            return self._page(documents, limit, sort, upload_filter, total)
        upload_filter = include_unkeyed_uploads(upload_filter, self._tag_keys)
        upload_filter = require_dates(upload_filter, sort, self._local_dates)
        position = None
        if cursor is not None:
            position = read_cursor(cursor, sort, upload_filter, self._owner)
        skipped = (page - 1) * limit if position is None else 0
        if skipped > MAX_SKIPPED:
            self._refuse_deep_page()
        index = index_for(upload_filter, sort, self._owner)

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
        return self._page(documents, limit, sort, upload_filter, total)

    def _newest(self, count: int, projection: Document) -> tuple[list[Document], int | None]:
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
            if hint := self._hint(upload_filter, sort):
                found = found.hint(hint)
            return list(found.skip(skipped).limit(count))
        # Among the uploads of a range of days the index has others, which have no date.
        if skipped and not (sort.by == "date" and upload_filter.bounds):
            position = self._position_after(skipped, upload_filter, sort, None, index)
            if position is None:
                return []
            skipped = 0
        found = (
            self._collection.find(filter_query(upload_filter, sort), projection)
            .sort(sort.keys)
            .hint(index)
        )
        if position is None:
            return list(found.skip(skipped).limit(count))
        return find_in_range(found.limit(count), index_range(upload_filter, sort, position))

    def _hint(self, upload_filter: UploadFilter, sort: Sort) -> str | None:
        """The index for a filter that none answers by itself; None where MongoDB chooses."""
        if index := upload_filter.search_index:
            return index
        few = upload_filter.sha256, upload_filter.ids, upload_filter.conditions
        if self._owner is None or not upload_filter.analysis or upload_filter.search or any(few):
            return None
        # The indexes by analyses in other orders have the uploads of all, and MongoDB takes them.
        by_analysis = UploadFilter(analysis=upload_filter.analysis)
        index = index_for(by_analysis, DEFAULT_SORT, self._owner)
        assert index is not None
        if self._position_after(MANY_TO_SORT, by_analysis, DEFAULT_SORT, None, index) is None:
            return index
        wider_filter = upload_filter.single_index_filters(sort, self._owner)[0]
        return index_for(wider_filter, sort, self._owner)

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
        for wider_filter in upload_filter.single_index_filters(sort, self._owner):
            index = index_for(wider_filter, sort, self._owner)
            assert index is not None
            last = self._position_after(MAX_EXAMINED, wider_filter, sort, position, index)
            within = range_up_to(
                index_range(wider_filter, sort, position), last, wider_filter, sort
            )
            documents = find_in_range(found.clone().hint(index), within)
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
        last = find_in_range(
            keys.skip(count - 1).limit(1), index_range(upload_filter, sort, position)
        )
        return CursorPosition(last[0].get(sort.field), last[0]["_id"], None) if last else None

    def _count(
        self, upload_filter: UploadFilter, sort: Sort, index: str | None, seen: int, bounded: bool
    ) -> int | None:
        """How many uploads match, at least `seen`; None for more than are counted, or in time."""
        if upload_filter == NO_FILTER:
            number = self._upload_counts.aggregate_with_count([], {})[1]
            return None if number is None else max(seen, number)
        most = upload_counts.COUNTED_TOTAL
        if seen > most:
            return None
        if bounded:
            try:
                count = len(self.scan(upload_filter, sort, None, 0, most + 1, {"_id": 1}))
            except TooSlow:  # The page was found all the same.
                return None
        elif upload_filter.search:
            return self._count_found(upload_filter, sort)
        else:
            hint = index or self._hint(upload_filter, sort)
            options: Document = {"hint": hint} if hint else {}
            query = filter_query(upload_filter, sort)
            count = self._collection.count_documents(query, limit=most + 1, **options)
        return count if count <= most else None

    def _count_found(self, upload_filter: UploadFilter, sort: Sort) -> int | None:
        """How many uploads a search finds; None for too many, or where counting takes too long."""
        plan, most = upload_filter.search_plan, upload_counts.COUNTED_TOTAL
        if plan and upload_filter.is_only_search:
            if plan.is_common_word:
                return None
            if plan.ids is not None:
                return len(plan.ids)
        hint = upload_filter.search_index
        options: Document = {"hint": hint} if hint else {}
        query = filter_query(upload_filter, sort)
        try:
            with pymongo.timeout(COUNT_SECONDS):
                count = self._collection.count_documents(query, limit=most + 1, **options)
        except PyMongoError as error:
            if not error.timeout:
                raise
            return None
        return count if count <= most else None

    def _page(
        self,
        documents: list[Document],
        limit: int,
        sort: Sort,
        upload_filter: UploadFilter,
        total: int | None,
    ) -> Page:
        """A page of these documents; one more than the limit shows that another page follows.

        A foreign record may have no position: then the next page begins after the last document
        that has one.
        """
        if len(documents) <= limit:
            return Page(documents, total, None)
        following: str | None = None
        write = cursor_writer(sort, upload_filter, total, self._owner)
        for count in range(limit, 0, -1):
            try:
                following = write(documents[count - 1])
            except (*MALFORMED_RECORD_ERRORS, struct.error):
                continue
            return Page(documents[:count], total, following)
        if sort.by == "upload_time" and not sort.descending:  # Times sort after other types.
            first = {"_id": ObjectId(bytes(12)), sort.field: FIRST_MOMENT}
            last = documents[limit - 1].get(sort.field)
            if last is None or isinstance(last, int | float | str):
                following = write(first)
        return Page(documents[:limit], total, following)

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
