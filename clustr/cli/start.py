"""The commands that start processes: `clustr up` and `clustr worker`."""

import os
import sys

import click

from clustr.cli import single_host
from clustr.queue import KINDS
from clustr.settings import read_settings
from clustr.worker import rq_worker

# Two analyses at a time: those of many uploads take three quarters of the time of one at a time.
UP_WORKERS = 2


@click.command()
@click.option("--host", help="Address to listen on, instead of HOST.")
@click.option("--port", help="Port to listen on, instead of PORT.")
@click.option("--data", metavar="FOLDER", help="Where data is kept, instead of DATA_FOLDER.")
@click.option("--workers", default=UP_WORKERS, show_default=True, type=click.IntRange(1))
@click.option("--reload", is_flag=True, help="Load code anew when it changes, as RELOAD does.")
@click.option("--captioner", is_flag=True, help="Run `clustr captioner`, too, and use it.")
def up(
    host: str | None,
    port: str | None,
    data: str | None,
    workers: int,
    reload: bool,
    captioner: bool,
) -> None:
    """Run everything in the foreground: MongoDB, Redis, workers and web."""
    # In the environment, because the children read their settings from it.
    options = {"HOST": host, "PORT": port, "DATA_FOLDER": data, "RELOAD": "1" if reload else None}
    for name, value in options.items():
        if value is not None:
            os.environ[name] = value
    sys.exit(single_host.up(read_settings(), workers, captioner))


def _parse_kinds(
    _context: click.Context, _parameter: click.Parameter, value: str
) -> tuple[str, ...]:
    queues = tuple(dict.fromkeys(queue.strip() for queue in value.split(",") if queue.strip()))
    unknown = [queue for queue in queues if queue not in KINDS]
    if unknown or not queues:
        names = ", ".join(unknown)
        problem = f"there is no queue {names}" if unknown else "no queue is named"
        raise click.BadParameter(f"{problem}; there are {', '.join(KINDS)}")
    return queues


@click.command(name="worker")
@click.option(
    "--queues",
    default=",".join(KINDS),
    show_default=True,
    callback=_parse_kinds,
    help="Which to serve.",
)
@click.option("--workers", default=1, show_default=True, type=click.IntRange(1))
def run_worker(queues: tuple[str, ...], workers: int) -> None:
    """Run workers, which analyze what was uploaded."""
    sys.exit(rq_worker.run(read_settings(), queues, workers))
