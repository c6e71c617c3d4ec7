"""Indexes: made as they are declared, also where an older version declared them otherwise."""

from collections.abc import Mapping
from typing import Any

import pymongo
from pymongo.collection import Collection
from pymongo.errors import OperationFailure

from clustr import logs
from clustr.database.connection import Document

log = logs.logger(__name__)

# From src/mongo/base/error_codes.yml of MongoDB.
INDEX_NOT_FOUND = 27
INDEX_OPTIONS_CONFLICT = 85
INDEX_KEY_SPECS_CONFLICT = 86
INDEX_BUILD_ABORTED = 276

# Of a large collection it takes longer than a request may; gunicorn waits for a minute.
BUILD_SECONDS = 45.0


def make_indexes(collection: Collection[Document], declared: Mapping[str, Any]) -> None:
    """Make every index that is declared and not there yet, and anew what is there otherwise.

    Any number of processes may do it at once.

    Args:
        declared: the arguments of `create_index` by the name of the index.
    """
    collection.database.command("ping")  # One that is away is noticed as soon as by a request.
    with pymongo.timeout(BUILD_SECONDS):
        for name, index in declared.items():
            while not _made(collection, name, index):
                log.warning("index_replaced", index=name)
                drop_index(collection, name)


def _made(collection: Collection[Document], name: str, index: Mapping[str, Any]) -> bool:
    """Make an index; False when another of its name is in the way."""
    while True:
        try:
            collection.create_index(name=name, **index)
            return True
        except OperationFailure as error:
            if error.code in (INDEX_OPTIONS_CONFLICT, INDEX_KEY_SPECS_CONFLICT):
                return False
            if error.code != INDEX_BUILD_ABORTED:  # By another process, which makes it itself.
                raise


def drop_index(collection: Collection[Document], name: str) -> None:
    """Let an index be no more, if it is there."""
    try:
        collection.drop_index(name)
    except OperationFailure as error:
        if error.code != INDEX_NOT_FOUND:  # Another process was faster.
            raise
