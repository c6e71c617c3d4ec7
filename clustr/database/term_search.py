"""Searching uploads by their terms, a page at a time.

A word is common when more than `MAX_RANKED` uploads have it. While one word of a search is not
common, all uploads that are found are read (their terms alone), and those that match best come
first. Otherwise the newest come first: they are read from the index on terms in this order. Of
several common words the index alone says which uploads have all of them.
"""

import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, timedelta
from functools import partial
from typing import cast

import pymongo
from bson import ObjectId
from pymongo.collection import Collection
from pymongo.errors import PyMongoError

from clustr.database.connection import NAIVE_UTC, Document, translate_errors
from clustr.database.listing import DEFAULT_SORT, EPOCH, NO_FILTER, UploadFilter, filter_query
from clustr.database.search_conditions import search_condition, word_condition
from clustr.database.upload_counts import COUNTED_TOTAL
from clustr.database.uploads import NEWEST_FIRST, search_with_fallback
from clustr.database.vocabulary import DIGIT, Vocabulary
from clustr.domain.errors import TooSlow
from clustr.search.query import PREFIX_RANK, Condition, SearchQuery, Word

TERMS_INDEX = "search_terms"
NEWEST_INDEX = "newest_first"
MAX_RANKED = 2000
# How many terms a beginning of a word stands for; of more, the index is read as a range.
MAX_COMPLETIONS = 400
# The BSON of a document with nothing but an ObjectId.
ONLY_ID = struct.Struct("<9x12sx")
# So many ids of each word are compared at most; reading them takes some 50 milliseconds.
MAX_COMPARED = 30_000
# The limits for finding a page of common words, and for counting what is found besides.
SEARCH_SECONDS = 0.3
COUNT_SECONDS = 0.1
# Foreign records have no place in the order.
HAS_PLACE: Document = {"_id": {"$type": "objectId"}, "upload_time": {"$type": "date"}}


@dataclass(frozen=True, slots=True)
class Hit:
    """The place of an upload that is found, in the order of what is found.

    Attributes:
        rank: how well it matches: the lower, the better; 0 in the order of time.
        upload_time: in milliseconds since 1970.
        key: its id.
    """

    rank: int
    upload_time: int
    key: ObjectId

    def order(self) -> tuple[int, int, int]:
        return self.rank, -self.upload_time, -int.from_bytes(self.key.binary, "big")


@dataclass(frozen=True, slots=True)
class Hits:
    """Uploads that are found.

    Attributes:
        hits: those of a page, in their order.
        total: of all; None for more than `COUNTED_TOTAL`.
        more: whether there are more after these.
        ranked: whether those that match best come first; otherwise the newest.
    """

    hits: list[Hit]
    total: int | None
    more: bool
    ranked: bool


class TermSearch:
    """Searches the collection of uploads by their terms."""

    def __init__(self, collection: Collection[Document], vocabulary: Vocabulary):
        self._collection = collection.with_options(codec_options=NAIVE_UTC)
        self._vocabulary = vocabulary

    def find(
        self,
        query: SearchQuery,
        count: int,
        after: Hit | None = None,
        skipped: int = 0,
        upload_filter: UploadFilter = NO_FILTER,
    ) -> Hits:
        """The first `count` uploads that are found, after a place or after the first `skipped`.

        Args:
            query: has a word that is not excluded.

        Raises:
            TooSlow: it would take too long.
        """
        with translate_errors():
            query = self._completed(query)
            numbers = [self._count(word, MAX_RANKED) for word in query.words]
            fewest = min(numbers)
            rarest = query.words[numbers.index(fewest)]
            if fewest <= MAX_RANKED:
                if _is_one_word(query) and upload_filter == NO_FILTER:
                    hits = self._ranked_by_index(rarest)
                else:
                    hits = self._ranked(query, rarest, upload_filter)
                return _cut(hits, count, after, skipped)
            if len(numbers) > 1 and (keys := self._with_all_words(query)) is not None:
                hits = self._verified(keys, query, upload_filter)
                return _cut(hits, count, after, skipped, ranked=False)
        arguments = query, rarest, upload_filter, after, skipped, count + 1
        hits = search_with_fallback(SEARCH_SECONDS, partial(self._newest, *arguments))
        total = None if after else self._total(query, rarest, upload_filter)
        return Hits(hits[:count], total, len(hits) > count, ranked=False)

    def _completed(self, query: SearchQuery) -> SearchQuery:
        """The query with the words that begin as its last one, instead of their beginning."""
        *others, last = query.parts
        conditions = tuple(map(self._completed_condition, last.conditions))
        return SearchQuery((*others, replace(last, conditions=conditions)))

    def _completed_condition(self, condition: Condition) -> Condition:
        if not isinstance(condition, Word) or condition.prefix is None:
            return condition
        if DIGIT.search(condition.prefix):  # The vocabulary lacks numbers.
            return condition
        found = self._vocabulary.beginning_with(condition.prefixes(), MAX_COMPLETIONS + 1)
        if len(found) > MAX_COMPLETIONS:
            return condition
        completions = {each.term: PREFIX_RANK for each in found}
        return replace(condition, ranks=completions | condition.ranks, prefix=None)

    def _count(self, word: Word, most: int) -> int:
        """How many uploads have a word; `most` + 1 for more."""
        condition = word_condition(word)
        return self._collection.count_documents(condition, hint=TERMS_INDEX, limit=most + 1)

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
        having = {"$and": [word_condition(word), HAS_PLACE]}
        for document in self._collection.find(having, {"upload_time": 1}, hint=TERMS_INDEX):
            hits.setdefault(document["_id"], Hit(rank, *_place_of(document)))

    def _ranked(self, query: SearchQuery, rarest: Word, upload_filter: UploadFilter) -> list[Hit]:
        """All uploads that are found, in order."""
        found = self._read(search_condition(query, rarest), upload_filter, TERMS_INDEX)
        hits = [
            Hit(query.rank({*document["search"]["terms"]}), *_place_of(document))
            for document in found
        ]
        return sorted(hits, key=Hit.order)

    def _read(self, condition: Document, upload_filter: UploadFilter, index: str) -> list[Document]:
        query = _filtered(condition, upload_filter)
        return list(self._collection.find(query, {"upload_time": 1, "search.terms": 1}, hint=index))

    def _with_all_words(self, query: SearchQuery) -> list[ObjectId] | None:
        """The uploads that have all words, the newest first, by the index alone.

        Returns:
            None when more than `MAX_COMPARED` uploads have one of the words, or all of them.
        """
        if any(self._count(word, MAX_COMPARED) > MAX_COMPARED for word in query.words):
            return None
        first, *others = map(self._ids_with, query.words)
        having = set(first).intersection(*others)
        if len(having) > COUNTED_TOTAL:
            return None
        return [ObjectId(key) for key in first if key in having]

    def _ids_with(self, word: Word) -> list[bytes]:
        """The ids of the uploads with a word, the newest first."""
        found = self._collection.find_raw_batches(
            word_condition(word), {"_id": 1}, sort=NEWEST_FIRST, hint=TERMS_INDEX
        )
        batches = cast("Iterable[bytes]", found)  # pymongo's types say documents.
        return [key for batch in batches for (key,) in ONLY_ID.iter_unpack(batch)]

    def _verified(
        self, keys: Sequence[ObjectId], query: SearchQuery, upload_filter: UploadFilter
    ) -> list[Hit]:
        """Those of these uploads that are found."""
        among = {"$and": [{"_id": {"$in": [*keys]}}, search_condition(query)]}
        found = self._read(among, upload_filter, "_id_")
        return sorted((Hit(0, *_place_of(document)) for document in found), key=Hit.order)

    def _newest(
        self,
        query: SearchQuery,
        rarest: Word,
        upload_filter: UploadFilter,
        after: Hit | None,
        skipped: int,
        count: int,
        bounded: bool,
    ) -> list[Hit]:
        """The newest `count` uploads that are found, after a place or after the first `skipped`."""
        if bounded:
            raise TooSlow
        following = _filtered(search_condition(query, rarest), upload_filter)
        following = {"$and": [following, _behind(after)]} if after else following
        found = self._collection.find(following, {"upload_time": 1}, hint=_index_for(rarest))
        found = found.sort(NEWEST_FIRST).skip(0 if after else skipped).limit(count)
        return [Hit(0, *_place_of(document)) for document in found]

    def _total(self, query: SearchQuery, rarest: Word, upload_filter: UploadFilter) -> int | None:
        """How many uploads are found; None for too many, or where counting takes too long."""
        if _is_one_word(query) and upload_filter == NO_FILTER:
            return None  # It is common.
        found = _filtered(search_condition(query, rarest), upload_filter)
        most = COUNTED_TOTAL + 1
        try:
            with pymongo.timeout(COUNT_SECONDS):
                total = self._collection.count_documents(found, hint=_index_for(rarest), limit=most)
        except PyMongoError as error:
            if not error.timeout:
                with translate_errors():
                    raise
            return None
        return total if total <= COUNTED_TOTAL else None


def _filtered(condition: Document, upload_filter: UploadFilter) -> Document:
    return {"$and": [condition, filter_query(upload_filter, DEFAULT_SORT), HAS_PLACE]}


def _index_for(word: Word) -> str:
    """The index that has the uploads with a common word in the order of time.

    A range of terms is not in this order; but so many uploads have them that some of the newest do.
    """
    return TERMS_INDEX if word.prefix is None else NEWEST_INDEX


def _is_one_word(query: SearchQuery) -> bool:
    return len(query.parts) == len(query.parts[0].conditions) == 1


def _place_of(document: Document) -> tuple[int, ObjectId]:
    """When an upload came in, in milliseconds since 1970, and its id."""
    moment = document["upload_time"].replace(tzinfo=UTC)
    return (moment - EPOCH) // timedelta(milliseconds=1), document["_id"]


def _behind(after: Hit) -> Document:
    """The condition that an upload is behind another in the order of time."""
    moment = EPOCH + timedelta(milliseconds=after.upload_time)
    same = {"upload_time": moment, "_id": {"$gte": after.key}}
    return {"upload_time": {"$lte": moment}, "$nor": [same]}


def _cut(hits: list[Hit], count: int, after: Hit | None, skipped: int, ranked: bool = True) -> Hits:
    """The page of all hits that begins after a place, or after the first `skipped`."""
    following = [hit for hit in hits if hit.order() > after.order()] if after else hits[skipped:]
    return Hits(following[:count], len(hits), len(following) > count, ranked)
