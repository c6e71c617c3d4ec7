"""What decoding pictures may cost: how long one may take, and the memory that all share.

A file of some bytes can be a picture of 50 megapixels, and a hundred of those fit into a request of
15 KB. So how long a decode may take grows with what the file holds; and who decodes takes turns
with others, picture by picture, so that nobody waits for the whole of another's request.
"""

from collections import deque
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from threading import Condition
from typing import NamedTuple

from clustr.errors import TooManyPixels

# How long a decode may take: so long for any file, and so long more for each byte of it. Pictures
# that people make stay far below: a WebP of 50 megapixels takes 0.25 microseconds a byte.
FREE_SECONDS = 0.25
SECONDS_PER_BYTE = 5e-6
# However large the file is, by what `MAX_IMAGE_PIXELS` is: 2 seconds for 50 megapixels.
MOST_SECONDS_PER_PIXEL = 40e-9

# A decoder begins anew in each row; a JPEG visits each pixel in each of its scans.
SECONDS_PER_ROW = 30e-9
SECONDS_PER_PIXEL_AND_SCAN = 0.7e-9

# Memory in a process for pictures that are being decoded: enough for some of 12 megapixels at once.
# A single picture that needs more is decoded alone: at most `MAX_IMAGE_PIXELS` times the format's
# `bytes_per_pixel`, which are 850 MB for a WebP of 50 megapixels, 200 MB for a PNG.
LARGE_PICTURES_BYTES = 200_000_000
# Pictures that need little do not wait for those: most photographs are reduced by their decode.
SMALL_PICTURE_BYTES = 24_000_000
SMALL_PICTURES_BYTES = 72_000_000


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


_large_pictures = MemoryBudget(LARGE_PICTURES_BYTES)
_small_pictures = MemoryBudget(SMALL_PICTURES_BYTES)


def memory_for(size_bytes: int) -> AbstractContextManager[None]:
    """Memory for one picture that needs this much; who enters it may have to wait for others."""
    small = size_bytes <= SMALL_PICTURE_BYTES
    return (_small_pictures if small else _large_pictures).taken(size_bytes)
