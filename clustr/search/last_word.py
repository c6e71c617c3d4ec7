"""The last word of a search that somebody is typing, and what is put in its place."""

import re
from dataclasses import dataclass

from clustr.search.query import DATES
from clustr.search.terms import FIELDS, text_tokens

# What stands before a word, or before its quotation mark; see `clustr.search.query`.
BEFORE = r"(?P<minus>-?)(?:(?P<field>[^\W\d_]+):)?"
OPEN_QUOTE = re.compile(rf'{BEFORE}"(?P<typed>[^"]*)\Z')
WORD = re.compile(rf'{BEFORE}(?P<typed>[^\s"]*)\Z')
PLAIN = re.compile(r"\w+")


@dataclass(frozen=True, slots=True)
class LastWord:
    """The last word of a search, which may be only begun.

    Attributes:
        before: the search before it.
        minus: `-` where it is excluded, else empty.
        field: the field in which it is looked for; None for any.
        typed: the word without those, or all that follows a quotation mark that is not closed.
        quoted: whether there is such a mark.
    """

    before: str
    minus: str
    field: str | None
    typed: str
    quoted: bool

    def beginning(self) -> str | None:
        """The letters with which words begin as this one; None if it is not just one word."""
        tokens = text_tokens(self.typed)
        return tokens[0].word if len(tokens) == 1 else None


def last_word(search: str) -> LastWord:
    """The last word of a search."""
    quoted = search.count('"') % 2 == 1
    found = (OPEN_QUOTE if quoted else WORD).search(search)
    assert found  # The patterns match an empty word at the end, too.
    before = search[: found.start()]
    return LastWord(before, found["minus"], found["field"], found["typed"], quoted)


def field_names(beginning: str) -> list[str]:
    """The fields of the language of searches whose names begin so, whatever the case."""
    return [name for name in (*FIELDS, *DATES) if name.startswith(beginning.casefold())]


def quoted_if_needed(words: str) -> str:
    """Words as one part of a search; empty if a search cannot find them."""
    if not text_tokens(words):
        return ""
    written = " ".join(words.replace('"', " ").split())
    return written if PLAIN.fullmatch(written) else f'"{written}"'
