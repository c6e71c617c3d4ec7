"""Comparing texts without regard to the case of letters, or to diacritical marks.

In an update MongoDB folds only ASCII letters, so folded keys of tags are computed here.
"""

import math
import re
import unicodedata
from collections.abc import Iterable, Sized
from itertools import product

# ALM, LRM and RLM (UAX #9), as `str.translate` takes them away.
DIRECTION_MARKS = dict.fromkeys((0x061C, 0x200E, 0x200F))
# So many spellings of a text are looked for one by one; MongoDB merges at most 200 in order.
MAX_SPELLINGS = 128


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


def spellings(text: str) -> list[str]:
    """The texts that have the `tag_key` of this one, to be looked for one by one.

    MongoDB looks for each in its place of an index, and merges what it finds in the order of the
    index; for a regular expression it would have to sort. Of texts with more than some seven
    letters only those are named in which each word is in small letters, in capitals, or begins with
    one.
    """
    key = tag_key(text)
    found = {text: None, key: None}
    # German has two spellings: MongoDB does not fold `ß` to `ss`, and neither do people.
    for written in (key, key.replace("ss", "ß")):
        letters = [_spellings_of_word(letter) for letter in written]
        words = [_spellings_of_word(word) for word in re.split(r"(\W+)", written)]
        whole = [_spellings_of_word(written)]
        ways = next((each for each in (letters, words) if _product(each) <= MAX_SPELLINGS), whole)
        found |= dict.fromkeys(map("".join, product(*ways)))
        found |= dict.fromkeys(whole[0])
    return [*found]


def _product(ways: Iterable[Sized]) -> int:
    return math.prod(map(len, ways))


def _spellings_of_word(word: str) -> tuple[str, ...]:
    """A folded word as it is, in capitals, in small letters (`Σ` ends as `ς`), with one capital."""
    capitals = word.upper()
    small = capitals.lower()
    as_letters = (small,) if len(small) == len(word) else ()
    return tuple(dict.fromkeys((word, capitals, *as_letters, word.capitalize())))
