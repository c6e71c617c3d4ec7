"""Comparing texts without regard to the case of letters, or to diacritical marks.

In an update MongoDB folds only ASCII letters, so folded keys of tags are computed here.
"""

import re
import unicodedata
from collections.abc import Iterator
from functools import cache

from bson import Regex

# ALM, LRM and RLM (UAX #9), as `str.translate` takes them away.
DIRECTION_MARKS = dict.fromkeys((0x061C, 0x200E, 0x200F))

# So many spellings of a text, or of its beginning, are looked for one by one.
MAX_SPELLINGS = 256
LAST_OF_BASIC_PLANE = 0xFFFF


def fold_text(text: str) -> str:
    """The text without the case of letters, and without marks on them."""
    decomposed = unicodedata.normalize("NFKD", text.casefold())
    return "".join(each for each in decomposed if not unicodedata.combining(each))


def tag_key(tag: str) -> str:
    """The key that tags share when they differ only in case (Unicode, section 3.13, D145).

    Marks on letters stay: `schon` is not `schön`. Direction marks, which are not seen, are ignored.
    """
    tag = tag.translate(DIRECTION_MARKS)
    return unicodedata.normalize("NFC", unicodedata.normalize("NFD", tag).casefold())


def spellings(text: str) -> list[str | Regex[str]]:
    """What the texts with the `tag_key` of this one are equal to, or match, for `$in` of MongoDB.

    A regular expression begins with letters in one spelling, and has no `|` in it: so MongoDB looks
    just at that part of an index.
    """
    key = tag_key(text)
    # MongoDB does not fold `ß` to `ss`.
    return [
        spelling
        for written in dict.fromkeys((key, key.replace("ss", "ß")))
        for spelling in _spellings_in_any_case(written)
    ]


def _spellings_in_any_case(written: str) -> Iterator[str | Regex[str]]:
    beginnings, length = [""], 0
    for letter in written:
        variants = _characters_by_key().get(letter, letter)
        if len(beginnings) * len(variants) > MAX_SPELLINGS:
            break
        beginnings = [begin + variant for begin in beginnings for variant in variants]
        length += 1
    rest = re.escape(written[length:])
    for begin in beginnings:
        yield Regex(rf"^{re.escape(begin)}(?i:{rest})\z") if rest else begin


@cache
def _characters_by_key() -> dict[str, str]:
    """All characters by the one that they are folded to."""
    by_key: dict[str, str] = {}
    for character in map(chr, range(LAST_OF_BASIC_PLANE + 1)):
        key = character.casefold()
        by_key[key] = by_key.get(key, "") + character
    return by_key
