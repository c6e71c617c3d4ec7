"""Search: uploads by words in their tags, captions and original names.

Which uploads have a rare word is told by MongoDB's text index, and these are put in order by how
well they match. Of a word that very many have, that would take long and mean little: there the
newest with it are looked for, one upload after the other, and soon found.
"""

import base64
import binascii
import re
import struct
import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, timedelta
from typing import Any

from bson import ObjectId
from bson.errors import InvalidId
from pymongo.collection import Collection

from clustr.catalog.connection import Document
from clustr.catalog.listing import (
    ANYTHING,
    DEFAULT,
    EPOCH,
    MOST_SKIPPED,
    NO_CURSOR,
    OTHER_CURSOR,
    PLAIN,
    SEARCH_SECONDS,
    Page,
    Place,
    Wanted,
    query,
)
from clustr.catalog.uploads import NEWEST_FIRST, searching
from clustr.errors import InvalidInput

INDEXES = {
    "words": {
        "keys": [("tags", "text"), ("caption", "text"), ("original_name", "text")],
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
SCORE, NEWEST = b"s", b"n"
PIECE = re.compile(r'(-?)"([^"]*)"|(\S+)')
WORD = re.compile(r"\w+")


@dataclass(frozen=True, slots=True)
class Words:
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
    def read(cls, text: str) -> "Words":
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

    def exact_tags(self) -> list[str]:
        """The tags that are meant when tags are."""
        said = [*self.words, *self.phrases, " ".join(self.words)]
        return sorted({one for each in said for one in (each, each.lower())})

    def condition(self) -> Document:
        """The same as a condition on an upload, for which no index is needed."""
        found = [_somewhere(phrase) for phrase in self.phrases] or [_somewhere(*self.words)]
        left_out = [_somewhere(said) for said in self.without]
        return {"$and": found} | ({"$nor": left_out} if left_out else {})

    def matched_in(self, document: Mapping[str, Any]) -> list[str]:
        """In what of an upload it was found: some of `tag`, `caption` and `name`."""
        tokens = {token for word in self.words for token in WORD.findall(folded(word))}
        phrases = [folded(phrase) for phrase in self.phrases]
        matched = []
        for field, name in FIELDS.items():
            value = document.get(field) or ""
            text = folded("\n".join(value) if isinstance(value, list) else value)
            if tokens & set(WORD.findall(text)) or any(phrase in text for phrase in phrases):
                matched.append(name)
        return matched


def folded(text: str) -> str:
    """The text as MongoDB compares it: without the case of letters, and without marks on them."""
    plain = unicodedata.normalize("NFKD", text.casefold())
    return "".join(each for each in plain if not unicodedata.combining(each))


def _somewhere(*said: str) -> Document:
    """The condition that one of these words or phrases is somewhere in what is searched."""
    one_of = "|".join(re.escape(each) for each in said)
    # Both ends are ends of words, of any script.
    pattern = {"$regex": rf"(*UCP)(?<!\w)(?:{one_of})(?!\w)", "$options": "i"}
    return {"$or": [{field: pattern} for field in FIELDS]}


@dataclass(frozen=True, slots=True)
class Found:
    """A page of what was found.

    Attributes:
        order: `score`, with the tags that are just this first, or `newest`.
    """

    page: Page
    order: str


class Search:
    """Searches the collection of uploads."""

    def __init__(self, collection: Collection[Document]):
        self._collection = collection.with_options(codec_options=PLAIN)

    def page(
        self,
        words: Words,
        limit: int,
        page: int = 1,
        cursor: str | None = None,
        wanted: Wanted = ANYTHING,
        projection: Document | None = None,
    ) -> Found:
        """Some of the uploads that have these words and are wanted.

        Args:
            limit, page, cursor, projection: as for `Listing.page`.

        Raises:
            InvalidInput: this is no cursor, or none of this search; or the page is too far.
            TooSlow: it took longer than `SEARCH_SECONDS`.
        """
        fingerprint = replace(wanted, tags=(*wanted.tags, "\0", words.for_index())).fingerprint()
        skipped = (page - 1) * limit if cursor is None else 0
        if skipped > MOST_SKIPPED:
            reason = f"Pages reach to the upload of number {MOST_SKIPPED}; go on with `cursor`."
            raise InvalidInput({"page": [reason]})
        with searching(self._collection, SEARCH_SECONDS):
            if cursor is not None:
                order, total, place = _read(cursor, fingerprint)
            else:
                total, place = self._count(words), b""
                order = SCORE if total is not None else NEWEST
                total = total if wanted == ANYTHING and not words.without else None
            find = self._by_score if order == SCORE else self._newest
            found = find(words, wanted, place, skipped, limit + 1, projection)
        if cursor is None and len(found) <= limit and (found or not skipped):
            total = skipped + len(found)
        following = None
        if len(found) > limit:
            head = order + fingerprint + struct.pack(">I", UNKNOWN if total is None else total)
            packed = head + found[limit - 1][0]
            following = base64.urlsafe_b64encode(packed).decode().rstrip("=")
        documents = [document for _, document in found[:limit]]
        name = "score" if order == SCORE else "newest"
        return Found(Page(documents, total, following), name)

    def _count(self, words: Words) -> int | None:
        """How many have one of these words; None when that is more than are put in order."""
        most = max(NEVER_COMMON, self._collection.estimated_document_count() // COMMON)
        said = " ".join([*words.words, *words.phrases])
        stages: list[Document] = [
            {"$match": {"$text": {"$search": said}}},
            {"$limit": most + 1},
            {"$count": "count"},
        ]
        counted = next(iter(self._collection.aggregate(stages)), {"count": 0})["count"]
        return counted if counted <= most else None

    def _by_score(
        self,
        words: Words,
        wanted: Wanted,
        place: bytes,
        skipped: int,
        count: int,
        projection: Document | None,
    ) -> list[tuple[bytes, Document]]:
        """What follows a place in the order of the score, each with its own place."""
        text = {"$text": {"$search": words.for_index()}}
        among = query(wanted, DEFAULT)
        meant = {"$setIntersection": [{"$ifNull": ["$tags", []]}, words.exact_tags()]}
        ranked = {"exact": {"$gt": [meant, []]}, "score": {"$meta": "textScore"}}
        stages: list[Document] = [
            {"$match": {"$and": [text, among]} if among else text},
            {"$project": ranked},
            *_behind(place),
            {"$sort": {"exact": -1, "score": -1, "_id": -1}},
            {"$skip": skipped},
            {"$limit": count},
        ]
        hits = list(self._collection.aggregate([each for each in stages if each != {"$skip": 0}]))
        ids = [hit["_id"] for hit in hits]
        shown = {"analyses.result": 0} if projection is None else projection
        documents = {d["_id"]: d for d in self._collection.find({"_id": {"$in": ids}}, shown)}
        return [
            (struct.pack(">?d", hit["exact"], hit["score"]) + hit["_id"].binary, document)
            for hit in hits
            if (document := documents.get(hit["_id"]))
        ]

    def _newest(
        self,
        words: Words,
        wanted: Wanted,
        place: bytes,
        skipped: int,
        count: int,
        projection: Document | None,
    ) -> list[tuple[bytes, Document]]:
        """What follows a place among the newest, each with its own place."""
        behind = None
        if place:
            (milliseconds,) = struct.unpack(">q", place[:8])
            moment = EPOCH + timedelta(milliseconds=milliseconds)
            behind = Place(moment, ObjectId(place[8:]), None)
        here = {"$and": [query(wanted, DEFAULT, behind), words.condition()]}
        shown = {"analyses.result": 0} if projection is None else projection
        found = self._collection.find(here, shown).sort(NEWEST_FIRST)
        found = found if wanted.leads else found.hint(NEWEST_FIRST)
        return [(_moment(d) + d["_id"].binary, d) for d in found.skip(skipped).limit(count)]


def _moment(document: Document) -> bytes:
    since = document["upload_time"].replace(tzinfo=UTC) - EPOCH
    return struct.pack(">q", since // timedelta(milliseconds=1))


def _behind(place: bytes) -> Iterator[Document]:
    """The stage that leaves only what follows a place in the order of the score."""
    if place:
        exact, score = struct.unpack(">?d", place[:9])
        level = {"exact": exact, "score": score, "_id": {"$lt": ObjectId(place[9:])}}
        lower = {"exact": exact, "score": {"$lt": score}}
        others = [{"exact": False}] if exact else []
        yield {"$match": {"$or": [level, lower, *others]}}


def _read(cursor: str, fingerprint: bytes) -> tuple[bytes, int | None, bytes]:
    """The order that a cursor is of, how many there are in all, and its place."""
    try:
        padded = cursor + "=" * (-len(cursor) % 4)
        packed = base64.b64decode(padded, altchars=b"-_", validate=True)
        order, (total,), place = packed[:1], struct.unpack(">I", packed[5:9]), packed[9:]
        if order not in (SCORE, NEWEST) or packed[1:5] != fingerprint:
            raise InvalidInput({"cursor": [OTHER_CURSOR]})
        number = 9 if order == SCORE else 8
        (milliseconds,) = struct.unpack(">q", place[:8])
        ObjectId(place[number:])
        if order == NEWEST:
            EPOCH + timedelta(milliseconds=milliseconds)
    except (binascii.Error, ValueError, struct.error, OverflowError, InvalidId, TypeError) as error:
        raise InvalidInput({"cursor": [NO_CURSOR]}) from error
    return order, None if total == UNKNOWN else total, place
