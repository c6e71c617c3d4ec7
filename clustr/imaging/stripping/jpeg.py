"""JPEG (ITU-T T.81): segments of metadata are cut, and whatever follows the picture."""

import os

from clustr.domain.models import FilesMetadata
from clustr.imaging.header_checks import EOI, MAX_EXIF_BYTES, SOS, jpeg_segments
from clustr.imaging.plain_jpeg import COLOR_METADATA, METADATA, START
from clustr.imaging.stripping.exif import PREFIX, Metadata, kept_exif
from clustr.imaging.stripping.pieces import Piece, Span

APP0, APP1, APP2 = 0xE0, 0xE1, 0xE2
# A segment of these kinds is kept when its content begins so: it says what the colors are.
KEPT = COLOR_METADATA | {APP2: b"ICC_PR"}
XMP = b"http://ns.adobe.com/xap/1.0/\0"
MAX_SEGMENT_BYTES = 65535


def strip_jpeg(file: int, size: int, kind: FilesMetadata) -> list[Piece]:
    """The pieces of a JPEG without metadata.

    What is between segments before the picture is cut as well: no decoder reads it.
    """
    metadata, kept, begin = Metadata(), [Span(0, len(START))], None
    jfif_end = len(START)
    end = size
    for marker, position, head, length in jpeg_segments(file):
        following = position + 2 + length
        if marker == EOI:
            end = following
            break
        if marker in METADATA and not head.startswith(KEPT.get(marker, b"none")):
            if marker == APP1:
                _note(metadata, os.pread(file, length - 2, position + 4))
            if begin is not None:
                kept.append(Span(begin, position))
                begin = following
        elif begin is None and marker == SOS:
            begin = position
        elif begin is None:
            kept.append(Span(position, following))
            if marker == APP0:
                jfif_end = following
    if begin is not None:
        kept.append(Span(begin, min(end, size)))
    exif = kept_exif(metadata, kind)
    if len(PREFIX) + len(exif) + 2 > MAX_SEGMENT_BYTES:
        exif = kept_exif(metadata, FilesMetadata.STRIP)
    first = [span for span in kept if span.end <= jfif_end]
    return [*first, _exif_segment(exif), *(span for span in kept if span.end > jfif_end)]


def _note(metadata: Metadata, content: bytes) -> None:
    """Note what can turn the picture, as Pillow reads it."""
    if content.startswith(PREFIX) and len(metadata.exif) + len(content) <= MAX_EXIF_BYTES:
        metadata.exif += content[len(PREFIX) :] if metadata.exif else content
    elif content.startswith(XMP):
        metadata.xmp = content[len(XMP) :]


def _exif_segment(exif: bytes) -> bytes:
    if not exif:
        return b""
    content = PREFIX + exif
    return bytes([0xFF, APP1]) + (len(content) + 2).to_bytes(2, "big") + content
