"""The installation: all processes that work with one database."""

from secrets import token_hex

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
    return _made_once(collection, "installation", "id", str(ObjectId()))


def url_signing_key(collection: Collection[Document]) -> str:
    """The key of 256 bits with which all web processes sign addresses; the first call makes it.

    Args:
        collection: the collection that stores it.
    """
    return _made_once(collection, "url_signing", "key", token_hex(32))


def _made_once(collection: Collection[Document], record: str, field: str, new: str) -> str:
    """The value that a field of a record has; it is the new one where there was no record."""
    found = collection.find_one_and_update(
        {"_id": record},
        {"$setOnInsert": {field: new}},
        upsert=True,
        return_document=ReturnDocument.AFTER,
    )
    assert found is not None  # It is inserted where there is none.
    value: str = found[field]
    return value
