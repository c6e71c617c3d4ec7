"""Uploads in MongoDB: adding and finding them."""

import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import pymongo
from bson import ObjectId
from pymongo.collection import Collection
from pymongo.errors import BulkWriteError, DuplicateKeyError, PyMongoError

from clustr import logs
from clustr.database.connection import Document, answering
from clustr.database.documents import (
    FIRST_MOMENT,
    LAST_MOMENT,
    OF_AN_OBJECT_ID,
    ORIGINAL,
    from_document,
    from_documents,
    key_of,
    reason_why_foreign,
    to_document,
)
from clustr.database.duplicates import EARLIEST, Duplicates, second_original
from clustr.database.indexes import make_indexes
from clustr.database.not_found import not_found_error
from clustr.domain.errors import BeingAnswered, DatabaseRefused, DatabaseUnavailable, TooSlow
from clustr.domain.models import Upload

log = logs.logger(__name__)

T = TypeVar("T")

NEWEST_FIRST = [("upload_time", -1), ("_id", -1)]
INDEXES = {
    "newest_first": {"keys": NEWEST_FIRST},
    "same_request": {
        "keys": [("retry.key", 1), ("retry.position", 1)],
        "unique": True,
        "partialFilterExpression": {"retry.key": {"$exists": True}},
    },
}

DUPLICATE_KEY = 11000  # MongoDB's code of the error.

# A MongoDB that answered so lately is not asked whether it does.
ANSWERED_SECONDS = 0.1

# A search may look at every upload there is, where no index helps; others shall not wait for it.
SEARCH_SECONDS = 2.0

# By so many of the oldest and of the newest records is seen whose a database is.
LOOKED_AT = 20


@dataclass(frozen=True, slots=True)
class Condition:
    """What a result has to say for its upload to be found.

    Attributes:
        field: the key in the result; with dots for one inside another.
        operator: `eq`, `ne`, `gt`, `gte`, `lt` or `lte`. Only results that have the field are
            looked at; a list meets a condition when one of its elements does, `ne` when none is
            the value.
        value: text, a number or a boolean, to be compared with those of its kind.
    """

    analyzer: str
    field: str
    operator: str
    value: Any


def result_indexes(fields: Iterable[str]) -> dict[str, Document]:
    """The indexes for conditions on fields of results; analyzers that share a name share one.

    Uploads without such a result, as all are at first, are not in it.
    """
    return {
        result_index(field): {
            "keys": [("analyses.name", 1), (f"analyses.result.{field}", 1), *NEWEST_FIRST],
            "partialFilterExpression": _has(field),
        }
        for field in fields
    }


def result_index(field: str) -> str:
    """The name of the index for conditions on a field of results."""
    return f"results.{field}"


def _has(field: str) -> Document:
    """What an upload with such a result meets: to say it lets MongoDB take the index."""
    return {f"analyses.result.{field}": {"$exists": True}}


def new_id() -> str:
    """A new upload's id: 24 hexadecimal digits that begin with the time."""
    return str(ObjectId())


class Uploads:
    """The collection of uploads."""

    def __init__(self, collection: Collection[Document], copies: Duplicates):
        self._collection = collection
        self._copies = copies
        self._answered_at = -math.inf

    def ask(self, uploads: Sequence[Upload]) -> list[Upload]:
        """Ask MongoDB for the first uploads with the same bytes, before their files are kept.

        Of the usual upload, that of one file, `add` finds that out: here MongoDB is only asked
        whether it answers, if it did not do so a moment ago.

        Returns:
            those to be given to `add`, with `duplicate_of` where it is known.

        Raises:
            DatabaseUnavailable: it does not answer, and nothing is to be kept.
        """
        if len(uploads) > 1:
            return self._marked(uploads)
        if time.monotonic() > self._answered_at + ANSWERED_SECONDS:
            with answering():
                self._collection.database.command("ping")
        return [*uploads]

    def add(self, uploads: Sequence[Upload], reuse: bool = False) -> list[Upload]:
        """Insert all of them, with the work to do on them.

        Args:
            reuse: whether one is not to be inserted whose bytes are stored by now.

        Returns:
            them as they are stored, with `duplicate_of` where an older one has the same bytes; with
            `reuse` that older one instead.

        Raises:
            DatabaseUnavailable: MongoDB did not confirm in time; whether they are there is unknown.
            DatabaseRefused: none of them is there.
            BeingAnswered: another request with the same key was faster; some may be there.
        """
        if len(uploads) > 1:
            stored = self._insert(uploads, reuse)
        elif known := self._insert_if_new(uploads[0], reuse):
            is_foreign = reason_why_foreign(known) is not None
            if is_foreign:
                with answering():
                    known = self._copies.original(uploads[0].sha256)
            if reuse and known:
                return [self.get(str(known["_id"])) if is_foreign else from_document(known)]
            first = str(known["_id"]) if known else None
            stored = self._insert([replace(uploads[0], duplicate_of=first)], reuse)
        else:
            stored = [*uploads]
        self._answered_at = time.monotonic()
        return self._with_originals(stored, {upload.id for upload in uploads})

    def _marked(self, uploads: Sequence[Upload]) -> list[Upload]:
        """The uploads with the first that has the same bytes, of earlier ones and of these."""
        firsts = self.first_with_bytes([upload.sha256 for upload in uploads])
        marked = []
        for upload in uploads:
            marked.append(replace(upload, duplicate_of=firsts.get(upload.sha256)))
            firsts.setdefault(upload.sha256, upload.id)
        return marked

    def _insert_if_new(self, upload: Upload, whole: bool) -> Document | None:
        """Insert an upload unless there is one with the same bytes.

        To look first and insert then takes a third more of the time.

        Args:
            whole: whether the results of the one that is there are wanted, too.

        Returns:
            the first record that is there, which others may have written; None when the upload was
            inserted.
        """
        while True:
            try:
                with answering():
                    return self._collection.find_one_and_update(
                        {"sha256": upload.sha256},
                        {"$setOnInsert": to_document(upload)},
                        None if whole else {"analyses.result": 0},
                        sort=EARLIEST,
                        upsert=True,
                    )
            except DuplicateKeyError as error:
                if not second_original(error.details):
                    raise BeingAnswered from error
            with answering():
                marked = self._collection.find_one({ORIGINAL: upload.sha256})
            if marked and reason_why_foreign(marked):
                return marked

    def _insert(self, uploads: Sequence[Upload], reuse: bool) -> list[Upload]:
        """Insert uploads that say which ones have the same bytes, as far as that is known."""
        stored: dict[str, Upload] = {}
        left, marked_by_others = [*uploads], set[str]()
        try:
            while left:
                if reuse:
                    stored |= self._known_instead(left)
                    left = [replace(u, duplicate_of=None) for u in left if u.id not in stored]
                inserted = self._insert_in_order(left, marked_by_others)
                stored |= {upload.id: upload for upload in left[:inserted]}
                left = left[inserted:]
                if left:
                    with answering():
                        marked_by_others |= self._copies.marked_by_others([left[0].sha256])
                    left = self._marked(left)
        except DatabaseRefused as error:
            if stored:
                raise DatabaseUnavailable from error
            raise
        return [stored[upload.id] for upload in uploads]

    def _known_instead(self, uploads: Sequence[Upload]) -> dict[str, Upload]:
        """By the ids of those uploads that are duplicates: what is there instead."""
        duplicates = [upload for upload in uploads if upload.duplicate_of]
        known = self.first_uploads_with_bytes([upload.sha256 for upload in duplicates])
        return {u.id: known[u.sha256] for u in duplicates if u.sha256 in known}

    def _insert_in_order(self, uploads: Sequence[Upload], marked_by_others: set[str]) -> int:
        """Insert the uploads up to the first that is no original any more; how many were.

        Args:
            marked_by_others: the SHA-256 sums whose originals cannot have their mark.
        """
        if not uploads:
            return 0
        documents = [to_document(upload) for upload in uploads]
        for document in documents:
            if document["sha256"] in marked_by_others:
                document.pop(ORIGINAL, None)
        with answering():
            try:
                self._collection.insert_many(documents)
            except BulkWriteError as error:
                (failed,) = error.details["writeErrors"] or ({},)
                if second_original(failed):
                    return failed["index"]
                if failed.get("code") == DUPLICATE_KEY:
                    raise BeingAnswered from error
                raise
        return len(uploads)

    def _with_originals(self, stored: list[Upload], mine: set[str]) -> list[Upload]:
        """The uploads with the originals that they have now that they are there.

        What they were told to name may have been removed before that; see `copies`.
        """
        named = {u.sha256: u.duplicate_of for u in stored if u.duplicate_of and u.id in mine}
        if not named:
            return stored
        try:
            originals = self.first_with_bytes([*named])
            if all(originals.get(sha256, name) == name for sha256, name in named.items()):
                return stored
            self._copies.put_right(named)
            with answering():
                here = {"_id": {"$in": [ObjectId(upload_id) for upload_id in mine]}}
                found = [*self._collection.find(here, {"duplicate_of": 1})]
        except DatabaseUnavailable:  # They are stored; the reconciler sees to it.
            log.warning("originals_unknown", uploads=sorted(mine))
            return stored
        now_named = {str(d["_id"]): d["duplicate_of"] for d in found}
        return [
            replace(u, duplicate_of=str(now_named[u.id]) if now_named[u.id] else None)
            if u.id in now_named
            else u
            for u in stored
        ]

    def index_results(self, fields: Iterable[str], seconds: float) -> None:
        """Make the indexes for conditions on these fields of results, within this time in all."""
        with answering(), pymongo.timeout(seconds):
            make_indexes(self._collection, result_indexes(fields))

    def any(self) -> bool:
        """Whether there is an upload."""
        with answering():
            return self._collection.find_one({}, {"_id": 1}) is not None

    def estimated_count(self) -> int:
        """How many uploads there are, at the same cost however many there are.

        It is the count that MongoDB keeps by itself, which can be wrong after a crash.
        """
        with answering():
            return self._collection.estimated_document_count()

    def get(self, upload_id: str) -> Upload:
        """The upload with this id.

        Raises:
            NotFound: there is none with it.
        """
        return from_document(document_of(self._collection, upload_id))

    def foreign(self) -> str | None:
        """Why none of the records looked at is one of Clustr's; None when one is, or there is none.

        Where there is one of Clustr's among the oldest and the newest, the database is Clustr's.
        """
        reason = None
        with answering():
            for direction in (1, -1):
                found = self._collection.find({}, {"analyses.result": 0}).sort("_id", direction)
                for document in found.limit(LOOKED_AT):
                    why = reason_why_foreign(document)
                    if why is None:
                        return None
                    reason = f"{document['_id']}: {why}"
        return reason

    def first_with_bytes(self, hashes: Sequence[str]) -> dict[str, str]:
        """For each of these SHA-256 sums that is known, the id of the first upload with it.

        The first by time: within one second, ids that two processes gave do not follow it. Only
        the index is looked at: whether a record with a time is one of an upload is not seen.
        """
        there = {"upload_time": {"$gte": FIRST_MOMENT, "$lte": LAST_MOMENT}, **OF_AN_OBJECT_ID}
        stages: list[dict[str, Any]] = [
            {"$match": {"sha256": {"$in": list(set(hashes))}, **there}},
            {"$sort": dict([("sha256", 1), *EARLIEST])},
            {"$group": {"_id": "$sha256", "first": {"$first": "$_id"}}},
        ]
        with answering():
            return {d["_id"]: str(d["first"]) for d in self._collection.aggregate(stages)}

    def first_uploads_with_bytes(self, hashes: Sequence[str]) -> dict[str, Upload]:
        """For each of these SHA-256 sums that is known, the first upload with it."""
        if not hashes:
            return {}
        keys = [ObjectId(first) for first in self.first_with_bytes(hashes).values()]
        with answering():
            found = from_documents(self._collection.find({"_id": {"$in": keys}}))
            return {upload.sha256: upload for upload in found}

    def of_request(self, key: str) -> tuple[list[Upload], list[str]]:
        """What was stored for the request with this `Idempotency-Key`.

        Returns:
            the uploads that there are, and the ids of those that are in the trash.
        """
        here = {"$match": {"retry.key": key}}
        trash = {"coll": f"{self._collection.name}_trash", "pipeline": [here]}
        with answering():
            found = [*self._collection.aggregate([here, {"$unionWith": trash}])]
        there = [*from_documents(d for d in found if "trash" not in d)]
        return there, [str(document["_id"]) for document in found if "trash" in document]

    def find(self, analyzer: str, field: str, values: Sequence[Any], limit: int) -> list[Upload]:
        """Uploads whose result of an analyzer has one of these values in a field, in any order.

        Raises:
            TooSlow: it took longer than `SEARCH_SECONDS`.
        """
        wanted = {"name": analyzer, f"result.{field}": {"$in": list(values)}}
        query = {"analyses": {"$elemMatch": wanted}, **_has(field)}
        with searching(self._collection, SEARCH_SECONDS):
            return [*from_documents(self._collection.find(query).limit(limit))]


def document_of(collection: Collection[Document], upload_id: str) -> Document:
    """The document of the upload with this id.

    Raises:
        NotFound: there is none with it.
    """
    key = key_of(upload_id)
    with answering():
        document = collection.find_one({"_id": key})
    if document is None:
        raise not_found_error(collection, upload_id)
    return document


@contextmanager
def searching(collection: Collection[Document], seconds: float) -> Iterator[None]:
    """Limit the time of what is done in the block, and tell a slow search from an outage.

    Raises:
        TooSlow: it took longer.
    """
    try:
        with pymongo.timeout(seconds):
            yield
    except PyMongoError as error:
        with answering():
            if not error.timeout:
                raise
            collection.database.command("ping")
        raise TooSlow from error


def limited(seconds: float, search: Callable[[bool], T]) -> T:
    """Search for a limited time, and where that was not enough among a limited number of uploads.

    That a search took long says little about it: MongoDB may have been halted, or busy with others.
    So it is not refused for that alone.

    Args:
        search: told whether it is to look at a limited number of uploads only, for which it has the
            time of any operation.

    Raises:
        TooSlow: the uploads it may look at were not enough, as `search` found.
        DatabaseUnavailable: MongoDB did not answer in time.
    """
    try:
        with pymongo.timeout(seconds):
            return search(False)
    except PyMongoError as error:
        if not error.timeout:
            with answering():
                raise
    with answering():
        return search(True)


def on_results(conditions: Sequence[Condition]) -> list[Document]:
    """Queries for uploads that meet all conditions; those on one analyzer are for one result."""
    of_analyzer: dict[str, Document] = {}
    there: Document = {}
    for condition in conditions:
        there |= _has(condition.field)
        matched = of_analyzer.setdefault(condition.analyzer, {"name": condition.analyzer})
        compared = matched.setdefault(f"result.{condition.field}", {})
        compared[f"${condition.operator}"] = condition.value
        if condition.operator == "ne":  # which is also true of what is not there
            compared["$exists"] = True
    met = [{"analyses": {"$elemMatch": matched}} for matched in of_analyzer.values()]
    return [*met, there] if met else []
