"""JPEGs that can be given away as they are, but for their metadata; no pixel is decoded."""

import os
from pathlib import Path
from typing import IO

from PIL import Image

from clustr.imaging.color_management import is_srgb
from clustr.imaging.decoding import is_upright
from clustr.imaging.header_checks import EOI, FRAME_HEADERS, SOS, jpeg_segments

START = b"\xff\xd8"
# Baseline, extended and progressive with Huffman codes: what every decoder reads (T.81, B.1.1.3).
COMMON_FRAME_HEADERS = (0xC0, 0xC1, 0xC2)
FILL = b"\xff"  # may stand before each marker (T.81, B.1.1.2)
METADATA = {*range(0xE0, 0xF0), 0xFE}  # APP0 to APP15, and COM
# Metadata that says which colors the components are.
COLOR_METADATA = {0xE0: b"JFIF\0", 0xEE: b"Adobe"}


def read_plain_jpeg(path: Path, longest_side: int) -> bytes | None:
    """A JPEG without its metadata, if it looks the same to a program that reads none.

    That is so of one that is upright, of 8 bits in grey or sRGB, and complete.

    Args:
        longest_side: the most pixels that it may have at its longer side.

    Returns:
        the file without EXIF data, XMP, comments, color profile and what follows the picture; None
        if it is no such JPEG.
    """
    with path.open("rb") as file:
        if file.read(2) != START:
            return None
        try:
            with Image.open(file, formats=["JPEG"]) as picture:
                is_plain = (
                    max(picture.size) <= longest_side
                    and picture.mode in ("L", "RGB")
                    and is_upright(picture)
                    and is_srgb(picture.info.get("icc_profile", b""), picture.mode)
                )
        except Exception:  # It is damaged; decoding it reports how.
            return None
        return _without_metadata(file) if is_plain else None


def _without_metadata(file: IO[bytes]) -> bytes | None:
    """The picture up to its end mark; None if it has none, or is of a rare kind.

    That is one with another frame, or with bytes between its segments that no JPEG can begin with;
    decoders skip them.
    """
    kept, begin = [START], len(START)
    end: int | None = begin  # of the segment before; None among the data of pixels
    for marker, position, head, length in jpeg_segments(file.fileno()):
        between = os.pread(file.fileno(), position - end, end) if end is not None else b""
        is_rare_frame = marker in FRAME_HEADERS and marker not in COMMON_FRAME_HEADERS
        if is_rare_frame or between.strip(FILL):
            return None
        end = None if end is None or marker == SOS else position + 2 + length
        if marker in METADATA and not head.startswith(COLOR_METADATA.get(marker, b"none")):
            kept.append(os.pread(file.fileno(), position - begin, begin))
            begin = position + 2 + length
        if marker == EOI:
            kept.append(os.pread(file.fileno(), position + 2 - begin, begin))
            return b"".join(kept)
    return None
