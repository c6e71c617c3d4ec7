"""Nearest: the uploads whose vectors are nearest to one, exactly, by looking at all vectors.

Each host has a copy of the vectors in files (`clustr.storage.vector_file`), which a process brings
up to date before it looks: it compares the last number that MongoDB has given with that of the
files, and appends what is missing. What it finds is then checked in MongoDB: only a vector that the
result of an upload names is an answer, and only an upload that meets the filter.
"""

import struct
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clustr import logs
from clustr.database import NO_FILTER, Database, SpaceState, StoredVector, UploadFilter
from clustr.domain import failure_messages
from clustr.domain.errors import BeingRead, ClustrError, InvalidInput, NoResult, StorageUnavailable
from clustr.domain.models import UNFINISHED, State, Upload
from clustr.plugin_manager import PluginManager
from clustr.plugins import Vector
from clustr.plugins.vectors import vector_space

if TYPE_CHECKING:  # Only who searches needs NumPy and simsimd.
    from clustr.storage.vector_file import FileState, Snapshot

log = logs.logger(__name__)

# How long a request reads what is missing in the files; a thread does the rest.
CATCH_UP_SECONDS = 1.0
# A number that is missing for longer belongs to a vector that was removed, or never written.
GAP_SECONDS = 600.0
# The files are begun anew when more of their vectors were removed than this, and than this part.
MOST_REMOVED, MOST_REMOVED_PART = 1000, 0.3
# Of so many of the last vectors in the files at least one has to be in MongoDB.
CHECKED_VECTORS = 16
# How many vectors are read and appended at a time.
BATCH = 5000
# How many of the nearest are checked in MongoDB, beyond the limit, and then in all.
SPARE = 16
# With a filter so many times more are checked at first.
FILTERED_FACTOR = 15
FURTHER = (1024, 8192)
FACTOR = 8


@dataclass(frozen=True, slots=True)
class Neighbor:
    """An upload, and how far its vector is."""

    upload_id: str
    distance: float


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


class Nearest:
    """Finds the uploads whose vectors are nearest to one.

    Args:
        folder: where the files with vectors are, on this host.
        seconds: how long a search waits while vectors are read; by default `CATCH_UP_SECONDS`.
    """

    def __init__(
        self,
        database: Database,
        folder: Path,
        plugin_manager: PluginManager,
        seconds: float | None = None,
    ):
        self._seconds = CATCH_UP_SECONDS if seconds is None else seconds
        self._database = database
        self._folder = folder
        self._plugin_manager = plugin_manager
        self._copies: dict[str, VectorCopy] = {}
        self._making = threading.Lock()

    @property
    def fields(self) -> dict[str, VectorField]:
        """The vectors of all installed analyzers, by names such as `embed.embedding`."""
        declared = [
            VectorField(analyzer.name, analyzer.version, vector)
            for analyzer in self._plugin_manager.analyzers.values()
            for vector in analyzer.vectors
        ]
        return {field.name: field for field in declared}

    def field(self, name: str) -> VectorField:
        """The vector of this name; that of an analyzer is enough where it has one.

        Raises:
            InvalidInput: no installed analyzer declares it; the error is about `by`.
        """
        fields = self.fields
        of_analyzer = [field for field in fields.values() if field.analyzer == name]
        if len(of_analyzer) == 1:
            return of_analyzer[0]
        if name in fields:
            return fields[name]
        if not fields:
            raise InvalidInput({"by": ["No analyzer that is installed makes vectors."]})
        problem = failure_messages.unknown_name("vector", name, fields)
        raise InvalidInput({"by": [f"{problem[0].upper()}{problem[1:]}."]})

    def vector_of(self, upload: Upload, field: VectorField) -> bytes:
        """The vector of an upload.

        Raises:
            NoResult: it has none, or not yet; the message says why.
        """
        analysis = next((a for a in upload.analyses if a.name == field.analyzer), None)
        vector_id = analysis.vectors.get(field.vector.field) if analysis else None
        stored = self._database.vectors.get(vector_id) if vector_id else None
        if stored and stored[0] == field.space:
            return stored[1]
        raise NoResult(
            f"The upload {upload.id} has no vector {field.name}{_why_none(upload, field)}."
        )

    def find(
        self,
        field: VectorField,
        vector: bytes,
        limit: int,
        upload_filter: UploadFilter | None = None,
        max_distance: float | None = None,
        besides: str | None = None,
    ) -> list[Neighbor]:
        """The uploads that are nearest to a vector, the nearest first, then by their ids.

        Args:
            vector: in the form of `Vector.encode`.
            limit: how many at most.
            upload_filter: what they have to meet.
            max_distance: how far they may be.
            besides: the id of an upload that is left out.

        Raises:
            BeingRead: the copy of the vectors on this host is being made.
            TooSlow: it takes too long to find the uploads that meet the filter.
            StorageFull: the copy cannot be written.
        """
        from clustr.storage import vector_search  # noqa: PLC0415  See `TYPE_CHECKING`.

        upload_filter = None if upload_filter == NO_FILTER else upload_filter
        copy = self._copy(field)
        snapshot = copy.current()
        found = vector_search.distances(
            vector, snapshot.data, field.vector.kind, field.vector.metric
        )
        found[snapshot.dead != 0] = float("inf")
        if max_distance is not None:
            found[found > max_distance] = float("inf")
        neighbors: list[Neighbor] = []
        beyond, checked, is_narrowed = -1.0, 0, False
        for count in _counts(limit, bool(upload_filter)):
            if upload_filter and checked >= FURTHER[-1] and not is_narrowed:
                ids = self._database.vectors.upload_ids(upload_filter)  # Few meet the filter.
                found[~vector_search.rows_of_uploads(snapshot.ids, ids)] = float("inf")
                is_narrowed = True
            rows = vector_search.nearest_rows(found, beyond, count - checked)
            if not len(rows):
                break
            neighbors += self._checked(field, snapshot, copy, rows.tolist(), found, upload_filter)
            neighbors = [each for each in neighbors if each.upload_id != besides]
            beyond, checked = float(found[rows].max()), checked + len(rows)
            if len(neighbors) >= limit:
                break
        return sorted(neighbors, key=lambda each: (each.distance, each.upload_id))[:limit]

    def _checked(
        self,
        field: VectorField,
        snapshot: "Snapshot",
        copy: "VectorCopy",
        rows: Sequence[int],
        found: Any,
        upload_filter: UploadFilter | None,
    ) -> list[Neighbor]:
        """The rows that are answers; what was removed is marked in the files."""
        by_id = {snapshot.vector_id(row): row for row in rows}
        uploads = {snapshot.upload_id(row) for row in rows}
        named = self._database.vectors.named(
            uploads, field.analyzer, field.vector.field, upload_filter
        )
        if upload_filter is None and (unnamed := by_id.keys() - named):
            gone = unnamed - self._database.vectors.existing(unnamed)
            copy.mark_dead(snapshot, [by_id[each] for each in gone])
        return [
            Neighbor(snapshot.upload_id(row).hex(), float(found[row]))
            for vector_id, row in by_id.items()
            if vector_id in named
        ]

    def _copy(self, field: VectorField) -> "VectorCopy":
        with self._making:
            if field.space not in self._copies:
                folder = self._folder / self._database.installation()
                self._remove_older(folder, field)
                self._copies[field.space] = VectorCopy(self._database, folder, field, self._seconds)
            return self._copies[field.space]

    def _remove_older(self, folder: Path, field: VectorField) -> None:
        """Remove the files of earlier versions of an analyzer."""
        for path in folder.glob(f"{field.name}-v*"):
            version = path.name.removeprefix(f"{field.name}-v").split("-")[0]
            if version.isdigit() and int(version) < field.version:
                with suppress(OSError):  # Another process removes it, too.
                    for file in path.iterdir():
                        file.unlink(missing_ok=True)
                    path.rmdir()


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


def _counts(limit: int, is_filtered: bool) -> Iterator[int]:
    """How many of the nearest are looked at in all: more and more, until enough are answers."""
    first = limit * FILTERED_FACTOR if is_filtered else limit
    yield first + SPARE
    yield from (count for count in FURTHER if count > first + SPARE)
    count = FURTHER[-1]
    while True:
        count *= FACTOR
        yield count


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


def _why_none(upload: Upload, field: VectorField) -> str:
    """Why an upload has no vector: whether it is worth to ask again."""
    analysis = next((a for a in upload.analyses if a.name == field.analyzer), None)
    if analysis is None:
        return f"; its analysis {field.analyzer} was never ordered"
    if analysis.state in UNFINISHED:
        return f" yet; its analysis {field.analyzer} is {analysis.state}"
    if analysis.state is State.SUCCEEDED:
        if analysis.version < field.version:
            return (
                f" yet; its result is of version {analysis.version} of {field.analyzer}, which is "
                f"at version {field.version}"
            )
        return f"; its result of {field.analyzer} has none"
    return f"; its analysis {field.analyzer} {analysis.state}" + (
        f": {analysis.error}" if analysis.error else ""
    )
