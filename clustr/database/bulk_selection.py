"""Selections of many uploads, and queueing analyses of them for a job.

Analyses that a job queues come after those of new uploads. The last good result stays until a newer
run succeeds. Analyses that are unfinished at that moment are left alone.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pymongo
from bson import ObjectId
from pymongo import ReturnDocument, WriteConcern
from pymongo.collection import Collection

from clustr.database.analysis_selection import (
    AnalysisSelection,
    ReanalysisSelection,
    analysis_query,
)
from clustr.database.analysis_updates import (
    UNSTARTED_STATES,
    queue_stages,
    settle_stages,
    with_analysis,
    withdraw_stages,
)
from clustr.database.connection import Document, translate_errors
from clustr.database.documents import (
    HAS_OBJECT_ID,
    IS_UPLOAD,
    LOOKS_LIKE_UPLOAD,
    from_document,
    parse_id,
)
from clustr.database.filters import filter_from_query
from clustr.database.jobs import MAX_FAILURES, Failure, Job
from clustr.database.listing_queries import filter_query
from clustr.database.not_found import not_found_error
from clustr.database.tag_keys import TagKeys
from clustr.database.trash import IS_TRASHED
from clustr.database.upload_filter import DEFAULT_SORT, include_unkeyed_uploads
from clustr.database.versions import ANY_VERSION, Versions, require_version, version_query
from clustr.domain.errors import DatabaseUnavailable, TooSlow, UnderWay
from clustr.domain.models import State, Upload
from clustr.plugins import Analyzer
from clustr.search.terms import Stemming

JOB_INDEX = "of_job"
INDEXES = {
    # Only uploads with an analysis that a job has queued are in it.
    JOB_INDEX: {
        "keys": [("analyses.job", 1), ("analyses.state", 1)],
        "partialFilterExpression": {"analyses.job": {"$exists": True}},
    },
}
ID_INDEX = "_id_"

BATCH = 1000
PRIORITY = 10
LOWEST_ID = ObjectId(bytes(12))
# Counting a selection may read all uploads once.
COUNT_SECONDS = 20.0


@dataclass(frozen=True, slots=True)
class UploadSelection:
    """The uploads that a job changes: given by their ids, or by a filter.

    Attributes:
        ids: the uploads; None to select by the filter.
        filter: in the form that `filter_from_query` takes.
        trashed: whether to select among the uploads in the trash.
    """

    ids: tuple[str, ...] | None = None
    filter: Mapping[str, Any] = field(default_factory=dict)
    trashed: bool = False

    def parameters(self) -> dict[str, Any]:
        """The parameters of a job for this selection."""
        if self.ids is not None:
            return {"ids": list(self.ids)}
        return {"filter": self.filter}

    @staticmethod
    def from_parameters(parameters: Mapping[str, Any], trashed: bool) -> "UploadSelection":
        """The selection of a job with these parameters."""
        ids = parameters.get("ids")
        filter = parameters.get("filter", {})
        return UploadSelection(tuple(ids) if ids is not None else None, filter, trashed)


@dataclass(frozen=True, slots=True)
class SelectedBatch:
    """The next few selected uploads.

    Attributes:
        after: the last id that was examined for this batch.
        ids: the selected ids, in order.
        unknown: ids of the selection that do not exist.
        last: whether this is the last batch.
    """

    after: str | None
    ids: list[str]
    unknown: list[str]
    last: bool


@dataclass(frozen=True, slots=True)
class BatchResult:
    """The result of one batch of a job.

    Attributes:
        after: the last upload of the batch.
        selected: how many uploads of the batch the job has queued.
        last: whether this is the last batch.
    """

    after: str | None
    selected: int
    last: bool


class Selections:
    """Counts and reads selected uploads, and queues their analyses for jobs.

    Queueing does not wait for the journal: the progress of the job is written afterwards and
    acknowledged from the journal, which then holds all earlier writes, too.
    """

    def __init__(self, collection: Collection[Document], tag_keys: TagKeys, stemming: Stemming):
        self._collection = collection
        self._tag_keys = tag_keys
        self._stemming = stemming
        self._trash = collection.database[f"{collection.name}_trash"]
        self._unjournaled = collection.with_options(write_concern=WriteConcern(w=1))

    def count(self, selection: ReanalysisSelection, analyzer: Analyzer) -> int:
        """How many uploads are selected for the analyzer at this moment.

        Raises:
            TooSlow: counting took longer than `COUNT_SECONDS`.
        """
        query = self._selection_query(selection, analyzer)
        return self._count(self._collection, query, selection.ids, selection.limit)

    def count_uploads(self, selection: UploadSelection) -> int:
        """How many uploads are selected at this moment.

        Raises:
            TooSlow: counting took longer than `COUNT_SECONDS`.
        """
        return self._count(
            self._collection_of(selection), self._filter_query(selection.filter), selection.ids
        )

    def _collection_of(self, selection: UploadSelection) -> Collection[Document]:
        return self._trash if selection.trashed else self._collection

    def _count(
        self,
        collection: Collection[Document],
        query: Document,
        ids: Sequence[str] | None,
        most: int | None = None,
    ) -> int:
        if ids is not None:
            query = {**query, "_id": {"$in": [ObjectId(upload_id) for upload_id in ids]}}
        limit: dict[str, Any] = {"limit": most} if most else {}
        try:
            with translate_errors(), pymongo.timeout(COUNT_SECONDS):
                return collection.count_documents(query, **limit)
        except DatabaseUnavailable as error:
            with translate_errors():
                self._collection.database.command("ping")
            raise TooSlow from error

    def newest_id(self) -> str | None:
        """The id of the newest upload, which may be in the trash; None when there is none."""
        with translate_errors():
            found = [
                str(document["_id"])
                for collection in (self._collection, self._trash)
                for document in collection.find(HAS_OBJECT_ID, {"_id": 1}).sort("_id", -1).limit(1)
            ]
        return max(found, default=None)

    def next_batch(self, job: Job, selection: UploadSelection, size: int) -> SelectedBatch:
        """The next selected uploads after those that the job has handled.

        Uploads that the job has moved already, before its progress was stored, are among them.
        """
        collection, moved_by_job = (
            self._collection_of(selection),
            {_job_field(selection): ObjectId(job.id)},
        )
        others = self._trash if collection is self._collection else self._collection
        with translate_errors():
            after, batch_query, last = _next_range(collection, job, selection.ids, size)
            whole = IS_TRASHED if selection.trashed else IS_UPLOAD
            query = {**batch_query, **self._filter_query(selection.filter), **whole}
            found = {d["_id"] for d in collection.find(query, {"_id": 1})}
            found |= {d["_id"] for d in others.find({**batch_query, **moved_by_job}, {"_id": 1})}
        ids = sorted(map(str, found))
        requested = {*map(str, batch_query["_id"].get("$in", ()))}
        return SelectedBatch(
            str(after) if after else job.after, ids, sorted(requested - {*ids}), last
        )

    def moved_by_job(self, job: Job, selection: UploadSelection, ids: Sequence[str]) -> set[str]:
        """The ids among these of uploads that the job has moved into the trash, or out of it."""
        others = self._collection if selection.trashed else self._trash
        query = {
            "_id": {"$in": [ObjectId(i) for i in ids]},
            _job_field(selection): ObjectId(job.id),
        }
        with translate_errors():
            return {str(document["_id"]) for document in others.find(query, {"_id": 1})}

    def queue_batch(
        self,
        job: Job,
        selection: ReanalysisSelection,
        analyzer: Analyzer,
        dependents: Sequence[str],
    ) -> BatchResult:
        """Queue the analysis of the selected uploads in the next batch of a job.

        Repeating the same batch changes nothing more.

        Args:
            dependents: the names of the analyzers that require this one, directly or not: their
                analyses stay behind it in the order of an upload's analyses.
        """
        with translate_errors():
            after, batch_query, last = _next_range(self._collection, job, selection.ids, BATCH)
            selected_query = (
                self._selection_query(selection, analyzer, ObjectId(job.id)) | IS_UPLOAD
            )
            queued_by_job = {**batch_query, "analyses.job": ObjectId(job.id)}
            limited_query = batch_query
            if selection.limit is not None:
                had = self._collection.count_documents(queued_by_job, hint=ID_INDEX)
                left = max(0, selection.limit - job.counts.get("selected", 0) - had)
                found = self._collection.find({**batch_query, "$and": [selected_query]}, {"_id": 1})
                found = found.sort("_id", 1).hint(ID_INDEX)
                ids = [document["_id"] for document in found.limit(left)] if left else []
                limited_query = {"_id": {"$in": ids}}
                last = last or len(ids) == left
            by_job = {"priority": PRIORITY, "job": ObjectId(job.id)}
            update = [*queue_stages(analyzer, dependents, by_job), *settle_stages()]
            self._unjournaled.update_many(
                {**limited_query, "$and": [selected_query]}, update, hint=ID_INDEX
            )
            selected = self._collection.count_documents(queued_by_job, hint=ID_INDEX)
        return BatchResult(str(after) if after else job.after, selected, last)

    def queue_analysis(
        self,
        upload_id: str,
        analyzer: Analyzer,
        dependents: Sequence[str],
        versions: Versions = ANY_VERSION,
        only_missing: bool = False,
    ) -> Upload:
        """Queue one analysis of an upload, ahead of all that jobs have queued.

        Args:
            dependents: as for `queue_batch`.
            versions: the versions of the upload to which the change may be made.
            only_missing: whether to leave alone one that is no `AnalysisSelection.MISSING`; if it
                is queued by a job, it comes ahead of that job's others.

        Returns:
            the upload after the change, if there was one.

        Raises:
            NotFound: there is no such upload.
            ForeignRecord: its record is not one that Clustr has written.
            Outdated: the upload has another version.
            UnderWay: the analysis is unfinished; not with `only_missing`.
        """
        query = {"_id": parse_id(upload_id)}
        select = AnalysisSelection.MISSING if only_missing else AnalysisSelection.ALL
        ended = analysis_query(ReanalysisSelection(analyzer.name, select), analyzer, {})
        # It belongs to no job, so that cancelling a job does not withdraw it.
        update = [
            *queue_stages(analyzer, dependents, {"priority": 0, "job": "$$REMOVE"}),
            *settle_stages(),
        ]
        with translate_errors():
            queued = self._collection.find_one_and_update(
                {**query, **IS_UPLOAD, **version_query(versions), **ended},
                update,
                return_document=ReturnDocument.AFTER,
            )
            if queued is not None:
                return from_document(queued)
            existing = self._collection.find_one(query)
        if existing is None:
            raise not_found_error(self._collection, upload_id)
        upload = from_document(existing)
        require_version(existing, versions)
        if only_missing:
            waiting = {"$in": [State.QUEUED, State.WAITING]}
            by_job = with_analysis(name=analyzer.name, state=waiting, priority=PRIORITY)
            with translate_errors():
                self._collection.update_one(
                    {**query, **by_job}, {"$set": {"analyses.$.priority": 0}}
                )
            return upload
        message = (
            f"The analysis {analyzer.name} of this upload is still under way; try again later."
        )
        raise UnderWay(message)

    def _selection_query(
        self, selection: ReanalysisSelection, analyzer: Analyzer, job: ObjectId | None = None
    ) -> Document:
        """A query for the selected uploads that the job has not queued already."""
        others = {"job": {"$ne": job}} if job else {}
        by_analysis = analysis_query(selection, analyzer, others)
        return {"$and": [by_analysis, self._filter_query(selection.filter)]}

    def _filter_query(self, filter: Mapping[str, Any]) -> Document:
        """A query for the uploads that meet a filter."""
        upload_filter = filter_from_query(filter, self._stemming)
        query = filter_query(include_unkeyed_uploads(upload_filter, self._tag_keys), DEFAULT_SORT)
        return {"$and": [query, LOOKS_LIKE_UPLOAD]}

    def count_states(self, job_id: str) -> dict[str, int]:
        """How many analyses of a job are in each state.

        Most have succeeded at the end: they are the total, counted in the index alone, less all
        others.
        """
        of_job = {"analyses.job": ObjectId(job_id)}
        with translate_errors():
            total = self._collection.count_documents(of_job, hint=JOB_INDEX)
            others: dict[str, int] = {
                state: self._collection.count_documents(
                    _job_query(job_id, (state,)), hint=JOB_INDEX
                )
                for state in State
                if state is not State.SUCCEEDED
            }
        # The counts are of different moments, so the difference may be negative.
        return others | {State.SUCCEEDED: max(0, total - sum(others.values()))}

    def failures(self, job_id: str) -> list[Failure]:
        """Which analyses of a job failed, and why: the first `MAX_FAILURES` of them."""
        projection = {"analyses": {"$elemMatch": {"job": ObjectId(job_id)}}}
        failed = _job_query(job_id, (State.FAILED,))
        with translate_errors():
            found = list(
                self._collection.find(failed, projection).hint(JOB_INDEX).limit(MAX_FAILURES)
            )
        return [
            Failure(str(document["_id"]), document["analyses"][0].get("error") or "")
            for document in found
        ]

    def withdraw_batch(self, job_id: str) -> bool:
        """Withdraw a batch of the analyses of a job that no run has begun.

        They no longer belong to the job.

        Returns:
            whether there are more of them.
        """
        not_begun = _job_query(job_id, UNSTARTED_STATES)
        with translate_errors():
            found = self._collection.find(not_begun, {"_id": 1}).hint(JOB_INDEX).limit(BATCH)
            ids = [document["_id"] for document in found]
            update = [*withdraw_stages(ObjectId(job_id)), *settle_stages()]
            self._collection.update_many({"_id": {"$in": ids}, **not_begun}, update)
        return len(ids) == BATCH


def _job_field(selection: UploadSelection) -> str:
    """The field that names the job which has moved an upload out of the selected collection."""
    return "restored_by" if selection.trashed else "trash.job"


def _next_range(
    collection: Collection[Document], job: Job, ids: Sequence[str] | None, size: int
) -> tuple[ObjectId | None, Document, bool]:
    """The last id of the next batch, a query for the batch, and whether it is the last one.

    `size` limits the uploads that are read, not those that are selected. So a batch takes the same
    time, however few uploads are selected.
    """
    before = ObjectId(job.after) if job.after else LOWEST_ID
    if ids is not None:
        requested = map(ObjectId, {*ids})
        following_ids = sorted(key for key in requested if not job.after or key > before)
        batch = following_ids[:size]
        return batch[-1] if batch else None, {"_id": {"$in": batch}}, len(following_ids) <= size
    if job.until is None:
        return None, {"_id": {"$in": []}}, True
    until = ObjectId(job.until)
    following = collection.find({"_id": {"$gt": before, "$lte": until}}, {"_id": 1})
    end = next(iter(following.sort("_id", 1).skip(size - 1).limit(1)), {"_id": until})["_id"]
    return end, {"_id": {"$gt": before, "$lte": end}}, end == until


def _job_query(job_id: str, states: Sequence[State]) -> Document:
    """A query for uploads with an analysis of this job in one of these states."""
    key = ObjectId(job_id)
    # From the first condition MongoDB infers that the partial index holds all of them.
    return {"analyses.job": key, **with_analysis(job=key, state={"$in": list(states)})}
