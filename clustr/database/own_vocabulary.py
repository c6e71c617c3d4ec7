"""The words of one owner's uploads, read from the index on terms when they are asked for.

The vocabulary that is kept has the words of all uploads.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from bson import MaxKey
from pymongo.collection import Collection

from clustr.database.connection import Document, translate_errors
from clustr.database.search_conditions import TERMS, TERMS_INDEX
from clustr.database.vocabulary import CountedTerm, CountedWord, is_in_vocabulary, terms_of_words

# So many entries of the index are read at most for the terms that begin alike, which takes some 20
# milliseconds; an upload has one for each of its terms.
MAX_ENTRIES = 10_000
LAST_LETTER = "\U0010ffff"


class OwnVocabulary:
    """The terms of an owner's uploads."""

    def __init__(self, uploads: Collection[Document]):
        self._uploads = uploads

    def beginning_with(self, prefixes: Sequence[str], most: int) -> list[CountedTerm]:
        """As of `Vocabulary.beginning_with`."""
        counts, _ = self._count(prefixes)
        return [CountedTerm(*each) for each in _most_used(counts)[:most]]

    def all_beginning_with(self, prefixes: Sequence[str], most: int) -> list[CountedTerm] | None:
        """As of `Vocabulary.all_beginning_with`; None also where not all entries were read."""
        counts, is_whole = self._count(prefixes)
        if not is_whole or len(counts) > most:
            return None
        return [CountedTerm(*each) for each in counts.items()]

    def most_used_words(self, beginning: str, field: str | None, limit: int) -> list[CountedWord]:
        """As of `Vocabulary.most_used_words`."""
        counts, _ = self._count(f"{each}{beginning}" for each in terms_of_words(field))
        words: dict[str, int] = {}
        for term, count in _most_used(counts):
            if " " not in term:
                words.setdefault(term[2:], count)
        return [CountedWord(*each) for each in words.items()][:limit]

    def counted(self, terms: Iterable[str]) -> list[CountedTerm]:
        """Those of these terms that uploads have; of a frequent one not all are counted."""
        with translate_errors():
            counts = {term: self._count_term(term) for term in terms}
        return [CountedTerm(term, count) for term, count in counts.items() if count]

    def _count_term(self, term: str) -> int:
        return self._uploads.count_documents({TERMS: term}, hint=TERMS_INDEX, limit=MAX_ENTRIES)

    def _count(self, prefixes: Iterable[str]) -> tuple[Counter[str], bool]:
        """How many uploads have each of the terms that begin so, and whether all entries were read.

        Of the terms with the same beginning only the first, by the alphabet, are read.
        """
        counts, is_whole = Counter[str](), True
        with translate_errors():
            for prefix in prefixes:
                # The index is read alone: documents would say all terms of an upload.
                found = self._uploads.find({}, return_key=True).hint(TERMS_INDEX)
                found = found.min(_before(prefix)).max(_before(prefix + LAST_LETTER))
                terms = [entry[TERMS] for entry in found.limit(MAX_ENTRIES)]
                counts.update(filter(is_in_vocabulary, terms))
                is_whole = is_whole and len(terms) < MAX_ENTRIES
        return counts, is_whole


def _before(term: str) -> list[tuple[str, Any]]:
    """The place in the index before all entries of a term."""
    return [(TERMS, term), ("upload_time", MaxKey()), ("_id", MaxKey())]


def _most_used(counts: Counter[str]) -> list[tuple[str, int]]:
    return sorted(counts.items(), key=lambda each: (-each[1], each[0]))
