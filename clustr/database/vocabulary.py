"""The vocabulary: every term that uploads have, to find those that begin with some letters.

A term is added before the first upload with it is written, so none is missing. Terms are not taken
away again: a process remembers which terms it has added, and would not add one anew. How many
uploads have a term is counted now and then, in the index on terms, as long as uploads change.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta

from bson.regex import Regex
from pymongo import UpdateOne, WriteConcern
from pymongo.collection import Collection

from clustr.database import most_used
from clustr.database.change_watch import ChangeWatch
from clustr.database.clock import now
from clustr.database.connection import Document, translate_errors
from clustr.database.search_conditions import TERMS_INDEX
from clustr.search.terms import EXACT, FIELDS, WHOLE_TAG

INDEXES = {"counted_at": {"keys": [("counted_at", 1)]}, **most_used.INDEXES}

# Names of files from cameras, and hashes, would make the vocabulary as large as the library, and an
# upload would often have to wait for it.
MAX_DIGITS_IN_NAMES = 2
DIGIT = re.compile(r"\d")
LETTER = re.compile(r"[^\W\d_]")
MAX_REMEMBERED = 200_000
COUNTED_AGAIN_AFTER = timedelta(hours=1)
COUNT_BATCH = 500


@dataclass(frozen=True, slots=True)
class CountedTerm:
    """A term, and how many uploads had it when they were counted."""

    term: str
    count: int


@dataclass(frozen=True, slots=True)
class CountedWord:
    """A word, and how many uploads had it in the field where most have it."""

    word: str
    count: int


def is_in_vocabulary(term: str) -> bool:
    """Whether the vocabulary has a term, if uploads have it; numbers it has not."""
    word = term[2:]
    if LETTER.search(word) is None:
        return False
    return term[0] != FIELDS["name"] or len(DIGIT.findall(word)) <= MAX_DIGITS_IN_NAMES


def terms_of_words(field: str | None) -> list[str]:
    """What the terms of words begin with; `field` is one of `FIELDS`, None for anywhere."""
    letters = [FIELDS[field]] if field else [*FIELDS.values(), WHOLE_TAG]
    return [f"{letter}{EXACT}" for letter in letters]


class Vocabulary:
    """The collection of the terms of all uploads.

    Args:
        collection: has a document for each term.
        uploads: the collection of uploads.
    """

    def __init__(self, collection: Collection[Document], uploads: Collection[Document]):
        # It has to be there with the uploads that have its terms, which may survive a crash.
        self._collection = collection
        self._uncritical = collection.with_options(write_concern=WriteConcern(w=1, j=False))
        self._uploads = uploads
        self._watch = ChangeWatch(uploads)
        self._changed_at = now()
        self._known: set[str] = set()

    def add(self, terms: Iterable[str]) -> None:
        """Add those of these terms that the vocabulary lacks."""
        unknown = {term for term in terms if is_in_vocabulary(term)} - self._known
        if not unknown:
            return
        new = {"$setOnInsert": {"count": 1, "counted_at": now() - COUNTED_AGAIN_AFTER}}
        with translate_errors():
            self._collection.bulk_write(
                [UpdateOne({"_id": term}, new, upsert=True) for term in sorted(unknown)],
                ordered=False,
            )
        if len(self._known) + len(unknown) > MAX_REMEMBERED:
            self._known.clear()
        self._known |= unknown

    def beginning_with(self, prefixes: Sequence[str], most: int) -> list[CountedTerm]:
        """The terms that begin with one of these texts, those of the most uploads first.

        Terms that no upload had when they were counted are among them: one may have them by now.

        Args:
            most: the largest number of terms.
        """
        ranges = [{"_id": {"$gte": prefix, "$lt": prefix + "\U0010ffff"}} for prefix in prefixes]
        if not ranges:
            return []
        with translate_errors():
            found = self._collection.find({"$or": ranges}, {"count": 1})
            found = found.sort([("count", -1), ("_id", 1)]).limit(most)
            return [CountedTerm(document["_id"], document["count"]) for document in found]

    def all_beginning_with(self, prefixes: Sequence[str], most: int) -> list[CountedTerm] | None:
        """All terms that begin with one of these texts; None for more than `most`."""
        found = self.beginning_with(prefixes, most + 1)
        return found if len(found) <= most else None

    def most_used_words(self, beginning: str, field: str | None, limit: int) -> list[CountedWord]:
        """The words of the most uploads that begin so, without tags of several words.

        Args:
            beginning: some letters, folded.
            field: where uploads have them, one of `clustr.search.terms.FIELDS`; None for anywhere.
        """
        begin = terms_of_words(field)
        terms = [Regex(f"^{each}{re.escape(beginning)}[^ ]*$") for each in begin]
        counts: dict[str, int] = {}
        with translate_errors():
            found = most_used.most_used(
                self._collection, {"_id": {"$in": terms}}, "_id_", limit * len(begin)
            )
        for document in found:
            counts.setdefault(document["_id"][2:], document["count"])
        return [CountedWord(*each) for each in counts.items()][:limit]

    def counted(self, terms: Iterable[str]) -> list[CountedTerm]:
        """Those of these terms that the vocabulary has."""
        with translate_errors():
            found = self._collection.find({"_id": {"$in": [*terms]}}, {"count": 1})
            return [CountedTerm(document["_id"], document["count"]) for document in found]

    def count_some(self) -> int:
        """Count the uploads that have some of the terms, those counted longest ago.

        Returns:
            of how many terms; 0 when all were counted within `COUNTED_AGAIN_AFTER`, or since the
            last change of an upload.
        """
        if self._watch.has_changed():
            self._changed_at = now()
        moment = now()
        due = {"counted_at": {"$lte": moment - COUNTED_AGAIN_AFTER, "$lt": self._changed_at}}
        with translate_errors():
            found = self._collection.find(due, {"_id": 1}).sort("counted_at", 1)
            updates = [
                UpdateOne(
                    {"_id": document["_id"]},
                    {"$set": {"count": self._count(document["_id"]), "counted_at": moment}},
                )
                for document in found.limit(COUNT_BATCH)
            ]
            if updates:
                self._uncritical.bulk_write(updates, ordered=False)
        return len(updates)

    def _count(self, term: str) -> int:
        return self._uploads.count_documents({"search.terms": term}, hint=TERMS_INDEX)
