"""Vectors of results: a collection of their own, beside the uploads.

A vector is written before the result that it belongs to. An upload's analysis names the vectors of
its result by their ids; one that no analysis names is no answer to anything, and is removed once it
is old enough. Uploads in the trash keep theirs.

Vectors that can be compared are in one space (see `clustr.plugins.vectors.vector_space`). Each gets
a number in its space, so that caches find out what they lack. Numbers are given before the vector
is written: one can be missing for a while, or for ever.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, cast

from bson import ObjectId
from pymongo import DeleteOne, ReturnDocument, UpdateOne, WriteConcern
from pymongo.collection import Collection

from clustr.database.clock import now
from clustr.database.connection import Document, translate_errors
from clustr.database.documents import OWNER
from clustr.database.listing_queries import filter_query
from clustr.database.search_limits import SEARCH_SECONDS, limit_search_time
from clustr.database.tag_keys import TagKeys
from clustr.database.term_search import ONLY_ID
from clustr.database.upload_filter import (
    DEFAULT_SORT,
    NO_FILTER,
    UploadFilter,
    include_unkeyed_uploads,
)
from clustr.plugins import Vector
from clustr.plugins.vectors import vector_space

INDEXES = {
    "numbers": {"keys": [("space", 1), ("number", 1)]},
}

# Whoever writes a vector stores the result that names it at once, within the time limit of an
# operation; a later one would find its claim on the analysis lost.
ORPHANED_AFTER = timedelta(minutes=10)
BATCH = 5000
LOWEST_ID = ObjectId(bytes(12))


@dataclass(frozen=True, slots=True)
class NewVector:
    """A vector to be stored.

    Attributes:
        version: of the analyzer.
        data: as `Vector.encode` makes it.
    """

    upload_id: str
    analyzer: str
    version: int
    vector: Vector
    data: bytes


@dataclass(frozen=True, slots=True)
class SpaceState:
    """How much happened in a space: the last number that was given, and how many were removed."""

    last: int
    removed: int


@dataclass(frozen=True, slots=True)
class StoredVector:
    """A stored vector, with the ids as 12 bytes each.

    Attributes:
        owner: that of its upload.
    """

    id: bytes
    upload_id: bytes
    owner: str | None
    number: int
    data: bytes


class Vectors:
    """The collection of vectors, and that of their spaces."""

    def __init__(
        self,
        collection: Collection[Document],
        spaces: Collection[Document],
        uploads: Collection[Document],
        tag_keys: TagKeys,
    ):
        self.collection = collection
        self._spaces = spaces
        self._uploads = uploads
        self._tag_keys = tag_keys
        self._trash = uploads.database[f"{uploads.name}_trash"]
        # What follows, the result, is acknowledged by the journal, and so is what was before it.
        unjournaled = WriteConcern(w=1)
        self._unjournaled = collection.with_options(write_concern=unjournaled)
        self._numbers = spaces.with_options(write_concern=unjournaled)

    def add(self, new: Sequence[NewVector]) -> list[str]:
        """Store vectors; return their ids, in the same order.

        They are no answers before results that name them are stored.
        """
        by_space: dict[str, list[NewVector]] = {}
        for each in new:
            space = vector_space(each.analyzer, each.version, each.vector)
            by_space.setdefault(space, []).append(each)
        documents: dict[int, Document] = {}
        with translate_errors():
            for space, members in by_space.items():
                first = self._take_numbers(space, members[0], len(members))
                documents |= {
                    id(each): {
                        "_id": ObjectId(),
                        "space": space,
                        "number": first + position,
                        "upload": ObjectId(each.upload_id),
                        "data": each.data,
                    }
                    for position, each in enumerate(members)
                }
            if documents:
                self._unjournaled.insert_many(documents.values(), ordered=False)
        return [str(documents[id(each)]["_id"]) for each in new]

    def _take_numbers(self, space: str, example: NewVector, count: int) -> int:
        """Take so many numbers in a space, and return the first of them."""
        about = {
            "analyzer": example.analyzer,
            "field": example.vector.field,
            "version": example.version,
        }
        after = self._numbers.find_one_and_update(
            {"_id": space},
            {"$inc": {"last": count}, "$setOnInsert": {**about, "removed": 0}},
            upsert=True,
            return_document=ReturnDocument.AFTER,
        )
        assert after is not None  # It was made, if it was not there.
        return int(after["last"]) - count + 1

    def remove(self, vector_ids: Iterable[str]) -> int:
        """Remove vectors; return how many there were."""
        keys = [ObjectId(each) for each in vector_ids]
        return self._remove({"_id": {"$in": keys}}) if keys else 0

    def _remove(self, query: Document) -> int:
        """Remove some vectors, and count them in their spaces, so that caches drop them in time."""
        with translate_errors():
            found = list(self.collection.find(query, {"space": 1}))
            if not found:
                return 0
            self._unjournaled.bulk_write(
                [DeleteOne({"_id": each["_id"]}) for each in found], ordered=False
            )
            for space in {each["space"] for each in found}:
                count = sum(each["space"] == space for each in found)
                self._numbers.update_one({"_id": space}, {"$inc": {"removed": count}})
        return len(found)

    def get(self, vector_id: str) -> tuple[str, bytes] | None:
        """The space and the bytes of a vector; None when there is none with this id."""
        with translate_errors():
            found = self.collection.find_one({"_id": ObjectId(vector_id)})
        return (found["space"], found["data"]) if found else None

    def state(self, space: str) -> SpaceState:
        """How much happened in a space so far."""
        with translate_errors():
            found = self._spaces.find_one({"_id": space})
        return SpaceState(found["last"], found["removed"]) if found else SpaceState(0, 0)

    def read(
        self, space: str, after: int, count: int, until: int | None = None
    ) -> list[StoredVector]:
        """Up to `count` vectors of a space, in the order of their numbers.

        Args:
            after: the number after which they begin.
            until: the last number, if there is a limit.
        """
        within: Document = {"$gt": after} | ({} if until is None else {"$lte": until})
        query = {"space": space, "number": within}
        with translate_errors():
            found = self.collection.find(query, {"number": 1, "upload": 1, "data": 1})
            documents = [*found.sort("number", 1).limit(count)]
            owners = self._owners({d["upload"] for d in documents})
        return [
            StoredVector(
                d["_id"].binary, d["upload"].binary, owners[d["upload"]], d["number"], d["data"]
            )
            for d in documents
        ]

    def _owners(self, uploads: set[ObjectId]) -> dict[ObjectId, str | None]:
        """The owners of uploads, which never change; those that are gone have none."""
        owners: dict[ObjectId, str | None] = {}
        has_owner: Document = {OWNER: {"$exists": True}}  # Only those are in the indexes of owners.
        if not any(each.find_one(has_owner, {"_id": 1}) for each in (self._uploads, self._trash)):
            return dict.fromkeys(uploads)
        # One that comes back from the trash between the first two looks is seen by the third.
        for collection in (self._uploads, self._trash, self._uploads):
            if left := uploads - owners.keys():
                found = collection.find({"_id": {"$in": [*left]}}, {OWNER: 1})
                owners |= {document["_id"]: document.get(OWNER) for document in found}
        return dict.fromkeys(uploads) | owners

    def named(
        self,
        uploads: Iterable[bytes],
        analyzer: str,
        field: str,
        upload_filter: UploadFilter | None = None,
    ) -> set[bytes]:
        """The ids of the vectors that results of these uploads name.

        Args:
            uploads: their ids, 12 bytes each, as are those that are returned.
            upload_filter: what the uploads have to meet.
        """
        query = {"_id": {"$in": [ObjectId(each) for each in uploads]}}
        projection = {"analyses.name": 1, f"analyses.vectors.{field}": 1}
        with translate_errors():
            found = self._uploads.find(self._filtered(query, upload_filter), projection)
            return {
                key.binary
                for document in found.hint("_id_")
                for analysis in document.get("analyses", ())
                if analysis.get("name") == analyzer
                and (key := (analysis.get("vectors") or {}).get(field))
            }

    def upload_ids(self, upload_filter: UploadFilter) -> bytes:
        """The ids of all uploads that meet a filter: 12 bytes each, one after the other.

        Raises:
            TooSlow: finding them takes longer than `SEARCH_SECONDS`.
        """
        with limit_search_time(self._uploads, SEARCH_SECONDS):
            query = self._filtered({}, upload_filter)
            batches = self._uploads.find_raw_batches(query, {"_id": 1})
            return b"".join(ONLY_ID.findall(b"".join(cast("Iterable[bytes]", batches))))

    def _filtered(self, query: Document, upload_filter: UploadFilter | None) -> Document:
        if upload_filter is None or upload_filter == NO_FILTER:
            return query
        upload_filter = include_unkeyed_uploads(upload_filter, self._tag_keys)
        return {"$and": [query, filter_query(upload_filter, DEFAULT_SORT)]}

    def existing(self, ids: Iterable[bytes]) -> set[bytes]:
        """Those of these ids (12 bytes each) that are the ids of vectors."""
        query = {"_id": {"$in": [ObjectId(each) for each in ids]}}
        with translate_errors():
            return {found["_id"].binary for found in self.collection.find(query, {"_id": 1})}

    def remove_orphans(self, after: str | None, limit: int = BATCH) -> tuple[str | None, int]:
        """Remove those of the next vectors that belong to no result, unless they are new.

        Returns:
            where to go on, or None at the end, and how many were removed.
        """
        old = ObjectId.from_datetime(now() - ORPHANED_AFTER)
        query = {"_id": {"$gt": ObjectId(after) if after else LOWEST_ID, "$lt": old}}
        with translate_errors():
            found = list(self.collection.find(query, {"upload": 1}).sort("_id", 1).limit(limit))
        left = {document["_id"]: document["upload"] for document in found}
        # One that comes back from the trash between the first two looks is seen by the third.
        for collection in (self._uploads, self._trash, self._uploads):
            if left:
                named = _named_vectors(collection, left.values())
                left = {key: upload for key, upload in left.items() if key not in named}
        removed = self.remove(map(str, left))
        return (str(found[-1]["_id"]) if len(found) == limit else None), removed

    def remove_outdated(self, analyzer: str, version: int, spaces: Sequence[str]) -> int:
        """Remove some vectors of earlier versions of an analyzer, or of other declarations.

        Args:
            version: that of the analyzer; vectors of later ones stay.
            spaces: those of its vectors.

        Returns:
            how many were removed; there may be more of them.
        """
        query = {"analyzer": analyzer, "version": {"$lte": version}, "_id": {"$nin": [*spaces]}}
        return self._remove_spaces(query)

    def forget(self, analyzer: str) -> int:
        """Remove some vectors of an analyzer; return how many, 0 when none is left."""
        return self._remove_spaces({"analyzer": analyzer})

    def _remove_spaces(self, query: Document) -> int:
        with translate_errors():
            spaces = [found["_id"] for found in self._spaces.find(query, {"_id": 1})]
            for space in spaces:
                ids = self.collection.find({"space": space}, {"_id": 1}).limit(BATCH)
                keys = [found["_id"] for found in ids]
                if keys:
                    deleted = self._unjournaled.delete_many({"_id": {"$in": keys}})
                    return deleted.deleted_count
                self._spaces.delete_one({"_id": space})
        return 0

    def results_without(
        self, analyzer: str, fields: Sequence[str], after: str | None, limit: int
    ) -> list[tuple[str, dict[str, Any]]]:
        """The next uploads with a result that has no vectors, each with the result, by their ids.

        Args:
            fields: those of the analyzer's vectors.
        """
        lacking = [{f"vectors.{field}": {"$exists": False}} for field in fields]
        of_analyzer = {"name": analyzer, "result": {"$type": "object"}, "$or": lacking}
        query = {
            "_id": {"$gt": ObjectId(after) if after else LOWEST_ID},
            "analyses": {"$elemMatch": of_analyzer},
        }
        projection = {"analyses": {"$elemMatch": {"name": analyzer}}}
        with translate_errors():
            found = self._uploads.find(query, projection).sort("_id", 1).limit(limit)
            return [(str(d["_id"]), d["analyses"][0]["result"]) for d in found]

    def name(self, new: Sequence[NewVector], ids: Sequence[str], results: Sequence[Any]) -> int:
        """Name stored vectors in the analyses whose results they follow from.

        Args:
            ids, results: of each the id of the vector, and the result that it follows from.

        Returns:
            how many were named; the others had another result by now.
        """
        updates = [
            UpdateOne(
                {
                    "_id": ObjectId(each.upload_id),
                    "analyses": {"$elemMatch": {"name": each.analyzer, "result": result}},
                },
                {"$set": {f"analyses.$.vectors.{each.vector.field}": ObjectId(vector_id)}},
            )
            for each, vector_id, result in zip(new, ids, results, strict=True)
        ]
        with translate_errors():
            return self._uploads.bulk_write(updates, ordered=False).modified_count

    def are_complete(self, space: str) -> bool:
        """Whether all results that were there before the space have their vectors."""
        with translate_errors():
            return self._spaces.find_one({"_id": space, "complete": True}, {"_id": 1}) is not None

    def mark_complete(self, space: str, analyzer: str, field: str, version: int) -> None:
        """Note that all results that were there before the space have their vectors."""
        about = {"analyzer": analyzer, "field": field, "version": version}
        with translate_errors():
            self._spaces.update_one(
                {"_id": space},
                {"$set": {"complete": True}, "$setOnInsert": {**about, "last": 0, "removed": 0}},
                upsert=True,
            )


def _named_vectors(collection: Collection[Document], uploads: Iterable[ObjectId]) -> set[ObjectId]:
    """The ids of the vectors that the analyses of these uploads name."""
    query = {"_id": {"$in": [*{*uploads}]}}
    with translate_errors():
        return {
            key
            for document in collection.find(query, {"analyses.vectors": 1})
            for analysis in document.get("analyses", ())
            for key in (analysis.get("vectors") or {}).values()
        }
