"""What commands say, and their exit code, when they cannot do what they were asked to."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

import click

from clustr.domain.errors import ClustrError, DatabaseRefused, DatabaseUnavailable, InvalidInput

REFUSED = 2  # an exit code


def refuse(reason: str) -> NoReturn:
    """Print a reason, and end the process with `REFUSED`."""
    click.echo(f"clustr: {reason}", err=True)
    sys.exit(REFUSED)


def error_message(error: Exception) -> str:
    """Return the text of an error for the person at the terminal."""
    if isinstance(error, DatabaseRefused):
        return error.for_operator
    if isinstance(error, DatabaseUnavailable):
        return "MongoDB does not answer at the address of MONGODB_URL"
    if isinstance(error, InvalidInput):
        return " ".join(message for messages in error.errors.values() for message in messages)
    return str(error)


@contextmanager
def refuse_errors() -> Iterator[None]:
    """Refuse with the text of an error of Clustr that the block raises."""
    try:
        yield
    except ClustrError as error:
        refuse(error_message(error))
