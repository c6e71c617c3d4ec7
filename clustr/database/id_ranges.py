"""Ranges of ids, for passes in the background over all documents of a collection."""

from collections.abc import Iterator

from bson import ObjectId
from pymongo.collection import Collection

from clustr.database.connection import Document, translate_errors

LOWEST_ID = ObjectId(bytes(12))
BATCH = 2000


def id_ranges(collection: Collection[Document]) -> Iterator[Document]:
    """Queries that together match all current documents, `BATCH` with each, the oldest first."""
    after = LOWEST_ID
    while True:
        query: Document = {"_id": {"$gt": after}}
        with translate_errors():
            ends = collection.find(query, {"_id": 1}).sort("_id", 1).skip(BATCH - 1)
            end = next(iter(ends.limit(1)), None)
        if end is None:
            yield query
            return
        yield {"_id": {"$gt": after, "$lte": end["_id"]}}
        after = end["_id"]
