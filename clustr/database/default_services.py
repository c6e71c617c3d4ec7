"""Default services: whether the services exist that analyzers expect at a default address.

The finding is permanent: once a service has answered, or its address was set, its analyzer is
configured, and its analyses wait while it is unavailable.
"""

from datetime import timedelta

from pymongo import ReturnDocument
from pymongo.collection import Collection

from clustr.database.analysis_updates import with_analysis
from clustr.database.clock import due_condition, now
from clustr.database.connection import Document, translate_errors
from clustr.domain.models import State

# When a service is found, a web process may not know it for a moment and accept uploads without an
# analysis. So there are two back-fills: the second one is for these uploads.
BACKFILLS = 2
BACKFILL_INTERVAL = timedelta(seconds=60)


class DefaultServices:
    """One document for each analyzer with such a service, made at the first check.

    Args:
        collection: the collection for the findings.
        uploads: the uploads, which show what analyzers of earlier versions have done.
    """

    def __init__(self, collection: Collection[Document], uploads: Collection[Document]):
        self._collection = collection
        self._uploads = uploads

    def is_configured(self, analyzer: str, address_is_set: bool) -> bool:
        """Whether the service was found, or its address is set, now or earlier.

        Args:
            address_is_set: whether this process has an address for it; True is stored.
        """
        with translate_errors():
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
        assert found is not None  # It is inserted where there is none.
        if address_is_set and not found["configured"]:
            self.mark_configured(analyzer)
        return address_is_set or bool(found["configured"])

    def _has_succeeded(self, analyzer: str) -> bool:
        """Whether it has analyzed an upload, which means that its service existed once."""
        succeeded = with_analysis(name=analyzer, state=State.SUCCEEDED)
        return self._uploads.find_one(succeeded, {"_id": 1}) is not None

    def mark_configured(self, analyzer: str) -> bool:
        """Record that the service exists, and make its back-fills due.

        Returns:
            whether that changed anything.
        """
        moment = now()
        changes = {"configured": True, "since": moment}
        due = {"backfills": BACKFILLS, "backfill_at": moment}
        with translate_errors():
            changed = self._collection.update_one(
                {"_id": analyzer, "configured": False}, {"$set": changes | due}
            )
        return changed.modified_count == 1

    def due_backfills(self) -> dict[str, int]:
        """The analyzers whose back-fill is due, with the number of their remaining back-fills."""
        due = {"backfills": {"$gt": 0}, "backfill_at": due_condition()}
        with translate_errors():
            return {d["_id"]: d["backfills"] for d in self._collection.find(due)}

    def record_backfill(self, analyzer: str, backfills: int) -> None:
        """Record that one of the remaining back-fills was ordered, and schedule the next one."""
        later = {"backfills": backfills - 1, "backfill_at": now() + BACKFILL_INTERVAL}
        with translate_errors():
            self._collection.update_one({"_id": analyzer, "backfills": backfills}, {"$set": later})
