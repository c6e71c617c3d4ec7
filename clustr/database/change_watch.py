"""Tells whether anything was written to a collection, at next to no cost while nothing was.

MongoDB's change streams say it (https://www.mongodb.com/docs/manual/changeStreams/); a MongoDB that
is no replica set has none, and there something is taken to have been written each time.
"""

from typing import Any

from pymongo.collection import Collection
from pymongo.errors import OperationFailure

from clustr.database.connection import Document, answering


class ChangeWatch:
    """Watches a collection from one question to the next.

    Args:
        collection: what is watched.
    """

    def __init__(self, collection: Collection[Document]):
        self._collection = collection
        self._token: Any = None

    def changed(self) -> bool:
        """Whether anything was written since the last time that this was asked, or may have been.

        Raises:
            DatabaseUnavailable: MongoDB does not answer.
        """
        with answering():
            try:
                return self._look()
            except OperationFailure:  # It is no replica set, or has forgotten what was so long ago.
                self._token = None
                return True

    def _look(self) -> bool:
        only_that = [{"$project": {"_id": 1}}]
        if self._token is not None:
            with self._collection.watch(
                only_that, resume_after=self._token, max_await_time_ms=1
            ) as stream:
                if stream.try_next() is None:
                    self._token = stream.resume_token
                    return False
        with self._collection.watch(only_that, max_await_time_ms=1) as stream:
            self._token = stream.resume_token  # of this moment
        return True
