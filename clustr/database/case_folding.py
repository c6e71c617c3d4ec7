"""Folding: texts as they are compared where the case of letters does not matter, or marks do not.

MongoDB folds the letters of ASCII alone in an update, and compares marks in a regular expression:
what it needs to know of others is worked out here.
"""

import re
import unicodedata
from functools import cache, lru_cache
from itertools import groupby

# Where Unicode has letters that are others with marks: after it come syllables and ideographs. Of
# those of Arabic MongoDB's text index keeps the marks.
MARKED_LETTERS = {*range(0x80, 0x3100)} - {*range(0x600, 0x700)}
# ALM, LRM and RLM (UAX #9), as `str.translate` takes them away.
DIRECTION_MARKS = dict.fromkeys((0x061C, 0x200E, 0x200F))


def folded(text: str) -> str:
    """The text as MongoDB compares it: without the case of letters, and without marks on them."""
    return _plain(unicodedata.normalize("NFKD", text.casefold()))


def tag_key(tag: str) -> str:
    """What is the same for tags that differ in the case of letters alone (Unicode, 3.13, D145).

    Marks on letters stay: `schon` is not `schön`. Direction marks, which are not seen, are ignored.
    """
    tag = tag.translate(DIRECTION_MARKS)
    return unicodedata.normalize("NFC", unicodedata.normalize("NFD", tag).casefold())


def pattern(text: str) -> str:
    """A regular expression of MongoDB's for this text, whatever the marks on its letters.

    It is for the option `i`, by which the case of letters does not matter either. What it finds is
    what MongoDB's text index finds.
    """
    composed = unicodedata.normalize("NFC", text)
    return "".join(_pattern_of(each) for each in composed if not unicodedata.combining(each))


def _plain(decomposed: str) -> str:
    return "".join(each for each in decomposed if not unicodedata.combining(each))


@lru_cache(1000)
def _pattern_of(letter: str) -> str:
    base = _bases().get(letter, letter).lower()
    marked = "".join(_ranges([ord(each) for each, of in _bases().items() if of.lower() == base]))
    # What is stored is composed, but not of each letter with marks there is a composed one.
    marks = r"\p{Mn}*" if base.isalnum() else ""
    return (f"[{base}{marked}]" if marked else re.escape(base)) + marks


@cache
def _bases() -> dict[str, str]:
    """By the letters with marks what they are without."""
    letters = map(chr, sorted(MARKED_LETTERS))
    plain = {letter: _plain(unicodedata.normalize("NFD", letter)) for letter in letters}
    return {letter: base for letter, base in plain.items() if len(base) == 1 and base != letter}


def _ranges(codes: list[int]) -> list[str]:
    ranges = []
    for _, run in groupby(enumerate(codes), lambda each: each[1] - each[0]):
        first, *rest = (chr(code) for _, code in run)
        ranges.append(f"{first}-{rest[-1]}" if rest else first)
    return ranges
