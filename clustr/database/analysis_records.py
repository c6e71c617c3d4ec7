"""What is read of an analysis when it is claimed, and what is written of it when it has ended."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from bson import ObjectId

from clustr.database.connection import Document
from clustr.domain.models import State, Upload


@dataclass(frozen=True, slots=True)
class ClaimedAnalysis:
    """An upload as it was before a run claimed its analysis.

    Attributes:
        attempts: includes this run.
        faults, fault_at: how many of its calls to a service have failed, and when the last one did;
            those between which no call for another upload succeeded count as one.
    """

    upload: Upload
    attempts: int
    started_at: datetime
    faults: int = 0
    fault_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class FinishedAnalysis:
    """How a run's analysis of one upload ended.

    Attributes:
        state: `succeeded`, `skipped`, `failed`, or `deferred` until `due_at`.
        fields: values for the upload's own fields, by their names.
        version, provenance: of what produced the result; they are stored beside it. Of a failure
            the version is stored, too.
        traceback: where in the plugin's code it failed.
        faults: as of `ClaimedAnalysis`, when a call has failed now.
        vectors: the ids of the stored vectors that belong to the result, by their fields; None
            leaves them as they are.
        private: the paths of the fields of the result that are not for clients; None leaves them as
            they are.
    """

    upload_id: str
    state: State
    result: Mapping[str, Any] | None = None
    error: str | None = None
    due_at: datetime | None = None
    fields: Mapping[str, Any] = field(default_factory=dict)
    version: int | None = None
    provenance: Mapping[str, Any] | None = None
    faults: int | None = None
    traceback: str | None = None
    vectors: Mapping[str, str] | None = None
    private: Sequence[str] | None = None


@dataclass(frozen=True, slots=True)
class DeferredAnalyses:
    """How many analyses of one analyzer are deferred, and since when the oldest of them is."""

    count: int
    since: datetime


def claimed_analysis(upload: Upload, analysis: Document, moment: datetime) -> ClaimedAnalysis:
    """An analysis as it is after a run has claimed it at this moment."""
    return ClaimedAnalysis(
        upload,
        analysis.get("attempts", 0) + 1,
        moment,
        analysis.get("faults", 0),
        analysis.get("fault_at"),
    )


def analysis_of(document: Document, analyzer: str) -> Document:
    """The analysis of an upload by an analyzer."""
    return next(a for a in document["analyses"] if a["name"] == analyzer)


def failed_as_too_large(analysis: FinishedAnalysis) -> FinishedAnalysis:
    """The failure to store for a result that MongoDB refuses: a document is limited to 16 MiB."""
    error = "the result is too large to be stored beside the others of this upload"
    return replace(analysis, state=State.FAILED, error=error, result=None, fields={})


def analysis_changes(analysis: FinishedAnalysis, moment: datetime) -> Document:
    """The fields of an analysis to change when it has ended at this moment."""
    changes: Document = {"state": analysis.state, "error": analysis.error, "finished_at": moment}
    if analysis.state is State.DEFERRED:
        changes |= {"due_at": analysis.due_at}
    if analysis.state is State.FAILED and analysis.version is not None:
        changes |= {"failed_version": analysis.version}
    if analysis.traceback is not None:
        changes |= {"traceback": analysis.traceback}
    if analysis.faults is not None:
        changes |= {"faults": analysis.faults, "fault_at": moment}
    if analysis.result is not None:
        changes |= {
            "result": analysis.result,
            "version": analysis.version,
            "provenance": analysis.provenance,
        }
        if analysis.vectors is not None:
            keys = {name: ObjectId(key) for name, key in analysis.vectors.items()}
            changes |= {"vectors": keys}
        if analysis.private is not None:
            changes |= {"private": [*analysis.private]}
    return changes
