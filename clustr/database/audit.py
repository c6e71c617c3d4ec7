"""The audit log: one document for each act, which MongoDB removes when its time is over."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from bson import ObjectId
from pymongo.collection import Collection

from clustr.database.clock import now
from clustr.database.connection import Document, translate_errors
from clustr.domain.audit import Actor, AuditAction, AuditEntry, AuditOutcome

INDEXES: dict[str, Any] = {
    "key": {"keys": [("key", 1), ("_id", -1)]},
    "upload": {"keys": [("upload_id", 1), ("_id", -1)]},
    "expires": {"keys": [("expires_at", 1)], "expireAfterSeconds": 0},
}


@dataclass(frozen=True, slots=True)
class AuditFilter:
    """Which entries to list; None: any."""

    key: str | None = None
    action: AuditAction | None = None
    upload_id: str | None = None


class Audit:
    """The collection of the audit log."""

    def __init__(self, collection: Collection[Document]):
        self._collection = collection

    def add(self, action: AuditAction, actor: Actor, upload_id: str | None, kept: timedelta) -> str:
        """Add an entry for what is about to be done, and return its id."""
        moment = now()
        document = {
            "_id": ObjectId(),
            "at": moment,
            "expires_at": moment + kept,
            "action": action,
            "outcome": AuditOutcome.BEGUN,
            "key": actor.key,
            "address": actor.address,
            "request_id": actor.request_id,
            "upload_id": upload_id,
            "details": {},
        }
        with translate_errors():
            self._collection.insert_one(document)
        return str(document["_id"])

    def finish(self, entry_id: str, outcome: AuditOutcome, details: Mapping[str, str]) -> None:
        """Add to an entry what came of it."""
        changes = {"outcome": outcome, "details": dict(details)}
        with translate_errors():
            self._collection.update_one({"_id": ObjectId(entry_id)}, {"$set": changes})

    def newest(
        self, filter: AuditFilter, limit: int, before: str | None
    ) -> tuple[list[AuditEntry], str | None]:
        """The newest entries, and the id before which the next of them are; None: there are none.

        Args:
            before: an id of an entry; only older ones are returned.
        """
        wanted = {"key": filter.key, "action": filter.action, "upload_id": filter.upload_id}
        query: dict[str, Any] = {name: value for name, value in wanted.items() if value is not None}
        if before is not None:
            query["_id"] = {"$lt": ObjectId(before)}
        with translate_errors():
            found = list(self._collection.find(query).sort("_id", -1).limit(limit + 1))
        entries = [_read(document) for document in found[:limit]]
        return entries, entries[-1].id if len(found) > limit else None


def _read(document: Document) -> AuditEntry:
    return AuditEntry(
        str(document["_id"]),
        document["at"],
        document["action"],
        document["outcome"],
        Actor(document["key"], document["address"], document["request_id"]),
        document["upload_id"],
        document["details"],
    )
