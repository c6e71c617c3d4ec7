"""What `clustr fsck` reads of the uploads, and how it repairs them or moves them to quarantine."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from bson import ObjectId
from pymongo import ReadPreference
from pymongo.collection import Collection

from clustr.database.analysis_updates import settle_stages, update_of_analysis, with_analysis
from clustr.database.clock import now
from clustr.database.connection import Document, translate_errors
from clustr.database.documents import HAS_OBJECT_ID, filenames_of, reason_why_foreign
from clustr.database.duplicates import Duplicates
from clustr.domain.models import UNFINISHED, State

BATCH = 500
LOWEST_ID = ObjectId(bytes(12))
LONG_AGO = datetime(1970, 1, 1, tzinfo=UTC)
WITHOUT_RESULTS = {"analyses.result": 0}


@dataclass(frozen=True, slots=True)
class UnfinishedAnalysis:
    """An unfinished analysis, with the run that holds it and the end of its lease, if any."""

    name: str
    state: State
    run: str | None
    lease_until: datetime


@dataclass(frozen=True, slots=True)
class StoredRecord:
    """What an upload's record says about its file (`size` is in bytes) and unfinished analyses."""

    id: str
    filename: str
    size: int
    sha256: str
    updated_at: datetime
    pending: tuple[UnfinishedAnalysis, ...]


@dataclass(frozen=True, slots=True)
class ForeignDocument:
    """A record that cannot be read as an upload, and why."""

    id: str
    reason: str


class Integrity:
    """The uploads as `clustr fsck` reads and repairs them, always on the primary."""

    def __init__(self, uploads: Collection[Document], duplicates: Duplicates):
        self._duplicates = duplicates
        self._uploads = uploads.with_options(read_preference=ReadPreference.PRIMARY)
        self._quarantine = uploads.database[f"{uploads.name}_quarantine"]

    def records(self) -> Iterator[StoredRecord | ForeignDocument]:
        """All current uploads in the order of their ids, then records whose id is no ObjectId.

        They are read in batches without an open cursor, so the caller may take any time.
        """
        with translate_errors():
            newest = self._uploads.find_one(HAS_OBJECT_ID, {"_id": 1}, sort=[("_id", -1)])
        last = LOWEST_ID
        while newest and (batch := self._batch(last, newest["_id"])):
            yield from map(_record, batch)
            last = batch[-1]["_id"]
        with translate_errors():
            for document in self._uploads.find({"$nor": [HAS_OBJECT_ID]}, {"_id": 1}):
                yield ForeignDocument(str(document["_id"]), "its id is no ObjectId")

    def _batch(self, after: ObjectId, until: ObjectId) -> list[Document]:
        with translate_errors():
            found = self._uploads.find({"_id": {"$gt": after, "$lte": until}}, WITHOUT_RESULTS)
            return list(found.sort("_id", 1).limit(BATCH))

    def record(self, upload_id: str) -> StoredRecord | None:
        """The record of an upload at this moment; None if it is missing or foreign."""
        with translate_errors():
            document = self._uploads.find_one({"_id": ObjectId(upload_id)}, WITHOUT_RESULTS)
        record = _record(document) if document else None
        return record if isinstance(record, StoredRecord) else None

    def filenames(self, upload_ids: Sequence[str]) -> set[str]:
        """The file names of the existing ones among these uploads."""
        ids = [ObjectId(upload_id) for upload_id in upload_ids]
        with translate_errors():
            found = self._uploads.find({"_id": {"$in": ids}}, {"filename": 1})
            return filenames_of(found)

    def quarantine(self, record: StoredRecord, reason: str) -> bool:
        """Move an upload into the quarantine collection.

        Returns:
            whether it was unchanged since the record was read; otherwise it stays.
        """
        unchanged = {"_id": ObjectId(record.id), "updated_at": record.updated_at}
        with translate_errors():
            document = self._uploads.find_one(unchanged)
            if document is None:
                return False
            copy = {"upload": document, "reason": reason, "quarantined_at": now()}
            copy_id = self._quarantine.insert_one(copy).inserted_id
            if self._uploads.delete_one(unchanged).deleted_count:
                self._duplicates.repair([record.sha256])
                return True
            self._quarantine.delete_one({"_id": copy_id})
        return False

    def requeue(self, upload_id: str, analysis: UnfinishedAnalysis, reason: str) -> bool:
        """Queue an analysis again whose run has died; return whether that run still held it."""
        held = with_analysis(name=analysis.name, state=State.RUNNING, run=analysis.run)
        changes = {
            "$set": {"analyses.$.state": State.QUEUED, "analyses.$.error": reason},
            "$unset": {"analyses.$.run": "", "analyses.$.lease_until": ""},
            "$inc": {"analyses.$.crashes": 1},
        }
        with translate_errors():
            query = {"_id": ObjectId(upload_id), **held}
            return self._uploads.update_one(query, changes).modified_count == 1

    def cancel(self, upload_id: str, analysis: UnfinishedAnalysis, reason: str) -> bool:
        """Cancel an analysis that no process can finish; return whether it was unchanged."""
        query = {
            "_id": ObjectId(upload_id),
            **with_analysis(name=analysis.name, state=analysis.state, run=analysis.run),
        }
        moment = now()
        changes = {"state": State.CANCELLED, "error": reason, "finished_at": moment}
        update = [*update_of_analysis(analysis.name, changes, {}, moment), *settle_stages()]
        with translate_errors():
            return self._uploads.update_one(query, update).modified_count == 1


def _record(document: Document) -> StoredRecord | ForeignDocument:
    if reason := reason_why_foreign(document):
        return ForeignDocument(str(document["_id"]), reason)
    return StoredRecord(
        id=str(document["_id"]),
        filename=document["filename"],
        size=document["size"],
        sha256=document["sha256"],
        updated_at=document["updated_at"],
        pending=tuple(
            UnfinishedAnalysis(
                a["name"], State(a["state"]), a.get("run"), a.get("lease_until") or LONG_AGO
            )
            for a in document["analyses"]
            if a["state"] in UNFINISHED
        ),
    )
