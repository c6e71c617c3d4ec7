"""Circuit breakers: calls to an unavailable service are rare, and not made by all at once."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from random import uniform

from pymongo import ReturnDocument
from pymongo.collection import Collection

from clustr.database.clock import due_condition, is_due, now
from clustr.database.connection import Document, translate_errors

# After this many failures in a row the breaker opens: then only one probe at a time is made, and
# the wait between two probes grows up to the longest.
FAILURES_TO_OPEN = 3
LONGEST_WAIT_SECONDS = 9.0
LONGEST_WAIT_AFTER_TIME_OUT_SECONDS = 60.0
HIGHEST_POWER = 10  # of two; a float cannot hold that of a thousand failures


@dataclass(frozen=True, slots=True)
class CircuitBreaker:
    """The recent failures of an analyzer's service, and when to probe it next."""

    failures: int
    reason: str
    probe_at: datetime

    @property
    def open(self) -> bool:
        return self.failures >= FAILURES_TO_OPEN

    @property
    def due(self) -> bool:
        """Whether the next probe is due."""
        return is_due(self.probe_at)


class CircuitBreakers:
    """One document for each analyzer whose service has failed lately; none when all is well."""

    def __init__(self, collection: Collection[Document]):
        self._collection = collection

    def get(self, analyzer: str) -> CircuitBreaker | None:
        with translate_errors():
            return _from_document(self._collection.find_one({"_id": analyzer}))

    def record_failure(
        self, analyzer: str, reason: str, seconds: float = 0.0, opens: bool = False
    ) -> CircuitBreaker:
        """Count a failure, and schedule the next probe after an exponential, randomized wait.

        Args:
            seconds: how long the call took that failed, or for how long the service asks to wait.
                The next one is made no sooner, so that a service in which calls time out has as
                much time without one.
            opens: whether the breaker opens at this failure, whatever was before.
        """
        failures = {
            "$max": [
                {"$add": [{"$ifNull": ["$failures", 0]}, 1]},
                FAILURES_TO_OPEN if opens else 0,
            ]
        }
        with translate_errors():
            document = self._collection.find_one_and_update(
                {"_id": analyzer},
                [{"$set": {"failures": failures, "reason": {"$literal": reason}}}],
                upsert=True,
                return_document=ReturnDocument.AFTER,
            )
            assert document is not None  # It is inserted where there is none.
            wait = min(LONGEST_WAIT_SECONDS, 2.0 ** min(document["failures"], HIGHEST_POWER))
            wait *= uniform(0.5, 1)  # noqa: S311
            wait = max(wait, min(seconds, LONGEST_WAIT_AFTER_TIME_OUT_SECONDS))
            document["probe_at"] = now() + timedelta(seconds=wait)
            self._collection.update_one(
                {"_id": analyzer}, {"$set": {"probe_at": document["probe_at"]}}
            )
        return CircuitBreaker(document["failures"], document["reason"], document["probe_at"])

    def take_probe(self, analyzer: str) -> bool:
        """Take the next probe; True for the one caller that is to make it now."""
        until = now() + timedelta(seconds=LONGEST_WAIT_SECONDS)
        with translate_errors():
            taken = self._collection.update_one(
                {"_id": analyzer, "probe_at": due_condition()}, {"$set": {"probe_at": until}}
            )
        return taken.modified_count == 1

    def close(self, analyzer: str) -> None:
        """Close the breaker: the service has answered."""
        with translate_errors():
            self._collection.delete_one({"_id": analyzer})


def _from_document(document: Document | None) -> CircuitBreaker | None:
    if document is None or "probe_at" not in document:
        return None
    return CircuitBreaker(document["failures"], document["reason"], document["probe_at"])
