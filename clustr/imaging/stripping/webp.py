"""WebP (RFC 9649): chunks that decoders need are kept, in frames of animations as well."""

import os
from collections.abc import Iterator

from clustr.domain.models import FilesMetadata
from clustr.imaging.header_checks import MAX_EXIF_BYTES
from clustr.imaging.stripping.exif import Metadata, kept_exif
from clustr.imaging.stripping.pieces import Piece, Span, bytes_of

HEADER_BYTES, CHUNK_HEADER_BYTES, FRAME_HEADER_BYTES = 12, 8, 16
PICTURE = {b"VP8 ", b"VP8L", b"ALPH"}
KEPT = PICTURE | {b"ICCP", b"ANIM"}
# Flags of the chunk VP8X.
HAS_EXIF, HAS_XMP = 0x08, 0x04


def strip_webp(file: int, size: int, kind: FilesMetadata) -> list[Piece]:
    """The pieces of a WebP without metadata."""
    metadata, kept, extended = Metadata(), list[Piece](), None
    for name, begin, end in _chunks(file, HEADER_BYTES, size):
        content_bytes = end - begin - CHUNK_HEADER_BYTES
        if name in KEPT:
            kept.append(Span(begin, end))
        elif name == b"ANMF":
            kept += _frame(file, begin, end)
        elif name == b"VP8X":
            extended = os.pread(file, content_bytes, begin + CHUNK_HEADER_BYTES)
        elif name == b"EXIF" and content_bytes <= MAX_EXIF_BYTES:
            metadata.exif = os.pread(file, content_bytes, begin + CHUNK_HEADER_BYTES)
        elif name == b"XMP ":
            metadata.xmp = os.pread(file, min(content_bytes, MAX_EXIF_BYTES), begin + 8)
    if extended:  # Without this chunk no decoder reads metadata.
        exif = kept_exif(metadata, kind)
        flags = extended[0] & ~(HAS_EXIF | HAS_XMP) | (HAS_EXIF if exif else 0)
        kept.insert(0, _chunk(b"VP8X", bytes([flags]) + extended[1:]))
        kept.append(_chunk(b"EXIF", exif) if exif else b"")
    return [b"RIFF" + (bytes_of(kept) + 4).to_bytes(4, "little") + b"WEBP", *kept]


def _chunks(file: int, position: int, limit: int) -> Iterator[tuple[bytes, int, int]]:
    """The name of each whole chunk, where it begins and where it ends."""
    while len(head := os.pread(file, CHUNK_HEADER_BYTES, position)) == CHUNK_HEADER_BYTES:
        length = int.from_bytes(head[4:], "little")
        end = position + CHUNK_HEADER_BYTES + length + length % 2
        if end > limit:
            return
        yield head[:4], position, end
        position = end


def _frame(file: int, begin: int, end: int) -> list[Piece]:
    """A frame of an animation without the chunks that are no part of its picture."""
    picture = begin + CHUNK_HEADER_BYTES + FRAME_HEADER_BYTES
    spans = [Span(*place) for name, *place in _chunks(file, picture, end) if name in PICTURE]
    length = FRAME_HEADER_BYTES + bytes_of(spans)
    head = b"ANMF" + length.to_bytes(4, "little")
    return [head, Span(begin + CHUNK_HEADER_BYTES, picture), *spans]


def _chunk(name: bytes, content: bytes) -> bytes:
    padding = bytes(len(content) % 2)
    return name + len(content).to_bytes(4, "little") + content + padding
