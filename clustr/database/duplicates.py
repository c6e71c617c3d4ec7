"""Copies: uploads with the same bytes, of which the oldest is the original and the others name it.

That is true of the uploads that there are now. Whoever takes an upload away or brings one back
changes, in the same transaction, what the others say; of more than a thousand he tells the rest
right after it. He always writes to the original, too: so of two who do that at once one
has to begin anew, and it is as if they had done it one after the other.

To insert an upload has to be fast and is no transaction. Who has inserted a duplicate looks after
that whether the original is still the same; who has taken an original away looks after that whether
a duplicate came meanwhile. One of the two sees the other. What is left when both die before that,
the reconciler finds, and so it does what databases of older versions say otherwise.

A record that is none of an upload is no copy, whatever SHA-256 it has. It may have been one, and
then it has the mark of an original, which only one record can have: an upload with these bytes is
an original without it.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, TypeVar

import pymongo
from bson import ObjectId
from pymongo.client_session import ClientSession
from pymongo.collection import Collection
from pymongo.errors import DuplicateKeyError, OperationFailure

from clustr.database.analysis_updates import later_updated_at
from clustr.database.clock import now
from clustr.database.connection import Document, answering
from clustr.database.documents import FACETS, IS_UPLOAD, LIKE_AN_UPLOAD, ORIGINAL, facets

T = TypeVar("T")

EARLIEST = [("upload_time", 1), ("_id", 1)]
SAME_BYTES = "same_bytes"
INDEXES = {
    SAME_BYTES: {"keys": [("sha256", 1), *EARLIEST]},
    # Of two who insert the same new bytes at once only one inserts an original.
    "one_original": {"keys": [(ORIGINAL, 1)], "unique": True, "sparse": True},
}

ILLEGAL_OPERATION = 20  # MongoDB's code of the error that it has no transactions.

# So many copies are told of a new original in one transaction; more would keep others too long.
TOLD_AT_ONCE = 1000
# What one step of a walk looks at, and of how many sums it puts right what is wrong.
BATCH = 5000
PUT_RIGHT_AT_ONCE = 100

# Only of an upload among the others; see `clustr.database.documents` for the first.
OF_COPIES = (ORIGINAL, "promoted_by", "copies_changed")


class Duplicates:
    """What the uploads say of those with the same bytes."""

    def __init__(self, uploads: Collection[Document]):
        self._uploads = uploads

    def in_transaction(self, act: Callable[[ClientSession | None], T]) -> T:
        """Do all of an act or nothing of it, and once more where others were in the way.

        A MongoDB that is no replica set has no transactions: there the writes are done one by one.

        Raises:
            DatabaseUnavailable: it could not be done in the time of one operation.
        """
        client = self._uploads.database.client
        with (
            answering(),
            pymongo.timeout(client.options.timeout),
            client.start_session() as session,
        ):
            while True:
                try:
                    return session.with_transaction(act)
                except DuplicateKeyError as error:  # Another has just made an original.
                    if not second_original(error.details):
                        raise
                except OperationFailure as error:
                    if error.code != ILLEGAL_OPERATION:
                        raise
                    break
        with answering():
            return act(None)

    def original(
        self,
        sha256: str,
        session: ClientSession | None = None,
        without: ObjectId | None = None,
    ) -> Document | None:
        """The oldest upload with these bytes, by its `_id` and `upload_time`, if there is any.

        Args:
            without: one that does not count.
        """
        here = {"sha256": sha256, **LIKE_AN_UPLOAD} | ({"_id": {"$ne": without}} if without else {})
        shown = {"upload_time": 1}
        return self._uploads.find_one(here, shown, sort=EARLIEST, session=session)

    def leave(
        self, document: Document, session: ClientSession | None, job: ObjectId | None = None
    ) -> None:
        """After an upload was taken away, see that those that are left have an original.

        Args:
            document: what was taken away.
            job: for which job, if any.
        """
        original = self.original(document["sha256"], session)
        if original is None:
            return
        if document.get("duplicate_of") == original["_id"]:  # Then so do the others.
            self._write_to(original["_id"], session)
        else:
            self._name(original["_id"], document["sha256"], session, job)

    def join(self, document: Document, session: ClientSession | None) -> Document:
        """Before an upload is brought back, see what it is among the others.

        Returns:
            the document with what it has to say of them.
        """
        key, sha256 = document["_id"], document["sha256"]
        other = self.original(sha256, session, without=key)
        joined = {name: value for name, value in document.items() if name not in OF_COPIES}
        if other and (other["upload_time"], other["_id"]) < (document["upload_time"], key):
            self._write_to(other["_id"], session)
            joined["duplicate_of"] = other["_id"]
        else:
            if other:
                self._name_by_others(key, sha256, session)
            joined["duplicate_of"] = None
            if not self.marked_by_others([sha256], session):
                joined[ORIGINAL] = sha256
        duplicate = joined["duplicate_of"] is not None
        return joined | {"facets": facets(document["status"], document["content_type"], duplicate)}

    def marked_by_others(
        self, hashes: Iterable[str], session: ClientSession | None = None
    ) -> set[str]:
        """Those of these SHA-256 sums whose mark of an original is in a record of others."""
        here = {ORIGINAL: {"$in": [*hashes]}, "$nor": [IS_UPLOAD]}
        return {d[ORIGINAL] for d in self._uploads.find(here, {ORIGINAL: 1}, session=session)}

    def put_right(self, hashes: Iterable[str]) -> int:
        """Let the uploads with each of these SHA-256 sums name their original, where they do not.

        Returns:
            of how many sums they did not.
        """
        wrong = self._wrong({"sha256": {"$in": [*hashes]}})
        for sha256 in wrong:
            self._put_right(sha256)
        return len(wrong)

    def walk(self) -> Iterator[int]:
        """Put right what is wrong of all uploads, some of them with each step.

        Yields:
            of how many SHA-256 sums the uploads named no original, or a wrong one.
        """
        after = ""
        while True:
            here: Document = {"sha256": {"$gt": after}}
            with answering():
                keys = self._uploads.find(here, {"sha256": 1, "_id": 0}).hint(SAME_BYTES)
                ends = [*keys.sort("sha256", 1).skip(BATCH - 1).limit(1)]
            if ends:
                here["sha256"]["$lte"] = ends[0]["sha256"]
            wrong = self._wrong(here)
            for sha256 in wrong:
                self._put_right(sha256)
            yield len(wrong)
            if len(wrong) == PUT_RIGHT_AT_ONCE:
                continue  # There may be more of them.
            if not ends:
                return
            after = ends[0]["sha256"]

    def _wrong(self, here: Document) -> list[str]:
        """Of which SHA-256 sums the uploads do not name their original; some of them."""
        is_duplicate = {"$ifNull": ["$duplicate_of", False]}
        stages: list[Document] = [
            {"$match": {**here, **LIKE_AN_UPLOAD}},
            {"$sort": dict([("sha256", 1), *EARLIEST])},
            {
                "$group": {
                    "_id": "$sha256",
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
            {"$limit": PUT_RIGHT_AT_ONCE},
            {"$project": {"_id": 1}},
        ]
        with answering():
            return [d["_id"] for d in self._uploads.aggregate(stages, hint=SAME_BYTES)]

    def _put_right(self, sha256: str) -> None:
        def name(session: ClientSession | None) -> int:
            original = self.original(sha256, session)
            return self._name(original["_id"], sha256, session) if original else 0

        while self.in_transaction(name) == TOLD_AT_ONCE:
            pass

    def _name(
        self,
        original: ObjectId,
        sha256: str,
        session: ClientSession | None,
        job: ObjectId | None = None,
    ) -> int:
        """Let this upload be the original, and the others with its bytes name it.

        Returns:
            how many others did not; when that is `TOLD_AT_ONCE` there may be more.
        """
        told = self._name_by_others(original, sha256, session)
        was_duplicate = {"$ifNull": ["$duplicate_of", False]}
        marked_by_others = self.marked_by_others([sha256], session)
        changes: Document = {
            "duplicate_of": None,
            ORIGINAL: "$$REMOVE" if marked_by_others else "$sha256",
            "updated_at": {"$cond": [was_duplicate, later_updated_at(now()), "$updated_at"]},
            "copies_changed": {"$add": [{"$ifNull": ["$copies_changed", 0]}, 1]},
        }
        if job:
            changes["promoted_by"] = {"$cond": [was_duplicate, job, "$promoted_by"]}
        update = [{"$set": changes}, {"$set": {"facets": FACETS}}]
        self._uploads.update_one({"_id": original}, update, session=session)
        return told

    def _name_by_others(
        self, original: ObjectId, sha256: str, session: ClientSession | None
    ) -> int:
        others = {"sha256": sha256, "_id": {"$ne": original}, "duplicate_of": {"$ne": original}}
        others |= LIKE_AN_UPLOAD
        # First those that are originals by now: of the same bytes there can be only one.
        found = self._uploads.find(others, {"_id": 1}, session=session).sort("duplicate_of", 1)
        keys = [document["_id"] for document in found.limit(TOLD_AT_ONCE)]
        if not keys:
            return 0
        update: list[Document] = [
            {"$set": {"duplicate_of": original, "updated_at": later_updated_at(now())}},
            {"$unset": [*OF_COPIES]},
            {"$set": {"facets": FACETS}},
        ]
        self._uploads.update_many({"_id": {"$in": keys}}, update, session=session)
        return len(keys)

    def _write_to(self, original: ObjectId, session: ClientSession | None) -> None:
        """Be in the way of all others who change which copies there are."""
        # A write that changes nothing would not be.
        update = {"$inc": {"copies_changed": 1}}
        self._uploads.update_one({"_id": original}, update, session=session)


def second_original(error: Mapping[str, Any] | None) -> bool:
    """Whether what MongoDB says is that there would be two originals of the same bytes."""
    return ORIGINAL in ((error or {}).get("keyPattern") or {})
