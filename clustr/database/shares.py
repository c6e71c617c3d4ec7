"""Shares: addresses of uploads for others, which can be revoked."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from bson import ObjectId
from pymongo.collection import Collection

from clustr.database.clock import now
from clustr.database.connection import Document, translate_errors
from clustr.database.documents import parse_id
from clustr.database.keys import Keys
from clustr.domain.errors import KeyRefused, NotFound, TooManyShares

# Of one upload; a list of them is not in pages.
MAX_SHARES = 100
INDEXES: dict[str, Any] = {
    "upload": {"keys": [("upload_id", 1), ("_id", 1)]},
    "maker": {"keys": [("created_by", 1)]},
    # A TTL index: MongoDB removes those that have expired.
    "expired": {"keys": [("expires_at", 1)], "expireAfterSeconds": 0},
}


@dataclass(frozen=True, slots=True)
class NewShare:
    """A share that is to be made.

    Attributes:
        metadata: whether the original is sent with its metadata.
        size: of a thumbnail; None for the original.
        created_by: the name of the key that makes it.
    """

    upload_id: str
    expires_at: datetime
    metadata: bool
    size: int | None
    created_by: str | None


@dataclass(frozen=True, slots=True)
class Share:
    """An address that was given to others.

    Attributes:
        made: what it is for.
    """

    id: str
    created_at: datetime
    made: NewShare


class Shares:
    """The collection of shares."""

    def __init__(self, collection: Collection[Document], keys: Keys):
        self.collection = collection
        self._keys = keys

    def add(self, new: NewShare, key_id: str | None) -> Share:
        """Add a share.

        Args:
            key_id: the id of the key that makes it; None when keys are not in use.

        Raises:
            TooManyShares: the upload has as many as it may have.
            KeyRefused: the key was revoked in the last seconds.
        """
        upload_id = parse_id(new.upload_id)
        share = {
            "_id": ObjectId(),
            "upload_id": upload_id,
            "created_at": now(),
            "expires_at": new.expires_at,
            "metadata": new.metadata,
            "size": new.size,
            "created_by": new.created_by,
        }
        with translate_errors():
            if self.collection.count_documents({"upload_id": upload_id}) >= MAX_SHARES:
                raise TooManyShares(MAX_SHARES)
            self.collection.insert_one(share)
            # This process may not know yet that the key is revoked. Who revokes its shares, too,
            # does so after the key: either that finds this one, or this look finds the key revoked.
            if key_id is not None and not self._keys.is_active(key_id):
                self.collection.delete_one({"_id": share["_id"]})
                raise KeyRefused
        return _read(share)

    def of_upload(self, upload_id: str) -> list[Share]:
        """The shares of an upload that have not expired, the oldest first."""
        query = {"upload_id": parse_id(upload_id), "expires_at": {"$gt": now()}}
        with translate_errors():
            return [_read(each) for each in self.collection.find(query).sort("_id", 1)]

    def has(self, share_id: str) -> bool:
        """Whether there is a share that was not revoked."""
        with translate_errors():
            found = self.collection.find_one({"_id": ObjectId(share_id)}, {"_id": 1})
        return found is not None

    def remove(self, upload_id: str, share_id: str) -> None:
        """Revoke a share.

        Raises:
            NotFound: the upload has no such share.
        """
        query = {"_id": parse_id(share_id), "upload_id": parse_id(upload_id)}
        with translate_errors():
            if not self.collection.delete_one(query).deleted_count:
                raise NotFound(f"The upload {upload_id} has no share {share_id}.")

    def remove_all(self, upload_id: str) -> int:
        """Revoke all shares of an upload; return how many there were."""
        with translate_errors():
            return self.collection.delete_many({"upload_id": parse_id(upload_id)}).deleted_count

    def count_made_by(self, key_name: str) -> int:
        """How many shares that keys of this name have made go on."""
        query = {"created_by": key_name, "expires_at": {"$gt": now()}}
        with translate_errors():
            return self.collection.count_documents(query)

    def remove_all_made_by(self, key_name: str) -> int:
        """Revoke all shares that keys of this name have made; return how many there were."""
        with translate_errors():
            return self.collection.delete_many({"created_by": key_name}).deleted_count


def _read(document: Mapping[str, Any]) -> Share:
    made = NewShare(
        str(document["upload_id"]),
        document["expires_at"],
        document["metadata"],
        document["size"],
        document["created_by"],
    )
    return Share(str(document["_id"]), document["created_at"], made)
