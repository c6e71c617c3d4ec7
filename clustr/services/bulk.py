"""Bulk: what is done to many uploads at once, as jobs that go on where they were.

Somebody writes a job down; one process of all takes it up and does it step by step, each step a
batch of uploads and a word in the database on how far it is. When that process is killed another
goes on, and does at most one batch once more, which changes nothing. A new kind of job is one class
here and one line in `JobRunner`.
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
    SelectedUploads,
    TagEdit,
    UploadsForAnalyzer,
    Versions,
)
from clustr.database.editing import TOO_MANY
from clustr.domain import failure_messages
from clustr.domain.errors import (
    ClustrError,
    DatabaseUnavailable,
    InvalidInput,
    NotFound,
    QueueUnavailable,
)
from clustr.domain.models import UNFINISHED, State, Upload
from clustr.plugin_manager import PluginManager
from clustr.plugins import Analyzer
from clustr.queue import DoorbellRinger, Queue
from clustr.services.default_services import DefaultServices
from clustr.services.removal import Removal

log = logs.logger(__name__)

LEASE = "jobs"
LEASE_SECONDS = 15.0
IDLE_SECONDS = 1.0
# Between two steps as long a pause as the step took, so that others have the database, too.
SHORTEST_PAUSE_SECONDS = 0.02
# What is counted is counted so often at most, and the less often the longer it takes.
COUNT_EVERY_SECONDS = 1.0
COUNT_PAUSES = 10
STATISTICS_EVERY_SECONDS = 10.0
STATISTICS_PAUSES = 20
TALLIES = "/tallies"  # no analyzer is called so


@dataclass(frozen=True, slots=True)
class Estimate:
    """How many uploads are selected, and how many seconds one worker would take for them.

    The seconds are None while nobody knows how long one takes.
    """

    matched: int
    seconds: float | None


class AnalysisOrders:
    """Takes orders for analyses: of uploads that came before an analyzer, or to be done again."""

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

    def estimate(self, selection: UploadsForAnalyzer) -> Estimate:
        """What an order would come to.

        Raises:
            InvalidInput: there is no such analyzer.
            NotConfigured: nobody has said where its service is.
            TooSlow: there are too many uploads to count them for somebody who waits.
        """
        analyzer = analyzer_named(self._plugin_manager, selection.analyzer)
        self._services.require(analyzer)
        matched = self._database.selections.count(selection, analyzer)
        durations = self._database.statistics.durations(analyzer)
        seconds = round(matched * durations.p50 / 1000, 1) if durations else None
        return Estimate(matched, seconds)

    def order(self, selection: UploadsForAnalyzer, request_id: str) -> Job:
        """Write down a job that has the analyzer look at what is selected.

        Raises:
            InvalidInput: there is no such analyzer.
            NotConfigured: nobody has said where its service is.
            TooManyJobs: as many as may wait or run already.
        """
        self._services.require(analyzer_named(self._plugin_manager, selection.analyzer))
        self._database.jobs.require_room()
        return add_analyses(self._database, selection, request_id)

    def run_again(self, upload_id: str, name: str, versions: Versions = ANY_VERSION) -> Upload:
        """Have an analyzer look at one upload (again), as soon as at a new one.

        Args:
            versions: of which the upload may be.

        Returns:
            the upload with the analysis queued; its last good result stays for now.

        Raises:
            NotFound: there is no such upload, or no such analyzer.
            NotConfigured: nobody has said where its service is.
            Outdated: the upload is of none of these versions.
            UnderWay: the analysis has not come to its end.
        """
        if name not in self._plugin_manager.analyzers:
            said = failure_messages.unknown_name("analyzer", name, self._plugin_manager.analyzers)
            raise NotFound(f"{said[0].upper()}{said[1:]}")
        analyzer = self._plugin_manager.analyzers[name]
        self._services.require(analyzer)
        dependants = dependants_of(self._plugin_manager, name)
        upload = self._database.selections.queue_one(upload_id, analyzer, dependants, versions)
        self._ringer.ring([analyzer])
        return upload


class BulkOrders:
    """Takes orders to do the same to many uploads."""

    def __init__(self, database: Database):
        self._database = database

    def matched(self, kind: str, chosen: SelectedUploads) -> int:
        """How many uploads there are at this moment that an order is about.

        Raises:
            TooSlow: there are too many uploads to count them for somebody who waits.
        """
        return self._database.selections.count_chosen(
            replace(chosen, trashed=kind == RestoreUploads.kind)
        )

    def order(
        self, kind: str, chosen: SelectedUploads, tags: Sequence[str] | None, request_id: str
    ) -> Job:
        """Write down a job that does this kind of thing to what is chosen.

        Args:
            kind: `delete`, `restore`, `tag` or `untag`.
            tags: for the last two, which.

        Raises:
            TooManyJobs: as many as may wait or run already.
        """
        self._database.jobs.require_room()
        parameters = chosen.parameters() | ({"tags": [*tags]} if tags else {})
        return _added(self._database, kind, parameters, request_id)


def add_analyses(database: Database, selection: UploadsForAnalyzer, request_id: str) -> Job:
    """Write down a job that has an analyzer look at what is selected, however many jobs wait."""
    return _added(database, AnalyzeUploads.kind, selection.parameters(), request_id)


def _added(database: Database, kind: str, parameters: Mapping[str, Any], request_id: str) -> Job:
    """Write down a job; the log has the number of the ids that it names, which can be thousands."""
    job = database.jobs.add(kind, parameters, request_id)
    said = {name: len(v) if name == "ids" else v for name, v in parameters.items()}
    log.info("job_added", job=job.id, kind=kind, parameters=said)
    return job


def analyzer_named(plugin_manager: PluginManager, name: str) -> Analyzer:
    """The analyzer of this name.

    Raises:
        InvalidInput: there is none.
    """
    if name not in plugin_manager.analyzers:
        raise InvalidInput(
            {
                "analyzer": [
                    failure_messages.unknown_name("analyzer", name, plugin_manager.analyzers)
                ]
            }
        )
    return plugin_manager.analyzers[name]


def dependants_of(plugin_manager: PluginManager, name: str) -> list[str]:
    """The names of the analyzers that require this one, directly or by another."""
    found = [name]
    for analyzer in plugin_manager.analyzers.values():  # Those that are required come first.
        if any(required in found for required in analyzer.requires):
            found.append(analyzer.name)
    return found[1:]


@dataclass(frozen=True, slots=True)
class JobProgress:
    """How far a job is after one more step.

    Attributes:
        after: the id of the last upload that was handled.
        total: how many uploads it is about, once that is known.
        counts: how many have come how far.
        ended: whether all is done.
        failures: what went wrong with single uploads since the step before.
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
        """Handle the next batch; to handle it once more has to change nothing."""
        ...

    def reclaim(self, job: Job) -> JobProgress:
        """Undo a part of what the job began and nobody has done, for it was cancelled."""
        ...


class AnalyzeUploads:
    """Has one analyzer look at uploads (again); the job ends with the last of its analyses."""

    kind = "analyze"

    def __init__(self, database: Database, queue: Queue, plugin_manager: PluginManager):
        self._database = database
        self._queue = queue
        self._plugin_manager = plugin_manager
        self._count_at: dict[str, float] = {}

    def step(self, job: Job) -> JobProgress:
        """Queue a batch; when all are queued, see how far they are."""
        selection = UploadsForAnalyzer.of(job.parameters)
        analyzer = analyzer_named(self._plugin_manager, selection.analyzer)
        if job.total is not None:
            return self._watch(job)
        dependants = dependants_of(self._plugin_manager, analyzer.name)
        batch = self._database.selections.queue(job, selection, analyzer, dependants)
        if batch.selected:
            self._ring(analyzer)
        selected = job.counts.get("selected", 0) + batch.selected
        counts = {**self._counts(job), "selected": selected}
        return JobProgress(batch.after, selected if batch.last else None, counts)

    def _watch(self, job: Job) -> JobProgress:
        counts = self._counts(job)
        if _unfinished(counts):
            return JobProgress(job.after, job.total, counts, busy=False)
        counts = self._final_counts(job)  # Those before may be of before the last batch.
        if _unfinished(counts):
            return JobProgress(job.after, job.total, counts, busy=False)
        failures = self._database.selections.failures(job.id) if counts[State.FAILED] else []
        return JobProgress(job.after, job.total, counts, ended=True, failures=failures)

    def _counts(self, job: Job) -> dict[str, int]:
        """How many analyses are in each state, as they were counted a short while ago."""
        began = time.monotonic()
        if began < self._count_at.get(job.id, 0):
            return dict(job.counts)
        states = self._database.selections.states(job.id)
        pause = max(COUNT_EVERY_SECONDS, COUNT_PAUSES * (time.monotonic() - began))
        self._count_at[job.id] = time.monotonic() + pause
        return {**job.counts, **states}

    def _final_counts(self, job: Job) -> dict[str, int]:
        self._count_at.pop(job.id, None)
        return {"selected": 0, **job.counts, **self._database.selections.states(job.id)}

    def reclaim(self, job: Job) -> JobProgress:
        """Let a batch of what nobody has begun with be as before."""
        more = self._database.selections.put_back(job.id)
        counts = self._final_counts(job)
        others = sum(counts[state] for state in State if state is not State.CANCELLED)
        counts[State.CANCELLED] = max(0, counts["selected"] - others)
        return JobProgress(job.after, job.total, counts, ended=not more)

    def _ring(self, analyzer: Analyzer) -> None:
        try:
            self._queue.ring([analyzer])
        except QueueUnavailable:
            log.warning("bell_not_rung")


def uploads_of_job(job: Job) -> SelectedUploads:
    """Which uploads a job is about that does one thing to each of them."""
    return SelectedUploads.of(job.parameters, trashed=job.kind == RestoreUploads.kind)


class ForEachUpload:
    """Does one thing to each of the uploads that are chosen; each kind says what."""

    kind: str
    batch: int

    def __init__(self, database: Database, removal: Removal):
        self._database = database
        self._removal = removal

    def step(self, job: Job) -> JobProgress:
        """Handle the next few, and say what became of each of them."""
        some = self._database.selections.next(job, uploads_of_job(job), self.batch)
        done, failures = self._do(job, some.ids)
        failures += [Failure(unknown, "There is no such upload.") for unknown in some.unknown]
        before = job.counts
        counts = {
            "selected": before.get("selected", 0) + done + len(failures),
            State.SUCCEEDED: before.get(State.SUCCEEDED, 0) + done,
            State.FAILED: before.get(State.FAILED, 0) + len(failures),
        }
        total = counts["selected"] if some.last else None
        return JobProgress(some.after, total, counts, ended=some.last, failures=failures)

    def _do(self, job: Job, ids: list[str]) -> tuple[int, list[Failure]]:
        """Do it to these; how many have it done, also before, and what went wrong with others."""
        raise NotImplementedError

    def reclaim(self, job: Job) -> JobProgress:
        """Leave the rest as it is; what is done stays done."""
        counts = dict(job.counts)
        if ids := uploads_of_job(job).ids:  # Of a filter nobody knows how many more there were.
            counts[State.CANCELLED] = len({*ids}) - counts.get("selected", 0)
        return JobProgress(job.after, job.total, counts, ended=True)


class MoveUploads(ForEachUpload):
    """Moves uploads into the trash, or out of it."""

    batch = 50

    def _do(self, job: Job, ids: list[str]) -> tuple[int, list[Failure]]:
        already = self._database.selections.done(job, uploads_of_job(job), ids)
        done, failures = len(already), []
        for upload_id in ids:
            if upload_id in already:
                continue
            try:
                done += self._move(upload_id, job)
            except DatabaseUnavailable:
                raise
            except ClustrError as error:
                failures.append(Failure(upload_id, str(error)))
        return done, failures

    def _move(self, upload_id: str, job: Job) -> bool:
        """Move one upload; False when it is none of the chosen any more."""
        raise NotImplementedError


class DeleteUploads(MoveUploads):
    """Puts uploads into the trash."""

    kind = "delete"

    def _do(self, job: Job, ids: list[str]) -> tuple[int, list[Failure]]:
        # Of copies the original goes last: with each that goes all others have to name another.
        return super()._do(job, ids[::-1])

    def _move(self, upload_id: str, job: Job) -> bool:
        return self._removal.remove(upload_id, job=job.id, filter=uploads_of_job(job).filter)


class RestoreUploads(MoveUploads):
    """Brings uploads back from the trash."""

    kind = "restore"

    def _move(self, upload_id: str, job: Job) -> bool:
        self._removal.restore(upload_id, job=job.id)
        return True


class AddTags(ForEachUpload):
    """Adds tags to uploads, as a human's word."""

    kind = "tag"
    batch = 500

    def _do(self, job: Job, ids: list[str]) -> tuple[int, list[Failure]]:
        tagged = {*self._database.editing.tag(ids, self._words(tuple(job.parameters["tags"])))}
        return len(tagged), [Failure(i, TOO_MANY) for i in ids if i not in tagged]

    def _words(self, tags: tuple[str, ...]) -> TagEdit:
        return TagEdit(add=tags)


class RemoveTags(AddTags):
    """Takes tags from uploads, as a human's word."""

    kind = "untag"

    def _words(self, tags: tuple[str, ...]) -> TagEdit:
        return TagEdit(remove=tags)


KINDS = (DeleteUploads, RestoreUploads, AddTags, RemoveTags)


def reason_of(error: Exception) -> str:
    """What to say of a job that cannot go on."""
    if isinstance(error, InvalidInput):
        return " ".join(message for said in error.errors.values() for message in said)
    return failure_messages.describe_exception(error)


def _unfinished(counts: Mapping[str, int]) -> bool:
    return any(counts.get(state, 0) for state in UNFINISHED)


class JobRunner:
    """Does the jobs, in one process at a time, and counts the analyses now and then."""

    def __init__(
        self, database: Database, queue: Queue, plugin_manager: PluginManager, removal: Removal
    ):
        self._database = database
        self._plugin_manager = plugin_manager
        works: list[JobKind] = [AnalyzeUploads(database, queue, plugin_manager)]
        works += [kind(database, removal) for kind in KINDS]
        self._works = {work.kind: work for work in works}
        self._owner = uuid4().hex
        self._indexed = False
        self._count_at = dict.fromkeys([*plugin_manager.analyzers, TALLIES], 0.0)
        self._tallied_seconds = 0.0
        self._changed_at = time.monotonic()
        self._counted_from = dict.fromkeys(self._count_at, 0.0)

    def run_forever(self) -> None:
        """One round after another; while the database is away a round does nothing."""
        while True:
            began, busy = time.monotonic(), False
            try:
                busy = self.run_once()
            except ClustrError as error:
                log.warning("jobs_wait", reason=str(error))
            took = time.monotonic() - began
            time.sleep(max(SHORTEST_PAUSE_SECONDS, took) if busy else IDLE_SECONDS)

    def run_once(self) -> bool:
        """One step of every job, unless another process is the one that acts.

        Returns:
            whether there is more to do at once.
        """
        jobs = self._database.jobs.unended()
        backfills = self._database.default_services.due_backfills()
        began = time.monotonic()
        to_count = [name for name, count_at in self._count_at.items() if began >= count_at]
        to_count = [name for name in to_count if self._may_have_changed(name)]
        if not jobs and not to_count and not backfills:
            return False
        if not self._database.leases.take(LEASE, self._owner, LEASE_SECONDS):
            later = began + STATISTICS_EVERY_SECONDS
            self._count_at.update(dict.fromkeys(to_count, later))
            return False
        if not self._indexed:  # The web side does it too, but may have started without MongoDB.
            self._database.make_indexes()
            self._indexed = True
        for name, count in backfills.items():
            self._backfill(name, count)
        busy = [self._advance(job) for job in jobs]
        if to_count:
            self._count(to_count[0])
        return any(busy) or len(to_count) > 1

    def stop(self) -> None:
        """Let another process take over at once."""
        self._database.leases.give_back(LEASE, self._owner)

    def _backfill(self, name: str, count: int) -> None:
        """Order what an analyzer has not looked at while its service was not known.

        So also for the analyzers that require it, which were skipped. Should this process be
        killed before it has written that down, all is ordered once more, and finds nothing.
        """
        names = (
            [name, *dependants_of(self._plugin_manager, name)]
            if name in self._plugin_manager.analyzers
            else []
        )
        for one in names:
            if self._plugin_manager.analyzers[one].auto:
                add_analyses(
                    self._database, UploadsForAnalyzer(one, AnalysisSelection.MISSING), uuid4().hex
                )
        self._database.default_services.backfill_ordered(name, count)

    def _advance(self, job: Job) -> bool:
        """Do one step of a job and write down how far it is; whether more can be done at once."""
        if job.state is JobState.QUEUED and not job.cancel_requested_at:
            return self._database.jobs.begin(job, self._database.selections.newest())
        try:
            work = self._works[job.kind]
            step = work.reclaim(job) if job.cancel_requested_at else work.step(job)
        except DatabaseUnavailable:
            raise
        except Exception as error:  # It would go wrong at every round; the other jobs go on.
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
        """Whether what was counted last may be otherwise by now; if not, it is looked at later."""
        if name == TALLIES and self._tallied_seconds:
            return True  # The counting goes on.
        moment = time.monotonic()
        if self._database.change_watch.changed():
            self._changed_at = moment
        if self._counted_from[name] <= self._changed_at:
            return True
        self._count_at[name] = moment + STATISTICS_EVERY_SECONDS
        return False

    def _count(self, name: str) -> None:
        """Count the analyses of one analyzer; the next time is the later the longer that takes."""
        if name == TALLIES:
            self._tally()
            return
        began = self._counted_from[name] = time.monotonic()
        try:
            self._database.statistics.count(self._plugin_manager.analyzers[name])
        finally:
            took = time.monotonic() - began
            pause = max(STATISTICS_EVERY_SECONDS, STATISTICS_PAUSES * took)
            self._count_at[name] = time.monotonic() + pause

    def _tally(self) -> None:
        """Count some more uploads; when all have been, the next time is as for the analyses."""
        began, is_over = time.monotonic(), True
        if not self._tallied_seconds:
            self._counted_from[TALLIES] = began
        try:
            is_over = self._database.counters.step()
        finally:
            self._tallied_seconds += time.monotonic() - began
            if is_over:
                pause = max(STATISTICS_EVERY_SECONDS, STATISTICS_PAUSES * self._tallied_seconds)
                self._count_at[TALLIES] = time.monotonic() + pause
                self._tallied_seconds = 0.0
