"""What the commands of plugins share with those of Clustr: JSON, and progress."""

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

import click
import orjson

T = TypeVar("T")

# On a terminal a bar is drawn over and over; elsewhere each print is one more line.
PRINT_SECONDS = 5.0


def as_json(command: Callable[..., Any]) -> Callable[..., Any]:
    """Decorate a command with the option `--json`; it is given `as_json`, True or False."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON.")(command)


def print_json(value: Any) -> None:
    """Print a value as JSON; times are ISO 8601."""
    click.echo(orjson.dumps(value, option=orjson.OPT_INDENT_2 | orjson.OPT_UTC_Z).decode())


def show_progress(items: Iterable[T], total: int, what: str = "uploads") -> Iterator[T]:
    """Yield the items, and say how many are done, on the standard error.

    Args:
        total: how many items there are.
        what: what they are.
    """
    if sys.stderr.isatty():
        with click.progressbar(items, length=total, label=what, file=sys.stderr) as bar:
            yield from bar
        return
    printed_at = time.monotonic()
    for done, item in enumerate(items, 1):
        yield item
        if time.monotonic() - printed_at >= PRINT_SECONDS:
            printed_at = time.monotonic()
            click.echo(f"{done} of {total} {what}", err=True)
