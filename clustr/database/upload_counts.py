"""The number of all uploads, at a cost that every page of a listing can afford.

Up to `COUNTED_TOTAL` uploads are counted in an index. Beyond it the number is an estimate from the
metadata of the collection, which costs nothing to read. After mongod was killed that metadata stays
wrong (it is of the last checkpoint). So `clustr.database.counters`, which counts all uploads now
and then, stores the difference.

Foreign records are left out of the count if they lack `facets`, as those of other programs do, and
of the estimate once the counters have passed them.
"""

import time
from collections.abc import Mapping
from typing import Any

from pymongo.collection import Collection
from pymongo.errors import OperationFailure

from clustr.database.connection import NAIVE_UTC, Document, translate_errors
from clustr.database.counters import TOTALS_ID
from clustr.database.documents import ANY_FACET, NEWEST_FIRST

# Up to this many matching uploads are counted.
COUNTED_TOTAL = 1000

# After a count above `COUNTED_TOTAL` there is no other count for this long: counting that many with
# every page would take a third of the page's time in MongoDB.
MANY_SECONDS = 1.0

# MongoDB's error code for a missing collection.
NAMESPACE_NOT_FOUND = 26


class UploadCounts:
    """Counts the uploads.

    Args:
        uploads: the collection to count.
        totals: the collection of the totals of `clustr.database.counters`.
    """

    def __init__(self, uploads: Collection[Document], totals: Collection[Document]):
        self._uploads = uploads.with_options(codec_options=NAIVE_UTC)
        self._totals = totals
        self._many_until = float("-inf")
        self._missed = 0

    def count(self) -> int:
        """The number of uploads: exact up to `COUNTED_TOTAL`, beyond it an estimate."""
        with translate_errors():
            return self.aggregate_with_count([], {})[1]

    def aggregate_with_count(
        self, pipeline: list[Document], options: Mapping[str, Any]
    ) -> tuple[list[Document], int]:
        """The result of an aggregation of the uploads, and their number, in one round trip.

        Args:
            pipeline: its documents must have an `_id`; when it is empty, only the number is read.
            options: options for `Collection.aggregate`.
        """
        is_count_due = time.monotonic() >= self._many_until
        # MongoDB 6.0 crashes unless $collStats is the first stage.
        stages: list[Document] = [{"$collStats": {"count": {}}}, {"$project": {"count": 1}}]
        if is_count_due:
            stages += [
                union(self._uploads, [{"$match": {"facets": ANY_FACET}}, *count_stages()]),
                union(self._totals, ESTIMATE_ERROR_STAGES),
            ]
        if pipeline:
            stages.append(union(self._uploads, pipeline))
        documents, estimate, counted = [], 0, COUNTED_TOTAL + 1
        if is_count_due:
            counted = 0
        for found in self._aggregate(stages, options):
            if "_id" in found:
                documents.append(found)
            elif "counted" in found:
                counted = found["counted"]
            elif "missed" in found:
                self._missed = found["missed"]
            else:  # There is one for each shard.
                estimate += found["count"]
        if counted <= COUNTED_TOTAL:
            return documents, counted
        if is_count_due:
            self._many_until = time.monotonic() + MANY_SECONDS
        return documents, max(counted, estimate + self._missed)

    def _aggregate(self, stages: list[Document], options: Mapping[str, Any]) -> list[Document]:
        try:
            return list(self._uploads.aggregate(stages, **options))
        except OperationFailure as error:
            if error.code != NAMESPACE_NOT_FOUND:  # The database is new.
                raise
            return []


ESTIMATE_ERROR_STAGES: list[Document] = [
    {"$match": {"_id": TOTALS_ID, "missed": {"$exists": True}}},
    {"$project": {"_id": 0, "missed": 1}},
]


def count_stages() -> list[Document]:
    """The stages that count uploads in an index, up to one more than `COUNTED_TOTAL`."""
    return [
        {"$sort": dict(NEWEST_FIRST)},
        {"$limit": COUNTED_TOTAL + 1},
        {"$group": {"_id": None, "counted": {"$sum": 1}}},
        {"$project": {"_id": 0, "counted": 1}},
    ]


def union(collection: Collection[Document], pipeline: list[Document]) -> Document:
    """The stage that adds what a pipeline finds in a collection."""
    return {"$unionWith": {"coll": collection.name, "pipeline": pipeline}}
