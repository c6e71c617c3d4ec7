"""The analysis engine: a worker runs one analyzer on its queued analyses.

Each call for an analyzer runs one slice of work in the analyzer's process: it claims some queued
analyses, runs them and stores their ends together, until none is left or another analyzer waits
for its turn. The size of a claim follows from how long one analysis takes: a claim is a quarter of
a second's work.
"""

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime, timedelta
from random import uniform

import structlog

from clustr import logs
from clustr.analysis.limits import MEGABYTE, Interrupted, Interruption, TimeUp, memory_usage
from clustr.analysis.runner import End, NotPrepared, Runner
from clustr.database import ClaimedAnalysis, Database, FinishedAnalysis, now
from clustr.domain.errors import DatabaseUnavailable, NotFound, QueueUnavailable, StorageUnavailable
from clustr.domain.models import Analysis, State, Upload
from clustr.plugin_manager import PluginManager
from clustr.plugins import Analyzer, Image
from clustr.queue import LONGEST_SLICE_SECONDS, SLICE_SECONDS, Queue
from clustr.storage import LocalStorage

log = logs.logger(__name__)

LEASE = timedelta(seconds=30)
RENEW_SECONDS = 10.0
# A new upload waits until the current claim is done, so a claim is short.
CLAIM_SECONDS = 0.25
LARGEST_CLAIM = 100
CLAIM_GROWTH = 8
LONGEST_DEFERRAL_SECONDS = 60.0
LONGEST_DEFERRAL_ASKED_FOR_SECONDS = 3600.0
# How much memory a process may keep between calls, `setup` included, when its analyzer has no
# `keep_loaded`: there is one process for each analyzer. One that takes more ends after its call.
LARGEST_KEPT_MEGABYTES = 100
HIGHEST_POWER = 10  # of two; a float cannot hold that of a thousand attempts
FINISHED_HOOK = "clustr_analysis_finished"
HOOK_SECONDS = 3.0
UNMOUNTED = "the place where originals are kept is not there"


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
        one_at_a_time = probing or analyzer.max_attempts == 1
        first = work.claim(1 if one_at_a_time else analyzer.batch_size, probing)
        if not first:
            return True
        self._runner = runner
        nothing_left = False
        try:
            with self._renewing_lease(analyzer, run):
                runner.prepare()
                nothing_left = self._analyze_claims(work, first, has_failed_before)
        except Interrupted:
            log.info("analysis_interrupted")
        except NotPrepared as error:  # The image is not at fault: its analysis is deferred.
            self._defer(analyzer, str(error))
        finally:
            if not nothing_left:
                self._database.analyses.release(analyzer.name, run)
        # Who queues an analysis after the last claim rings, as the bell was cleared before.
        if not (nothing_left or interruption.requested):
            work.notify_workers_if_work_waits()
        return runner.prepared and not interruption.requested and not self._is_too_large(runner)

    def _is_too_large(self, runner: Runner) -> bool:
        """Whether the process has more memory than it may keep until the next call."""
        growth_bytes = memory_usage()[1] - self._resident_bytes
        is_light = growth_bytes <= LARGEST_KEPT_MEGABYTES * MEGABYTE
        return runner.has_grown() or not (is_light or runner.analyzer.keep_loaded)

    def _analyze_claims(
        self, work: "WorkSlice", claims: list[ClaimedAnalysis], has_failed_before: bool
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

    def _slice_expired(self, slice_began: float, runner: Runner) -> bool:
        """Whether another analyzer waits for its turn, or this process has to be replaced."""
        seconds = time.monotonic() - slice_began
        if seconds < SLICE_SECONDS:
            return False
        if seconds > LONGEST_SLICE_SECONDS or runner.has_grown():
            return True
        others = [a for a in self._plugin_manager.analyzers.values() if a is not runner.analyzer]
        try:
            return self._queue.is_rung(others)
        except QueueUnavailable:
            return True

    def _defer(self, analyzer: Analyzer, reason: str) -> None:
        breaker = self._database.circuit_breakers.record_failure(analyzer.name, reason)
        if breaker.open:
            self._database.analyses.defer_queued(analyzer.name, reason)
        log.warning("analyzer_put_off", reason=reason, probe_at=breaker.probe_at.isoformat())

    def _recover(self, analyzer: Analyzer) -> None:
        self._database.circuit_breakers.close(analyzer.name)
        woken = self._database.analyses.requeue_deferred(analyzer.name, include_not_due=True)
        log.info("analyzer_recovered", woken=woken)

    @contextmanager
    def _renewing_lease(self, analyzer: Analyzer, run: str) -> Iterator[None]:
        """Renew the lease of the run's claims in a thread while the block runs."""
        done = threading.Event()

        def renew() -> None:
            while not done.wait(RENEW_SECONDS):
                try:
                    self._database.analyses.renew(analyzer.name, run, LEASE)
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


class WorkSlice:
    """The work of one run: it claims analyses of one analyzer, runs them and stores their ends."""

    def __init__(
        self,
        database: Database,
        storage: LocalStorage,
        queue: Queue,
        plugin_manager: PluginManager,
        runner: Runner,
        run: str,
    ):
        self.analyzer = runner.analyzer
        self.succeeded = False
        self._database = database
        self._storage = storage
        self._queue = queue
        self._plugin_manager = plugin_manager
        self.runner = runner
        self._run = run
        # These threads ask MongoDB while the main thread goes on. But no image is analyzed before
        # all ends are stored: a plugin that ends the process would lose them.
        self.threads = ThreadPoolExecutor(2, "slice")
        self._hook_is_used = plugin_manager.implements(FINISHED_HOOK)

    def claim(self, size: int, probing: bool) -> list[ClaimedAnalysis]:
        """Claim up to `size` queued analyses; to probe a failed service, deferred ones, too."""
        # The hook gets the upload with all results; an analyzer gets those that it requires.
        results = None if self._hook_is_used else self.analyzer.requires
        states = (State.QUEUED, State.DEFERRED) if probing else (State.QUEUED,)
        for state in states:
            claims = self._database.analyses.claim(
                self.analyzer.name, self.analyzer.version, self._run, size, LEASE, state, results
            )
            if claims:
                return claims
        return []

    def claim_more(self, size: int) -> list[ClaimedAnalysis]:
        """Claim the next analyses; when there may be more, notify an idle worker to help."""
        claims = self.claim(size, probing=False)
        if len(claims) >= size:
            self.notify_workers([self.analyzer])
        return claims

    def notify_workers(self, analyzers: list[Analyzer]) -> None:
        """Ring the doorbells of these analyzers; Redis being unavailable is only logged."""
        try:
            self._queue.ring(analyzers)
        except QueueUnavailable:
            log.warning("bell_not_rung")

    def notify_workers_if_work_waits(self) -> None:
        """Ring the doorbell of this analyzer if it has queued analyses."""
        if self._database.analyses.has_work(self.analyzer.name):
            self.notify_workers([self.analyzer])

    def analyze(self, claims: list[ClaimedAnalysis]) -> str | None:
        """Run the claimed analyses and store their ends.

        Returns:
            the reason when a service that the analyzer needs is unavailable, else None. Analyses
            that were not begun then have no end, and stay claimed until the run releases them.
        """
        by_id = {claimed.upload.id: claimed for claimed in claims}
        ends: list[tuple[ClaimedAnalysis, End]] = []
        try:
            ready = []
            for claimed in claims:
                missing = next(self._missing_results(claimed.upload), None)
                if missing:  # The analyzer requires more than it did when this was queued.
                    ends.append((claimed, End(State.SKIPPED, error=f"requires {missing}")))
                    continue
                try:
                    ready.append(self._build_image(claimed.upload))
                except NotFound as error:
                    ends.append((claimed, End(State.FAILED, error=str(error))))
            for image, end in self.runner.run(
                ready, lambda image: _log_context(by_id[image.id].upload)
            ):
                if end.state is State.FAILED and self._is_unmounted():
                    end = End(State.DEFERRED, error=UNMOUNTED, seconds=end.seconds)
                ends.append((by_id[image.id], end))
                if end.error is UNMOUNTED:
                    break
        finally:
            self._write_ends(ends)
        if ends and ends[-1][1].state is State.DEFERRED:
            return ends[-1][1].error
        return None

    def _missing_results(self, upload: Upload) -> Iterator[str]:
        available = {analysis.name for analysis in upload.analyses if analysis.result is not None}
        return (name for name in self.analyzer.requires if name not in available)

    def _build_image(self, upload: Upload) -> Image:
        names = self.analyzer.requires
        required = {
            a.name: a.result for a in upload.analyses if a.name in names and a.result is not None
        }
        return Image(
            id=upload.id,
            sha256=upload.sha256,
            content_type=upload.content_type,
            size=upload.size,
            width=upload.width,
            height=upload.height,
            path=self._storage.path_of(upload.filename),
            results=required,
        )

    def _is_unmounted(self) -> bool:
        try:
            return not self._storage.is_there()
        except StorageUnavailable:
            return True

    def _write_ends(self, ends: list[tuple[ClaimedAnalysis, End]]) -> None:
        """Store the ends, log them, and notify workers and plugins."""
        finished = [self._finished_analysis(claimed, end) for claimed, end in ends]
        name, run = self.analyzer.name, self._run
        writing = self.threads.submit(self._database.analyses.finish, name, run, finished)
        for claimed, end in ends:
            _log_end(claimed.upload, end)
        written = writing.result()
        if written < len(ends):  # Another run has claimed them, or the uploads are gone.
            log.warning("late_results_dropped", count=len(ends) - written)
        self.succeeded |= any(end.state in (State.SUCCEEDED, State.SKIPPED) for _, end in ends)
        self._notify_workers_of_waiting(ends)
        if self._hook_is_used:
            self._notify_plugins(ends, all_written=written == len(ends))
            self.runner.limits.stop_watching()

    def _finished_analysis(self, claimed: ClaimedAnalysis, end: End) -> FinishedAnalysis:
        return FinishedAnalysis(
            claimed.upload.id,
            end.state,
            result=end.result,
            error=end.error,
            due_at=_due_again_at(claimed, end) if end.state is State.DEFERRED else None,
            fields=end.fields,
            version=self.analyzer.version,
            provenance=self.runner.provenance,
        )

    def _notify_workers_of_waiting(self, ends: list[tuple[ClaimedAnalysis, End]]) -> None:
        """Notify workers of the analyses that required these results, and are queued now."""
        waiting = {
            analysis.name
            for claimed, end in ends
            if end.state is State.SUCCEEDED
            for analysis in claimed.upload.analyses
            if analysis.state is State.WAITING and self.analyzer.name in analysis.requires
        }
        if waiting:
            self.notify_workers(
                [a for a in self._plugin_manager.analyzers.values() if a.name in waiting]
            )

    def _notify_plugins(self, ends: list[tuple[ClaimedAnalysis, End]], all_written: bool) -> None:
        """Call the hook of plugins for each end; one that takes too long drops the rest."""
        ended = [(claimed, end) for claimed, end in ends if end.state is not State.DEFERRED]
        if not all_written:
            ids = [claimed.upload.id for claimed, _ in ended]
            stored_ids = self._database.analyses.finished_by_run(self.analyzer.name, self._run, ids)
            ended = [(claimed, end) for claimed, end in ended if claimed.upload.id in stored_ids]
        for position, (claimed, end) in enumerate(ended, 1):
            try:
                with (
                    structlog.contextvars.bound_contextvars(**_log_context(claimed.upload)),
                    self.runner.limits.limit(HOOK_SECONDS),
                ):
                    analysis = self._analysis_after(claimed, end)
                    self._plugin_manager.notify(
                        FINISHED_HOOK, upload=claimed.upload, analysis=analysis
                    )
            except TimeUp:
                log.error("notices_dropped", hook=FINISHED_HOOK, count=len(ended) - position)
                return
            finally:
                self.runner.process_state.restore()

    def _analysis_after(self, claimed: ClaimedAnalysis, end: End) -> Analysis:
        """The analysis as it is stored after this end."""
        before = next(a for a in claimed.upload.analyses if a.name == self.analyzer.name)
        after = replace(
            before,
            state=end.state,
            attempts=claimed.attempts,
            started_at=claimed.started_at,
            finished_at=now(),
            error=end.error,
        )
        if end.result is None:  # The last good result stays, with its version.
            has_no_result = before.result is None
            return replace(
                after, version=self.analyzer.version if has_no_result else before.version
            )
        return replace(
            after,
            result=end.result,
            version=self.analyzer.version,
            provenance=self.runner.provenance,
        )


def _due_again_at(claimed: ClaimedAnalysis, end: End) -> datetime:
    seconds = min(LONGEST_DEFERRAL_SECONDS, 2.0 ** min(claimed.attempts, HIGHEST_POWER))
    seconds *= uniform(0.5, 1)  # noqa: S311
    if end.after is not None:
        seconds = min(LONGEST_DEFERRAL_ASKED_FOR_SECONDS, max(0, end.after))
    return now() + timedelta(seconds=seconds)


def _log_context(upload: Upload) -> dict[str, str]:
    return {"upload_id": upload.id, "request_id": upload.request_id}


def _log_end(upload: Upload, end: End) -> None:
    level = log.error if end.state is State.FAILED else log.info
    duration = round(end.seconds * 1000, 1)
    level(f"analysis_{end.state}", **_log_context(upload), duration_ms=duration, error=end.error)
