"""Statistics: how the analyses of each analyzer are, as they were counted last.

To count takes the longer the more uploads there are. So it is not done for those who ask, but now
and then by one process for all, and what it found is kept, one document for each analyzer.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any

from pymongo.collection import Collection

from clustr.database.analyses import WORK_INDEX
from clustr.database.analysis_updates import with_analysis
from clustr.database.bulk_selection import ENDED
from clustr.database.clock import now
from clustr.database.connection import Document, answering
from clustr.database.documents import IS_UPLOAD
from clustr.domain.models import State
from clustr.plugins import Analyzer

RUNS = "runs"
ONCE_ENDED: Document = {"analyses.finished_at": {"$exists": True}}
INDEXES = {
    # Uploads of which no analysis has ended yet are not in it.
    RUNS: {
        "keys": [("analyses.name", 1), ("analyses.version", 1), ("analyses.finished_at", 1)],
        "partialFilterExpression": ONCE_ENDED,
    },
}

RATE_MINUTES = 5
# The runs that durations are taken from: of the first of these times that has enough of them.
PERIODS = (timedelta(minutes=5), timedelta(days=1), timedelta(days=36500))
ENOUGH_RUNS = 20
MOST_RUNS = 200


@dataclass(frozen=True, slots=True)
class Durations:
    """How long one image takes, in milliseconds: half of them so long at most, and 95 of 100."""

    p50: float
    p95: float


@dataclass(frozen=True, slots=True)
class AnalyzerCounts:
    """How the analyses of one analyzer were at a moment.

    Attributes:
        states: how many are in each state, without those in which there is none.
        oldest_waiting_at: since when the one waits that has waited longest for its turn.
        rate_per_minute: how many ended in a minute, of late.
        stale: how many ended that are of an earlier version of the analyzer.
    """

    states: Mapping[str, int]
    oldest_waiting_at: datetime | None
    rate_per_minute: float
    durations: Durations | None
    stale: int
    counted_at: datetime


class Statistics:
    """Counts the analyses of the uploads, and keeps what was counted.

    Args:
        uploads: what is counted.
        collection: where the counts are kept.
    """

    def __init__(self, uploads: Collection[Document], collection: Collection[Document]):
        self._uploads = uploads
        self._collection = collection

    def all(self) -> dict[str, AnalyzerCounts]:
        """What was counted last, by the names of the analyzers."""
        with answering():
            return {document["_id"]: _counted(document) for document in self._collection.find()}

    def count(self, analyzer: Analyzer) -> None:
        """Count the analyses of an analyzer, and keep that."""
        durations = self.durations(analyzer)
        with answering():
            counted: Document = {
                "states": self._states(analyzer.name),
                "oldest_waiting_at": self._oldest_waiting_at(analyzer.name),
                "ended_by_minute": self._ended_by_minute(analyzer),
                "durations": [durations.p50, durations.p95] if durations else None,
                "stale": self._stale(analyzer),
                "counted_at": now(),
            }
            self._collection.replace_one({"_id": analyzer.name}, counted, upsert=True)

    def _states(self, name: str) -> dict[str, int]:
        # The many that succeeded are what is left of all: those are counted in the index alone.
        total = self._uploads.count_documents({"analyses.name": name}, hint=WORK_INDEX)
        others = {
            state: self._uploads.count_documents(
                with_analysis(name=name, state=state), hint=WORK_INDEX
            )
            for state in State
            if state is not State.SUCCEEDED
        }
        # They are not counted at the same moment.
        succeeded = max(0, total - sum(others.values()))
        return {s: n for s, n in {State.SUCCEEDED: succeeded, **others}.items() if n}

    def _oldest_waiting_at(self, name: str) -> datetime | None:
        """The first of each priority has waited longest of its kind, in the order of the index."""
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
            self._uploads.count_documents(_runs(analyzer, began, ended), hint=RUNS)
            for ended, began in pairwise(since)
        ]

    def _stale(self, analyzer: Analyzer) -> int:
        older = ONCE_ENDED | with_analysis(
            name=analyzer.name, version={"$lt": analyzer.version}, state={"$in": ENDED}
        )
        return self._uploads.count_documents(older, hint=RUNS)

    def durations(self, analyzer: Analyzer) -> Durations | None:
        """How long one image took in the latest runs; None when there were none."""
        found: list[Document] = []
        with answering():
            for period in PERIODS:
                found = self._latest_runs(analyzer, period)
                if len(found) >= ENOUGH_RUNS:
                    break
        milliseconds = sorted(_milliseconds_each(found))
        if not milliseconds:
            return None
        last = len(milliseconds) - 1
        return Durations(milliseconds[last // 2], milliseconds[round(0.95 * last)])

    def _latest_runs(self, analyzer: Analyzer, period: timedelta) -> list[Document]:
        projection = {"analyses": {"$elemMatch": {"name": analyzer.name}}}
        found = self._uploads.find(_runs(analyzer, period) | IS_UPLOAD, projection)
        analyses = [d["analyses"][0] for d in found.hint(RUNS).limit(MOST_RUNS)]
        return [a for a in analyses if a.get("started_at") and a.get("finished_at")]


def _runs(analyzer: Analyzer, period: timedelta, until: timedelta | None = None) -> Document:
    """A query for the uploads whose analysis ended in this time before now.

    Args:
        until: so long before now that time ended; by default it has not.
    """
    moment = now()
    ended = {"$gte": moment - period} | ({"$lt": moment - until} if until else {})
    return ONCE_ENDED | with_analysis(
        name=analyzer.name,
        version={"$lte": analyzer.version},
        finished_at=ended,
        # What was cancelled or never begun has ended, too, but says nothing.
        state={"$in": [State.SUCCEEDED, State.SKIPPED, State.FAILED]},
        started_at={"$ne": None},
    )


def _milliseconds_each(analyses: list[dict[str, Any]]) -> list[float]:
    """How long each took: what a run claimed at once was done one after the other."""
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
    """How many ended in each of the last minutes, of which some are over since that was counted.

    So it falls while nothing ends, and nothing has to be counted for that.
    """
    minutes = document.get("ended_by_minute")
    if minutes is None:  # An older version counted it.
        minutes = [document["rate_per_minute"]] * RATE_MINUTES
    age = (now() - document["counted_at"]) / timedelta(minutes=1)
    parts = [min(1.0, max(0.0, RATE_MINUTES - age - n)) for n in range(RATE_MINUTES)]
    return sum(part * ended for part, ended in zip(parts, minutes, strict=True)) / RATE_MINUTES


def _counted(document: Document) -> AnalyzerCounts:
    durations = document["durations"]
    return AnalyzerCounts(
        states=document["states"],
        oldest_waiting_at=document["oldest_waiting_at"],
        rate_per_minute=round(_rate_per_minute(document), 2),
        durations=Durations(*durations) if durations else None,
        stale=document["stale"],
        counted_at=document["counted_at"],
    )
