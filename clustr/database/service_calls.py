"""When a call of an analyzer to its service last succeeded, which proves that the service lives."""

from datetime import datetime

from pymongo import WriteConcern
from pymongo.collection import Collection

from clustr.database.connection import Document, translate_errors


class ServiceCalls:
    """One document for each analyzer that has called its service with success."""

    def __init__(self, collection: Collection[Document]):
        self._collection = collection.with_options(write_concern=WriteConcern(w=1))

    def record_success(self, analyzer: str, moment: datetime) -> None:
        with translate_errors():
            self._collection.update_one(
                {"_id": analyzer}, {"$max": {"succeeded_at": moment}}, upsert=True
            )

    def last_success(self, analyzer: str) -> datetime | None:
        """When a call last succeeded, to some seconds; None if none ever did."""
        with translate_errors():
            found = self._collection.find_one({"_id": analyzer})
        return found["succeeded_at"] if found else None
