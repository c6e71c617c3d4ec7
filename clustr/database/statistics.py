"""Statistics: the number of analyses of each analyzer by state, and their durations.

The time to count grows with the number of uploads. So one process counts now and then and stores
the result, one document for each analyzer; readers get the last result.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any

from pymongo.collection import Collection

from clustr.database.analyses import WORK_INDEX
from clustr.database.analysis_selection import ENDED_STATES, without_result
from clustr.database.analysis_updates import with_analysis
from clustr.database.clock import now
from clustr.database.connection import Document, translate_errors
from clustr.database.documents import IS_UPLOAD
from clustr.domain.models import State
from clustr.plugins import Analyzer

RUNS_INDEX = "runs"
HAS_ENDED: Document = {"analyses.finished_at": {"$exists": True}}
INDEXES = {
    # It leaves out uploads without an ended analysis.
    RUNS_INDEX: {
        "keys": [("analyses.name", 1), ("analyses.version", 1), ("analyses.finished_at", 1)],
        "partialFilterExpression": HAS_ENDED,
    },
}

RATE_MINUTES = 5
# Durations are of the runs in the first of these periods that has enough runs.
PERIODS = (timedelta(minutes=5), timedelta(days=1), timedelta(days=36500))
ENOUGH_RUNS = 20
MAX_RUNS = 200


@dataclass(frozen=True, slots=True)
class Durations:
    """The median and the 95th percentile of the time for one image, in milliseconds."""

    p50: float
    p95: float


@dataclass(frozen=True, slots=True)
class AnalyzerCounts:
    """The analyses of one analyzer at a moment.

    Attributes:
        states: how many are in each state, without empty states.
        oldest_waiting_at: the due time of the analysis that has waited longest.
        rate_per_minute: how many ended per minute in the last `RATE_MINUTES` minutes; None where
            that is not counted, as the two that follow.
        stale: how many ended analyses are of an earlier version of the analyzer.
        missing: how many uploads are an `AnalysisSelection.MISSING`; None when an earlier version
            counted, too.
    """

    states: Mapping[str, int]
    oldest_waiting_at: datetime | None
    rate_per_minute: float | None
    durations: Durations | None
    stale: int | None
    missing: int | None
    counted_at: datetime


class Statistics:
    """Counts the analyses of the uploads, and stores the counts.

    Args:
        uploads: the collection to count.
        collection: the collection for the counts.
    """

    def __init__(self, uploads: Collection[Document], collection: Collection[Document]):
        self._uploads = uploads
        self._collection = collection

    def all(self) -> dict[str, AnalyzerCounts]:
        """The last counts, by the names of the analyzers."""
        with translate_errors():
            return {
                document["_id"]: _from_document(document) for document in self._collection.find()
            }

    def count(self, analyzer: Analyzer) -> None:
        """Count the analyses of an analyzer, and store the counts."""
        durations = self.durations(analyzer)
        with translate_errors():
            counted: Document = {
                "states": self._states(analyzer.name),
                "oldest_waiting_at": self._oldest_waiting_at(analyzer.name),
                "ended_by_minute": self._ended_by_minute(analyzer),
                "durations": [durations.p50, durations.p95] if durations else None,
                "stale": self._stale(analyzer),
                "missing": self._missing(analyzer),
                "counted_at": now(),
            }
            self._collection.replace_one({"_id": analyzer.name}, counted, upsert=True)

    def _states(self, name: str) -> dict[str, int]:
        # Most have succeeded: they are the total, counted in the index alone, less all others.
        total = self._uploads.count_documents({"analyses.name": name}, hint=WORK_INDEX)
        others: dict[str, int] = {
            state: self._uploads.count_documents(
                with_analysis(name=name, state=state), hint=WORK_INDEX
            )
            for state in State
            if state is not State.SUCCEEDED
        }
        # The counts are of different moments, so the difference may be negative.
        succeeded = max(0, total - sum(others.values()))
        states: dict[str, int] = {State.SUCCEEDED: succeeded, **others}
        return {state: count for state, count in states.items() if count}

    def _oldest_waiting_at(self, name: str) -> datetime | None:
        """The earliest due time; in the order of the index it is the first of its priority."""
        projection = {"analyses": {"$elemMatch": {"name": name}}}
        found = [
            self._uploads.find_one(
                with_analysis(name=name, state=state, priority=priority) | IS_UPLOAD,
                projection,
                hint=WORK_INDEX,
            )
            for state in (State.QUEUED, State.WAITING)
            for priority in (0, {"$gt": 0})
        ]
        times = [document["analyses"][0].get("due_at") for document in found if document]
        return min(filter(None, times), default=None)

    def _ended_by_minute(self, analyzer: Analyzer) -> list[int]:
        """How many ended in the last minute, in the one before, and so on."""
        since = [timedelta(minutes=minute) for minute in range(RATE_MINUTES + 1)]
        return [
            self._uploads.count_documents(_runs_query(analyzer, began, ended), hint=RUNS_INDEX)
            for ended, began in pairwise(since)
        ]

    def _stale(self, analyzer: Analyzer) -> int:
        older = HAS_ENDED | with_analysis(
            name=analyzer.name, version={"$lt": analyzer.version}, state={"$in": ENDED_STATES}
        )
        return self._uploads.count_documents(older, hint=RUNS_INDEX)

    def _missing(self, analyzer: Analyzer) -> int:
        """How many uploads have no analysis, or one that ended without a result or a reason."""
        name = analyzer.name
        there = self._uploads.count_documents({"analyses.name": name}, hint=WORK_INDEX)
        absent = max(0, self._uploads.estimated_document_count() - there)
        ended = without_result(analyzer)
        return absent + sum(
            self._uploads.count_documents(query, hint=WORK_INDEX) for query in ended
        )

    def durations(self, analyzer: Analyzer) -> Durations | None:
        """How long one image took in the latest runs; None when there were none."""
        return latest_durations(self._uploads, analyzer)


def latest_durations(uploads: Collection[Document], analyzer: Analyzer) -> Durations | None:
    """How long one image took in the latest runs; None when there were none."""
    found: list[Document] = []
    with translate_errors():
        for period in PERIODS:
            found = _latest_runs(uploads, analyzer, period)
            if len(found) >= ENOUGH_RUNS:
                break
    milliseconds = sorted(_milliseconds_per_image(found))
    if not milliseconds:
        return None
    last = len(milliseconds) - 1
    return Durations(milliseconds[last // 2], milliseconds[round(0.95 * last)])


def _latest_runs(
    uploads: Collection[Document], analyzer: Analyzer, period: timedelta
) -> list[Document]:
    projection = {"analyses": {"$elemMatch": {"name": analyzer.name}}}
    found = uploads.find(_runs_query(analyzer, period) | IS_UPLOAD, projection)
    analyses = [d["analyses"][0] for d in found.hint(RUNS_INDEX).limit(MAX_RUNS)]
    return [a for a in analyses if a.get("started_at") and a.get("finished_at")]


def _runs_query(analyzer: Analyzer, period: timedelta, until: timedelta | None = None) -> Document:
    """A query for the uploads whose analysis ended within this period before now.

    Args:
        until: the end of the period, before now; by default now.
    """
    moment = now()
    ended = {"$gte": moment - period} | ({"$lt": moment - until} if until else {})
    return HAS_ENDED | with_analysis(
        name=analyzer.name,
        version={"$lte": analyzer.version},
        finished_at=ended,
        # Cancelled analyses, and those that never began, have no duration.
        state={"$in": [State.SUCCEEDED, State.SKIPPED, State.FAILED]},
        started_at={"$ne": None},
    )


def _milliseconds_per_image(analyses: list[dict[str, Any]]) -> list[float]:
    """The time for each analysis: a run's claimed analyses share the time of the run."""
    together: dict[Any, list[datetime]] = {}
    for analysis in analyses:
        claim = (analysis.get("run"), analysis["started_at"])
        together.setdefault(claim, []).append(analysis["finished_at"])
    return [
        max(0.0, (max(ends) - claim[1]).total_seconds() * 1000 / len(ends))
        for claim, ends in together.items()
        for _ in ends
    ]


def _rate_per_minute(document: Document) -> float:
    """The rate now, from counts by minute: the share of minutes that are too old by now is dropped.

    So the rate falls while nothing ends, without another count.
    """
    minutes: list[float] | None = document.get("ended_by_minute")
    if minutes is None:  # An older version counted it.
        minutes = [document["rate_per_minute"]] * RATE_MINUTES
    age: float = (now() - document["counted_at"]) / timedelta(minutes=1)
    parts = [min(1.0, max(0.0, RATE_MINUTES - age - n)) for n in range(RATE_MINUTES)]
    return sum(part * ended for part, ended in zip(parts, minutes, strict=True)) / RATE_MINUTES


def _from_document(document: Document) -> AnalyzerCounts:
    durations = document["durations"]
    return AnalyzerCounts(
        states=document["states"],
        oldest_waiting_at=document["oldest_waiting_at"],
        rate_per_minute=round(_rate_per_minute(document), 2),
        durations=Durations(*durations) if durations else None,
        stale=document["stale"],
        missing=document.get("missing"),
        counted_at=document["counted_at"],
    )
