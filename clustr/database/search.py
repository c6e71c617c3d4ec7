"""Search: uploads by words in their tags, captions and original names.

For a rare word, the keys of MongoDB's text index say which uploads have it and how much it weighs
there. They are ranked by that score, and only the uploads of the page are read. MongoDB's own
ranking (`$meta: "textScore"`) would read all uploads with the word, possibly thousands. For a
common word a ranking would mean little: there the newest uploads are scanned, and matches soon
found.
"""

import base64
import binascii
import re
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from heapq import nlargest
from itertools import islice
from typing import Any, cast

from bson import MaxKey, MinKey, ObjectId
from bson.errors import InvalidId
from pymongo.collection import Collection
from pymongo.cursor import Cursor

from clustr.database import upload_counts
from clustr.database.case_folding import fold_text, search_pattern, tag_key
from clustr.database.clock import now
from clustr.database.connection import NAIVE_UTC, Document
from clustr.database.documents import MALFORMED_RECORD_ERRORS
from clustr.database.listing import (
    CURSOR_MISMATCH,
    DEFAULT_SORT,
    EPOCH,
    INVALID_CURSOR,
    MAX_SKIPPED,
    NO_FILTER,
    SEARCH_SECONDS,
    CursorPosition,
    Listing,
    Page,
    UploadFilter,
    filter_query,
    include_unkeyed_uploads,
)
from clustr.database.tag_keys import TagKeys
from clustr.database.upload_counts import UploadCounts
from clustr.database.uploads import NEWEST_FIRST, search_with_fallback
from clustr.domain.errors import InvalidInput

TEXT_INDEX = "words"
INDEXES = {
    TEXT_INDEX: {
        # With the id in each key, the index alone says which uploads have a word.
        "keys": [("tags", "text"), ("caption", "text"), ("original_name", "text"), ("_id", 1)],
        "weights": {"tags": 10, "caption": 5, "original_name": 1},
        # No stemming: the language is unknown.
        "default_language": "none",
        "language_override": "language_of_words",
    },
}
# The searched fields, with their names in answers.
FIELDS = {"tags": "tag", "caption": "caption", "original_name": "name"}
MATCHED_FIELDS = tuple(FIELDS.values())

# A word is common if more than one upload in `COMMON_ONE_IN` has it, and more than `MIN_COMMON`.
COMMON_ONE_IN = 50
MIN_COMMON = 20

MAX_WORDS = 20
UNKNOWN_TOTAL = 0xFFFFFFFF  # in a cursor: the number of matches is unknown
READ_BATCH = 200  # uploads with the words that are read at once to check the other conditions
SCORE, NEWEST = b"s", b"n"
ONLY_ID = struct.Struct("<9x12sx")  # the BSON of a document with nothing but an ObjectId
BECAME_COMMON = "More uploads have these words than before; begin anew."
QUERY_PART = re.compile(r'(-?)"([^"]*)"|(\S+)')
WORD = re.compile(r"\w+")


# Whether a tag equals the search, the score, and the upload's id.
Rank = tuple[bool, float, bytes]


@dataclass(frozen=True, slots=True)
class SearchQuery:
    """A parsed search.

    Attributes:
        words: an upload has at least one of them.
        phrases: texts in quotation marks; an upload has all of them.
        without: words and phrases; an upload has none of them.
    """

    words: tuple[str, ...]
    phrases: tuple[str, ...]
    without: tuple[str, ...]

    @classmethod
    def parse(cls, text: str) -> "SearchQuery":
        """Parse a search such as `cat "on a sofa" -dog`.

        Raises:
            InvalidInput: it has nothing to search for, too many words, or an open quotation mark.
        """
        if text.count('"') % 2:
            raise InvalidInput({"q": ["A quotation mark is not closed."]})
        words, phrases, without = [], [], []
        for minus, phrase, word in QUERY_PART.findall(text.replace("\0", " ")):
            term = phrase.strip() or word.lstrip("-")
            if not WORD.search(term):
                continue
            if minus or word.startswith("-"):
                without.append(term)
            elif phrase:
                phrases.append(term)
            else:
                words.append(term)
        if not words and not phrases:
            raise InvalidInput({"q": ["Give a word to look for; one with a minus is left out."]})
        if len(words) + len(phrases) + len(without) > MAX_WORDS:
            raise InvalidInput({"q": [f"Give at most {MAX_WORDS} words and phrases."]})
        return cls(tuple(words), tuple(phrases), tuple(without))

    def text_search(self) -> str:
        """The search in the syntax of MongoDB's `$text`."""
        return " ".join(
            [
                *self.words,
                *(f'"{phrase}"' for phrase in self.phrases),
                *(f'-"{term}"' if " " in term else f"-{term}" for term in self.without),
            ]
        )

    def required_text_search(self) -> str:
        """The required words and phrases, in the syntax of MongoDB's `$text`."""
        return " ".join([f'"{phrase}"' for phrase in self.phrases] or self.words)

    @property
    def has_only_words(self) -> bool:
        """Whether every upload with one of the words is found."""
        return not self.phrases and not self.without

    def exact_tag_keys(self) -> list[str]:
        """The keys of the tags that equal a word, a phrase, or all words together."""
        return sorted({*map(tag_key, (*self.words, *self.phrases, " ".join(self.words)))})

    def condition(self) -> Document:
        """The search as a condition on an upload, which needs no text index."""
        words = {word for term in self.words for word in WORD.findall(term)}
        found = [_in_any_field(phrase) for phrase in self.phrases] or [
            _in_any_field(*sorted(words))
        ]
        left_out = [_in_any_field(term) for term in self.without]
        return {"$and": found} | ({"$nor": left_out} if left_out else {})

    def matches(self, document: Mapping[str, Any]) -> bool:
        """Whether an upload that has one of the words has all phrases, and nothing left out."""
        texts = _searched_texts(document).values()

        def is_in_any_field(term: str) -> bool:
            return any(_contains_words(text, fold_text(term)) for text in texts)

        return all(map(is_in_any_field, self.phrases)) and not any(
            map(is_in_any_field, self.without)
        )

    def matched_fields(self, document: Mapping[str, Any]) -> list[str]:
        """Where an upload matches: some of `tag`, `caption` and `name`."""
        tokens = {token for word in self.words for token in WORD.findall(fold_text(word))}
        phrases = [fold_text(phrase) for phrase in self.phrases]
        return [
            FIELDS[field]
            for field, text in _searched_texts(document).items()
            if tokens & set(WORD.findall(text))
            or any(_contains_words(text, phrase) for phrase in phrases)
        ]


def _searched_texts(document: Mapping[str, Any]) -> dict[str, str]:
    """The folded texts of an upload that are searched, by field."""
    values = {field: document.get(field) or "" for field in FIELDS}
    return {f: fold_text("\n".join(v) if isinstance(v, list) else v) for f, v in values.items()}


def _in_any_field(*terms: str) -> Document:
    """The condition that one of the searched fields has one of these words or phrases."""
    one_of = "|".join(map(search_pattern, terms))
    # The match begins and ends at word boundaries, in any script.
    regex = rf"(*UCP)(?<![\w\p{{Mn}}])(?:{one_of})(?![\w\p{{Mn}}])"
    return {"$or": [{field: {"$regex": regex, "$options": "i"}} for field in FIELDS]}


def _contains_words(text: str, words: str) -> bool:
    """Whether a text has these words in a row; both are folded."""
    return re.search(rf"(?<!\w){re.escape(words)}(?!\w)", text) is not None


@dataclass(frozen=True, slots=True)
class SearchPage:
    """A page of search results.

    Attributes:
        order: `score` (uploads with a tag that equals the search come first) or `newest`.
    """

    page: Page
    order: str


class Search:
    """Searches the collection of uploads."""

    def __init__(
        self,
        collection: Collection[Document],
        upload_counts: UploadCounts,
        listing: Listing,
        tag_keys: TagKeys,
    ):
        self._collection = collection.with_options(codec_options=NAIVE_UTC)
        self._upload_counts = upload_counts
        self._listing = listing
        self._tag_keys = tag_keys

    def page(
        self,
        search_query: SearchQuery,
        limit: int,
        page: int = 1,
        cursor: str | None = None,
        upload_filter: UploadFilter = NO_FILTER,
        projection: Document | None = None,
    ) -> SearchPage:
        """One page of the uploads that match a search and a filter.

        Args:
            limit, page, cursor, projection: as for `Listing.page`.

        Raises:
            InvalidInput: the cursor is invalid or of another search, or the page is too far.
            TooSlow: it took longer than `SEARCH_SECONDS`, and the `MAX_EXAMINED` newest uploads had
                too few matches.
        """
        keys = (*upload_filter.tag_keys, "\0", search_query.text_search())
        fingerprint = replace(upload_filter, tag_keys=keys).fingerprint()
        upload_filter = include_unkeyed_uploads(upload_filter, self._tag_keys)
        skipped = (page - 1) * limit if cursor is None else 0
        if skipped > MAX_SKIPPED:
            reason = f"Pages reach to the upload of number {MAX_SKIPPED}; go on with `cursor`."
            raise InvalidInput({"page": [reason]})
        projection = {"analyses.result": 0, "search": 0} if projection is None else projection
        began = _milliseconds(now()), SCORE, None, b""
        since, order, total, position = (
            began if cursor is None else _read_cursor(cursor, fingerprint)
        )

        def find(bounded: bool) -> tuple[bytes, list[tuple[bytes, Document]], int | None]:
            arguments = search_query, upload_filter, position, skipped, limit + 1, projection
            scores = self._scores(search_query) if order == SCORE else None
            if scores is not None:
                found = self._by_score(since, scores, *arguments)
            elif cursor is None or order == NEWEST:
                found = self._newest(bounded, *arguments)
            else:
                raise InvalidInput({"cursor": [BECAME_COMMON]})
            name = NEWEST if scores is None else SCORE
            if cursor is not None:
                return name, found, total
            if len(found) <= limit and (found or not skipped):
                return name, found, skipped + len(found)
            return name, found, self._count(scores, search_query, upload_filter)

        order, found, total = search_with_fallback(SEARCH_SECONDS, find)
        following = None
        # A foreign record may have no position: the next page begins after the last that has one.
        last = next((n for n in range(len(found[:limit]), 0, -1) if found[n - 1][0]), 0)
        if len(found) > limit and last:
            found = found[:last]
            head = (
                order + fingerprint + struct.pack(">I", UNKNOWN_TOTAL if total is None else total)
            )
            packed = head + struct.pack(">q", since) + found[last - 1][0]
            following = base64.urlsafe_b64encode(packed).decode().rstrip("=")
        documents = [document for _, document in found[:limit]]
        name = "score" if order == SCORE else "newest"
        return SearchPage(Page(documents, total, following), name)

    def _scores(self, search_query: SearchQuery) -> dict[bytes, float] | None:
        """The scores of the uploads with one of the words, by id; None when there are too many.

        An upload has to have all words of a phrase, so one rare word in it is enough.
        """
        most = max(MIN_COMMON, self._upload_counts.aggregate_with_count([], {})[1] // COMMON_ONE_IN)
        of_words = self._terms(search_query.words)
        of_phrases = self._terms(f'"{phrase}"' for phrase in search_query.phrases)
        rare = {t for t in of_words | of_phrases if not self._is_in_more_than(t, most)}
        if not of_phrases & rare if search_query.phrases else of_words - rare:
            return None
        having = {term: self._scores_of_term(term) for term in sorted(rare)}
        scores: dict[bytes, float] = {}
        for counted in having.values():
            for key, score in counted.items():
                scores[key] = scores.get(key, 0.0) + score
        for term in of_phrases & rare:
            scores = {key: score for key, score in scores.items() if key in having[term]}
        return scores if len(scores) <= most else None

    def _terms(self, words: Iterable[str]) -> set[str]:
        """The terms of the text index for these words."""
        text = " ".join(words)
        if not text:
            return set()
        find = {"find": self._collection.name, "filter": {"$text": {"$search": text}}}
        explained = self._collection.database.command("explain", find, verbosity="queryPlanner")
        return set(_terms_in(explained["queryPlanner"]))

    def _is_in_more_than(self, term: str, most: int) -> bool:
        """Whether more than `most` uploads have a term."""
        return any(
            _index_keys_of(term, self._collection.find({}, return_key=True)).skip(most).limit(1)
        )

    def _scores_of_term(self, term: str) -> dict[bytes, float]:
        """The ids of the uploads that have a term, and its score in each."""
        # There may be thousands of keys. All have the same layout: term, score and id, with names.
        written = struct.Struct(f"<{4 + 6 + 4 + len(term.encode()) + 1 + 7}xd5x12sx")
        found = _index_keys_of(term, self._collection.find_raw_batches({}, return_key=True))
        batches = cast("Iterable[bytes]", found)  # pymongo's types say documents.
        try:
            return {key: score for batch in batches for score, key in written.iter_unpack(batch)}
        except struct.error:  # The id of a foreign record is no ObjectId.
            keys = _index_keys_of(term, self._collection.find({}, return_key=True))
            having = ((key["_id"], key["_ftsx"]) for key in keys)
            return {key.binary: score for key, score in having if isinstance(key, ObjectId)}

    def _by_score(
        self,
        since: int,
        scores: Mapping[bytes, float],
        search_query: SearchQuery,
        upload_filter: UploadFilter,
        position: bytes,
        skipped: int,
        count: int,
        projection: Document,
    ) -> list[tuple[bytes, Document]]:
        """The uploads after a position in the order of the score, each with its own position.

        Args:
            since: when the first page was read, in milliseconds since 1970. Later pages leave out
                uploads whose words have changed since: an earlier page may have had them.
        """
        exact = self._ids_with_tag(search_query.exact_tag_keys(), 2 * len(scores) + MIN_COMMON)
        ranked = [(key in exact, score, key) for key, score in scores.items()]
        if position:
            behind = (*struct.unpack(">?d", position[:9]), position[9:])
            ranked = [rank for rank in ranked if rank < behind]
        if search_query.has_only_words and upload_filter == NO_FILTER and not position:
            ranked = nlargest(skipped + count, ranked)[skipped:]
            skipped = 0
        else:
            ranked.sort(reverse=True)
        met = self._matching_documents(
            ranked,
            search_query,
            _unchanged_query(since, upload_filter)
            if position
            else filter_query(upload_filter, DEFAULT_SORT),
            projection,
        )
        return [
            (struct.pack(">?d", *rank[:2]) + rank[2], document)
            for rank, document in islice(met, skipped, skipped + count)
        ]

    def _ids_with_tag(self, keys: Sequence[str], most: int) -> set[bytes]:
        """The ids of the uploads with one of these tags; empty where there are too many."""
        found = self._collection.find_raw_batches({"tag_keys": {"$in": keys}}, {"_id": 1})
        found = found.limit(most).hint("tag_keys_by_upload_time")
        batches = cast("Iterable[bytes]", found)  # pymongo's types say documents.
        ids = {key for batch in batches for (key,) in ONLY_ID.iter_unpack(batch)}
        return ids if len(ids) < most else set()

    def _matching_documents(
        self,
        ranked: Sequence[Rank],
        search_query: SearchQuery,
        among: Document,
        projection: Document,
    ) -> Iterator[tuple[Rank, Document]]:
        """The ranked uploads that meet all other conditions, with their documents."""
        for first in range(0, len(ranked), READ_BATCH):
            batch = ranked[first : first + READ_BATCH]
            query = {"_id": {"$in": [ObjectId(key) for _, _, key in batch]}, **among}
            found = self._collection.find(query, projection).hint("_id_")
            documents = {document["_id"].binary: document for document in found}
            for rank in batch:
                if (document := documents.get(rank[2])) and _matches(search_query, document):
                    yield rank, document

    def _count(
        self,
        scores: Mapping[bytes, float] | None,
        search_query: SearchQuery,
        upload_filter: UploadFilter,
    ) -> int | None:
        """How many uploads match; None where too many have the words."""
        everything = search_query.has_only_words and upload_filter == NO_FILTER
        most = upload_counts.COUNTED_TOTAL
        if scores is None:
            having = {"$text": {"$search": search_query.required_text_search()}}
            count = self._collection.count_documents(having, limit=most + 1)
            if count > most or everything:
                return count if count <= most else None
            query = {
                "$and": [
                    having,
                    filter_query(upload_filter, DEFAULT_SORT),
                    search_query.condition(),
                ]
            }
            return self._collection.count_documents(query)
        if everything:
            return len(scores)
        if len(scores) > most:
            return None
        ranked, query = (
            [(False, score, key) for key, score in scores.items()],
            filter_query(upload_filter, DEFAULT_SORT),
        )
        return sum(
            1
            for _ in self._matching_documents(ranked, search_query, query, dict.fromkeys(FIELDS, 1))
        )

    def _newest(
        self,
        bounded: bool,
        search_query: SearchQuery,
        upload_filter: UploadFilter,
        position: bytes,
        skipped: int,
        count: int,
        projection: Document,
    ) -> list[tuple[bytes, Document]]:
        """The matches after a position, the newest first, each with its own position."""
        behind = None
        if position:
            (milliseconds,) = struct.unpack(">q", position[:8])
            moment = EPOCH + timedelta(milliseconds=milliseconds)
            behind = CursorPosition(moment, ObjectId(position[8:]), None)
        if bounded:
            arguments = (
                upload_filter,
                DEFAULT_SORT,
                behind,
                skipped,
                count,
                projection,
                search_query.condition(),
            )
            return [(_position_of(d), d) for d in self._listing.scan(*arguments)]
        query = {
            "$and": [filter_query(upload_filter, DEFAULT_SORT, behind), search_query.condition()]
        }
        found = self._collection.find(query, projection).sort(NEWEST_FIRST)
        found = found if upload_filter.index_prefixes else found.hint(NEWEST_FIRST)
        return [(_position_of(d), d) for d in found.skip(skipped).limit(count)]


def _milliseconds(moment: datetime) -> int:
    return (moment - EPOCH) // timedelta(milliseconds=1)


def _unchanged_query(since: int, upload_filter: UploadFilter) -> Document:
    """The query for a filter, without uploads whose words have changed since a moment."""
    changed = {"words_at": {"$gte": EPOCH + timedelta(milliseconds=since)}}
    return {"$and": [filter_query(upload_filter, DEFAULT_SORT), {"$nor": [changed]}]}


def _position_of(document: Document) -> bytes:
    """The position of an upload among the newest; empty for a foreign record."""
    try:
        since = _milliseconds(document["upload_time"].replace(tzinfo=UTC))
        position: bytes = struct.pack(">q", since) + document["_id"].binary
        return position
    except MALFORMED_RECORD_ERRORS:
        return b""


def _matches(search_query: SearchQuery, document: Document) -> bool:
    try:
        return search_query.matches(document)
    except MALFORMED_RECORD_ERRORS:  # It is a foreign record.
        return False


def _index_keys_of(term: str, keys: Cursor[Document]) -> Cursor[Document]:
    """Limit a cursor to the keys of a term in the text index."""
    first: list[tuple[str, Any]] = [("_fts", term), ("_ftsx", MinKey()), ("_id", MinKey())]
    last: list[tuple[str, Any]] = [("_fts", term), ("_ftsx", MaxKey()), ("_id", MaxKey())]
    return keys.hint(TEXT_INDEX).min(first).max(last)


def _terms_in(plan: Any) -> Iterator[str]:
    """The terms that a query plan searches for."""
    if isinstance(plan, dict):
        yield from plan.get("parsedTextQuery", {}).get("terms", ())
        plan = list(plan.values())
    if isinstance(plan, list):
        for inner in plan:
            yield from _terms_in(inner)


def _read_cursor(cursor: str, fingerprint: bytes) -> tuple[int, bytes, int | None, bytes]:
    """The parts of a cursor: time of the first page, order, total and position.

    Raises:
        InvalidInput: the cursor is invalid, or of another search.
    """
    try:
        padded = cursor + "=" * (-len(cursor) % 4)
        packed = base64.b64decode(padded, altchars=b"-_", validate=True)
        order, (total,), position = packed[:1], struct.unpack(">I", packed[5:9]), packed[17:]
        (since,) = struct.unpack(">q", packed[9:17])
        EPOCH + timedelta(milliseconds=since)
        if order not in (SCORE, NEWEST) or packed[1:5] != fingerprint:
            raise InvalidInput({"cursor": [CURSOR_MISMATCH]})
        number = 9 if order == SCORE else 8
        (milliseconds,) = struct.unpack(">q", position[:8])
        ObjectId(position[number:])
        if order == NEWEST:
            EPOCH + timedelta(milliseconds=milliseconds)
    except (binascii.Error, ValueError, struct.error, OverflowError, InvalidId, TypeError) as error:
        raise InvalidInput({"cursor": [INVALID_CURSOR]}) from error
    return since, order, None if total == UNKNOWN_TOTAL else total, position
