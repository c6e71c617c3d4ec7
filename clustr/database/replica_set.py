"""The replica set of one member that `clustr up` and the tests run."""

import time
from typing import Any

from pymongo import MongoClient
from pymongo.errors import OperationFailure, PyMongoError

from clustr.domain.errors import DatabaseUnavailable

# From src/mongo/base/error_codes.yml of MongoDB.
NOT_YET_INITIALIZED = 94
USER_NOT_FOUND = 11

# What the service needs, and what its operator needs for maintenance.
ROLES = ("readWriteAnyDatabase", "dbAdminAnyDatabase", "clusterMonitor", "hostManager")


def ensure_primary(
    host: str, port: int, set_name: str, key: str, user: str, password: str, seconds: float
) -> None:
    """Make the `mongod` at this address the primary of its replica set, and create its user.

    The first start initiates the set. Its configuration stores the address. If the address has
    changed, a forced reconfiguration is needed, because there is no primary to accept another.

    Clients have to be made after this: one that met the server before its set was initiated goes on
    believing that it has no sessions.

    It authenticates with the key as the internal user `__system`, as members do. So it also works
    without any user, as in the data of an older version.

    Args:
        key: the content of the key file.
        user: the user of the service, which is created if it is missing.
        password: the new password of the user.
        seconds: the time limit.

    Raises:
        DatabaseUnavailable: the server did not become primary in time.
    """
    address = f"{host}:{port}"
    limit = time.monotonic() + seconds
    client: MongoClient[dict[str, Any]] = MongoClient(
        host,
        port,
        directConnection=True,
        serverSelectionTimeoutMS=500,
        socketTimeoutMS=5000,
        username="__system",
        password=key,
        authSource="local",
        authMechanism="SCRAM-SHA-256",
    )
    with client:
        while not (_is_primary(client, set_name, address) and _has_user(client, user, password)):
            if time.monotonic() > limit:
                raise DatabaseUnavailable
            time.sleep(0.05)


def _is_primary(client: MongoClient[dict[str, Any]], set_name: str, address: str) -> bool:
    """Whether it is primary under this address; if not, take the next step towards that."""
    members = [{"_id": 0, "host": address}]
    try:
        hello = client.admin.command("hello")
        if hello.get("isWritablePrimary") and hello.get("me") == address:
            return True
        try:
            config = client.admin.command("replSetGetConfig")["config"]
        except OperationFailure as error:
            if error.code != NOT_YET_INITIALIZED:
                raise
            client.admin.command("replSetInitiate", {"_id": set_name, "members": members})
            return False
        if [member["host"] for member in config["members"]] != [address]:
            config |= {"members": members, "version": config["version"] + 1}
            client.admin.command("replSetReconfig", config, force=True)
    except PyMongoError:  # It is still starting, or in the middle of an election.
        pass
    return False


def _has_user(client: MongoClient[dict[str, Any]], user: str, password: str) -> bool:
    """Create the user or set its password; return whether that succeeded."""
    granted: dict[str, Any] = {"pwd": password, "roles": list(ROLES)}
    try:
        try:
            client.admin.command("updateUser", user, **granted)
        except OperationFailure as error:
            if error.code != USER_NOT_FOUND:
                raise
            client.admin.command("createUser", user, **granted)
    except PyMongoError:  # it is in the middle of an election
        return False
    return True
