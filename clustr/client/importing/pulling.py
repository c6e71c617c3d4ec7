"""Generators between the steps of an import, each of which holds a few items at a time."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Executor, Future, wait
from typing import TypeVar

Item = TypeVar("Item")
Done = TypeVar("Done")


def in_groups(
    items: Iterable[Item], max_count: int, max_bytes: int, bytes_of: Callable[[Item], int]
) -> Iterator[list[Item]]:
    """Group items that follow each other; one with more bytes than that is a group of its own."""
    group: list[Item] = []
    size_bytes = 0
    for item in items:
        if group and (len(group) == max_count or size_bytes + bytes_of(item) > max_bytes):
            yield group
            group, size_bytes = [], 0
        group.append(item)
        size_bytes += bytes_of(item)
    if group:
        yield group


def done_by(
    executor: Executor, function: Callable[[Item], Done], items: Iterable[Item], at_once: int
) -> Iterator[Done]:
    """Call a function for items in threads, and yield what it returns as each call ends.

    Args:
        at_once: how many calls are made or wait to be made before the next item is asked for.
    """
    running: set[Future[Done]] = set()
    for item in items:
        running.add(executor.submit(function, item))
        if len(running) >= at_once:
            ended, running = wait(running, return_when=FIRST_COMPLETED)
            yield from (call.result() for call in ended)
    while running:
        ended, running = wait(running, return_when=FIRST_COMPLETED)
        yield from (call.result() for call in ended)
