"""The replica set of one member that `clustr up` and the tests run."""

import time
from typing import Any

from pymongo import MongoClient
from pymongo.errors import OperationFailure, PyMongoError

from clustr.domain.errors import DatabaseUnavailable

# From src/mongo/base/error_codes.yml of MongoDB.
NOT_YET_INITIALIZED = 94
USER_NOT_FOUND = 11

# What the service does, and what its operator needs to look after it.
ROLES = ("readWriteAnyDatabase", "dbAdminAnyDatabase", "clusterMonitor", "hostManager")


def ensure_primary(
    host: str, port: int, set_name: str, key: str, user: str, password: str, seconds: float
) -> None:
    """See that the `mongod` at this address is the primary of its replica set, and has its user.

    The set is initiated at the first start. Its configuration stores the address; when that is
    another one now, it is changed by force, for there is no primary that could do it otherwise.

    Clients have to be made after this: one that met the server before its set was initiated goes on
    believing that it has no sessions.

    Whoever has the key is a member for `mongod`: the user `__system`, which is in no database. So
    it works also where there are no users yet, as in data of the version before.

    Args:
        key: the content of its key file.
        user: whom the service connects as; made where there is none.
        password: what the user's is from now on.
        seconds: how long it may take.

    Raises:
        DatabaseUnavailable: it did not become primary in time.
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
    """Whether it is primary under this address; if not, do what is missing."""
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
    except PyMongoError:  # it starts still, or is in the middle of an election
        pass
    return False


def _has_user(client: MongoClient[dict[str, Any]], user: str, password: str) -> bool:
    """Give the user this password; whether that was done."""
    granted = {"pwd": password, "roles": list(ROLES)}
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
