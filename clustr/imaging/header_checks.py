"""Header checks: they refuse files that would cost too much to open, by what their headers say.

Pillow reads everything before the pixels in Python, and some of it in a time that grows with the
square of its size: a JPEG of 41 MB with nothing but EXIF data takes 8 seconds to open, which holds
up every other request of the process. The limits here are far above what cameras, phones and
editors write, and far below what does harm. Only lengths and counts are read, so that a refusal
takes milliseconds; Pillow finds out whether the rest is a sound image.
"""

import os
import re
import struct
from collections import defaultdict
from collections.abc import Callable, Iterator
from itertools import islice
from typing import IO, NamedTuple

from clustr.domain.errors import TooManyPixels, Undecodable

# Everything before the pixels. Phones write most, when they put a second picture or sound into a
# JPEG's XMP data, some MiB in segments of 64 KiB; color profiles for print have about 2 MiB.
MAX_METADATA_BYTES = 16 * 1024 * 1024
# EXIF data fits into one segment of a JPEG, unless a program adds much of its own.
MAX_EXIF_BYTES = 256 * 1024
# Segments, chunks or tags of metadata. Real files have some hundreds at most.
MAX_PIECES = 2_000
# Bytes between the segments of a JPEG: some cameras pad to a round offset.
MAX_PADDING_BYTES = 64 * 1024
# Passes over a progressive picture. Encoders make 20 at most.
MAX_SCANS = 100

MAX_FRAMES = 5_000
# All frames together can have as many pixels as so many of the largest images.
MAX_LARGEST_FRAMES = 100

# Pieces of the pixels themselves: a PNG usually has chunks of 8 KiB, a GIF has blocks of 255 bytes,
# a TIFF has strips of some rows. Reading the head of each takes about a microsecond.
MAX_PNG_CHUNKS = 100_000
FRAME_CONTROL_BYTES = 26
MAX_GIF_BLOCKS = 500_000
MAX_TIFF_STRIPS = 100_000
MAX_TIFF_VALUE_BYTES = 64 * 1024 * 1024
# Before the first frame of a GIF: enough for XMP data and a long comment.
MAX_GIF_METADATA_BYTES = 1024 * 1024
# Pillow decodes run-length encoded bitmaps in Python, 2 million runs a second.
MAX_RUN_LENGTH_BYTES = 4 * 1024 * 1024

WINDOW_BYTES = 64 * 1024


class Header(NamedTuple):
    """What the header of an image says about the cost of its decode.

    Attributes:
        pixels: of the picture to decode; None where the header does not say it cheaply.
        scans: the passes over the picture, of a JPEG whose first pass does not show all of it; 0
            for all other images.
        is_cut: whether a JPEG lacks its end mark, so that all its pixels have to be decoded.
        kept_bytes: what a decoder keeps of each pixel until it has read all, even if it reduces the
            picture; 0 for most.
        is_still: whether the picture is the only one, and no metadata for it follows it.
    """

    pixels: int | None = None
    scans: int = 0
    is_cut: bool = False
    kept_bytes: float = 0.0
    is_still: bool = True


def check(file: IO[bytes], format: str, max_pixels: int | None) -> Header:
    """Refuse a file that would cost too much to open.

    Args:
        file: an image, open; its position does not change.
        format: Pillow's name of the format, as the first bytes show it.
        max_pixels: how many one image may have.

    Raises:
        TooManyPixels: the image or its frames together have too many; or it has too many frames.
        Undecodable: it has too much of something else; the message says of what.
    """
    check_format = CHECKS.get(format)
    return (check_format(file.fileno(), max_pixels) if check_format else None) or Header()


class Frames:
    """Counts the frames of an animation, or the pages of a document."""

    def __init__(self, max_pixels: int | None):
        self._max_pixels = max_pixels * MAX_LARGEST_FRAMES if max_pixels else None
        self._pixels = 0
        self._count = 0

    def add(self, width: int, height: int, count: int = 1) -> None:
        """Add frames of this size.

        Raises:
            TooManyPixels: there are too many by now.
        """
        self._count += count
        self._pixels += width * height * count
        if self._count > MAX_FRAMES:
            raise TooManyPixels(f"The image has more than {MAX_FRAMES} frames, the most accepted.")
        if self._max_pixels and self._pixels > self._max_pixels:
            raise TooManyPixels(f"The frames have more than {self._max_pixels} pixels together.")


def over_limit_error(what: str) -> Undecodable:
    return Undecodable(f"The image has more {what} than an image needs.")


# JPEG: the markers of ITU-T T.81, annex B.
APP1, SOS, EOI = 0xE1, 0xDA, 0xD9
FRAME_HEADERS = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}
PROGRESSIVE = {0xC2, 0xC6, 0xCA, 0xCE}
COEFFICIENTS_PER_BLOCK = 64
MARKERS_WITHOUT_LENGTH = {*range(0x01, 0xC0), 0xD8, EOI}  # markers that have no length
# The pixels have bytes FF too, followed by a zero, and restart markers.
MARKER = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")


def check_jpeg(file: int, _max_pixels: int | None) -> Header | None:
    """Limit metadata, and the passes over the picture, each of which visits all pixels."""
    exif = padding = end = scans = components = 0
    several_passes, is_cut, coefficient_bytes = False, True, 0.0
    segments = jpeg_segments(file)
    for pieces, (marker, position, head, length) in enumerate(segments):
        if not scans:
            padding += position - end
            exif += length if marker == APP1 and head.startswith(b"Exif") else 0
        scans += marker == SOS
        _limit(padding, MAX_PADDING_BYTES, "bytes between its segments")
        _limit(exif, MAX_EXIF_BYTES, "EXIF data")
        _limit(0 if scans else position, MAX_METADATA_BYTES, "metadata")
        _limit(pieces, MAX_PIECES, "segments")
        _limit(scans, MAX_SCANS, "passes")
        if marker in FRAME_HEADERS and len(head) > 5:
            components = head[5]
            coefficient_bytes = _coefficient_bytes(os.pread(file, 3 * components, position + 10))
            several_passes = several_passes or marker in PROGRESSIVE
        elif marker == SOS and not several_passes and head[:1] == bytes([components]):
            # All components are in this scan, and a decoder reads no further.
            return Header(is_cut=not _ends_with_mark(file) and not _has_end(segments))
        elif marker == EOI and scans:
            is_cut = False
            break
        end = position + 2 + length
    return Header(scans=scans, is_cut=is_cut, kept_bytes=coefficient_bytes)


def _ends_with_mark(file: int) -> bool:
    """Whether a JPEG ends with its end mark, as nearly all do."""
    return os.pread(file, 2, max(0, os.fstat(file).st_size - 2)) == bytes([0xFF, EOI])


def _has_end(segments: Iterator[tuple[int, int, bytes, int]]) -> bool:
    """Whether the end mark is among these segments; a phone may have put a video behind it."""
    return any(marker == EOI for marker, *_ in islice(segments, MAX_PIECES))


def has_all_scans(file: IO[bytes]) -> bool:
    """Whether the scans of a JPEG bring each coefficient of each component to its last bit.

    Each says which it brings, and how many bits it leaves for later ones (T.81, B.2.3).
    """
    bits_missing: dict[int, list[int]] = defaultdict(lambda: [1] * COEFFICIENTS_PER_BLOCK)
    components = 0
    for marker, position, head, length in jpeg_segments(file.fileno()):
        if marker in FRAME_HEADERS and len(head) > 5:
            components = head[5]
        elif marker == SOS:
            content = os.pread(file.fileno(), length - 2, position + 4)
            count = content[0]
            first, last, bits = content[1 + 2 * count : 4 + 2 * count]
            for component in content[1 : 1 + 2 * count : 2]:
                bits_missing[component][first : last + 1] = [bits & 15] * (last + 1 - first)
    return len(bits_missing) == components and not any(map(any, bits_missing.values()))


def _coefficient_bytes(components: bytes) -> float:
    """Bytes that the coefficients of a pixel take, two each, by what the frame header says."""
    factors = [(each >> 4, each & 15) for each in components[1::3]]
    most = max((h for h, _ in factors), default=0) * max((v for _, v in factors), default=0)
    return 2 * sum(h * v for h, v in factors) / most if most else 0.0


def jpeg_segments(file: int) -> Iterator[tuple[int, int, bytes, int]]:
    """Yield each segment: its marker, its offset, the first bytes of its content, its length."""
    position: int | None = 2
    while position is not None:
        head = os.pread(file, 10, position)
        if not MARKER.match(head):
            position = _next_marker(file, position)
            continue
        alone = head[1] in MARKERS_WITHOUT_LENGTH
        length = 0 if alone else int.from_bytes(head[2:4], "big")
        yield head[1], position, head[4:], length
        position += 2 + length


def _next_marker(file: int, position: int) -> int | None:
    while True:
        window = os.pread(file, WINDOW_BYTES, position)
        found = MARKER.search(window)
        if found:
            return position + found.start()
        if len(window) < WINDOW_BYTES:
            return None
        position += len(window) - 1  # The last byte may be the first of a marker.


def _limit(count: int, limit: int, what: str) -> None:
    if count > limit:
        raise over_limit_error(what)


# Metadata of a PNG that says how to turn it: what its content begins with, by the kind of chunk.
ORIENTATION_CHUNKS = {b"eXIf": b""} | dict.fromkeys(
    (b"tEXt", b"zTXt", b"iTXt"), (b"Raw profile ", b"XML:com.adob")
)


def check_png(file: int, max_pixels: int | None) -> Header | None:
    """Limit chunks, what stands before the pixels, and the frames of an animation.

    The number of frames that it states is ignored: its frames are counted.
    """
    frames, metadata, pieces, position = Frames(max_pixels), 0, 0, 8
    begun, is_still = False, True
    for _ in range(MAX_PNG_CHUNKS):
        head = os.pread(file, 20, position)
        length, kind = int.from_bytes(head[:4], "big"), head[4:8]
        if len(head) < 8 or kind == b"IEND":
            return Header(is_still=is_still)
        begun = begun or kind == b"IDAT"
        if begun and kind in ORIENTATION_CHUNKS and head[8:].startswith(ORIENTATION_CHUNKS[kind]):
            is_still = False
        if kind == b"fcTL":
            whole = length >= FRAME_CONTROL_BYTES and len(head) == 20
            frames.add(*(struct.unpack_from(">II", head, 12) if whole else (0, 0)))
        elif kind not in (b"IDAT", b"fdAT"):
            pieces += 1
            metadata += length
            _limit(pieces, MAX_PIECES, "chunks")
            _limit(metadata, MAX_METADATA_BYTES, "metadata")
            _limit(length if kind == b"eXIf" else 0, MAX_EXIF_BYTES, "EXIF data")
        position += 12 + length
    raise over_limit_error("chunks")


# What libwebp keeps of each pixel of a lossless picture, and of alpha, which may be compressed like
# one.
WEBP_KEPT_BYTES = {b"VP8L": 4, b"ALPH": 5}


def check_webp(file: int, max_pixels: int | None) -> Header:
    """Limit pixels and frames: Pillow reserves memory for the picture when it opens it."""
    head = os.pread(file, 30, 0)
    frames, position, is_still, kept_bytes = Frames(max_pixels), 12, True, 0.0
    for _ in range(MAX_FRAMES + MAX_PIECES):
        piece = os.pread(file, 20, position)
        if len(piece) < 8:
            return Header(_webp_pixels(head), kept_bytes=kept_bytes, is_still=is_still)
        length = int.from_bytes(piece[4:8], "little")
        is_still = is_still and not piece.startswith(b"AN")
        kept_bytes += WEBP_KEPT_BYTES.get(piece[:4], 0)
        if piece.startswith(b"ANMF") and len(piece) == 20:
            frames.add(_three_bytes(piece, 14) + 1, _three_bytes(piece, 17) + 1)
        elif piece.startswith(b"EXIF"):
            _limit(length, MAX_EXIF_BYTES, "EXIF data")
        position += 8 + length + length % 2
    raise over_limit_error("chunks")


def with_true_size(webp: bytes) -> bytes:
    """A WebP up to its last whole chunk, with that size in its header."""
    position = 12
    while len(head := webp[position : position + 8]) == 8:
        length = int.from_bytes(head[4:], "little")
        following = position + 8 + length + length % 2
        if following > len(webp):
            break
        position = following
    return b"RIFF" + struct.pack("<I", position - 8) + webp[8:position]


def _webp_pixels(head: bytes) -> int | None:
    """The pixels of the picture or of the canvas of the animation (RFC 9649)."""
    kind = head[12:16]
    if len(head) < 30:
        return None
    if kind == b"VP8X":
        return (_three_bytes(head, 24) + 1) * (_three_bytes(head, 27) + 1)
    if kind == b"VP8L":
        bits = int.from_bytes(head[21:25], "little")
        return ((bits & 0x3FFF) + 1) * ((bits >> 14 & 0x3FFF) + 1)
    width: int
    height: int
    width, height = struct.unpack_from("<HH", head, 26)
    return (width & 0x3FFF) * (height & 0x3FFF)


def _three_bytes(data: bytes, at: int) -> int:
    return int.from_bytes(data[at : at + 3], "little")


def check_gif(file: int, max_pixels: int | None) -> None:
    """Limit frames, blocks, and what comes before the first frame."""
    frames, position, blocks, padding, seen = Frames(max_pixels), 13, 0, 0, False
    position += color_table_bytes(os.pread(file, 11, 0)[10:])
    while True:
        head = os.pread(file, 10, position)
        if head.startswith(b","):
            seen = True
            if len(head) == 10:
                frames.add(*struct.unpack_from("<HH", head, 5))
            position += 11 + color_table_bytes(head[9:])
        elif head.startswith(b"!"):
            position += 2
        elif not head or head.startswith(b";"):
            return
        else:  # Pillow skips unknown bytes one by one.
            position += 1
            padding += 1
            _limit(padding, MAX_PIECES, "bytes between its blocks")
            continue
        while length := os.pread(file, 1, position):
            position += 1 + length[0]
            blocks += 1
            _limit(blocks, MAX_GIF_BLOCKS, "blocks")
            _limit(0 if seen else position, MAX_GIF_METADATA_BYTES, "metadata")
            if not length[0]:
                break


def color_table_bytes(flags: bytes) -> int:
    """The bytes of the color table that follows a header with these flags."""
    return 3 << (flags[0] & 7) + 1 if flags and flags[0] & 0x80 else 0


# TIFF: bytes of each type of value, by its number in the tables of TIFF 6.0 and BigTIFF.
TYPE_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4}
TYPE_BYTES |= {16: 8, 17: 8, 18: 8}
INTEGER_TYPES = {3: "H", 4: "I", 16: "Q"}
WIDTH, HEIGHT, TILE_WIDTH, TILE_HEIGHT = 256, 257, 322, 323


def check_tiff(file: int, max_pixels: int | None) -> None:
    """Limit tags, the bytes of their values, strips, the size of a tile, and pages."""
    head = os.pread(file, 16, 0)
    order, count, entry, place = tiff_layout(head)
    frames, seen = Frames(max_pixels), set()
    position = unpack_number(place, head, place.size)
    while position and position not in seen:
        seen.add(position)
        tags = unpack_number(count, os.pread(file, count.size, min(position, 2**62)), 0)
        _limit(tags, MAX_PIECES, "tags")
        position += count.size
        directory = os.pread(file, tags * entry.size, min(position, 2**62))
        whole = directory[: len(directory) // entry.size * entry.size]
        sizes = _check_tags(whole, entry, order, os.fstat(file).st_size)
        frames.add(sizes.get(WIDTH, 0), sizes.get(HEIGHT, 0))
        if max_pixels and sizes.get(TILE_WIDTH, 0) * sizes.get(TILE_HEIGHT, 0) > max_pixels:
            raise TooManyPixels(f"A tile of the image has more than {max_pixels} pixels.")
        position += tags * entry.size
        position = unpack_number(place, os.pread(file, place.size, min(position, 2**62)), 0)


def tiff_layout(head: bytes) -> tuple[str, struct.Struct, struct.Struct, struct.Struct]:
    """The byte order, and how the number of tags, tags and offsets are packed."""
    order = "<" if head.startswith(b"II") else ">"
    big = head[2:4] in (b"+\0", b"\0+")
    forms = ("Q", "HHQ8s", "Q") if big else ("H", "HHI4s", "I")
    count, entry, place = (struct.Struct(order + each) for each in forms)
    return order, count, entry, place


def _check_tags(
    directory: bytes, entry: struct.Struct, order: str, file_bytes: int
) -> dict[int, int]:
    """Limit the values of a directory's tags; return those that are one number, by tag.

    Values beyond the end of the file cost nothing, and are not counted.
    """
    found: dict[int, int] = {}
    values = 0
    for tag, kind, count, data in entry.iter_unpack(directory):
        each = TYPE_BYTES.get(kind, 0)
        size = count * each
        if size > len(data):
            start = int.from_bytes(data, "little" if order == "<" else "big")
            size = min(size, max(0, file_bytes - start))
        values += size
        _limit(values, MAX_TIFF_VALUE_BYTES, "metadata")
        _limit(size // each if each > 1 else 0, MAX_TIFF_STRIPS, "strips or values")
        if count == 1 and kind in INTEGER_TYPES:
            found.setdefault(tag, struct.unpack_from(order + INTEGER_TYPES[kind], data)[0])
    return found


def unpack_number(form: struct.Struct, data: bytes, at: int) -> int:
    return form.unpack_from(data, at)[0] if len(data) >= at + form.size else 0


def check_bmp(file: int, _max_pixels: int | None) -> None:
    """Limit the length of a bitmap that is run-length encoded."""
    compression = os.pread(file, 4, 30)
    if compression in (b"\1\0\0\0", b"\2\0\0\0"):
        _limit(os.fstat(file).st_size, MAX_RUN_LENGTH_BYTES, "run-length encoded data")


CHECKS: dict[str, Callable[[int, int | None], Header | None]] = {
    "JPEG": check_jpeg,
    "PNG": check_png,
    "WEBP": check_webp,
    "GIF": check_gif,
    "TIFF": check_tiff,
    "BMP": check_bmp,
}
