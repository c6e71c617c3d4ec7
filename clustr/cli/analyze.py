"""`clustr analyze`: run an analyzer on uploads without a result of it, or again."""

import sys
import time
from collections.abc import Iterable
from uuid import uuid4

import click

from clustr import logs
from clustr.cli.first_key import PLACEHOLDER_HEADER
from clustr.cli.refusals import refuse, refuse_errors
from clustr.cli.running_service import read_settings_of_running_service
from clustr.components import build_analysis_jobs
from clustr.database import AnalysisSelection, Database, Job, JobState, ReanalysisSelection
from clustr.domain.errors import DatabaseUnavailable, QueueUnavailable
from clustr.services.jobs import AnalysisJobs
from clustr.services.running_processes import RESTART_ADVICE, RunningProcesses
from clustr.settings import Settings

# Exit codes; `refuse` exits with 2.
DONE, SOME_FAILED, INTERRUPTED = 0, 1, 130
POLL_SECONDS = 0.5
# On a terminal the progress bar is overwritten; elsewhere each print is one more line.
PRINT_SECONDS = 5.0
NO_WORKER_HINT_SECONDS = 5.0
BAR_WIDTH = 30


@click.command()
@click.argument("analyzer", metavar="NAME", required=False)
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
    "--other-config",
    "select",
    flag_value=AnalysisSelection.OTHER_CONFIG.value,
    help="Those whose result another configuration of the plugin made.",
)
@click.option(
    "--failed", "select", flag_value=AnalysisSelection.FAILED.value, help="Those where it failed."
)
@click.option("--all", "select", flag_value=AnalysisSelection.ALL.value, help="All uploads.")
@click.option(
    "--all-stale",
    is_flag=True,
    help="Without a NAME: those of all analyzers that an earlier version looked at.",
)
@click.option("--limit", type=click.IntRange(1), help="How many at most, the oldest first.")
@click.option("--dry-run", is_flag=True, help="Only say how many, and how long they take.")
def analyze(
    analyzer: str | None, select: str | None, all_stale: bool, limit: int | None, dry_run: bool
) -> None:
    """Have the analyzer NAME look at uploads that it has not looked at, or once more.

    New uploads go first, and what is under way is left alone. A result that is there stays until
    there is a new one. The work is done by the workers: Ctrl-C ends the watching only.

    Exit code: 0 when all is done, 1 when some failed or the job did not come to its end, 2 when it
    was refused, as when a worker runs another version of the analyzer, or could not be ordered, 130
    after Ctrl-C.
    """
    if all_stale and (analyzer or select):
        refuse("--all-stale is for all analyzers: give neither a NAME nor another choice beside it")
    if not all_stale and (not analyzer or select is None):
        choices = "--missing, --stale, --other-config, --failed or --all"
        refuse(f"say NAME and which uploads: {choices}; or --all-stale alone")
    settings = read_settings_of_running_service()
    logs.configure(settings.log_format, "error")
    with build_analysis_jobs(settings) as (analysis_jobs, database, running_processes):
        with refuse_errors():
            names = [analyzer] if analyzer else analysis_jobs.stale_analyzers()
            for name in names:
                require_same_version(running_processes, name)
            select = select or AnalysisSelection.STALE
            selections = [
                ReanalysisSelection(name, AnalysisSelection(select), limit=limit) for name in names
            ]
            if dry_run:
                for selection in selections:
                    print_estimate(analysis_jobs, selection, all_stale)
                return
            jobs = [analysis_jobs.create(selection, uuid4().hex) for selection in selections]
        if not jobs:
            click.echo("No analyzer has results of an earlier version: there was nothing to do.")
        sys.exit(watch_jobs(database, jobs, settings))


def require_same_version(running_processes: RunningProcesses, analyzer: str) -> None:
    """Refuse when a worker runs another version: what it does would be stale by these files."""
    try:
        outdated = running_processes.outdated_workers(analyzer)
    except QueueUnavailable:
        return  # A worker that comes later takes the job.
    if outdated:
        refuse(" ".join([*outdated, RESTART_ADVICE]))


def watch_jobs(database: Database, jobs: Iterable[Job], settings: Settings) -> int:
    """Print the progress of jobs, one after the other, and return the exit code for all."""
    codes = [DONE]
    for job in jobs:
        codes.append(watch_job(database, job, settings))
        if codes[-1] == INTERRUPTED:
            break
    return max(codes)


def print_estimate(
    analysis_jobs: AnalysisJobs, selection: ReanalysisSelection, named: bool
) -> None:
    """Print how many uploads are selected, and how long one worker takes for them.

    Args:
        named: whether to say the analyzer's name.
    """
    estimate = analysis_jobs.estimate(selection)
    duration = "nobody knows yet how long one takes"
    if estimate.seconds is not None:
        duration = f"one worker takes about {format_duration(estimate.seconds)}"
    name = f"{selection.analyzer}: " if named else ""
    click.echo(f"{name}{estimate.matched} uploads; {duration}. Nothing was changed.")


def format_duration(seconds: float) -> str:
    """Format a duration for people, such as `2 h 5 min`."""
    if seconds < 60:
        return f"{max(1, round(seconds))} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def watch_job(database: Database, job: Job, settings: Settings) -> int:
    """Print the progress of a job until it ends, and return the exit code."""
    progress = Progress(sys.stdout.isatty())
    progress.print_line(
        f"Job {job.id}: {job.parameters['select']} of {job.parameters['analyzer']}."
    )
    try:
        while not job.ended:
            time.sleep(POLL_SECONDS)
            job = read_job(database, job, progress)
            progress.show(job)
    except KeyboardInterrupt:
        address = settings.base_url or f"http://{settings.host}:{settings.port}"
        curl = f"curl -H {PLACEHOLDER_HEADER}" if settings.auth == "keys" else "curl"
        progress.print_line(
            f"The job goes on. To cancel it: {curl} -X POST {address}/api/jobs/{job.id}/cancel"
        )
        return INTERRUPTED
    progress.print_line(format_outcome(job))
    succeeded = job.state is JobState.SUCCEEDED and not job.counts.get("failed")
    return DONE if succeeded else SOME_FAILED


def read_job(database: Database, job: Job, progress: "Progress") -> Job:
    """Read the job again; return the old state while the database does not answer."""
    try:
        return database.jobs.get(job.id)
    except DatabaseUnavailable:
        progress.print_once("MongoDB does not answer; the job goes on when it does.")
        return job


def format_outcome(job: Job) -> str:
    """Format the final state of a job, its counts and its error."""
    counts = [f"{job.counts[name]} {name}" for name in PRINTED_COUNTS if job.counts.get(name)]
    outcome = f"{job.state.capitalize()}: {', '.join(counts) or 'there was nothing to do'}."
    return f"{outcome} {job.error}" if job.error else outcome


PRINTED_COUNTS = ("succeeded", "skipped", "failed", "deferred", "running", "cancelled")


class Progress:
    """Prints the progress of a job.

    Args:
        terminal: whether to draw a bar, which is overwritten.
    """

    def __init__(self, terminal: bool):
        self._terminal = terminal
        self._began_at = self._printed_at = time.monotonic()
        self._printed: set[str] = set()
        self._bar = ""

    def print_line(self, text: str) -> None:
        if self._bar:
            click.echo()
            self._bar = ""
        click.echo(text)

    def print_once(self, text: str) -> None:
        if text not in self._printed:
            self._printed.add(text)
            self.print_line(text)

    def show(self, job: Job) -> None:
        """Print the progress of the job, unless it was printed a short time ago."""
        now = time.monotonic()
        if job.state is JobState.QUEUED and now - self._began_at > NO_WORKER_HINT_SECONDS:
            self.print_once("No worker has taken it up yet; `clustr worker` starts one.")
        if self._terminal:
            self._draw(job)
        elif now - self._printed_at >= PRINT_SECONDS and not job.ended:
            self._printed_at = now
            self.print_line(format_progress(job))

    def _draw(self, job: Job) -> None:
        done, total = count_finished(job), job.total or job.counts.get("selected", 0)
        filled = BAR_WIDTH * done // total if total else 0
        bar = f"[{'#' * filled:<{BAR_WIDTH}}] {format_progress(job)}"
        click.echo(f"\r{bar:<{len(self._bar)}}", nl=False)
        self._bar = bar


def count_finished(job: Job) -> int:
    return sum(job.counts.get(state, 0) for state in ("succeeded", "skipped", "failed"))


def format_progress(job: Job) -> str:
    selected = job.counts.get("selected", 0)
    suffix = "" if job.total is not None else " so far"
    progress = f"{count_finished(job)} of {selected}{suffix}"
    other_counts = [
        f"{job.counts[name]} {name}" for name in ("failed", "deferred") if job.counts.get(name)
    ]
    return ", ".join([progress, *other_counts])
