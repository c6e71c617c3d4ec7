"""Finding uploads by their terms: which index is read, and the best matches of rare words.

A word is rare when at most `MAX_RANKED` uploads have it; a date is like a word. When a search has a
rare one, all uploads that it finds are read (their terms alone), and those that match best come
first. Otherwise an order by what matches would mean little, and the newest come first: they are
read from the index on terms in this order. Of several common words the index alone says which
uploads have all of them.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from operator import itemgetter
from typing import cast

from bson import ObjectId
from pymongo.collection import Collection

from clustr.database.connection import NAIVE_UTC, Document
from clustr.database.documents import MALFORMED_RECORD_ERRORS
from clustr.database.listing_cursors import EPOCH
from clustr.database.listing_queries import filter_query
from clustr.database.own_vocabulary import OwnVocabulary
from clustr.database.search_conditions import (
    TERMS_INDEX,
    SearchPlan,
    condition_on_terms,
    conditions_beside_words,
)
from clustr.database.upload_counts import COUNTED_TOTAL
from clustr.database.upload_filter import DEFAULT_SORT, Sort, UploadFilter
from clustr.database.vocabulary import DIGIT, Vocabulary
from clustr.search.query import PREFIX_RANK, Condition, Phrase, SearchQuery, Word

MAX_RANKED = 2000
# How many terms a beginning of a word stands for; of more, the index is read as a range.
MAX_COMPLETIONS = 400
# The BSON of a document with nothing but an ObjectId. PyMongo would take
# longer to parse 20,000 of them than MongoDB takes to find them.
ONLY_ID = re.compile(rb"\x16\0\0\0\x07_id\0(.{12})\0", re.DOTALL)
# So many ids of each word are compared at most; reading them takes some 30 milliseconds.
MAX_COMPARED = 30_000
# Foreign records have no place in the order.
HAS_PLACE: Document = {"_id": {"$type": "objectId"}, "upload_time": {"$type": "date"}}


@dataclass(frozen=True, slots=True)
class Hit:
    """The place of an upload among those that are found.

    Attributes:
        rank: how well it matches: the lower, the better.
        upload_time: in milliseconds since 1970.
        key: its id.
    """

    rank: int
    upload_time: int
    key: ObjectId

    def order(self) -> tuple[int, int, int]:
        return self.rank, -self.upload_time, -int.from_bytes(self.key.binary, "big")


class TermSearch:
    """Finds uploads in their collection by their terms."""

    def __init__(self, collection: Collection[Document], vocabulary: Vocabulary | OwnVocabulary):
        self._collection = collection.with_options(codec_options=NAIVE_UTC)
        self._vocabulary = vocabulary

    def plan(self, query: SearchQuery, sort: Sort, most: int = MAX_RANKED) -> SearchPlan:
        """How to find what matches a search.

        Args:
            sort: the order of what is found, unless it is to be ranked.
            most: how many uploads have a rare word at most.
        """
        query = self._completed(query)
        required = [each for each in query.required if not isinstance(each, Phrase)]
        if not required:
            return SearchPlan(query)
        if len(required) == 1 and _has_order(required[0], sort):
            is_rare = self._count(required[0], most) <= most
            return SearchPlan(query, required[0], is_rare=is_rare)
        expected = self._expected(required)
        by_number = sorted(zip(expected, required, strict=True), key=itemgetter(0))
        for number, condition in by_number:
            # Of several words that seem common, only the ids say how many uploads have them.
            if len(required) > 1 and number > 2 * most:
                break
            if self._count(condition, most) <= most:
                return SearchPlan(query, condition, is_rare=True)
        if max(expected) <= MAX_COMPARED and (keys := self._with_all(required)) is not None:
            return SearchPlan(query, ids=self._meeting(query, keys))
        rarest = by_number[0][1]
        return SearchPlan(query, rarest if _has_order(rarest, sort) else None)

    def _completed(self, query: SearchQuery) -> SearchQuery:
        """The query with the words that begin as its last one, instead of their beginning."""
        *others, last = query.parts
        conditions = tuple(map(self._completed_condition, last.conditions))
        return replace(query, parts=(*others, replace(last, conditions=conditions)))

    def _completed_condition(self, condition: Condition) -> Condition:
        if not isinstance(condition, Word) or condition.prefix is None:
            return condition
        if DIGIT.search(condition.prefix):  # The vocabulary lacks numbers.
            return condition
        found = self._vocabulary.all_beginning_with(condition.prefixes(), MAX_COMPLETIONS)
        if found is None:
            return condition
        completions = {each.term: PREFIX_RANK for each in found}
        return replace(condition, ranks=completions | condition.ranks, prefix=None)

    def _count(self, condition: Condition, most: int) -> int:
        """How many uploads have a word or a date; `most` + 1 for more."""
        query = condition_on_terms(condition)
        return self._collection.count_documents(query, hint=TERMS_INDEX, limit=most + 1)

    def _with_all(self, required: Sequence[Condition]) -> tuple[ObjectId, ...] | None:
        """The uploads that have all words and dates, by the index alone.

        Returns:
            None when more than `MAX_COMPARED` uploads have one of them, or too many have all.
        """
        found = [self._ids_with(each) for each in required]
        having = set.intersection(*found)
        if len(having) > COUNTED_TOTAL or any(len(each) > MAX_COMPARED for each in found):
            return None
        return tuple(map(ObjectId, having))

    def _expected(self, conditions: Sequence[Condition]) -> list[int]:
        """About how many uploads had each word when they were counted; 0 for a date.

        It is no harm when that is not so any more, or not yet: this saves the reading of what is
        of no use.
        """
        words = [each for each in conditions if isinstance(each, Word)]
        terms = {term for word in words for term in word.ranks}
        counts = {each.term: each.count for each in self._vocabulary.counted(terms)}
        return [self._expected_of(each, counts) for each in conditions]

    def _expected_of(self, condition: Condition, counts: Mapping[str, int]) -> int:
        if not isinstance(condition, Word):
            return 0
        begun = self._vocabulary.beginning_with(condition.prefixes(), MAX_COMPLETIONS)
        whole = max((counts.get(term, 0) for term in condition.ranks), default=0)
        return whole + sum(each.count for each in begun)

    def _meeting(self, query: SearchQuery, keys: tuple[ObjectId, ...]) -> tuple[ObjectId, ...]:
        """Those of these uploads that meet the rest of a query: phrases, and what is excluded."""
        if not (rest := conditions_beside_words(query)):
            return keys
        among = {"$and": [{"_id": {"$in": [*keys]}}, *rest]}
        found = self._collection.find(among, {"_id": 1}).hint("_id_")
        return tuple(document["_id"] for document in found)

    def _ids_with(self, condition: Condition) -> set[bytes]:
        """The ids of the uploads with a word or a date, at most `MAX_COMPARED` + 1.

        Ids of foreign records, which may be of another type, are left out.
        """
        batches = self._collection.find_raw_batches(
            condition_on_terms(condition),
            {"_id": 1},
            hint=TERMS_INDEX,
            limit=MAX_COMPARED + 1,
            batch_size=MAX_COMPARED + 1,
        )
        return {*ONLY_ID.findall(b"".join(cast("Iterable[bytes]", batches)))}

    def ranked(self, upload_filter: UploadFilter, since: datetime | None = None) -> list[Hit]:
        """All uploads that meet a filter with a search, those that match best first.

        Args:
            upload_filter: has the plan of a search for a rare word or date.
            since: leaves out uploads whose words or date have changed since then.
        """
        plan = upload_filter.search_plan
        assert plan
        if since is None and upload_filter.is_only_search and _is_one_word(plan.query):
            return self._ranked_by_index(plan.query.words[0])
        unchanged = {"$nor": [{"words_at": {"$gte": since}}]} if since else {}
        query = {"$and": [filter_query(upload_filter, DEFAULT_SORT), HAS_PLACE, unchanged]}
        read = {"upload_time": 1, "search.terms": 1}
        hits = []
        for document in self._collection.find(query, read, hint=TERMS_INDEX):
            with suppress(*MALFORMED_RECORD_ERRORS):  # Foreign records are in no search.
                rank = plan.query.rank({*document["search"]["terms"]})
                hits.append(Hit(rank, *_place_of(document)))
        return sorted(hits, key=Hit.order)

    def _ranked_by_index(self, word: Word) -> list[Hit]:
        """All uploads with a word, in order, by the index alone."""
        hits: dict[ObjectId, Hit] = {}
        for rank in sorted({*word.ranks.values()}):
            terms = tuple(term for term, of_term in word.ranks.items() if of_term == rank)
            self._add_hits(hits, rank, replace(word, ranks=dict.fromkeys(terms, rank), prefix=None))
        if word.prefix is not None:
            self._add_hits(hits, PREFIX_RANK, word)
        return sorted(hits.values(), key=Hit.order)

    def _add_hits(self, hits: dict[ObjectId, Hit], rank: int, word: Word) -> None:
        """Add those of the uploads with a word that are no better hits already."""
        having = {"$and": [condition_on_terms(word), HAS_PLACE]}
        for document in self._collection.find(having, {"upload_time": 1}, hint=TERMS_INDEX):
            with suppress(*MALFORMED_RECORD_ERRORS):
                hits.setdefault(document["_id"], Hit(rank, *_place_of(document)))


def _has_order(condition: Condition, sort: Sort) -> bool:
    """Whether the index on terms has the uploads with a word or a date in an order.

    A range of terms is in none: neither dates are, nor words that begin with some letters.
    """
    return sort.by == "upload_time" and isinstance(condition, Word) and condition.prefix is None


def _is_one_word(query: SearchQuery) -> bool:
    return len(query.parts) == len(query.parts[0].conditions) == len(query.words) == 1


def _place_of(document: Document) -> tuple[int, ObjectId]:
    """When an upload came in, in milliseconds since 1970, and its id."""
    moment = document["upload_time"].replace(tzinfo=UTC)
    return (moment - EPOCH) // timedelta(milliseconds=1), document["_id"]
