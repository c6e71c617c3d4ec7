"""Suggestions for the last word of a search, while somebody is typing it.

A new kind is one function here and its row in `KINDS`.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import chain, islice, zip_longest

from clustr.database import DatabaseView
from clustr.search.last_word import LastWord, field_names, last_word, quoted_if_needed


@dataclass(frozen=True, slots=True)
class Suggestion:
    """What the last word of a search may become.

    Attributes:
        kind: one of `KINDS`.
        value: what stands in place of the last word, in the language of searches.
        search: the whole search with it.
        count: how many uploads have it; None where nothing is counted.
    """

    kind: str
    value: str
    search: str
    count: int | None


# Gives, for the last word, up to so many values with their counts, the most frequent ones first.
Kind = Callable[[DatabaseView, LastWord, int], Iterable[tuple[str, int | None]]]


def suggest(
    database: DatabaseView, search: str, limit: int, kinds: Iterable[str] | None = None
) -> list[Suggestion]:
    """Suggestions for the last word of a search.

    Args:
        limit: how many at most; the kinds take turns.
        kinds: names of `KINDS`; None for all.
    """
    word = last_word(search)
    by_kind = [
        [_suggestion(kind, word, *found) for found in KINDS[kind](database, word, limit)]
        for kind in KINDS
        if kinds is None or kind in kinds
    ]
    in_turns = chain.from_iterable(zip_longest(*by_kind))
    return list(islice(filter(None, in_turns), limit))


def _suggestion(kind: str, word: LastWord, value: str, count: int | None) -> Suggestion:
    value = f"{word.minus}{value}"
    return Suggestion(kind, value, f"{word.before}{value}", count)


def _tags(database: DatabaseView, word: LastWord, limit: int) -> Iterable[tuple[str, int]]:
    """Tags that begin as the word, after `tag:` the most used ones at once."""
    if word.field not in (None, "tag") or not (word.field or word.typed.strip()):
        return
    for name, count in database.counters.most_used_tags(word.typed, limit).items():
        if value := quoted_if_needed(name):
            yield f"tag:{value}", count


def _words(database: DatabaseView, word: LastWord, limit: int) -> Iterable[tuple[str, int]]:
    """Words of captions, tags and names, or of the one that is named."""
    beginning = word.beginning()
    if beginning is None or word.field not in (None, "caption", "name"):
        return
    field = f"{word.field}:" if word.field else ""
    for found in database.vocabulary.most_used_words(beginning, word.field, limit):
        yield f"{field}{found.word}", found.count


def _filters(_database: DatabaseView, word: LastWord, limit: int) -> Iterable[tuple[str, None]]:
    """Fields of the language of searches."""
    if word.typed and not word.field and not word.quoted:
        for name in field_names(word.typed)[:limit]:
            yield f"{name}:", None


KINDS: dict[str, Kind] = {"tag": _tags, "word": _words, "filter": _filters}
