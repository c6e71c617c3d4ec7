"""TIFF 6.0 and BigTIFF: all stays in its place, and what is not kept becomes zeros.

Kept are the directories of the pages with the tags that decoders need, the values of these, and the
pixels. Directories that are reached by other tags are left out, such as those of reduced copies.
"""

import os
import struct
from collections.abc import Collection, Iterator

from PIL.ExifTags import IFD, Base

from clustr.domain.models import FilesMetadata
from clustr.imaging.header_checks import (
    INTEGER_TYPES,
    MAX_FRAMES,
    MAX_PIECES,
    MAX_TIFF_STRIPS,
    TYPE_BYTES,
    tiff_layout,
    unpack_number,
)
from clustr.imaging.stripping.exif import CAMERA_TAGS, PHOTOGRAPH_TAGS
from clustr.imaging.stripping.pieces import Piece, Span, in_place

MAX_OFFSET = 2**62
ICC_PROFILE = 34675
# Tags of TIFF 6.0 and its supplements that say what the pixels are and how they are shown.
KEPT = {
    *(254, 255, 256, 257, 258, 259, 262, 263, 266, Base.Orientation, 277, 280, 281, 282, 283, 284),
    *(290, 291, 292, 293, 296, 297, 301, 317, 318, 319, 320, 321, 322, 323, 332, 334, 336, 338),
    *(339, 340, 341, 347, 529, 530, 531, 532, ICC_PROFILE),
}
# Where the pixels are, and how many bytes they have there.
STRIPS, TILES, OLD_JPEG = (273, 279), (324, 325), (513, 514)
# Tables of the compression 6, whose lengths no tag states.
OLD_JPEG_TABLES = {519, 520, 521}


class _Entry:
    """A tag of a directory.

    Attributes:
        packed: as it is in the directory.
        place: where its value is, outside of the directory; None where it is inside.
    """

    def __init__(self, packed: bytes, form: struct.Struct, order: str):
        self.packed = packed
        self.tag, self.kind, self.count, self._data = form.unpack(packed)
        self._order = order
        self._bytes = TYPE_BYTES.get(self.kind, 0) * self.count
        self.place: Span | None = None
        if self._bytes > len(self._data):
            begin = int.from_bytes(self._data, "little" if order == "<" else "big")
            self.place = Span(begin, begin + self._bytes)

    def numbers(self, file: int) -> tuple[int, ...]:
        """Its values; none when they are no whole numbers."""
        if self.kind not in INTEGER_TYPES or not 0 < self.count <= MAX_TIFF_STRIPS:
            return ()
        data = self._data
        if self.place:
            data = os.pread(file, self._bytes, min(self.place.begin, MAX_OFFSET))
        form = struct.Struct(f"{self._order}{self.count}{INTEGER_TYPES[self.kind]}")
        return form.unpack_from(data) if len(data) >= form.size else ()


class _Copy:
    """A copy of a TIFF that is being put together.

    Attributes:
        spans: what it has of the file.
        patches: the directories that are written anew, by their offsets.
    """

    def __init__(self, file: int, kind: FilesMetadata):
        self._file = file
        self._keeps_camera = kind is FilesMetadata.STRIP_LOCATION
        head = os.pread(file, 16, 0)
        self._order, self._count, self._form, self._offset = tiff_layout(head)
        # The first offset is the last part of the header.
        at = 8 if self._offset.size == 8 else 4
        self.spans = [Span(0, at + self._offset.size)]
        self.patches: dict[int, bytes] = {}
        self._first = unpack_number(self._offset, head, at)

    def add_pages(self) -> None:
        """Add each page with its pixels.

        Raises:
            ValueError: it is not sure what belongs to the picture.
        """
        kept = KEPT | {*CAMERA_TAGS} if self._keeps_camera else KEPT
        position = self._first
        while position and position not in self.patches:
            if len(self.patches) > MAX_FRAMES:
                raise ValueError("there are too many pages")
            entries, following = self._read(position)
            by_tag = {entry.tag: entry for entry in entries}
            if OLD_JPEG_TABLES & {*by_tag}:
                raise ValueError("there are tables of an unknown length")
            chosen = [entry for entry in entries if entry.tag in kept]
            for pair in (STRIPS, TILES, OLD_JPEG):
                chosen += self._add_pixels(by_tag, pair)
            if self._keeps_camera and IFD.Exif in by_tag:
                chosen += self._add_photograph(by_tag[IFD.Exif])
            self._write(position, chosen, following)
            position = following

    def _read(self, position: int) -> tuple[list[_Entry], int]:
        """The tags of a directory, and where the next one is."""
        count = unpack_number(self._count, self._pread(self._count.size, position), 0)
        if count > MAX_PIECES:
            raise ValueError("there are too many tags")
        size = count * self._form.size
        content = self._pread(size + self._offset.size, position + self._count.size)
        entries = [
            _Entry(content[at : at + self._form.size], self._form, self._order)
            for at in range(0, len(content) - self._form.size + 1, self._form.size)[:count]
        ]
        return entries, unpack_number(self._offset, content, size)

    def _add_pixels(self, by_tag: dict[int, _Entry], pair: tuple[int, int]) -> Iterator[_Entry]:
        offsets_tag, lengths_tag = pair
        if offsets_tag not in by_tag:
            return
        offsets = by_tag[offsets_tag].numbers(self._file)
        lengths = by_tag[lengths_tag].numbers(self._file) if lengths_tag in by_tag else ()
        if len(offsets) != len(lengths) or not offsets:
            raise ValueError("the lengths of the pixels are not stated")
        self.spans += map(Span, offsets, map(int.__add__, offsets, lengths))
        yield by_tag[offsets_tag]
        yield by_tag[lengths_tag]

    def _add_photograph(self, pointer: _Entry) -> Iterator[_Entry]:
        """Add the directory of EXIF data without what may say the place."""
        [position] = pointer.numbers(self._file) or [0]
        if position and position not in self.patches:
            entries, _ = self._read(position)
            self._write(position, [e for e in entries if e.tag in PHOTOGRAPH_TAGS], 0)
            yield pointer

    def _write(self, position: int, entries: Collection[_Entry], following: int) -> None:
        known = [entry for entry in entries if entry.kind in TYPE_BYTES]
        known.sort(key=lambda entry: int(entry.tag))  # TIFF 6.0, section 2
        packed = b"".join(entry.packed for entry in known)
        self.patches[position] = (
            self._count.pack(len(known)) + packed + self._offset.pack(following)
        )
        self.spans += (entry.place for entry in known if entry.place)

    def _pread(self, count: int, position: int) -> bytes:
        return os.pread(self._file, count, min(position, MAX_OFFSET))


def strip_tiff(file: int, size: int, kind: FilesMetadata) -> list[Piece]:
    """The pieces of a TIFF without metadata.

    Raises:
        ValueError: it is not sure what belongs to the picture; the message says why.
    """
    copy = _Copy(file, kind)
    copy.add_pages()
    spans = [Span(begin, min(end, size)) for begin, end in copy.spans if begin < end]
    return in_place(size, [span for span in spans if span.begin < span.end], copy.patches)
