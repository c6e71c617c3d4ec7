"""Detects cheaply whether anything was written to a collection.

It uses change streams (https://www.mongodb.com/docs/manual/changeStreams/). A MongoDB that is no
replica set has none; there every call reports a change.
"""

from typing import Any

from pymongo.collection import Collection
from pymongo.errors import OperationFailure

from clustr.database.connection import Document, translate_errors


class ChangeWatch:
    """Watches a collection for changes between two calls of `has_changed`."""

    def __init__(self, collection: Collection[Document]):
        self._collection = collection
        self._token: Any = None

    def has_changed(self) -> bool:
        """Whether anything was, or may have been, written since the last call.

        Raises:
            DatabaseUnavailable: MongoDB does not answer.
        """
        with translate_errors():
            try:
                return self._read_stream()
            except OperationFailure:  # No replica set, or the oplog no longer reaches back.
                self._token = None
                return True

    def _read_stream(self) -> bool:
        only_that = [{"$project": {"_id": 1}}]
        if self._token is not None:
            with self._collection.watch(
                only_that, resume_after=self._token, max_await_time_ms=1
            ) as stream:
                if stream.try_next() is None:
                    self._token = stream.resume_token
                    return False
        with self._collection.watch(only_that, max_await_time_ms=1) as stream:
            self._token = stream.resume_token  # of now
        return True
