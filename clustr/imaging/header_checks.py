"""Headers: refuses what would cost too much to open, by what a file says of itself.

Pillow reads all that stands before the pixels, in Python, and some of it in a time that grows with
the square of its size: a JPEG of 41 MB with nothing but EXIF data takes 8 seconds to open, holding
up every other request of the process. The limits here lie far above what cameras, phones and
editors write, and far below what hurts. Only lengths and counts are read, so that a refusal takes
milliseconds; whether the rest is a sound image is for Pillow to find out.
"""

import os
import re
import struct
from collections import defaultdict
from collections.abc import Callable, Iterator
from itertools import islice
from typing import IO, NamedTuple

from PIL import TiffImagePlugin

from clustr.domain.errors import TooManyPixels, Undecodable

# What stands before the pixels. The most is written by phones that put a second picture or sound
# into a JPEG's XMP data, some MiB in segments of 64 KiB, and by profiles for print, about 2 MiB.
METADATA_BYTES = 16 * 1024 * 1024
# EXIF data fits into one segment of a JPEG, but for programs that add much of their own.
EXIF_BYTES = 256 * 1024
# Pieces of metadata: segments, chunks or tags. Some hundreds are the most that is seen.
PIECES = 2_000
# Bytes between the segments of a JPEG, with which some cameras fill up to a round address.
JUNK_BYTES = 64 * 1024
# Passes over a picture, by which it appears gradually. An encoder that tries hard makes 20.
SCANS = 100

FRAMES = 5_000
# All frames together can have as many pixels as this many of the largest images.
FRAMES_TO_PIXELS = 100

# Pieces of the pixels themselves: a PNG has them of 8 KiB as a rule, a GIF of 255 bytes, a TIFF has
# a strip of some rows for each. Reading their heads takes about a microsecond each.
PNG_CHUNKS = 100_000
FRAME_CONTROL_BYTES = 26
GIF_BLOCKS = 500_000
TIFF_STRIPS = 100_000
TIFF_VALUE_BYTES = 64 * 1024 * 1024
# Before the first frame of a GIF; there is room for XMP data and a long comment.
GIF_METADATA_BYTES = 1024 * 1024
# Pillow unpacks run-length encoded bitmaps in Python, 2 million runs a second.
RUN_LENGTH_BYTES = 4 * 1024 * 1024

WINDOW_BYTES = 64 * 1024


class Header(NamedTuple):
    """What the header of an image says that decides how much a decode costs.

    Attributes:
        pixels: of the picture that is going to be decoded; None where that is not told cheaply.
        scans: how many passes over the picture a JPEG has whose first does not show all of it; 0
            for all other images.
        is_cut: whether a JPEG lacks its end mark, which takes decodes of all its pixels.
        kept_bytes: what a decoder keeps of each pixel until it has read all, whatever it reduces
            the picture to; 0 for most.
        is_still: whether the picture is the only one, and nothing that it needs is behind it.
    """

    pixels: int | None = None
    scans: int = 0
    is_cut: bool = False
    kept_bytes: float = 0.0
    is_still: bool = True


def check(file: IO[bytes], format: str, max_pixels: int | None) -> Header:
    """Refuse a file that would cost too much to open.

    Args:
        file: an image, open; where it is read next stays as it is.
        format: what it begins like, by Pillow's name.
        max_pixels: how many one image may have.

    Raises:
        TooManyPixels: of the image, or of its frames together; or too many frames.
        Undecodable: something else there is too much of; the message says what.
    """
    look = CHECKS.get(format)
    return (look(file.fileno(), max_pixels) if look else None) or Header()


# What files begin with that are often taken for images, or are images of other kinds: at which
# byte it stands, what stands there, and what people call it.
KINDS = (
    (0, b"GIF8", "GIF"),
    (0, b"\xff\xd8\xff", "JPEG"),
    (0, b"\x89PNG", "PNG"),
    (8, b"WEBP", "WebP"),
    (0, b"II*\0", "TIFF"),
    (0, b"MM\0*", "TIFF"),
    (0, b"BM", "BMP"),
    (4, b"ftypavi", "AVIF"),
    (4, b"ftyphei", "HEIC"),
    (4, b"ftyphev", "HEIC"),
    (4, b"ftypmif", "HEIC"),
    (4, b"ftypmsf", "HEIC"),
    (4, b"ftypcrx", "CR3 (raw photograph)"),
    (4, b"ftyp", "MP4 or QuickTime (video)"),
    (0, b"\xff\x0a", "JPEG XL"),
    (4, b"JXL ", "JPEG XL"),
    (4, b"jP  ", "JPEG 2000"),
    (0, b"\xff\x4f\xff\x51", "JPEG 2000"),
    (0, b"\0\0\1\0", "ICO (icon)"),
    (0, b"8BPS", "PSD (Photoshop)"),
    (0, b"%PDF", "PDF"),
    (0, b"%!PS", "PostScript"),
    (0, b"<svg", "SVG"),
    (0, b"PK\3\4", "ZIP"),
    (0, b"<!doctype html", "HTML"),
    (0, b"<html", "HTML"),
)


def kind_of(file: IO[bytes]) -> str | None:
    """What people call a file that begins so, if it is a kind that is sent often."""
    head = os.pread(file.fileno(), 64, 0)
    markup = head.lstrip().lower()
    for position, magic, kind in KINDS:
        if head.startswith(magic, position) or (magic[:1] == b"<" and markup.startswith(magic)):
            return kind
    return None


class Frames:
    """Counts the frames of an animation, or the pages of a document."""

    def __init__(self, max_pixels: int | None):
        self._max_pixels = max_pixels * FRAMES_TO_PIXELS if max_pixels else None
        self._pixels = 0
        self._count = 0

    def add(self, width: int, height: int, count: int = 1) -> None:
        """Add frames of this size.

        Raises:
            TooManyPixels: there are too many by now.
        """
        self._count += count
        self._pixels += width * height * count
        if self._count > FRAMES:
            raise TooManyPixels(f"The image has more than {FRAMES} frames, the most accepted.")
        if self._max_pixels and self._pixels > self._max_pixels:
            raise TooManyPixels(f"The frames have more than {self._max_pixels} pixels together.")


def over_limit(what: str) -> Undecodable:
    return Undecodable(f"The image has more {what} than an image needs.")


# JPEG: the markers of ITU-T T.81, annex B.
APP1, SOS, EOI = 0xE1, 0xDA, 0xD9
FRAME_HEADERS = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}
PROGRESSIVE = {0xC2, 0xC6, 0xCA, 0xCE}
COEFFICIENTS = 64
ALONE = {*range(0x01, 0xC0), 0xD8, EOI}  # markers that have no length
# Among the pixels are bytes FF too, with a zero behind them, and marks to begin again at.
MARKER = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")


def check_jpeg(file: int, _max_pixels: int | None) -> Header | None:
    """Limit metadata, and the passes over the picture, each of which visits all of it."""
    exif = junk = end = scans = components = 0
    several_passes, is_cut, coefficient_bytes = False, True, 0.0
    segments = _segments(file)
    for pieces, (marker, position, head, length) in enumerate(segments):
        if not scans:
            junk += position - end
            exif += length if marker == APP1 and head.startswith(b"Exif") else 0
        scans += marker == SOS
        _limit(junk, JUNK_BYTES, "bytes between its segments")
        _limit(exif, EXIF_BYTES, "EXIF data")
        _limit(0 if scans else position, METADATA_BYTES, "metadata")
        _limit(pieces, PIECES, "segments")
        _limit(scans, SCANS, "passes")
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
    """Whether the end mark of a JPEG is the last of its file, as nearly always."""
    return os.pread(file, 2, max(0, os.fstat(file).st_size - 2)) == bytes([0xFF, EOI])


def _has_end(segments: Iterator[tuple[int, int, bytes, int]]) -> bool:
    """Whether the end mark is among these segments, behind which a phone may have put a video."""
    return any(marker == EOI for marker, *_ in islice(segments, PIECES))


def has_all_scans(file: IO[bytes]) -> bool:
    """Whether the scans of a JPEG bring each coefficient of each component to its last bit.

    Each says which it brings, and how many bits it leaves for later ones (T.81, B.2.3).
    """
    bits_missing: dict[int, list[int]] = defaultdict(lambda: [1] * COEFFICIENTS)
    components = 0
    for marker, position, head, length in _segments(file.fileno()):
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


def _segments(file: int) -> Iterator[tuple[int, int, bytes, int]]:
    """Each segment: its marker, where it begins, the first bytes of its content, its length."""
    position: int | None = 2
    while position is not None:
        head = os.pread(file, 10, position)
        if not MARKER.match(head):
            position = _next_marker(file, position)
            continue
        alone = head[1] in ALONE
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
        raise over_limit(what)


# Metadata of a PNG that says how to turn it: what its content begins with, by the kind of chunk.
TURNING = {b"eXIf": b""} | dict.fromkeys(
    (b"tEXt", b"zTXt", b"iTXt"), (b"Raw profile ", b"XML:com.adob")
)


def check_png(file: int, max_pixels: int | None) -> Header | None:
    """Limit chunks, what stands before the pixels, and the frames of an animation.

    How many frames it says that it has decides nothing: those that are there are counted.
    """
    frames, metadata, pieces, position = Frames(max_pixels), 0, 0, 8
    begun, is_still = False, True
    for _ in range(PNG_CHUNKS):
        head = os.pread(file, 20, position)
        length, kind = int.from_bytes(head[:4], "big"), head[4:8]
        if len(head) < 8 or kind == b"IEND":
            return Header(is_still=is_still)
        begun = begun or kind == b"IDAT"
        if begun and kind in TURNING and head[8:].startswith(TURNING[kind]):
            is_still = False
        if kind == b"fcTL":
            whole = length >= FRAME_CONTROL_BYTES and len(head) == 20
            frames.add(*(struct.unpack_from(">II", head, 12) if whole else (0, 0)))
        elif kind not in (b"IDAT", b"fdAT"):
            pieces += 1
            metadata += length
            _limit(pieces, PIECES, "chunks")
            _limit(metadata, METADATA_BYTES, "metadata")
            _limit(length if kind == b"eXIf" else 0, EXIF_BYTES, "EXIF data")
        position += 12 + length
    raise over_limit("chunks")


# What libwebp keeps of each pixel of a lossless picture, and of alpha, which may be packed like
# one.
WEBP_KEPT_BYTES = {b"VP8L": 4, b"ALPH": 5}


def check_webp(file: int, max_pixels: int | None) -> Header:
    """Limit pixels and frames: Pillow reserves memory for the picture as soon as it opens it."""
    head = os.pread(file, 30, 0)
    frames, position, is_still, kept_bytes = Frames(max_pixels), 12, True, 0.0
    for _ in range(FRAMES + PIECES):
        piece = os.pread(file, 20, position)
        if len(piece) < 8:
            return Header(_webp_pixels(head), kept_bytes=kept_bytes, is_still=is_still)
        length = int.from_bytes(piece[4:8], "little")
        is_still = is_still and not piece.startswith(b"AN")
        kept_bytes += WEBP_KEPT_BYTES.get(piece[:4], 0)
        if piece.startswith(b"ANMF") and len(piece) == 20:
            frames.add(_three_bytes(piece, 14) + 1, _three_bytes(piece, 17) + 1)
        elif piece.startswith(b"EXIF"):
            _limit(length, EXIF_BYTES, "EXIF data")
        position += 8 + length + length % 2
    raise over_limit("chunks")


def with_true_size(webp: bytes) -> bytes:
    """A WebP to the end of its last whole chunk, whose header states the size that it has then."""
    position = 12
    while len(head := webp[position : position + 8]) == 8:
        length = int.from_bytes(head[4:], "little")
        following = position + 8 + length + length % 2
        if following > len(webp):
            break
        position = following
    return b"RIFF" + struct.pack("<I", position - 8) + webp[8:position]


def _webp_pixels(head: bytes) -> int | None:
    """The size of the picture or of the whole animation, as RFC 9649 has it."""
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
    """Limit what stands before the first frame, frames, and the pieces of all of it."""
    frames, position, blocks, junk, seen = Frames(max_pixels), 13, 0, 0, False
    position += _color_table(os.pread(file, 11, 0)[10:])
    while True:
        head = os.pread(file, 10, position)
        if head.startswith(b","):
            seen = True
            if len(head) == 10:
                frames.add(*struct.unpack_from("<HH", head, 5))
            position += 11 + _color_table(head[9:])
        elif head.startswith(b"!"):
            position += 2
        elif not head or head.startswith(b";"):
            return
        else:  # Pillow skips what it does not know, byte by byte.
            position += 1
            junk += 1
            _limit(junk, PIECES, "bytes between its blocks")
            continue
        while length := os.pread(file, 1, position):
            position += 1 + length[0]
            blocks += 1
            _limit(blocks, GIF_BLOCKS, "blocks")
            _limit(0 if seen else position, GIF_METADATA_BYTES, "metadata")
            if not length[0]:
                break


def _color_table(flags: bytes) -> int:
    """How many bytes of colors follow a head that ends with these flags."""
    return 3 << (flags[0] & 7) + 1 if flags and flags[0] & 0x80 else 0


# TIFF: bytes of each type of value, by its number in the tables of TIFF 6.0 and BigTIFF.
TYPE_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4}
TYPE_BYTES |= {16: 8, 17: 8, 18: 8}
NUMBERS = {3: "H", 4: "I", 16: "Q"}
WIDTH, HEIGHT, TILE_WIDTH, TILE_HEIGHT = 256, 257, 322, 323

# The kinds of TIFF that Pillow reads: what the numbers mean (a color, a shade), of which format
# they are, and how many bits each has.
READ_TIFFS = {(key[1], key[2], key[4]) for key in TiffImagePlugin.OPEN_INFO}
BITS_PER_SAMPLE, COMPRESSION, PHOTOMETRIC, SAMPLES_PER_PIXEL = 258, 259, 262, 277
PLANES, SAMPLE_FORMAT = 284, 339
DESCRIBING = {BITS_PER_SAMPLE, COMPRESSION, PHOTOMETRIC, SAMPLES_PER_PIXEL, PLANES, SAMPLE_FORMAT}
PHOTOMETRICS = {*range(7), 8, 9, 10, 32803, 32844, 32845, 34892}
SAMPLE_FORMATS = {
    1: "whole numbers",
    2: "whole numbers with a sign",
    3: "fractions",
    4: "of no known format",
    5: "complex whole numbers",
    6: "complex numbers",
}
MOST_SAMPLES = 1_000

# JPEG: processes of which libjpeg-turbo, in Pillow, has none (ITU-T T.81, table B.1).
OTHER_PROCESSES = dict.fromkeys((0xC3, 0xCB), "lossless JPEG")
OTHER_PROCESSES |= dict.fromkeys((0xC5, 0xC6, 0xC7, 0xCD, 0xCE, 0xCF), "hierarchical JPEG")
INSIDE_A_BMP = {4: "JPEG", 5: "PNG"}
BMP_INFO_BYTES = 40


def check_tiff(file: int, max_pixels: int | None) -> None:
    """Limit tags, the bytes of their values, strips, the size of a tile, and pages."""
    head = os.pread(file, 16, 0)
    order, count, entry, place = _tiff_layout(head)
    frames, seen = Frames(max_pixels), set()
    position = _number(place, head, place.size)
    while position and position not in seen:
        seen.add(position)
        tags = _number(count, os.pread(file, count.size, min(position, 2**62)), 0)
        _limit(tags, PIECES, "tags")
        position += count.size
        directory = os.pread(file, tags * entry.size, min(position, 2**62))
        whole = directory[: len(directory) // entry.size * entry.size]
        sizes = _check_tags(whole, entry, order, os.fstat(file).st_size)
        frames.add(sizes.get(WIDTH, 0), sizes.get(HEIGHT, 0))
        if max_pixels and sizes.get(TILE_WIDTH, 0) * sizes.get(TILE_HEIGHT, 0) > max_pixels:
            raise TooManyPixels(f"A tile of the image has more than {max_pixels} pixels.")
        position += tags * entry.size
        position = _number(place, os.pread(file, place.size, min(position, 2**62)), 0)


def _tiff_layout(head: bytes) -> tuple[str, struct.Struct, struct.Struct, struct.Struct]:
    """The order of bytes, and how numbers of tags, tags and places are written."""
    order = "<" if head.startswith(b"II") else ">"
    big = head[2:4] in (b"+\0", b"\0+")
    forms = ("Q", "HHQ8s", "Q") if big else ("H", "HHI4s", "I")
    count, entry, place = (struct.Struct(order + each) for each in forms)
    return order, count, entry, place


def _check_tags(
    directory: bytes, entry: struct.Struct, order: str, file_bytes: int
) -> dict[int, int]:
    """Limit the values of a directory's tags; returns those that are one number, by tag.

    What a tag says it has beyond the end of the file costs nothing, and is not counted.
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
        _limit(values, TIFF_VALUE_BYTES, "metadata")
        _limit(size // each if each > 1 else 0, TIFF_STRIPS, "strips or values")
        if count == 1 and kind in NUMBERS:
            found.setdefault(tag, struct.unpack_from(order + NUMBERS[kind], data)[0])
    return found


def _number(form: struct.Struct, data: bytes, at: int) -> int:
    return form.unpack_from(data, at)[0] if len(data) >= at + form.size else 0


def unread_kind(file: IO[bytes], format: str) -> str | None:
    """What kind of its format an image is, when Pillow does not read that kind of it.

    Args:
        file: an image, open; where it is read next stays as it is.
        format: by Pillow's name.

    Returns:
        Such as `TIFF with 64 bits per sample`; None for a kind that is read, or when it cannot
        be told.
    """
    look = UNREAD_KINDS.get(format)
    return look(file.fileno()) if look else None


def _unread_jpeg(file: int) -> str | None:
    for marker, _, head, _ in islice(_segments(file), PIECES):
        if marker in FRAME_HEADERS and len(head) > 5:
            if head[0] in (12, 16):
                return f"JPEG with {head[0]} bits per sample"
            return OTHER_PROCESSES.get(marker)
    return None


def _unread_bmp(file: int) -> str | None:
    head = os.pread(file, 34, 0)
    if len(head) < 34:
        return None
    length, *_, bits, compression = struct.unpack_from("<IiiHHI", head, 14)
    if length < BMP_INFO_BYTES:  # the header of OS/2, without them
        return None
    if compression in INSIDE_A_BMP:
        return f"BMP with a {INSIDE_A_BMP[compression]} inside"
    return "BMP with 64 bits per pixel" if bits == 64 else None


def _unread_tiff(file: int) -> str | None:
    """As TIFF 6.0 describes pixels, with the formats of samples of its section 19."""
    tags = _first_tags(file)
    [compression] = tags.get(COMPRESSION, [1])[:1]
    if compression not in TiffImagePlugin.COMPRESSION_INFO:
        return f"TIFF with the compression {compression}"
    bits, samples = tags.get(BITS_PER_SAMPLE, [1]), tags.get(SAMPLES_PER_PIXEL, [1])[0]
    bits = bits * samples if len(bits) == 1 else bits[:samples]
    formats = tags.get(SAMPLE_FORMAT, [1])
    [photometric] = tags.get(PHOTOMETRIC, [0])[:1]
    kind = (photometric, tuple(dict.fromkeys(formats)), tuple(bits))
    is_sound = photometric in PHOTOMETRICS and {*formats} <= {*SAMPLE_FORMATS}
    if kind in READ_TIFFS or not is_sound or not 0 < min(bits) <= max(bits) <= 128:
        return None
    numbers = " and ".join(SAMPLE_FORMATS[each] for each in kind[1])
    each = " and ".join(map(str, dict.fromkeys(bits)))
    several = f"{len(bits)} samples per pixel of" if len(bits) > 1 else "samples of"
    planes = " in separate planes" if tags.get(PLANES) == [2] else ""
    return f"TIFF with {several} {each} bits ({numbers}){planes}"


def _first_tags(file: int) -> dict[int, list[int]]:
    """The whole numbers of the tags of a TIFF's first directory, as far as they describe pixels."""
    head = os.pread(file, 16, 0)
    order, count, entry, place = _tiff_layout(head)
    position = _number(place, head, place.size)
    tags = _number(count, os.pread(file, count.size, min(position, 2**62)), 0)
    directory = os.pread(file, min(tags, PIECES) * entry.size, min(position + count.size, 2**62))
    found: dict[int, list[int]] = {}
    whole = directory[: len(directory) // entry.size * entry.size]
    for tag, kind, values, data in entry.iter_unpack(whole):
        if tag in DESCRIBING and kind in NUMBERS and 0 < values <= MOST_SAMPLES:
            form = struct.Struct(f"{order}{values}{NUMBERS[kind]}")
            if form.size > len(data):
                start = int.from_bytes(data, "little" if order == "<" else "big")
                data = os.pread(file, form.size, min(start, 2**62))
            if len(data) >= form.size:
                found.setdefault(tag, list(form.unpack_from(data)))
    return found


def check_bmp(file: int, _max_pixels: int | None) -> None:
    """Limit the length of a bitmap that is run-length encoded."""
    compression = os.pread(file, 4, 30)
    if compression in (b"\1\0\0\0", b"\2\0\0\0"):
        _limit(os.fstat(file).st_size, RUN_LENGTH_BYTES, "run-length encoded data")


UNREAD_KINDS: dict[str, Callable[[int], str | None]] = {
    "JPEG": _unread_jpeg,
    "BMP": _unread_bmp,
    "TIFF": _unread_tiff,
}
CHECKS: dict[str, Callable[[int, int | None], Header | None]] = {
    "JPEG": check_jpeg,
    "PNG": check_png,
    "WEBP": check_webp,
    "GIF": check_gif,
    "TIFF": check_tiff,
    "BMP": check_bmp,
}
