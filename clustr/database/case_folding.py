"""Comparing texts without regard to the case of letters, or to diacritical marks.

In an update MongoDB folds only ASCII letters, so folded keys of tags are computed here.
"""

import unicodedata

# ALM, LRM and RLM (UAX #9), as `str.translate` takes them away.
DIRECTION_MARKS = dict.fromkeys((0x061C, 0x200E, 0x200F))


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
