"""The trash: removed uploads, until they are restored or deleted for good.

A record is either among the uploads or in the collection `<uploads>_trash`; a transaction moves it
from one to the other. (A MongoDB that is no replica set has no transactions, and guarantees nothing
anyway.) The collection determines where the file belongs. While a process moves or deletes the
file, the record has a claim with the step and a token of that process. If the process dies, another
one takes over the claim and repeats the step.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from bson import MinKey, ObjectId
from pymongo import ReturnDocument
from pymongo.client_session import ClientSession
from pymongo.collection import Collection
from pymongo.errors import DuplicateKeyError

from clustr import logs
from clustr.database.analysis_updates import DUE_TERM
from clustr.database.clock import now
from clustr.database.connection import Document, translate_errors
from clustr.database.documents import (
    FIRST_MOMENT,
    IS_UPLOAD,
    LAST_MOMENT,
    MALFORMED_RECORD_ERRORS,
    OWNER,
    extension_of,
    filenames_of,
    from_document,
    parse_id,
    reading_record,
)
from clustr.database.duplicates import Duplicates
from clustr.database.filters import filter_from_query
from clustr.database.listing_queries import filter_query
from clustr.database.not_found import IN_TRASH_STEPS, TrashStep, not_found_error
from clustr.database.own_uploads import indexes_of_owners
from clustr.database.search_terms import SearchTerms
from clustr.database.tag_keys import TagKeys
from clustr.database.upload_filter import DEFAULT_SORT, include_unkeyed_uploads
from clustr.database.versions import ANY_VERSION, Versions, require_version, version_query
from clustr.domain.errors import (
    DatabaseUnavailable,
    ForeignRecord,
    InvalidInput,
    NotFound,
    UnderWay,
)
from clustr.domain.models import State, Upload

log = logs.logger(__name__)

NEWEST_REMOVED = [("trash.at", -1), ("_id", -1)]
NEWEST_REMOVED_INDEX = "newest_removed"
LISTED: dict[str, Document] = {NEWEST_REMOVED_INDEX: {"keys": NEWEST_REMOVED}}
INDEXES = {
    **LISTED,
    **indexes_of_owners(LISTED),
    "same_request": {
        "keys": [("retry.key", 1)],
        "partialFilterExpression": {"retry.key": {"$exists": True}},
    },
    "begun": {
        "keys": [("trash.claimed_at", 1)],
        "partialFilterExpression": {"trash.claimed_at": {"$exists": True}},
    },
}

# The place in that index behind all that can be in a page.
BEHIND_THE_LAST: list[tuple[str, Any]] = [("trash.at", MinKey()), ("_id", MinKey())]

# The part of a query that leaves out foreign records in the trash.
IS_TRASHED: Document = {
    **IS_UPLOAD,
    "trash.step": {"$in": [str(step) for step in TrashStep]},
    "trash.at": {"$gte": FIRST_MOMENT, "$lte": LAST_MOMENT},
}

# A step takes far less time than this; after it, another process takes over the claim.
CLAIM_DURATION = timedelta(seconds=15)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
CURSOR = re.compile(r"([0-9a-f]{24})-([0-9a-f]{1,11})")

# Up to this many in the trash are counted for a page.
COUNTED_TOTAL = 1000

BATCH = 500
LOWEST_ID = ObjectId(bytes(12))


@dataclass(frozen=True, slots=True)
class RemovalClaim:
    """The claim of a process on an upload in the trash, and the step that it carries out.

    Attributes:
        token: identifies the claim; a process that takes it over gets another one.
    """

    upload: Upload
    step: TrashStep
    token: ObjectId


@dataclass(frozen=True, slots=True)
class TrashedUpload:
    """An upload in the trash, and when it was moved there."""

    upload: Upload
    trashed_at: datetime


@dataclass(frozen=True, slots=True)
class TrashPage:
    """One page of the trash.

    Attributes:
        total: the number of all uploads in the trash; None for more than `COUNTED_TOTAL`.
        next_cursor: the cursor for the next page; None on the last page.
    """

    found: list[TrashedUpload]
    total: int | None
    next_cursor: str | None


class Trash:
    """The collection of uploads in the trash."""

    def __init__(
        self,
        uploads: Collection[Document],
        duplicates: Duplicates,
        tag_keys: TagKeys,
        search_terms: SearchTerms,
    ):
        self._uploads = uploads
        self._duplicates = duplicates
        self._tag_keys = tag_keys
        self._search_terms = search_terms
        self.collection = uploads.database[f"{uploads.name}_trash"]

    def any(self) -> bool:
        """Whether anything is in the trash."""
        with translate_errors():
            return self.collection.find_one({}, {"_id": 1}) is not None

    def add(
        self,
        upload_id: str,
        step: TrashStep,
        job: str | None = None,
        versions: Versions = ANY_VERSION,
        filter: Mapping[str, Any] | None = None,
    ) -> RemovalClaim | None:
        """Move the record of an upload into the trash, and claim the upload for a step.

        Args:
            step: `MOVING` to keep the upload in the trash, `REMOVING` to delete it for good.
            job: the id of the job that removes it, if any.
            versions: the versions of the upload that may be removed.
            filter: a filter that the upload has to meet at this moment, in the form that
                `filter_from_query` takes.

        Returns:
            the claim; None when the upload does not meet the filter (any more).

        Raises:
            NotFound: there is no such upload.
            Outdated: the upload has another version.
            ForeignRecord: its record is not one that Clustr has written.
        """
        key, of_job = parse_id(upload_id), ObjectId(job) if job else None

        def move(session: ClientSession | None) -> tuple[Document, bool] | None:
            document = self._uploads.find_one({"_id": key}, session=session)
            if document is None:
                raise not_found_error(self._uploads, upload_id)
            from_document(document)  # Raises for a foreign record, which stays.
            # A concurrent edit restarts the transaction, which then sees the new version.
            require_version(document, versions)
            if filter and not self._matches_filter(document, filter, session, of_job):
                return None
            trash = {"at": now(), **_claim_fields(step), **({"job": of_job} if of_job else {})}
            trashed = {**document, "trash": trash}
            self.collection.replace_one({"_id": key}, trashed, upsert=True, session=session)
            self._uploads.delete_one({"_id": key}, session=session)
            return trashed, self._duplicates.update_after_removal(document, session, of_job)

        moved = self._duplicates.in_transaction(move)
        if moved is None:
            return None
        trashed, has_left_copies = moved
        if has_left_copies:
            self._repair_copies(trashed)
        return _claim_from_document(trashed)

    def _repair_copies(self, moved: Document) -> None:
        """Link all copies of an upload that was moved; if that fails, the reconciler does so."""
        try:
            self._duplicates.repair([moved["sha256"]])
        except DatabaseUnavailable:
            log.warning("copies_not_repaired", upload_id=str(moved["_id"]))

    def _matches_filter(
        self,
        document: Document,
        filter: Mapping[str, Any],
        session: ClientSession | None,
        job: ObjectId | None,
    ) -> bool:
        """Whether an upload meets a filter, with its duplicates looked up at this moment.

        An upload that became an original because the same job removed another does not count as an
        original: otherwise a job that removes originals would remove all copies.
        """
        others = {name: value for name, value in filter.items() if name != "duplicate"}
        upload_filter = filter_from_query(others, self._search_terms.stemming)
        upload_filter = include_unkeyed_uploads(upload_filter, self._tag_keys)
        query = {"$and": [{"_id": document["_id"]}, filter_query(upload_filter, DEFAULT_SORT)]}
        if self._uploads.find_one(query, {"_id": 1}, session=session) is None:
            return False
        if "duplicate" not in filter:
            return True
        owner = document.get(OWNER)
        original = self._duplicates.find_original(document["sha256"], owner, session)
        if original is None:  # Without a transaction, another process may have just removed it.
            return False
        if original["_id"] != document["_id"]:
            return bool(filter["duplicate"])
        return not filter["duplicate"] and (job is None or document.get("promoted_by") != job)

    def claim(
        self, upload_id: str, step: TrashStep, versions: Versions = ANY_VERSION
    ) -> RemovalClaim:
        """Claim an upload in the trash, to restore it or to delete it for good.

        Args:
            versions: as for `add`.

        Raises:
            NotFound: it is not in the trash.
            Outdated: the upload has another version.
            UnderWay: its file is being moved.
        """
        key = parse_id(upload_id)
        # A file that is being moved can be deleted safely, but not restored.
        steps = IN_TRASH_STEPS if step is TrashStep.REMOVING else (TrashStep.STORED,)
        query = {"_id": key, **IS_TRASHED, "trash.step": {"$in": steps}, **version_query(versions)}
        claimed = self._take_claim(query, step)
        if claimed:
            return claimed
        with translate_errors():
            projection = {"trash": 1, "edited_at": 1}
            existing = self.collection.find_one({"_id": key, **IS_TRASHED}, projection)
        if existing and existing["trash"]["step"] in IN_TRASH_STEPS:
            require_version(existing, versions)
        if existing and existing["trash"]["step"] == TrashStep.MOVING:
            raise UnderWay("It is being put into the trash at this moment; try again.")
        raise NotFound(f"There is no upload with the id {upload_id} in the trash.")

    def take_over_stale_claims(self, limit: int) -> list[RemovalClaim]:
        """Take over claims that are so old that their processes have died; at most `limit`."""
        late = {**IS_TRASHED, "trash.claimed_at": {"$lt": now() - CLAIM_DURATION}}
        late["trash.claim"] = {"$type": "objectId"}
        with translate_errors():
            found = list(self.collection.find(late, {"trash": 1}).limit(limit))
        taken = []
        for document in found:
            query = {"_id": document["_id"], "trash.claim": document["trash"]["claim"]}
            with suppress(ForeignRecord):
                claim = self._take_claim(query, document["trash"]["step"])
                taken += [claim] if claim else []
        if taken:  # The process that died may not have got to this.
            self._duplicates.repair({claim.upload.sha256 for claim in taken})
        return taken

    def _take_claim(self, query: Document, step: str) -> RemovalClaim | None:
        changes = {f"trash.{name}": value for name, value in _claim_fields(TrashStep(step)).items()}
        with translate_errors():
            found = self.collection.find_one_and_update(
                query, {"$set": changes}, return_document=ReturnDocument.AFTER
            )
        return _claim_from_document(found) if found else None

    def mark_moved(self, claim: RemovalClaim) -> bool:
        """Record that the file is in the trash; False when another process has the claim now."""
        changes = {
            "$set": {"trash.step": TrashStep.STORED},
            "$unset": {"trash.claim": "", "trash.claimed_at": ""},
        }
        with translate_errors():
            return self.collection.update_one(_claim_query(claim), changes).modified_count == 1

    def restore(self, claim: RemovalClaim, job: str | None = None) -> Upload | None:
        """Move an upload back among the others; None when another process has the claim now.

        Args:
            job: the id of the job that restores it, if any.
        """
        key = ObjectId(claim.upload.id)
        self._tag_keys.add_missing([claim.upload.id])

        def move(session: ClientSession | None, without: Sequence[str] = ()) -> Document | None:
            document = self.collection.find_one(_claim_query(claim), session=session)
            if document is None:
                return None
            restored = self._duplicates.prepare_restore(_restored_document(document, job), session)
            for name in without:
                restored.pop(name, None)
            # Its terms may be of an older version: `SearchTerms.update_all` was done before.
            restored["search"] = {**restored.get("search", {}), "terms": [DUE_TERM]}
            self._uploads.replace_one({"_id": key}, restored, upsert=True, session=session)
            self.collection.delete_one({"_id": key}, session=session)
            return restored

        try:
            restored = self._duplicates.in_transaction(move)
        except DuplicateKeyError:  # A repeated request has stored another upload with its key.
            restored = self._duplicates.in_transaction(lambda session: move(session, ("retry",)))
        if restored is None:
            return None
        if restored["duplicate_of"] is None:  # Others may have referred to another upload.
            self._repair_copies(restored)
        with suppress(DatabaseUnavailable):  # The reconciler finds that they are due.
            self._search_terms.update([claim.upload.id])
        return from_document(restored)

    def release_idempotency_keys(self, upload_ids: Sequence[str]) -> None:
        """Release the `Idempotency-Key` of these uploads, so that new uploads can have it."""
        query = {"_id": {"$in": [ObjectId(upload_id) for upload_id in upload_ids]}}
        with translate_errors():
            self.collection.update_many(query, {"$unset": {"retry": ""}})

    def delete(self, claim: RemovalClaim) -> bool:
        """Delete a record for good; False when another process has the claim now."""
        with translate_errors():
            return self.collection.delete_one(_claim_query(claim)).deleted_count == 1

    def step_of(self, upload_id: str) -> TrashStep | None:
        """The current step of an upload in the trash; None when it is not there."""
        with translate_errors():
            query = {"_id": ObjectId(upload_id), **IS_TRASHED}
            found = self.collection.find_one(query, {"trash": 1})
        return TrashStep(found["trash"]["step"]) if found else None

    def stored_files(self) -> Iterator[tuple[str, str]]:
        """Ids and file names of the unclaimed uploads in the trash, in the order of the ids."""
        last = LOWEST_ID
        while True:
            query = {"_id": {"$gt": last}, **IS_TRASHED, "trash.step": TrashStep.STORED}
            with translate_errors():
                found = self.collection.find(query, {"filename": 1}).sort("_id", 1).limit(BATCH)
                batch = list(found)
            if not batch:
                return
            for document in batch:
                with suppress(*MALFORMED_RECORD_ERRORS):
                    extension_of(document)  # The name in a foreign record is no path.
                    yield str(document["_id"]), document["filename"]
            last = batch[-1]["_id"]

    def filenames(self, upload_ids: Sequence[str]) -> set[str]:
        """The file names of the ones among these uploads that are in the trash."""
        query = {"_id": {"$in": [ObjectId(upload_id) for upload_id in upload_ids]}}
        with translate_errors():
            return filenames_of(self.collection.find(query, {"filename": 1}))

    def quarantine(self, upload_id: str, reason: str) -> bool:
        """Move a record from the trash into the quarantine collection, unless it is claimed.

        Returns:
            whether it was moved.
        """
        query = {"_id": ObjectId(upload_id), "trash.step": TrashStep.STORED}
        quarantine = self._uploads.database[f"{self._uploads.name}_quarantine"]
        with translate_errors():
            document = self.collection.find_one(query)
            if document is None:
                return False
            copy = {"upload": document, "reason": reason, "quarantined_at": now()}
            copy_id = quarantine.insert_one(copy).inserted_id
            if self.collection.delete_one(query).deleted_count:
                return True
            quarantine.delete_one({"_id": copy_id})
        return False

    def ids_trashed_before(self, moment: datetime, limit: int) -> list[str]:
        """The ids of uploads that were trashed before a moment, the oldest first."""
        query = {**IS_TRASHED, "trash.at": {"$lt": moment}, "trash.step": {"$in": IN_TRASH_STEPS}}
        with translate_errors():
            found = self.collection.find(query, {"_id": 1}).sort("trash.at", 1).limit(limit)
            return [str(document["_id"]) for document in found]

    def get(self, upload_id: str) -> TrashedUpload:
        """An upload in the trash.

        Raises:
            NotFound: it is not in the trash.
            ForeignRecord: its record is not one that Clustr has written.
        """
        query = {"_id": parse_id(upload_id), "trash.step": {"$in": IN_TRASH_STEPS}}
        with translate_errors():
            found = self.collection.find_one(query)
        if found is None:
            raise NotFound(f"There is no upload with the id {upload_id} in the trash.")
        return _trashed_upload(found)

    def page(self, limit: int, cursor: str | None = None, results: bool = False) -> TrashPage:
        """One page of the trash, the last trashed uploads first.

        Args:
            limit: the largest number of uploads.
            cursor: the `next_cursor` of the page before; it costs the same at any depth.
            results: whether to read the results of analyses.

        Raises:
            InvalidInput: the cursor is invalid.
        """
        query = {**IS_TRASHED, "trash.step": {"$in": IN_TRASH_STEPS}}
        with translate_errors():
            found = self.collection.find(query, None if results else {"analyses.result": 0})
            found = found.sort(NEWEST_REMOVED).hint(NEWEST_REMOVED_INDEX).limit(limit + 1)
            if cursor is not None:
                found = found.min(_read_cursor(cursor)).max(BEHIND_THE_LAST)
            documents = list(found)
            total = len(documents)
            if cursor is not None or total > limit:
                total = self.collection.count_documents(
                    query, limit=COUNTED_TOTAL + 1, hint=NEWEST_REMOVED_INDEX
                )
        following = documents[limit:]
        trashed = []
        for document in documents[:limit]:
            with suppress(ForeignRecord):
                trashed.append(_trashed_upload(document))
        return TrashPage(
            trashed,
            total if total <= COUNTED_TOTAL else None,
            _write_cursor(following[0]) if following else None,
        )


def _claim_fields(step: TrashStep) -> Document:
    return {"step": step, "claim": ObjectId(), "claimed_at": now()}


def _claim_from_document(document: Document) -> RemovalClaim:
    trash = document["trash"]
    return RemovalClaim(from_document(document), TrashStep(trash["step"]), trash["claim"])


def _trashed_upload(document: Document) -> TrashedUpload:
    """An upload in the trash, where it is no duplicate of any other."""
    upload = replace(from_document(document), duplicate_of=None)
    with reading_record(upload.id):
        trashed_at = document["trash"]["at"]
        if not isinstance(trashed_at, datetime):
            raise TypeError(f"trash.at is a {type(trashed_at).__name__}")
    return TrashedUpload(upload, trashed_at)


def _claim_query(claim: RemovalClaim) -> Document:
    return {"_id": ObjectId(claim.upload.id), "trash.claim": claim.token}


def _restored_document(document: Document, job: str | None) -> Document:
    """The record of a restored upload: no run holds its analyses any more."""
    later = max(now(), document["updated_at"] + timedelta(milliseconds=1))
    restored = {**document, "updated_at": later}
    del restored["trash"]
    restored["analyses"] = [_release_analysis(analysis) for analysis in document["analyses"]]
    return restored | ({"restored_by": ObjectId(job)} if job else {})


def _release_analysis(analysis: Document) -> Document:
    if analysis["state"] != State.RUNNING:
        return analysis
    kept = {name: value for name, value in analysis.items() if name not in ("run", "lease_until")}
    return {**kept, "state": State.QUEUED, "attempts": max(0, analysis.get("attempts", 0) - 1)}


def _write_cursor(document: Document) -> str:
    """The cursor for the page that begins with this document."""
    milliseconds = (document["trash"]["at"] - EPOCH) // timedelta(milliseconds=1)
    return f"{document['_id']}-{milliseconds:x}"


def _read_cursor(cursor: str) -> list[tuple[str, Any]]:
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
