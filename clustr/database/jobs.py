"""Jobs: what somebody wants done to many uploads, and how far that is.

A job goes through the uploads in the order of their ids, a batch at a time, and `after` is the last
id that it has handled. So whoever takes it up goes on where it was, and does a batch once more at
worst.

A client can order jobs without end, and each can name 10,000 uploads: so there is a limit to how
many wait or run, and to how many of those that ended are kept.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any

from bson import ObjectId
from pymongo.collection import Collection

from clustr.database.clock import now
from clustr.database.connection import Document, answering
from clustr.database.documents import key_of
from clustr.domain.errors import NotFound, TooManyJobs

# So many may wait or run at once. At every step all of them are read.
MOST_UNENDED = 100
# Those that ended are kept for so long, and no more than so many of them.
KEPT = timedelta(days=30)
MOST_ENDED = 1000
INDEXES = {
    "unended": {"keys": [("state", 1), ("_id", 1)]},
    # MongoDB removes what has ended so long ago; what has not has no such time.
    "ended": {"keys": [("finished_at", 1)], "expireAfterSeconds": int(KEPT.total_seconds())},
}

MOST_FAILURES = 1000
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class JobState(StrEnum):
    """Where a job stands."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


UNENDED = (JobState.QUEUED, JobState.RUNNING)


@dataclass(frozen=True, slots=True)
class Failure:
    """What went wrong with one upload of a job."""

    upload_id: str
    error: str


@dataclass(frozen=True, slots=True)
class Job:
    """What is to be done to many uploads.

    Attributes:
        parameters: what the kind of job needs to know, in plain values.
        total: how many uploads it is about; None while they are still being found.
        counts: how many uploads have come how far, in words of the kind.
        after: the id of the last upload that was handled.
        until: the id of the newest upload when it began; those that came later are left alone.
        failures: the first of them, by uploads; left out of lists.
        error: why the job as a whole failed.
        cancel_requested_at: when somebody wanted it to end.
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

    @property
    def ended(self) -> bool:
        return self.state not in UNENDED


class Jobs:
    """The collection of jobs."""

    def __init__(self, collection: Collection[Document]):
        self._collection = collection

    def require_room(self) -> None:
        """See that one more may wait.

        Requests that are answered at the same moment can each find the last place free.

        Raises:
            TooManyJobs: as many as may wait or run.
        """
        with answering():
            unended = self._collection.count_documents(
                {"state": {"$in": UNENDED}}, limit=MOST_UNENDED
            )
        if unended == MOST_UNENDED:
            raise TooManyJobs(MOST_UNENDED)

    def add(self, kind: str, parameters: Mapping[str, Any], request_id: str) -> Job:
        """Write down a new job, for whoever takes it up."""
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
        }
        with answering():
            self._collection.insert_one(document)
        return _job(document)

    def get(self, job_id: str) -> Job:
        """The job with this id.

        Raises:
            NotFound: there is none with it.
        """
        key = key_of(job_id, "job")
        with answering():
            document = self._collection.find_one({"_id": key})
        if document is None:
            raise NotFound(
                f"There is no job with the id {job_id}. Those that ended are kept for {KEPT.days} "
                f"days, and no more than the newest {MOST_ENDED} of them."
            )
        return _job(document)

    def newest(self, limit: int) -> list[Job]:
        """The newest jobs, without the ids of uploads that they were given or that failed."""
        without = {"parameters.ids": 0, "failures": 0}
        with answering():
            return [
                _job(d) for d in self._collection.find({}, without).sort("_id", -1).limit(limit)
            ]

    def unended(self) -> list[Job]:
        """The jobs that have not come to their end, the oldest first."""
        with answering():
            found = map(_job, self._collection.find({"state": {"$in": UNENDED}}))
            return sorted(found, key=lambda job: job.id)

    def begin(self, job: Job, until: str | None) -> bool:
        """Say that a job is being worked on, up to this upload; whether it waited for that."""
        changes = {
            "state": JobState.RUNNING,
            "until": ObjectId(until) if until else None,
            "started_at": now(),
        }
        return self._change({"_id": ObjectId(job.id), "state": JobState.QUEUED}, changes)

    def advance(
        self,
        job: Job,
        after: str | None,
        total: int | None,
        counts: Mapping[str, int],
        failures: Iterable[Failure] = (),
    ) -> bool:
        """Write down how far a job is.

        Args:
            failures: those of single uploads since the last time.

        Returns:
            whether it was still as far as `job` says: nobody else has worked on it.
        """
        changes = {
            "after": ObjectId(after) if after else None,
            "total": total,
            "counts": dict(counts),
        }
        return self._change(_as_far_as(job), changes, failures)

    def end(
        self,
        job: Job,
        state: JobState,
        counts: Mapping[str, int],
        error: str | None = None,
        failures: Iterable[Failure] = (),
        total: int | None = None,
    ) -> bool:
        """Write down that a job has come to its end, unless somebody else did so first.

        Args:
            failures: those of single uploads since the last time; the first thousand are kept.
            total: how many uploads it was about, if that was not known before.
        """
        changes = {
            "state": state,
            "total": job.total if total is None else total,
            "counts": dict(counts),
            "error": error,
            "finished_at": now(),
        }
        has_ended = self._change(_as_far_as(job), changes, failures)
        self._remove_oldest()
        return has_ended

    def _remove_oldest(self) -> None:
        """Remove those that ended first, as far as they are more than are kept."""
        ended = self._collection.find({"finished_at": {"$gt": EPOCH}}, {"finished_at": 1})
        with answering():
            for last in ended.sort("finished_at", -1).skip(MOST_ENDED - 1).limit(1):
                self._collection.delete_many({"finished_at": {"$lt": last["finished_at"]}})

    def cancel(self, job_id: str) -> Job:
        """Ask that a job ends soon; one that has ended stays as it is.

        Raises:
            NotFound: there is none with it.
        """
        job = self.get(job_id)
        here = {"_id": ObjectId(job.id), "state": {"$in": UNENDED}, "cancel_requested_at": None}
        self._change(here, {"cancel_requested_at": now()})
        return self.get(job_id)

    def _change(self, here: Document, changes: Document, failures: Iterable[Failure] = ()) -> bool:
        more = [{"upload_id": ObjectId(f.upload_id), "error": f.error} for f in failures]
        update: Document = {"$set": {**changes, "updated_at": now()}}
        if more:
            update["$push"] = {"failures": {"$each": more, "$slice": MOST_FAILURES}}
        with answering():
            changed = self._collection.update_one(here, update)
        return changed.modified_count == 1


def _as_far_as(job: Job) -> Document:
    after = ObjectId(job.after) if job.after else None
    return {"_id": ObjectId(job.id), "state": {"$in": UNENDED}, "after": after}


def _job(document: Document) -> Job:
    plain = ("kind", "parameters", "total", "counts", "error", "request_id")
    moments = ("created_at", "updated_at", "started_at", "finished_at", "cancel_requested_at")
    return Job(
        id=str(document["_id"]),
        state=JobState(document["state"]),
        after=_text(document["after"]),
        until=_text(document["until"]),
        failures=_failures(document.get("failures", ())),
        **{name: document[name] for name in plain},
        **{name: document.get(name) for name in moments},
    )


def _failures(documents: Sequence[Document]) -> tuple[Failure, ...]:
    return tuple(Failure(str(found["upload_id"]), found["error"]) for found in documents)


def _text(key: ObjectId | None) -> str | None:
    return str(key) if key else None
