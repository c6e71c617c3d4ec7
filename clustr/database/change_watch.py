"""Detects cheaply whether anything was written to a collection.

It uses change streams (https://www.mongodb.com/docs/manual/changeStreams/). A MongoDB that is no
replica set has none; there every call reports a change.
"""

from collections.abc import Mapping
from typing import Any

import pymongo
from pymongo.collection import Collection
from pymongo.errors import OperationFailure, PyMongoError

from clustr.database.connection import Document, translate_errors

# A place among all writes, before some and after others, which any process may store and use.
Position = Mapping[str, Any]

# MongoDB reads all that was written since a position, whatever the collection: about 100,000
# documents a second.
LOOK_SECONDS = 2.0
_ONLY_THAT = [{"$project": {"_id": 1}}]


class ChangeWatch:
    """Watches a collection for changes between two calls of `has_changed`."""

    def __init__(self, collection: Collection[Document]):
        self._collection = collection
        self._position: Position | None = None

    def has_changed(self) -> bool:
        """Whether anything was, or may have been, written since the last call.

        Raises:
            DatabaseUnavailable: MongoDB does not answer.
        """
        unchanged_until = self.unchanged_until(self._position)
        self._position = unchanged_until or self.position()
        return unchanged_until is None

    def position(self) -> Position | None:
        """The position of now; None when MongoDB has no change streams.

        Raises:
            DatabaseUnavailable: MongoDB does not answer.
        """
        with translate_errors():
            try:
                with self._collection.watch(_ONLY_THAT, max_await_time_ms=1) as stream:
                    return stream.resume_token
            except OperationFailure:
                return None

    def unchanged_until(self, position: Position | None) -> Position | None:
        """Return a later position before which nothing was written after this one.

        Returns:
            None when anything was, or may have been, written since then.

        Raises:
            DatabaseUnavailable: MongoDB does not answer.
        """
        if position is None:
            return None
        with translate_errors():
            try:
                with (
                    pymongo.timeout(LOOK_SECONDS),
                    self._collection.watch(
                        _ONLY_THAT, resume_after=position, max_await_time_ms=1
                    ) as stream,
                ):
                    return stream.resume_token if stream.try_next() is None else None
            except OperationFailure:  # No replica set, or the oplog no longer reaches back.
                return None
            except PyMongoError as error:
                if error.timeout:
                    return None
                raise
