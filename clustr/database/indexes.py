"""Making indexes as they are declared, also where an older version declared them otherwise."""

from collections.abc import Mapping
from typing import Any

import pymongo
from pymongo import IndexModel
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
NOT_AT_ONCE = (INDEX_OPTIONS_CONFLICT, INDEX_KEY_SPECS_CONFLICT, INDEX_BUILD_ABORTED)

# Building one on a large collection takes longer than a request may; gunicorn waits for a minute.
BUILD_SECONDS = 45.0


def make_indexes(collection: Collection[Document], declared: Mapping[str, Any]) -> None:
    """Make every declared index that is missing, and replace those that differ.

    Any number of processes may call it at once.

    Args:
        declared: the arguments of `create_index` by the name of the index.
    """
    collection.database.command("ping")  # Fails within the usual time limit.
    with pymongo.timeout(BUILD_SECONDS):
        made = _create_missing(collection, declared)
        for name, index in declared.items():
            while name not in made and not _create_index(collection, name, index):
                log.warning("index_replaced", index=name)
                drop_index(collection, name)


def _create_missing(collection: Collection[Document], declared: Mapping[str, Any]) -> set[str]:
    """Make all that are missing, for which MongoDB reads the documents once; return their names.

    None is made when one of them cannot be, as while another process makes them.
    """
    missing = declared.keys() - collection.index_information()
    if not missing:
        return set()
    try:
        collection.create_indexes([IndexModel(name=name, **declared[name]) for name in missing])
    except OperationFailure as error:
        if error.code not in NOT_AT_ONCE:
            raise
        return set()
    return missing


def _create_index(collection: Collection[Document], name: str, index: Mapping[str, Any]) -> bool:
    """Make an index; False when a different one with its name exists."""
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
    """Drop an index, if it exists."""
    try:
        collection.drop_index(name)
    except OperationFailure as error:
        if error.code != INDEX_NOT_FOUND:  # Another process was faster.
            raise
