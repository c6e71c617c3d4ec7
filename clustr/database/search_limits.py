"""Time limits of searches, and what is told of a search that takes longer."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import pymongo
from pymongo.collection import Collection
from pymongo.errors import PyMongoError

from clustr.database.connection import Document, translate_errors
from clustr.domain.errors import TooSlow

T = TypeVar("T")

# Without an index a search examines all uploads; this limit protects other operations.
SEARCH_SECONDS = 2.0


@contextmanager
def limit_search_time(collection: Collection[Document], seconds: float) -> Iterator[None]:
    """Limit the time of the operations in the block, and tell a slow search from an outage.

    Raises:
        TooSlow: they took longer than `seconds`, and MongoDB is available.
    """
    try:
        with pymongo.timeout(seconds):
            yield
    except PyMongoError as error:
        with translate_errors():
            if not error.timeout:
                raise
            collection.database.command("ping")
        raise TooSlow from error


def search_with_fallback(seconds: float, search: Callable[[bool], T]) -> T:
    """Search for a limited time, then again among a limited number of uploads.

    A timeout alone is no reason to refuse a search: MongoDB may have been halted, or busy.

    Args:
        search: gets False at first, and True for the second try: then it must examine a limited
            number of uploads only, within the time limit of any operation.

    Raises:
        TooSlow: the limited number of uploads was not enough; `search` raises it.
        DatabaseUnavailable: MongoDB did not answer in time.
    """
    try:
        with pymongo.timeout(seconds):
            return search(False)
    except PyMongoError as error:
        if not error.timeout:
            with translate_errors():
                raise
    with translate_errors():
        return search(True)
