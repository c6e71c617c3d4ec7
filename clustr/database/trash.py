"""The trash: uploads that were removed, until they are restored or removed for good.

A record is either among the uploads or in the collection beside it, `<uploads>_trash`; it goes from
one to the other in a transaction. (A MongoDB that is no replica set has none; such a one promises
nothing anyway.) Where its file is to be follows from that. What is done with the file takes a
moment: so long there is a claim in the record, which says what is being done and who does it. When
he dies somebody else takes the claim over and does it once more.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from bson import ObjectId
from pymongo import ReturnDocument
from pymongo.client_session import ClientSession
from pymongo.collection import Collection
from pymongo.errors import DuplicateKeyError

from clustr.database.clock import now
from clustr.database.connection import Document, answering
from clustr.database.documents import (
    FIRST_MOMENT,
    IS_UPLOAD,
    LAST_MOMENT,
    UNLIKE_AN_UPLOAD,
    extension_of,
    filenames_of,
    from_document,
    key_of,
    reading_record,
)
from clustr.database.duplicates import Duplicates
from clustr.database.filters import filter_from_query
from clustr.database.listing import DEFAULT, including_unkeyed_tags, query
from clustr.database.not_found import IN_TRASH, TrashStep, not_found_error
from clustr.database.tag_keys import TagKeys
from clustr.database.versions import ANY_VERSION, Versions, of_version, require_version
from clustr.domain.errors import ForeignRecord, InvalidInput, NotFound, UnderWay
from clustr.domain.models import State, Upload

NEWEST_REMOVED = [("trash.at", -1), ("_id", -1)]
INDEXES = {
    "newest_removed": {"keys": NEWEST_REMOVED},
    "same_request": {
        "keys": [("retry.key", 1)],
        "partialFilterExpression": {"retry.key": {"$exists": True}},
    },
    "begun": {
        "keys": [("trash.claimed_at", 1)],
        "partialFilterExpression": {"trash.claimed_at": {"$exists": True}},
    },
}

# The part of a query that only records of the trash meet which Clustr can have written.
IS_TRASHED: Document = {
    **IS_UPLOAD,
    "trash.step": {"$in": [str(step) for step in TrashStep]},
    "trash.at": {"$gte": FIRST_MOMENT, "$lte": LAST_MOMENT},
}

# Whoever has begun is done long before; then somebody else goes on.
CLAIM = timedelta(seconds=15)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
CURSOR = re.compile(r"([0-9a-f]{24})-([0-9a-f]{1,11})")

# Up to this many in the trash are counted for a page.
COUNTED_TOTAL = 1000

BATCH = 500
BEFORE_ALL = ObjectId(bytes(12))


@dataclass(frozen=True, slots=True)
class RemovalClaim:
    """What somebody does with an upload of the trash.

    Attributes:
        token: of who does it; whoever takes it over has another.
    """

    upload: Upload
    step: TrashStep
    token: ObjectId


@dataclass(frozen=True, slots=True)
class TrashedUpload:
    """An upload in the trash, and since when it is there."""

    upload: Upload
    trashed_at: datetime


@dataclass(frozen=True, slots=True)
class TrashPage:
    """Some of what is in the trash, and where the listing goes on.

    Attributes:
        total: how many there are; None for more than are counted.
    """

    found: list[TrashedUpload]
    total: int | None
    next_cursor: str | None


class Trash:
    """The collection of what is in the trash, beside that of the uploads."""

    def __init__(self, uploads: Collection[Document], copies: Duplicates, tag_keys: TagKeys):
        self._uploads = uploads
        self._copies = copies
        self._tag_keys = tag_keys
        self.collection = uploads.database[f"{uploads.name}_trash"]

    def any(self) -> bool:
        """Whether anything is in the trash."""
        with answering():
            return self.collection.find_one({}, {"_id": 1}) is not None

    def throw(
        self,
        upload_id: str,
        step: TrashStep,
        job: str | None = None,
        versions: Versions = ANY_VERSION,
        filter: Mapping[str, Any] | None = None,
    ) -> RemovalClaim | None:
        """Take an upload from among the others, to be moved aside or to be removed for good.

        Args:
            job: the one that it is for, if any.
            versions: of which it may be.
            filter: what it has to be like at this moment, as `filter_from_query` is told it.

        Returns:
            the claim; None when the upload does not meet the filter (any more).

        Raises:
            NotFound: there is no such upload.
            Outdated: it is of none of these versions.
            ForeignRecord: its record is not one that Clustr has written.
        """
        key, of_job = key_of(upload_id), ObjectId(job) if job else None

        def move(session: ClientSession | None) -> Document | None:
            document = self._uploads.find_one({"_id": key}, session=session)
            if document is None:
                raise not_found_error(self._uploads, upload_id)
            from_document(document)  # What Clustr has not written, it does not take away either.
            # An edit that comes between makes the transaction start anew, and this is seen then.
            require_version(document, versions)
            if filter and not self._meets(document, filter, session, of_job):
                return None
            trash = {"at": now(), **_claim(step), **({"job": of_job} if of_job else {})}
            thrown = {**document, "trash": trash}
            self.collection.replace_one({"_id": key}, thrown, upsert=True, session=session)
            self._uploads.delete_one({"_id": key}, session=session)
            self._copies.leave(document, session, of_job)
            return thrown

        thrown = self._copies.in_transaction(move)
        if thrown is None:
            return None
        self._copies.put_right([thrown["sha256"]])
        return _claimed(thrown)

    def _meets(
        self,
        document: Document,
        filter: Mapping[str, Any],
        session: ClientSession | None,
        job: ObjectId | None,
    ) -> bool:
        """Whether an upload meets a filter, whatever it says itself of being a duplicate.

        What became an original because the same job removed another is not an original to it:
        else a job that removes originals would go on until there is no copy left.
        """
        others = {name: value for name, value in filter.items() if name != "duplicate"}
        wanted = including_unkeyed_tags(filter_from_query(others), self._tag_keys)
        here = {"$and": [{"_id": document["_id"]}, query(wanted, DEFAULT)]}
        if self._uploads.find_one(here, {"_id": 1}, session=session) is None:
            return False
        if "duplicate" not in filter:
            return True
        original = self._copies.original(document["sha256"], session)
        if original["_id"] != document["_id"]:
            return filter["duplicate"]
        return not filter["duplicate"] and (job is None or document.get("promoted_by") != job)

    def claim(
        self, upload_id: str, step: TrashStep, versions: Versions = ANY_VERSION
    ) -> RemovalClaim:
        """Claim what is in the trash, to restore it or to remove it for good.

        Args:
            versions: as for `throw`.

        Raises:
            NotFound: it is not in the trash.
            Outdated: it is of none of these versions.
            UnderWay: its file is being moved.
        """
        key = key_of(upload_id)
        # To remove a file that is being moved harms nobody; to put it back would.
        steps = IN_TRASH if step is TrashStep.REMOVING else (TrashStep.THERE,)
        here = {"_id": key, **IS_TRASHED, "trash.step": {"$in": steps}, **of_version(versions)}
        claimed = self._claim(here, step)
        if claimed:
            return claimed
        with answering():
            shown = {"trash": 1, "edited_at": 1}
            there = self.collection.find_one({"_id": key, **IS_TRASHED}, shown)
        if there and there["trash"]["step"] in IN_TRASH:
            require_version(there, versions)
        if there and there["trash"]["step"] == TrashStep.MOVING:
            raise UnderWay("It is being put into the trash at this moment; try again.")
        raise NotFound(f"There is no upload with the id {upload_id} in the trash.")

    def begun(self, limit: int) -> list[RemovalClaim]:
        """Take over what was begun so long ago that nobody is at it any more."""
        late = {**IS_TRASHED, "trash.claimed_at": {"$lt": now() - CLAIM}}
        late["trash.claim"] = {"$type": "objectId"}
        with answering():
            found = list(self.collection.find(late, {"trash": 1}).limit(limit))
        taken = []
        for each in found:
            here = {"_id": each["_id"], "trash.claim": each["trash"]["claim"]}
            with suppress(ForeignRecord):
                claim = self._claim(here, each["trash"]["step"])
                taken += [claim] if claim else []
        # Whoever has begun may have ended before he did this.
        self._copies.put_right({claim.upload.sha256 for claim in taken})
        return taken

    def _claim(self, here: Document, step: str) -> RemovalClaim | None:
        changes = {f"trash.{name}": value for name, value in _claim(TrashStep(step)).items()}
        with answering():
            found = self.collection.find_one_and_update(
                here, {"$set": changes}, return_document=ReturnDocument.AFTER
            )
        return _claimed(found) if found else None

    def settle(self, claim: RemovalClaim) -> bool:
        """Say that a file has been moved aside; False when somebody else has taken that over."""
        changes = {
            "$set": {"trash.step": TrashStep.THERE},
            "$unset": {"trash.claim": "", "trash.claimed_at": ""},
        }
        with answering():
            return self.collection.update_one(_of(claim), changes).modified_count == 1

    def restore(self, claim: RemovalClaim, job: str | None = None) -> Upload | None:
        """Put an upload back among the others; None when somebody else has taken that over.

        Args:
            job: the one that it is for, if any.
        """
        key = ObjectId(claim.upload.id)
        self._tag_keys.complete_these([claim.upload.id])

        def move(session: ClientSession | None, without: Sequence[str] = ()) -> Document | None:
            document = self.collection.find_one(_of(claim), session=session)
            if document is None:
                return None
            restored = self._copies.join(_restored(document, job), session)
            for name in without:
                restored.pop(name, None)
            self._uploads.replace_one({"_id": key}, restored, upsert=True, session=session)
            self.collection.delete_one({"_id": key}, session=session)
            return restored

        try:
            restored = self._copies.in_transaction(move)
        except DuplicateKeyError:  # Its request was sent again, and answered with another upload.
            restored = self._copies.in_transaction(lambda session: move(session, ("retry",)))
        if restored is None:
            return None
        self._copies.put_right([restored["sha256"]])
        return from_document(restored)

    def release(self, upload_ids: Sequence[str]) -> None:
        """Let the `Idempotency-Key` of these uploads stand for others from now on."""
        here = {"_id": {"$in": [ObjectId(upload_id) for upload_id in upload_ids]}}
        with answering():
            self.collection.update_many(here, {"$unset": {"retry": ""}})

    def forget(self, claim: RemovalClaim) -> bool:
        """Remove a record for good; False when somebody else has done that."""
        with answering():
            return self.collection.delete_one(_of(claim)).deleted_count == 1

    def step_of(self, upload_id: str) -> TrashStep | None:
        """What is being done with an upload of the trash; None when it is not there."""
        with answering():
            here = {"_id": ObjectId(upload_id), **IS_TRASHED}
            found = self.collection.find_one(here, {"trash": 1})
        return TrashStep(found["trash"]["step"]) if found else None

    def settled(self) -> Iterator[tuple[str, str]]:
        """Ids and file names of all that nobody is doing anything with, in the order of the ids."""
        last = BEFORE_ALL
        while True:
            here = {"_id": {"$gt": last}, **IS_TRASHED, "trash.step": TrashStep.THERE}
            with answering():
                found = self.collection.find(here, {"filename": 1}).sort("_id", 1).limit(BATCH)
                batch = list(found)
            if not batch:
                return
            for document in batch:
                with suppress(*UNLIKE_AN_UPLOAD):
                    extension_of(document)  # What others have written is no place of a file.
                    yield str(document["_id"]), document["filename"]
            last = batch[-1]["_id"]

    def filenames(self, upload_ids: Sequence[str]) -> set[str]:
        """The file names of those of these uploads that are in the trash."""
        here = {"_id": {"$in": [ObjectId(upload_id) for upload_id in upload_ids]}}
        with answering():
            return filenames_of(self.collection.find(here, {"filename": 1}))

    def quarantine(self, upload_id: str, reason: str) -> bool:
        """Move a record from the trash into the quarantine, unless something is being done with it.

        Returns:
            whether it was there.
        """
        here = {"_id": ObjectId(upload_id), "trash.step": TrashStep.THERE}
        quarantine = self._uploads.database[f"{self._uploads.name}_quarantine"]
        with answering():
            document = self.collection.find_one(here)
            if document is None:
                return False
            copy = {"upload": document, "reason": reason, "quarantined_at": now()}
            copy_id = quarantine.insert_one(copy).inserted_id
            if self.collection.delete_one(here).deleted_count:
                return True
            quarantine.delete_one({"_id": copy_id})
        return False

    def removed_before(self, moment: datetime, limit: int) -> list[str]:
        """The ids of some that came into the trash before a moment, the first of them first."""
        here = {**IS_TRASHED, "trash.at": {"$lt": moment}, "trash.step": {"$in": IN_TRASH}}
        with answering():
            found = self.collection.find(here, {"_id": 1}).sort("trash.at", 1).limit(limit)
            return [str(document["_id"]) for document in found]

    def get(self, upload_id: str) -> TrashedUpload:
        """What is in the trash under this id.

        Raises:
            NotFound: it is not there.
            ForeignRecord: its record is not one that Clustr has written.
        """
        here = {"_id": key_of(upload_id), "trash.step": {"$in": IN_TRASH}}
        with answering():
            found = self.collection.find_one(here)
        if found is None:
            raise NotFound(f"There is no upload with the id {upload_id} in the trash.")
        return _trashed(found)

    def page(self, limit: int, cursor: str | None = None, results: bool = False) -> TrashPage:
        """What is in the trash, what came there last first.

        Args:
            limit: how many at most.
            cursor: the `next_cursor` of the page before; it costs the same at any depth.
            results: whether the results of analyses are wanted.

        Raises:
            InvalidInput: this is no cursor.
        """
        here = {**IS_TRASHED, "trash.step": {"$in": IN_TRASH}}
        with answering():
            found = self.collection.find(here, None if results else {"analyses.result": 0})
            found = found.sort(NEWEST_REMOVED).hint(NEWEST_REMOVED).limit(limit + 1)
            if cursor is not None:
                found = found.min(_place(cursor))
            documents = list(found)
            total = len(documents)
            if cursor is not None or total > limit:
                total = self.collection.count_documents(here, limit=COUNTED_TOTAL + 1)
        following = documents[limit:]
        trashed = []
        for document in documents[:limit]:
            with suppress(ForeignRecord):
                trashed.append(_trashed(document))
        return TrashPage(
            trashed,
            total if total <= COUNTED_TOTAL else None,
            _cursor(following[0]) if following else None,
        )


def _claim(step: TrashStep) -> Document:
    return {"step": step, "claim": ObjectId(), "claimed_at": now()}


def _claimed(document: Document) -> RemovalClaim:
    trash = document["trash"]
    return RemovalClaim(from_document(document), TrashStep(trash["step"]), trash["claim"])


def _trashed(document: Document) -> TrashedUpload:
    """What is in the trash; there it is no duplicate of any other."""
    upload = replace(from_document(document), duplicate_of=None)
    with reading_record(upload.id):
        trashed_at = document["trash"]["at"]
        if not isinstance(trashed_at, datetime):
            raise TypeError(f"trash.at is a {type(trashed_at).__name__}")
    return TrashedUpload(upload, trashed_at)


def _of(claim: RemovalClaim) -> Document:
    return {"_id": ObjectId(claim.upload.id), "trash.claim": claim.token}


def _restored(document: Document, job: str | None) -> Document:
    """The record of an upload that is restored: nobody works on it any more."""
    later = max(now(), document["updated_at"] + timedelta(milliseconds=1))
    restored = {**document, "updated_at": later}
    del restored["trash"]
    restored["analyses"] = [_let_go(analysis) for analysis in document["analyses"]]
    return restored | ({"restored_by": ObjectId(job)} if job else {})


def _let_go(analysis: Document) -> Document:
    if analysis["state"] != State.RUNNING:
        return analysis
    kept = {name: value for name, value in analysis.items() if name not in ("run", "lease_until")}
    return {**kept, "state": State.QUEUED, "attempts": max(0, analysis.get("attempts", 0) - 1)}


def _cursor(document: Document) -> str:
    """Where a listing goes on: the place in the index of the first of the next page."""
    milliseconds = (document["trash"]["at"] - EPOCH) // timedelta(milliseconds=1)
    return f"{document['_id']}-{milliseconds:x}"


def _place(cursor: str) -> list[tuple[str, Any]]:
    found = CURSOR.fullmatch(cursor)
    moment = int(found[2], 16) if found else 0
    try:
        since = EPOCH + timedelta(milliseconds=moment)
    except OverflowError:
        found = None
    if found is None:
        problem = "This is no cursor; take the `next_cursor` of an answer."
        raise InvalidInput({"cursor": [problem]})
    return [("trash.at", since), ("_id", ObjectId(found[1]))]
