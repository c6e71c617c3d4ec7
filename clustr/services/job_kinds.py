"""Kinds of jobs: what each does with a batch of uploads.

A new kind is one class here, which `clustr.services.job_runner.JobRunner` has to know.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from clustr import logs
from clustr.database import (
    Database,
    DatabaseView,
    Failure,
    Job,
    LeftBehind,
    ReanalysisSelection,
    UploadSelection,
)
from clustr.database.editing import TOO_MANY_TAGS
from clustr.domain import failure_messages
from clustr.domain.edits import TagEdit
from clustr.domain.errors import (
    ClustrError,
    DatabaseUnavailable,
    InvalidInput,
    QueueUnavailable,
    StorageUnavailable,
)
from clustr.domain.models import UNFINISHED, State
from clustr.plugin_manager import PluginManager, PluginState
from clustr.plugins import Analyzer
from clustr.queue import Queue
from clustr.services.removal import Removal

log = logs.logger(__name__)

# Counts are made at most so often, and less often the longer a count takes: the pause is at least
# so many times the duration of the count.
COUNT_EVERY_SECONDS = 1.0
COUNT_PAUSES = 10


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
        """Handle the next batch; to repeat it must change nothing.

        Raises:
            DatabaseUnavailable: MongoDB does not answer; the job waits.
            StorageFull, StorageUnavailable: the store is away; the job waits.
        """
        ...

    def reclaim(self, job: Job) -> JobProgress:
        """Handle a part of a cancelled job: undo what it has begun and no worker has done yet."""
        ...


class AnalyzeUploads:
    """Runs one analyzer on uploads (again); the job ends with the last of its analyses."""

    kind = "analyze"

    def __init__(self, database: DatabaseView, queue: Queue, plugin_manager: PluginManager):
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
        try:
            counts = self._count_states(job)
        except DatabaseUnavailable as error:  # To count may take too long; to queue goes on.
            log.warning("analyses_not_counted", job=job.id, reason=str(error))
            counts = dict(job.counts)
        counts["selected"] = selected
        return JobProgress(batch.after, selected if batch.last else None, counts)

    def _check_analyses(self, job: Job) -> JobProgress:
        if self._is_paused(job):  # The last counts may be older than the last batch.
            return JobProgress(job.after, job.total, job.counts, busy=False)
        counts = self._count_now(job)
        if not _has_unfinished(counts):  # They are of different moments; by now nothing changes.
            counts = self._count_now(job)
        if _has_unfinished(counts):
            return JobProgress(job.after, job.total, counts, busy=False)
        self._next_count_at.pop(job.id, None)
        failures = self._database.selections.failures(job.id) if counts[State.FAILED] else []
        return JobProgress(job.after, job.total, counts, ended=True, failures=failures)

    def _count_states(self, job: Job) -> dict[str, int]:
        """Count the job's analyses by state; while it is not time to, return the last counts."""
        return dict(job.counts) if self._is_paused(job) else self._count_now(job)

    def _is_paused(self, job: Job) -> bool:
        return time.monotonic() < self._next_count_at.get(job.id, 0)

    def _count_now(self, job: Job) -> dict[str, int]:
        """Count them; the longer that takes, also where it fails, the later is it time to again."""
        began = time.monotonic()
        try:
            counted = self._database.selections.count_states(job.id)
            return {"selected": 0, **job.counts, **counted}
        finally:
            pause = max(COUNT_EVERY_SECONDS, COUNT_PAUSES * (time.monotonic() - began))
            self._next_count_at[job.id] = time.monotonic() + pause

    def reclaim(self, job: Job) -> JobProgress:
        """Take a batch of analyses that no worker has begun out of the queue again."""
        has_more = self._database.selections.withdraw_batch(job.id)
        counts = self._count_now(job)
        self._next_count_at.pop(job.id, None)
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

    def __init__(self, database: DatabaseView, removal: Removal):
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
        already = self._moved_by_job(job, ids)
        done, errors = len(already), {}
        for upload_id in ids:
            if upload_id in already:
                continue
            try:
                done += self._move_upload(upload_id, job)
            except (DatabaseUnavailable, StorageUnavailable):
                raise
            except ClustrError as error:
                self._removal.require_store()  # While it is away, the job waits.
                errors[upload_id] = str(error)
        # The record decides; of an upload whose file was not moved the reconciler moves it.
        moved = self._moved_by_job(job, [*errors]) if errors else set()
        failures = [Failure(i, reason) for i, reason in errors.items() if i not in moved]
        return done + len(moved), failures

    def _moved_by_job(self, job: Job, ids: list[str]) -> set[str]:
        return self._database.selections.moved_by_job(job, uploads_of_job(job), ids)

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


def _has_unfinished(counts: Mapping[str, int]) -> bool:
    """Whether an analysis is not finished, as far as is known: a state may not be counted yet."""
    return any(counts.get(state, 1) for state in UNFINISHED)
