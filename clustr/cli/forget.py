"""`clustr plugins forget`: removes what is left of an analyzer that no plugin brings any more."""

import sys
import time
from uuid import uuid4

import click

from clustr import logs
from clustr.cli.analyze import (
    DONE,
    INTERRUPTED,
    POLL_SECONDS,
    SOME_FAILED,
    Progress,
    read_job,
)
from clustr.cli.refusals import refuse, refuse_errors
from clustr.cli.running_service import read_settings_of_running_service
from clustr.components import build_forgetting
from clustr.database import Database, Job, JobState
from clustr.services.jobs import ForgettingJobs


def forget(analyzer: str, yes: bool, dry_run: bool) -> None:
    """Do what the command does, and end the process with its exit code."""
    settings = read_settings_of_running_service()
    logs.configure(settings.log_format, "error")
    with build_forgetting(settings) as (forgetting, database):
        with refuse_errors():
            describe(forgetting, analyzer)
            if dry_run:
                click.echo("Nothing was changed.")
                return
            if not yes and not sys.stdin.isatty():
                refuse("it has to ask, and this is no terminal: say --yes")
            if not yes and not click.confirm("Remove all that for good?"):
                sys.exit(DONE)
            job = forgetting.create(analyzer, uuid4().hex)
        sys.exit(watch(database, job))


def describe(forgetting: ForgettingJobs, analyzer: str) -> None:
    """Print what there is of the analyzer."""
    left = forgetting.left_behind(analyzer)
    indexes = f" ({', '.join(left.indexes)})" if left.indexes else ""
    click.echo(
        f"{analyzer} has left {left.analyses} analyses, {left.vectors} vectors and "
        f"{len(left.indexes)} indexes{indexes}."
    )


def watch(database: Database, job: Job) -> int:
    """Print the progress of a job until it ends, and return the exit code."""
    progress = Progress(sys.stdout.isatty())
    try:
        while not job.ended:
            time.sleep(POLL_SECONDS)
            job = read_job(database, job, progress)
            progress.show(job)
    except KeyboardInterrupt:
        progress.print_line("The job goes on.")
        return INTERRUPTED
    counts = ", ".join(
        f"{job.counts.get(name, 0)} {name}" for name in ("analyses", "vectors", "indexes")
    )
    removed = f"{job.state.capitalize()}: removed {counts}."
    progress.print_line(f"{removed} {job.error}" if job.error else removed)
    return DONE if job.state is JobState.SUCCEEDED else SOME_FAILED
