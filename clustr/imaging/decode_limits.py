"""Limits of decoding: the time that one picture may take, and the memory that all pictures share.

A file of some bytes can be a picture of 50 megapixels, and a hundred of those fit into a request of
15 KB. So the time that a decode may take grows with the size of the file; and requests reserve
memory picture by picture, so that no request waits for all pictures of another.
"""

import fcntl
import os
from collections import deque
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from threading import Condition
from typing import NamedTuple

from clustr.domain.errors import TooManyPixels

# The time that a decode may take: for any file, and in addition for each byte of it. Real pictures
# stay far below: a WebP of 50 megapixels takes 0.25 microseconds a byte.
BASE_SECONDS = 0.25
SECONDS_PER_BYTE = 5e-6
# The most for a file of any size, by `MAX_IMAGE_PIXELS`: 2 seconds for 50 megapixels.
MAX_SECONDS_PER_PIXEL = 40e-9

# A decoder has work for each row; a JPEG visits each pixel in each of its scans.
SECONDS_PER_ROW = 30e-9
SECONDS_PER_PIXEL_AND_SCAN = 0.7e-9

# The memory for all pictures that are being decoded on a host (`DECODE_MEMORY`).
DECODE_MEMORY_BYTES = 400 * 1024 * 1024
# A process reserves this part of its share for small pictures, so that they do not wait for large
# ones: most photographs are small, because their decode reduces them.
PART_FOR_SMALL = 1 / 5
# A picture is small when it needs at most this part of what all small ones have.
PART_FOR_ONE_SMALL = 1 / 4


class Cost(NamedTuple):
    """What decides how long a decode takes.

    Attributes:
        width: in pixels.
        height: in pixels.
        seconds_per_pixel: how long one pixel of a picture in one color takes.
        scans: passes over the picture, if it has several.
    """

    width: int
    height: int
    seconds_per_pixel: float
    scans: int = 0

    def seconds(self) -> float:
        """How long the decode of a picture in one color takes."""
        per_pixel = self.seconds_per_pixel + self.scans * SECONDS_PER_PIXEL_AND_SCAN
        return self.width * self.height * per_pixel + self.height * SECONDS_PER_ROW


def check_time(cost: Cost, size_bytes: int, max_pixels: int | None) -> None:
    """Refuse a picture that would take too long to decode for the size of its file.

    Args:
        size_bytes: of the file.
        max_pixels: how many one image may have.

    Raises:
        TooManyPixels: it would take too long.
    """
    allowed = BASE_SECONDS + size_bytes * SECONDS_PER_BYTE
    if max_pixels:
        allowed = min(allowed, max(BASE_SECONDS, max_pixels * MAX_SECONDS_PER_PIXEL))
    if cost.seconds() > allowed:
        passes = f" in {cost.scans} passes" if cost.scans > 1 else ""
        raise TooManyPixels(
            f"The image has {cost.width} x {cost.height} pixels{passes} in a file of {size_bytes} "
            "bytes, which would take too long to decode; save it with fewer pixels or passes."
        )


class MemoryBudget:
    """Memory that threads reserve in the order of arrival."""

    def __init__(self, size_bytes: int):
        self._size_bytes = size_bytes
        self._reserved_bytes = 0
        self._changed = Condition()
        self._waiting: deque[object] = deque()

    @contextmanager
    def reserved(self, size_bytes: int) -> Iterator[None]:
        """Reserve memory for the block; more than the whole budget when nothing is reserved."""
        place = object()
        with self._changed:
            self._waiting.append(place)
            try:
                self._changed.wait_for(lambda: self._waiting[0] is place and self._fits(size_bytes))
                self._reserved_bytes += size_bytes
            finally:
                self._waiting.remove(place)
                self._changed.notify_all()
        try:
            yield
        finally:
            with self._changed:
                self._reserved_bytes -= size_bytes
                self._changed.notify_all()

    def _fits(self, size_bytes: int) -> bool:
        return not self._reserved_bytes or self._reserved_bytes + size_bytes <= self._size_bytes


class HostLock:
    """A lock of all processes that were forked from the one that created it, shared or exclusive.

    It is a lock of flock(2) on a file without a name, which ends with the process that holds it.
    Whoever waits for the exclusive lock holds a second one, the gate, so that those that come later
    cannot take the shared lock before.
    """

    def __init__(self) -> None:
        self._gate = os.memfd_create("clustr-decode-gate")
        self._lock = os.memfd_create("clustr-decodes")

    @contextmanager
    def held(self, exclusive: bool) -> Iterator[None]:
        """Hold the lock for the block."""
        with Path(f"/proc/self/fd/{self._lock}").open("rb") as lock:
            with Path(f"/proc/self/fd/{self._gate}").open("rb") as gate:
                fcntl.flock(gate, fcntl.LOCK_EX)
                fcntl.flock(lock, fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH)
            yield


class DecodeMemory:
    """The memory that a process has for decodes.

    Args:
        share_bytes: the share of this process.
    """

    def __init__(self, share_bytes: int):
        small_bytes = int(share_bytes * PART_FOR_SMALL)
        self._max_small_bytes = int(small_bytes * PART_FOR_ONE_SMALL)
        self._max_large_bytes = share_bytes - small_bytes
        self._small = MemoryBudget(small_bytes)
        self._large = MemoryBudget(self._max_large_bytes)

    @contextmanager
    def reserved(self, size_bytes: int) -> Iterator[None]:
        """Reserve memory for the block.

        A picture that needs more than there is for large ones is the only large one that is decoded
        on the host meanwhile.
        """
        if size_bytes <= self._max_small_bytes:
            with self._small.reserved(size_bytes):
                yield
        else:
            exclusive = size_bytes > self._max_large_bytes
            with self._large.reserved(size_bytes), _host_lock.held(exclusive):
                yield


_host_lock = HostLock()  # It is created before gunicorn forks: gunicorn's settings import this.
_memory = DecodeMemory(DECODE_MEMORY_BYTES)
_processes = 1


def share_with(processes: int) -> None:
    """Set how many processes of the host share the memory; call it before `limit_memory`."""
    global _processes
    _processes = processes


def limit_memory(size_bytes: int) -> None:
    """Set the memory that all processes of the host have for decodes; each has an equal share."""
    global _memory
    _memory = DecodeMemory(size_bytes // _processes)


def memory_for(size_bytes: int) -> AbstractContextManager[None]:
    """A context manager that reserves memory for one picture, and waits until there is enough."""
    return _memory.reserved(size_bytes)
