"""Leases: work that only one of many processes may do at a time."""

from datetime import timedelta

from pymongo.collection import Collection
from pymongo.errors import DuplicateKeyError

from clustr.database.clock import due_condition, now
from clustr.database.connection import Document, translate_errors


class Leases:
    """One document for each lease, by its name."""

    def __init__(self, collection: Collection[Document]):
        self._collection = collection

    def acquire(self, name: str, owner: str, seconds: float) -> bool:
        """Acquire or renew a lease; False when another owner holds it.

        Nothing is written while more than a third of its time is left.

        Args:
            seconds: the duration of the lease from now.
        """
        moment, lasts = now(), timedelta(seconds=seconds)
        until = moment + lasts
        free = {"_id": name, "$or": [{"owner": owner}, {"until": due_condition()}]}
        # A lease with a later end was acquired while the clock was ahead.
        fresh = {"_id": name, "owner": owner, "until": {"$gt": moment + lasts / 3, "$lte": until}}
        with translate_errors():
            if self._collection.find_one(fresh, {"_id": 1}):
                return True
            try:
                self._collection.update_one(
                    free, {"$set": {"owner": owner, "until": until}}, upsert=True
                )
            except DuplicateKeyError:  # Another owner holds it.
                return False
        return True

    def release(self, name: str, owner: str, after_seconds: float = 0.0) -> None:
        """Let others acquire a lease of this owner: at once, or after so many seconds."""
        mine = {"_id": name, "owner": owner}
        with translate_errors():
            if after_seconds:
                until = now() + timedelta(seconds=after_seconds)
                self._collection.update_one(mine, {"$set": {"until": until}})
            else:
                self._collection.delete_one(mine)
