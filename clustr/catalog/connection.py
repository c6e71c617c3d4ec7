"""The connection to MongoDB, and how its failures are called in Clustr."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import pymongo
from pymongo.errors import (
    ConfigurationError,
    ConnectionFailure,
    ExecutionTimeout,
    InvalidURI,
    PyMongoError,
)

from clustr import logs
from clustr.errors import DatabaseUnavailable, StartUpError

log = logs.logger(__name__)

Document = dict[str, Any]


def connect(url: str, timeout_seconds: float) -> pymongo.MongoClient[Document]:
    """Make a client; it connects by itself, in the background.

    What is written is acknowledged once it is in the journal of most members: an acknowledgement
    from memory alone is lost when mongod is killed.

    Args:
        url: where MongoDB is.
        timeout_seconds: limit for every operation as a whole, finding the server included.

    Raises:
        StartUpError: the address is none.
    """
    try:
        return pymongo.MongoClient(
            url,
            appname="clustr",
            timeoutMS=int(timeout_seconds * 1000),
            tz_aware=True,
            tzinfo=UTC,
            w="majority",
            journal=True,
        )
    except (InvalidURI, ConfigurationError) as error:
        raise StartUpError(f"MONGODB_URL is no address of a MongoDB: {error}") from error


@contextmanager
def answering() -> Iterator[None]:
    """Turn MongoDB being away, frozen or without a primary into `DatabaseUnavailable`."""
    try:
        yield
    except PyMongoError as error:
        away = isinstance(error, ConnectionFailure | ExecutionTimeout) or error.timeout
        if not away:
            raise
        log.warning("database_unavailable", error=str(error)[:300])
        raise DatabaseUnavailable from error


def now() -> datetime:
    """This moment in UTC, to the millisecond, which is what MongoDB keeps."""
    moment = datetime.now(UTC)
    return moment.replace(microsecond=moment.microsecond // 1000 * 1000)
