"""The connection to MongoDB, and the translation of its errors into those of Clustr."""

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
from clustr.domain.secrets import credentials_in, register_secrets

log = logs.logger(__name__)

DISCOVERY_SECONDS = 2.0

# From src/mongo/base/error_codes.yml of MongoDB; the last one is from Atlas.
REFUSAL_CODES = (UNAUTHORIZED := 13, AUTHENTICATION_FAILED := 18, ATLAS_ERROR := 8000)
# A member of a replica set with accounts returns this for a moment after a restart: it has not read
# the keys yet that sign cluster times.
KEY_NOT_FOUND = 211
# MongoDB aborts a transaction that is too old, also one that only waited for a busy machine.
TRANSACTION_TOO_OLD = 290
# The member of a replica set that was asked is no longer its primary, or is about to end: in this
# order ShutdownInProgress, PrimarySteppedDown, NotWritablePrimary, InterruptedAtShutdown,
# InterruptedDueToReplStateChange, NotPrimaryNoSecondaryOk and NotPrimaryOrSecondary. PyMongo raises
# a `ConnectionFailure` where a command failed so, but not where a write did, or its write concern.
NOT_PRIMARY_CODES = (91, 189, 10107, 11600, 11602, 13435, 13436)
# What a mongos says of a shard whose primary is away, and PyMongo raises once it has tried again:
# HostUnreachable, HostNotFound, NetworkTimeout, FailedToSatisfyReadPreference,
# ReadConcernMajorityNotAvailableYet, ExceededTimeLimit and SocketException.
SHARD_AWAY_CODES = (6, 7, 89, 133, 134, 262, 9001)
TEMPORARY_CODES = {
    KEY_NOT_FOUND,
    TRANSACTION_TOO_OLD,
    *NOT_PRIMARY_CODES,
    *SHARD_AWAY_CODES,
}

Document = dict[str, Any]

# Times are naive and in UTC: adding a time zone to each takes half of the time of decoding.
# Foreign records may hold text and times that Python cannot represent.
NAIVE_UTC: CodecOptions[Document] = CodecOptions(
    tz_aware=False,
    unicode_decode_error_handler="replace",
    datetime_conversion=DatetimeConversion.DATETIME_AUTO,
)


def connect(url: str, timeout_seconds: float) -> pymongo.MongoClient[Document]:
    """Make a client, which connects in the background.

    A write is acknowledged once it is in the journals of most members: a write that is only in
    memory is lost when mongod is killed.

    Args:
        url: the address of MongoDB.
        timeout_seconds: limit for every operation as a whole, including server selection.

    Raises:
        StartUpError: the address is invalid.
    """
    register_secrets(credentials_in(url))
    try:
        return pymongo.MongoClient(
            url,
            appname="clustr",
            event_listeners=[clock],
            timeoutMS=int(timeout_seconds * 1000),
            tz_aware=True,
            tzinfo=UTC,
            # Foreign records may hold text and times that Python cannot represent.
            unicode_decode_error_handler="replace",
            datetime_conversion="DATETIME_AUTO",
            w="majority",
            journal=True,
        )
    except (InvalidURI, ConfigurationError, ValueError, TypeError) as error:
        message = failure_messages.as_plain_text(error)
        raise StartUpError(f"MONGODB_URL is no address of a MongoDB: {message}") from None


def require_initiated(client: pymongo.MongoClient[Document]) -> None:
    """Refuse a replica set that was never initiated.

    Its members answer, but can neither read nor write, and that needs an operator. MongoDB's
    specification "Server Discovery and Monitoring" calls them RSGhost.

    Raises:
        StartUpError: it was never initiated; the message has the command to do so.
    """
    found = client.topology_description.server_descriptions().values()
    ghosts = [server for server in found if server.server_type_name == "RSGhost"]
    if ghosts and not any(server.is_readable for server in found):
        host, port = ghosts[0].address
        raise StartUpError(
            f"MONGODB_URL: the replica set of the MongoDB at {host}:{port} was never initiated; do "
            f"that once with mongosh --host {host} --port {port} --eval 'rs.initiate()'"
        )


def is_temporary(error: PyMongoError) -> bool:
    """Whether MongoDB is away, or could not answer in time, so that the same may succeed later."""
    if isinstance(error, ConnectionFailure | ExecutionTimeout) or error.timeout:
        return True
    if not isinstance(error, OperationFailure):
        return False
    details = error.details or {}
    failures = [*details.get("writeErrors", ()), *details.get("writeConcernErrors", ())]
    return not TEMPORARY_CODES.isdisjoint({error.code, *(found["code"] for found in failures)})


@contextmanager
def translate_errors() -> Iterator[None]:
    """Turn PyMongo's errors into `DatabaseUnavailable` or `DatabaseRefused`; others pass."""
    try:
        yield
    except PyMongoError as error:
        if isinstance(error, OperationFailure) and error.code in REFUSAL_CODES:
            message = (error.details or {}).get("errmsg", "")[:300]
            log.error("database_refused", error=message)
            raise DatabaseRefused(message) from error
        if not is_temporary(error):
            raise
        log.warning("database_unavailable", error=str(error)[:300])
        raise DatabaseUnavailable from error


def discover(client: pymongo.MongoClient[Document]) -> None:
    """Have a client discover the servers at its address, in `DISCOVERY_SECONDS` at most.

    Raises:
        DatabaseRefused: MongoDB refuses the credentials. Only the first operation fails at once;
            later ones wait for another discovery.
    """
    try:
        with translate_errors(), pymongo.timeout(DISCOVERY_SECONDS):
            client.admin.command("ping")
    except DatabaseRefused:
        raise
    except DatabaseUnavailable:
        pass  # The operations that follow report it.


@contextmanager
def translate_startup_errors() -> Iterator[None]:
    """During start-up, turn `DatabaseRefused` into `StartUpError`: it needs an operator."""
    try:
        yield
    except DatabaseRefused as error:
        raise StartUpError(error.for_operator) from error
