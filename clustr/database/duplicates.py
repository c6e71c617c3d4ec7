"""Duplicates: of uploads with the same bytes the oldest is the original; the others refer to it.

The uploads of an owner, who sees no others, have an original of their own; so have those without an
owner.

Removing or restoring an upload updates `duplicate_of` of the other copies in the same transaction;
if there are more than `MAX_RELINKED`, the rest follow right after it, without a transaction. The
transaction always writes to the original, too. So two concurrent transactions conflict, and MongoDB
runs them one after the other.

Inserting an upload has to be fast and is no transaction. After inserting a duplicate, the process
checks that the original is still the same; after removing an original, it checks whether a
duplicate was inserted meanwhile. One of the two sees the other. If both processes die before that,
the reconciler repairs the links; it also corrects those of older versions.

A foreign record is no copy, whatever its SHA-256. It may still have the mark of an original, the
field `original_sha256`, which is unique: then an upload with these bytes is an original without the
mark.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from typing import Any, NamedTuple, TypeVar

import pymongo
from bson import ObjectId
from pymongo.client_session import ClientSession
from pymongo.collection import Collection
from pymongo.errors import DuplicateKeyError, OperationFailure

from clustr.database.analysis_updates import next_updated_at
from clustr.database.clock import now
from clustr.database.connection import Document, translate_errors
from clustr.database.documents import (
    FACETS,
    IS_UPLOAD,
    LOOKS_LIKE_UPLOAD,
    OLDEST_FIRST,
    ORIGINAL,
    OWNER,
    facets,
    original_mark,
)

T = TypeVar("T")

SAME_BYTES_INDEX = "same_bytes"
INDEXES: dict[str, Document] = {
    SAME_BYTES_INDEX: {"keys": [("sha256", 1), *OLDEST_FIRST]},
    # If two processes insert the same new bytes at once, only one inserts an original.
    "one_original": {"keys": [(ORIGINAL, 1)], "unique": True, "sparse": True},
}

ILLEGAL_OPERATION = 20  # MongoDB's error code for having no transactions.

# One transaction links at most this many copies to a new original: it starts anew whenever a worker
# writes to one of them. Of the others so many are linked at once.
MAX_RELINKED = 10
RELINK_BATCH = 500
# How many uploads one step of `repair_all` examines, and how many SHA-256 sums it repairs at most.
BATCH = 5000
MAX_REPAIRED = 100

# The fields of an original, which a duplicate or a restored upload does not keep.
COPY_FIELDS = (ORIGINAL, "promoted_by", "copies_changed")


class Copies(NamedTuple):
    """The uploads with the same bytes of an owner, or of those without one."""

    sha256: str
    owner: str | None

    def query(self) -> Document:
        """The query that finds them."""
        return {"sha256": self.sha256, **of_owner(self.owner), **LOOKS_LIKE_UPLOAD}


def of_owner(owner: str | None) -> Document:
    """The condition for uploads of an owner, or without one."""
    return {OWNER: {"$exists": False} if owner is None else owner}


class Duplicates:
    """Keeps `duplicate_of` right among uploads with the same bytes."""

    def __init__(self, uploads: Collection[Document]):
        self._uploads = uploads

    def in_transaction(self, act: Callable[[ClientSession | None], T]) -> T:
        """Run a function in a transaction, again after a conflict, and return its result.

        A MongoDB that is no replica set has no transactions: there the writes are done one by one.

        Args:
            act: gets the session, or None where there are no transactions.

        Raises:
            DatabaseUnavailable: it did not succeed within the time limit of one operation.
        """
        client = self._uploads.database.client
        with (
            translate_errors(),
            pymongo.timeout(client.options.timeout),
            client.start_session() as session,
        ):
            while True:
                try:
                    return session.with_transaction(act)
                except DuplicateKeyError as error:  # Another process has just inserted an original.
                    if not is_second_original(error.details):
                        raise
                except OperationFailure as error:
                    if error.code != ILLEGAL_OPERATION:
                        raise
                    break
        with translate_errors():
            return act(None)

    def find_original(
        self,
        sha256: str,
        owner: str | None,
        session: ClientSession | None = None,
        without: ObjectId | None = None,
    ) -> Document | None:
        """The `_id` and `upload_time` of the oldest upload with these bytes; None if there is none.

        Args:
            owner: whose upload it is; None for one without an owner.
            without: an upload to ignore.
        """
        query = Copies(sha256, owner).query() | ({"_id": {"$ne": without}} if without else {})
        projection = {"upload_time": 1}
        return self._uploads.find_one(query, projection, sort=OLDEST_FIRST, session=session)

    def update_after_removal(
        self, document: Document, session: ClientSession | None, job: ObjectId | None = None
    ) -> bool:
        """After an upload was removed, give the remaining copies an original.

        Args:
            document: the removed upload.
            job: the job that removes it, if any.

        Returns:
            whether other copies may still refer to the removed upload, so that `repair` has to
            follow; they do not when it was a mere duplicate.
        """
        original = self.find_original(document["sha256"], document.get(OWNER), session)
        if original is None:  # A duplicate that is being inserted is not seen here.
            return True
        if document.get("duplicate_of") == original["_id"]:  # Then the others refer to it, too.
            self._touch(original["_id"], session)
            return False
        copies = Copies(document["sha256"], document.get(OWNER))
        self._set_original(original["_id"], copies, session, job)
        return True

    def prepare_restore(self, document: Document, session: ClientSession | None) -> Document:
        """Before an upload is restored, link it with the other copies.

        Returns:
            the document with its new `duplicate_of` and facets.
        """
        key, copies = document["_id"], Copies(document["sha256"], document.get(OWNER))
        other = self.find_original(*copies, session, without=key)
        joined = {name: value for name, value in document.items() if name not in COPY_FIELDS}
        if other and (other["upload_time"], other["_id"]) < (document["upload_time"], key):
            self._touch(other["_id"], session)
            joined["duplicate_of"] = other["_id"]
        else:
            if other:
                self._relink_copies(key, copies, session)
            joined["duplicate_of"] = None
            if not self.find_foreign_marks([original_mark(*copies)], session):
                joined[ORIGINAL] = original_mark(*copies)
        duplicate = joined["duplicate_of"] is not None
        return joined | {"facets": facets(document["status"], document["content_type"], duplicate)}

    def find_foreign_marks(
        self, marks: Iterable[str], session: ClientSession | None = None
    ) -> set[str]:
        """Those of these marks of originals that are in a foreign record."""
        query = {ORIGINAL: {"$in": [*marks]}, "$nor": [IS_UPLOAD]}
        return {d[ORIGINAL] for d in self._uploads.find(query, {ORIGINAL: 1}, session=session)}

    def repair(self, hashes: Iterable[str]) -> int:
        """Link the uploads with these SHA-256 sums to their originals, where they are not.

        Returns:
            how many of these sums needed a repair.
        """
        wrong = self._find_wrong({"sha256": {"$in": [*hashes]}})
        for copies in wrong:
            self._repair(copies)
        return len(wrong)

    def repair_all(self) -> Iterator[int]:
        """Repair the links of all uploads, some of them with each step.

        Yields:
            how many SHA-256 sums needed a repair.
        """
        after = ""
        while True:
            query: Document = {"sha256": {"$gt": after}}
            with translate_errors():
                keys = self._uploads.find(query, {"sha256": 1, "_id": 0}).hint(SAME_BYTES_INDEX)
                ends = [*keys.sort("sha256", 1).skip(BATCH - 1).limit(1)]
            if ends:
                query["sha256"]["$lte"] = ends[0]["sha256"]
            wrong = self._find_wrong(query)
            for copies in wrong:
                self._repair(copies)
            yield len(wrong)
            if len(wrong) == MAX_REPAIRED:
                continue  # There may be more of them.
            if not ends:
                return
            after = ends[0]["sha256"]

    def _find_wrong(self, query: Document) -> list[Copies]:
        """Copies that are not linked to their original: those of at most `MAX_REPAIRED`."""
        is_duplicate = {"$ifNull": ["$duplicate_of", False]}
        stages: list[Document] = [
            {"$match": {**query, **LOOKS_LIKE_UPLOAD}},
            {"$sort": dict([("sha256", 1), *OLDEST_FIRST])},
            {
                "$group": {
                    "_id": {"sha256": "$sha256", "owner": f"${OWNER}"},
                    "original": {"$first": "$_id"},
                    "named_by_original": {"$first": "$duplicate_of"},
                    "originals": {"$sum": {"$cond": [is_duplicate, 0, 1]}},
                    "named": {"$addToSet": {"$ifNull": ["$duplicate_of", None]}},
                }
            },
            {
                "$match": {
                    "$expr": {
                        "$or": [
                            {"$ne": ["$originals", 1]},
                            {"$ifNull": ["$named_by_original", False]},
                            {"$not": {"$setIsSubset": ["$named", [None, "$original"]]}},
                        ]
                    }
                }
            },
            {"$limit": MAX_REPAIRED},
            {"$project": {"_id": 1}},
        ]
        with translate_errors():
            found = [d["_id"] for d in self._uploads.aggregate(stages, hint=SAME_BYTES_INDEX)]
        return [Copies(each["sha256"], each.get("owner")) for each in found]

    def _repair(self, copies: Copies) -> None:
        def link_some(session: ClientSession | None) -> ObjectId | None:
            """Link some copies; return their original if there may be more."""
            original = self.find_original(*copies, session)
            if original is None:
                return None
            relinked = self._set_original(original["_id"], copies, session)
            return original["_id"] if relinked == MAX_RELINKED else None

        # The original may have become another one meanwhile: then the next transaction sees it.
        while original := self.in_transaction(link_some):
            self._relink_rest(original, copies)

    def _set_original(
        self,
        original: ObjectId,
        copies: Copies,
        session: ClientSession | None,
        job: ObjectId | None = None,
    ) -> int:
        """Make this upload the original, and link the other copies to it.

        Returns:
            how many copies were linked; when that is `MAX_RELINKED` there may be more.
        """
        relinked = self._relink_copies(original, copies, session)
        was_duplicate = {"$ifNull": ["$duplicate_of", False]}
        mark = original_mark(*copies)
        marked_by_others = self.find_foreign_marks([mark], session)
        changes: Document = {
            "duplicate_of": None,
            ORIGINAL: "$$REMOVE" if marked_by_others else {"$literal": mark},
            "updated_at": {"$cond": [was_duplicate, next_updated_at(now()), "$updated_at"]},
            "copies_changed": {"$add": [{"$ifNull": ["$copies_changed", 0]}, 1]},
        }
        if job:
            changes["promoted_by"] = {"$cond": [was_duplicate, job, "$promoted_by"]}
        update = [{"$set": changes}, {"$set": {"facets": FACETS}}]
        self._uploads.update_one({"_id": original}, update, session=session)
        return relinked

    def _relink_copies(
        self, original: ObjectId, copies: Copies, session: ClientSession | None
    ) -> int:
        others = {**copies.query(), "_id": {"$ne": original}, "duplicate_of": {"$ne": original}}
        # Former originals come first: the index allows only one original for the same bytes.
        found = self._uploads.find(others, {"_id": 1}, session=session).sort("duplicate_of", 1)
        keys = [document["_id"] for document in found.limit(MAX_RELINKED)]
        if keys:
            link = _link_to(original)
            self._uploads.update_many({"_id": {"$in": keys}}, link, session=session)
        return len(keys)

    def _relink_rest(self, original: ObjectId, copies: Copies) -> None:
        """Link those copies that are duplicates of other uploads to this one, batch by batch.

        It ends early when this is not the original any more.
        """
        is_of_another = {"duplicate_of": {"$nin": [None, original]}}
        with translate_errors():
            found = self._uploads.find({**copies.query(), **is_of_another}, {"_id": 1})
            while keys := [document["_id"] for document in islice(found, RELINK_BATCH)]:
                # One that has become the original since does not match any more.
                here = {"_id": {"$in": keys}, **is_of_another}
                self._uploads.update_many(here, _link_to(original))
                current = self.find_original(*copies)
                if current is None or current["_id"] != original:
                    return

    def _touch(self, original: ObjectId, session: ClientSession | None) -> None:
        """Write to the original, so that concurrent transactions on its copies conflict."""
        # A write without a change would not conflict.
        update = {"$inc": {"copies_changed": 1}}
        self._uploads.update_one({"_id": original}, update, session=session)


def _link_to(original: ObjectId) -> list[Document]:
    """The update that makes copies duplicates of this upload."""
    return [
        {"$set": {"duplicate_of": original, "updated_at": next_updated_at(now())}},
        {"$unset": [*COPY_FIELDS]},
        {"$set": {"facets": FACETS}},
    ]


def is_second_original(error: Mapping[str, Any] | None) -> bool:
    """Whether a duplicate key error of MongoDB is about a second original of the same bytes."""
    return ORIGINAL in ((error or {}).get("keyPattern") or {})
