"""Breakers: a service that is away is asked seldom, and not by everybody at once."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from random import uniform

from pymongo import ReturnDocument
from pymongo.collection import Collection

from clustr.database.clock import due_condition, is_due, now
from clustr.database.connection import Document, answering

# An analyzer that had to be put off this often without a success between is left alone but for one
# probe after another; the wait between two grows up to the longest.
FAILURES_TO_OPEN = 3
LONGEST_WAIT_SECONDS = 9.0
HIGHEST_POWER = 10  # of two; a float cannot hold that of a thousand failures


@dataclass(frozen=True, slots=True)
class CircuitBreaker:
    """How an analyzer's service has answered lately."""

    failures: int
    reason: str
    probe_at: datetime

    @property
    def open(self) -> bool:
        return self.failures >= FAILURES_TO_OPEN

    @property
    def due(self) -> bool:
        """Whether the service is to be asked again."""
        return is_due(self.probe_at)


class CircuitBreakers:
    """One document for each analyzer that is being put off; none when all is well."""

    def __init__(self, collection: Collection[Document]):
        self._collection = collection

    def get(self, analyzer: str) -> CircuitBreaker | None:
        with answering():
            return _breaker(self._collection.find_one({"_id": analyzer}))

    def record_failure(self, analyzer: str, reason: str) -> CircuitBreaker:
        """Count that the service was away and say when to ask again, a little at random."""
        failures = {"$add": [{"$ifNull": ["$failures", 0]}, 1]}
        with answering():
            document = self._collection.find_one_and_update(
                {"_id": analyzer},
                [{"$set": {"failures": failures, "reason": {"$literal": reason}}}],
                upsert=True,
                return_document=ReturnDocument.AFTER,
            )
            seconds = 2.0 ** min(document["failures"], HIGHEST_POWER)
            wait = min(LONGEST_WAIT_SECONDS, seconds) * uniform(0.5, 1)  # noqa: S311
            document["probe_at"] = now() + timedelta(seconds=wait)
            self._collection.update_one(
                {"_id": analyzer}, {"$set": {"probe_at": document["probe_at"]}}
            )
        return CircuitBreaker(document["failures"], document["reason"], document["probe_at"])

    def take_probe(self, analyzer: str) -> bool:
        """Whether the caller is the one to ask the service now; nobody else is for a while."""
        until = now() + timedelta(seconds=LONGEST_WAIT_SECONDS)
        with answering():
            taken = self._collection.update_one(
                {"_id": analyzer, "probe_at": due_condition()}, {"$set": {"probe_at": until}}
            )
        return taken.modified_count == 1

    def close(self, analyzer: str) -> None:
        """The service has answered."""
        with answering():
            self._collection.delete_one({"_id": analyzer})


def _breaker(document: Document | None) -> CircuitBreaker | None:
    if document is None or "probe_at" not in document:
        return None
    return CircuitBreaker(document["failures"], document["reason"], document["probe_at"])
