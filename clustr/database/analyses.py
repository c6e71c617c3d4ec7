"""The analyses inside the uploads: who works on which, and what came of it.

An analysis is claimed by writing the id of a run into it, with the end of a lease; every later
change is made only where that run still holds it. So a worker that comes late, or a second one with
the same job, or one whose upload was deleted, changes nothing.
"""

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

from bson import ObjectId
from pymongo import UpdateOne, WriteConcern
from pymongo.collection import Collection
from pymongo.errors import BulkWriteError

from clustr.database.analysis_updates import settled_states, update_of_analysis, with_analysis
from clustr.database.clock import FARTHEST, Clock, due_condition, now
from clustr.database.connection import Document, answering
from clustr.database.documents import IS_UPLOAD, from_document
from clustr.database.tag_keys import TagKeys
from clustr.domain.errors import ForeignRecord
from clustr.domain.models import UNFINISHED, State, Upload

WORK = [
    ("analyses.name", 1),
    ("analyses.state", 1),
    ("analyses.priority", 1),
    ("analyses.due_at", 1),
]
WORK_INDEX = "work"
INDEXES = {WORK_INDEX: {"keys": WORK}}

# How many analyses are moved from one state to another by one command at most.
BATCH = 1000


@dataclass(frozen=True, slots=True)
class ClaimedAnalysis:
    """An upload as it was before a run took its analysis; `attempts` counts this run too."""

    upload: Upload
    attempts: int
    started_at: datetime


@dataclass(frozen=True, slots=True)
class FinishedAnalysis:
    """How a run's analysis of one upload ended.

    Attributes:
        state: `succeeded`, `skipped`, `failed`, or `deferred` until `due_at`.
        fields: what is written into the upload's own fields besides.
        version, provenance: of what gave the result; they are kept beside it.
    """

    upload_id: str
    state: State
    result: Mapping[str, Any] | None = None
    error: str | None = None
    due_at: datetime | None = None
    fields: Mapping[str, Any] = field(default_factory=dict)
    version: int | None = None
    provenance: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class DeferredAnalyses:
    """How many analyses of one analyzer are deferred, and since when the first of them is."""

    count: int
    since: datetime


class Analyses:
    """The analyses of all uploads.

    Claims and leases are not worth waiting for the journal: one that is lost is made again.
    """

    def __init__(self, collection: Collection[Document], clock: Clock, tag_keys: TagKeys):
        self._collection = collection
        self._clock = clock
        self._tag_keys = tag_keys
        self._foreign: set[ObjectId] = set()
        self._unjournaled = collection.with_options(write_concern=WriteConcern(w=1))

    def claim(
        self,
        analyzer: str,
        version: int,
        run: str,
        size: int,
        lease: timedelta,
        state: State,
        results: Sequence[str] | None = (),
    ) -> list[ClaimedAnalysis]:
        """Take up to `size` analyses that are in this state for a run, the most urgent first.

        One that has already brought a process down is taken alone, so that it harms no other.

        Args:
            version: of the analyzer; where there is a result its own version stays beside it.
            results: the analyzers whose results are read; None for all of them.
        """
        moment = now()
        changes = {
            "$set": {
                "analyses.$[it].state": State.RUNNING,
                "analyses.$[it].run": run,
                "analyses.$[it].lease_until": moment + lease,
                "analyses.$[it].started_at": moment,
                "analyses.$[bare].version": version,
            },
            "$inc": {"analyses.$[it].attempts": 1},
            "$unset": {"analyses.$[it].finished_at": ""},
        }
        filters = [
            {"it.name": analyzer, "it.state": state},
            {"bare.name": analyzer, "bare.result": {"$exists": False}},
        ]
        with answering():
            found, uploads = self._most_urgent(analyzer, state, size, results)
            if not found:
                return []
            ids = {"_id": {"$in": [document["_id"] for document in found]}}
            taken = self._unjournaled.update_many(
                {**ids, **with_analysis(name=analyzer, state=state)}, changes, array_filters=filters
            )
            if taken.modified_count < len(found):  # Another run was faster with some of them.
                held = {**ids, **with_analysis(name=analyzer, run=run, state=State.RUNNING)}
                mine = {document["_id"] for document in self._collection.find(held, {"_id": 1})}
                found = [document for document in found if document["_id"] in mine]
        return [
            ClaimedAnalysis(
                uploads[document["_id"]], _of(document, analyzer).get("attempts", 0) + 1, moment
            )
            for document in found
        ]

    def _most_urgent(
        self, analyzer: str, state: State, size: int, results: Sequence[str] | None
    ) -> tuple[list[Document], dict[ObjectId, Upload]]:
        """In the order of the index: by priority, then by the time since which they are due.

        Returns:
            the documents, and their uploads by their keys; none of what others have written.
        """
        wanted = with_analysis(name=analyzer, state=state)
        while True:
            stages = [{"$match": {**wanted, "_id": {"$nin": [*self._foreign]}}}, {"$limit": size}]
            if results is not None:
                stages.append(_without_results_but(results))
            uploads, foreign = {}, set()
            found = list(self._collection.aggregate(stages, hint=WORK_INDEX))
            for document in found:
                try:
                    uploads[document["_id"]] = from_document(document)
                except ForeignRecord:
                    foreign.add(document["_id"])
            if not foreign:
                break
            self._foreign |= foreign  # They would be the most urgent for ever.
        harmless = [d for d in found if not _of(d, analyzer).get("crashes")]
        return harmless or found[:1], uploads

    def renew(self, analyzer: str, run: str, lease: timedelta) -> None:
        """Prolong the lease of everything that a run holds."""
        with answering():
            self._unjournaled.update_many(
                with_analysis(name=analyzer, state=State.RUNNING, run=run),
                {"$set": {"analyses.$.lease_until": now() + lease}},
            )

    def finish(self, analyzer: str, run: str, ends: Sequence[FinishedAnalysis]) -> int:
        """Write down how analyses of a run ended, and what their uploads are by that.

        Returns:
            how many were still held by the run and so were written.
        """
        if not ends:
            return 0
        self._tag_keys.complete_these([end.upload_id for end in ends if "tags" in end.fields])
        moment, after = now(), settled_states()
        updates = [
            UpdateOne(
                {
                    "_id": ObjectId(end.upload_id),
                    **with_analysis(name=analyzer, state=State.RUNNING, run=run),
                },
                [*update_of_analysis(analyzer, _changes(end, moment), end.fields, moment), *after],
            )
            for end in ends
        ]
        with answering():
            try:
                return self._collection.bulk_write(updates, ordered=False).modified_count
            except BulkWriteError as error:
                refused = {found["index"] for found in error.details["writeErrors"]}
                if not all(ends[index].result for index in refused):
                    raise
                written = error.details["nModified"]
        unstored = [_unstorable(ends[index]) for index in sorted(refused)]
        return written + self.finish(analyzer, run, unstored)

    def ended(self, analyzer: str, run: str, upload_ids: Sequence[str]) -> set[str]:
        """Those of these uploads whose analysis was ended by this run."""
        of_run = {
            "_id": {"$in": [ObjectId(upload_id) for upload_id in upload_ids]},
            **with_analysis(name=analyzer, run=run, state={"$nin": UNFINISHED}),
        }
        with answering():
            return {str(document["_id"]) for document in self._collection.find(of_run, {"_id": 1})}

    def put_back(self, analyzer: str, run: str) -> int:
        """Queue again what a run holds and could not begin or end, without counting the attempt."""
        with answering():
            return self._unjournaled.update_many(
                with_analysis(name=analyzer, state=State.RUNNING, run=run),
                {
                    "$set": {"analyses.$.state": State.QUEUED},
                    "$unset": {"analyses.$.run": "", "analyses.$.lease_until": ""},
                    "$inc": {"analyses.$.attempts": -1},
                },
            ).modified_count

    def reclaim(self, analyzer: str, max_attempts: int, reason: str, run: str | None = None) -> int:
        """Take analyses from runs that died: queue them again, or fail those that had their tries.

        Args:
            run: the run that is known to have died; by default every run whose lease has ended.
        """
        if run is None and not self._clock.settled():
            return 0
        held: Document = {"name": analyzer, "state": State.RUNNING}
        held |= {"run": run} if run else {"lease_until": due_condition()}
        hopeless = {**held, "crashes": {"$gte": max_attempts - 1}}
        moment = now()
        failed = {"state": State.FAILED, "error": reason, "finished_at": moment}
        with answering():
            taken = self._collection.update_many(
                with_analysis(**hopeless) | IS_UPLOAD,
                [*update_of_analysis(analyzer, failed, {}, moment), *settled_states()],
            ).modified_count
            return (
                taken
                + self._unjournaled.update_many(
                    with_analysis(**held) | IS_UPLOAD,
                    {
                        "$set": {"analyses.$.state": State.QUEUED, "analyses.$.error": reason},
                        "$unset": {"analyses.$.run": "", "analyses.$.lease_until": ""},
                        "$inc": {"analyses.$.crashes": 1},
                    },
                ).modified_count
            )

    def park(self, analyzer: str, reason: str) -> int:
        """Defer everything of an analyzer that is queued, because the service it needs is away."""
        moment = now()
        changes = {"state": State.DEFERRED, "error": reason, "due_at": moment}
        queued = with_analysis(name=analyzer, state=State.QUEUED)
        return self._move(
            queued, [*update_of_analysis(analyzer, changes, {}, moment), *settled_states()]
        )

    def withdraw(self, analyzer: str) -> int:
        """Take back what was ordered of an analyzer and nobody has begun with.

        An analysis with a result of before has succeeded then; another one is removed.
        """
        states = [state for state in UNFINISHED if state is not State.RUNNING]
        is_meant = {"$and": [{"$eq": ["$$this.name", analyzer]}, {"$in": ["$$this.state", states]}]}
        has_result = {"$ifNull": ["$$this.result", False]}
        left = {"$or": [{"$not": [is_meant]}, {"$ne": [has_result, False]}]}
        good = {"state": State.SUCCEEDED, "error": None, "deferred_at": None}
        as_before = {"$cond": [is_meant, {"$mergeObjects": ["$$this", good]}, "$$this"]}
        kept = {"$filter": {"input": "$analyses", "as": "this", "cond": left}}
        changed = {"$set": {"analyses": {"$map": {"input": kept, "in": as_before}}}}
        query = with_analysis(name=analyzer, state={"$in": states})
        return self._move(query, [changed, *settled_states()])

    def wake(self, analyzer: str, all_of_them: bool) -> int:
        """Queue what is deferred: all of it, or only what is due to be tried again."""
        change = {"$set": {"analyses.$.state": State.QUEUED}}
        return sum(self._move(query, change) for query in _deferred(analyzer, not all_of_them))

    def _move(self, query: Document, update: Document | list[Document]) -> int:
        moved = 0
        query = query | IS_UPLOAD
        with answering():
            while ids := [d["_id"] for d in self._collection.find(query, {"_id": 1}).limit(BATCH)]:
                here = {"_id": {"$in": ids}, **query}
                moved += self._unjournaled.update_many(here, update).modified_count
        return moved

    def work_waits(self, analyzer: str, only_due: bool = True) -> bool:
        """Whether anything of an analyzer is queued, or deferred and, with `only_due`, due."""
        queued = with_analysis(name=analyzer, state=State.QUEUED)
        queries = [queued, *_deferred(analyzer, only_due)]
        with answering():
            return any(self._collection.find_one(q | IS_UPLOAD, {"_id": 1}) for q in queries)

    def waiting_since(self, analyzer: str) -> datetime | None:
        """Since when the upload has been due that has waited longest for an analyzer, if one has.

        Neither what is made anew nor what is deferred counts.
        """
        query = with_analysis(name=analyzer, state=State.QUEUED, priority=0)
        projection = {"analyses": {"$elemMatch": {"name": analyzer}}}
        with answering():
            found = self._collection.find_one(query, projection, hint=WORK_INDEX)
        return found["analyses"][0]["due_at"] if found else None

    def settle(self, known: Container[str], untouched_for: timedelta) -> int:
        """Bring analyses to an end that wait for what nobody runs any more.

        Args:
            known: the analyzers that there are.
            untouched_for: only of uploads that nobody has changed for so long: the analyzer may be
                one that is being installed, or is away for a moment only.
        """
        with answering():
            names = [n for n in self._collection.distinct("analyses.name") if isinstance(n, str)]
            gone = [name for name in names if name not in known]
            old = {"updated_at": {"$lt": now() - untouched_for}}
            return sum(
                self._collection.update_many(
                    {**with_analysis(name=name, state=State.WAITING), **old, **IS_UPLOAD},
                    settled_states(gone),
                ).modified_count
                for name in names
            )

    def deferred(self, analyzer: str) -> DeferredAnalyses | None:
        """What is deferred of one analyzer; None when nothing is."""
        of_this = {"$match": {"analyses.name": analyzer, "analyses.state": State.DEFERRED}}
        totals = {"count": {"$sum": 1}, "since": {"$min": "$analyses.deferred_at"}}
        stages: list[Document] = [
            {"$match": with_analysis(name=analyzer, state=State.DEFERRED) | IS_UPLOAD},
            {"$project": {"analyses": 1}},
            {"$unwind": "$analyses"},
            of_this,
            {"$group": {"_id": None, **totals}},
        ]
        with answering():
            found = next(iter(self._collection.aggregate(stages, hint=WORK_INDEX)), None)
        return DeferredAnalyses(found["count"], found["since"]) if found else None


def _deferred(analyzer: str, only_due: bool) -> list[Document]:
    """Queries for what is deferred; for all that is due there are two, each a range of the index.

    See `clock.come`, which says the same in one condition that no index answers.
    """
    deferred = {"name": analyzer, "state": State.DEFERRED}
    if not only_due:
        return [with_analysis(**deferred)]
    moment = now()
    times: tuple[Document, ...] = ({"$lte": moment}, {"$gte": moment + FARTHEST})
    return [with_analysis(**deferred, due_at=time) for time in times]


def _without_results_but(names: Sequence[str]) -> Document:
    """The stage that leaves results out, for they may be large, except those of some analyzers."""
    if not names:
        return {"$unset": "analyses.result"}
    without = {"$unsetField": {"field": "result", "input": "$$this"}}
    kept = {"$cond": [{"$in": ["$$this.name", [*names]]}, "$$this", without]}
    return {"$set": {"analyses": {"$map": {"input": "$analyses", "in": kept}}}}


def _of(document: Document, analyzer: str) -> Document:
    return next(a for a in document["analyses"] if a["name"] == analyzer)


def _unstorable(end: FinishedAnalysis) -> FinishedAnalysis:
    """What is written instead of a result that MongoDB refuses: all of an upload has its limit."""
    error = "the result is too large to be stored beside the others of this upload"
    return replace(end, state=State.FAILED, error=error, result=None, fields={})


def _changes(end: FinishedAnalysis, moment: datetime) -> Document:
    changes: Document = {"state": end.state, "error": end.error, "finished_at": moment}
    if end.state is State.DEFERRED:
        changes |= {"due_at": end.due_at}
    if end.result is not None:
        changes |= {
            "result": end.result,
            "version": end.version,
            "provenance": end.provenance,
        }
    return changes
