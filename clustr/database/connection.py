"""The connection to MongoDB, and how its failures are called in Clustr."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC
from typing import Any

import pymongo
from bson.codec_options import CodecOptions, DatetimeConversion
from pymongo.errors import (
    ConfigurationError,
    ConnectionFailure,
    ExecutionTimeout,
    InvalidURI,
    OperationFailure,
    PyMongoError,
)

from clustr import logs
from clustr.database.clock import clock
from clustr.domain import failure_messages
from clustr.domain.errors import DatabaseRefused, DatabaseUnavailable, StartUpError
from clustr.domain.secrets import credentials_in, remember

log = logs.logger(__name__)

DISCOVERY_SECONDS = 2.0

# From src/mongo/base/error_codes.yml of MongoDB; the last one is of its hosted kind, Atlas.
REFUSALS = (UNAUTHORIZED := 13, AUTHENTICATION_FAILED := 18, ATLAS_ERROR := 8000)
# A member of a replica set with accounts says this for a moment after it was killed and started
# again: it has not read the keys yet by which it trusts the times that it is told.
KEY_NOT_FOUND = 211

Document = dict[str, Any]

# Times without a zone, which are in UTC: to give each of them one takes half of the time.
# What others have written need be no text and no time that Python knows.
PLAIN: CodecOptions[Document] = CodecOptions(
    tz_aware=False,
    unicode_decode_error_handler="replace",
    datetime_conversion=DatetimeConversion.DATETIME_AUTO,
)


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
    remember(credentials_in(url))
    try:
        return pymongo.MongoClient(
            url,
            appname="clustr",
            event_listeners=[clock],
            timeoutMS=int(timeout_seconds * 1000),
            tz_aware=True,
            tzinfo=UTC,
            # What others have written need be no text and no time that Python knows.
            unicode_decode_error_handler="replace",
            datetime_conversion="DATETIME_AUTO",
            w="majority",
            journal=True,
        )
    except (InvalidURI, ConfigurationError, ValueError, TypeError) as error:
        said = failure_messages.as_plain_text(error)
        raise StartUpError(f"MONGODB_URL is no address of a MongoDB: {said}") from None


def require_initiated(client: pymongo.MongoClient[Document]) -> None:
    """See that what a client has found is not a replica set that was never initiated.

    Its members answer, but neither read nor write, and that does not heal by itself. They are of
    the type RSGhost in MongoDB's specification of server discovery.

    Raises:
        StartUpError: it was never initiated; the message has the command for that.
    """
    found = client.topology_description.server_descriptions().values()
    ghosts = [server for server in found if server.server_type_name == "RSGhost"]
    if ghosts and not any(server.is_readable for server in found):
        host, port = ghosts[0].address
        raise StartUpError(
            f"MONGODB_URL: the replica set of the MongoDB at {host}:{port} was never initiated; do "
            f"that once with mongosh --host {host} --port {port} --eval 'rs.initiate()'"
        )


@contextmanager
def answering() -> Iterator[None]:
    """Turn MongoDB being away, frozen, locked, without a primary or not for us into errors."""
    try:
        yield
    except PyMongoError as error:
        if isinstance(error, OperationFailure) and error.code in REFUSALS:
            said = (error.details or {}).get("errmsg", "")[:300]
            log.error("database_refused", error=said)
            raise DatabaseRefused(said) from error
        away = isinstance(error, ConnectionFailure | ExecutionTimeout) or error.timeout
        if not away and getattr(error, "code", None) != KEY_NOT_FOUND:
            raise
        log.warning("database_unavailable", error=str(error)[:300])
        raise DatabaseUnavailable from error


def discover(client: pymongo.MongoClient[Document]) -> None:
    """Have a client find out what is at its address, in `DISCOVERY_SECONDS` at most.

    Raises:
        DatabaseRefused: MongoDB does not let us in. Only the first operation is told so at once;
            later ones wait until the client has found out anew what is there.
    """
    try:
        with answering(), pymongo.timeout(DISCOVERY_SECONDS):
            client.admin.command("ping")
    except DatabaseRefused:
        raise
    except DatabaseUnavailable:
        pass  # Whoever asks for something is told so.


@contextmanager
def starting() -> Iterator[None]:
    """At a start, turn MongoDB refusing us into what stops it: that does not heal by itself."""
    try:
        yield
    except DatabaseRefused as error:
        raise StartUpError(error.for_operator) from error
