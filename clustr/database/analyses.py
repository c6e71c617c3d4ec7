"""The analyses inside the uploads: claiming them for a run, and storing how they ended.

A run claims an analysis by writing its id and the end of its lease into it. Every later change
applies only where that run still holds the analysis. So a late worker, a second worker with the
same job, or a worker whose upload was deleted changes nothing.
"""

from collections.abc import Container, Iterable, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from itertools import islice

from bson import ObjectId
from pymongo import UpdateOne, WriteConcern
from pymongo.collection import Collection
from pymongo.errors import BulkWriteError

from clustr.database.analysis_records import (
    ClaimedAnalysis,
    DeferredAnalyses,
    FinishedAnalysis,
    analysis_changes,
    analysis_of,
    claimed_analysis,
    failed_as_too_large,
)
from clustr.database.analysis_updates import (
    EDITABLE_FIELDS,
    settle_stages,
    update_of_analysis,
    with_analysis,
)
from clustr.database.clock import MAX_AHEAD, Clock, due_condition, now
from clustr.database.connection import Document, is_temporary, translate_errors
from clustr.database.documents import (
    IS_UPLOAD,
    analysis_from_document,
    from_document,
    parse_id,
    reading_record,
)
from clustr.database.search_terms import SearchTerms
from clustr.database.tag_keys import TagKeys
from clustr.domain.errors import ForeignRecord, NotFound
from clustr.domain.models import UNFINISHED, Analysis, State, Upload

WORK = [
    ("analyses.name", 1),
    ("analyses.state", 1),
    ("analyses.priority", 1),
    ("analyses.due_at", 1),
]
WORK_INDEX = "work"
INDEXES = {WORK_INDEX: {"keys": WORK}}

# One command changes the state of at most this many analyses.
BATCH = 1000


class Analyses:
    """The analyses of all uploads.

    Claims and leases are written without waiting for the journal: a lost one is made again.
    """

    def __init__(
        self,
        collection: Collection[Document],
        clock: Clock,
        tag_keys: TagKeys,
        search_terms: SearchTerms,
    ):
        self._collection = collection
        self._clock = clock
        self._tag_keys = tag_keys
        self._search_terms = search_terms
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

        An analysis that crashed a process before is claimed alone, so that it harms no other.

        Args:
            version: of the analyzer. An analysis with a result keeps the version of that result.
            run: the id of the run that claims them.
            lease: how long the claim lasts unless it is renewed.
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
            "$unset": {
                "analyses.$[it].finished_at": "",
                "analyses.$[it].failed_version": "",
                "analyses.$[it].traceback": "",
            },
        }
        filters: list[Document] = [
            {"it.name": analyzer, "it.state": state},
            {"bare.name": analyzer, "bare.result": {"$exists": False}},
        ]
        with translate_errors():
            found, uploads = self._most_urgent(analyzer, state, size, results)
            if not found:
                return []
            ids = {"_id": {"$in": [document["_id"] for document in found]}}
            taken = self._unjournaled.update_many(
                {**ids, **with_analysis(name=analyzer, state=state)}, changes, array_filters=filters
            )
            if taken.modified_count < len(found):  # Another run has claimed some of them first.
                held = {**ids, **with_analysis(name=analyzer, run=run, state=State.RUNNING)}
                held_ids = {document["_id"] for document in self._collection.find(held, {"_id": 1})}
                found = [document for document in found if document["_id"] in held_ids]
        return [
            claimed_analysis(uploads[document["_id"]], analysis_of(document, analyzer), moment)
            for document in found
        ]

    def _most_urgent(
        self, analyzer: str, state: State, size: int, results: Sequence[str] | None
    ) -> tuple[list[Document], dict[ObjectId, Upload]]:
        """The most urgent documents: by priority, then by the time since which they are due.

        Returns:
            the documents, and their uploads by `_id`; foreign records are left out.
        """
        query = with_analysis(name=analyzer, state=state)
        while True:
            stages: list[Document] = [
                {"$match": {**query, "_id": {"$nin": [*self._foreign]}}},
                {"$limit": size},
            ]
            if results is not None:
                stages.append(_results_only_of(results))
            uploads, foreign = {}, set()
            found = list(self._collection.aggregate(stages, hint=WORK_INDEX))
            for document in found:
                try:
                    uploads[document["_id"]] = from_document(document)
                except ForeignRecord:
                    foreign.add(document["_id"])
            if not foreign:
                break
            self._foreign |= foreign  # Otherwise they would stay the most urgent for ever.
        harmless = [d for d in found if not analysis_of(d, analyzer).get("crashes")]
        return harmless or found[:1], uploads

    def of_uploads(self, upload_ids: Iterable[str]) -> dict[str, tuple[Analysis, ...]]:
        """The analyses of uploads, by the uploads' ids; without results and provenance.

        Uploads that are not there, and records that others have written, are left out.

        Raises:
            NotFound: one of these is no id.
        """
        query = {"_id": {"$in": [parse_id(upload_id) for upload_id in upload_ids]}}
        projection = {f"analyses.{name}": 1 for name in ("name", "version", "state", "requires")}
        with translate_errors():
            documents = list(self._collection.find(query, projection))
        found = {}
        for document in documents:
            with suppress(ForeignRecord), reading_record(document["_id"]):
                analyses = tuple(analysis_from_document(a) for a in document["analyses"])
                found[str(document["_id"])] = analyses
        return found

    def traceback(self, upload_id: str, analyzer: str) -> tuple[Analysis, str | None]:
        """An analysis, and where in the plugin's code it failed.

        Returns:
            None in place of that if it did not fail there, or it is not known.

        Raises:
            NotFound: there is no such upload, or no such analysis of it.
        """
        query = {"_id": parse_id(upload_id), "analyses.name": analyzer}
        with translate_errors():
            found = self._collection.find_one(query, {"analyses.$": 1})
        if found is None:
            raise NotFound(f"There is no upload {upload_id} with an analysis by {analyzer}.")
        [document] = found["analyses"]
        return analysis_from_document(document), document.get("traceback")

    def renew(self, analyzer: str, run: str, lease: timedelta) -> None:
        """Extend the lease of everything that a run holds."""
        with translate_errors():
            self._unjournaled.update_many(
                with_analysis(name=analyzer, state=State.RUNNING, run=run),
                {"$set": {"analyses.$.lease_until": now() + lease}},
            )

    def finish(self, analyzer: str, run: str, finished: Sequence[FinishedAnalysis]) -> int:
        """Store how analyses of a run ended, and update the status of their uploads.

        Returns:
            how many the run still held; only those were written.
        """
        if not finished:
            return 0
        self._tag_keys.add_missing(
            [analysis.upload_id for analysis in finished if "tags" in analysis.fields]
        )
        moment, after = now(), settle_stages()
        updates = [
            UpdateOne(
                {
                    "_id": ObjectId(analysis.upload_id),
                    **with_analysis(name=analyzer, state=State.RUNNING, run=run),
                },
                [
                    *update_of_analysis(
                        analyzer, analysis_changes(analysis, moment), analysis.fields, moment
                    ),
                    *after,
                ],
            )
            for analysis in finished
        ]
        refused: set[int] = set()
        with translate_errors():
            try:
                written = self._collection.bulk_write(updates, ordered=False).modified_count
            except BulkWriteError as error:
                refused = {found["index"] for found in error.details["writeErrors"]}
                if is_temporary(error) or not all(finished[index].result for index in refused):
                    raise
                written = error.details["nModified"]
        self._search_terms.update(
            [a.upload_id for a in finished if a.fields.keys() & {*EDITABLE_FIELDS}]
        )
        unstored = [failed_as_too_large(finished[index]) for index in sorted(refused)]
        return written + self.finish(analyzer, run, unstored)

    def finished_by_run(self, analyzer: str, run: str, upload_ids: Sequence[str]) -> set[str]:
        """The ids among these of the uploads whose analysis this run has ended."""
        of_run = {
            "_id": {"$in": [ObjectId(upload_id) for upload_id in upload_ids]},
            **with_analysis(name=analyzer, run=run, state={"$nin": UNFINISHED}),
        }
        with translate_errors():
            return {str(document["_id"]) for document in self._collection.find(of_run, {"_id": 1})}

    def release(self, analyzer: str, run: str) -> int:
        """Queue what a run holds again, without counting the attempt; return how many."""
        with translate_errors():
            return self._unjournaled.update_many(
                with_analysis(name=analyzer, state=State.RUNNING, run=run),
                {
                    "$set": {"analyses.$.state": State.QUEUED},
                    "$unset": {"analyses.$.run": "", "analyses.$.lease_until": ""},
                    "$inc": {"analyses.$.attempts": -1},
                },
            ).modified_count

    def reclaim(
        self,
        analyzer: str,
        max_attempts: int,
        reason: str,
        run: str | None = None,
        version: int | None = None,
    ) -> int:
        """Take analyses from runs that died: queue them again, or fail those out of attempts.

        Args:
            reason: stored as their error.
            run: the run that is known to have died; by default every run whose lease has ended.
            version: of the analyzer, stored with those that fail.

        Returns:
            how many analyses were taken.
        """
        if run is None and not self._clock.settled():
            return 0
        held: Document = {"name": analyzer, "state": State.RUNNING}
        held |= {"run": run} if run else {"lease_until": due_condition()}
        hopeless = {**held, "crashes": {"$gte": max_attempts - 1}}
        moment = now()
        failed: Document = {"state": State.FAILED, "error": reason, "finished_at": moment}
        failed |= {} if version is None else {"failed_version": version}
        with translate_errors():
            taken = self._collection.update_many(
                with_analysis(**hopeless) | IS_UPLOAD,
                [*update_of_analysis(analyzer, failed, {}, moment), *settle_stages()],
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

    def defer_queued(self, analyzer: str, reason: str) -> int:
        """Defer all queued analyses of an analyzer, because the service it needs is unavailable."""
        moment = now()
        changes = {"state": State.DEFERRED, "error": reason, "due_at": moment}
        queued = with_analysis(name=analyzer, state=State.QUEUED)
        return self._update_in_batches(
            queued, [*update_of_analysis(analyzer, changes, {}, moment), *settle_stages()]
        )

    def withdraw(self, analyzer: str) -> int:
        """Remove the analyses of an analyzer that no run has begun; return how many.

        An analysis with an earlier result is not removed but becomes `succeeded` again.
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
        return self._update_in_batches(query, [changed, *settle_stages()])

    def requeue_deferred(self, analyzer: str, include_not_due: bool) -> int:
        """Queue deferred analyses: all of them, or only those that are due for another attempt."""
        change = {"$set": {"analyses.$.state": State.QUEUED}}
        return sum(
            self._update_in_batches(query, change)
            for query in _deferred_queries(analyzer, not include_not_due)
        )

    def _update_in_batches(self, query: Document, update: Document | list[Document]) -> int:
        moved = 0
        query = query | IS_UPLOAD
        with translate_errors():
            while ids := [d["_id"] for d in self._collection.find(query, {"_id": 1}).limit(BATCH)]:
                batch_query = {"_id": {"$in": ids}, **query}
                moved += self._unjournaled.update_many(batch_query, update).modified_count
        return moved

    def any_unfinished(self, analyzers: Sequence[str]) -> bool:
        """Whether one of these analyzers has an analysis that is queued, running or deferred.

        It is one question, where `reclaim` and `has_work` ask several for each analyzer.
        """
        states = [State.QUEUED, State.RUNNING, State.DEFERRED]
        query = with_analysis(name={"$in": [*analyzers]}, state={"$in": states})
        with translate_errors():
            return self._collection.find_one(query, {"_id": 1}) is not None

    def has_work(self, analyzer: str, only_due: bool = True) -> bool:
        """Whether an analyzer has queued or deferred (with `only_due`: due) analyses."""
        queued = with_analysis(name=analyzer, state=State.QUEUED)
        queries = [queued, *_deferred_queries(analyzer, only_due)]
        with translate_errors():
            return any(self._collection.find_one(q | IS_UPLOAD, {"_id": 1}) for q in queries)

    def is_running(self, analyzer: str) -> bool:
        """Whether a run is at an analysis of this analyzer."""
        running = with_analysis(name=analyzer, state=State.RUNNING)
        with translate_errors():
            return self._collection.find_one(running, {"_id": 1}, hint=WORK_INDEX) is not None

    def waiting_since(self, analyzer: str) -> datetime | None:
        """The due time of the upload that has waited longest for an analyzer; None if none waits.

        Neither analyses queued by jobs nor deferred ones count.
        """
        query = with_analysis(name=analyzer, state=State.QUEUED, priority=0)
        projection = {"analyses": {"$elemMatch": {"name": analyzer}}}
        with translate_errors():
            found = self._collection.find_one(query, projection, hint=WORK_INDEX)
        return found["analyses"][0]["due_at"] if found else None

    def settle_waiting(self, known: Container[str], untouched_for: timedelta) -> int:
        """Settle analyses that wait for analyzers which no longer exist; return how many uploads.

        Args:
            known: the names of all analyzers that exist.
            untouched_for: skip uploads that were changed more recently: the analyzer may be in the
                middle of its installation, or absent for a moment only.
        """
        with translate_errors():
            names = [n for n in self._collection.distinct("analyses.name") if isinstance(n, str)]
            gone = [name for name in names if name not in known]
            old = {"updated_at": {"$lt": now() - untouched_for}}
            return sum(
                self._settle_in_batches(
                    {**with_analysis(name=name, state=State.WAITING), **old, **IS_UPLOAD}, gone
                )
                for name in names
            )

    def _settle_in_batches(self, query: Document, gone: Sequence[str]) -> int:
        """Settle these uploads; one with nothing to settle stays as it is, `updated_at` too."""
        before: Document = {"$set": {"before": "$$ROOT"}}
        is_same = {"$eq": ["$analyses", "$before.analyses"]}
        settled = {"$unsetField": {"field": "before", "input": "$$ROOT"}}
        changed = {"$replaceWith": {"$cond": [is_same, "$before", settled]}}
        update = [before, *settle_stages(gone), changed]
        found, count = self._collection.find(query, {"_id": 1}), 0
        while ids := [document["_id"] for document in islice(found, BATCH)]:
            here = {"_id": {"$in": ids}, **query}
            count += self._collection.update_many(here, update).modified_count
        return count

    def deferred_summary(self, analyzer: str) -> DeferredAnalyses | None:
        """The number and age of the deferred analyses of one analyzer; None when it has none."""
        of_this = {"$match": {"analyses.name": analyzer, "analyses.state": State.DEFERRED}}
        totals = {"count": {"$sum": 1}, "since": {"$min": "$analyses.deferred_at"}}
        stages: list[Document] = [
            {"$match": with_analysis(name=analyzer, state=State.DEFERRED) | IS_UPLOAD},
            {"$project": {"analyses": 1}},
            {"$unwind": "$analyses"},
            of_this,
            {"$group": {"_id": None, **totals}},
        ]
        with translate_errors():
            found = next(iter(self._collection.aggregate(stages, hint=WORK_INDEX)), None)
        return DeferredAnalyses(found["count"], found["since"]) if found else None


def _deferred_queries(analyzer: str, only_due: bool) -> list[Document]:
    """Queries for deferred analyses; with `only_due` two of them, each a range of the index.

    `clock.due_condition` is the same in one condition, which no index answers.
    """
    deferred = {"name": analyzer, "state": State.DEFERRED}
    if not only_due:
        return [with_analysis(**deferred)]
    moment = now()
    times: tuple[Document, ...] = ({"$lte": moment}, {"$gte": moment + MAX_AHEAD})
    return [with_analysis(**deferred, due_at=time) for time in times]


def _results_only_of(names: Sequence[str]) -> Document:
    """The stage that drops results, which may be large, except those of these analyzers."""
    if not names:
        return {"$unset": "analyses.result"}
    without = {"$unsetField": {"field": "result", "input": "$$this"}}
    kept = {"$cond": [{"$in": ["$$this.name", [*names]]}, "$$this", without]}
    return {"$set": {"analyses": {"$map": {"input": "$analyses", "in": kept}}}}
