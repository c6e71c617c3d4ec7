"""What `clustr fsck` asks of the uploads, and how it puts one aside or an analysis right."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from bson import ObjectId
from pymongo import ReadPreference
from pymongo.collection import Collection

from clustr.database.analysis_updates import settled_states, update_of_analysis, with_analysis
from clustr.database.clock import now
from clustr.database.connection import Document, answering
from clustr.database.documents import OF_AN_OBJECT_ID, filenames_of, reason_why_foreign
from clustr.database.duplicates import Duplicates
from clustr.domain.models import UNFINISHED, State

BATCH = 500
BEFORE_ALL = ObjectId(bytes(12))
LONG_AGO = datetime(1970, 1, 1, tzinfo=UTC)
BUT_RESULTS = {"analyses.result": 0}


@dataclass(frozen=True, slots=True)
class UnfinishedAnalysis:
    """An analysis that has not come to its end; `run` and `lease_until` are of who works on it."""

    name: str
    state: State
    run: str | None
    lease_until: datetime


@dataclass(frozen=True, slots=True)
class StoredRecord:
    """What an upload's record says about its file, in bytes, and about what is unfinished."""

    id: str
    filename: str
    size: int
    sha256: str
    updated_at: datetime
    pending: tuple[UnfinishedAnalysis, ...]


@dataclass(frozen=True, slots=True)
class ForeignDocument:
    """A record that Clustr has not written, and why it cannot be one of an upload."""

    id: str
    reason: str


class IntegrityQueries:
    """The uploads as `clustr fsck` sees them, by the primary's word alone."""

    def __init__(self, uploads: Collection[Document], copies: Duplicates):
        self._copies = copies
        self._uploads = uploads.with_options(read_preference=ReadPreference.PRIMARY)
        self._quarantine = uploads.database[f"{uploads.name}_quarantine"]

    def records(self) -> Iterator[StoredRecord | ForeignDocument]:
        """All uploads that there are now in the order of their ids, a batch at a time.

        Between batches nothing is held open: what is done with a batch may take as long as it does.
        """
        with answering():
            newest = self._uploads.find_one(OF_AN_OBJECT_ID, {"_id": 1}, sort=[("_id", -1)])
        last = BEFORE_ALL
        while newest and (batch := self._batch(last, newest["_id"])):
            yield from map(_record, batch)
            last = batch[-1]["_id"]
        with answering():
            for document in self._uploads.find({"$nor": [OF_AN_OBJECT_ID]}, {"_id": 1}):
                yield ForeignDocument(str(document["_id"]), "its id is no ObjectId")

    def _batch(self, after: ObjectId, until: ObjectId) -> list[Document]:
        with answering():
            found = self._uploads.find({"_id": {"$gt": after, "$lte": until}}, BUT_RESULTS)
            return list(found.sort("_id", 1).limit(BATCH))

    def record(self, upload_id: str) -> StoredRecord | None:
        """The upload as it is at this moment, if there is one."""
        with answering():
            document = self._uploads.find_one({"_id": ObjectId(upload_id)}, BUT_RESULTS)
        record = _record(document) if document else None
        return record if isinstance(record, StoredRecord) else None

    def filenames(self, upload_ids: Sequence[str]) -> set[str]:
        """The file names of those of these uploads that there are."""
        ids = [ObjectId(upload_id) for upload_id in upload_ids]
        with answering():
            found = self._uploads.find({"_id": {"$in": ids}}, {"filename": 1})
            return filenames_of(found)

    def quarantine(self, record: StoredRecord, reason: str) -> bool:
        """Move an upload into the quarantine collection.

        Returns:
            whether it was still as the record says; otherwise it stays.
        """
        unchanged = {"_id": ObjectId(record.id), "updated_at": record.updated_at}
        with answering():
            document = self._uploads.find_one(unchanged)
            if document is None:
                return False
            copy = {"upload": document, "reason": reason, "quarantined_at": now()}
            copy_id = self._quarantine.insert_one(copy).inserted_id
            if self._uploads.delete_one(unchanged).deleted_count:
                self._copies.put_right([record.sha256])
                return True
            self._quarantine.delete_one({"_id": copy_id})
        return False

    def queue_again(self, upload_id: str, analysis: UnfinishedAnalysis, reason: str) -> bool:
        """Let an analysis be run again whose run has ended without a word; whether it was so."""
        held = with_analysis(name=analysis.name, state=State.RUNNING, run=analysis.run)
        changes = {
            "$set": {"analyses.$.state": State.QUEUED, "analyses.$.error": reason},
            "$unset": {"analyses.$.run": "", "analyses.$.lease_until": ""},
            "$inc": {"analyses.$.crashes": 1},
        }
        with answering():
            here = {"_id": ObjectId(upload_id), **held}
            return self._uploads.update_one(here, changes).modified_count == 1

    def cancel(self, upload_id: str, analysis: UnfinishedAnalysis, reason: str) -> bool:
        """Give up an analysis that nobody can do; whether it was still as it was seen."""
        here = {
            "_id": ObjectId(upload_id),
            **with_analysis(name=analysis.name, state=analysis.state, run=analysis.run),
        }
        moment = now()
        changes = {"state": State.CANCELLED, "error": reason, "finished_at": moment}
        update = [*update_of_analysis(analysis.name, changes, {}, moment), *settled_states()]
        with answering():
            return self._uploads.update_one(here, update).modified_count == 1


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
