"""Bulk jobs: work on many uploads, which goes on where it was after a crash.

A request or command stores a job in the database. One process at a time does the jobs step by
step: a step handles a batch of uploads and stores how far the job is. When that process is killed,
another takes over and repeats at most one batch, which changes nothing. A new kind of job is one
class here, which `JobRunner` has to know.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol
from uuid import uuid4

from clustr import logs
from clustr.database import (
    ANY_VERSION,
    AnalysisSelection,
    Database,
    Failure,
    Job,
    JobState,
    LeftBehind,
    ReanalysisSelection,
    TagEdit,
    UploadSelection,
    Versions,
)
from clustr.database.editing import TOO_MANY_TAGS
from clustr.domain import failure_messages
from clustr.domain.errors import (
    ClustrError,
    DatabaseUnavailable,
    InvalidInput,
    NotFound,
    QueueUnavailable,
)
from clustr.domain.models import UNFINISHED, State, Upload
from clustr.plugin_manager import PluginManager, PluginState
from clustr.plugins import Analyzer
from clustr.queue import DoorbellRinger, Queue
from clustr.services.default_services import DefaultServices
from clustr.services.removal import Removal

log = logs.logger(__name__)

LEASE = "jobs"
LEASE_SECONDS = 15.0
IDLE_SECONDS = 1.0
# After each step the runner sleeps as long as the step took, to leave the database to others.
SHORTEST_PAUSE_SECONDS = 0.02
# Counts are made at most so often, and less often the longer a count takes: the pause is at least
# so many times the duration of the count.
COUNT_EVERY_SECONDS = 1.0
COUNT_PAUSES = 10
STATISTICS_EVERY_SECONDS = 10.0
STATISTICS_PAUSES = 20
UPLOAD_TOTALS = "/tallies"  # stands beside names of analyzers, and cannot be one


@dataclass(frozen=True, slots=True)
class Estimate:
    """The size of a job before it is created.

    Attributes:
        matched: how many uploads are selected.
        seconds: how long one worker would take for them; None while the analyzer's speed is
            unknown.
    """

    matched: int
    seconds: float | None


class AnalysisJobs:
    """Creates jobs that run an analyzer on uploads that lack its analysis, or run it again."""

    def __init__(
        self,
        database: Database,
        plugin_manager: PluginManager,
        ringer: DoorbellRinger,
        services: DefaultServices,
    ):
        self._database = database
        self._plugin_manager = plugin_manager
        self._ringer = ringer
        self._services = services

    def estimate(self, selection: ReanalysisSelection) -> Estimate:
        """Estimate the size of the job that `create` would create.

        Raises:
            InvalidInput: there is no such analyzer.
            NotConfigured: the address of its service is not known.
            TooSlow: there are too many uploads to count them within a request.
        """
        analyzer = analyzer_named(self._plugin_manager, selection.analyzer)
        self._services.require(analyzer)
        matched = self._database.selections.count(self._with_config(selection), analyzer)
        durations = self._database.statistics.durations(analyzer)
        seconds = round(matched * durations.p50 / 1000, 1) if durations else None
        return Estimate(matched, seconds)

    def create(self, selection: ReanalysisSelection, request_id: str) -> Job:
        """Create a job that runs the analyzer on the selected uploads.

        Args:
            request_id: of the request that creates it, for the log.

        Raises:
            InvalidInput: there is no such analyzer.
            NotConfigured: the address of its service is not known.
            TooManyJobs: as many jobs as are allowed wait or run already.
        """
        self._services.require(analyzer_named(self._plugin_manager, selection.analyzer))
        self._database.jobs.require_capacity()
        return add_analysis_job(self._database, self._with_config(selection), request_id)

    def _with_config(self, selection: ReanalysisSelection) -> ReanalysisSelection:
        """The selection with the configuration as it is now, if it asks for what others made."""
        if selection.select is not AnalysisSelection.OTHER_CONFIG:
            return selection
        analyzer = analyzer_named(self._plugin_manager, selection.analyzer)
        plugin = self._plugin_manager.plugin_of(analyzer)
        return replace(selection, config_hash=plugin.config_hash)

    def stale_analyzers(self) -> list[str]:
        """The names of the analyzers that have stale analyses, each after those it requires.

        Raises:
            TooSlow: there are too many uploads to count them within a request.
        """
        return [
            name
            for name, analyzer in self._plugin_manager.analyzers.items()
            if self._database.selections.count(
                ReanalysisSelection(name, AnalysisSelection.STALE), analyzer
            )
        ]

    def run_again(
        self,
        upload_id: str,
        name: str,
        versions: Versions = ANY_VERSION,
        only_missing: bool = False,
    ) -> Upload:
        """Queue the analysis of one upload by one analyzer (again), like that of a new upload.

        Args:
            versions: the versions that the upload may have (`If-Match`).
            only_missing: whether to leave alone an analysis that has a result, was skipped by the
                analyzer, or is under way.

        Returns:
            the upload with the analysis as it is then; its last good result stays for now.

        Raises:
            NotFound: there is no such upload, or no such analyzer.
            NotConfigured: the address of its service is not known.
            Outdated: the upload has none of these versions.
            UnderWay: the analysis has not ended yet; not with `only_missing`.
        """
        if name not in self._plugin_manager.analyzers:
            problem = failure_messages.unknown_name(
                "analyzer", name, self._plugin_manager.analyzers
            )
            missing = self._plugin_manager.explain_missing(name)
            raise NotFound(f"{problem[0].upper()}{problem[1:]}{missing and '.'}{missing}")
        analyzer = self._plugin_manager.analyzers[name]
        self._services.require(analyzer)
        dependents = dependents_of(self._plugin_manager, name)
        upload = self._database.selections.queue_analysis(
            upload_id, analyzer, dependents, versions, only_missing
        )
        self._ringer.ring([analyzer])
        return upload


class BulkJobs:
    """Creates jobs that do one of `BULK_KINDS` to many uploads."""

    def __init__(self, database: Database):
        self._database = database

    def count_matched(self, kind: str, selected_uploads: UploadSelection) -> int:
        """Count the uploads that a job of this kind would handle now.

        Raises:
            TooSlow: there are too many uploads to count them within a request.
        """
        return self._database.selections.count_uploads(
            replace(selected_uploads, trashed=kind == RestoreUploads.kind)
        )

    def create(
        self,
        kind: str,
        selected_uploads: UploadSelection,
        tags: Sequence[str] | None,
        request_id: str,
    ) -> Job:
        """Create a job of this kind for the selected uploads.

        Args:
            kind: `delete`, `restore`, `tag` or `untag`.
            tags: which to add or remove, for the last two kinds.
            request_id: of the request that creates it, for the log.

        Raises:
            TooManyJobs: as many jobs as are allowed wait or run already.
        """
        self._database.jobs.require_capacity()
        parameters = selected_uploads.parameters() | ({"tags": [*tags]} if tags else {})
        return _add_job(self._database, kind, parameters, request_id)


def add_analysis_job(database: Database, selection: ReanalysisSelection, request_id: str) -> Job:
    """Store a job that runs an analyzer on the selected uploads, however many jobs wait."""
    return _add_job(database, AnalyzeUploads.kind, selection.parameters(), request_id)


def _add_job(database: Database, kind: str, parameters: Mapping[str, Any], request_id: str) -> Job:
    """Store a job. The log gets the number of its ids instead of thousands of ids."""
    job = database.jobs.add(kind, parameters, request_id)
    logged = {name: len(v) if name == "ids" else v for name, v in parameters.items()}
    log.info("job_added", job=job.id, kind=kind, parameters=logged)
    return job


def analyzer_named(plugin_manager: PluginManager, name: str) -> Analyzer:
    """The analyzer of this name.

    Raises:
        InvalidInput: there is none.
    """
    if name not in plugin_manager.analyzers:
        problem = failure_messages.unknown_name("analyzer", name, plugin_manager.analyzers)
        missing = plugin_manager.explain_missing(name)
        raise InvalidInput({"analyzer": [f"{problem}{missing and '.'}{missing}"]})
    return plugin_manager.analyzers[name]


def dependents_of(plugin_manager: PluginManager, name: str) -> list[str]:
    """The names of the analyzers that require this one, directly or by another."""
    names = [name]
    for analyzer in plugin_manager.analyzers.values():  # Those that are required come first.
        if any(required in names for required in analyzer.requires):
            names.append(analyzer.name)
    return names[1:]


@dataclass(frozen=True, slots=True)
class JobProgress:
    """How far a job is after a step.

    Attributes:
        after: the id of the last upload that was handled.
        total: how many uploads the job handles, once that is known.
        counts: how many uploads or analyses are in each state, and how many are `selected`.
        ended: whether the job is done.
        failures: the uploads that this step failed for.
        busy: whether the next step can be done at once.
    """

    after: str | None
    total: int | None
    counts: Mapping[str, int]
    ended: bool = False
    failures: list[Failure] = field(default_factory=list)
    busy: bool = True


class JobKind(Protocol):
    """One kind of job."""

    kind: str

    def step(self, job: Job) -> JobProgress:
        """Handle the next batch; to repeat it must change nothing."""
        ...

    def reclaim(self, job: Job) -> JobProgress:
        """Handle a part of a cancelled job: undo what it has begun and no worker has done yet."""
        ...


class AnalyzeUploads:
    """Runs one analyzer on uploads (again); the job ends with the last of its analyses."""

    kind = "analyze"

    def __init__(self, database: Database, queue: Queue, plugin_manager: PluginManager):
        self._database = database
        self._queue = queue
        self._plugin_manager = plugin_manager
        self._next_count_at: dict[str, float] = {}

    def step(self, job: Job) -> JobProgress:
        """Queue a batch of analyses; when all are queued, check how far they are."""
        selection = ReanalysisSelection.from_parameters(job.parameters)
        analyzer = analyzer_named(self._plugin_manager, selection.analyzer)
        if job.total is not None:
            return self._check_analyses(job)
        dependents = dependents_of(self._plugin_manager, analyzer.name)
        batch = self._database.selections.queue_batch(job, selection, analyzer, dependents)
        if batch.selected:
            self._notify_workers(analyzer)
        selected = job.counts.get("selected", 0) + batch.selected
        counts = {**self._count_states(job), "selected": selected}
        return JobProgress(batch.after, selected if batch.last else None, counts)

    def _check_analyses(self, job: Job) -> JobProgress:
        counts = self._count_states(job)
        if _has_unfinished(counts):
            return JobProgress(job.after, job.total, counts, busy=False)
        counts = self._final_counts(job)  # The counts above may be older than the last batch.
        if _has_unfinished(counts):
            return JobProgress(job.after, job.total, counts, busy=False)
        failures = self._database.selections.failures(job.id) if counts[State.FAILED] else []
        return JobProgress(job.after, job.total, counts, ended=True, failures=failures)

    def _count_states(self, job: Job) -> dict[str, int]:
        """Count the job's analyses by state; while it is not time to, return the last counts."""
        began = time.monotonic()
        if began < self._next_count_at.get(job.id, 0):
            return dict(job.counts)
        states = self._database.selections.count_states(job.id)
        pause = max(COUNT_EVERY_SECONDS, COUNT_PAUSES * (time.monotonic() - began))
        self._next_count_at[job.id] = time.monotonic() + pause
        return {**job.counts, **states}

    def _final_counts(self, job: Job) -> dict[str, int]:
        self._next_count_at.pop(job.id, None)
        return {"selected": 0, **job.counts, **self._database.selections.count_states(job.id)}

    def reclaim(self, job: Job) -> JobProgress:
        """Take a batch of analyses that no worker has begun out of the queue again."""
        has_more = self._database.selections.withdraw_batch(job.id)
        counts = self._final_counts(job)
        others = sum(counts[state] for state in State if state is not State.CANCELLED)
        counts[State.CANCELLED] = max(0, counts["selected"] - others)
        return JobProgress(job.after, job.total, counts, ended=not has_more)

    def _notify_workers(self, analyzer: Analyzer) -> None:
        try:
            self._queue.ring([analyzer])
        except QueueUnavailable:
            log.warning("bell_not_rung")


def uploads_of_job(job: Job) -> UploadSelection:
    """The uploads that a job of `BULK_KINDS` handles."""
    return UploadSelection.from_parameters(job.parameters, trashed=job.kind == RestoreUploads.kind)


class ForEachUpload:
    """Base of the kinds of jobs that handle each selected upload on its own."""

    kind: str
    batch_size: int

    def __init__(self, database: Database, removal: Removal):
        self._database = database
        self._removal = removal

    def step(self, job: Job) -> JobProgress:
        """Handle the next batch."""
        batch = self._database.selections.next_batch(job, uploads_of_job(job), self.batch_size)
        done, failures = self._handle(job, batch.ids)
        failures += [Failure(unknown, "There is no such upload.") for unknown in batch.unknown]
        previous = job.counts
        counts = {
            "selected": previous.get("selected", 0) + done + len(failures),
            State.SUCCEEDED: previous.get(State.SUCCEEDED, 0) + done,
            State.FAILED: previous.get(State.FAILED, 0) + len(failures),
        }
        total = counts["selected"] if batch.last else None
        return JobProgress(batch.after, total, counts, ended=batch.last, failures=failures)

    def _handle(self, job: Job, ids: list[str]) -> tuple[int, list[Failure]]:
        """Handle these uploads.

        Returns:
            how many are as the job wants them, also since before, and the failures of the others.
        """
        raise NotImplementedError

    def reclaim(self, job: Job) -> JobProgress:
        """Leave the rest as it is; what is done stays."""
        counts = dict(job.counts)
        if ids := uploads_of_job(job).ids:  # With a filter the number of the rest is not known.
            counts[State.CANCELLED] = len({*ids}) - counts.get("selected", 0)
        return JobProgress(job.after, job.total, counts, ended=True)


class MoveUploads(ForEachUpload):
    """Moves uploads into the trash, or out of it."""

    batch_size = 50

    def _handle(self, job: Job, ids: list[str]) -> tuple[int, list[Failure]]:
        already = self._database.selections.moved_by_job(job, uploads_of_job(job), ids)
        done, failures = len(already), []
        for upload_id in ids:
            if upload_id in already:
                continue
            try:
                done += self._move_upload(upload_id, job)
            except DatabaseUnavailable:
                raise
            except ClustrError as error:
                failures.append(Failure(upload_id, str(error)))
        return done, failures

    def _move_upload(self, upload_id: str, job: Job) -> bool:
        """Move one upload; False when it is not among the selected ones any more."""
        raise NotImplementedError


class DeleteUploads(MoveUploads):
    """Puts uploads into the trash."""

    kind = "delete"

    def _handle(self, job: Job, ids: list[str]) -> tuple[int, list[Failure]]:
        # Of copies, remove the original last: when it goes, all others have to name another.
        return super()._handle(job, ids[::-1])

    def _move_upload(self, upload_id: str, job: Job) -> bool:
        return self._removal.remove(upload_id, job=job.id, filter=uploads_of_job(job).filter)


class RestoreUploads(MoveUploads):
    """Brings uploads back from the trash."""

    kind = "restore"

    def _move_upload(self, upload_id: str, job: Job) -> bool:
        self._removal.restore(upload_id, job=job.id)
        return True


class AddTags(ForEachUpload):
    """Adds tags to uploads, as an edit by a human."""

    kind = "tag"
    batch_size = 500

    def _handle(self, job: Job, ids: list[str]) -> tuple[int, list[Failure]]:
        tagged = {
            *self._database.editing.edit_tags(ids, self._tag_edit(tuple(job.parameters["tags"])))
        }
        return len(tagged), [Failure(i, TOO_MANY_TAGS) for i in ids if i not in tagged]

    def _tag_edit(self, tags: tuple[str, ...]) -> TagEdit:
        return TagEdit(add=tags)


class RemoveTags(AddTags):
    """Removes tags from uploads, as an edit by a human."""

    kind = "untag"

    def _tag_edit(self, tags: tuple[str, ...]) -> TagEdit:
        return TagEdit(remove=tags)


class ForgetAnalyzer:
    """Removes all that is left of an analyzer which no plugin brings any more."""

    kind = "forget"

    def __init__(self, database: Database, plugin_manager: PluginManager):
        self._database = database
        self._plugin_manager = plugin_manager

    def step(self, job: Job) -> JobProgress:
        """Drop its indexes first, then remove some of its vectors, then some of its analyses."""
        name = job.parameters["analyzer"]
        require_gone(self._plugin_manager, name)
        counts = {"analyses": 0, "vectors": 0, **job.counts}
        if "indexes" not in counts:
            left = left_behind(self._database, name)
            self._database.forgetting.drop_indexes(left.indexes)
            counts["indexes"] = len(left.indexes)
            counts["selected"] = left.analyses
            return JobProgress(None, None, counts)
        if vectors := self._database.vectors.forget(name):
            counts["vectors"] += vectors
            return JobProgress(None, None, counts)
        removed = self._database.forgetting.remove_analyses(name)
        counts["analyses"] += removed
        counts[State.SUCCEEDED] = counts["analyses"]
        if not removed:
            self._database.circuit_breakers.close(name)
        return JobProgress(None, counts["analyses"] or None, counts, ended=not removed)

    def reclaim(self, job: Job) -> JobProgress:
        """Leave the rest as it is; what is removed is gone."""
        return JobProgress(job.after, job.total, dict(job.counts), ended=True)


class ForgettingJobs:
    """Creates jobs that remove what is left of analyzers."""

    def __init__(self, database: Database, plugin_manager: PluginManager):
        self._database = database
        self._plugin_manager = plugin_manager

    def left_behind(self, analyzer: str) -> LeftBehind:
        """What there is of an analyzer that is gone.

        Raises:
            InvalidInput: it is not gone, or there is nothing of it.
        """
        require_gone(self._plugin_manager, analyzer)
        left = left_behind(self._database, analyzer)
        if left == LeftBehind(0, 0, ()):
            raise InvalidInput({"analyzer": [f"there is nothing of an analyzer {analyzer}"]})
        return left

    def create(self, analyzer: str, request_id: str) -> Job:
        """Create a job that removes all that is left of an analyzer.

        Raises:
            InvalidInput: it is not gone.
            TooManyJobs: as many jobs as are allowed wait or run already.
        """
        require_gone(self._plugin_manager, analyzer)
        self._database.jobs.require_capacity()
        return _add_job(self._database, ForgetAnalyzer.kind, {"analyzer": analyzer}, request_id)


def left_behind(database: Database, analyzer: str) -> LeftBehind:
    """What there is of an analyzer."""
    return database.forgetting.left_behind(analyzer, database.unused_indexes())


def require_gone(plugin_manager: PluginManager, analyzer: str) -> None:
    """Check that no plugin brings an analyzer, nor would if it could be loaded.

    Raises:
        InvalidInput: one does.
    """
    if analyzer in plugin_manager.analyzers:
        name = plugin_manager.plugin_of(plugin_manager.analyzers[analyzer]).name
        reason = f"the plugin {name} brings {analyzer}; remove it, or add it to PLUGINS_DISABLED"
        raise InvalidInput({"analyzer": [reason]})
    broken = [
        plugin
        for plugin in plugin_manager.plugins
        if plugin.state not in (PluginState.LOADED, PluginState.DISABLED)
    ]
    for plugin in broken:  # Nobody knows which analyzers it brings.
        reason = (
            f"the plugin {plugin.name} is {plugin.state}, and may bring {analyzer}; remove it, or "
            "add it to PLUGINS_DISABLED"
        )
        raise InvalidInput({"analyzer": [reason]})


BULK_KINDS = (DeleteUploads, RestoreUploads, AddTags, RemoveTags)


def reason_of(error: Exception) -> str:
    """The error that a failed job shows."""
    if isinstance(error, InvalidInput):
        return " ".join(message for messages in error.errors.values() for message in messages)
    return failure_messages.describe_exception(error)


def _has_unfinished(counts: Mapping[str, int]) -> bool:
    return any(counts.get(state, 0) for state in UNFINISHED)


class JobRunner:
    """Runs the jobs in one process at a time, and counts analyses and uploads now and then."""

    def __init__(
        self, database: Database, queue: Queue, plugin_manager: PluginManager, removal: Removal
    ):
        self._database = database
        self._plugin_manager = plugin_manager
        kinds: list[JobKind] = [AnalyzeUploads(database, queue, plugin_manager)]
        kinds += [kind(database, removal) for kind in BULK_KINDS]
        kinds.append(ForgetAnalyzer(database, plugin_manager))
        self._kinds = {kind.kind: kind for kind in kinds}
        self._owner = uuid4().hex
        self._indexed = False
        self._next_count_at = dict.fromkeys([*plugin_manager.analyzers, UPLOAD_TOTALS], 0.0)
        self._totals_seconds = 0.0
        self._changed_at = time.monotonic()
        self._last_count_began_at = dict.fromkeys(self._next_count_at, 0.0)

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
        to_count = [name for name in to_count if self._may_have_changed(name)]
        if not jobs and not to_count and not backfills:
            return False
        if not self._database.leases.acquire(LEASE, self._owner, LEASE_SECONDS):
            later = began + STATISTICS_EVERY_SECONDS
            self._next_count_at.update(dict.fromkeys(to_count, later))
            return False
        if not self._indexed:  # A web process makes them, too, unless it started without MongoDB.
            self._database.make_indexes()
            self._indexed = True
        for name, count in backfills.items():
            self._order_backfill(name, count)
        busy = [self._advance_job(job) for job in jobs]
        if to_count:
            self._count_analyses(to_count[0])
        return any(busy) or len(to_count) > 1

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
            kind = self._kinds[job.kind]
            step = kind.reclaim(job) if job.cancel_requested_at else kind.step(job)
        except DatabaseUnavailable:
            raise
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

    def _may_have_changed(self, name: str) -> bool:
        """Whether the last count may be outdated; if not, put the next one off."""
        if name == UPLOAD_TOTALS and self._totals_seconds:
            return True  # The counting goes on.
        self._look_for_changes()
        if self._last_count_began_at[name] <= self._changed_at:
            return True
        self._next_count_at[name] = time.monotonic() + STATISTICS_EVERY_SECONDS
        return False

    def _look_for_changes(self) -> None:
        if self._database.change_watch.has_changed():
            self._changed_at = time.monotonic()

    def _begin_count(self, name: str) -> float:
        """Note when a count begins: it has all changes so far, which need no other one."""
        self._look_for_changes()
        began = self._last_count_began_at[name] = time.monotonic()
        return began

    def _count_analyses(self, name: str) -> None:
        """Count the analyses of one analyzer; the longer that takes, the later comes the next."""
        if name == UPLOAD_TOTALS:
            self._count_uploads()
            return
        began = self._begin_count(name)
        try:
            self._database.statistics.count(self._plugin_manager.analyzers[name])
        finally:
            took = time.monotonic() - began
            pause = max(STATISTICS_EVERY_SECONDS, STATISTICS_PAUSES * took)
            self._next_count_at[name] = time.monotonic() + pause

    def _count_uploads(self) -> None:
        """Count a part of the uploads; when all are counted, schedule the next count."""
        is_complete = True
        began = time.monotonic() if self._totals_seconds else self._begin_count(UPLOAD_TOTALS)
        try:
            is_complete = self._database.counters.step()
        finally:
            self._totals_seconds += time.monotonic() - began
            if is_complete:
                pause = max(STATISTICS_EVERY_SECONDS, STATISTICS_PAUSES * self._totals_seconds)
                self._next_count_at[UPLOAD_TOTALS] = time.monotonic() + pause
                self._totals_seconds = 0.0
