"""The most used of the documents of a range, such as words that begin alike, at a bounded cost."""

from pymongo.collection import Collection

from clustr.database.connection import Document

# The index that has all documents in this order.
INDEXES = {"most_used": {"keys": [("count", -1), ("_id", 1)]}}
# So many are read and sorted in a few milliseconds. Where more begin alike, they are not rare among
# the most used of all, so not many of those are read before enough are found.
MAX_SORTED = 1000


def most_used(
    collection: Collection[Document], within: Document, index: str, limit: int
) -> list[Document]:
    """The documents within a range that have the highest `count`, without those that have none.

    Args:
        within: the condition that is the range.
        index: the name of the index that has the range.
    """
    number = collection.count_documents(within, hint=index, limit=MAX_SORTED + 1)
    found = collection.find({**within, "count": {"$gt": 0}})
    found = found.sort([("count", -1), ("_id", 1)]).limit(limit)
    return list(found.hint(index if number <= MAX_SORTED else "most_used"))
