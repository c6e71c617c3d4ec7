"""Uploads in MongoDB: adding and finding them."""

import math
import time
from collections.abc import Iterable, Sequence
from dataclasses import fields, replace
from typing import Any

import pymongo
from bson import ObjectId
from pymongo.collection import Collection
from pymongo.errors import BulkWriteError, DuplicateKeyError

from clustr import logs
from clustr.database.connection import Document, is_temporary, translate_errors
from clustr.database.documents import (
    FIRST_MOMENT,
    HAS_OBJECT_ID,
    LAST_MOMENT,
    NEWEST_FIRST,
    OLDEST_FIRST,
    ORIGINAL,
    OWNER,
    from_document,
    from_documents,
    local_date_of,
    original_mark,
    parse_id,
    reason_why_foreign,
    to_document,
)
from clustr.database.duplicates import SAME_BYTES_INDEX, Duplicates, is_second_original, of_owner
from clustr.database.editing import fields_of_new_upload
from clustr.database.indexes import make_indexes
from clustr.database.not_found import not_found_error
from clustr.database.result_conditions import has_result_field, result_indexes
from clustr.database.search_limits import SEARCH_SECONDS, limit_search_time
from clustr.database.search_terms import SearchTerms
from clustr.domain.errors import BeingAnswered, DatabaseRefused, DatabaseUnavailable
from clustr.domain.models import NewUpload, Upload

log = logs.logger(__name__)

NEWEST_INDEX = "newest_first"
INDEXES: dict[str, Document] = {
    NEWEST_INDEX: {"keys": NEWEST_FIRST},
    "same_request": {
        "keys": [("retry.key", 1), ("retry.position", 1)],
        "unique": True,
        "partialFilterExpression": {"retry.key": {"$exists": True}},
    },
}

UPLOAD_FIELDS = [field.name for field in fields(Upload)]
DUPLICATE_KEY = 11000  # MongoDB's error code.

# For this long after an answer MongoDB is taken to be available, without a ping.
ANSWERED_SECONDS = 0.1

# How many of the oldest and of the newest records are checked to see whose database it is.
SAMPLE_SIZE = 20


def new_id() -> str:
    """A new upload's id: 24 hexadecimal digits that begin with the time."""
    return str(ObjectId())


class Uploads:
    """The collection of uploads.

    Args:
        owner: whose uploads the collection has; None: it has all.
    """

    def __init__(
        self,
        collection: Collection[Document],
        duplicates: Duplicates,
        search_terms: SearchTerms,
        owner: str | None = None,
    ):
        self._owner = owner
        self._collection = collection
        self._duplicates = duplicates
        self._search_terms = search_terms
        self._answered_at = -math.inf

    def mark_known_duplicates(self, uploads: Sequence[Upload]) -> list[Upload]:
        """Look up the first uploads with the same bytes, before the new files are kept.

        For the usual request with one file, `add` does that: here MongoDB is only pinged, unless it
        has answered a moment ago.

        Returns:
            the uploads to pass to `add`, with `duplicate_of` where it is known.

        Raises:
            DatabaseUnavailable: MongoDB does not answer; no file should be kept.
        """
        if len(uploads) > 1:
            return self._mark_duplicates(uploads)
        if time.monotonic() > self._answered_at + ANSWERED_SECONDS:
            with translate_errors():
                self._collection.database.command("ping")
        return [*uploads]

    def add(self, uploads: Sequence[Upload], reuse: bool = False) -> list[Upload]:
        """Insert uploads with their queued analyses.

        Args:
            reuse: whether to return the stored upload instead of inserting one with the same bytes.

        Returns:
            the uploads as stored, with `duplicate_of` where an older one has the same bytes; with
            `reuse` that older one instead.

        Raises:
            DatabaseUnavailable: MongoDB did not confirm in time; they may or may not be stored.
            DatabaseRefused: none of them is stored.
            BeingAnswered: another request with the same key was faster; some may be stored.
        """
        if len(uploads) > 1:
            stored = self._insert(uploads, reuse)
        elif known := self._insert_if_new(uploads[0], reuse):
            is_foreign = reason_why_foreign(known) is not None
            if is_foreign:
                with translate_errors():
                    known = self._duplicates.find_original(uploads[0].sha256, self._owner)
            if reuse and known:
                return [self.get(str(known["_id"])) if is_foreign else from_document(known)]
            first = str(known["_id"]) if known else None
            stored = self._insert([replace(uploads[0], duplicate_of=first)], reuse)
        else:
            stored = [*uploads]
        self._answered_at = time.monotonic()
        stored = [_as_stored(u) if isinstance(u, NewUpload) else u for u in stored]
        return self._with_originals(stored, {upload.id for upload in uploads})

    def _mark_duplicates(self, uploads: Sequence[Upload]) -> list[Upload]:
        """The uploads with `duplicate_of` set to the first with the same bytes, stored or new."""
        firsts = self._first_copies([upload.sha256 for upload in uploads])
        marked = []
        for upload in uploads:
            marked.append(replace(upload, duplicate_of=firsts.get(upload.sha256)))
            firsts.setdefault(upload.sha256, upload.id)
        return marked

    def _insert_if_new(self, upload: Upload, whole: bool) -> Document | None:
        """Insert an upload unless there is one with the same bytes.

        Reading first and inserting then would take a third more time.

        Args:
            whole: whether to read the results of the existing upload, too.

        Returns:
            the first existing record, which may be a foreign one; None when the upload was
            inserted.
        """
        while True:
            try:
                with translate_errors():
                    return self._collection.find_one_and_update(
                        {"sha256": upload.sha256, **of_owner(self._owner)},
                        {"$setOnInsert": self._new_document(upload)},
                        None if whole else {"analyses.result": 0},
                        sort=OLDEST_FIRST,
                        upsert=True,
                    )
            except DuplicateKeyError as error:
                if not is_second_original(error.details):
                    raise BeingAnswered from error
            with translate_errors():
                mark = original_mark(upload.sha256, self._owner)
                marked = self._collection.find_one({ORIGINAL: mark})
            if marked and reason_why_foreign(marked):
                return marked

    def _new_document(self, upload: Upload) -> Document:
        document = to_document(upload)
        if isinstance(upload, NewUpload):
            document |= fields_of_new_upload(upload)
        return document | {"search": self._search_terms.of_new(document)}

    def _insert(self, uploads: Sequence[Upload], reuse: bool) -> list[Upload]:
        """Insert uploads whose `duplicate_of` is set as far as it is known."""
        stored: dict[str, Upload] = {}
        left, marked_by_others = [*uploads], set[str]()
        try:
            while left:
                if reuse:
                    stored |= self._stored_copies(left)
                    left = [replace(u, duplicate_of=None) for u in left if u.id not in stored]
                inserted = self._insert_in_order(left, marked_by_others)
                stored |= {upload.id: upload for upload in left[:inserted]}
                left = left[inserted:]
                if left:
                    with translate_errors():
                        marks = [original_mark(left[0].sha256, self._owner)]
                        marked_by_others |= self._duplicates.find_foreign_marks(marks)
                    left = self._mark_duplicates(left)
        except DatabaseRefused as error:
            if stored:
                raise DatabaseUnavailable from error
            raise
        return [stored[upload.id] for upload in uploads]

    def _stored_copies(self, uploads: Sequence[Upload]) -> dict[str, Upload]:
        """The stored uploads with the same bytes, by the ids of the duplicates among these."""
        duplicates = [upload for upload in uploads if upload.duplicate_of]
        known = self.first_uploads_by_hash([upload.sha256 for upload in duplicates])
        return {u.id: known[u.sha256] for u in duplicates if u.sha256 in known}

    def _insert_in_order(self, uploads: Sequence[Upload], marked_by_others: set[str]) -> int:
        """Insert the uploads up to the first that is no longer an original; return how many.

        Args:
            marked_by_others: the marks of originals that are in foreign records.
        """
        if not uploads:
            return 0
        documents = [self._new_document(upload) for upload in uploads]
        for document in documents:
            if document.get(ORIGINAL) in marked_by_others:
                del document[ORIGINAL]
        with translate_errors():
            try:
                self._collection.insert_many(documents)
            except BulkWriteError as error:
                if is_temporary(error):  # Then those before the first failure may be lost, too.
                    raise
                failures: list[Document] = error.details["writeErrors"] or [{}]
                (failed,) = failures
                if is_second_original(failed):
                    inserted: int = failed["index"]
                    return inserted
                if failed.get("code") == DUPLICATE_KEY:
                    raise BeingAnswered from error
                raise
        return len(uploads)

    def _with_originals(self, stored: list[Upload], own_ids: set[str]) -> list[Upload]:
        """The stored uploads with their current originals.

        The original may have been removed before the insertion; see `clustr.database.duplicates`.
        """
        named = {u.sha256: u.duplicate_of for u in stored if u.duplicate_of and u.id in own_ids}
        if not named:
            return stored
        try:
            originals = self._first_copies([*named])
            if all(originals.get(sha256, name) == name for sha256, name in named.items()):
                return stored
            self._duplicates.repair(named)
            with translate_errors():
                query = {"_id": {"$in": [ObjectId(upload_id) for upload_id in own_ids]}}
                found = [*self._collection.find(query, {"duplicate_of": 1})]
        except DatabaseUnavailable:  # They are stored; the reconciler repairs the links.
            log.warning("originals_unknown", uploads=sorted(own_ids))
            return stored
        now_named = {str(d["_id"]): d["duplicate_of"] for d in found}
        return [
            replace(u, duplicate_of=str(now_named[u.id]) if now_named[u.id] else None)
            if u.id in now_named
            else u
            for u in stored
        ]

    def make_result_indexes(self, fields: Iterable[str], seconds: float) -> None:
        """Make the indexes for conditions on these fields of results, in `seconds` altogether."""
        with translate_errors(), pymongo.timeout(seconds):
            make_indexes(self._collection, result_indexes(fields))

    def any(self) -> bool:
        """Whether there is any upload."""
        with translate_errors():
            return self._collection.find_one({}, {"_id": 1}) is not None

    def estimated_count(self) -> int:
        """An estimate of the number of uploads, at constant cost.

        It is from the metadata of the collection, which can be wrong after a crash.
        """
        with translate_errors():
            return self._collection.estimated_document_count()

    def get(self, upload_id: str) -> Upload:
        """The upload with this id.

        Raises:
            NotFound: there is no such upload.
            ForeignRecord: its record is not one that Clustr has written.
        """
        return from_document(find_document(self._collection, upload_id))

    def why_foreign(self) -> str | None:
        """Why the database is not Clustr's; None when it is, or has no records.

        It is Clustr's if one of the oldest or newest records can be read as an upload.
        """
        reason = None
        with translate_errors():
            for direction in (1, -1):
                found = self._collection.find({}, {"analyses.result": 0}).sort("_id", direction)
                for document in found.limit(SAMPLE_SIZE):
                    why = reason_why_foreign(document)
                    if why is None:
                        return None
                    reason = f"{document['_id']}: {why}"
        return reason

    def first_ids_by_hash(self, hashes: Sequence[str]) -> dict[str, str]:
        """The id of the first upload with each of these SHA-256 sums, as far as there is one.

        The first is by `upload_time`: the ids from two processes within one second are not in
        order. Only the index is read, so a foreign record with a valid time can be among them.
        """
        has_valid_time = {
            "upload_time": {"$gte": FIRST_MOMENT, "$lte": LAST_MOMENT},
            **HAS_OBJECT_ID,
        }
        stages: list[dict[str, Any]] = [
            {"$match": {"sha256": {"$in": list(set(hashes))}, **has_valid_time}},
            {"$sort": dict([("sha256", 1), *OLDEST_FIRST])},
            {"$group": {"_id": "$sha256", "first": {"$first": "$_id"}}},
        ]
        with translate_errors():
            found = self._collection.aggregate(stages, hint=SAME_BYTES_INDEX)
            return {d["_id"]: str(d["first"]) for d in found}

    def _first_copies(self, hashes: Sequence[str]) -> dict[str, str]:
        """The same for uploads that new ones would be linked to: of the owner, or of none."""
        firsts = self.first_ids_by_hash(hashes)
        if self._owner is not None or not firsts:
            return firsts
        owned = {
            "_id": {"$in": [ObjectId(first) for first in firsts.values()]},
            OWNER: {"$exists": True},
        }
        with translate_errors():
            for sha256 in [d["sha256"] for d in self._collection.find(owned, {"sha256": 1})]:
                del firsts[sha256]
                if first := self._duplicates.find_original(sha256, None):
                    firsts[sha256] = str(first["_id"])
        return firsts

    def first_uploads_by_hash(self, hashes: Sequence[str]) -> dict[str, Upload]:
        """The first upload with each of these SHA-256 sums, as far as there is one."""
        if not hashes:
            return {}
        keys = [ObjectId(first) for first in self.first_ids_by_hash(hashes).values()]
        with translate_errors():
            found = from_documents(self._collection.find({"_id": {"$in": keys}}))
            return {upload.sha256: upload for upload in found}

    def find_by_request(self, keys: list[str]) -> tuple[list[Upload], list[str]]:
        """The uploads of the request that one of these keys of a `Retry` identifies.

        Returns:
            the uploads, and the ids of those that are in the trash.
        """
        query = {"retry.key": {"$in": keys}}
        trash = self._collection.database[f"{self._collection.name}_trash"]
        with translate_errors():
            uploads = [*from_documents(self._collection.find(query))]
            return uploads, [str(document["_id"]) for document in trash.find(query, {"_id": 1})]

    def find(self, analyzer: str, field: str, values: Sequence[Any], limit: int) -> list[Upload]:
        """Uploads whose result of an analyzer has one of these values in a field, in any order.

        Raises:
            TooSlow: it took longer than `SEARCH_SECONDS`.
        """
        condition = {"name": analyzer, f"result.{field}": {"$in": list(values)}}
        query = {"analyses": {"$elemMatch": condition}, **has_result_field(field)}
        with limit_search_time(self._collection, SEARCH_SECONDS):
            return [*from_documents(self._collection.find(query).limit(limit))]


def find_document(collection: Collection[Document], upload_id: str) -> Document:
    """The document of the upload with this id.

    Raises:
        NotFound: there is no such upload.
    """
    key = parse_id(upload_id)
    with translate_errors():
        document = collection.find_one({"_id": key})
    if document is None:
        raise not_found_error(collection, upload_id)
    return document


def _as_stored(new: NewUpload) -> Upload:
    """A new upload as it is stored: with what was said of it in its own fields."""
    values = {name: getattr(new, name) for name in UPLOAD_FIELDS}
    words = fields_of_new_upload(new)
    values |= {name: word for name, word in words.items() if name in values}
    values["taken_at_local"] = local_date_of(words)
    return Upload(**values | {"tags": tuple(values["tags"])})
