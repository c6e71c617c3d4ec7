"""The installation: all processes that work with one database."""

from bson import ObjectId
from pymongo import ReturnDocument
from pymongo.collection import Collection

from clustr.database.connection import Document


def installation_id(collection: Collection[Document]) -> str:
    """The id of this installation, which is made the first time that it is asked for.

    By it an upload folder and a Redis are told from those of another installation.

    Args:
        collection: where it is kept.
    """
    found = collection.find_one_and_update(
        {"_id": "installation"},
        {"$setOnInsert": {"id": str(ObjectId())}},
        upsert=True,
        return_document=ReturnDocument.AFTER,
    )
    return found["id"]
