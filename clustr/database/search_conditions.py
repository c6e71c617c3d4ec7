"""Searches as conditions on uploads, in the language of MongoDB's queries."""

import re
from typing import Any

from bson.regex import Regex

from clustr.database.connection import Document
from clustr.search.query import Condition, Part, Phrase, SearchQuery, Taken, Word

TERMS, TEXT = "search.terms", "search.text"


def search_condition(query: SearchQuery, indexed: Word | None = None) -> Document:
    """The condition that an upload is found.

    Args:
        indexed: the word of the query by which the index on terms is to be read, preferably that
            of the fewest uploads; None where another index is.
    """
    conditions: list[Document] = [word_condition(indexed)] if indexed else []
    for part in query.parts:
        if not part.excluded:
            wanted = [each for each in part.conditions if each is not indexed]
            conditions += [_without_index(_condition(each)) for each in wanted]
        else:
            conditions.append(_excluded(part))
    return {"$and": conditions}


def word_condition(word: Word) -> Document:
    """The condition for a word, whose terms are ranges of the index on terms."""
    # MongoDB reads all of the index for a pattern of Python, which has the flag for Unicode.
    prefixes = [Regex(f"^{re.escape(prefix)}") for prefix in word.prefixes()]
    return {TERMS: {"$in": [*word.ranks, *prefixes]}}


def _condition(condition: Condition) -> Document:
    if isinstance(condition, Word):
        return word_condition(condition)
    if isinstance(condition, Phrase):
        return {TEXT: {"$regex": condition.pattern, "$options": "m"}}
    return _taken_condition(condition)


def _taken_condition(taken: Taken) -> Document:
    period: dict[str, Any] = {}
    if taken.start is not None:
        period["$gte"] = taken.start
    if taken.end is not None:
        period["$lt"] = taken.end
    return {"search.taken_at": period}


def _excluded(part: Part) -> Document:
    return {"$nor": [{"$and": [_condition(condition) for condition in part.conditions]}]}


def _without_index(condition: Document) -> Document:
    """The same condition, for which MongoDB does not choose an index."""
    return {"$nor": [{"$nor": [condition]}]}
