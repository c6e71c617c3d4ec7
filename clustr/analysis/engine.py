"""The analysis engine: a worker runs one analyzer on its queued analyses.

Each call for an analyzer runs one slice of work in the analyzer's process: it claims some queued
analyses, runs them and stores their ends together, until none is left or another analyzer waits
for its turn. The size of a claim follows from how long one analysis takes: a claim is a quarter of
a second's work.
"""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import structlog

from clustr import logs
from clustr.analysis.call_slice import LONGEST_PAUSE_SECONDS, CallSlice
from clustr.analysis.concurrent_calls import CallWindow, concurrency_of, has_one_caller
from clustr.analysis.ends import End
from clustr.analysis.limits import MEGABYTE, Interrupted, Interruption, memory_usage
from clustr.analysis.runner import NotPrepared, Runner
from clustr.analysis.work_slice import LEASE, WorkSlice
from clustr.database import ClaimedAnalysis, Database
from clustr.domain.errors import DatabaseUnavailable, QueueUnavailable
from clustr.domain.models import State
from clustr.plugin_manager import PluginManager
from clustr.plugins import Analyzer
from clustr.queue import HTTP, LONGEST_SLICE_SECONDS, SLICE_SECONDS, Queue
from clustr.storage import LocalStorage

log = logs.logger(__name__)

RENEW_SECONDS = 10.0
# The lease of the process that makes the calls of an analyzer, and how often it is renewed.
CALLS_LEASE_SECONDS = 10.0
RENEW_CALLS_SECONDS = 2.0
# While MongoDB is away, how often a process tries to release what its last run held.
RELEASE_EVERY_SECONDS = 1.0
# A new upload waits until the current claim is done, so a claim is short.
CLAIM_SECONDS = 0.25
LARGEST_CLAIM = 100
CLAIM_GROWTH = 8
# How much memory a process may keep between calls, `setup` included, when its analyzer has no
# `keep_loaded`: there is one process for each analyzer. One that takes more ends after its call.
LARGEST_KEPT_MEGABYTES = 100


def calls_lease(analyzer: Analyzer) -> str | None:
    """The name of the lease of the process that makes the calls of an analyzer.

    One process makes all of them, so that there are no more at a time than the analyzer's
    `concurrency`; None for one that several workers may run at a time.
    """
    return f"calls:{analyzer.name}" if has_one_caller(analyzer) else None


class AnalysisEngine:
    """Runs analyzers on their queued analyses.

    One process runs one analyzer. It is set up at the first call that finds work and stays set up
    until `close`.

    Args:
        plugin_manager: the plugins and their analyzers.
    """

    def __init__(
        self, database: Database, storage: LocalStorage, queue: Queue, plugin_manager: PluginManager
    ):
        self._database = database
        self._storage = storage
        self._queue = queue
        self._plugin_manager = plugin_manager
        self._runner: Runner | None = None
        self._window: CallWindow | None = None
        self._held: tuple[str, str] | None = None  # by which analyzer and which run
        self._resident_bytes = memory_usage()[1]

    def run(self, name: str, run: str, interruption: Interruption) -> bool:
        """Run one slice of work of an analyzer.

        Args:
            name: the analyzer's name.
            run: the id of this run, which owns the claims.
            interruption: ends the run early when SIGTERM comes.

        Returns:
            whether this process can serve another call.

        Raises:
            DatabaseUnavailable: MongoDB does not answer.
        """
        analyzer = self._plugin_manager.analyzers.get(name)
        if analyzer is None:
            log.warning("analyzer_unknown", analyzer=name)
            return False
        with structlog.contextvars.bound_contextvars(analyzer=name, run=run):
            self._clear_bell(analyzer)
            breaker = self._database.circuit_breakers.get(name)
            if breaker and breaker.open and not self._database.circuit_breakers.take_probe(name):
                self._database.analyses.defer_queued(name, breaker.reason)
                return True
            probing = breaker is not None and breaker.open
            if not probing:
                self._database.analyses.requeue_deferred(name, include_not_due=False)
            return self._work_one_slice(
                analyzer, run, interruption, probing, has_failed_before=breaker is not None
            )

    def close(self) -> None:
        """Tear the analyzer down, if it was set up."""
        if self._runner:
            self._runner.close()

    def _clear_bell(self, analyzer: Analyzer) -> None:
        try:
            self._queue.clear_bell(analyzer)
        except QueueUnavailable:
            log.warning("bell_not_answered")

    def _work_one_slice(
        self,
        analyzer: Analyzer,
        run: str,
        interruption: Interruption,
        probing: bool,
        has_failed_before: bool,
    ) -> bool:
        runner = self._runner or Runner(
            analyzer, self._plugin_manager.plugin_of(analyzer), interruption
        )
        work = WorkSlice(
            self._database, self._storage, self._queue, self._plugin_manager, runner, run
        )
        lease = calls_lease(analyzer)
        with self._holding_lease(lease, run) as is_held:
            nothing_left = not is_held or self._analyze_slice(
                work, run, interruption, lease, probing, has_failed_before
            )
        # Who queues an analysis after the last claim rings, as the bell was cleared before.
        if not (nothing_left or interruption.requested):
            work.notify_workers_if_work_waits()
        if self._runner is None:  # It found no work so far.
            return True
        return runner.prepared and not interruption.requested and not self._is_too_large(runner)

    def _analyze_slice(
        self,
        work: WorkSlice,
        run: str,
        interruption: Interruption,
        lease: str | None,
        probing: bool,
        has_failed_before: bool,
    ) -> bool:
        """Analyze what is queued, until the slice ends; release what was not begun.

        Returns:
            whether nothing is left, so that nobody has to be notified. With a lease, that is not
            known: another worker may have answered the bell meanwhile, and left the work to this.
        """
        analyzer, nothing_left = work.analyzer, False
        size = 1 if probing or analyzer.max_attempts == 1 else analyzer.batch_size
        with self._renewing_leases(analyzer, run, lease):
            try:
                first = work.claim(size, probing)
                if not first:
                    nothing_left = True  # nothing to release either
                    return lease is None
                self._runner = work.runner
                work.runner.prepare()
                if concurrency_of(analyzer) > 1:
                    self._make_calls(work, first, probing, has_failed_before)
                else:
                    found_none = self._analyze_claims(work, first, has_failed_before)
                    nothing_left = found_none and lease is None
            except Interrupted:
                log.info("analysis_interrupted")
            except NotPrepared as error:  # The image is not at fault: its analysis is deferred.
                self._defer(analyzer, End(State.DEFERRED, error=str(error)))
            finally:
                if not nothing_left:
                    self._release(analyzer, run)
        return nothing_left

    def _release(self, analyzer: Analyzer, run: str) -> None:
        """Release what a run holds; while MongoDB is away, that is left to `release_held`."""
        self._held = analyzer.name, run
        self._database.analyses.release(*self._held)
        self._held = None

    def release_held(self, interruption: Interruption) -> None:
        """Release what the last run could not: try until MongoDB is back, or SIGTERM comes.

        What is still held when the lease ends counts as lost by a process that died; but after an
        outage the reconciler leaves time for this.
        """
        while self._held and not interruption.requested:
            try:
                self._database.analyses.release(*self._held)
                self._held = None
            except DatabaseUnavailable:
                log.warning("release_waits")
                time.sleep(RELEASE_EVERY_SECONDS)

    @contextmanager
    def _holding_lease(self, lease: str | None, run: str) -> Iterator[bool]:
        """Hold a lease for the block, if there is one; yields False when another run holds it.

        While the service asks for a pause, the lease goes on, so that nobody else calls it either.
        """
        if lease is None:
            yield True
            return
        is_held = self._database.leases.acquire(lease, run, CALLS_LEASE_SECONDS)
        try:
            yield is_held
        finally:
            if is_held:
                pause_seconds = self._window.pause_seconds if self._window else 0.0
                self._database.leases.release(lease, run, pause_seconds)

    def _is_too_large(self, runner: Runner) -> bool:
        """Whether the process has more memory than it may keep until the next call."""
        growth_bytes = memory_usage()[1] - self._resident_bytes
        is_light = growth_bytes <= LARGEST_KEPT_MEGABYTES * MEGABYTE
        return runner.has_grown() or not (is_light or runner.analyzer.keep_loaded)

    def _analyze_claims(
        self, work: WorkSlice, claims: list[ClaimedAnalysis], has_failed_before: bool
    ) -> bool:
        """Run claim after claim until none is left, time is up or the service is unavailable.

        Returns:
            whether none is left: the last claim found none, and all that were claimed have ended.
        """
        analyzer = work.analyzer
        # An analysis that ends the process costs all of its claim an attempt; so analyzers with one
        # attempt claim one at a time.
        largest_claim = max(LARGEST_CLAIM, analyzer.batch_size) if analyzer.max_attempts > 1 else 1
        slice_began = time.monotonic()
        seconds_each = CLAIM_SECONDS
        with work.threads:
            while claims:
                began = time.monotonic()
                # While quick analyses run, a thread claims the next ones; but not when memory is
                # limited, because that limit is the process's and holds for this thread, too.
                quick = seconds_each * LARGEST_CLAIM < CLAIM_SECONDS and not analyzer.memory_mb
                full = quick and len(claims) == LARGEST_CLAIM
                following = work.threads.submit(work.claim_more, LARGEST_CLAIM) if full else None
                unavailable = work.analyze(claims)
                if unavailable:
                    self._defer(analyzer, unavailable)
                    return False
                if has_failed_before and work.succeeded:
                    has_failed_before = False
                    self._recover(analyzer)
                if self._slice_expired(slice_began, work.runner):
                    return False
                seconds_each = (time.monotonic() - began) / len(claims)
                size = min(CLAIM_GROWTH * len(claims), int(CLAIM_SECONDS / (seconds_each + 1e-6)))
                size = min(largest_claim, max(size, analyzer.batch_size, 1))
                claims = following.result() if following else work.claim_more(size)
        return True

    def _make_calls(
        self,
        work: WorkSlice,
        claims: list[ClaimedAnalysis],
        probing: bool,
        has_failed_before: bool,
    ) -> None:
        """Keep calls under way until none is left, time is up or the service is unavailable."""
        slice_began = time.monotonic()

        def recover() -> None:
            if has_failed_before:
                # Of very many analyses that wait, the plugin's code shall not seem to hang.
                work.runner.limits.stop_watching()
                self._recover(work.analyzer)

        def is_expired() -> bool:
            return self._slice_expired(slice_began, work.runner)

        window = self._window_of(work.analyzer)
        calls = CallSlice(work, window, probing, is_expired, on_first_answer=recover)
        with work.threads:
            unavailable = calls.run(claims)
        if unavailable:
            self._defer(work.analyzer, unavailable)

    def _slice_expired(self, slice_began: float, runner: Runner) -> bool:
        """Whether another analyzer waits for its turn, or this process has to be replaced."""
        seconds = time.monotonic() - slice_began
        if seconds < SLICE_SECONDS:
            return False
        if seconds > LONGEST_SLICE_SECONDS or runner.has_grown():
            return True
        # Analyzers that call services have workers of their own.
        calls = runner.analyzer.queue == HTTP
        analyzers = self._plugin_manager.analyzers.values()
        others = [a for a in analyzers if a is not runner.analyzer and (a.queue == HTTP) == calls]
        try:
            return self._queue.is_rung(others)
        except QueueUnavailable:
            return True

    def _window_of(self, analyzer: Analyzer) -> CallWindow:
        """The window of the calls of this process's analyzer: all runs have the same."""
        self._window = self._window or CallWindow(concurrency_of(analyzer))
        return self._window

    def _defer(self, analyzer: Analyzer, end: End) -> None:
        reason = end.error or ""
        after_seconds = end.after or 0.0
        longest_pause_seconds = LONGEST_PAUSE_SECONDS if calls_lease(analyzer) else 0.0
        if after_seconds <= longest_pause_seconds:
            self._window_of(analyzer).pause(after_seconds)
        breaker = self._database.circuit_breakers.record_failure(
            analyzer.name,
            reason,
            max(end.seconds, after_seconds),
            opens=after_seconds > longest_pause_seconds,
        )
        if breaker.open:
            self._database.analyses.defer_queued(analyzer.name, reason)
        log.warning("analyzer_put_off", reason=reason, probe_at=breaker.probe_at.isoformat())

    def _recover(self, analyzer: Analyzer) -> None:
        self._database.circuit_breakers.close(analyzer.name)
        woken = self._database.analyses.requeue_deferred(analyzer.name, include_not_due=True)
        log.info("analyzer_recovered", woken=woken)

    @contextmanager
    def _renewing_leases(self, analyzer: Analyzer, run: str, calls: str | None) -> Iterator[None]:
        """Renew the lease of the run's claims in a thread while the block runs.

        Args:
            calls: another lease to renew: that of the process that makes the analyzer's calls.
        """
        done = threading.Event()

        def renew() -> None:
            renewed_at = time.monotonic()
            while not done.wait(RENEW_CALLS_SECONDS if calls else RENEW_SECONDS):
                try:
                    if calls:
                        self._database.leases.acquire(calls, run, CALLS_LEASE_SECONDS)
                    if time.monotonic() >= renewed_at + RENEW_SECONDS:
                        self._database.analyses.renew(analyzer.name, run, LEASE)
                        renewed_at = time.monotonic()
                except (
                    DatabaseUnavailable,
                    MemoryError,
                ):  # The plugin may have used up all memory.
                    log.warning("lease_not_renewed")

        thread = threading.Thread(target=renew, name="lease", daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()
