"""`clustr analyze`: have an analyzer look at what it has not looked at, or once more."""

import sys
import time
from typing import NoReturn
from uuid import uuid4

import click

from clustr import logs
from clustr.cli.running_service import read_settings_of_running_service
from clustr.components import build_reanalysis
from clustr.database import AnalysisSelection, Database, Job, JobState, UploadsForAnalyzer
from clustr.domain.errors import ClustrError, DatabaseUnavailable, InvalidInput
from clustr.services.bulk import AnalysisJobs
from clustr.settings import Settings

DONE, SOME_FAILED, REFUSED, INTERRUPTED = 0, 1, 2, 130
LOOK_EVERY_SECONDS = 0.5
# On a terminal a line is written over and over; elsewhere each is one more line to read.
SAY_EVERY_SECONDS = 5.0
PATIENCE_SECONDS = 5.0
BAR_WIDTH = 30


@click.command()
@click.argument("analyzer", metavar="NAME")
@click.option(
    "--missing",
    "select",
    flag_value=AnalysisSelection.MISSING.value,
    help="Uploads without a result: they came before the analyzer, or it failed.",
)
@click.option(
    "--stale",
    "select",
    flag_value=AnalysisSelection.STALE.value,
    help="Those that an earlier version of the analyzer looked at.",
)
@click.option(
    "--failed", "select", flag_value=AnalysisSelection.FAILED.value, help="Those where it failed."
)
@click.option("--all", "select", flag_value=AnalysisSelection.ALL.value, help="All uploads.")
@click.option("--limit", type=click.IntRange(1), help="How many at most, the oldest first.")
@click.option("--dry-run", is_flag=True, help="Only say how many, and how long they take.")
def analyze(analyzer: str, select: str | None, limit: int | None, dry_run: bool) -> None:
    """Have the analyzer NAME look at uploads that it has not looked at, or once more.

    New uploads go first, and what is under way is left alone. A result that is there stays until
    there is a new one. The work is done by the workers: Ctrl-C ends the watching only.

    Exit code: 0 when all is done, 1 when some failed or the job did not come to its end, 2 when it
    was refused or could not be ordered, 130 after Ctrl-C.
    """
    if select is None:
        refuse("say which uploads: --missing, --stale, --failed or --all")
    selection = UploadsForAnalyzer(analyzer, AnalysisSelection(select), limit=limit)
    settings = read_settings_of_running_service()
    logs.configure(settings.log_format, "error")
    with build_reanalysis(settings) as (analysis_jobs, database):
        try:
            if dry_run:
                say_estimate(analysis_jobs, selection)
                return
            job = analysis_jobs.create(selection, uuid4().hex)
        except InvalidInput as error:
            refuse(" ".join(message for said in error.errors.values() for message in said))
        except DatabaseUnavailable:
            refuse("MongoDB does not answer at the address of MONGODB_URL")
        except ClustrError as error:
            refuse(str(error))
        sys.exit(watch(database, job, settings))


def refuse(reason: str) -> NoReturn:
    click.echo(f"clustr: {reason}", err=True)
    sys.exit(REFUSED)


def say_estimate(analysis_jobs: AnalysisJobs, selection: UploadsForAnalyzer) -> None:
    found = analysis_jobs.estimate(selection)
    takes = "nobody knows yet how long one takes"
    if found.seconds is not None:
        takes = f"one worker takes about {duration(found.seconds)}"
    click.echo(f"{found.matched} uploads; {takes}. Nothing was changed.")


def duration(seconds: float) -> str:
    """A duration in words for people, as in `2 h 5 min`."""
    if seconds < 60:
        return f"{max(1, round(seconds))} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def watch(database: Database, job: Job, settings: Settings) -> int:
    """Say how far the job is until it ends; the exit code."""
    progress = Progress(sys.stdout.isatty())
    progress.line(f"Job {job.id}: {job.parameters['select']} of {job.parameters['analyzer']}.")
    try:
        while not job.ended:
            time.sleep(LOOK_EVERY_SECONDS)
            job = looked_up(database, job, progress)
            progress.show(job)
    except KeyboardInterrupt:
        address = settings.base_url or f"http://{settings.host}:{settings.port}"
        progress.line(
            f"The job goes on. To cancel it: curl -X POST {address}/api/jobs/{job.id}/cancel"
        )
        return INTERRUPTED
    progress.line(ending(job))
    fine = job.state is JobState.SUCCEEDED and not job.counts.get("failed")
    return DONE if fine else SOME_FAILED


def looked_up(database: Database, job: Job, progress: "Progress") -> Job:
    """The job as it is now, or as it was while the database does not answer."""
    try:
        return database.jobs.get(job.id)
    except DatabaseUnavailable:
        progress.once("MongoDB does not answer; the job goes on when it does.")
        return job


def ending(job: Job) -> str:
    counts = [f"{job.counts[name]} {name}" for name in SAID if job.counts.get(name)]
    said = f"{job.state.capitalize()}: {', '.join(counts) or 'there was nothing to do'}."
    return f"{said} {job.error}" if job.error else said


SAID = ("succeeded", "skipped", "failed", "deferred", "running", "cancelled")


class Progress:
    """What is said while a job is under way.

    Args:
        terminal: whether there is somebody who watches a bar.
    """

    def __init__(self, terminal: bool):
        self._terminal = terminal
        self._began = self._said_at = time.monotonic()
        self._said: set[str] = set()
        self._bar = ""

    def line(self, text: str) -> None:
        if self._bar:
            click.echo()
            self._bar = ""
        click.echo(text)

    def once(self, text: str) -> None:
        if text not in self._said:
            self._said.add(text)
            self.line(text)

    def show(self, job: Job) -> None:
        """Say how far the job is, as often as is good to read."""
        moment = time.monotonic()
        if job.state is JobState.QUEUED and moment - self._began > PATIENCE_SECONDS:
            self.once("No worker has taken it up yet; `clustr worker` starts one.")
        if self._terminal:
            self._draw(job)
        elif moment - self._said_at >= SAY_EVERY_SECONDS and not job.ended:
            self._said_at = moment
            self.line(text_of(job))

    def _draw(self, job: Job) -> None:
        done, total = finished(job), job.total or job.counts.get("selected", 0)
        filled = BAR_WIDTH * done // total if total else 0
        bar = f"[{'#' * filled:<{BAR_WIDTH}}] {text_of(job)}"
        click.echo(f"\r{bar:<{len(self._bar)}}", nl=False)
        self._bar = bar


def finished(job: Job) -> int:
    return sum(job.counts.get(state, 0) for state in ("succeeded", "skipped", "failed"))


def text_of(job: Job) -> str:
    selected = job.counts.get("selected", 0)
    more = "" if job.total is not None else " so far"
    said = f"{finished(job)} of {selected}{more}"
    others = [
        f"{job.counts[name]} {name}" for name in ("failed", "deferred") if job.counts.get(name)
    ]
    return ", ".join([said, *others])
