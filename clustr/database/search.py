"""Search: uploads by words in their tags, captions and original names.

Which uploads have a rare word, and how much it counts there, is told by the keys of MongoDB's text
index, and these are put in order by how well they match: only those that are shown are read. To ask
MongoDB for the order (`$meta: "textScore"`) would read all that have the word, thousands. Of a word
that very many have, an order would mean little: there the newest with it are looked for, one upload
after the other, and soon found.
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
from typing import Any

from bson import MaxKey, MinKey, ObjectId
from bson.errors import InvalidId
from pymongo.collection import Collection
from pymongo.cursor import Cursor

from clustr.database import upload_counts
from clustr.database.case_folding import folded, pattern, tag_key
from clustr.database.clock import now
from clustr.database.connection import PLAIN, Document
from clustr.database.documents import UNLIKE_AN_UPLOAD
from clustr.database.listing import (
    ANYTHING,
    DEFAULT,
    EPOCH,
    MOST_SKIPPED,
    NO_CURSOR,
    OTHER_CURSOR,
    SEARCH_SECONDS,
    CursorPosition,
    Listing,
    Page,
    UploadFilter,
    including_unkeyed_tags,
    query,
)
from clustr.database.tag_keys import TagKeys
from clustr.database.upload_counts import UploadCounts
from clustr.database.uploads import NEWEST_FIRST, limited
from clustr.domain.errors import InvalidInput

WORDS = "words"
INDEXES = {
    WORDS: {
        # With the id in each key, the index by itself says which uploads have a word.
        "keys": [("tags", "text"), ("caption", "text"), ("original_name", "text"), ("_id", 1)],
        "weights": {"tags": 10, "caption": 5, "original_name": 1},
        # Words as they are: which language they are of, nobody knows.
        "default_language": "none",
        "language_override": "language_of_words",
    },
}
# What is searched, and how that is called in an answer.
FIELDS = {"tags": "tag", "caption": "caption", "original_name": "name"}
SEARCHED = tuple(FIELDS.values())

# A word is common that more than one upload of so many has; among few uploads none is.
COMMON = 50
NEVER_COMMON = 20

MOST_WORDS = 20
UNKNOWN = 0xFFFFFFFF  # in a cursor: nobody knows how many match
READ_AT_ONCE = 200  # of those that have the words, to see which of them meet all the rest
SCORE, NEWEST = b"s", b"n"
ONLY_ID = struct.Struct("<9x12sx")  # a document with nothing but an id, as MongoDB writes it
BECAME_COMMON = "More uploads have these words than before; begin anew."
PIECE = re.compile(r'(-?)"([^"]*)"|(\S+)')
WORD = re.compile(r"\w+")


# Whether a tag is just this, how well it matches, and its id.
Rank = tuple[bool, float, bytes]


@dataclass(frozen=True, slots=True)
class SearchQuery:
    """What is searched for.

    Attributes:
        words: of which an upload has one at least.
        phrases: words in quotation marks, which an upload has all of, as they are.
        without: words and phrases that an upload has none of.
    """

    words: tuple[str, ...]
    phrases: tuple[str, ...]
    without: tuple[str, ...]

    @classmethod
    def read(cls, text: str) -> "SearchQuery":
        """Understand what somebody wrote: `cat "on a sofa" -dog`.

        Raises:
            InvalidInput: there is nothing to look for.
        """
        if text.count('"') % 2:
            raise InvalidInput({"q": ["A quotation mark is not closed."]})
        words, phrases, without = [], [], []
        for minus, phrase, word in PIECE.findall(text.replace("\0", " ")):
            said = phrase.strip() or word.lstrip("-")
            if not WORD.search(said):
                continue
            if minus or word.startswith("-"):
                without.append(said)
            elif phrase:
                phrases.append(said)
            else:
                words.append(said)
        if not words and not phrases:
            raise InvalidInput({"q": ["Give a word to look for; one with a minus is left out."]})
        if len(words) + len(phrases) + len(without) > MOST_WORDS:
            raise InvalidInput({"q": [f"Give at most {MOST_WORDS} words and phrases."]})
        return cls(tuple(words), tuple(phrases), tuple(without))

    def for_index(self) -> str:
        """The search as MongoDB's text index is told it."""
        return " ".join(
            [
                *self.words,
                *(f'"{phrase}"' for phrase in self.phrases),
                *(f'-"{said}"' if " " in said else f"-{said}" for said in self.without),
            ]
        )

    def to_be_there(self) -> str:
        """What has to be there, as MongoDB's text index is told it."""
        return " ".join([f'"{phrase}"' for phrase in self.phrases] or self.words)

    @property
    def only_words(self) -> bool:
        """Whether every upload with one of the words is found."""
        return not self.phrases and not self.without

    def exact_tag_keys(self) -> list[str]:
        """The keys of the tags that are meant when tags are."""
        return sorted({*map(tag_key, (*self.words, *self.phrases, " ".join(self.words)))})

    def condition(self) -> Document:
        """The same as a condition on an upload, for which no index is needed."""
        words = {word for said in self.words for word in WORD.findall(said)}
        found = [_somewhere(phrase) for phrase in self.phrases] or [_somewhere(*sorted(words))]
        left_out = [_somewhere(said) for said in self.without]
        return {"$and": found} | ({"$nor": left_out} if left_out else {})

    def are_met(self, document: Mapping[str, Any]) -> bool:
        """Whether an upload that has one of the words has all phrases, and nothing left out."""
        texts = _texts(document).values()

        def somewhere(said: str) -> bool:
            return any(_has(text, folded(said)) for text in texts)

        return all(map(somewhere, self.phrases)) and not any(map(somewhere, self.without))

    def matched_in(self, document: Mapping[str, Any]) -> list[str]:
        """In what of an upload it was found: some of `tag`, `caption` and `name`."""
        tokens = {token for word in self.words for token in WORD.findall(folded(word))}
        phrases = [folded(phrase) for phrase in self.phrases]
        return [
            FIELDS[field]
            for field, text in _texts(document).items()
            if tokens & set(WORD.findall(text)) or any(_has(text, phrase) for phrase in phrases)
        ]


def _texts(document: Mapping[str, Any]) -> dict[str, str]:
    """What is searched of an upload, by its field."""
    values = {field: document.get(field) or "" for field in FIELDS}
    return {f: folded("\n".join(v) if isinstance(v, list) else v) for f, v in values.items()}


def _somewhere(*said: str) -> Document:
    """The condition that one of these words or phrases is somewhere in what is searched."""
    one_of = "|".join(map(pattern, said))
    # Both ends are ends of words, of any script; what is between may have marks on its letters.
    regex = rf"(*UCP)(?<![\w\p{{Mn}}])(?:{one_of})(?![\w\p{{Mn}}])"
    return {"$or": [{field: {"$regex": regex, "$options": "i"}} for field in FIELDS]}


def _has(text: str, said: str) -> bool:
    """Whether a text has these words, both of them folded."""
    return re.search(rf"(?<!\w){re.escape(said)}(?!\w)", text) is not None


@dataclass(frozen=True, slots=True)
class SearchPage:
    """A page of what was found.

    Attributes:
        order: `score`, with the tags that are just this first, or `newest`.
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
        self._collection = collection.with_options(codec_options=PLAIN)
        self._counting = upload_counts
        self._listing = listing
        self._tag_keys = tag_keys

    def page(
        self,
        words: SearchQuery,
        limit: int,
        page: int = 1,
        cursor: str | None = None,
        wanted: UploadFilter = ANYTHING,
        projection: Document | None = None,
    ) -> SearchPage:
        """Some of the uploads that have these words and are wanted.

        Args:
            limit, page, cursor, projection: as for `Listing.page`.

        Raises:
            InvalidInput: this is no cursor, or none of this search; or the page is too far.
            TooSlow: it took longer than `SEARCH_SECONDS`, and what is found was not among the
                `MOST_LOOKED_AT` newest.
        """
        keys = (*wanted.tag_keys, "\0", words.for_index())
        fingerprint = replace(wanted, tag_keys=keys).fingerprint()
        wanted = including_unkeyed_tags(wanted, self._tag_keys)
        skipped = (page - 1) * limit if cursor is None else 0
        if skipped > MOST_SKIPPED:
            reason = f"Pages reach to the upload of number {MOST_SKIPPED}; go on with `cursor`."
            raise InvalidInput({"page": [reason]})
        shown = {"analyses.result": 0} if projection is None else projection
        began = _milliseconds(now()), SCORE, None, b""
        since, order, total, place = began if cursor is None else _read(cursor, fingerprint)

        def find(bounded: bool) -> tuple[bytes, list[tuple[bytes, Document]], int | None]:
            asked = words, wanted, place, skipped, limit + 1, shown
            scores = self._scores(words) if order == SCORE else None
            if scores is not None:
                found = self._by_score(since, scores, *asked)
            elif cursor is None or order == NEWEST:
                found = self._newest(bounded, *asked)
            else:
                raise InvalidInput({"cursor": [BECAME_COMMON]})
            name = NEWEST if scores is None else SCORE
            if cursor is not None:
                return name, found, total
            if len(found) <= limit and (found or not skipped):
                return name, found, skipped + len(found)
            return name, found, self._count(scores, words, wanted)

        order, found, total = limited(SEARCH_SECONDS, find)
        following = None
        # What others have written may have no place: it goes on behind the last that has.
        last = next((n for n in range(len(found[:limit]), 0, -1) if found[n - 1][0]), 0)
        if len(found) > limit and last:
            found = found[:last]
            head = order + fingerprint + struct.pack(">I", UNKNOWN if total is None else total)
            packed = head + struct.pack(">q", since) + found[last - 1][0]
            following = base64.urlsafe_b64encode(packed).decode().rstrip("=")
        documents = [document for _, document in found[:limit]]
        name = "score" if order == SCORE else "newest"
        return SearchPage(Page(documents, total, following), name)

    def _scores(self, words: SearchQuery) -> dict[bytes, float] | None:
        """How well uploads match that have one of the words; None when those are too many.

        An upload has to have all words of a phrase: it is enough that one of these is rare.
        """
        most = max(NEVER_COMMON, self._counting.beside([], {})[1] // COMMON)
        of_words = self._terms(words.words)
        of_phrases = self._terms(f'"{phrase}"' for phrase in words.phrases)
        rare = {t for t in of_words | of_phrases if not self._more_have(t, most)}
        if not of_phrases & rare if words.phrases else of_words - rare:
            return None
        having = {term: self._having(term) for term in sorted(rare)}
        scores: dict[bytes, float] = {}
        for counted in having.values():
            for key, score in counted.items():
                scores[key] = scores.get(key, 0.0) + score
        for term in of_phrases & rare:
            scores = {key: score for key, score in scores.items() if key in having[term]}
        return scores if len(scores) <= most else None

    def _terms(self, said: Iterable[str]) -> set[str]:
        """The words in this as they are in the index."""
        text = " ".join(said)
        if not text:
            return set()
        find = {"find": self._collection.name, "filter": {"$text": {"$search": text}}}
        explained = self._collection.database.command("explain", find, verbosity="queryPlanner")
        return set(_terms_in(explained["queryPlanner"]))

    def _more_have(self, term: str, most: int) -> bool:
        """Whether more uploads than that have a word."""
        return any(_of(term, self._collection.find({}, return_key=True)).skip(most).limit(1))

    def _having(self, term: str) -> dict[bytes, float]:
        """The ids of the uploads that have a word, and how much it counts in each."""
        # They may be thousands, and are written alike: the word, the number and the id, with names.
        written = struct.Struct(f"<{4 + 6 + 4 + len(term.encode()) + 1 + 7}xd5x12sx")
        batches = _of(term, self._collection.find_raw_batches({}, return_key=True))
        try:
            return {key: score for batch in batches for score, key in written.iter_unpack(batch)}
        except struct.error:  # An id among them is no ObjectId: others have written its record.
            keys = _of(term, self._collection.find({}, return_key=True))
            having = ((key["_id"], key["_ftsx"]) for key in keys)
            return {key.binary: score for key, score in having if isinstance(key, ObjectId)}

    def _by_score(
        self,
        since: int,
        scores: Mapping[bytes, float],
        words: SearchQuery,
        wanted: UploadFilter,
        place: bytes,
        skipped: int,
        count: int,
        shown: Document,
    ) -> list[tuple[bytes, Document]]:
        """What follows a place in the order of the score, each with its own place.

        Args:
            since: when the walk began, in milliseconds. Behind its first page an upload whose words
                have changed since then is left out: whether it was there already, nobody knows.
        """
        exact = self._tagged(words.exact_tag_keys(), 2 * len(scores) + NEVER_COMMON)
        ranked = [(key in exact, score, key) for key, score in scores.items()]
        if place:
            behind = (*struct.unpack(">?d", place[:9]), place[9:])
            ranked = [rank for rank in ranked if rank < behind]
        if words.only_words and wanted == ANYTHING and not place:
            ranked = nlargest(skipped + count, ranked)[skipped:]
            skipped = 0
        else:
            ranked.sort(reverse=True)
        met = self._meeting(
            ranked, words, _unchanged(since, wanted) if place else query(wanted, DEFAULT), shown
        )
        return [
            (struct.pack(">?d", *rank[:2]) + rank[2], document)
            for rank, document in islice(met, skipped, skipped + count)
        ]

    def _tagged(self, keys: Sequence[str], most: int) -> set[bytes]:
        """The ids of the uploads with one of these tags; none where those are too many."""
        found = self._collection.find_raw_batches({"tag_keys": {"$in": keys}}, {"_id": 1})
        batches = found.limit(most).hint("tag_keys_by_upload_time")
        ids = {key for batch in batches for (key,) in ONLY_ID.iter_unpack(batch)}
        return ids if len(ids) < most else set()

    def _meeting(
        self, ranked: Sequence[Rank], words: SearchQuery, among: Document, shown: Document
    ) -> Iterator[tuple[Rank, Document]]:
        """Those of the ranked that meet all the rest."""
        for first in range(0, len(ranked), READ_AT_ONCE):
            some = ranked[first : first + READ_AT_ONCE]
            here = {"_id": {"$in": [ObjectId(key) for _, _, key in some]}, **among}
            found = self._collection.find(here, shown).hint("_id_")
            documents = {document["_id"].binary: document for document in found}
            for rank in some:
                if (document := documents.get(rank[2])) and _are_met(words, document):
                    yield rank, document

    def _count(
        self, scores: Mapping[bytes, float] | None, words: SearchQuery, wanted: UploadFilter
    ) -> int | None:
        """How many match; None where too many have the words."""
        everything = words.only_words and wanted == ANYTHING
        most = upload_counts.COUNTED_TOTAL
        if scores is None:
            having = {"$text": {"$search": words.to_be_there()}}
            count = self._collection.count_documents(having, limit=most + 1)
            if count > most or everything:
                return count if count <= most else None
            here = {"$and": [having, query(wanted, DEFAULT), words.condition()]}
            return self._collection.count_documents(here)
        if everything:
            return len(scores)
        if len(scores) > most:
            return None
        ranked, here = (
            [(False, score, key) for key, score in scores.items()],
            query(wanted, DEFAULT),
        )
        return sum(1 for _ in self._meeting(ranked, words, here, dict.fromkeys(FIELDS, 1)))

    def _newest(
        self,
        bounded: bool,
        words: SearchQuery,
        wanted: UploadFilter,
        place: bytes,
        skipped: int,
        count: int,
        shown: Document,
    ) -> list[tuple[bytes, Document]]:
        """What follows a place among the newest, each with its own place."""
        behind = None
        if place:
            (milliseconds,) = struct.unpack(">q", place[:8])
            moment = EPOCH + timedelta(milliseconds=milliseconds)
            behind = CursorPosition(moment, ObjectId(place[8:]), None)
        if bounded:
            asked = wanted, DEFAULT, behind, skipped, count, shown, words.condition()
            return [(_place_of(d), d) for d in self._listing.look_through(*asked)]
        here = {"$and": [query(wanted, DEFAULT, behind), words.condition()]}
        found = self._collection.find(here, shown).sort(NEWEST_FIRST)
        found = found if wanted.leads else found.hint(NEWEST_FIRST)
        return [(_place_of(d), d) for d in found.skip(skipped).limit(count)]


def _milliseconds(moment: datetime) -> int:
    return (moment - EPOCH) // timedelta(milliseconds=1)


def _unchanged(since: int, wanted: UploadFilter) -> Document:
    """The query for what is wanted and has the same words as at a moment."""
    changed = {"words_at": {"$gte": EPOCH + timedelta(milliseconds=since)}}
    return {"$and": [query(wanted, DEFAULT), {"$nor": [changed]}]}


def _place_of(document: Document) -> bytes:
    """The place of an upload among the newest; none where others have written the record."""
    try:
        since = _milliseconds(document["upload_time"].replace(tzinfo=UTC))
        return struct.pack(">q", since) + document["_id"].binary
    except UNLIKE_AN_UPLOAD:
        return b""


def _are_met(words: SearchQuery, document: Document) -> bool:
    try:
        return words.are_met(document)
    except UNLIKE_AN_UPLOAD:  # What others have written has none.
        return False


def _of(term: str, keys: Cursor[Document]) -> Cursor[Document]:
    """The keys of a word in the index."""
    first = [("_fts", term), ("_ftsx", MinKey()), ("_id", MinKey())]
    last = [("_fts", term), ("_ftsx", MaxKey()), ("_id", MaxKey())]
    return keys.hint(WORDS).min(first).max(last)


def _terms_in(plan: Any) -> Iterator[str]:
    """The words that are looked for, as a plan says them."""
    if isinstance(plan, dict):
        yield from plan.get("parsedTextQuery", {}).get("terms", ())
        plan = list(plan.values())
    if isinstance(plan, list):
        for inner in plan:
            yield from _terms_in(inner)


def _read(cursor: str, fingerprint: bytes) -> tuple[int, bytes, int | None, bytes]:
    """When its walk began, the order that a cursor is of, how many there are, and its place."""
    try:
        padded = cursor + "=" * (-len(cursor) % 4)
        packed = base64.b64decode(padded, altchars=b"-_", validate=True)
        order, (total,), place = packed[:1], struct.unpack(">I", packed[5:9]), packed[17:]
        (since,) = struct.unpack(">q", packed[9:17])
        EPOCH + timedelta(milliseconds=since)
        if order not in (SCORE, NEWEST) or packed[1:5] != fingerprint:
            raise InvalidInput({"cursor": [OTHER_CURSOR]})
        number = 9 if order == SCORE else 8
        (milliseconds,) = struct.unpack(">q", place[:8])
        ObjectId(place[number:])
        if order == NEWEST:
            EPOCH + timedelta(milliseconds=milliseconds)
    except (binascii.Error, ValueError, struct.error, OverflowError, InvalidId, TypeError) as error:
        raise InvalidInput({"cursor": [NO_CURSOR]}) from error
    return since, order, None if total == UNKNOWN else total, place
