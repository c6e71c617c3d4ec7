"""Analysis: a worker runs one analyzer on what waits for it.

A call for an analyzer is answered by one slice of work in its own process: claim some of what
waits, analyze each, write the ends down together, until nothing is left or another analyzer waits
for its turn. How many are claimed together follows from how long one takes: a claim is a quarter of
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
from clustr.analysis.limits import MEGABYTE, Interrupted, Interruption, TimeUp, memory
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
# An upload that comes while other work is claimed waits for the end of that claim.
CLAIM_SECONDS = 0.25
LARGEST_CLAIM = 100
CLAIM_GROWTH = 8
LONGEST_DEFERRAL_SECONDS = 60.0
LONGEST_DEFERRAL_ASKED_FOR_SECONDS = 3600.0
# What a process may keep between calls where `keep_loaded` does not ask for it, `setup` included:
# there is one for each analyzer. Those that take more are made anew for each call.
LARGEST_KEPT_MEGABYTES = 100
HIGHEST_POWER = 10  # of two; a float cannot hold that of a thousand attempts
NOTICE = "clustr_analysis_finished"
NOTICE_SECONDS = 3.0
UNMOUNTED = "the place where originals are kept is not there"


class AnalysisEngine:
    """Runs analyzers on what waits for them.

    One process runs one analyzer. What was set up for it is kept until `close`, for as many calls
    as come.

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
        self._resident_bytes = memory()[1]

    def run(self, name: str, run: str, interruption: Interruption) -> bool:
        """Answer a call for the analyzer `name`, as the run with the id `run`.

        Returns:
            whether this process is fit to answer another call.
        """
        analyzer = self._plugin_manager.analyzers.get(name)
        if analyzer is None:
            log.warning("analyzer_unknown", analyzer=name)
            return False
        with structlog.contextvars.bound_contextvars(analyzer=name, run=run):
            self._answer(analyzer)
            breaker = self._database.circuit_breakers.get(name)
            if breaker and breaker.open and not self._database.circuit_breakers.take_probe(name):
                self._database.analyses.park(name, breaker.reason)
                return True
            probing = breaker is not None and breaker.open
            if not probing:
                self._database.analyses.wake(name, all_of_them=False)
            return self._work(analyzer, run, interruption, probing, troubled=breaker is not None)

    def close(self) -> None:
        """Tear down what was set up."""
        if self._runner:
            self._runner.close()

    def _answer(self, analyzer: Analyzer) -> None:
        try:
            self._queue.answer(analyzer)
        except QueueUnavailable:
            log.warning("bell_not_answered")

    def _work(
        self,
        analyzer: Analyzer,
        run: str,
        interruption: Interruption,
        probing: bool,
        troubled: bool,
    ) -> bool:
        runner = self._runner or Runner(
            analyzer, self._plugin_manager.plugin_of(analyzer), interruption
        )
        work = WorkSlice(
            self._database, self._storage, self._queue, self._plugin_manager, runner, run
        )
        alone = probing or analyzer.max_attempts == 1
        first = work.claim(1 if alone else analyzer.batch_size, probing)
        if not first:
            return True
        self._runner = runner
        try:
            with self._holding(analyzer, run):
                runner.prepare()
                self._run_slice(work, first, troubled)
        except Interrupted:
            log.info("analysis_interrupted")
        except NotPrepared as error:  # That says nothing about the image: it waits until it works.
            self._defer(analyzer, str(error))
        finally:
            self._database.analyses.put_back(analyzer.name, run)
        if not interruption.requested:
            work.ring_if_work_waits()
        return runner.prepared and not interruption.requested and not self._is_too_large(runner)

    def _is_too_large(self, runner: Runner) -> bool:
        """Whether the process has more in memory than it may keep until the next call."""
        taken = memory()[1] - self._resident_bytes
        is_light = taken <= LARGEST_KEPT_MEGABYTES * MEGABYTE
        return runner.grown() or not (is_light or runner.analyzer.keep_loaded)

    def _run_slice(self, work: "WorkSlice", claims: list[ClaimedAnalysis], troubled: bool) -> None:
        """Analyze claim after claim until nothing is left, time is up or the service away."""
        analyzer = work.analyzer
        # Those claimed with one that ends the process get a second attempt, if there is a second.
        most = max(LARGEST_CLAIM, analyzer.batch_size) if analyzer.max_attempts > 1 else 1
        slice_began = time.monotonic()
        seconds_each = CLAIM_SECONDS
        with work.threads:
            while claims:
                began = time.monotonic()
                # Quick ones: the next are claimed while these are analyzed. Not where memory has a
                # limit, which is one for all threads.
                quick = seconds_each * LARGEST_CLAIM < CLAIM_SECONDS and not analyzer.memory_mb
                full = quick and len(claims) == LARGEST_CLAIM
                following = work.threads.submit(work.claim_more, LARGEST_CLAIM) if full else None
                away = work.analyze(claims)
                if away:
                    self._defer(analyzer, away)
                    return
                if troubled and work.succeeded:
                    troubled = False
                    self._recover(analyzer)
                if self._slice_expired(slice_began, work.runner):
                    return
                seconds_each = (time.monotonic() - began) / len(claims)
                size = min(CLAIM_GROWTH * len(claims), int(CLAIM_SECONDS / (seconds_each + 1e-6)))
                size = min(most, max(size, analyzer.batch_size, 1))
                claims = following.result() if following else work.claim_more(size)

    def _slice_expired(self, slice_began: float, runner: Runner) -> bool:
        """Whether it is the turn of another analyzer by now, or of another process."""
        seconds = time.monotonic() - slice_began
        if seconds < SLICE_SECONDS:
            return False
        if seconds > LONGEST_SLICE_SECONDS or runner.grown():
            return True
        others = [a for a in self._plugin_manager.analyzers.values() if a is not runner.analyzer]
        try:
            return self._queue.is_rung(others)
        except QueueUnavailable:
            return True

    def _defer(self, analyzer: Analyzer, reason: str) -> None:
        breaker = self._database.circuit_breakers.record_failure(analyzer.name, reason)
        if breaker.open:
            self._database.analyses.park(analyzer.name, reason)
        log.warning("analyzer_put_off", reason=reason, probe_at=breaker.probe_at.isoformat())

    def _recover(self, analyzer: Analyzer) -> None:
        self._database.circuit_breakers.close(analyzer.name)
        woken = self._database.analyses.wake(analyzer.name, all_of_them=True)
        log.info("analyzer_recovered", woken=woken)

    @contextmanager
    def _holding(self, analyzer: Analyzer, run: str) -> Iterator[None]:
        """Prolong the lease of the run's claims for as long as the block takes."""
        done = threading.Event()

        def renew() -> None:
            while not done.wait(RENEW_SECONDS):
                try:
                    self._database.analyses.renew(analyzer.name, run, LEASE)
                except (DatabaseUnavailable, MemoryError):  # The plugin may have taken it all.
                    log.warning("lease_not_renewed")

        thread = threading.Thread(target=renew, name="lease", daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()


class WorkSlice:
    """The work of one run: analyses of one analyzer, claimed, run, and their ends written down."""

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
        # MongoDB is asked while other things are done; but the next image waits until all ends are
        # written, which its plugin could otherwise take down with the process.
        self.threads = ThreadPoolExecutor(2, "slice")
        self._heard = plugin_manager.implements(NOTICE)

    def claim(self, size: int, probing: bool) -> list[ClaimedAnalysis]:
        """Take up to `size` analyses; to probe a service that was away, also of the deferred."""
        # A hook is given the upload with everything; an analyzer, only what it requires.
        results = None if self._heard else self.analyzer.requires
        states = (State.QUEUED, State.DEFERRED) if probing else (State.QUEUED,)
        for state in states:
            claims = self._database.analyses.claim(
                self.analyzer.name, self.analyzer.version, self._run, size, LEASE, state, results
            )
            if claims:
                return claims
        return []

    def claim_more(self, size: int) -> list[ClaimedAnalysis]:
        """Take what follows; when there may be even more, an idle worker is called to join."""
        claims = self.claim(size, probing=False)
        if len(claims) >= size:
            self.ring([self.analyzer])
        return claims

    def ring(self, analyzers: list[Analyzer]) -> None:
        """Call workers for analyzers."""
        try:
            self._queue.ring(analyzers)
        except QueueUnavailable:
            log.warning("bell_not_rung")

    def ring_if_work_waits(self) -> None:
        """Call a worker if this analyzer has more to do."""
        if self._database.analyses.work_waits(self.analyzer.name):
            self.ring([self.analyzer])

    def analyze(self, claims: list[ClaimedAnalysis]) -> str | None:
        """Analyze what was claimed and write the ends down.

        Returns:
            what is away, when something is that the analyzer needs; the rest is put back then.
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
                    ready.append(self._image(claimed.upload))
                except NotFound as error:
                    ends.append((claimed, End(State.FAILED, error=str(error))))
            for image, end in self.runner.run(ready, lambda image: _about(by_id[image.id].upload)):
                if end.state is State.FAILED and self._is_unmounted():
                    end = End(State.DEFERRED, error=UNMOUNTED, seconds=end.seconds)
                ends.append((by_id[image.id], end))
                if end.error is UNMOUNTED:
                    break
        finally:
            self._write(ends)
        if ends and ends[-1][1].state is State.DEFERRED:
            return ends[-1][1].error
        return None

    def _missing_results(self, upload: Upload) -> Iterator[str]:
        there = {analysis.name for analysis in upload.analyses if analysis.result is not None}
        return (name for name in self.analyzer.requires if name not in there)

    def _image(self, upload: Upload) -> Image:
        names = self.analyzer.requires
        required = {a.name: a.result for a in upload.analyses if a.name in names}
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

    def _write(self, ends: list[tuple[ClaimedAnalysis, End]]) -> None:
        """Write the ends down, and tell those who wait for that."""
        finished = [self._finished(claimed, end) for claimed, end in ends]
        name, run = self.analyzer.name, self._run
        writing = self.threads.submit(self._database.analyses.finish, name, run, finished)
        for claimed, end in ends:
            _log_end(claimed.upload, end)
        written = writing.result()
        if written < len(ends):  # Another run has them by now, or the uploads are gone.
            log.warning("late_results_dropped", count=len(ends) - written)
        self.succeeded |= any(end.state in (State.SUCCEEDED, State.SKIPPED) for _, end in ends)
        self._ring_for_what_waited(ends)
        if self._heard:
            self._notify(ends, all_written=written == len(ends))
            self.runner.limits.rest()

    def _finished(self, claimed: ClaimedAnalysis, end: End) -> FinishedAnalysis:
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

    def _ring_for_what_waited(self, ends: list[tuple[ClaimedAnalysis, End]]) -> None:
        """Call workers for the analyses that were queued because these ends are successes."""
        waited = {
            analysis.name
            for claimed, end in ends
            if end.state is State.SUCCEEDED
            for analysis in claimed.upload.analyses
            if analysis.state is State.WAITING and self.analyzer.name in analysis.requires
        }
        if waited:
            self.ring([a for a in self._plugin_manager.analyzers.values() if a.name in waited])

    def _notify(self, ends: list[tuple[ClaimedAnalysis, End]], all_written: bool) -> None:
        """Tell plugins of the ends; one that takes too long costs the others of this claim."""
        told = [(claimed, end) for claimed, end in ends if end.state is not State.DEFERRED]
        if not all_written:
            ids = [claimed.upload.id for claimed, _ in told]
            known = self._database.analyses.ended(self.analyzer.name, self._run, ids)
            told = [(claimed, end) for claimed, end in told if claimed.upload.id in known]
        for position, (claimed, end) in enumerate(told, 1):
            try:
                with (
                    structlog.contextvars.bound_contextvars(**_about(claimed.upload)),
                    self.runner.limits.limit(NOTICE_SECONDS),
                ):
                    analysis = self._analysis(claimed, end)
                    self._plugin_manager.notify(NOTICE, upload=claimed.upload, analysis=analysis)
            except TimeUp:
                log.error("notices_dropped", hook=NOTICE, count=len(told) - position)
                return
            finally:
                self.runner.surroundings.put_right()

    def _analysis(self, claimed: ClaimedAnalysis, end: End) -> Analysis:
        """The analysis as it is now."""
        before = next(a for a in claimed.upload.analyses if a.name == self.analyzer.name)
        after = replace(
            before,
            state=end.state,
            attempts=claimed.attempts,
            started_at=claimed.started_at,
            finished_at=now(),
            error=end.error,
        )
        if end.result is None:  # The last good result stays, with what belongs to it.
            bare = before.result is None
            return replace(after, version=self.analyzer.version if bare else before.version)
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


def _about(upload: Upload) -> dict[str, str]:
    return {"upload_id": upload.id, "request_id": upload.request_id}


def _log_end(upload: Upload, end: End) -> None:
    level = log.error if end.state is State.FAILED else log.info
    duration = round(end.seconds * 1000, 1)
    level(f"analysis_{end.state}", **_about(upload), duration_ms=duration, error=end.error)
