"""Reading uploads for plugins: all that meet a filter, one by one, and how many there are."""

from collections.abc import Iterable, Iterator

from bson import ObjectId
from pymongo.collection import Collection

from clustr.database.connection import Document, translate_errors
from clustr.database.documents import from_documents
from clustr.database.listing_queries import filter_query
from clustr.database.search_limits import SEARCH_SECONDS, limit_search_time
from clustr.database.tag_keys import TagKeys
from clustr.database.upload_filter import DEFAULT_SORT, UploadFilter, include_unkeyed_uploads
from clustr.domain.models import Upload

BATCH = 200
LOWEST_ID = ObjectId(bytes(12))


class Reading:
    """Reads the collection of uploads; records that Clustr has not written are left out."""

    def __init__(self, collection: Collection[Document], tag_keys: TagKeys):
        self._collection = collection
        self._tag_keys = tag_keys

    def walk(self, upload_filter: UploadFilter) -> Iterator[Upload]:
        """All uploads that meet a filter, in the order of their ids, with their results.

        One that is there all the while comes exactly once, whatever comes or goes meanwhile.

        Raises:
            TooSlow: finding the next `BATCH` takes longer than `SEARCH_SECONDS`.
        """
        last = LOWEST_ID
        while True:
            query = {"$and": [{"_id": {"$gt": last}}, self._query(upload_filter)]}
            with limit_search_time(self._collection, SEARCH_SECONDS):
                found = list(self._collection.find(query).sort("_id", 1).limit(BATCH))
            yield from from_documents(found)
            if len(found) < BATCH:
                return
            last = found[-1]["_id"]

    def count(self, upload_filter: UploadFilter) -> int:
        """How many uploads meet a filter.

        Raises:
            TooSlow: it takes longer than `SEARCH_SECONDS`.
        """
        with limit_search_time(self._collection, SEARCH_SECONDS):
            return self._collection.count_documents(self._query(upload_filter))

    def of_ids(self, upload_ids: Iterable[str]) -> dict[str, Upload]:
        """These uploads, as far as they are there, by their ids."""
        query = {"_id": {"$in": [ObjectId(upload_id) for upload_id in upload_ids]}}
        with translate_errors():
            return {upload.id: upload for upload in from_documents(self._collection.find(query))}

    def _query(self, upload_filter: UploadFilter) -> Document:
        keyed = include_unkeyed_uploads(upload_filter, self._tag_keys)
        return filter_query(keyed, DEFAULT_SORT)
