"""Waiting for the ends of analyses, on behalf of requests.

However many requests wait, one thread of the process asks MongoDB for all of them together. It runs
while any waits. docs/decisions/waiting.md has the reasons.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from threading import Event, Lock, Thread

from clustr import logs
from clustr.database import Analyses, DatabaseView
from clustr.domain.errors import DatabaseUnavailable
from clustr.domain.models import are_under_way
from clustr.supervisor import web_process

log = logs.logger(__name__)

# The pause between two looks grows with the duration of the last one, so many times as long.
SHORTEST_PAUSE_SECONDS = 0.05
LONGEST_PAUSE_SECONDS = 0.5
PAUSE_FACTOR = 10


class Wait:
    """One request that waits.

    Args:
        upload_ids: the uploads whose analyses are under way.
        analyzers: those whose analyses it waits for.
        is_abandoned: whether the client no longer waits for the answer.

    Attributes:
        over: set when there is nothing more to wait for.
        is_cut_short: whether it was over before the analyses ended.
        error: why nobody knows whether they have ended.
    """

    def __init__(
        self,
        upload_ids: Iterable[str],
        analyzers: Sequence[str],
        is_abandoned: Callable[[], bool],
    ):
        self.upload_ids = set(upload_ids)
        self.analyzers = analyzers
        self.is_abandoned = is_abandoned
        self.over = Event()
        self.is_cut_short = False
        self.error: Exception | None = None

    def cut_short(self, error: Exception | None = None) -> None:
        """End it before the analyses have ended."""
        self.is_cut_short = True
        self.error = error
        self.over.set()


class AnalysesWatch:
    """Looks for all requests of this process that wait whether their analyses have ended."""

    def __init__(self, analyses: Analyses):
        self._analyses = analyses
        self._waits: set[Wait] = set()
        self._thread: Thread | None = None
        self._lock = Lock()

    @contextmanager
    def watching(self, wait: Wait) -> Iterator[None]:
        """Look for a request, in the block."""
        self._add(wait)
        try:
            yield
        finally:
            with self._lock:
                self._waits.discard(wait)

    def _add(self, wait: Wait) -> None:
        with self._lock:
            self._waits.add(wait)
            if self._thread is None:
                self._thread = Thread(target=self._watch, name="waits", daemon=True)
                self._thread.start()

    def _watch(self) -> None:
        """Look at all that wait, until none does."""
        try:
            while waits := self._current_waits():
                began = time.monotonic()
                self._look(waits)
                pause_seconds = PAUSE_FACTOR * (time.monotonic() - began)
                web_process.ending.wait(
                    min(max(SHORTEST_PAUSE_SECONDS, pause_seconds), LONGEST_PAUSE_SECONDS)
                )
        except Exception as error:  # Nobody would end those that wait, nor start another thread.
            with self._lock:
                self._thread = None
                waits = [*self._waits]
            for wait in waits:
                wait.cut_short(error)
            raise

    def _current_waits(self) -> list[Wait]:
        """The requests that wait; when none does, the thread that asks has to end."""
        with self._lock:
            waits = [wait for wait in self._waits if not wait.over.is_set()]
            if not waits:
                self._thread = None
            return waits

    def _look(self, waits: list[Wait]) -> None:
        """End the waits that are over."""
        upload_ids = set[str]().union(*(wait.upload_ids for wait in waits))
        try:
            found = self._analyses.of_uploads(upload_ids)
        except DatabaseUnavailable as error:
            for wait in waits:
                wait.cut_short(error)
            return
        for wait in waits:
            wait.upload_ids = {
                one
                for one in wait.upload_ids
                if one in found and are_under_way(found[one], wait.analyzers)
            }
            if not wait.upload_ids:
                wait.over.set()
            elif web_process.ending.is_set() or wait.is_abandoned():
                wait.cut_short()


class AnalysisWaits:
    """Waits for analyses of the uploads that somebody may see.

    Args:
        watch: shared by all of the process.
    """

    def __init__(self, database: DatabaseView, watch: AnalysesWatch):
        self._analyses = database.analyses
        self._watch = watch

    def wait(
        self,
        upload_ids: Sequence[str],
        analyzers: Sequence[str],
        seconds: float,
        is_abandoned: Callable[[], bool] = lambda: False,
    ) -> bool:
        """Wait until no analysis of these uploads by these analyzers is under way.

        A deferred analysis is not waited for, nor is an upload that is removed meanwhile.

        Args:
            seconds: how long to wait at most.
            is_abandoned: asked now and then, by another thread, whether to stop waiting.

        Returns:
            False when it was not waited, or not to the end: too many requests wait already, the
            process is about to end, or the client is gone.

        Raises:
            DatabaseUnavailable: MongoDB does not answer, or stopped answering meanwhile.
            NotFound: one of these is no id of an upload.
        """
        under_way = self._find_under_way(upload_ids, analyzers)
        if not under_way or seconds <= 0:
            return True
        wait = Wait(under_way, analyzers, is_abandoned)
        with web_process.waiting_place() as has_place:
            if not has_place:
                log.info("wait_refused")
                return False
            with self._watch.watching(wait):
                wait.over.wait(seconds)
        if wait.error:
            raise DatabaseUnavailable from wait.error
        return not wait.is_cut_short

    def _find_under_way(self, upload_ids: Sequence[str], analyzers: Sequence[str]) -> list[str]:
        """The uploads with an analysis by these analyzers that is under way."""
        found = self._analyses.of_uploads(upload_ids)
        return [one for one, analyses in found.items() if are_under_way(analyses, analyzers)]
