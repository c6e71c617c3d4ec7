"""The installation: all processes that work with one database."""

from bson import ObjectId
from pymongo import ReturnDocument
from pymongo.collection import Collection

from clustr.database.connection import Document


def installation_id(collection: Collection[Document]) -> str:
    """The id of this installation, which the first call makes.

    It distinguishes the upload folder and the keys in Redis from those of other installations.

    Args:
        collection: the collection that stores it.
    """
    found = collection.find_one_and_update(
        {"_id": "installation"},
        {"$setOnInsert": {"id": str(ObjectId())}},
        upsert=True,
        return_document=ReturnDocument.AFTER,
    )
    assert found is not None  # It is inserted where there is none.
    its_id: str = found["id"]
    return its_id
