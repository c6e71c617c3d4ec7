"""The work of one run: it claims analyses of one analyzer, runs them and stores their ends."""

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime, timedelta
from random import uniform

import structlog

from clustr import logs
from clustr.analysis.concurrent_calls import has_one_caller
from clustr.analysis.ends import End
from clustr.analysis.image_faults import ImageFaults
from clustr.analysis.limits import TimeUp
from clustr.analysis.runner import Runner
from clustr.database import ClaimedAnalysis, Database, FinishedAnalysis, NewVector, now
from clustr.domain.errors import NotFound, QueueUnavailable, StorageUnavailable
from clustr.domain.models import Analysis, State, Upload
from clustr.plugin_manager import PluginManager, private_fields
from clustr.plugins import Analyzer, Image
from clustr.queue import Queue
from clustr.storage import LocalStorage

log = logs.logger(__name__)

LEASE = timedelta(seconds=30)
LONGEST_DEFERRAL_SECONDS = 60.0
LONGEST_DEFERRAL_ASKED_FOR_SECONDS = 3600.0
HIGHEST_POWER = 10  # of two; a float cannot hold that of a thousand attempts
FINISHED_HOOK = "clustr_analysis_finished"
HOOK_SECONDS = 3.0
UNMOUNTED = "the place where originals are kept is not there"


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
        self._faults = ImageFaults(database, self.analyzer)

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
        """Claim the next analyses; when there may be more, notify an idle worker that can help."""
        claims = self.claim(size, probing=False)
        if len(claims) >= size and not has_one_caller(self.analyzer):
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

    def analyze(self, claims: list[ClaimedAnalysis]) -> End | None:
        """Run the claimed analyses and store their ends.

        Returns:
            the end by which a service that the analyzer needs is unavailable, else None. Analyses
            that were not begun then have no end, and stay claimed until the run releases them.
        """
        by_id = {claimed.upload.id: claimed for claimed in claims}
        ends: list[tuple[ClaimedAnalysis, End]] = []
        try:
            ready = []
            for claimed in claims:
                image = self.image_of(claimed.upload)
                if isinstance(image, End):
                    ends.append((claimed, image))
                    if image.error is UNMOUNTED:
                        return image
                else:
                    ready.append(image)
            for image, end in self.runner.run(
                ready, lambda image: log_context(by_id[image.id].upload)
            ):
                end = self.deferred_if_unmounted(end)
                ends.append((by_id[image.id], end))
                if end.error is UNMOUNTED:
                    return end
                if self.runner.yields:  # The next one may take long.
                    self.write_ends(ends)
                    ends = []
        finally:
            self.write_ends(ends)
        return self.runner.unavailable

    def image_of(self, upload: Upload) -> Image | End:
        """The image to analyze, or the end of the analysis where there is nothing to analyze."""
        missing = next(self._missing_results(upload), None)
        if missing:  # The analyzer requires more than it did when this was queued.
            return End(State.SKIPPED, error=f"requires {missing}")
        try:
            return self._build_image(upload)
        except (NotFound, StorageUnavailable) as error:
            return self.deferred_if_unmounted(End(State.FAILED, error=str(error)))

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

    def deferred_if_unmounted(self, end: End) -> End:
        """The end of an analysis; a failure while the originals are not there is a deferral."""
        if end.state is not State.FAILED:
            return end
        try:
            is_there = self._storage.is_there()
        except StorageUnavailable:
            is_there = False
        return end if is_there else End(State.DEFERRED, error=UNMOUNTED, seconds=end.seconds)

    def write_ends(self, ends: list[tuple[ClaimedAnalysis, End]]) -> None:
        """Store the ends, log them, and notify workers and plugins."""
        self.runner.limits.stop_watching()  # or a slow MongoDB would seem to be a plugin that hangs
        ends = self._faults.judge(ends)
        writing = self.threads.submit(self._store, ends)
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

    def _store(self, ends: list[tuple[ClaimedAnalysis, End]]) -> int:
        """Store the vectors of the ends, then the ends; return how many this run still held."""
        name, run = self.analyzer.name, self._run
        vectors = self._store_vectors(ends)
        finished = [
            self._finished_analysis(claimed, end, ids)
            for (claimed, end), ids in zip(ends, vectors, strict=True)
        ]
        written = self._database.analyses.finish(name, run, finished)
        replaced = [
            vector_id
            for claimed, end in ends
            for analysis in claimed.upload.analyses
            if analysis.name == name and end.state is State.SUCCEEDED
            for vector_id in analysis.vectors.values()
        ]
        if replaced and self.analyzer.vectors and written == len(ends):
            self._database.vectors.remove(replaced)  # The reconciler finds those that are left.
        return written

    def _store_vectors(self, ends: Sequence[tuple[ClaimedAnalysis, End]]) -> list[dict[str, str]]:
        """Store the vectors of the ends; return the ids of each, by their fields."""
        declared = {vector.field: vector for vector in self.analyzer.vectors}
        pairs = [
            (position, field) for position, (_, end) in enumerate(ends) for field in end.vectors
        ]
        name, version = self.analyzer.name, self.analyzer.version
        ids = self._database.vectors.add(
            [
                NewVector(
                    ends[position][0].upload.id,
                    name,
                    version,
                    declared[field],
                    ends[position][1].vectors[field],
                )
                for position, field in pairs
            ]
        )
        found: list[dict[str, str]] = [{} for _ in ends]
        for (position, field), vector_id in zip(pairs, ids, strict=True):
            found[position][field] = vector_id
        return found

    def _finished_analysis(
        self, claimed: ClaimedAnalysis, end: End, vectors: Mapping[str, str]
    ) -> FinishedAnalysis:
        return FinishedAnalysis(
            claimed.upload.id,
            end.state,
            result=end.result,
            error=end.error,
            due_at=_due_again_at(claimed, end) if end.state is State.DEFERRED else None,
            fields=end.fields,
            version=self.analyzer.version,
            provenance=self.runner.provenance_of(end),
            faults=end.faults,
            traceback=end.traceback,
            vectors=vectors if self.analyzer.vectors else None,
            private=self._private_fields(claimed.upload),
        )

    def _private_fields(self, upload: Upload) -> tuple[str, ...] | None:
        """The private fields to be stored beside a result; None where there never were any."""
        private = private_fields(self.analyzer.result_schema)
        before = next(a for a in upload.analyses if a.name == self.analyzer.name)
        return private if private or before.private else None

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
                    structlog.contextvars.bound_contextvars(**log_context(claimed.upload)),
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
            failed_version=self.analyzer.version if end.state is State.FAILED else None,
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
            provenance=self.runner.provenance_of(end),
        )


def _due_again_at(claimed: ClaimedAnalysis, end: End) -> datetime:
    seconds = min(LONGEST_DEFERRAL_SECONDS, 2.0 ** min(claimed.attempts, HIGHEST_POWER))
    seconds *= uniform(0.5, 1)  # noqa: S311
    # An attempt that took long, such as one that timed out, is not made again sooner.
    seconds = max(seconds, min(LONGEST_DEFERRAL_SECONDS, end.seconds))
    if end.after is not None:
        seconds = min(LONGEST_DEFERRAL_ASKED_FOR_SECONDS, max(0, end.after))
    return now() + timedelta(seconds=seconds)


def log_context(upload: Upload) -> dict[str, str]:
    return {"upload_id": upload.id, "request_id": upload.request_id}


def _log_end(upload: Upload, end: End) -> None:
    level = log.error if end.state is State.FAILED else log.info
    duration = round(end.seconds * 1000, 1)
    level(f"analysis_{end.state}", **log_context(upload), duration_ms=duration, error=end.error)
