"""Listings: uploads that match filters, in an order, a page at a time.

A page costs the same at any depth and however many uploads there are: an index leads to its place,
and what lies behind it in the index is the page. There is an index for every filter by which is
asked whether something is so (`status`, a tag, …) with every order. What no index answers is looked
for by reading uploads one by one: for a limited time, or else among a limited number of them.
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

from bson import MaxKey, MinKey, ObjectId
from bson.errors import InvalidId
from pymongo.collection import Collection
from pymongo.cursor import Cursor
from pymongo.errors import OperationFailure

from clustr.database import upload_counts
from clustr.database.analysis_updates import with_analysis
from clustr.database.connection import PLAIN, Document, answering
from clustr.database.documents import (
    ANY,
    DUPLICATE,
    FACETS,
    FIRST_MOMENT,
    LIKE_AN_UPLOAD,
    UNLIKE_AN_UPLOAD,
)
from clustr.database.tag_keys import TagKeys
from clustr.database.upload_counts import UploadCounts
from clustr.database.uploads import (
    NEWEST_FIRST,
    Condition,
    document_of,
    limited,
    on_results,
    result_index,
)
from clustr.domain.errors import InvalidInput, TooSlow

# By what can be sorted, with the field of the document.
SORTS = {
    "upload_time": "upload_time",
    "taken_at": "taken_at",
    "size": "size",
    "name": "original_name",
}
# What an upload has there.
KINDS = {"upload_time": datetime, "taken_at": datetime | None, "size": int, "name": str}
# Of what a range can be asked for.
RANGES = {
    "upload_time": "upload_time",
    "taken_at": "taken_at",
    "size": "size",
    "width": "dimensions.width",
    "height": "dimensions.height",
}
# What an index begins with, by the filters that it is for.
LEADS = {
    "facets": [("facets", 1)],
    "tag_keys": [("tag_keys", 1)],
    "analyses": [("analyses.name", 1), ("analyses.state", 1)],
}
# Uploads without tags, as all are at first, are not in the indexes for tags.
PARTIAL = {"tag_keys": {"partialFilterExpression": {"tag_keys": {"$exists": True}}}}
INDEXES = {
    f"{lead}_by_{sort}": {"keys": [*keys, (field, -1), ("_id", -1)], **PARTIAL.get(lead, {})}
    for lead, keys in LEADS.items()
    for sort, field in SORTS.items()
}

MORE = 0xFFFFFFFF  # in a cursor: that there are more than are counted

# Pages by number reach so far: what is in front of one has to be passed over in the index.
MOST_SKIPPED = 10_000

# MongoDB's code of the error that a range ends before it begins.
EMPTY_RANGE = 51175

COMPLETED_AT_ONCE = 1000

# What no index answers: so long, or so many uploads, whichever is more. To look at those takes
# MongoDB about as long.
SEARCH_SECONDS = 0.3
MOST_LOOKED_AT = 50_000

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

NO_CURSOR = "This is no cursor; take the `next_cursor` of an answer."
OTHER_CURSOR = "This cursor is of another sort or of other filters; give those again beside it."


@dataclass(frozen=True, slots=True)
class RangeLimit:
    """A limit of a range.

    Attributes:
        field: one of `RANGES`.
        operator: `gte`, `lte` or `lt`.
        value: a time, bytes or pixels.
    """

    field: str
    operator: str
    value: Any


@dataclass(frozen=True, slots=True)
class UploadFilter:
    """Which uploads are listed: those for which all of this is so; None for what does not matter.

    Attributes:
        tag_keys: the keys of the tags that they have all of; see `clustr.database.tags`.
        analysis: an analyzer and the state of its analysis.
        duplicate: whether there is an older upload with the same bytes.
        sha256: of the bytes.
        conditions: on the results of analyses.
        unkeyed: whether there may be uploads without keys of their tags, which no index leads to.
    """

    status: str | None = None
    tag_keys: tuple[str, ...] = ()
    content_type: str | None = None
    analysis: tuple[str, str] | None = None
    duplicate: bool | None = None
    sha256: str | None = None
    bounds: tuple[RangeLimit, ...] = ()
    conditions: tuple[Condition, ...] = ()
    unkeyed: bool = field(default=False, repr=False)

    @property
    def leads(self) -> list[str]:
        """Which indexes can lead to what is wanted, one for each filter, the narrowest first."""
        return [
            *("tag_keys" for _ in self.tag_keys if not self.unkeyed),
            *(["analyses"] if self.analysis else []),
            *("facets" for _ in self.facets),
        ]

    @property
    def facets(self) -> list[str]:
        """The facets that those uploads have; see `clustr.database.documents`."""
        duplicate = None if self.duplicate is None else DUPLICATE[self.duplicate]
        return [facet for facet in (duplicate, self.status, self.content_type) if facet]

    def ways(self, sort: "Sort") -> list["UploadFilter"]:
        """What an index answers by itself, and holds all that is wanted, the narrowest first."""
        bounds = tuple(bound for bound in self.bounds if bound.field == sort.by)
        ways = [
            UploadFilter(tag_keys=(k,), bounds=bounds) for k in self.tag_keys if not self.unkeyed
        ]
        if self.analysis:
            ways.append(UploadFilter(analysis=self.analysis, bounds=bounds))
        if self.status:
            ways.append(UploadFilter(status=self.status, bounds=bounds))
        if self.content_type:
            ways.append(UploadFilter(content_type=self.content_type, bounds=bounds))
        if self.duplicate is not None:
            ways.append(UploadFilter(duplicate=self.duplicate, bounds=bounds))
        return ways or [UploadFilter(bounds=bounds)]

    def fingerprint(self) -> bytes:
        """Four bytes that are different for what is wanted otherwise."""
        return hashlib.blake2b(repr(self).encode(), digest_size=4).digest()


ANYTHING = UploadFilter()


def including_unkeyed_tags(wanted: UploadFilter, tag_keys: TagKeys) -> UploadFilter:
    """What is wanted, also among uploads without keys of their tags while there may be some."""
    unkeyed = bool(wanted.tag_keys) and not tag_keys.are_complete()
    return replace(wanted, unkeyed=True) if unkeyed else wanted


@dataclass(frozen=True, slots=True)
class Sort:
    """An order: by one of `SORTS`, and by id where that is the same."""

    by: str = "upload_time"
    descending: bool = True

    @property
    def field(self) -> str:
        return SORTS[self.by]

    @property
    def keys(self) -> list[tuple[str, int]]:
        """The order as MongoDB is told it."""
        direction = -1 if self.descending else 1
        return [(self.field, direction), ("_id", direction)]

    def code(self) -> int:
        """A number for the order."""
        return [*SORTS].index(self.by) * 2 + self.descending


DEFAULT = Sort()


@dataclass(frozen=True, slots=True)
class CursorPosition:
    """Where a listing goes on: behind an upload.

    Attributes:
        value: what the upload is sorted by; None where it has none.
        total: how many matched on the first page; None for too many to be counted.
    """

    value: Any
    key: ObjectId
    total: int | None


@dataclass(frozen=True, slots=True)
class Page:
    """Some uploads of a listing, how many there are in all, and where the listing goes on.

    Attributes:
        uploads: as they are stored, with times that have no zone and are in UTC.
        total: beyond `COUNTED_TOTAL` an estimate, or None where there is none.
    """

    uploads: list[Document]
    total: int | None
    next_cursor: str | None


class Listing:
    """Lists the collection of uploads."""

    def __init__(
        self, collection: Collection[Document], upload_counts: UploadCounts, tag_keys: TagKeys
    ):
        self._collection = collection.with_options(codec_options=PLAIN)
        self._counting = upload_counts
        self._tag_keys = tag_keys

    def one(self, upload_id: str) -> Document:
        """The upload with this id, as those of a page are.

        Raises:
            NotFound: there is none with it.
        """
        return document_of(self._collection, upload_id)

    def page(
        self,
        limit: int,
        page: int = 1,
        cursor: str | None = None,
        wanted: UploadFilter = ANYTHING,
        sort: Sort = DEFAULT,
        projection: Document | None = None,
    ) -> Page:
        """Some of the uploads that are wanted.

        Args:
            limit: how many at most.
            page: which page of that many, from 1; not used when there is a cursor.
            cursor: the `next_cursor` of the page before; it costs the same at any depth.
            projection: which fields are read, as MongoDB is told; by default all but the results
                of analyses.

        Raises:
            InvalidInput: this is no cursor, or none of this listing; or the page is too far.
            TooSlow: no index answers it, and more than `MOST_LOOKED_AT` uploads would have to be
                looked at, for longer than `SEARCH_SECONDS`.
        """
        shown = {"analyses.result": 0} if projection is None else projection
        usual = cursor is None and page == 1 and wanted == ANYTHING and sort == DEFAULT
        if usual and not shown.get("analyses.result"):  # They can be more than fit into an answer.
            with answering():
                documents, total = self._newest(limit + 1, shown)
            total = total if len(documents) > limit else len(documents)
            return _page(documents, limit, sort, wanted, total)
        wanted = including_unkeyed_tags(wanted, self._tag_keys)
        place = _read(cursor, sort, wanted) if cursor is not None else None
        skipped = (page - 1) * limit if place is None else 0
        if skipped > MOST_SKIPPED:
            self._refuse_where_that_is_much()
        index = index_for(wanted, sort)

        def found(bounded: bool) -> tuple[list[Document], int | None]:
            asked = wanted, sort, place, skipped, limit + 1, shown
            looked = self.look_through if bounded else partial(self._documents, index)
            documents = looked(*asked)
            if place:
                return documents, place.total
            # A last page that is not empty tells how many there are, without a count.
            if len(documents) <= limit and (documents or not skipped):
                return documents, skipped + len(documents)
            seen = skipped + len(documents) if documents else 0
            return documents, self._count(wanted, sort, index, seen, bounded)

        if index is None:
            documents, total = limited(SEARCH_SECONDS, found)
        else:
            with answering():
                documents, total = found(bounded=False)
        return _page(documents, limit, sort, wanted, total)

    def _newest(self, count: int, shown: Document) -> tuple[list[Document], int]:
        """The newest of all, and how many there are, in one round trip.

        This is the usual page: the second round trip would be a fifth of its cost.
        """
        newest: list[Document] = [
            {"$sort": dict(NEWEST_FIRST)},
            {"$limit": count},
            *([{"$project": shown}] if shown else []),
        ]
        return self._counting.beside(newest, {"batchSize": count + 4})

    def _documents(
        self,
        index: str | None,
        wanted: UploadFilter,
        sort: Sort,
        place: CursorPosition | None,
        skipped: int,
        count: int,
        shown: Document,
    ) -> list[Document]:
        """So many that are wanted, in the order, from a place on or after the first few."""
        if index is None:
            found = self._collection.find(query(wanted, sort, place), shown).sort(sort.keys)
            return list(found.skip(skipped).limit(count))
        if skipped:
            place = self._place_after(skipped, wanted, sort, None, index)
            if place is None:
                return []
        found = self._collection.find(query(wanted, sort), shown).sort(sort.keys).hint(index)
        if place is None:
            return list(found.limit(count))
        return _in_range(found.limit(count), span(wanted, sort, place))

    def look_through(
        self,
        wanted: UploadFilter,
        sort: Sort,
        place: CursorPosition | None,
        skipped: int,
        count: int,
        shown: Document,
        words: Document | None = None,
    ) -> list[Document]:
        """The same, where no index answers it, by looking at `MOST_LOOKED_AT` uploads at most.

        Args:
            words: a further condition.

        Raises:
            TooSlow: those were not enough.
        """
        here = query(wanted, sort)
        found = self._collection.find({"$and": [here, words]} if words else here, shown)
        found = found.sort(sort.keys).skip(skipped).limit(count)
        for way in wanted.ways(sort):
            index = index_for(way, sort)
            assert index is not None
            last = self._place_after(MOST_LOOKED_AT, way, sort, place, index)
            within = _until(span(way, sort, place), last, way, sort)
            documents = _in_range(found.clone().hint(index), within)
            if last is None or len(documents) == count:
                return documents
        for index in self._narrow_results(wanted.conditions):
            here = query(wanted, sort, place)
            found = self._collection.find({"$and": [here, words]} if words else here, shown)
            return list(found.sort(sort.keys).skip(skipped).limit(count).hint(index))
        raise TooSlow

    def _narrow_results(self, conditions: Iterable[Condition]) -> Iterator[str]:
        """The indexes on results in which no more than `MOST_LOOKED_AT` meet a condition."""
        there = self._collection.index_information() if conditions else {}
        for condition in conditions:
            index = result_index(condition.field)
            if index in there:
                met = self._collection.find({"$and": on_results([condition])}, {"_id": 1})
                if not [*met.hint(index).skip(MOST_LOOKED_AT).limit(1)]:
                    yield index

    def _place_after(
        self, count: int, wanted: UploadFilter, sort: Sort, place: CursorPosition | None, index: str
    ) -> CursorPosition | None:
        """Where the first so many end, by the index alone; None where there are fewer."""
        keys = self._collection.find({}, {"_id": 1, sort.field: 1}).sort(sort.keys).hint(index)
        last = _in_range(keys.skip(count - 1).limit(1), span(wanted, sort, place))
        return CursorPosition(last[0].get(sort.field), last[0]["_id"], None) if last else None

    def _count(
        self, wanted: UploadFilter, sort: Sort, index: str | None, seen: int, bounded: bool
    ) -> int | None:
        """How many match, of which so many were seen; None for more than are counted."""
        if wanted == ANYTHING:
            return max(seen, self._counting.beside([], {})[1])
        most = upload_counts.COUNTED_TOTAL
        if seen > most:
            return None
        if bounded:
            counted = len(self.look_through(wanted, sort, None, 0, most + 1, {"_id": 1}))
        else:
            options: Document = {"hint": index} if index else {}
            here = query(wanted, sort)
            counted = self._collection.count_documents(here, limit=most + 1, **options)
        return counted if counted <= most else None

    def complete(self) -> int:
        """Write into some uploads of an older version what they are listed by.

        Returns:
            how many; 0 when all have it.
        """
        lacking = {"facets": None, **LIKE_AN_UPLOAD}
        with answering():
            found = self._collection.find(lacking, {"_id": 1}).hint("facets_by_upload_time")
            keys = [document["_id"] for document in found.limit(COMPLETED_AT_ONCE)]
            if keys:
                here = {"_id": {"$in": keys}, **lacking}
                self._collection.update_many(here, [{"$set": {"facets": FACETS}}])
        return len(keys)

    def _refuse_where_that_is_much(self) -> None:
        keys = self._collection.find({}, {"_id": 1}).sort(NEWEST_FIRST).hint("newest_first")
        with answering():
            further = [*keys.skip(MOST_SKIPPED).limit(1)]
        if further:
            reason = f"Pages reach to the upload of number {MOST_SKIPPED}; go on with `cursor`."
            raise InvalidInput({"page": [reason]})


def _page(
    documents: list[Document], limit: int, sort: Sort, wanted: UploadFilter, total: int | None
) -> Page:
    """The page of what was found, of which one more than its limit tells that it goes on.

    A record that others have written may have no place: then it goes on behind the last that has.
    """
    if len(documents) <= limit:
        return Page(documents, total, None)
    for count in range(limit, 0, -1):
        try:
            following = _write(documents[count - 1], sort, wanted, total)
        except (*UNLIKE_AN_UPLOAD, struct.error):
            continue
        return Page(documents[:count], total, following)
    following = None
    if sort.by == "upload_time" and not sort.descending:  # Times come after whatever is none.
        first = {"_id": ObjectId(bytes(12)), sort.field: FIRST_MOMENT}
        last = documents[limit - 1].get(sort.field)
        if last is None or isinstance(last, int | float | str):
            following = _write(first, sort, wanted, total)
    return Page(documents[:limit], total, following)


def index_for(wanted: UploadFilter, sort: Sort) -> str | None:
    """The index that answers this by itself; None where MongoDB has to look for the best way."""
    leads = wanted.leads
    of_others = [bound for bound in wanted.bounds if bound.field != sort.by]
    # Of the same bytes there are few: MongoDB finds and sorts them.
    if len(leads) > 1 or of_others or wanted.conditions or wanted.sha256 or wanted.unkeyed:
        return None
    if leads:
        return f"{leads[0]}_by_{sort.by}"
    return "newest_first" if sort.by == "upload_time" else f"facets_by_{sort.by}"


Key = list[tuple[str, Any]]


def span(wanted: UploadFilter, sort: Sort, place: CursorPosition | None = None) -> tuple[Key, Key]:
    """The one range of the index that holds what is wanted, from a place on.

    Returns:
        where it begins and, no longer in it, where it ends. Every index goes downwards.
    """
    value_from, id_from, value_to, id_to = MaxKey(), MaxKey(), MinKey(), MinKey()
    for bound in wanted.bounds:
        if bound.operator == "gte":
            value_to = bound.value
        else:
            value_from, id_from = bound.value, MaxKey() if bound.operator == "lte" else MinKey()
    if wanted.bounds and value_to == MinKey():
        value_to, id_to = None, MaxKey()  # What has no such field is in no range.
    if place and sort.descending:
        value_from, id_from = place.value, _before(place.key)
    elif place:
        value_to, id_to = place.value, place.key
    lead = _lead(wanted, sort)
    return (
        [*lead, (sort.field, value_from), ("_id", id_from)],
        [*lead, (sort.field, value_to), ("_id", id_to)],
    )


def _until(
    range: tuple[Key, Key], last: CursorPosition | None, wanted: UploadFilter, sort: Sort
) -> tuple[Key, Key]:
    """A range of the index as far as an upload in it; an ascending order begins at its end."""
    if last is None:
        return range
    key = [*_lead(wanted, sort), (sort.field, last.value), ("_id", last.key)]
    return (range[0], key) if sort.descending else (key, range[1])


def _lead(wanted: UploadFilter, sort: Sort) -> Key:
    """What the keys of that range begin with."""
    if wanted.tag_keys:
        return [("tag_keys", wanted.tag_keys[0])]
    if wanted.analysis:
        name, state = wanted.analysis
        return [("analyses.name", name), ("analyses.state", state)]
    if wanted.facets:
        return [("facets", wanted.facets[0])]
    return [] if sort.by == "upload_time" else [("facets", ANY)]


def _in_range(found: Cursor[Document], range: tuple[Key, Key]) -> list[Document]:
    """What is found in a range of an index."""
    try:
        return list(found.min(range[0]).max(range[1]))
    except OperationFailure as error:
        if error.code != EMPTY_RANGE:  # The cursor of someone who made it himself.
            raise
        return []


def query(wanted: UploadFilter, sort: Sort, place: CursorPosition | None = None) -> Document:
    """The query for what is wanted, from a place on.

    It has one branch for what is sorted like the upload at the place, and one for what follows.
    """
    same = _equal(wanted, sort)
    within: Document = {}
    for bound in wanted.bounds:
        within.setdefault(RANGES[bound.field], {})[f"${bound.operator}"] = bound.value
    here = within.pop(sort.field, {})
    same |= within
    if place is None:
        return same | ({sort.field: here} if here else {})
    follow = {"$lt": place.key} if sort.descending else {"$gt": place.key}
    level = {**same, sort.field: place.value, "_id": follow}
    beyond = _beyond(sort, place.value, here)
    return {"$or": [level, {**same, sort.field: beyond}]} if beyond else level


def _equal(wanted: UploadFilter, sort: Sort) -> Document:
    """The conditions that are not about the order."""
    conditions: list[Document] = []
    if wanted.unkeyed:
        conditions += map(_tagged_with, wanted.tag_keys)
    else:
        conditions += [{"tag_keys": key} for key in wanted.tag_keys]
    if wanted.sha256:
        conditions.append({"sha256": wanted.sha256})
    if wanted.analysis:
        name, state = wanted.analysis
        conditions.append(with_analysis(name=name, state=state))
    facets = wanted.facets
    if not conditions and not facets and sort.by != "upload_time":
        facets = [ANY]
    conditions += [{"facets": facet} for facet in facets]
    conditions += on_results(wanted.conditions)
    if len(conditions) == 1:
        return dict(conditions[0])
    return {"$and": conditions} if conditions else {}


def _tagged_with(key: str) -> Document:
    """The condition that there is a tag with this key, of uploads without keys as well."""
    # To MongoDB the one letter that is two in another case is none of them.
    written = re.escape(key).replace("ss", "(?:ss|ß)")
    spelled = {"$regex": rf"^(?:{written})\z", "$options": "i"}
    return {"$or": [{"tag_keys": key}, {"tag_keys": None, "tags": spelled}]}


def _beyond(sort: Sort, value: Any, here: Document) -> Document | None:
    """The condition for what is sorted behind a value, within a range; None when nothing is.

    What has no such field is sorted before all that has.
    """
    if sort.descending:
        if value is None:
            return None
        # Also what has no such field is not greater.
        return {**here, "$lt": value} if here else {"$not": {"$gte": value}}
    if value is None:
        return {"$gte": FIRST_MOMENT}
    return {**here, "$gt": value}


def _before(key: ObjectId) -> ObjectId:
    """The id in front of this one; there is no upload with the least of all."""
    number = int.from_bytes(key.binary, "big") - 1
    return ObjectId(max(number, 0).to_bytes(12, "big"))


def _write(document: Document, sort: Sort, wanted: UploadFilter, total: int | None) -> str:
    """A cursor for what follows an upload: the order, the filters, the total, and its place."""
    value = document.get(sort.field)
    if not isinstance(value, KINDS[sort.by]):
        raise TypeError(f"{sort.field} cannot be sorted by")
    head = struct.pack(">BI", sort.code(), MORE if total is None else total) + wanted.fingerprint()
    packed = head + document["_id"].binary + _packed(value)
    return base64.urlsafe_b64encode(packed).decode().rstrip("=")


def _packed(value: Any) -> bytes:
    if value is None:
        return b""
    if isinstance(value, str):
        return b"\0" + value.encode()  # so that one without letters is not None
    if isinstance(value, datetime):
        value = (value.replace(tzinfo=UTC) - EPOCH) // timedelta(milliseconds=1)
    return struct.pack(">q", value)


def _read(cursor: str, sort: Sort, wanted: UploadFilter) -> CursorPosition:
    """The place that a cursor names."""
    try:
        padded = cursor + "=" * (-len(cursor) % 4)
        packed = base64.b64decode(padded, altchars=b"-_", validate=True)
        code, total = struct.unpack(">BI", packed[:5])
        fingerprint, key, value = packed[5:9], ObjectId(packed[9:21]), packed[21:]
        if (code, fingerprint) != (sort.code(), wanted.fingerprint()):
            raise InvalidInput({"cursor": [OTHER_CURSOR]})
        return CursorPosition(_unpacked(value, sort), key, None if total == MORE else total)
    except (binascii.Error, ValueError, struct.error, OverflowError, InvalidId, TypeError) as error:
        raise InvalidInput({"cursor": [NO_CURSOR]}) from error


def _unpacked(packed: bytes, sort: Sort) -> Any:
    if not packed and sort.by == "taken_at":
        return None
    if sort.by == "name":
        return packed[1:].decode()
    (number,) = struct.unpack(">q", packed)
    return number if sort.by == "size" else EPOCH + timedelta(milliseconds=number)
