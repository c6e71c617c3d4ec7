"""Uploads in MongoDB: adding and finding them."""

import math
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import pymongo
from bson import ObjectId
from pymongo.collection import Collection
from pymongo.errors import BulkWriteError, DuplicateKeyError, PyMongoError

from clustr.catalog.connection import Document, answering
from clustr.catalog.documents import from_document, from_documents, key_of, to_document
from clustr.catalog.indexes import make_indexes
from clustr.errors import BeingAnswered, NotFound, TooSlow
from clustr.upload import Upload

NEWEST_FIRST = [("upload_time", -1), ("_id", -1)]
EARLIEST = [("upload_time", 1), ("_id", 1)]
INDEXES = {
    "newest_first": {"keys": NEWEST_FIRST},
    "same_bytes": {"keys": [("sha256", 1), *EARLIEST]},
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
        f"results.{field}": {
            "keys": [("analyses.name", 1), (f"analyses.result.{field}", 1), *NEWEST_FIRST],
            "partialFilterExpression": _has(field),
        }
        for field in fields
    }


def _has(field: str) -> Document:
    """What an upload with such a result meets: to say it lets MongoDB take the index."""
    return {f"analyses.result.{field}": {"$exists": True}}


def new_id() -> str:
    """A new upload's id: 24 hexadecimal digits that begin with the time."""
    return str(ObjectId())


class Uploads:
    """The collection of uploads."""

    def __init__(self, collection: Collection[Document]):
        self._collection = collection
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

    def add(self, uploads: Sequence[Upload]) -> list[Upload]:
        """Insert all of them at once, with the work to do on them.

        Returns:
            them as they are stored: with `duplicate_of`, where there is one with the same bytes.

        Raises:
            DatabaseUnavailable: MongoDB did not confirm in time; whether they are there is unknown.
            BeingAnswered: another request with the same key was faster.
        """
        if len(uploads) > 1:
            self._insert(uploads)
        elif not self._insert_if_new(uploads[0]):
            uploads = self._marked(uploads)
            self._insert(uploads)
        self._answered_at = time.monotonic()
        return [*uploads]

    def _marked(self, uploads: Sequence[Upload]) -> list[Upload]:
        """The uploads with the first that has the same bytes, of earlier ones and of these."""
        firsts = self.first_with_bytes([upload.sha256 for upload in uploads])
        marked = []
        for upload in uploads:
            marked.append(replace(upload, duplicate_of=firsts.get(upload.sha256)))
            firsts.setdefault(upload.sha256, upload.id)
        return marked

    def _insert_if_new(self, upload: Upload) -> bool:
        """Insert an upload unless there is one with the same bytes; whether it was inserted.

        To look first and insert then takes a third more of the time.
        """
        with answering():
            try:
                known = self._collection.find_one_and_update(
                    {"sha256": upload.sha256},
                    {"$setOnInsert": to_document(upload)},
                    {"_id": 1},
                    upsert=True,
                )
            except DuplicateKeyError as error:
                raise BeingAnswered from error
        return known is None

    def _insert(self, uploads: Sequence[Upload]) -> None:
        with answering():
            try:
                self._collection.insert_many([to_document(upload) for upload in uploads])
            except BulkWriteError as error:
                if any(e["code"] == DUPLICATE_KEY for e in error.details["writeErrors"]):
                    raise BeingAnswered from error
                raise

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
            InvalidInput: this is no id.
            NotFound: there is none with it.
        """
        return from_document(document_of(self._collection, upload_id))

    def first_with_bytes(self, hashes: Sequence[str]) -> dict[str, str]:
        """For each of these SHA-256 sums that is known, the id of the first upload with it.

        The first by time: within one second, ids that two processes gave do not follow it.
        """
        stages: list[dict[str, Any]] = [
            {"$match": {"sha256": {"$in": list(set(hashes))}}},
            {"$sort": dict([("sha256", 1), *EARLIEST])},
            {"$group": {"_id": "$sha256", "first": {"$first": "$_id"}}},
        ]
        with answering():
            return {d["_id"]: str(d["first"]) for d in self._collection.aggregate(stages)}

    def first_uploads_with_bytes(self, hashes: Sequence[str]) -> dict[str, Upload]:
        """For each of these SHA-256 sums that is known, the first upload with it."""
        keys = [ObjectId(first) for first in self.first_with_bytes(hashes).values()]
        with answering():
            found = from_documents(self._collection.find({"_id": {"$in": keys}}))
            return {upload.sha256: upload for upload in found}

    def of_request(self, key: str) -> list[Upload]:
        """What was stored for the request with this `Idempotency-Key`, in its order."""
        with answering():
            found = self._collection.find({"retry.key": key}).sort("retry.position", 1)
            return [*from_documents(found)]

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
        InvalidInput: this is no id.
        NotFound: there is none with it.
    """
    key = key_of(upload_id)
    with answering():
        document = collection.find_one({"_id": key})
    if document is None:
        raise NotFound(f"There is no upload with the id {upload_id}.")
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
