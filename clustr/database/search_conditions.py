"""Searches as conditions on uploads, in the language of MongoDB's queries."""

import re
from dataclasses import dataclass

from bson import ObjectId
from bson.regex import Regex

from clustr.database.analysis_updates import DUE_TERM
from clustr.database.connection import Document
from clustr.search.query import Condition, Part, Phrase, SearchQuery, Taken

TERMS, TEXT = "search.terms", "search.text"
TERMS_INDEX = "search_terms"


@dataclass(frozen=True, slots=True)
class SearchPlan:
    """How the uploads are found that match a search.

    Attributes:
        query: the search; the beginning of a word is replaced by the words that begin so.
        indexed: the required word or date by which the index on terms is to be read; None where it
            is not.
        ids: the only uploads that matched when it was made; None where these are not known.
        is_rare: whether so few uploads meet `indexed` that all of them can be read.
    """

    query: SearchQuery
    indexed: Condition | None = None
    ids: tuple[ObjectId, ...] | None = None
    is_rare: bool = False

    @property
    def index(self) -> str | None:
        """The index to be read; None for that of the other conditions and of the order."""
        if self.ids is not None:
            return "_id_"
        return TERMS_INDEX if self.indexed else None

    @property
    def is_common_word(self) -> bool:
        """Whether the search is for one word or date that too many uploads have to be counted."""
        part = self.query.parts[0]
        is_one = len(self.query.parts) == len(part.conditions) == 1 and not part.excluded
        return is_one and not self.is_rare and self.ids is None

    def condition(self) -> Document:
        """The condition that an upload is found."""
        if self.ids is None:
            return search_condition(self.query, self.indexed)
        among = {"_id": {"$in": [*self.ids]}}
        return {"$and": [among, *conditions_beside_words(self.query)]}


def search_condition(query: SearchQuery, indexed: Condition | None = None) -> Document:
    """The condition that an upload is found.

    Args:
        indexed: the required word or date of the query by which the index on terms is to be read,
            preferably that of the fewest uploads; None where another index is.
    """
    conditions: list[Document] = [condition_on_terms(indexed)] if indexed else []
    for part in query.parts:
        if not part.excluded:
            wanted = [each for each in part.conditions if each is not indexed]
            conditions += [_without_index(condition_on_terms(each)) for each in wanted]
        else:
            conditions.append(_excluded(part))
    return {"$and": conditions}


def conditions_beside_words(query: SearchQuery) -> list[Document]:
    """What an upload has to meet besides having all words and dates of a search."""
    phrases = [each for each in query.required if isinstance(each, Phrase)]
    excluded = [_excluded(part) for part in query.parts if part.excluded]
    return [*map(condition_on_terms, phrases), *excluded]


def condition_on_terms(condition: Condition) -> Document:
    """A condition in the language of MongoDB; words and dates are ranges of the index on terms."""
    if isinstance(condition, Phrase):
        return {TEXT: {"$regex": condition.pattern, "$options": "m"}}
    if isinstance(condition, Taken):
        first, last = condition.term_range()
        return {TERMS: {"$elemMatch": {"$gte": first, "$lte": last}}}
    # MongoDB reads all of the index for a pattern of Python, which has the flag for Unicode.
    prefixes = [Regex(f"^{re.escape(prefix)}") for prefix in condition.prefixes()]
    return {TERMS: {"$in": [*condition.ranks, *prefixes]}}


def _excluded(part: Part) -> Document:
    """The condition that an upload does not meet a part.

    Of one whose terms are still to be made that is not known, and it is not found: a job that
    deletes by what is not there must not delete it.
    """
    met = {"$and": [condition_on_terms(condition) for condition in part.conditions]}
    return {"$nor": [met, {TERMS: None}, {TERMS: DUE_TERM}]}


def _without_index(condition: Document) -> Document:
    """The same condition, for which MongoDB does not choose an index."""
    return {"$nor": [{"$nor": [condition]}]}
