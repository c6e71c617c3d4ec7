"""Keys: what of each is kept, and the queries for them.

A key is one document. It keeps its id and its name while it is rotated: `secrets` holds the hash of
its text, the newest first, and behind it those that were replaced and go on for a while.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from bson import ObjectId
from pymongo import ReturnDocument
from pymongo.collection import Collection
from pymongo.errors import DuplicateKeyError

from clustr.database.clock import now
from clustr.database.connection import Document, translate_errors
from clustr.domain.access import OWN, Rate, Scope
from clustr.domain.errors import NameTaken, NotFound
from clustr.domain.key_text import hash_of, prefix_of

INDEXES: dict[str, Any] = {
    "prefix": {"keys": [("secrets.prefix", 1)], "unique": True},
    # Of several keys with one name, all but one are revoked.
    "name": {
        "keys": [("name", 1)],
        "unique": True,
        "partialFilterExpression": {"active": True},
    },
}

# The last use of a key is noted this often at most.
NOTED_EVERY = timedelta(minutes=1)


@dataclass(frozen=True, slots=True)
class Key:
    """A key, without its text, which is shown once and never stored.

    Attributes:
        name: unique among keys that are not revoked; uploads note it.
        prefix: the beginning of its text.
        own_only: whether it is for the uploads alone that its name brought.
        renewed_at: when it got the text that it has.
        replaced_until: until when the text that it had before the last rotation is valid, too.
    """

    id: str
    name: str
    prefix: str
    scopes: frozenset[Scope]
    own_only: bool
    rate: Rate | None
    bytes_per_day: int | None
    created_at: datetime
    renewed_at: datetime
    expires_at: datetime | None
    last_used_at: datetime | None
    revoked_at: datetime | None
    replaced_until: datetime | None

    @property
    def scope_names(self) -> list[str]:
        """Its scopes as they were asked for, `own` the last."""
        return [*sorted(self.scopes), *([OWN] if self.own_only else [])]


@dataclass(frozen=True, slots=True)
class Secret:
    """What is stored of the text of a key, and until when it is valid."""

    hash: str
    expires_at: datetime | None
    _document: Document

    def key(self) -> Key:
        """Read its key; to be called once a text is known to be the right one.

        So a wrong text takes no more work than one that begins like no key.
        """
        return _read(self._document)


class Keys:
    """The collection of keys."""

    def __init__(self, collection: Collection[Document]):
        self._collection = collection

    def any(self) -> bool:
        """Whether there is any key, the revoked ones included."""
        with translate_errors():
            return self._collection.find_one({}, {"_id": 1}) is not None

    def add(
        self,
        text: str,
        name: str,
        scopes: frozenset[Scope],
        *,
        own_only: bool = False,
        expires_at: datetime | None = None,
        rate: Rate | None = None,
        bytes_per_day: int | None = None,
    ) -> Key:
        """Add a key.

        Args:
            text: of which only a hash is stored.

        Raises:
            NameTaken: a key of this name exists that is not revoked.
        """
        moment = now()
        document = {
            "name": name,
            "active": True,
            "scopes": [*sorted(scopes), *([OWN] if own_only else [])],
            "secrets": [_secret(text, moment, expires_at)],
            "rate": str(rate) if rate else None,
            "bytes_per_day": bytes_per_day,
            "created_at": moment,
            "last_used_at": None,
            "revoked_at": None,
        }
        try:
            with translate_errors():
                self._collection.insert_one(document)
        except DuplicateKeyError:
            raise NameTaken(name) from None
        return _read(document)

    def find(self, text: str) -> Secret | None:
        """Find what a text has to be compared with, of the key that begins like it."""
        prefix = prefix_of(text)
        with translate_errors():
            document = self._collection.find_one({"secrets.prefix": prefix})
        if document is None:
            return None
        [stored] = [each for each in document["secrets"] if each["prefix"] == prefix]
        return Secret(stored["sha256"], stored["expires_at"], document)

    def newest_first(self) -> Iterator[Key]:
        """Yield all keys, the revoked ones included."""
        with translate_errors():
            yield from map(_read, self._collection.find().sort("_id", -1))

    def get(self, name: str) -> Key:
        """Return the key of this name that is not revoked.

        Raises:
            NotFound: there is none.
        """
        with translate_errors():
            document = self._collection.find_one({"name": name, "active": True})
        return _read(self._found(document, name))

    def is_active(self, key_id: str) -> bool:
        """Whether there is a key with this id that is not revoked."""
        with translate_errors():
            found = self._collection.find_one({"_id": ObjectId(key_id), "active": True}, {"_id": 1})
        return found is not None

    def revoke(self, name: str) -> Key:
        """Make a key, and the text that it had before, invalid for good.

        Raises:
            NotFound: there is none of this name that is not revoked.
        """
        with translate_errors():
            document = self._collection.find_one_and_update(
                {"name": name, "active": True},
                {"$set": {"revoked_at": now()}, "$unset": {"active": 1}},
                return_document=ReturnDocument.AFTER,
            )
        return _read(self._found(document, name))

    def rotate(
        self, name: str, text: str, expires_at: datetime | None, replaced_until: datetime
    ) -> Key:
        """Give a key a new text; the one that it had goes on until `replaced_until`.

        Raises:
            NotFound: there is none of this name that is not revoked.
        """
        moment = now()
        valid = {
            "$filter": {
                "input": "$secrets",
                "cond": {"$gt": [{"$ifNull": ["$$this.expires_at", replaced_until]}, moment]},
            }
        }
        # `$min` passes over null, which stands for “never”.
        shortened = {"expires_at": {"$min": ["$$this.expires_at", replaced_until]}}
        replaced = {"$map": {"input": valid, "in": {"$mergeObjects": ["$$this", shortened]}}}
        new = {"$literal": [_secret(text, moment, expires_at)]}
        with translate_errors():
            document = self._collection.find_one_and_update(
                {"name": name, "active": True},
                [{"$set": {"secrets": {"$concatArrays": [new, replaced]}}}],
                return_document=ReturnDocument.AFTER,
            )
        return _read(self._found(document, name))

    def _found(self, document: Document | None, name: str) -> Document:
        """Return the document of a key that is not revoked.

        Raises:
            NotFound: there is none; the message says whether there was.
        """
        if document is not None:
            return document
        with translate_errors():
            was_revoked = {"name": name, "revoked_at": {"$ne": None}}
            revoked = self._collection.find_one(was_revoked, sort=[("revoked_at", -1)])
        if revoked is None:
            raise NotFound(f"There is no key with the name {name}.")
        since = f"{revoked['revoked_at']:%Y-%m-%d %H:%M:%S} UTC"
        raise NotFound(f"The key with the name {name} is revoked already, since {since}.")

    def note_use(self, key_id: str) -> None:
        """Note that a key was used now, unless another process has within `NOTED_EVERY`."""
        moment = now()
        with translate_errors():
            self._collection.update_one(
                {
                    "_id": ObjectId(key_id),
                    "last_used_at": {"$not": {"$gt": moment - NOTED_EVERY}},
                },
                {"$set": {"last_used_at": moment}},
            )


def _secret(text: str, moment: datetime, expires_at: datetime | None) -> Document:
    return {
        "prefix": prefix_of(text),
        "sha256": hash_of(text),
        "created_at": moment,
        "expires_at": expires_at,
    }


def _read(document: Document) -> Key:
    newest, *replaced = document["secrets"]
    return Key(
        str(document["_id"]),
        document["name"],
        newest["prefix"],
        # A later release may know more scopes.
        frozenset(scope for scope in Scope if scope in document["scopes"]),
        OWN in document["scopes"],
        Rate.parse(document["rate"]) if document["rate"] else None,
        document["bytes_per_day"],
        document["created_at"],
        newest["created_at"],
        newest["expires_at"],
        document["last_used_at"],
        document["revoked_at"],
        max((each["expires_at"] for each in replaced), default=None),
    )
