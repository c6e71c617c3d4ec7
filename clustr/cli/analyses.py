"""`clustr analyses`: what is known of single analyses, for operators."""

import sys

import click

from clustr import logs
from clustr.cli.refusals import refuse_errors
from clustr.cli.running_service import read_settings_of_running_service
from clustr.components import WEB_TIMEOUT_SECONDS, build_database
from clustr.domain.models import Analysis, State

# Exit codes; `refuse` exits with 2.
PRINTED, NOTHING = 0, 1


@click.group()
def analyses() -> None:
    """Say more of an analysis than clients are told."""


@analyses.command(name="traceback")
@click.argument("upload_id", metavar="ID")
@click.argument("analyzer", metavar="NAME")
def print_traceback(upload_id: str, analyzer: str) -> None:
    """Print where in its plugin the analysis by NAME of the upload ID failed.

    Exit code: 0 when it is printed, 1 when there is none, 2 when it cannot be looked up.
    """
    settings = read_settings_of_running_service()
    logs.configure(settings.log_format, "error")
    database = build_database(settings, WEB_TIMEOUT_SECONDS)
    try:
        with refuse_errors():
            analysis, traceback = database.analyses.traceback(upload_id, analyzer)
    finally:
        database.close()
    if traceback is None:
        click.echo(f"There is no traceback: {why_none(analysis)}")
        sys.exit(NOTHING)
    click.echo(traceback)
    sys.exit(PRINTED)


def why_none(analysis: Analysis) -> str:
    """Say why an analysis has no traceback, with its error."""
    if analysis.state is State.FAILED:
        return f"it failed, but not in code of its plugin: {analysis.error}"
    return (
        f"it is {analysis.state}: {analysis.error}"
        if analysis.error
        else f"it is {analysis.state}."
    )
