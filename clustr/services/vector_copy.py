"""Copies of vectors on this host, kept up to date with MongoDB.

The copy of a space is in files (`clustr.storage.vector_file`). A process brings them up to date
before it looks: it compares the last number that MongoDB has given with that of the files, and
appends what is missing.
"""

import struct
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from clustr import logs
from clustr.database import Database, SpaceState, StoredVector
from clustr.domain.errors import BeingRead, ClustrError, StorageUnavailable
from clustr.plugins import Vector
from clustr.plugins.vectors import vector_space

if TYPE_CHECKING:  # Only who searches needs NumPy and simsimd.
    from clustr.storage.vector_file import FileState, Snapshot

log = logs.logger(__name__)

# A number that is missing for longer belongs to a vector that was removed, or never written.
GAP_SECONDS = 600.0
# The files are begun anew when more of their vectors were removed than this, and than this part.
MOST_REMOVED, MOST_REMOVED_PART = 1000, 0.3
# Of so many of the last vectors in the files at least one has to be in MongoDB.
CHECKED_VECTORS = 16
# How many vectors are read and appended at a time.
BATCH = 5000


@dataclass(frozen=True, slots=True)
class VectorField:
    """A vector that an installed analyzer declares."""

    analyzer: str
    version: int
    vector: Vector

    @property
    def name(self) -> str:
        return f"{self.analyzer}.{self.vector.field}"

    @property
    def space(self) -> str:
        return vector_space(self.analyzer, self.version, self.vector)


class VectorCopy:
    """The copy of the vectors of one space on this host, kept up to date with MongoDB."""

    def __init__(self, database: Database, folder: Path, field: VectorField, seconds: float):
        from clustr.storage.vector_file import VectorFile  # noqa: PLC0415  See `TYPE_CHECKING`.

        self._vectors = database.vectors
        self._closed = database.closed
        self._space = field.space
        self._seconds = seconds
        self._file = VectorFile(folder / field.space, field.space, field.vector.size)
        self._is_checked = False
        self._thread: threading.Thread | None = None

    def current(self) -> "Snapshot":
        """All vectors of this moment.

        Raises:
            BeingRead: so many are missing that it takes a while.
            StorageFull: what is missing cannot be written.
        """
        last = self._vectors.state(self._space)
        state = self._file.state()
        if self._is_checked and state is not None and _is_complete(state, last):
            with suppress(StorageUnavailable):  # Another process has begun the files anew.
                return self._file.snapshot(state)
        return self._file.snapshot(self._catch_up(time.monotonic() + self._seconds))

    def mark_dead(self, snapshot: "Snapshot", rows: Sequence[int]) -> None:
        if rows:
            self._file.mark_dead(snapshot, rows)

    def _catch_up(self, until: float) -> "FileState":
        """Append what is missing, until then; a thread appends what is left.

        Raises:
            BeingRead: something is left.
        """
        with self._file.locked(until) as is_locked:
            if not is_locked:
                raise BeingRead
            last = self._vectors.state(self._space)
            state = self._usable_state(last)
            more = True
            while more and not self._closed.is_set():
                state, more = self._append(state, last)
                if more and time.monotonic() > until:
                    self._go_on_in_thread()
                    raise BeingRead(state.number, last.last)
        self._is_checked = True
        return state

    def _go_on_in_thread(self) -> None:
        if self._thread is None or not self._thread.is_alive():
            self._thread = threading.Thread(target=self._catch_up_fully, daemon=True)
            self._thread.start()

    def _catch_up_fully(self) -> None:
        try:
            self._catch_up(float("inf"))
        except ClustrError as error:  # The next request tries again.
            log.warning("vectors_not_read", space=self._space, reason=str(error))

    def _usable_state(self, last: SpaceState) -> "FileState":
        """The state of the files; they are begun anew when they are not to be trusted."""
        state = self._file.state()
        reason = self._why_anew(state, last)
        if state is not None and reason is None:
            return state
        log.info("vector_file_begun", space=self._space, reason=reason)
        return self._file.begin(last.removed)

    def _why_anew(self, state: "FileState | None", last: SpaceState) -> str | None:
        if state is None:
            return "there is none that can be used"
        if state.number > last.last:
            return "MongoDB has fewer vectors than it had"
        removed = last.removed - state.removed
        if removed > max(MOST_REMOVED, MOST_REMOVED_PART * state.rows):
            return "many of its vectors were removed"
        ids = self._file.last_ids(state, CHECKED_VECTORS)
        if removed < len(ids) and not self._vectors.existing(ids):
            return "MongoDB has other vectors"
        return None

    def _append(self, state: "FileState", last: SpaceState) -> "tuple[FileState, bool]":
        """Append a batch of what is missing.

        Returns:
            the state after it, and whether there is more.
        """
        moment = time.time()
        late: list[StoredVector] = []
        gaps: list[tuple[int, int, float]] = []
        for first, end, noticed_at in state.gaps:
            came = self._vectors.read(self._space, first - 1, BATCH, end)
            late += came
            if moment - noticed_at < GAP_SECONDS:
                gaps += _ranges_between([each.number for each in came], first, end, noticed_at)
        new = self._vectors.read(self._space, state.number, BATCH)
        is_full = len(new) == BATCH
        end = new[-1].number if new else state.number
        gaps += _recent_gaps(new, state.number + 1, moment)
        if not is_full and last.last > end:
            gaps.append((end + 1, last.last, moment))
            end = last.last
        rows = [*late, *new]
        if not rows and end == state.number and tuple(gaps) == state.gaps:
            return state, False
        return self._file.append(state, rows, end, tuple(gaps)), is_full


def _is_complete(state: "FileState", last: SpaceState) -> bool:
    return state.number == last.last and not state.gaps


def _ranges_between(
    numbers: Sequence[int], first: int, end: int, noticed_at: float
) -> list[tuple[int, int, float]]:
    """The ranges from `first` to `end` without these numbers, which are in order."""
    edges = [first - 1, *numbers, end + 1]
    return [
        (before + 1, after - 1, noticed_at)
        for before, after in pairwise(edges)
        if after - before > 1
    ]


def _recent_gaps(
    new: Sequence[StoredVector], first: int, moment: float
) -> list[tuple[int, int, float]]:
    """The numbers missing between these vectors, where the one behind is not old.

    Its id tells when it was made, which is after the missing numbers were given.
    """
    gaps = []
    expected = first
    for each in new:
        if each.number > expected:
            (made_at,) = struct.unpack(">I", each.id[:4])
            if made_at > moment - GAP_SECONDS:
                gaps.append((expected, each.number - 1, moment))
        expected = each.number + 1
    return gaps
