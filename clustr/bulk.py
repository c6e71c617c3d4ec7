"""Bulk: what is done to many uploads at once, as jobs that go on where they were.

Somebody writes a job down; one process of all takes it up and does it step by step, each step a
batch of uploads and a word in the database on how far it is. When that process is killed another
goes on, and does at most one batch once more, which changes nothing. A new kind of job is one class
here and one line in `Bulk`.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol
from uuid import uuid4

from clustr import logs, reasons
from clustr.catalog import Catalog, Failure, Job, JobState, Selection
from clustr.errors import ClustrError, DatabaseUnavailable, InvalidInput, QueueUnavailable
from clustr.plugin_host import PluginHost
from clustr.plugins import Analyzer
from clustr.queue import Queue
from clustr.upload import UNFINISHED, State

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


@dataclass(frozen=True, slots=True)
class Estimate:
    """How many uploads are selected, and how many seconds one worker would take for them.

    The seconds are None while nobody knows how long one takes.
    """

    matched: int
    seconds: float | None


class Reanalysis:
    """Takes orders for analyses: of uploads that came before an analyzer, or to be done again."""

    def __init__(self, catalog: Catalog, host: PluginHost):
        self._catalog = catalog
        self._host = host

    def estimate(self, selection: Selection) -> Estimate:
        """What an order would come to.

        Raises:
            InvalidInput: there is no such analyzer.
            TooSlow: there are too many uploads to count them for somebody who waits.
        """
        analyzer = analyzer_named(self._host, selection.analyzer)
        matched = self._catalog.selections.count(selection, analyzer)
        durations = self._catalog.statistics.durations(analyzer)
        seconds = round(matched * durations.p50 / 1000, 1) if durations else None
        return Estimate(matched, seconds)

    def order(self, selection: Selection, request_id: str) -> Job:
        """Write down a job that has the analyzer look at what is selected.

        Raises:
            InvalidInput: there is no such analyzer.
        """
        analyzer_named(self._host, selection.analyzer)
        job = self._catalog.jobs.add(Analyze.kind, selection.parameters(), request_id)
        log.info("job_added", job=job.id, kind=job.kind, parameters=job.parameters)
        return job


def analyzer_named(host: PluginHost, name: str) -> Analyzer:
    """The analyzer of this name.

    Raises:
        InvalidInput: there is none.
    """
    if name not in host.analyzers:
        raise InvalidInput({"analyzer": [reasons.unknown("analyzer", name, host.analyzers)]})
    return host.analyzers[name]


def dependants_of(host: PluginHost, name: str) -> list[str]:
    """The names of the analyzers that require this one, directly or by another."""
    found = [name]
    for analyzer in host.analyzers.values():  # Those that are required come first.
        if any(required in found for required in analyzer.requires):
            found.append(analyzer.name)
    return found[1:]


@dataclass(frozen=True, slots=True)
class Step:
    """How far a job is after one more step.

    Attributes:
        after: the id of the last upload that was handled.
        total: how many uploads it is about, once that is known.
        counts: how many have come how far.
        ended: whether all is done.
        failures: what went wrong with single uploads; looked at when all is done.
        busy: whether the next step can be done at once.
    """

    after: str | None
    total: int | None
    counts: Mapping[str, int]
    ended: bool = False
    failures: list[Failure] = field(default_factory=list)
    busy: bool = True


class Work(Protocol):
    """One kind of job."""

    kind: str

    def step(self, job: Job) -> Step:
        """Handle the next batch; to handle it once more has to change nothing."""
        ...

    def take_back(self, job: Job) -> Step:
        """Undo a part of what the job began and nobody has done, for it was cancelled."""
        ...


class Analyze:
    """Has one analyzer look at uploads (again); the job ends with the last of its analyses."""

    kind = "analyze"

    def __init__(self, catalog: Catalog, queue: Queue, host: PluginHost):
        self._catalog = catalog
        self._queue = queue
        self._host = host
        self._count_at: dict[str, float] = {}

    def step(self, job: Job) -> Step:
        """Queue a batch; when all are queued, see how far they are."""
        selection = Selection.of(job.parameters)
        analyzer = analyzer_named(self._host, selection.analyzer)
        if job.total is not None:
            return self._watch(job)
        dependants = dependants_of(self._host, analyzer.name)
        batch = self._catalog.selections.queue(job, selection, analyzer, dependants)
        if batch.selected:
            self._ring(analyzer)
        selected = job.counts.get("selected", 0) + batch.selected
        counts = {**self._counts(job), "selected": selected}
        return Step(batch.after, selected if batch.last else None, counts)

    def _watch(self, job: Job) -> Step:
        counts = self._counts(job)
        if _unfinished(counts):
            return Step(job.after, job.total, counts, busy=False)
        counts = self._final_counts(job)  # Those before may be of before the last batch.
        if _unfinished(counts):
            return Step(job.after, job.total, counts, busy=False)
        failures = self._catalog.selections.failures(job.id) if counts[State.FAILED] else []
        return Step(job.after, job.total, counts, ended=True, failures=failures)

    def _counts(self, job: Job) -> dict[str, int]:
        """How many analyses are in each state, as they were counted a short while ago."""
        began = time.monotonic()
        if began < self._count_at.get(job.id, 0):
            return dict(job.counts)
        states = self._catalog.selections.states(job.id)
        pause = max(COUNT_EVERY_SECONDS, COUNT_PAUSES * (time.monotonic() - began))
        self._count_at[job.id] = time.monotonic() + pause
        return {**job.counts, **states}

    def _final_counts(self, job: Job) -> dict[str, int]:
        self._count_at.pop(job.id, None)
        return {"selected": 0, **job.counts, **self._catalog.selections.states(job.id)}

    def take_back(self, job: Job) -> Step:
        """Let a batch of what nobody has begun with be as before."""
        more = self._catalog.selections.put_back(job.id)
        counts = self._final_counts(job)
        others = sum(counts[state] for state in State if state is not State.CANCELLED)
        counts[State.CANCELLED] = max(0, counts["selected"] - others)
        return Step(job.after, job.total, counts, ended=not more)

    def _ring(self, analyzer: Analyzer) -> None:
        try:
            self._queue.ring([analyzer])
        except QueueUnavailable:
            log.warning("bell_not_rung")


def reason_of(error: Exception) -> str:
    """What to say of a job that cannot go on."""
    if isinstance(error, InvalidInput):
        return " ".join(message for said in error.errors.values() for message in said)
    return reasons.of(error)


def _unfinished(counts: Mapping[str, int]) -> bool:
    return any(counts.get(state, 0) for state in UNFINISHED)


class Bulk:
    """Does the jobs, in one process at a time, and counts the analyses now and then."""

    def __init__(self, catalog: Catalog, queue: Queue, host: PluginHost):
        self._catalog = catalog
        self._host = host
        works: list[Work] = [Analyze(catalog, queue, host)]
        self._works = {work.kind: work for work in works}
        self._owner = uuid4().hex
        self._indexed = False
        self._count_at = dict.fromkeys(host.analyzers, 0.0)

    def run_for_ever(self) -> None:
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
        jobs = self._catalog.jobs.unended()
        began = time.monotonic()
        to_count = [name for name, count_at in self._count_at.items() if began >= count_at]
        if not jobs and not to_count:
            return False
        if not self._catalog.leases.take(LEASE, self._owner, LEASE_SECONDS):
            return False
        if not self._indexed:  # The web side does it too, but may have started without MongoDB.
            self._catalog.make_indexes()
            self._indexed = True
        busy = [self._advance(job) for job in jobs]
        if to_count:
            self._count(to_count[0])
        return any(busy) or len(to_count) > 1

    def stop(self) -> None:
        """Let another process take over at once."""
        self._catalog.leases.give_back(LEASE, self._owner)

    def _advance(self, job: Job) -> bool:
        """Do one step of a job and write down how far it is; whether more can be done at once."""
        if job.state is JobState.QUEUED and not job.cancel_requested_at:
            return self._catalog.jobs.begin(job, self._catalog.selections.newest())
        try:
            work = self._works[job.kind]
            step = work.take_back(job) if job.cancel_requested_at else work.step(job)
        except DatabaseUnavailable:
            raise
        except Exception as error:  # It would go wrong at every round; the other jobs go on.
            log.exception("job_failed", job=job.id)
            self._catalog.jobs.end(job, JobState.FAILED, job.counts, error=reason_of(error))
            return False
        if not step.ended:
            if (step.after, step.total, step.counts) != (job.after, job.total, job.counts):
                self._catalog.jobs.advance(job, step.after, step.total, step.counts)
            return step.busy
        state = JobState.CANCELLED if job.cancel_requested_at else JobState.SUCCEEDED
        if self._catalog.jobs.end(job, state, step.counts, failures=step.failures):
            log.info("job_ended", job=job.id, kind=job.kind, state=state, counts=step.counts)
        return False

    def _count(self, name: str) -> None:
        """Count the analyses of one analyzer; the next time is the later the longer that takes."""
        began = time.monotonic()
        try:
            self._catalog.statistics.count(self._host.analyzers[name])
        finally:
            took = time.monotonic() - began
            pause = max(STATISTICS_EVERY_SECONDS, STATISTICS_PAUSES * took)
            self._count_at[name] = time.monotonic() + pause
