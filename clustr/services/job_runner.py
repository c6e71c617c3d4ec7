"""Runs jobs, so that they go on where they were after a crash.

One process at a time does the jobs step by step: a step handles a batch of uploads and stores how
far the job is. When that process is killed, another takes over and repeats at most one batch, which
changes nothing.
"""

import time
from uuid import uuid4

from clustr import __version__, logs
from clustr.database import AnalysisSelection, Database, Job, JobState, ReanalysisSelection
from clustr.domain import failure_messages
from clustr.domain.errors import (
    ClustrError,
    DatabaseUnavailable,
    InvalidInput,
    StorageFull,
    StorageUnavailable,
)
from clustr.plugin_manager import PluginManager
from clustr.queue import Queue
from clustr.services.job_kinds import (
    BULK_KINDS,
    AnalyzeUploads,
    ForgetAnalyzer,
    JobKind,
    dependents_of,
)
from clustr.services.jobs import add_analysis_job
from clustr.services.removal import Removal

log = logs.logger(__name__)

LEASE = "jobs"
LEASE_SECONDS = 15.0
IDLE_SECONDS = 1.0
# After each step the runner sleeps as long as the step took, to leave the database to others.
SHORTEST_PAUSE_SECONDS = 0.02
STATISTICS_EVERY_SECONDS = 10.0
STATISTICS_PAUSES = 20
UPLOAD_TOTALS = "/tallies"  # stands beside names of analyzers, and cannot be one


def reason_of(error: Exception) -> str:
    """The error that a failed job shows."""
    if isinstance(error, InvalidInput):
        return " ".join(message for messages in error.errors.values() for message in messages)
    return failure_messages.describe_exception(error)


class JobRunner:
    """Runs the jobs in one process at a time, and counts analyses and uploads now and then."""

    def __init__(
        self, database: Database, queue: Queue, plugin_manager: PluginManager, removal: Removal
    ):
        self._database = database
        self._plugin_manager = plugin_manager
        self._queue = queue
        self._removal = removal
        self._kinds: dict[str | None, dict[str, JobKind]] = {}
        self._owner = uuid4().hex
        self._indexed = False
        self._next_count_at = dict.fromkeys([*plugin_manager.analyzers, UPLOAD_TOTALS], 0.0)
        self._totals_seconds = 0.0

    def run_forever(self) -> None:
        """Call `run_once` again and again; errors such as a missing database are only logged."""
        while True:
            began, busy = time.monotonic(), False
            try:
                busy = self.run_once()
            except ClustrError as error:
                log.warning("jobs_wait", reason=str(error))
            took = time.monotonic() - began
            time.sleep(max(SHORTEST_PAUSE_SECONDS, took) if busy else IDLE_SECONDS)

    def run_once(self) -> bool:
        """Do one step of every job, unless another process holds the lease.

        Returns:
            whether there is more to do at once.
        """
        jobs = self._database.jobs.unfinished()
        backfills = self._database.default_services.due_backfills()
        began = time.monotonic()
        to_count = [name for name, count_at in self._next_count_at.items() if began >= count_at]
        to_count = [name for name in to_count if self._is_outdated(name)]
        if not jobs and not to_count and not backfills:
            return False
        if not self._hold_lease():
            later = began + STATISTICS_EVERY_SECONDS
            self._next_count_at.update(dict.fromkeys(to_count, later))
            return False
        if not self._indexed:  # A web process makes them, too, unless it started without MongoDB.
            self._database.make_indexes()
            self._indexed = True
        for name, count in backfills.items():
            self._order_backfill(name, count)
        # Many jobs may take longer than the lease lasts.
        busy = [self._advance_job(job) for job in jobs if self._hold_lease()]
        if to_count and self._hold_lease():
            self._count_analyses(min(to_count, key=self._next_count_at.__getitem__))
        return any(busy) or len(to_count) > 1

    def _hold_lease(self) -> bool:
        """Acquire or renew the lease; False when another process holds it."""
        return self._database.leases.acquire(LEASE, self._owner, LEASE_SECONDS)

    def stop(self) -> None:
        """Let another process take over at once."""
        self._database.leases.release(LEASE, self._owner)

    def _order_backfill(self, name: str, count: int) -> None:
        """Add jobs for the uploads that an analyzer missed while its service was not known.

        The analyzers that require it get jobs as well, because they were skipped. When this process
        is killed before it has stored that this is done, the jobs are added again and find nothing.
        """
        names = (
            [name, *dependents_of(self._plugin_manager, name)]
            if name in self._plugin_manager.analyzers
            else []
        )
        for analyzer_name in names:
            if self._plugin_manager.analyzers[analyzer_name].auto:
                add_analysis_job(
                    self._database,
                    ReanalysisSelection(analyzer_name, AnalysisSelection.MISSING),
                    uuid4().hex,
                )
        self._database.default_services.record_backfill(name, count)

    def _advance_job(self, job: Job) -> bool:
        """Do one step of a job and store how far it is; whether more can be done at once."""
        if job.state is JobState.QUEUED and not job.cancel_requested_at:
            return self._database.jobs.begin(job, self._database.selections.newest_id())
        try:
            kind = self._kinds_for(job.owner)[job.kind]
            step = kind.reclaim(job) if job.cancel_requested_at else kind.step(job)
        except (DatabaseUnavailable, StorageFull, StorageUnavailable) as error:
            # It waits, and the other jobs go on.
            log.warning("job_waits", job=job.id, reason=str(error))
            return False
        except Exception as error:  # It would fail in every round; the other jobs go on.
            log.exception("job_failed", job=job.id)
            self._database.jobs.end(job, JobState.FAILED, job.counts, error=reason_of(error))
            return False
        if not step.ended:
            if (step.after, step.total, step.counts) != (job.after, job.total, job.counts):
                self._database.jobs.advance(job, step.after, step.total, step.counts, step.failures)
            return step.busy
        state = JobState.CANCELLED if job.cancel_requested_at else JobState.SUCCEEDED
        if self._database.jobs.end(
            job, state, step.counts, failures=step.failures, total=step.total
        ):
            log.info("job_ended", job=job.id, kind=job.kind, state=state, counts=step.counts)
        return False

    def _kinds_for(self, owner: str | None) -> dict[str, JobKind]:
        """The kinds of jobs, for which there are only the uploads of an owner, or all for None."""
        if owner not in self._kinds:
            view = self._database.view_of(owner)
            removal = self._removal.seen_by(view)
            kinds: list[JobKind] = [AnalyzeUploads(view, self._queue, self._plugin_manager)]
            kinds += [kind(view, removal) for kind in BULK_KINDS]
            if owner is None:
                kinds.append(ForgetAnalyzer(self._database, self._plugin_manager))
            self._kinds[owner] = {kind.kind: kind for kind in kinds}
        return self._kinds[owner]

    def _is_outdated(self, name: str) -> bool:
        """Whether there is something to count; if not, put the next look at it off."""
        if name == UPLOAD_TOTALS and self._totals_seconds:
            return True  # The counting goes on.
        if self._database.finished_counts.is_outdated(name, self._form_of(name)):
            return True
        self._next_count_at[name] = time.monotonic() + STATISTICS_EVERY_SECONDS
        return False

    def _form_of(self, name: str) -> str:
        """What a count depends on besides the uploads."""
        analyzer = self._plugin_manager.analyzers.get(name)
        return f"{__version__} {analyzer.version if analyzer else ''}"

    def _count_analyses(self, name: str) -> None:
        """Count the analyses of one analyzer; the longer that takes, the later comes the next."""
        if name == UPLOAD_TOTALS:
            self._count_uploads()
            return
        began = time.monotonic()
        try:
            self._database.finished_counts.begin(name)
            self._database.statistics.count(self._plugin_manager.analyzers[name])
            self._database.finished_counts.finish(name, self._form_of(name))
        finally:
            took = time.monotonic() - began
            pause = max(STATISTICS_EVERY_SECONDS, STATISTICS_PAUSES * took)
            self._next_count_at[name] = time.monotonic() + pause

    def _count_uploads(self) -> None:
        """Count a part of the uploads; when all are counted, schedule the next count."""
        is_complete = True
        began = time.monotonic()
        try:
            if not self._totals_seconds:
                self._database.finished_counts.begin(UPLOAD_TOTALS)
            is_complete = self._database.counters.step()
            if is_complete:
                self._database.finished_counts.finish(UPLOAD_TOTALS, self._form_of(UPLOAD_TOTALS))
        finally:
            self._totals_seconds += time.monotonic() - began
            if is_complete:
                pause = max(STATISTICS_EVERY_SECONDS, STATISTICS_PAUSES * self._totals_seconds)
                self._next_count_at[UPLOAD_TOTALS] = time.monotonic() + pause
                self._totals_seconds = 0.0
