"""What decoding pictures may cost: how long one may take, and the memory that all share.

A file of some bytes can be a picture of 50 megapixels, and a hundred of those fit into a request of
15 KB. So how long a decode may take grows with what the file holds; and who decodes takes turns
with others, picture by picture, so that nobody waits for the whole of another's request.
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

# How long a decode may take: so long for any file, and so long more for each byte of it. Pictures
# that people make stay far below: a WebP of 50 megapixels takes 0.25 microseconds a byte.
FREE_SECONDS = 0.25
SECONDS_PER_BYTE = 5e-6
# However large the file is, by what `MAX_IMAGE_PIXELS` is: 2 seconds for 50 megapixels.
MOST_SECONDS_PER_PIXEL = 40e-9

# A decoder begins anew in each row; a JPEG visits each pixel in each of its scans.
SECONDS_PER_ROW = 30e-9
SECONDS_PER_PIXEL_AND_SCAN = 0.7e-9

# What pictures take that are being decoded on a host (`DECODE_MEMORY`).
DECODE_MEMORY_BYTES = 400 * 1024 * 1024
# One part of a process's share in so many is for small pictures, most photographs among them, which
# are reduced by their decode: they do not wait for large ones.
SHARES_TO_SMALL = 5
# One picture is small that needs at most one part in so many of what all small ones have.
SMALL_TO_ONE = 4


class Cost(NamedTuple):
    """What decides how long a decode takes.

    Attributes:
        width: in pixels.
        height: in pixels.
        seconds_per_pixel: how long a pixel takes of which the file says next to nothing.
        scans: passes over the picture, if it is one that comes in several.
    """

    width: int
    height: int
    seconds_per_pixel: float
    scans: int = 0

    def seconds(self) -> float:
        """How long a decode takes where the file says next to nothing of the pixels."""
        per_pixel = self.seconds_per_pixel + self.scans * SECONDS_PER_PIXEL_AND_SCAN
        return self.width * self.height * per_pixel + self.height * SECONDS_PER_ROW


def check_time(cost: Cost, size_bytes: int, max_pixels: int | None) -> None:
    """Refuse a picture that would take too long to decode for what its file holds.

    Args:
        size_bytes: of the file.
        max_pixels: how many one image may have.

    Raises:
        TooManyPixels: it would.
    """
    allowed = FREE_SECONDS + size_bytes * SECONDS_PER_BYTE
    if max_pixels:
        allowed = min(allowed, max(FREE_SECONDS, max_pixels * MOST_SECONDS_PER_PIXEL))
    if cost.seconds() > allowed:
        passes = f" in {cost.scans} passes" if cost.scans > 1 else ""
        raise TooManyPixels(
            f"The image has {cost.width} x {cost.height} pixels{passes} in a file of {size_bytes} "
            "bytes, which would take too long to decode; save it with fewer pixels or passes."
        )


class MemoryBudget:
    """Memory that is shared in the order of arrival, so that nobody is passed over."""

    def __init__(self, size_bytes: int):
        self._size_bytes = size_bytes
        self._taken_bytes = 0
        self._changed = Condition()
        self._line: deque[object] = deque()

    @contextmanager
    def taken(self, size_bytes: int) -> Iterator[None]:
        """Take this much for the block; more than there is, when nobody else has any."""
        place = object()
        with self._changed:
            self._line.append(place)
            try:
                self._changed.wait_for(lambda: self._line[0] is place and self._has(size_bytes))
                self._taken_bytes += size_bytes
            finally:
                self._line.remove(place)
                self._changed.notify_all()
        try:
            yield
        finally:
            with self._changed:
                self._taken_bytes -= size_bytes
                self._changed.notify_all()

    def _has(self, size_bytes: int) -> bool:
        return not self._taken_bytes or self._taken_bytes + size_bytes <= self._size_bytes


class HostTurns:
    """Turns of all processes that were forked from the one that made this; each takes some memory.

    They are locks of flock(2) on files without a name, which end with the process that holds them.
    Who waits to be alone keeps the gate shut for those that come later, or it would wait for ever.
    """

    def __init__(self) -> None:
        self._gate = os.memfd_create("clustr-decode-gate")
        self._decodes = os.memfd_create("clustr-decodes")

    @contextmanager
    def taken(self, alone: bool) -> Iterator[None]:
        """Wait for a turn, and for all others to end first if it is to be `alone`."""
        with Path(f"/proc/self/fd/{self._decodes}").open("rb") as decodes:
            with Path(f"/proc/self/fd/{self._gate}").open("rb") as gate:
                fcntl.flock(gate, fcntl.LOCK_EX)
                fcntl.flock(decodes, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
            yield


class DecodeMemory:
    """What a process may take for decodes, and how it shares the host with others.

    Args:
        share_bytes: the share of this process.
    """

    def __init__(self, share_bytes: int):
        small_bytes = share_bytes // SHARES_TO_SMALL
        self._most_of_small = small_bytes // SMALL_TO_ONE
        self._most_of_large = share_bytes - small_bytes
        self._small = MemoryBudget(small_bytes)
        self._large = MemoryBudget(self._most_of_large)

    @contextmanager
    def taken(self, size_bytes: int) -> Iterator[None]:
        """Take this much for the block.

        Where that is more than there is for large pictures, no other large one is decoded on the
        host meanwhile.
        """
        if size_bytes <= self._most_of_small:
            with self._small.taken(size_bytes):
                yield
        else:
            alone = size_bytes > self._most_of_large
            with self._large.taken(size_bytes), _host_turns.taken(alone):
                yield


_host_turns = HostTurns()  # made before gunicorn forks, whose settings import this
_memory = DecodeMemory(DECODE_MEMORY_BYTES)
_processes = 1


def share_with(processes: int) -> None:
    """Say how many processes of the host share the memory; to be called before `limit_memory`."""
    global _processes
    _processes = processes


def limit_memory(size_bytes: int) -> None:
    """Let all processes of the host together take this much for decodes, each an even share."""
    global _memory
    _memory = DecodeMemory(size_bytes // _processes)


def memory_for(size_bytes: int) -> AbstractContextManager[None]:
    """Memory for one picture that needs this much; who enters it may have to wait for others."""
    return _memory.taken(size_bytes)
