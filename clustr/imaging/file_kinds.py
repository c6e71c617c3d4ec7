"""The kind of a file that is refused: what people call it, for the error message."""

import os
import struct
from collections.abc import Callable
from itertools import islice
from typing import IO

from PIL import TiffImagePlugin

from clustr.imaging.header_checks import (
    FRAME_HEADERS,
    INTEGER_TYPES,
    MAX_PIECES,
    jpeg_segments,
    tiff_layout,
    unpack_number,
)

# Files that are often taken for images, and images of other formats: at which byte their magic
# number is, the magic number, and what people call them.
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

# The pixels of the TIFFs that Pillow reads: photometric interpretation, sample format, and bits of
# each sample.
READABLE_TIFFS = {(key[1], key[2], key[4]) for key in TiffImagePlugin.OPEN_INFO}
# Tags of TIFF 6.0 that describe pixels, and their values.
BITS_PER_SAMPLE, COMPRESSION, PHOTOMETRIC, SAMPLES_PER_PIXEL = 258, 259, 262, 277
PLANAR_CONFIGURATION, SAMPLE_FORMAT = 284, 339
PIXEL_TAGS = {
    BITS_PER_SAMPLE,
    COMPRESSION,
    PHOTOMETRIC,
    SAMPLES_PER_PIXEL,
    PLANAR_CONFIGURATION,
    SAMPLE_FORMAT,
}
PHOTOMETRICS = {*range(7), 8, 9, 10, 32803, 32844, 32845, 34892}
SEPARATE_PLANES = 2
SAMPLE_FORMATS = {
    1: "whole numbers",
    2: "whole numbers with a sign",
    3: "fractions",
    4: "of no known format",
    5: "complex whole numbers",
    6: "complex numbers",
}
MAX_SAMPLES = 1_000
MAX_OFFSET = 2**62

# Coding processes of JPEG that libjpeg-turbo, which is in Pillow, lacks (ITU-T T.81, table B.1).
UNREADABLE_PROCESSES = dict.fromkeys((0xC3, 0xCB), "lossless JPEG") | dict.fromkeys(
    (0xC5, 0xC6, 0xC7, 0xCD, 0xCE, 0xCF), "hierarchical JPEG"
)
BMP_COMPRESSIONS = {4: "JPEG", 5: "PNG"}
BMP_INFO_BYTES = 40


def kind_of(file: IO[bytes]) -> str | None:
    """What people call a file by its first bytes; None when its kind is not known."""
    head = os.pread(file.fileno(), 64, 0)
    markup = head.lstrip().lower()
    for position, magic, kind in KINDS:
        if head.startswith(magic, position) or (magic[:1] == b"<" and markup.startswith(magic)):
            return kind
    return None


def unreadable_kind(file: IO[bytes], format: str) -> str | None:
    """Of which kind an image is, when Pillow knows its format and not that kind of it.

    Args:
        file: an image, open; its position does not change.
        format: Pillow's name of the format.

    Returns:
        such as `TIFF with 64 bits per sample`; None when Pillow reads the kind, or when it cannot
        be determined.
    """
    find = UNREADABLE_KINDS.get(format)
    return find(file.fileno()) if find else None


def _unreadable_jpeg(file: int) -> str | None:
    for marker, _, head, _ in islice(jpeg_segments(file), MAX_PIECES):
        if marker in FRAME_HEADERS and len(head) > 5:
            if head[0] in (12, 16):
                return f"JPEG with {head[0]} bits per sample"
            return UNREADABLE_PROCESSES.get(marker)
    return None


def _unreadable_bmp(file: int) -> str | None:
    head = os.pread(file, 34, 0)
    if len(head) < 34:
        return None
    length, *_, bits, compression = struct.unpack_from("<IiiHHI", head, 14)
    if length < BMP_INFO_BYTES:  # The header of OS/2 has no compression.
        return None
    if compression in BMP_COMPRESSIONS:
        return f"BMP with a {BMP_COMPRESSIONS[compression]} inside"
    return "BMP with 64 bits per pixel" if bits == 64 else None


def _unreadable_tiff(file: int) -> str | None:
    """By the tags of TIFF 6.0 that describe pixels, and the sample formats of its section 19."""
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
    if kind in READABLE_TIFFS or not is_sound or not 0 < min(bits) <= max(bits) <= 128:
        return None
    numbers = " and ".join(SAMPLE_FORMATS[each] for each in kind[1])
    each = " and ".join(map(str, dict.fromkeys(bits)))
    several = f"{len(bits)} samples per pixel of" if len(bits) > 1 else "samples of"
    planes = " in separate planes" if tags.get(PLANAR_CONFIGURATION) == [SEPARATE_PLANES] else ""
    return f"TIFF with {several} {each} bits ({numbers}){planes}"


def _first_tags(file: int) -> dict[int, list[int]]:
    """The values of the tags in a TIFF's first directory that describe pixels."""
    head = os.pread(file, 16, 0)
    order, count, entry, place = tiff_layout(head)
    position = unpack_number(place, head, place.size)
    tags = unpack_number(count, os.pread(file, count.size, min(position, MAX_OFFSET)), 0)
    directory = os.pread(
        file, min(tags, MAX_PIECES) * entry.size, min(position + count.size, MAX_OFFSET)
    )
    found: dict[int, list[int]] = {}
    whole = directory[: len(directory) // entry.size * entry.size]
    for tag, kind, values, data in entry.iter_unpack(whole):
        if tag in PIXEL_TAGS and kind in INTEGER_TYPES and 0 < values <= MAX_SAMPLES:
            form = struct.Struct(f"{order}{values}{INTEGER_TYPES[kind]}")
            if form.size > len(data):
                start = int.from_bytes(data, "little" if order == "<" else "big")
                data = os.pread(file, form.size, min(start, MAX_OFFSET))
            if len(data) >= form.size:
                found.setdefault(tag, list(form.unpack_from(data)))
    return found


UNREADABLE_KINDS: dict[str, Callable[[int], str | None]] = {
    "JPEG": _unreadable_jpeg,
    "BMP": _unreadable_bmp,
    "TIFF": _unreadable_tiff,
}
