"""Jobs: changes of many uploads, and their progress.

A job goes through the uploads in the order of their ids, a batch at a time; `after` is the last id
that it has handled. So another process can continue it, and repeats one batch at worst.

A client can order any number of jobs, and each can name 10,000 uploads. So the number of unfinished
jobs is limited, and so is the number of finished jobs that are kept.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any

from bson import ObjectId
from pymongo.collection import Collection

from clustr.database.clock import now
from clustr.database.connection import Document, translate_errors
from clustr.database.documents import OWNER, parse_id
from clustr.domain.errors import NotFound, TooManyJobs

# At most this many jobs wait or run at once. Every step reads all of them.
MAX_UNFINISHED = 100
# Finished jobs are kept for this long, and at most this many of them.
RETENTION = timedelta(days=30)
MAX_FINISHED = 1000
INDEXES = {
    "unended": {"keys": [("state", 1), ("_id", 1)]},
    # A TTL index: MongoDB removes old finished jobs. Unfinished jobs lack the field.
    "ended": {"keys": [("finished_at", 1)], "expireAfterSeconds": int(RETENTION.total_seconds())},
}

MAX_FAILURES = 1000
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class JobState(StrEnum):
    """The state of a job."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


UNFINISHED_STATES = (JobState.QUEUED, JobState.RUNNING)


@dataclass(frozen=True, slots=True)
class Failure:
    """What went wrong with one upload of a job."""

    upload_id: str
    error: str


@dataclass(frozen=True, slots=True)
class Job:
    """A change of many uploads.

    Attributes:
        parameters: plain values, which depend on the kind of job.
        total: how many uploads it is about; None while that is unknown.
        counts: numbers of uploads by names that depend on the kind of job.
        after: the id of the last upload that was handled.
        until: the id of the newest upload when the job began; it leaves newer ones alone.
        failures: the first `MAX_FAILURES` failures of single uploads; left out of lists.
        error: why the job as a whole failed.
        cancel_requested_at: when a client asked to cancel it.
        owner: whose uploads are the only ones there are for it; None: all are.
    """

    id: str
    kind: str
    parameters: Mapping[str, Any]
    state: JobState
    total: int | None
    counts: Mapping[str, int]
    after: str | None
    until: str | None
    failures: tuple[Failure, ...]
    error: str | None
    request_id: str
    created_at: datetime
    updated_at: datetime
    started_at: datetime | None = None
    finished_at: datetime | None = None
    cancel_requested_at: datetime | None = None
    owner: str | None = None

    @property
    def ended(self) -> bool:
        return self.state not in UNFINISHED_STATES


class Jobs:
    """The collection of jobs.

    Args:
        owner: whose jobs alone can be read and cancelled; None: those of all.
    """

    def __init__(self, collection: Collection[Document], owner: str | None = None):
        self._collection = collection
        self._visible: Document = {} if owner is None else {OWNER: owner}

    def require_capacity(self) -> None:
        """Check that one more job may be added.

        Concurrent requests can each find the last place free.

        Raises:
            TooManyJobs: `MAX_UNFINISHED` jobs wait or run.
        """
        with translate_errors():
            unfinished = self._collection.count_documents(
                {"state": {"$in": UNFINISHED_STATES}}, limit=MAX_UNFINISHED
            )
        if unfinished == MAX_UNFINISHED:
            raise TooManyJobs(MAX_UNFINISHED)

    def add(self, kind: str, parameters: Mapping[str, Any], request_id: str) -> Job:
        """Add a new job to the queue."""
        moment = now()
        document = {
            "_id": ObjectId(),
            "kind": kind,
            "parameters": dict(parameters),
            "state": JobState.QUEUED,
            "total": None,
            "counts": {},
            "after": None,
            "until": None,
            "error": None,
            "request_id": request_id,
            "created_at": moment,
            "updated_at": moment,
            **self._visible,
        }
        with translate_errors():
            self._collection.insert_one(document)
        return _from_document(document)

    def get(self, job_id: str) -> Job:
        """The job with this id.

        Raises:
            NotFound: there is no such job.
        """
        key = parse_id(job_id, "job")
        with translate_errors():
            document = self._collection.find_one({"_id": key, **self._visible})
        if document is None:
            raise NotFound(
                f"There is no job with the id {job_id}. Those that ended are kept for "
                f"{RETENTION.days} days, and no more than the newest {MAX_FINISHED} of them."
            )
        return _from_document(document)

    def newest(self, limit: int) -> list[Job]:
        """The newest jobs, the newest first, without their lists of upload ids and failures."""
        without = {"parameters.ids": 0, "failures": 0}
        with translate_errors():
            return [
                _from_document(d)
                for d in self._collection.find(self._visible, without).sort("_id", -1).limit(limit)
            ]

    def unfinished(self) -> list[Job]:
        """The jobs that wait or run, the oldest first."""
        with translate_errors():
            found = map(
                _from_document, self._collection.find({"state": {"$in": UNFINISHED_STATES}})
            )
            return sorted(found, key=lambda job: job.id)

    def begin(self, job: Job, until: str | None) -> bool:
        """Mark a queued job as running, up to this upload; return whether it was queued."""
        changes = {
            "state": JobState.RUNNING,
            "until": ObjectId(until) if until else None,
            "started_at": now(),
        }
        return self._update({"_id": ObjectId(job.id), "state": JobState.QUEUED}, changes)

    def advance(
        self,
        job: Job,
        after: str | None,
        total: int | None,
        counts: Mapping[str, int],
        failures: Iterable[Failure] = (),
    ) -> bool:
        """Store the progress of a job.

        Args:
            failures: failures of single uploads since the last call.

        Returns:
            whether the stored progress was that of `job`: no other process has worked on it.
        """
        changes = {
            "after": ObjectId(after) if after else None,
            "total": total,
            "counts": dict(counts),
        }
        return self._update(_unchanged_query(job), changes, failures)

    def end(
        self,
        job: Job,
        state: JobState,
        counts: Mapping[str, int],
        error: str | None = None,
        failures: Iterable[Failure] = (),
        total: int | None = None,
    ) -> bool:
        """End a job, unless another process has ended or advanced it.

        Args:
            failures: failures of single uploads since the last call.
            total: how many uploads it was about, if that was not known before.

        Returns:
            whether this call has ended it.
        """
        changes = {
            "state": state,
            "total": job.total if total is None else total,
            "counts": dict(counts),
            "error": error,
            "finished_at": now(),
        }
        has_ended = self._update(_unchanged_query(job), changes, failures)
        self._remove_oldest()
        return has_ended

    def _remove_oldest(self) -> None:
        """Remove the oldest finished jobs beyond `MAX_FINISHED`."""
        ended = self._collection.find({"finished_at": {"$gt": EPOCH}}, {"finished_at": 1})
        with translate_errors():
            for last in ended.sort("finished_at", -1).skip(MAX_FINISHED - 1).limit(1):
                self._collection.delete_many({"finished_at": {"$lt": last["finished_at"]}})

    def cancel(self, job_id: str) -> Job:
        """Request that a job ends soon; a finished job stays as it is.

        Raises:
            NotFound: there is no such job.
        """
        job = self.get(job_id)
        query = {
            "_id": ObjectId(job.id),
            "state": {"$in": UNFINISHED_STATES},
            "cancel_requested_at": None,
        }
        self._update(query, {"cancel_requested_at": now()})
        return self.get(job_id)

    def _update(self, query: Document, changes: Document, failures: Iterable[Failure] = ()) -> bool:
        more = [{"upload_id": ObjectId(f.upload_id), "error": f.error} for f in failures]
        update: Document = {"$set": {**changes, "updated_at": now()}}
        if more:
            update["$push"] = {"failures": {"$each": more, "$slice": MAX_FAILURES}}
        with translate_errors():
            changed = self._collection.update_one(query, update)
        return changed.modified_count == 1


def _unchanged_query(job: Job) -> Document:
    after = ObjectId(job.after) if job.after else None
    return {"_id": ObjectId(job.id), "state": {"$in": UNFINISHED_STATES}, "after": after}


def _from_document(document: Document) -> Job:
    plain = ("kind", "parameters", "total", "counts", "error", "request_id")
    moments = ("created_at", "updated_at", "started_at", "finished_at", "cancel_requested_at")
    times: dict[str, Any] = {name: document.get(name) for name in moments}
    return Job(
        id=str(document["_id"]),
        state=JobState(document["state"]),
        after=_id_text(document["after"]),
        until=_id_text(document["until"]),
        failures=_failures(document.get("failures", ())),
        owner=document.get(OWNER),
        **{name: document[name] for name in plain},
        **times,
    )


def _failures(documents: Sequence[Document]) -> tuple[Failure, ...]:
    return tuple(Failure(str(found["upload_id"]), found["error"]) for found in documents)


def _id_text(key: ObjectId | None) -> str | None:
    return str(key) if key else None
