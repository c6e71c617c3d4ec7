"""Selections: which uploads one analyzer is to look at (again), and queueing them for a job.

What is selected is queued behind what is uploaded. Its last good result stays where it is until a
newer run succeeds. What is unfinished at that moment is left alone.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any

import pymongo
from bson import ObjectId
from pymongo import ReturnDocument, WriteConcern
from pymongo.collection import Collection

from clustr.database.analysis_updates import settled_states, with_analysis
from clustr.database.clock import now
from clustr.database.connection import Document, answering
from clustr.database.documents import (
    IS_UPLOAD,
    LIKE_AN_UPLOAD,
    OF_AN_OBJECT_ID,
    from_document,
    key_of,
)
from clustr.database.filters import filter_from_query
from clustr.database.jobs import MOST_FAILURES, Failure, Job
from clustr.database.listing import DEFAULT, including_unkeyed_tags, query
from clustr.database.not_found import not_found_error
from clustr.database.tag_keys import TagKeys
from clustr.database.trash import IS_TRASHED
from clustr.database.versions import ANY_VERSION, Versions, of_version, require_version
from clustr.domain.errors import DatabaseUnavailable, TooSlow, UnderWay
from clustr.domain.models import UNFINISHED, State, Upload
from clustr.plugins import Analyzer

OF_JOB = "of_job"
INDEXES = {
    # Uploads of which no analysis was ever queued by a job are not in it.
    OF_JOB: {
        "keys": [("analyses.job", 1), ("analyses.state", 1)],
        "partialFilterExpression": {"analyses.job": {"$exists": True}},
    },
}
BY_ID = "_id_"

BATCH = 1000
PRIORITY = 10
BEFORE_ALL = ObjectId(bytes(12))
# Nobody has begun with them; what runs ends by itself.
NOT_BEGUN = (State.WAITING, State.QUEUED, State.DEFERRED)
ENDED = tuple(state for state in State if state not in UNFINISHED)
# To count what is selected, all uploads may have to be read once.
COUNT_SECONDS = 20.0


class AnalysisSelection(StrEnum):
    """Which analyses of an analyzer are selected, of those that are not under way."""

    MISSING = "missing"  # those without a result and without a word on why there is none
    STALE = "stale"  # those of an earlier version of the analyzer
    FAILED = "failed"
    ALL = "all"


@dataclass(frozen=True, slots=True)
class UploadsForAnalyzer:
    """Which uploads one analyzer is to look at (again).

    Attributes:
        analyzer: its name.
        ids: the only uploads that are looked at; None for all.
        filter: what those are like, as `filter_from_query` is told it.
        limit: how many at most, the oldest first; None for all.
    """

    analyzer: str
    select: AnalysisSelection
    ids: tuple[str, ...] | None = None
    filter: Mapping[str, Any] = field(default_factory=dict)
    limit: int | None = None

    def parameters(self) -> dict[str, Any]:
        """What a job needs to know of it, without what was not said."""
        return {name: value for name, value in asdict(self).items() if value not in (None, {})}

    @staticmethod
    def of(parameters: Mapping[str, Any]) -> "UploadsForAnalyzer":
        """The selection of a job with these parameters."""
        ids = parameters.get("ids")
        return UploadsForAnalyzer(
            analyzer=parameters["analyzer"],
            select=AnalysisSelection(parameters["select"]),
            ids=tuple(ids) if ids is not None else None,
            filter=parameters.get("filter", {}),
            limit=parameters.get("limit"),
        )


@dataclass(frozen=True, slots=True)
class SelectedUploads:
    """Which uploads something is done to: the only ones by their ids, or those of a filter.

    Attributes:
        filter: what they are like, as `filter_from_query` is told it.
        trashed: whether they are those of the trash.
    """

    ids: tuple[str, ...] | None = None
    filter: Mapping[str, Any] = field(default_factory=dict)
    trashed: bool = False

    def parameters(self) -> dict[str, Any]:
        """What a job needs to know of it."""
        if self.ids is not None:
            return {"ids": list(self.ids)}
        return {"filter": self.filter}

    @staticmethod
    def of(parameters: Mapping[str, Any], trashed: bool) -> "SelectedUploads":
        """What is chosen for a job with these parameters."""
        ids = parameters.get("ids")
        filter = parameters.get("filter", {})
        return SelectedUploads(tuple(ids) if ids is not None else None, filter, trashed)


@dataclass(frozen=True, slots=True)
class SelectedBatch:
    """The next few of what is chosen.

    Attributes:
        after: the last id that was looked at for it.
        ids: what was found, in order.
        unknown: those ids that were asked for and not found.
        last: whether nothing follows.
    """

    after: str | None
    ids: list[str]
    unknown: list[str]
    last: bool


@dataclass(frozen=True, slots=True)
class BatchResult:
    """What came of one batch of a job.

    Attributes:
        after: the last upload of the batch.
        selected: how many uploads of the batch are the job's.
        last: whether no upload follows that could be the job's.
    """

    after: str | None
    selected: int
    last: bool


class BulkSelection:
    """Queues analyses for jobs, and knows how far those of a job are.

    What is queued need not wait for the journal: how far the job is, is written down after it, and
    that is acknowledged from the journal, in which all that was before it is then, too.
    """

    def __init__(self, collection: Collection[Document], tag_keys: TagKeys):
        self._collection = collection
        self._tag_keys = tag_keys
        self._trash = collection.database[f"{collection.name}_trash"]
        self._unjournaled = collection.with_options(write_concern=WriteConcern(w=1))

    def count(self, selection: UploadsForAnalyzer, analyzer: Analyzer) -> int:
        """How many uploads are selected at this moment.

        Raises:
            TooSlow: there are too many to look at in `COUNT_SECONDS`.
        """
        chosen = self._chosen(selection, analyzer)
        return self._count(self._collection, chosen, selection.ids, selection.limit)

    def count_chosen(self, chosen: SelectedUploads) -> int:
        """How many uploads are chosen at this moment.

        Raises:
            TooSlow: there are too many to look at in `COUNT_SECONDS`.
        """
        return self._count(self._of(chosen), self._meeting(chosen.filter), chosen.ids)

    def _of(self, chosen: SelectedUploads) -> Collection[Document]:
        return self._trash if chosen.trashed else self._collection

    def _count(
        self,
        collection: Collection[Document],
        meeting: Document,
        ids: Sequence[str] | None,
        most: int | None = None,
    ) -> int:
        if ids is not None:
            meeting = {**meeting, "_id": {"$in": [ObjectId(upload_id) for upload_id in ids]}}
        limit = {"limit": most} if most else {}
        try:
            with answering(), pymongo.timeout(COUNT_SECONDS):
                return collection.count_documents(meeting, **limit)
        except DatabaseUnavailable as error:
            with answering():
                self._collection.database.command("ping")
            raise TooSlow from error

    def newest(self) -> str | None:
        """The id of the newest upload, if there is any; it may be in the trash."""
        with answering():
            found = [
                str(document["_id"])
                for collection in (self._collection, self._trash)
                for document in collection.find(OF_AN_OBJECT_ID, {"_id": 1})
                .sort("_id", -1)
                .limit(1)
            ]
        return max(found, default=None)

    def next(self, job: Job, chosen: SelectedUploads, size: int) -> SelectedBatch:
        """The next few that are chosen after those that the job has handled.

        What the job has done already, before it was written down how far it is, is among them.
        """
        collection, mine = self._of(chosen), {_mark(chosen): ObjectId(job.id)}
        others = self._trash if collection is self._collection else self._collection
        with answering():
            after, here, last = _next(collection, job, chosen.ids, size)
            whole = IS_TRASHED if chosen.trashed else IS_UPLOAD
            meeting = {**here, **self._meeting(chosen.filter), **whole}
            found = {d["_id"] for d in collection.find(meeting, {"_id": 1})}
            found |= {d["_id"] for d in others.find({**here, **mine}, {"_id": 1})}
        ids = sorted(map(str, found))
        asked = {*map(str, here["_id"].get("$in", ()))}
        return SelectedBatch(str(after) if after else job.after, ids, sorted(asked - {*ids}), last)

    def done(self, job: Job, chosen: SelectedUploads, ids: Sequence[str]) -> set[str]:
        """Those of these ids that the job has moved into the trash, or out of it."""
        others = self._collection if chosen.trashed else self._trash
        here = {"_id": {"$in": [ObjectId(i) for i in ids]}, _mark(chosen): ObjectId(job.id)}
        with answering():
            return {str(document["_id"]) for document in others.find(here, {"_id": 1})}

    def queue(
        self, job: Job, selection: UploadsForAnalyzer, analyzer: Analyzer, dependants: Sequence[str]
    ) -> BatchResult:
        """Queue what is selected among the uploads that follow those which the job has handled.

        Done once more it changes nothing that it has changed.

        Args:
            dependants: the names of the analyzers that require this one, directly or not: they
                stay behind it in the order of an upload's analyses.
        """
        with answering():
            after, here, last = _next(self._collection, job, selection.ids, BATCH)
            chosen = self._chosen(selection, analyzer, ObjectId(job.id)) | IS_UPLOAD
            mine = {**here, "analyses.job": ObjectId(job.id)}
            wanted = here
            if selection.limit is not None:
                had = self._collection.count_documents(mine, hint=BY_ID)
                left = max(0, selection.limit - job.counts.get("selected", 0) - had)
                found = self._collection.find({**here, "$and": [chosen]}, {"_id": 1})
                found = found.sort("_id", 1).hint(BY_ID).limit(left) if left else []
                ids = [document["_id"] for document in found]
                wanted = {"_id": {"$in": ids}}
                last = last or len(ids) == left
            by_job = {"priority": PRIORITY, "job": ObjectId(job.id)}
            update = [*_queued(analyzer, dependants, by_job), *settled_states()]
            self._unjournaled.update_many({**wanted, "$and": [chosen]}, update, hint=BY_ID)
            selected = self._collection.count_documents(mine, hint=BY_ID)
        return BatchResult(str(after) if after else job.after, selected, last)

    def queue_one(
        self,
        upload_id: str,
        analyzer: Analyzer,
        dependants: Sequence[str],
        versions: Versions = ANY_VERSION,
    ) -> Upload:
        """Queue one analysis of an upload, before all that jobs have queued.

        Args:
            dependants: as for `queue`.
            versions: of which the upload may be.

        Returns:
            the upload as it is then.

        Raises:
            NotFound: there is no such upload.
            ForeignRecord: its record is not one that Clustr has written.
            Outdated: it is of none of these versions.
            UnderWay: the analysis has not come to its end.
        """
        here = {"_id": key_of(upload_id)}
        ended = _by_analysis(AnalysisSelection.ALL, analyzer, {})
        # No job has ordered it, and none takes it back.
        update = [
            *_queued(analyzer, dependants, {"priority": 0, "job": "$$REMOVE"}),
            *settled_states(),
        ]
        with answering():
            queued = self._collection.find_one_and_update(
                {**here, **IS_UPLOAD, **of_version(versions), **ended},
                update,
                return_document=ReturnDocument.AFTER,
            )
            if queued is not None:
                return from_document(queued)
            there = self._collection.find_one(here)
        if there is None:
            raise not_found_error(self._collection, upload_id)
        from_document(there)
        require_version(there, versions)
        said = f"The analysis {analyzer.name} of this upload is still under way; try again later."
        raise UnderWay(said)

    def _chosen(
        self, selection: UploadsForAnalyzer, analyzer: Analyzer, job: ObjectId | None = None
    ) -> Document:
        """A query for the uploads that are selected, and are not the job's already."""
        others = {"job": {"$ne": job}} if job else {}
        by_analysis = _by_analysis(selection.select, analyzer, others)
        return {"$and": [by_analysis, self._meeting(selection.filter)]}

    def _meeting(self, filter: Mapping[str, Any]) -> Document:
        """A query for the uploads that meet a filter."""
        wanted = query(including_unkeyed_tags(filter_from_query(filter), self._tag_keys), DEFAULT)
        return {"$and": [wanted, LIKE_AN_UPLOAD]}

    def states(self, job_id: str) -> dict[str, int]:
        """How many analyses of a job are in each state."""
        with answering():
            return {state: self._count_of(job_id, state) for state in State}

    def _count_of(self, job_id: str, *states: State) -> int:
        return self._collection.count_documents(_of_job(job_id, states), hint=OF_JOB)

    def failures(self, job_id: str) -> list[Failure]:
        """Which analyses of a job failed, and why; no more of them than are kept in a job."""
        projection = {"analyses": {"$elemMatch": {"job": ObjectId(job_id)}}}
        failed = _of_job(job_id, (State.FAILED,))
        with answering():
            found = list(
                self._collection.find(failed, projection).hint(OF_JOB).limit(MOST_FAILURES)
            )
        return [
            Failure(str(document["_id"]), document["analyses"][0].get("error") or "")
            for document in found
        ]

    def put_back(self, job_id: str) -> bool:
        """Undo the queueing of a batch of those analyses of a job that nobody has begun with.

        They are the job's no more.

        Returns:
            whether there are more of them.
        """
        not_begun = _of_job(job_id, NOT_BEGUN)
        with answering():
            found = self._collection.find(not_begun, {"_id": 1}).hint(OF_JOB).limit(BATCH)
            ids = [document["_id"] for document in found]
            update = [*_put_back(ObjectId(job_id)), *settled_states()]
            self._collection.update_many({"_id": {"$in": ids}, **not_begun}, update)
        return len(ids) == BATCH


def _mark(chosen: SelectedUploads) -> str:
    """Where it says which job has moved an upload from where it is looked for."""
    return "restored_by" if chosen.trashed else "trash.job"


def _next(
    collection: Collection[Document], job: Job, ids: Sequence[str] | None, size: int
) -> tuple[ObjectId | None, Document, bool]:
    """The last id of the next batch, a query for the batch, and whether nothing follows it.

    A batch is what is read, not what is found in it: however few are selected of how many, it
    takes no longer.
    """
    before = ObjectId(job.after) if job.after else BEFORE_ALL
    if ids is not None:
        asked = map(ObjectId, {*ids})
        following_ids = sorted(key for key in asked if not job.after or key > before)
        batch = following_ids[:size]
        return batch[-1] if batch else None, {"_id": {"$in": batch}}, len(following_ids) <= size
    if job.until is None:
        return None, {"_id": {"$in": []}}, True
    until = ObjectId(job.until)
    following = collection.find({"_id": {"$gt": before, "$lte": until}}, {"_id": 1})
    end = next(iter(following.sort("_id", 1).skip(size - 1).limit(1)), {"_id": until})["_id"]
    return end, {"_id": {"$gt": before, "$lte": end}}, end == until


def _of_job(job_id: str, states: Sequence[State]) -> Document:
    """A query for uploads with an analysis of this job in one of these states."""
    key = ObjectId(job_id)
    # The first condition is what tells MongoDB that the partial index has all of them.
    return {"analyses.job": key, **with_analysis(job=key, state={"$in": list(states)})}


def _by_analysis(select: AnalysisSelection, analyzer: Analyzer, others: Document) -> Document:
    """A query for the uploads whose analysis is to be run (again)."""
    name = analyzer.name
    absent = {"analyses.name": {"$ne": name}}
    if select is AnalysisSelection.FAILED:
        return with_analysis(name=name, state=State.FAILED, **others)
    ended = {"name": name, "state": {"$in": ENDED}, **others}
    if select is AnalysisSelection.STALE:
        return with_analysis(**ended, version={"$lt": analyzer.version})
    if select is AnalysisSelection.ALL:
        return {"$or": [absent, with_analysis(**ended)]}
    ended |= {"state": {"$in": [State.FAILED, State.CANCELLED]}}
    # Without an attempt it was skipped for what it requires, or for its format: by now that may be
    # different. An analyzer that had nothing to say itself is not asked again.
    passed_over = {**ended, "state": State.SKIPPED, "attempts": 0}
    looked_at = {"content_type": {"$in": sorted(analyzer.formats)}} if analyzer.formats else {}
    return {
        "$or": [
            absent,
            with_analysis(**ended, result=None),
            {**with_analysis(**passed_over, result=None), **looked_at},
        ]
    }


def _queued(analyzer: Analyzer, dependants: Sequence[str], order: Document) -> list[Document]:
    """An update that queues an analysis, and adds it where there is none.

    It is put behind all that do not require it, because the analyses of an upload are in the order
    of what they require.

    Args:
        order: what it is queued with: its priority and its job.
    """
    moment = now()
    mine = {"$eq": ["$$this.name", analyzer.name]}
    behind = {"$in": ["$$this.name", list(dependants)]}

    def those(condition: Document) -> Document:
        return {"$filter": {"input": "$analyses", "as": "this", "cond": condition}}

    before = {"$first": those(mine)}
    looked_at = {"$in": ["$content_type", sorted(analyzer.formats)]} if analyzer.formats else True
    state = State.WAITING if analyzer.requires else State.QUEUED
    refusal = {"$concat": ["does not look at ", "$content_type"]}
    changed = {
        "name": analyzer.name,
        # While there is a result it is the version that gave it.
        "version": {
            "$cond": [{"$ifNull": ["$$before.result", False]}, "$$before.version", analyzer.version]
        },
        "state": {"$cond": [looked_at, state, State.SKIPPED]},
        "error": {"$cond": [looked_at, None, refusal]},
        "requires": list(analyzer.requires),
        "due_at": moment,
        "deferred_at": None,
        "attempts": 0,
        "crashes": 0,
    }
    both = {"$mergeObjects": ["$$before", changed]}
    for name, value in order.items():
        both = {"$setField": {"field": name, "input": both, "value": value}}
    queued = {"$let": {"vars": {"before": before}, "in": both}}
    ahead = {"$not": [{"$or": [mine, behind]}]}
    in_order = {"$concatArrays": [those(ahead), [queued], those(behind)]}
    return [{"$set": {"analyses": in_order}}]


def _put_back(job: ObjectId) -> list[Document]:
    """An update that lets the analyses of a job be as if it had not been, as far as they can."""
    not_begun = {"$and": [{"$eq": ["$$this.job", job]}, {"$in": ["$$this.state", [*NOT_BEGUN]]}]}
    good = {"state": State.SUCCEEDED, "error": None, "deferred_at": None}
    cancelled = {
        **good,
        "state": State.CANCELLED,
        "error": "the job that asked for it was cancelled",
        "finished_at": now(),
    }
    changes = {"$cond": [{"$ifNull": ["$$this.result", False]}, good, cancelled]}
    changed = {"$mergeObjects": ["$$this", changes]}
    without_job = {"$unsetField": {"field": "job", "input": changed}}
    each = {"$cond": [not_begun, without_job, "$$this"]}
    return [{"$set": {"analyses": {"$map": {"input": "$analyses", "in": each}}}}]
