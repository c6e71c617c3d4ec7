"""Finds files that are written to no more, in folders that are looked through again and again."""

import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from clustr.client.importing.ledger import Note, Outcome
from clustr.client.importing.walking import Picture

# How long size and time of a file and its sidecars have to stay as they are.
STILL_SECONDS = 2.0
# The pause between two looks, and what it is longer for each file that there is: a look takes a
# fraction of that.
PAUSE_SECONDS = 1.0
PAUSE_SECONDS_OF_FILE = 0.0005

Stamp = tuple[tuple[int, int], ...]


class Watch:
    """Remembers which files were found, and since when they are as they are.

    Args:
        find: looks through all folders; what it leaves out is said to its argument.
        note: is told once of each file or folder that is left out.
    """

    def __init__(self, find: Callable[[Note], Iterable[Picture]], note: Note):
        self._find = find
        self._note = note
        self._noted: set[int] = set()
        self._found: set[int] = set()
        self._moving: dict[Path, tuple[Stamp, float]] = {}

    def rounds(self) -> Iterator[Iterator[Picture]]:
        """Yield, without end, the pictures of each look at the folders that are new and still."""
        while True:
            yield self._still_pictures()
            files = len(self._found) + len(self._moving)
            time.sleep(PAUSE_SECONDS + PAUSE_SECONDS_OF_FILE * files)

    def _still_pictures(self) -> Iterator[Picture]:
        moving: dict[Path, tuple[Stamp, float]] = {}
        for picture in self._find(self._note_once):
            key = hash((picture.path, picture.size_bytes, picture.modified_ns))
            if key in self._found:
                continue
            stamp = _stamp(picture)
            before, since = self._moving.get(picture.path, ((), 0.0))
            now = time.monotonic()
            if before != stamp:
                moving[picture.path] = stamp, now
            elif now - since < STILL_SECONDS:
                moving[picture.path] = stamp, since
            else:
                self._found.add(key)
                yield picture
        self._moving = moving

    def _note_once(self, outcome: Outcome, path: Path, detail: str) -> None:
        if (key := hash((outcome, path))) not in self._noted:
            self._noted.add(key)
            self._note(outcome, path, detail)


def _stamp(picture: Picture) -> Stamp:
    """Sizes and times of a picture and its sidecars."""
    own = (picture.size_bytes, picture.modified_ns)
    return (own, *(_size_and_time(sidecar) for sidecar in picture.sidecars))


def _size_and_time(path: Path) -> tuple[int, int]:
    try:
        status = path.stat()
    except OSError:  # It is gone again.
        return (0, 0)
    return (status.st_size, status.st_mtime_ns)
