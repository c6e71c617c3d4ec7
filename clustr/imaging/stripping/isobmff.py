"""HEIC and AVIF (ISO/IEC 14496-12, 23008-12): all stays in its place, metadata become zeros.

A file consists of boxes. The box `meta` lists items, which are pictures, parts of pictures, or
metadata, and says where in the file their contents are. Sequences have tracks in the box `moov`.
"""

import os
import struct
from collections.abc import Iterator
from typing import NamedTuple

from clustr.domain.models import FilesMetadata
from clustr.imaging.header_checks import MAX_EXIF_BYTES, MAX_METADATA_BYTES, MAX_PIECES
from clustr.imaging.stripping.exif import PREFIX, Metadata, kept_exif
from clustr.imaging.stripping.pieces import Piece, Span, in_place

# Items that are pictures, or say how pictures are put together. All others are metadata.
PICTURES = {
    *(b"hvc1", b"hev1", b"lhv1", b"hvt1", b"av01", b"avc1", b"jpeg", b"j2k1", b"vvc1", b"unci"),
    *(b"grid", b"iovl", b"iden", b"tmap", b"mski"),
}
EXIF = b"Exif"
# The boxes of `meta` that decoders need, and the properties of items.
META_BOXES = {b"hdlr", b"dinf", b"pitm", b"iinf", b"iprp", b"idat", b"iloc", b"iref", b"grpl"}
PROPERTIES = {
    *(b"hvcC", b"av1C", b"avcC", b"vvcC", b"jpgC", b"j2kH", b"lhvC", b"tols", b"oinf", b"a1op"),
    *(b"a1lx", b"lsel", b"ispe", b"pixi", b"colr", b"pasp", b"clap", b"irot", b"imir", b"auxC"),
    *(b"rloc", b"clli", b"mdcv", b"cclv", b"amve", b"cmpd", b"uncC", b"iscl"),
}
# The boxes of `moov` that contain others, and those in them that have metadata.
TRACK_BOXES = (b"trak", b"mdia", b"minf", b"stbl")
TRACK_METADATA = (b"udta", b"meta", b"uuid", b"free", b"skip")
# Boxes that say when it was made and changed.
TIME_BOXES = (b"mvhd", b"tkhd", b"mdhd")
# Tracks of pictures; any other may have the places on the way of a camera.
PICTURE_HANDLERS = (b"pict", b"vide", b"auxv")
IN_FILE, IN_IDAT = 0, 1
EMPTY_EXIF = b"MM\0*\0\0\0\x08" + bytes(6)


class Box(NamedTuple):
    """A box, or where it is.

    Attributes:
        begin, content, end: offsets of its header, of its content, and of what follows.
    """

    name: bytes
    begin: int
    content: int
    end: int


class Item(NamedTuple):
    """The content of an item: in the file or in the box `idat`, and the parts in which it is."""

    name: bytes
    construction: int
    parts: list[Span]


def strip_isobmff(file: int, size: int, kind: FilesMetadata) -> list[Piece]:
    """The pieces of a HEIC or AVIF without metadata.

    Raises:
        ValueError: it is not sure what belongs to the picture; the message says why.
    """
    boxes = list(_file_boxes(file, size))
    end = max(box.end for box in boxes if box.name in (b"ftyp", b"meta", b"moov", b"mdat"))
    has_tracks = any(box.name == b"moov" for box in boxes)
    spans, patches = list[Span](), dict[int, bytes]()
    for box in (box for box in boxes if box.end <= end):
        if box.name == b"meta":
            content, items = _strip_meta(file, box, kind)
            patches[box.begin] = content
            for item in items:
                if item.name in PICTURES:
                    spans += item.parts
                else:
                    patches |= _filled(item, _replacement(file, item, kind))
        elif box.name == b"moov":
            patches[box.begin] = _strip_moov(file, box, kind)
        elif box.name == b"ftyp":
            spans.append(Span(box.begin, box.end))
        elif box.name == b"mdat":
            # Where the samples of tracks are is not looked up: everything but items is kept.
            spans.append(Span(box.begin, box.end if has_tracks else box.content))
        else:
            patches[box.begin + 4] = b"free"
            spans.append(Span(box.begin, box.content))
    if any(span.end > end for span in spans):
        raise ValueError("a part of a picture is outside of the boxes")
    return in_place(end, spans, patches)


def _file_boxes(file: int, size: int) -> Iterator[Box]:
    """The boxes of a file; it ends before what is no box, such as what phones add to a picture."""
    begin = 0
    while box := _box(os.pread(file, 16, begin), begin, size):
        yield box
        begin = box.end


def _boxes(content: bytearray, begin: int, end: int) -> Iterator[Box]:
    """The boxes within a part of a box."""
    while box := _box(bytes(content[begin : begin + 16]), begin, end):
        yield box
        begin = box.end


def _box(head: bytes, begin: int, limit: int) -> Box | None:
    if len(head) < 8:
        return None
    length, name = struct.unpack_from(">I4s", head)
    header_bytes = 8
    if length == 1 and len(head) == 16:
        header_bytes, length = 16, struct.unpack_from(">Q", head, 8)[0]
    elif length == 0:
        length = limit - begin
    if not header_bytes <= length <= limit - begin:
        return None
    return Box(bytes(name), begin, begin + header_bytes, begin + length)


def _read(file: int, box: Box) -> bytearray:
    if box.end - box.begin > MAX_METADATA_BYTES:
        raise ValueError("the box with metadata is too large")
    return bytearray(os.pread(file, box.end - box.begin, box.begin))


def _clear(content: bytearray, box: Box) -> None:
    """Make a box one of free space."""
    content[box.begin + 4 : box.begin + 8] = b"free"
    content[box.content : box.end] = bytes(box.end - box.content)


def _strip_meta(file: int, meta: Box, kind: FilesMetadata) -> tuple[bytes, list[Item]]:
    """The box `meta` without metadata, and the items whose contents are outside of it."""
    content = _read(file, meta)
    boxes = {b.name: b for b in _boxes(content, meta.content - meta.begin + 4, len(content))}
    for box in _boxes(content, meta.content - meta.begin + 4, len(content)):
        if box.name not in META_BOXES:
            _clear(content, box)
    for box in _boxes(content, *boxes[b"iprp"][2:]) if b"iprp" in boxes else ():
        for each in _boxes(content, box.content, box.end) if box.name == b"ipco" else ():
            if each.name not in PROPERTIES:
                content[each.content : each.end] = bytes(each.end - each.content)
    if not {b"iinf", b"iloc"} <= {*boxes}:
        return bytes(content), []
    outside = []
    for item in _items(content, boxes[b"iinf"], boxes[b"iloc"]):
        if item.construction == IN_FILE:
            outside.append(item)
        elif item.name not in PICTURES:
            if item.construction != IN_IDAT or b"idat" not in boxes:
                raise ValueError("metadata are a part of another item")
            for begin, end in item.parts:
                at = boxes[b"idat"].content
                content[at + begin : at + end] = bytes(len(content[at + begin : at + end]))
    return bytes(content), outside


def _items(content: bytearray, iinf: Box, iloc: Box) -> Iterator[Item]:
    names = dict(_names(content, iinf))
    for item_id, construction, parts in _places(content, iloc):
        yield Item(names.get(item_id, b""), construction, parts)


def _names(content: bytearray, iinf: Box) -> Iterator[tuple[int, bytes]]:
    """The number of each item, and what kind it is (ItemInfoBox)."""
    version = content[iinf.content]
    for box in _boxes(content, iinf.content + (6 if version == 0 else 8), iinf.end):
        form = ">H2x4s" if content[box.content] == 2 else ">I2x4s"
        if box.name == b"infe" and box.end - box.content >= 4 + struct.calcsize(form):
            number, name = struct.unpack_from(form, content, box.content + 4)
            yield number, name


class _Reader:
    """Reads numbers one after the other."""

    def __init__(self, content: bytearray, box: Box):
        self._content, self._at, self._end = content, box.content, box.end

    def number(self, size: int) -> int:
        """The next number of so many bytes, which can be none."""
        self._at += size
        if self._at > self._end:
            raise ValueError("a box is too short")
        return int.from_bytes(self._content[self._at - size : self._at], "big")


def _places(content: bytearray, iloc: Box) -> Iterator[tuple[int, int, list[Span]]]:
    """The number of each item, where its parts are, and these (ItemLocationBox)."""
    reader = _Reader(content, iloc)
    version = reader.number(1)
    reader.number(3)
    sizes = reader.number(2)
    offset_size, length_size, base_size, index_size = (sizes >> bits & 15 for bits in (12, 8, 4, 0))
    for _ in range(reader.number(2 if version < 2 else 4)):
        number = reader.number(2 if version < 2 else 4)
        construction = reader.number(2) & 15 if version else IN_FILE
        if reader.number(2):
            raise ValueError("a part of the picture is in another file")
        base, parts = reader.number(base_size), list[Span]()
        for _ in range(reader.number(2)):
            reader.number(index_size if version else 0)
            begin = base + reader.number(offset_size)
            parts.append(Span(begin, begin + reader.number(length_size)))
            if len(parts) > MAX_PIECES or parts[-1].begin == parts[-1].end:
                raise ValueError("it is not stated where an item ends")
        yield number, construction, parts


def _replacement(file: int, item: Item, kind: FilesMetadata) -> bytes:
    """What is put over metadata; those that are read as text become spaces."""
    length = sum(end - begin for begin, end in item.parts)
    if item.name != EXIF:
        return b" " * length
    if length > MAX_EXIF_BYTES:
        return bytes(length)
    content = b"".join(os.pread(file, end - begin, begin) for begin, end in item.parts)
    exif = content[4 + int.from_bytes(content[:4], "big") :].removeprefix(PREFIX)
    # How the picture is turned is said by the properties `irot` and `imir` alone.
    kept = kept_exif(Metadata(exif), kind, with_orientation=False) or EMPTY_EXIF
    replacement = bytes(4) + kept
    return replacement.ljust(length, b"\0") if len(replacement) <= length else bytes(length)


def _filled(item: Item, replacement: bytes) -> dict[int, bytes]:
    """The parts of an item with other content, by their offsets."""
    patches, done = dict[int, bytes](), 0
    for begin, end in item.parts:
        patches[begin] = replacement[done : done + end - begin]
        done += end - begin
    return patches


def _strip_moov(file: int, moov: Box, kind: FilesMetadata) -> bytes:
    """The box `moov` without metadata.

    Raises:
        ValueError: a track is none of pictures.
    """
    content = _read(file, moov)
    todo = [Box(moov.name, 0, moov.content - moov.begin, len(content))]
    while todo:
        parent = todo.pop()
        for box in _boxes(content, parent.content, parent.end):
            if box.name in TRACK_METADATA:
                _clear(content, box)
            elif box.name in TIME_BOXES and kind is FilesMetadata.STRIP:
                times = slice(box.content + 4, box.content + (20 if content[box.content] else 12))
                content[times] = bytes(len(content[times]))
            elif box.name in TRACK_BOXES:
                todo.append(box)
            elif (
                box.name == b"hdlr"
                and bytes(content[box.content + 8 :][:4]) not in PICTURE_HANDLERS
            ):
                raise ValueError("a track is none of pictures")
    return bytes(content)
