"""Leases: which of many processes does what only one may do at a time."""

from datetime import timedelta

from pymongo.collection import Collection
from pymongo.errors import DuplicateKeyError

from clustr.database.clock import due_condition, now
from clustr.database.connection import Document, answering


class Leases:
    """One document for each thing that is leased."""

    def __init__(self, collection: Collection[Document]):
        self._collection = collection

    def take(self, name: str, owner: str, seconds: float) -> bool:
        """Take or prolong a lease; False when another owner holds it.

        Nothing is written while more than a third of its time is left.

        Args:
            seconds: how long it lasts, if it is taken or prolonged now.
        """
        moment, lasts = now(), timedelta(seconds=seconds)
        until = moment + lasts
        free = {"_id": name, "$or": [{"owner": owner}, {"until": due_condition()}]}
        # One that lasts longer was taken while the clock was ahead.
        fresh = {"_id": name, "owner": owner, "until": {"$gt": moment + lasts / 3, "$lte": until}}
        with answering():
            if self._collection.find_one(fresh, {"_id": 1}):
                return True
            try:
                self._collection.update_one(
                    free, {"$set": {"owner": owner, "until": until}}, upsert=True
                )
            except DuplicateKeyError:  # It exists, but neither is it ours nor has it ended.
                return False
        return True

    def give_back(self, name: str, owner: str) -> None:
        with answering():
            self._collection.delete_one({"_id": name, "owner": owner})
