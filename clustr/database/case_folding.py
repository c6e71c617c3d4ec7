"""Comparing texts without regard to the case of letters, or to diacritical marks.

In an update MongoDB folds only ASCII letters, and its regular expressions distinguish marks. So
folded keys and patterns for other letters are computed here.
"""

import re
import unicodedata
from functools import cache, lru_cache
from itertools import groupby

# The code points among which Unicode has letters composed with marks; syllables and ideographs
# follow. Arabic is left out, because MongoDB's text index keeps its marks.
MARKED_LETTERS = {*range(0x80, 0x3100)} - {*range(0x600, 0x700)}
# ALM, LRM and RLM (UAX #9), as `str.translate` takes them away.
DIRECTION_MARKS = dict.fromkeys((0x061C, 0x200E, 0x200F))


def fold_text(text: str) -> str:
    """The text as MongoDB compares it: without the case of letters, and without marks on them."""
    return _strip_marks(unicodedata.normalize("NFKD", text.casefold()))


def tag_key(tag: str) -> str:
    """The key that tags share when they differ only in case (Unicode, section 3.13, D145).

    Marks on letters stay: `schon` is not `schön`. Direction marks, which are not seen, are ignored.
    """
    tag = tag.translate(DIRECTION_MARKS)
    return unicodedata.normalize("NFC", unicodedata.normalize("NFD", tag).casefold())


def search_pattern(text: str) -> str:
    """A regular expression for MongoDB that matches this text with any marks on its letters.

    It is to be used with the option `i`, which ignores case. Then it matches the same texts as
    MongoDB's text index.
    """
    composed = unicodedata.normalize("NFC", text)
    return "".join(_letter_pattern(each) for each in composed if not unicodedata.combining(each))


def _strip_marks(decomposed: str) -> str:
    return "".join(each for each in decomposed if not unicodedata.combining(each))


@lru_cache(1000)
def _letter_pattern(letter: str) -> str:
    base = _base_letters().get(letter, letter).lower()
    marked = "".join(
        _character_ranges([ord(each) for each, of in _base_letters().items() if of.lower() == base])
    )
    # Stored text is composed (NFC), but not every letter with a mark has a composed form.
    marks = r"\p{Mn}*" if base.isalnum() else ""
    return (f"[{base}{marked}]" if marked else re.escape(base)) + marks


@cache
def _base_letters() -> dict[str, str]:
    """The letter without its marks, by each letter with marks."""
    letters = map(chr, sorted(MARKED_LETTERS))
    plain = {letter: _strip_marks(unicodedata.normalize("NFD", letter)) for letter in letters}
    return {letter: base for letter, base in plain.items() if len(base) == 1 and base != letter}


def _character_ranges(codes: list[int]) -> list[str]:
    ranges = []
    for _, run in groupby(enumerate(codes), lambda each: each[1] - each[0]):
        first, *rest = (chr(code) for _, code in run)
        ranges.append(f"{first}-{rest[-1]}" if rest else first)
    return ranges
