"""How much of what a machine can think up is tried: some in `make test`, all in `make fuzz`."""

import itertools
import os
from collections.abc import Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")

FUZZ = int(os.environ.get("FUZZ", "0"))


def sampled(things: Iterable[T], step: int) -> Iterator[T]:
    """All of them in `make fuzz`; in `make test` one of so many, which are always the same.

    Where kinds of things take turns, a step that has no divisor in common with the number of kinds
    takes some of each.
    """
    return itertools.islice(things, 0, None, 1 if FUZZ else step)
