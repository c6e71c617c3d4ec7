"""The local dates of uploads: what the clock showed where a picture was taken.

`taken_at_local` is that time, stored as if it were in UTC; an upload without `taken_at` has none.
`sort_date` is the same, or else `upload_time`: each upload has a place in the order of dates. The
updates that change `taken_at` derive both from edits and results.

Uploads of older versions lack them. One pass in the background adds them, and then drops
`OLD_INDEXES`, so that their absence means that all uploads have dates. A process of such a version
may still run by then: `add_missing` adds the dates of what it inserts.
"""

from collections.abc import Iterator, Mapping
from datetime import datetime

from pymongo.collection import Collection

from clustr.database.connection import Document, translate_errors
from clustr.database.documents import ANY_FACET, LOOKS_LIKE_UPLOAD
from clustr.database.id_ranges import BATCH, id_ranges
from clustr.database.indexes import drop_index

LOCAL_DATE = "taken_at_local"
SORT_DATE = "sort_date"
# Listings of older versions used them.
OLD_INDEXES = ("tag_keys_by_taken_at", "analyses_by_taken_at")
LACKS_DATES: Document = {SORT_DATE: None, **LOOKS_LIKE_UPLOAD}
IS_TAKEN_AT_KNOWN: Document = {"$eq": [{"$type": "$taken_at"}, "date"]}
MILLISECONDS_OF_A_DAY = 86_400_000


def _moment(text: str) -> Document:
    """An expression for a time in ISO 8601; one without an offset counts as UTC."""
    return {"$dateFromString": {"dateString": text, "onError": None, "onNull": None}}


def local_date() -> Document:
    """An expression for `taken_at_local`: of a person's edit, or of the result with `taken_at`.

    Where neither says what the clock showed, it is `taken_at` itself. So it is where what is said
    differs by more than a day, which no time zone does.
    """
    of_result = {
        "$cond": [
            {"$eq": [_moment("$$this.result.taken_at"), "$taken_at"]},
            _moment("$$this.result.taken_at_local"),
            None,
        ]
    }
    said = {"$map": {"input": {"$ifNull": ["$analyses", []]}, "in": of_result}}
    of_results = {"$first": {"$filter": {"input": said, "cond": {"$gt": ["$$this", None]}}}}
    local = {"$cond": [{"$gt": ["$human.taken_at", None]}, "$human.taken_at_local", of_results]}
    difference = {"$abs": {"$subtract": ["$$local", "$taken_at"]}}
    is_near = {"$lte": [{"$ifNull": [difference, float("inf")]}, MILLISECONDS_OF_A_DAY]}
    near = {"$let": {"vars": {"local": local}, "in": {"$cond": [is_near, "$$local", "$taken_at"]}}}
    return {"$cond": [IS_TAKEN_AT_KNOWN, near, "$$REMOVE"]}


def local_date_condition(limits: Mapping[str, datetime]) -> Document:
    """The condition for `taken_at_local`, which uploads without dates can meet, too.

    Args:
        limits: the operators of MongoDB, each with its value.
    """
    local = local_date()
    met = [{operator: [local, value]} for operator, value in limits.items()]
    lacking = {SORT_DATE: None, "$expr": {"$and": [IS_TAKEN_AT_KNOWN, *met]}}
    return {"$or": [{LOCAL_DATE: dict(limits)}, lacking]}


def local_date_stages() -> list[Document]:
    """The stages of an update that derive the dates of an upload from all else."""
    return [
        {"$set": {LOCAL_DATE: local_date()}},
        {"$set": {SORT_DATE: {"$ifNull": [f"${LOCAL_DATE}", "$upload_time"]}}},
    ]


class LocalDates:
    """Adds dates to uploads that lack them, including those in the trash."""

    def __init__(self, uploads: Collection[Document]):
        self._uploads = uploads
        self._trash = uploads.database[f"{uploads.name}_trash"]
        self._all_have_dates = False

    def are_complete(self) -> bool:
        """Whether all uploads have dates. Once true, it stays true."""
        if not self._all_have_dates:
            with translate_errors():
                there = self._uploads.index_information()
            self._all_have_dates = not any(name in there for name in OLD_INDEXES)
        return self._all_have_dates

    def add_all_missing(self) -> Iterator[int]:
        """Add the dates of all uploads, some of them with each step, the oldest first.

        Yields:
            how many uploads lacked them.
        """
        if self.are_complete():
            return
        # An upload that moves into the trash meanwhile is seen there; a restored one has dates.
        for collection in (self._uploads, self._trash):
            for within in id_ranges(collection):
                with translate_errors():
                    count = _add_dates(collection, within)
                yield count
        with translate_errors():
            for name in OLD_INDEXES:
                drop_index(self._uploads, name)

    def add_missing(self) -> int:
        """Add the dates of some uploads that a process of an older version has inserted.

        Returns:
            how many lacked them; 0 when none is left.
        """
        with translate_errors():
            found = self._uploads.find({"facets": ANY_FACET, **LACKS_DATES}, {"_id": 1})
            keys = [d["_id"] for d in found.hint("facets_by_date").limit(BATCH)]
            return _add_dates(self._uploads, {"_id": {"$in": keys}}) if keys else 0


def _add_dates(collection: Collection[Document], within: Document) -> int:
    return collection.update_many({**within, **LACKS_DATES}, local_date_stages()).modified_count
