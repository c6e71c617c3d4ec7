"""Uploads in MongoDB: adding, finding and listing them."""

import base64
import binascii
import re
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from bson import ObjectId
from bson.errors import InvalidId
from pymongo.collection import Collection
from pymongo.errors import BulkWriteError, DuplicateKeyError

from clustr.catalog.connection import Document, answering
from clustr.catalog.documents import from_document, to_document
from clustr.errors import BeingAnswered, InvalidInput, NotFound
from clustr.upload import Upload

NEWEST_FIRST = [("upload_time", -1), ("_id", -1)]
INDEXES = {
    "newest_first": {"keys": NEWEST_FIRST},
    "same_bytes": {"keys": [("sha256", 1), ("upload_time", 1), ("_id", 1)]},
    "same_request": {
        "keys": [("retry.key", 1), ("retry.position", 1)],
        "unique": True,
        "partialFilterExpression": {"retry.key": {"$exists": True}},
    },
}

# Up to this many uploads the total of a listing is counted; above it MongoDB's own figure is given,
# which costs the same at any size.
COUNTED_TOTAL = 1000

ID = re.compile(r"[0-9a-f]{24}")

DUPLICATE_KEY = 11000  # MongoDB's code of the error.

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Page:
    """Some uploads of a listing, how many there are in all, and where the listing goes on."""

    uploads: list[Upload]
    total: int
    next_cursor: str | None


def new_id() -> str:
    """A new upload's id: 24 hexadecimal digits that begin with the time."""
    return str(ObjectId())


class Uploads:
    """The collection of uploads."""

    def __init__(self, collection: Collection[Document]):
        self._collection = collection

    def add(self, uploads: Sequence[Upload]) -> None:
        """Insert all of them, with the work to do on them, in one round trip.

        Raises:
            DatabaseUnavailable: MongoDB did not confirm in time; whether they are there is unknown.
            BeingAnswered: another request with the same key was faster.
        """
        documents = [to_document(upload) for upload in uploads]
        with answering():
            try:
                if len(documents) == 1:  # The usual upload, without what a bulk costs.
                    self._collection.insert_one(documents[0])
                else:
                    self._collection.insert_many(documents)
            except DuplicateKeyError as error:
                raise BeingAnswered from error
            except BulkWriteError as error:
                if any(e["code"] == DUPLICATE_KEY for e in error.details["writeErrors"]):
                    raise BeingAnswered from error
                raise

    def any(self) -> bool:
        """Whether there is an upload."""
        with answering():
            return self._collection.find_one({}, {"_id": 1}) is not None

    def get(self, upload_id: str) -> Upload:
        """The upload with this id.

        Raises:
            InvalidInput: this is no id.
            NotFound: there is none with it.
        """
        if not ID.fullmatch(upload_id):
            raise InvalidInput({"id": ["An id is 24 hexadecimal digits, in lower case."]})
        with answering():
            document = self._collection.find_one({"_id": ObjectId(upload_id)})
        if document is None:
            raise NotFound(f"There is no upload with the id {upload_id}.")
        return from_document(document)

    def first_with_bytes(self, hashes: Sequence[str]) -> dict[str, str]:
        """For each of these SHA-256 sums that is known, the id of the first upload with it.

        The first by time: within one second, ids that two processes gave do not follow it.
        """
        different = list(set(hashes))
        if len(different) == 1:  # The usual upload: this takes three quarters of the time.
            with answering():
                first = self._collection.find_one(
                    {"sha256": different[0]}, {"_id": 1}, sort=[("upload_time", 1), ("_id", 1)]
                )
            return {different[0]: str(first["_id"])} if first else {}
        stages: list[dict[str, Any]] = [
            {"$match": {"sha256": {"$in": different}}},
            {"$sort": {"sha256": 1, "upload_time": 1, "_id": 1}},
            {"$group": {"_id": "$sha256", "first": {"$first": "$_id"}}},
        ]
        with answering():
            return {d["_id"]: str(d["first"]) for d in self._collection.aggregate(stages)}

    def first_uploads_with_bytes(self, hashes: Sequence[str]) -> dict[str, Upload]:
        """For each of these SHA-256 sums that is known, the first upload with it."""
        keys = [ObjectId(first) for first in self.first_with_bytes(hashes).values()]
        with answering():
            found = map(from_document, self._collection.find({"_id": {"$in": keys}}))
            return {upload.sha256: upload for upload in found}

    def of_request(self, key: str) -> list[Upload]:
        """What was stored for the request with this `Idempotency-Key`, in its order."""
        with answering():
            found = self._collection.find({"retry.key": key}).sort("retry.position", 1)
            return [from_document(document) for document in found]

    def page(self, limit: int, page: int = 1, cursor: str | None = None) -> Page:
        """The newest uploads, without the results of their analyses.

        Args:
            limit: how many at most.
            page: which page of that many, from 1; not used when there is a cursor.
            cursor: the `next_cursor` of the page before; it costs the same at any depth.

        Raises:
            InvalidInput: this is no cursor.
        """
        with answering():
            found = self._collection.find({}, {"analyses.result": 0}).sort(NEWEST_FIRST)
            found = found.hint(NEWEST_FIRST).limit(limit + 1)
            if cursor is None:
                found = found.skip((page - 1) * limit)
            else:
                found = found.min(_read_cursor(cursor))
            documents = list(found)
            total = self._total()
        following = documents[limit:]
        return Page(
            uploads=[from_document(document) for document in documents[:limit]],
            total=total,
            next_cursor=_write_cursor(following[0]) if following else None,
        )

    def _total(self) -> int:
        total = self._collection.estimated_document_count()
        return self._collection.count_documents({}) if total <= COUNTED_TOTAL else total


def _write_cursor(document: Document) -> str:
    """Where a listing goes on: the place in the index of the first upload of the next page."""
    milliseconds = (document["upload_time"] - EPOCH) // timedelta(milliseconds=1)
    packed = struct.pack(">q", milliseconds) + document["_id"].binary
    return base64.urlsafe_b64encode(packed).decode().rstrip("=")


def _read_cursor(cursor: str) -> list[tuple[str, Any]]:
    try:
        packed = base64.b64decode(cursor + "=", altchars=b"-_", validate=True)
        (milliseconds,) = struct.unpack(">q", packed[:8])
        place = [
            ("upload_time", EPOCH + timedelta(milliseconds=milliseconds)),
            ("_id", ObjectId(packed[8:])),
        ]
    except (binascii.Error, ValueError, struct.error, OverflowError, InvalidId, TypeError) as error:
        problem = "This is no cursor; take the `next_cursor` of an answer."
        raise InvalidInput({"cursor": [problem]}) from error
    return place
