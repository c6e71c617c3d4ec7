"""Counting: how many uploads there are, for those who ask for it with every page.

Up to `COUNTED_TOTAL` they are counted, in an index. Beyond it the number is an estimate: what
MongoDB keeps beside the collection, which costs nothing to read, and is wrong for ever after mongod
was killed (it then is that of the last checkpoint). So the tallies, which go through all uploads
now and then, write down by how much it is wrong.

Records of others are not counted as far as they lack `facets`, as those of other programs do, and
not in an estimate, once the tallies have seen them.
"""

import time
from collections.abc import Mapping
from typing import Any

from pymongo.collection import Collection
from pymongo.errors import OperationFailure

from clustr.database.connection import PLAIN, Document, answering
from clustr.database.counters import TOTALS
from clustr.database.documents import ANY
from clustr.database.uploads import NEWEST_FIRST

# Up to this many that match are counted.
COUNTED_TOTAL = 1000

# For so long there are more than that where there were a moment ago: to count so many with every
# page takes a third of what the page takes MongoDB.
MANY_SECONDS = 1.0

# MongoDB's code of the error that there is no such collection.
NAMESPACE_NOT_FOUND = 26


class UploadCounts:
    """Counts the uploads.

    Args:
        uploads: what is counted.
        totals: where the tallies keep their figures.
    """

    def __init__(self, uploads: Collection[Document], totals: Collection[Document]):
        self._uploads = uploads.with_options(codec_options=PLAIN)
        self._totals = totals
        self._many_until = float("-inf")
        self._missed = 0

    def uploads(self) -> int:
        """How many there are: up to `COUNTED_TOTAL` exactly, beyond it an estimate."""
        with answering():
            return self.beside([], {})[1]

    def beside(
        self, pipeline: list[Document], options: Mapping[str, Any]
    ) -> tuple[list[Document], int]:
        """What an aggregation of the uploads gives, and how many there are, in one round trip.

        Args:
            pipeline: what it gives has an `_id`; nothing is aggregated where it is empty.
            options: those of the aggregation.
        """
        count_them = time.monotonic() >= self._many_until
        # MongoDB 6.0 crashes where $collStats is not the first.
        stages: list[Document] = [{"$collStats": {"count": {}}}, {"$project": {"count": 1}}]
        if count_them:
            stages += [_union(self._uploads, _count()), _union(self._totals, MISSED)]
        if pipeline:
            stages.append(_union(self._uploads, pipeline))
        documents, estimate, counted = [], 0, COUNTED_TOTAL + 1
        if count_them:
            counted = 0
        for found in self._found(stages, options):
            if "_id" in found:
                documents.append(found)
            elif "counted" in found:
                counted = found["counted"]
            elif "missed" in found:
                self._missed = found["missed"]
            else:  # Of each shard, where there are several.
                estimate += found["count"]
        if counted <= COUNTED_TOTAL:
            return documents, counted
        if count_them:
            self._many_until = time.monotonic() + MANY_SECONDS
        return documents, max(counted, estimate + self._missed)

    def _found(self, stages: list[Document], options: Mapping[str, Any]) -> list[Document]:
        try:
            return list(self._uploads.aggregate(stages, **options))
        except OperationFailure as error:
            if error.code != NAMESPACE_NOT_FOUND:  # The database is new.
                raise
            return []


MISSED: list[Document] = [
    {"$match": {"_id": TOTALS, "missed": {"$exists": True}}},
    {"$project": {"_id": 0, "missed": 1}},
]


def _count() -> list[Document]:
    """What counts the uploads in an index as far as they are counted."""
    return [
        {"$match": {"facets": ANY}},
        {"$sort": dict(NEWEST_FIRST)},
        {"$limit": COUNTED_TOTAL + 1},
        {"$group": {"_id": None, "counted": {"$sum": 1}}},
        {"$project": {"_id": 0, "counted": 1}},
    ]


def _union(collection: Collection[Document], pipeline: list[Document]) -> Document:
    return {"$unionWith": {"coll": collection.name, "pipeline": pipeline}}
