"""The tags of EXIF data, and the texts in them, whose encoding nobody says.

Tags are read when they are asked for, and of a long one only the beginning.
"""

import codecs
import math
import re
import struct
import unicodedata
from typing import Any, BinaryIO

from PIL.ExifTags import IFD

from .blocks import LARGEST_BLOCK_BYTES

LONGEST_TEXT = 255
LONGEST_VALUE_BYTES = 4 * LONGEST_TEXT

# How values are stored, by the number of their type: as text (ASCII, "undefined", UTF-8), or as
# numbers, in the letters of `struct`. Two letters are a fraction.
TEXTS = (2, 7, 129)
BYTE = 1
NUMBERS = {
    BYTE: "B",
    3: "H",
    4: "I",
    5: "II",
    8: "h",
    9: "i",
    10: "ii",
    11: "f",
    12: "d",
    13: "I",
}

# A character of UTF-8 that is more than ASCII.
UTF_8 = re.compile(rb"[\xc2-\xdf][\x80-\xbf]|[\xe0-\xef][\x80-\xbf]{2}|[\xf0-\xf4][\x80-\xbf]{3}")
# Characters of two bytes in Shift-JIS: all of them; those that are common, beginning with 81 to 9F;
# and those that are hardly ever in a text in Windows-1252, where these bytes are quotation marks,
# dashes and a few letters, most with ASCII letters beside them, or are not used. Some of the common
# ones are as sure when they come second, as no quotation is opened in the middle of a word.
TWO_BYTES = {
    b"any": rb"[\x81-\x9f\xe0-\xfc][\x40-\x7e\x80-\xfc]",
    b"common": rb"[\x81-\x9f][\x40-\x7e\x80-\xfc]",
    b"sure": rb"(?:[\x81-\x83\x8d\x8f\x90\x9d][\x40-\x7e\x80-\xfc]"
    rb"|[\x81-\x9f][\x40\x5b-\x60\x7b-\x7e\x80-\xfc])",
    b"second": rb"(?:[\x84\x86-\x89\x8b\x91\x93\x95\x98\x99\x9b][\x40-\x7e\x80-\xfc]"
    rb"|[\xe0-\xea][\x80-\xfc])",
}
# A text is in Shift-JIS if it has two of them side by side, or consists of them.
SHIFT_JIS = re.compile(
    rb"(?:[\0-\x7f\xa1-\xdf]|%(any)b)*?"
    rb"(?:%(sure)b%(common)b|%(common)b%(sure)b|%(common)b%(second)b)"
    rb"|(?:%(any)b| )*?%(sure)b(?:%(any)b| )*\Z" % TWO_BYTES
)
# Characters that are not seen themselves: those that join letters or keep them apart, marks of the
# direction of the text beside them, and those of which flags of parts of countries are made.
UNSEEN = set("\u200c\u200d\u2060\u061c\u200e\u200f") | {chr(n) for n in range(0xE0020, 0xE0080)}


class Tags:
    """The tags of one or more directories, whose values are read when they are asked for.

    Args:
        file: the block of EXIF data, or a TIFF file, which is built in the same way.
        order: of its bytes, `<` or `>`.
    """

    def __init__(self, file: BinaryIO, order: str):
        self._file = file
        self._order = order
        self._entries: dict[int, tuple[int, int, bytes]] = {}

    def add_directory(self, offset: float | None) -> None:
        """Add the tags of the directory that is there; it can have 65,535."""
        if not isinstance(offset, int) or offset < 0:
            return
        self._file.seek(offset)
        (count,) = self._unpack("H", self._file.read(2)) or (0,)
        listed = self._file.read(count * 12)
        whole = listed[: len(listed) // 12 * 12]
        for tag, kind, size, value in struct.iter_unpack(f"{self._order}HHI4s", whole):
            self._entries.setdefault(tag, (kind, size, value))

    def text(self, tag: int) -> str | None:
        """One line of what can be seen of the text."""
        kind, count, value = self._entries.get(tag, (0, 0, b""))
        if kind not in TEXTS:
            return None
        before_end, _, _ = self._read(value, count).partition(b"\0")
        seen = "".join(c for c in decoded(before_end) if c.isspace() or is_seen(c))
        return " ".join(seen.split())[:LONGEST_TEXT].rstrip() or None

    def content(self, tag: int) -> bytes:
        """The bytes of the tag, if they are bytes and there are not too many."""
        kind, count, value = self._entries.get(tag, (0, 0, b""))
        if kind not in (*TEXTS, BYTE) or count > LARGEST_BLOCK_BYTES:
            return b""
        return self._read(value, count, LARGEST_BLOCK_BYTES)

    def numbers(self, tag: int) -> list[float]:
        """The numbers of the tag, of many only the first; what is divided by 0 is `nan`."""
        kind, count, value = self._entries.get(tag, (0, 0, b""))
        letters = NUMBERS.get(kind)
        if letters is None:
            return []
        found = self._unpack(letters, self._read(value, count * struct.calcsize(f"={letters}")))
        if len(letters) == 1:
            return list(found)
        pairs = zip(found[::2], found[1::2], strict=True)
        return [above / below if below else math.nan for above, below in pairs]

    def number(self, tag: int) -> float | None:
        return next(iter(self.numbers(tag)), None)

    def _read(self, value: bytes, size: int, most: int = LONGEST_VALUE_BYTES) -> bytes:
        """A value, of a long one only the beginning. It is in its entry, or where that says."""
        if size <= len(value):
            return value[:size]
        self._file.seek(*self._unpack("I", value))
        return self._file.read(min(size, most))

    def _unpack(self, letters: str, data: bytes) -> tuple[Any, ...]:
        """As many values as the data is long enough for."""
        count = len(data) // struct.calcsize(f"={letters}")
        return struct.unpack_from(self._order + letters * count, data)


def decoded(text: bytes) -> str:
    """A text whose encoding nobody says: UTF-8, as it should be, Shift-JIS, or Windows-1252.

    What is cut at its end loses the half of a character there; what is broken elsewhere in UTF-8
    becomes U+FFFD.
    """
    if (characters := without_half("utf-8", text)) is not None:
        return characters
    if SHIFT_JIS.match(text) and (characters := without_half("cp932", text)) is not None:
        return characters
    if sum(map(len, UTF_8.findall(text))) > len(re.sub(rb"[\0-\x7f]+", b"", text)) / 2:
        return text.decode("utf-8", "replace")
    try:
        return text.decode("cp1252")
    except UnicodeDecodeError:  # It has no characters for five of the bytes.
        return text.decode("latin-1")


def without_half(encoding: str, text: bytes) -> str | None:
    """The text in this encoding, without the half of a character at its end; None if it is not.

    A half after nothing but ASCII letters is no half, but a whole character of another encoding.
    """
    decoder = codecs.getincrementaldecoder(encoding)()
    try:
        characters = decoder.decode(text)
    except UnicodeDecodeError:
        return None
    half, _ = decoder.getstate()
    return None if half and characters.isascii() else characters


def is_seen(character: str) -> bool:
    """Whether a character is shown, or decides how those beside it are.

    One that is not assigned yet, for all that this Python knows, may be: emoji are added each year.
    """
    category, number = unicodedata.category(character), ord(character)
    if category == "Cn":
        return number & 0xFFFE != 0xFFFE and not 0xFDD0 <= number <= 0xFDEF
    return category[0] != "C" or character in UNSEEN


def read_tags(file: BinaryIO) -> tuple[Tags, Tags]:
    """The tags of the picture, and those of the place.

    Three directories are read, each once, so one that names itself is no loop. A block that does
    not begin as it has to has no tags; neither has a TIFF file of the kind for more than 4 GB.
    """
    head = file.read(8)
    order = ">" if head.startswith(b"MM") else "<"
    tags, place = Tags(file, order), Tags(file, order)
    if len(head) == 8 and head[:4] in (b"II*\0", b"MM\0*"):
        tags.add_directory(*struct.unpack(f"{order}I", head[4:]))
        place.add_directory(tags.number(IFD.GPSInfo))
        tags.add_directory(tags.number(IFD.Exif))
    return tags, place
