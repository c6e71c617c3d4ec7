"""`clustr export`: writes the originals of a service, here or elsewhere, into a folder."""

import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import click
import requests
from rich.console import Console
from rich.table import Table

from clustr.cli.refusals import refuse
from clustr.cli.running_service import find_service_url
from clustr.client import ApiError, Client
from clustr.client.exporting import Exporter, NoClustr, Outcome
from clustr.client.importing import make_progress

# Exit codes; `refuse` exits with 2.
ALL_THERE, SOME_MISSING, INTERRUPTED = 0, 1, 130
# The export decides these itself.
NO_FILTERS = ("fields", "limit", "sort", "page", "cursor")


@click.command()
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
@click.option("--url", help="Where the service is; by default the one that this account runs.")
@click.option("--key", envvar="CLUSTR_KEY", help="A key of the service; better as CLUSTR_KEY.")
@click.option(
    "--filter",
    "filters",
    metavar="NAME=VALUE",
    multiple=True,
    help="A filter of GET /api/uploads, such as tag=Italy; several may be given.",
)
@click.option("--dry-run", is_flag=True, help="Write nothing; say what would be written.")
@click.option(
    "--connections",
    default=4,
    show_default=True,
    type=click.IntRange(1, 32),
    help="How many originals are fetched at once.",
)
def export(
    folder: Path,
    url: str | None,
    key: str | None,
    filters: tuple[str, ...],
    dry_run: bool,
    connections: int,
) -> None:
    """Write the originals of a service into FOLDER, each with its words in a sidecar beside it.

    They are in a folder for each month, under their own names. What is there already, by its
    content, is not fetched again: after Ctrl-C or a crash the same command goes on.

    Exit code: 0 when all originals are there, 1 when some could not be written, 2 when the service
    or the folder could not be used, 130 after Ctrl-C.
    """
    chosen = read_filters(filters)
    url = url or find_service_url(has_key=bool(key))
    connect = partial(Client, url, key=key and key.strip())
    problem, exit_code = "", ALL_THERE
    with (
        make_progress(Console(stderr=True)) as progress,
        Exporter(connect, folder, progress, say, connections, dry_run) as exporter,
    ):
        try:
            exporter.run(chosen)
        except (ApiError, NoClustr, requests.RequestException, OSError) as error:
            problem = str(error)
        except KeyboardInterrupt:
            exit_code = INTERRUPTED
    print_table(exporter)
    if problem:
        refuse(problem)
    sys.exit(exit_code or (SOME_MISSING if exporter.counts[Outcome.REFUSED] else ALL_THERE))


def read_filters(texts: Sequence[str]) -> dict[str, str]:
    """Read filters as they are given on the command line."""
    filters: dict[str, str] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or name in NO_FILTERS or name in filters:
            refuse(f"--filter {text} is no filter, or there twice: write NAME=VALUE once for each")
        filters[name] = value
    return filters


def say(outcome: Outcome, upload: str, why: str) -> None:
    """Say at once what needs attention."""
    click.echo(f"{outcome}: {upload}: {why}", err=True)


def print_table(exporter: Exporter) -> None:
    """Print what came of uploads."""
    table = Table(box=None, show_header=False)
    table.add_column(justify="right", no_wrap=True)
    table.add_column(no_wrap=True)
    for outcome in Outcome:
        if count := exporter.counts[outcome]:
            table.add_row(f"{count:,}", str(outcome))
    Console(soft_wrap=True).print(table)
