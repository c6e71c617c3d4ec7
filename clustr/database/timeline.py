"""The timeline: in which months, or on which days, there are uploads that match a filter.

They are in the order of `sort_date`, as listings with `sort=-date` are, and each has a cursor with
which such a listing begins there. They are counted in the index of that order, without reading any
upload, wherever one index answers the filter.
"""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from functools import partial
from typing import Any

from bson import ObjectId
from pymongo.collection import Collection

from clustr.database.connection import NAIVE_UTC, Document
from clustr.database.documents import FIRST_MOMENT, LAST_MOMENT
from clustr.database.kept_counts import KeptCounts
from clustr.database.listing_cursors import cursor_writer
from clustr.database.listing_queries import filter_query, index_for
from clustr.database.local_dates import LOCAL_DATE, SORT_DATE, LocalDates
from clustr.database.search import Search
from clustr.database.search_limits import limit_search_time
from clustr.database.tag_keys import TagKeys
from clustr.database.upload_counts import COUNTED_TOTAL
from clustr.database.upload_filter import (
    NO_FILTER,
    Sort,
    UploadFilter,
    include_unkeyed_uploads,
    require_dates,
)

BY_DATE = Sort("date")
LOWEST_ID, HIGHEST_ID = ObjectId(bytes(12)), ObjectId(b"\xff" * 12)


class Unit(StrEnum):
    """How long the periods of a timeline are."""

    MONTH = "month"
    DAY = "day"


@dataclass(frozen=True, slots=True)
class Period:
    """A month or a day in which there are uploads.

    Attributes:
        name: `2024-07` or `2024-07-01`.
        cursor: with it a listing by `-date` begins with the newest upload of the period.
    """

    name: str
    count: int
    cursor: str


@dataclass(frozen=True, slots=True)
class Timeline:
    """The periods in which there are uploads, the newest first.

    Attributes:
        undated: how many of the uploads have no `taken_at`; they are where they were uploaded.
        total: how many uploads there are in all periods.
    """

    periods: list[Period]
    undated: int
    total: int


class Timelines:
    """Counts the uploads of each period.

    Args:
        owner: whose uploads the collection has; None: it has all.
    """

    def __init__(
        self,
        collection: Collection[Document],
        search: Search,
        tag_keys: TagKeys,
        local_dates: LocalDates,
        owner: str | None,
    ):
        self._owner = owner
        self._collection = collection.with_options(codec_options=NAIVE_UTC)
        self._search = search
        self._tag_keys = tag_keys
        self._local_dates = local_dates
        self._kept_counts = KeptCounts()

    def of(self, upload_filter: UploadFilter, unit: Unit) -> Timeline:
        """The timeline of the uploads that match a filter.

        Raises:
            BeingPrepared: some uploads may lack their date.
            TooSlow: counting them takes long, and goes on.
        """
        upload_filter = include_unkeyed_uploads(upload_filter, self._tag_keys)
        upload_filter = require_dates(upload_filter, BY_DATE, self._local_dates)
        count = partial(self._groups, upload_filter, unit)
        groups = self._kept_counts.get((unit, repr(upload_filter)), count)
        total = sum(group["count"] for group in groups)
        shown = total if total <= COUNTED_TOTAL or upload_filter == NO_FILTER else None
        write = cursor_writer(BY_DATE, upload_filter, shown, self._owner)
        periods = []
        for group in groups:
            begin: datetime = group["_id"]
            name = begin.isoformat()[: {Unit.MONTH: 7, Unit.DAY: 10}[unit]]
            place = _place_before(begin, unit)
            periods.append(Period(name, group["count"], write(place)))
        return Timeline(periods, sum(group["undated"] for group in groups), total)

    def _groups(self, upload_filter: UploadFilter, unit: Unit, seconds: float) -> list[Document]:
        upload_filter = self._search.planned(upload_filter, BY_DATE)
        options: dict[str, Any] = {}
        if index := index_for(upload_filter, BY_DATE, self._owner) or upload_filter.search_index:
            options["hint"] = index
        readable = {SORT_DATE: {"$gte": FIRST_MOMENT, "$lte": LAST_MOMENT}}
        is_undated = {"$cond": [{"$lte": [f"${LOCAL_DATE}", None]}, 1, 0]}
        begin = {"$dateTrunc": {"date": f"${SORT_DATE}", "unit": unit}}
        group = {"_id": begin, "count": {"$sum": 1}, "undated": {"$sum": is_undated}}
        stages: list[Document] = [
            {"$match": {"$and": [filter_query(upload_filter, BY_DATE), readable]}},
            {"$group": group},
            {"$sort": {"_id": -1}},
        ]
        with limit_search_time(self._collection, seconds):
            return [*self._collection.aggregate(stages, **options)]


def _place_before(begin: datetime, unit: Unit) -> Document:
    """Where a listing by `-date` is just before the period that begins then."""
    try:
        beyond = begin + timedelta(days=1)
        if unit is Unit.MONTH:
            beyond = (begin.replace(day=28) + timedelta(days=4)).replace(day=1)
    except OverflowError:  # It is the last one that there is.
        return {SORT_DATE: LAST_MOMENT, "_id": HIGHEST_ID}
    return {SORT_DATE: beyond.replace(tzinfo=UTC), "_id": LOWEST_ID}
