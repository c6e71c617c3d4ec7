"""BMP: the format has no metadata; what follows the picture is cut."""

import os
import struct

from clustr.domain.models import FilesMetadata
from clustr.imaging.stripping.pieces import Piece, Span

# Where BITMAPFILEHEADER and BITMAPINFOHEADER have the sizes of the file and of the pixels, where
# the pixels begin, and, from BITMAPV5HEADER on, where the color profile is.
FILE_BYTES, PIXELS, HEADER_BYTES = 2, 10, 14
WIDTH, HEIGHT, BITS, COMPRESSION, PIXELS_BYTES = 18, 22, 28, 30, 34
PROFILE, PROFILE_BYTES = 14 + 112, 14 + 116
V5_HEADER_BYTES = 124
RUN_LENGTHS = (1, 2)


def strip_bmp(file: int, size: int, kind: FilesMetadata) -> list[Piece]:
    """The pieces of a bitmap up to the end of its pixels, by what its header says."""
    head = os.pread(file, HEADER_BYTES + V5_HEADER_BYTES, 0)
    if len(head) < PIXELS_BYTES + 4 or _number(head, HEADER_BYTES) < 40:  # OS/2 has no such sizes.
        return [Span(0, size)]
    width, height = struct.unpack_from("<ii", head, WIDTH)
    (bits,) = struct.unpack_from("<H", head, BITS)
    pixels_bytes = (abs(width) * bits + 31) // 32 * 4 * abs(height)
    if _number(head, COMPRESSION) in RUN_LENGTHS:
        pixels_bytes = _number(head, PIXELS_BYTES) or size
    end = max(_number(head, PIXELS) + pixels_bytes, _number(head, FILE_BYTES))
    if _number(head, HEADER_BYTES) >= V5_HEADER_BYTES and len(head) >= PROFILE_BYTES + 4:
        end = max(end, HEADER_BYTES + _number(head, PROFILE) + _number(head, PROFILE_BYTES))
    return [Span(0, min(end, size))]


def _number(head: bytes, at: int) -> int:
    number: int = struct.unpack_from("<I", head, at)[0]
    return number
