"""Files with the vectors of a space: a cache that all processes of this host map into memory.

The truth is in MongoDB. One process at a time appends, under a lock on a file; the others go on
with what they have mapped. `state.json` says how much of the files counts, and is replaced once
what it counts is written: what a killed process left behind it is written over. Files are never
cut, for that would end the processes that map them: files that are begun anew have other names.

Nobody waits for the disk: until the host starts again all processes see what was written, and then
the files are not trusted.
"""

import fcntl
import json
import os
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from functools import cache
from hashlib import blake2b
from pathlib import Path
from typing import Protocol
from uuid import uuid4

import numpy as np
from numpy.typing import NDArray

from clustr import logs
from clustr.storage.folder import FOLDER_MODE, reading, writing

log = logs.logger(__name__)

FORMAT = 2
STATE = "state.json"
LOCK = "lock"
ID_BYTES = 12
OWNER_BYTES = 8
PARTS = ("data", "ids", "owners", "dead")
POLL_SECONDS = 0.01


@dataclass(frozen=True, slots=True)
class FileState:
    """How much of the files counts.

    Attributes:
        generation: the name of the files.
        rows: how many vectors are in them.
        number: up to this number in the space they have all vectors, except those in `gaps`.
        removed: how many vectors of the space were removed when the files were begun.
        gaps: ranges of numbers whose vectors may still come: first, last, and the time when that
            was noticed, in seconds since 1970.
        boot: identifies the start of the host since which they are written.
    """

    space: str
    generation: str
    rows: int = 0
    number: int = 0
    removed: int = 0
    gaps: tuple[tuple[int, int, float], ...] = ()
    boot: str = ""
    format: int = FORMAT


class Row(Protocol):
    """A vector for the files; both ids have 12 bytes, and the owner is that of the upload."""

    @property
    def id(self) -> bytes: ...

    @property
    def upload_id(self) -> bytes: ...

    @property
    def owner(self) -> str | None: ...

    @property
    def data(self) -> bytes: ...


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The vectors of the files at some moment, mapped.

    Attributes:
        data: the bytes of each vector.
        ids: the id of each vector, and of its upload behind it.
        owners: the owner of each upload, by `_owner_key`.
        dead: which ones are known to be removed.
    """

    generation: str
    data: NDArray[np.uint8]
    ids: NDArray[np.uint8]
    owners: NDArray[np.uint8]
    dead: NDArray[np.uint8]

    def vector_id(self, row: int) -> bytes:
        return self.ids[row, :ID_BYTES].tobytes()

    def upload_id(self, row: int) -> bytes:
        return self.ids[row, ID_BYTES:].tobytes()

    def in_order(self, rows: NDArray[np.intp], found: NDArray[np.float32]) -> NDArray[np.intp]:
        """Rows in the order of their distances, and of the ids of uploads at the same distance.

        Args:
            found: the distances of all rows.
        """
        uploads = np.ascontiguousarray(self.ids[rows, ID_BYTES:]).view(f"S{ID_BYTES}")[:, 0]
        return rows[np.lexsort((uploads, found[rows]))]

    def is_of(self, owner: str) -> NDArray[np.bool_]:
        """Of each vector whether its upload belongs to an owner."""
        key = np.frombuffer(_owner_key(owner), np.uint64)
        return np.equal(self.owners.view(np.uint64)[:, 0], key)


class VectorFile:
    """The files of one space.

    Args:
        folder: where they are; it need not exist.
        size: how many bytes a vector has.
    """

    def __init__(self, folder: Path, space: str, size: int):
        self._folder = folder
        self._space = space
        self._widths = dict(zip(PARTS, (size, 2 * ID_BYTES, OWNER_BYTES, 1), strict=True))
        self._mapping = threading.Lock()
        self._mapped: tuple[FileState, Snapshot] | None = None
        self._read: tuple[tuple[int, int], FileState] | None = None

    def state(self) -> FileState | None:
        """How much of the files counts; None when they are not there, or not to be trusted."""
        path = self._folder / STATE
        try:
            found = path.stat()
            version = (found.st_ino, found.st_mtime_ns)
            if self._read and self._read[0] == version:
                return self._read[1]
            loaded = json.loads(path.read_bytes())
            gaps = tuple((int(a), int(b), float(at)) for a, b, at in loaded["gaps"])
            state = FileState(**{**loaded, "gaps": gaps})
            whole = all(
                self._path(state, part).stat().st_size >= state.rows * width
                for part, width in self._widths.items()
            )
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError, KeyError) as error:
            log.warning("vector_file_not_read", space=self._space, error=str(error)[:300])
            return None
        written = (state.format, state.space, state.boot)
        if written != (FORMAT, self._space, boot_id()) or not whole or state.rows < 0:
            log.warning("vector_file_not_read", space=self._space, error="it is not as it was left")
            return None
        self._read = (version, state)
        return state

    @contextmanager
    def locked(self, until: float) -> Iterator[bool]:
        """Hold the lock for the block; yields False when another process holds it until then.

        Args:
            until: on the clock of `time.monotonic()`.

        Raises:
            StorageFull: the folder cannot be made.
        """
        with writing():
            self._folder.mkdir(mode=FOLDER_MODE, parents=True, exist_ok=True)
            descriptor = os.open(self._folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
        try:
            while not (is_locked := _try_lock(descriptor)) and time.monotonic() < until:
                time.sleep(POLL_SECONDS)
            yield is_locked
        finally:
            os.close(descriptor)  # This ends the lock, as the end of the process would.

    def begin(self, removed: int) -> FileState:
        """Begin the files anew, under the lock; those of before are removed.

        Raises:
            StorageFull: there is no room.
        """
        state = FileState(self._space, uuid4().hex, removed=removed, boot=boot_id())
        with writing():
            for part in PARTS:
                self._path(state, part).touch(0o640)
            self._write_state(state)
            for path in self._folder.iterdir():
                if path.suffix.lstrip(".") in PARTS and path.stem != state.generation:
                    path.unlink(missing_ok=True)
        return state

    def append(
        self,
        state: FileState,
        rows: Sequence[Row],
        number: int,
        gaps: tuple[tuple[int, int, float], ...],
    ) -> FileState:
        """Append vectors, under the lock; return the state after it.

        Args:
            state: as it is.
            number, gaps: of the state after it.

        Raises:
            StorageFull: there is no room; the state is as it was.
        """
        parts = {
            "data": b"".join(row.data for row in rows),
            "ids": b"".join(row.id + row.upload_id for row in rows),
            "owners": b"".join(_owner_key(row.owner) for row in rows),
            "dead": bytes(len(rows)),
        }
        after = replace(state, rows=state.rows + len(rows), number=number, gaps=gaps)
        with writing():
            for part, content in parts.items():
                if content:
                    _write_at(self._path(state, part), content, state.rows * self._widths[part])
            self._write_state(after)
        return after

    def mark_dead(self, snapshot: Snapshot, rows: Sequence[int]) -> None:
        """Mark vectors that were removed, so that they are not found any more."""
        with suppress(OSError):  # They are found to be removed another time.
            descriptor = os.open(self._folder / f"{snapshot.generation}.dead", os.O_WRONLY)
            try:
                for row in rows:
                    os.pwrite(descriptor, b"\1", row)
            finally:
                os.close(descriptor)

    def last_ids(self, state: FileState, count: int) -> list[bytes]:
        """The ids of the last vectors in the files."""
        first = max(0, state.rows - count)
        ids = self.snapshot(state).ids[first:, :ID_BYTES]
        return [each.tobytes() for each in ids]

    def snapshot(self, state: FileState) -> Snapshot:
        """The vectors that this state counts.

        Raises:
            StorageUnavailable: the files cannot be read.
        """
        with self._mapping:
            if self._mapped is None or self._mapped[0] != state:
                with reading():
                    data, ids, owners, dead = (self._map(state, part) for part in PARTS)
                self._mapped = (state, Snapshot(state.generation, data, ids, owners, dead[:, 0]))
            return self._mapped[1]

    def _map(self, state: FileState, part: str) -> NDArray[np.uint8]:
        shape = (state.rows, self._widths[part])
        if not state.rows:  # No bytes can be mapped.
            return np.zeros(shape, np.uint8)
        # A plain array of it is sliced in a tenth of the time.
        return np.asarray(np.memmap(self._path(state, part), np.uint8, "r", shape=shape))

    def _path(self, state: FileState, part: str) -> Path:
        return self._folder / f"{state.generation}.{part}"

    def _write_state(self, state: FileState) -> None:
        temporary = self._folder / f"{STATE}.new"
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o640)
        with os.fdopen(descriptor, "wb") as file:
            file.write(json.dumps(asdict(state)).encode())
        temporary.replace(self._folder / STATE)


@cache
def boot_id() -> str:
    """Identifies the start of this host."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def _owner_key(owner: str | None) -> bytes:
    """What stands for an owner in the files, so that it takes the same room for every name."""
    if owner is None:
        return bytes(OWNER_BYTES)
    return blake2b(owner.encode(), digest_size=OWNER_BYTES).digest()


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _write_at(path: Path, content: bytes, offset: int) -> None:
    """Write these bytes; the disk is full here or never, for mapped memory has no errors."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        left = memoryview(content)
        while left:
            written = os.pwrite(descriptor, left, offset)
            left, offset = left[written:], offset + written
    finally:
        os.close(descriptor)
