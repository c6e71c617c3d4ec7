"""PNG (third edition): chunks that decoders need are kept, others and what follows are cut."""

import os
import zlib
from collections.abc import Iterator

from clustr.domain.models import FilesMetadata
from clustr.imaging.header_checks import MAX_EXIF_BYTES
from clustr.imaging.stripping.exif import Metadata, kept_exif
from clustr.imaging.stripping.pieces import Piece, Span

SIGNATURE_BYTES = 8
# Chunks that say what the pixels are and how they are shown. `iDOT` of Apple is not among them, as
# it has offsets; `tIME` says when the file was changed.
KEPT = {
    *(b"IHDR", b"PLTE", b"IDAT", b"IEND", b"tRNS", b"acTL", b"fcTL", b"fdAT"),
    *(b"cHRM", b"cICP", b"gAMA", b"iCCP", b"mDCV", b"cLLI", b"sBIT", b"sRGB"),
    *(b"bKGD", b"hIST", b"pHYs", b"sPLT"),
}
TEXTS = (b"tEXt", b"zTXt", b"iTXt")
RAW_PROFILE, XMP = b"Raw profile type exif", b"XML:com.adobe.xmp"
# A profile in hexadecimal digits, with line ends.
MAX_TEXT_BYTES = 3 * MAX_EXIF_BYTES


def strip_png(file: int, size: int, kind: FilesMetadata) -> list[Piece]:
    """The pieces of a PNG without metadata."""
    metadata, kept = Metadata(), [Span(0, SIGNATURE_BYTES)]
    for name, begin, end in _chunks(file, size):
        if name in KEPT:
            kept.append(Span(begin, end))
        elif name == b"eXIf" or name in TEXTS:
            content = os.pread(file, min(end - begin - 12, MAX_TEXT_BYTES), begin + 8)
            _note(metadata, name, content)
        if name == b"IEND":
            break
    header, rest = kept[:2], kept[2:]
    return [*header, _exif_chunk(kept_exif(metadata, kind)), *rest]


def _chunks(file: int, size: int) -> Iterator[tuple[bytes, int, int]]:
    """The name of each chunk, where it begins and where it ends, at most at the file's end."""
    position = SIGNATURE_BYTES
    while len(head := os.pread(file, 8, position)) == 8:
        end = min(position + 12 + int.from_bytes(head[:4], "big"), size)
        yield head[4:], position, end
        position = end


def _note(metadata: Metadata, name: bytes, content: bytes) -> None:
    """Note what can turn the picture, as Pillow reads it."""
    if name == b"eXIf":
        metadata.exif = content
        return
    keyword, _, rest = content.partition(b"\0")
    if keyword not in (RAW_PROFILE, XMP):
        return
    text = _text(name, rest)
    if keyword == XMP:
        metadata.xmp = text
    else:
        metadata.raw_profile = text.decode("latin-1")


def _text(name: bytes, content: bytes) -> bytes:
    """The text of a chunk, from behind its keyword."""
    compressed = name == b"zTXt"
    if name == b"iTXt":
        compressed = content[:1] == b"\1"
        _language, _, content = content[2:].partition(b"\0")
        _translated, _, content = content.partition(b"\0")
    elif compressed:
        content = content[1:]
    try:
        return zlib.decompressobj().decompress(content, MAX_TEXT_BYTES) if compressed else content
    except zlib.error:
        return b""


def _exif_chunk(exif: bytes) -> bytes:
    if not exif:
        return b""
    content = b"eXIf" + exif
    return len(exif).to_bytes(4, "big") + content + zlib.crc32(content).to_bytes(4, "big")
