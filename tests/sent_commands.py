"""What a thread asks of MongoDB, and what it hashes: the work of an answer, without a clock."""

import functools
import sys
import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import BuiltinFunctionType, FrameType
from typing import Any

from pymongo import monitoring

# They differ between two commands that are the same.
OF_THE_DRIVER = ("lsid", "$clusterTime", "txnNumber", "maxTimeMS")

_of_thread = threading.local()


class _Listener(monitoring.CommandListener):
    """Notes the commands of a thread that asks for that; a client calls it in the thread itself."""

    def started(self, event: monitoring.CommandStartedEvent) -> None:
        noted: list[Any] | None = getattr(_of_thread, "noted", None)
        if noted is not None:
            noted.append(
                (event.command_name, event.command[event.command_name], form_of(event.command))
            )

    def succeeded(self, event: monitoring.CommandSucceededEvent) -> None:
        pass

    def failed(self, event: monitoring.CommandFailedEvent) -> None:
        pass


@functools.cache
def listen() -> None:
    """Have all clients of MongoDB heard that this process makes from now on."""
    monitoring.register(_Listener())


def form_of(command: Any) -> Any:
    """A command without its values: its names, and the kinds of what they have."""
    if isinstance(command, Mapping):
        names = [name for name in command if name not in OF_THE_DRIVER]
        return {name: form_of(command[name]) for name in names}
    if isinstance(command, list | tuple):
        return [form_of(each) for each in command]
    return type(command).__name__


@contextmanager
def sent() -> Iterator[list[Any]]:
    """Note each command that this thread sends in the block: name, collection and form."""
    _of_thread.noted = noted = []
    try:
        yield noted
    finally:
        _of_thread.noted = None


@contextmanager
def hashed() -> Iterator[Counter[str]]:
    """Count the calls by this thread in the block of what computes and compares hashes."""
    counts: Counter[str] = Counter()

    def note(_frame: FrameType, event: str, called: Any) -> None:
        if event == "c_call" and isinstance(called, BuiltinFunctionType):
            of = (
                type(called.__self__).__module__ if called.__module__ is None else called.__module__
            )
            if (
                of in ("_hashlib", "_operator", "_sha2", "zlib")
                and called.__name__ != "length_hint"
            ):
                counts[called.__name__] += 1

    sys.setprofile(note)
    try:
        yield counts
    finally:
        sys.setprofile(None)
