"""Search: pages of the uploads that match a search.

Where an order is asked for, and where all words of a search are common, it is a listing with one
more condition. Otherwise those that match best come first.
"""

import base64
import binascii
import struct
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from bson import ObjectId
from pymongo.collection import Collection

from clustr.database.clock import now
from clustr.database.connection import NAIVE_UTC, Document, translate_errors
from clustr.database.listing import Listing, Page
from clustr.database.listing_cursors import CURSOR_MISMATCH, EPOCH, INVALID_CURSOR
from clustr.database.own_vocabulary import OwnVocabulary
from clustr.database.tag_keys import TagKeys
from clustr.database.term_search import MAX_RANKED, Hit, TermSearch
from clustr.database.upload_filter import DEFAULT_SORT, Sort, UploadFilter, include_unkeyed_uploads
from clustr.database.vocabulary import Vocabulary
from clustr.domain.errors import InvalidInput

# A cursor of a listing begins with the number of its order, which is less.
RANKED = 0xFF
# Layout of a cursor: `RANKED`, the fingerprint of the filters, when the first page was read, the
# total, and the last hit: its rank, time and id.
CURSOR = struct.Struct(">B4sqIIq12s")
BECAME_COMMON = "More uploads have these words than before; begin anew."


@dataclass(frozen=True, slots=True)
class SearchPage:
    """A page of search results.

    Attributes:
        order: `score` (the best matches come first) or `newest`; None for one that was asked for.
    """

    page: Page
    order: str | None


@dataclass(frozen=True, slots=True)
class RankedPosition:
    """Where the next page of a search begins.

    Attributes:
        since: when the first page was read.
        total: how many uploads were found then.
        hit: the last one on the page before.
    """

    since: datetime
    total: int
    hit: Hit


class Search:
    """Searches the collection of uploads.

    Args:
        owner: whose uploads the collection has; None: it has all.
    """

    def __init__(
        self,
        collection: Collection[Document],
        vocabulary: Vocabulary | OwnVocabulary,
        listing: Listing,
        tag_keys: TagKeys,
        owner: str | None = None,
    ):
        self._owner = owner
        self._collection = collection.with_options(codec_options=NAIVE_UTC)
        self._term_search = TermSearch(collection, vocabulary)
        self._listing = listing
        self._tag_keys = tag_keys

    def page(
        self,
        upload_filter: UploadFilter,
        limit: int,
        page: int = 1,
        cursor: str | None = None,
        sort: Sort | None = None,
        projection: Document | None = None,
    ) -> SearchPage:
        """One page of the uploads that match a filter with a search.

        Args:
            limit, page, cursor, projection: as for `Listing.page`.
            sort: None for the best matches first, or the newest when all words are common.

        Raises:
            InvalidInput: the cursor is invalid or of another search, or the page is too far.
            TooSlow: too many uploads would have to be examined.
        """
        assert upload_filter.search
        position = None
        if cursor is not None:
            position = _read_cursor(cursor, upload_filter.fingerprint(self._owner))
        if position and sort:
            raise InvalidInput({"cursor": [CURSOR_MISMATCH]})
        with translate_errors():
            most = MAX_RANKED if position is None else 2 * MAX_RANKED
            plan = self._term_search.plan(upload_filter.search, sort or DEFAULT_SORT, most)
            planned = replace(upload_filter, search_plan=plan)
            if position and not plan.is_rare:
                raise InvalidInput({"cursor": [BECAME_COMMON]})
            if position or (plan.is_rare and sort is None and cursor is None):
                found = self._ranked_page(planned, limit, page, position, projection)
                return SearchPage(found, "score")
        listed = self._listing.page(limit, page, cursor, planned, sort or DEFAULT_SORT, projection)
        return SearchPage(listed, "newest" if sort is None else None)

    def planned(self, upload_filter: UploadFilter, sort: Sort) -> UploadFilter:
        """A filter with the way in which what it searches for is found, if it does."""
        if not upload_filter.search:
            return upload_filter
        with translate_errors():
            plan = self._term_search.plan(upload_filter.search, sort)
        return replace(upload_filter, search_plan=plan)

    def _ranked_page(
        self,
        upload_filter: UploadFilter,
        limit: int,
        page: int,
        position: RankedPosition | None,
        projection: Document | None,
    ) -> Page:
        upload_filter = include_unkeyed_uploads(upload_filter, self._tag_keys)
        moment = position.since if position else now()
        hits = self._term_search.ranked(upload_filter, position.since if position else None)
        total = position.total if position else len(hits)
        if position:
            hits = [hit for hit in hits if hit.order() > position.hit.order()]
        else:
            hits = hits[(page - 1) * limit :]
        shown = hits[:limit]
        following = None
        if len(hits) > limit:
            following = _write_cursor(
                upload_filter.fingerprint(self._owner), RankedPosition(moment, total, shown[-1])
            )
        return Page(self._documents(shown, projection), total, following)

    def _documents(self, hits: Sequence[Hit], projection: Document | None) -> list[Document]:
        """The uploads at these places that are still there."""
        projection = {"analyses.result": 0} if projection is None else projection
        found = self._collection.find({"_id": {"$in": [hit.key for hit in hits]}}, projection)
        documents = {document["_id"]: document for document in found}
        return [documents[hit.key] for hit in hits if hit.key in documents]


def _write_cursor(fingerprint: bytes, position: RankedPosition) -> str:
    since = (position.since - EPOCH) // timedelta(milliseconds=1)
    hit = position.hit
    packed = CURSOR.pack(
        *(RANKED, fingerprint, since, position.total),
        *(hit.rank, hit.upload_time, hit.key.binary),
    )
    return base64.urlsafe_b64encode(packed).decode().rstrip("=")


def _read_cursor(cursor: str, fingerprint: bytes) -> RankedPosition | None:
    """The position in a cursor; None for one of a listing.

    Raises:
        InvalidInput: the cursor is invalid, or of another search.
    """
    try:
        padded = cursor + "=" * (-len(cursor) % 4)
        packed = base64.b64decode(padded, altchars=b"-_", validate=True)
        if packed[:1] != bytes([RANKED]):
            return None
        _, of_filters, since, total, rank, upload_time, key = CURSOR.unpack(packed)
        if of_filters != fingerprint:
            raise InvalidInput({"cursor": [CURSOR_MISMATCH]})
        began = EPOCH + timedelta(milliseconds=since)
        return RankedPosition(began, total, Hit(rank, upload_time, ObjectId(key)))
    except (binascii.Error, ValueError, struct.error, OverflowError) as error:
        raise InvalidInput({"cursor": [INVALID_CURSOR]}) from error
