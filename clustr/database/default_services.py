"""Default services: whether the services are there that analyzers expect at a default address.

What was found is kept for ever: a service that answered once, or whose address was set once, is
waited for from then on.
"""

from datetime import timedelta

from pymongo import ReturnDocument
from pymongo.collection import Collection

from clustr.database.analysis_updates import with_analysis
from clustr.database.clock import due_condition, now
from clustr.database.connection import Document, answering
from clustr.domain.models import State

# When a service is found, a web process may not know of it for a moment, and still accept uploads
# without an analysis. So the back-fill is done twice: the second one is for these uploads.
BACKFILLS = 2
BETWEEN_BACKFILLS = timedelta(seconds=60)


class DefaultServices:
    """One document for each analyzer with such a service, from when it was first looked at.

    Args:
        collection: where the findings are kept.
        uploads: in which the analyses of earlier versions of Clustr are.
    """

    def __init__(self, collection: Collection[Document], uploads: Collection[Document]):
        self._collection = collection
        self._uploads = uploads

    def is_configured(self, analyzer: str, address_is_set: bool) -> bool:
        """Whether the service was found, or its address is set, now or earlier.

        Args:
            address_is_set: whether this process has an address for it; that is written down, too.
        """
        with answering():
            found = self._collection.find_one({"_id": analyzer})
            if found is None:
                configured = address_is_set or self._has_succeeded(analyzer)
                first: Document = {"configured": configured, "since": now(), "backfills": 0}
                found = self._collection.find_one_and_update(
                    {"_id": analyzer},
                    {"$setOnInsert": first},
                    upsert=True,
                    return_document=ReturnDocument.AFTER,
                )
        if address_is_set and not found["configured"]:
            self.configure(analyzer)
        return address_is_set or found["configured"]

    def _has_succeeded(self, analyzer: str) -> bool:
        """Whether it has analyzed an upload, by which its service was there once."""
        succeeded = with_analysis(name=analyzer, state=State.SUCCEEDED)
        return self._uploads.find_one(succeeded, {"_id": 1}) is not None

    def configure(self, analyzer: str) -> bool:
        """Write down that the service is there, and that back-fills are due by that.

        Returns:
            whether that was news.
        """
        moment = now()
        there = {"configured": True, "since": moment}
        due = {"backfills": BACKFILLS, "backfill_at": moment}
        with answering():
            changed = self._collection.update_one(
                {"_id": analyzer, "configured": False}, {"$set": there | due}
            )
        return changed.modified_count == 1

    def due_backfills(self) -> dict[str, int]:
        """The analyzers whose back-fill is due, with how many of them each still has to have."""
        due = {"backfills": {"$gt": 0}, "backfill_at": due_condition()}
        with answering():
            return {d["_id"]: d["backfills"] for d in self._collection.find(due)}

    def backfill_ordered(self, analyzer: str, backfills: int) -> None:
        """Write down that one of so many back-fills was ordered; the next one is due later."""
        later = {"backfills": backfills - 1, "backfill_at": now() + BETWEEN_BACKFILLS}
        with answering():
            self._collection.update_one({"_id": analyzer, "backfills": backfills}, {"$set": later})
