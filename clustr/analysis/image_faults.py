"""A fault of one image, told apart from an ill service.

A service may answer 500, or crash, for an image that it cannot read. An analysis whose calls failed
`max_attempts` times, while calls for other images succeeded in between, is failed. As long as no
call succeeds, the service is at fault, and every analysis waits.
"""

import time
from dataclasses import replace
from datetime import datetime

from clustr.analysis.ends import End
from clustr.database import ClaimedAnalysis, Database, now
from clustr.domain.models import State
from clustr.plugins import Analyzer, HttpAnalyzer

# How often the time of the last success is stored at most.
RECORD_SECONDS = 5.0
# An image that failed once may have met a service at fault.
LEAST_FAULTS = 2


class ImageFaults:
    """Counts the failed calls for each image, of one analyzer.

    Analyzers that call no service by `HttpAnalyzer` have no faults.
    """

    def __init__(self, database: Database, analyzer: Analyzer):
        self._service_calls = database.service_calls
        self._analyzer = analyzer
        self._calls_service = isinstance(analyzer, HttpAnalyzer)
        self._succeeded_at: datetime | None = None
        self._recorded_at = -RECORD_SECONDS

    def judge(self, ends: list[tuple[ClaimedAnalysis, End]]) -> list[tuple[ClaimedAnalysis, End]]:
        """Count the faults of these, and fail those that had too many; note what succeeded.

        Raises:
            DatabaseUnavailable: MongoDB does not answer.
        """
        if not self._calls_service:
            return ends
        judged = [(claimed, self._judge(claimed, end)) for claimed, end in ends]
        if any(end.state is State.SUCCEEDED for _, end in ends):
            self._note_success()
        return judged

    def _judge(self, claimed: ClaimedAnalysis, end: End) -> End:
        if not end.is_fault:
            return end
        faults = claimed.faults
        if claimed.fault_at is None or self._has_succeeded_since(claimed.fault_at):
            faults += 1
        if faults < max(LEAST_FAULTS, self._analyzer.max_attempts):
            return replace(end, faults=faults)
        error = f"{end.error} It failed {faults} times, while calls for other images succeeded."
        return replace(end, state=State.FAILED, error=error, faults=faults)

    def _has_succeeded_since(self, moment: datetime) -> bool:
        if self._succeeded_at is None or self._succeeded_at <= moment:
            stored = self._service_calls.last_success(self._analyzer.name)
            self._succeeded_at = max(filter(None, (stored, self._succeeded_at)), default=None)
        return self._succeeded_at is not None and self._succeeded_at > moment

    def _note_success(self) -> None:
        self._succeeded_at = now()
        if time.monotonic() >= self._recorded_at + RECORD_SECONDS:
            self._recorded_at = time.monotonic()
            self._service_calls.record_success(self._analyzer.name, self._succeeded_at)
