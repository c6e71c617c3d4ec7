"""Folding: texts as they are compared where neither case nor marks on letters matter."""

import unicodedata


def folded(text: str) -> str:
    """The text as MongoDB compares it: without the case of letters, and without marks on them."""
    plain = unicodedata.normalize("NFKD", text.casefold())
    return "".join(each for each in plain if not unicodedata.combining(each))
