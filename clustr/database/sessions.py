"""Sessions of pages: what is kept of each, which is neither its token nor its key."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pymongo.collection import Collection

from clustr.database.clock import now
from clustr.database.connection import Document, translate_errors

INDEXES: dict[str, Any] = {
    # A TTL index: MongoDB removes those that have ended.
    "ended": {"keys": [("expires_at", 1)], "expireAfterSeconds": 0},
}


@dataclass(frozen=True, slots=True)
class Session:
    """A session of a page.

    Attributes:
        key_prefix: the beginning of the text of its key, by which that is found.
        expires_at: when it ends, unless it is used until then.
        ends_at: when it ends in any case.
    """

    key_prefix: str
    expires_at: datetime
    ends_at: datetime


class Sessions:
    """The collection of sessions; each is found by the hash of its token."""

    def __init__(self, collection: Collection[Document]):
        self._collection = collection

    def add(self, token_hash: str, session: Session) -> None:
        document = {
            "_id": token_hash,
            "key_prefix": session.key_prefix,
            "created_at": now(),
            "expires_at": session.expires_at,
            "ends_at": session.ends_at,
        }
        with translate_errors():
            self._collection.insert_one(document)

    def find(self, token_hash: str) -> Session | None:
        """Find a session; MongoDB removes those that have ended some time after their end."""
        with translate_errors():
            found = self._collection.find_one({"_id": token_hash})
        if found is None:
            return None
        return Session(found["key_prefix"], found["expires_at"], found["ends_at"])

    def prolong(self, token_hash: str, expires_at: datetime) -> None:
        """Let a session go on until then, unless it does so longer already."""
        with translate_errors():
            self._collection.update_one({"_id": token_hash}, {"$max": {"expires_at": expires_at}})

    def remove(self, token_hash: str) -> None:
        with translate_errors():
            self._collection.delete_one({"_id": token_hash})
