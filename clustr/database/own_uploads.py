"""The uploads of one owner, as a collection that has no others.

The modules of this package ask a collection of uploads without knowing whose they are to see. Given
an `OwnUploads` in place of the collection itself, each of their queries finds what the owner
brought, and nothing else. What this class does not have cannot be called: a new kind of query fails
until it is added here. docs/decisions/ownership.md has the reasons.

An index by which uploads are listed has another beside it that begins with the owner. Modules name
the first in their hints, and here the second is taken.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

from pymongo.collection import Collection
from pymongo.cursor import Cursor
from pymongo.database import Database as MongoDatabase
from pymongo.results import DeleteResult, InsertManyResult, UpdateResult

from clustr.database.connection import Document
from clustr.database.documents import OWNER

# Indexes of few uploads each, that are used whoever asks; those on results are used so, too.
INDEXES_FOR_ALL = ("_id_", "of_job", "runs", "work")
RESULTS_PREFIX = "results."
# Stages of an aggregation that read or write other documents than those that come in; a union with
# this very collection is made one with the documents of the owner.
UNION = "$unionWith"
STAGES_BEYOND = ("$collStats", "$facet", "$graphLookup", "$lookup", "$merge", "$out", UNION)


def indexes_of_owners(indexes: Mapping[str, Document]) -> dict[str, Document]:
    """For these indexes those that begin with the owner; uploads without one are not in them."""
    return {
        _name_for_owners(name): {
            "keys": [(OWNER, 1), *index["keys"]],
            "partialFilterExpression": {
                **index.get("partialFilterExpression", {}),
                OWNER: {"$exists": True},
            },
        }
        for name, index in indexes.items()
    }


def _name_for_owners(index: str) -> str:
    if index in INDEXES_FOR_ALL or index.startswith(RESULTS_PREFIX):
        return index
    return f"own_{index}"


def own_uploads(collection: Collection[Document], owner: str) -> Collection[Document]:
    """The documents of a collection that belong to an owner, as far as they can be used as one."""
    return cast("Collection[Document]", OwnUploads(collection, owner))


class OwnUploads:
    """The documents of one owner; the methods are those of a collection of PyMongo."""

    def __init__(self, collection: Collection[Document], owner: str):
        self._collection = collection
        self._owner = owner
        self.name = collection.name

    @property
    def database(self) -> "OwnDatabase":
        return OwnDatabase(self._collection.database, self._owner)

    def with_options(self, **options: Any) -> "OwnUploads":
        return OwnUploads(self._collection.with_options(**options), self._owner)

    def _own(self, query: Mapping[str, Any]) -> Document:
        return {**query, OWNER: self._owner}

    def _require_own(self, document: Mapping[str, Any]) -> None:
        if document.get(OWNER) != self._owner:
            raise ValueError("a document of another owner was to be written")

    def find(self, query: Document, *more: Any, **options: Any) -> "OwnCursor":
        found = self._collection.find(self._own(query), *more, **_with_own_hint(options))
        return OwnCursor(found, self._owner)

    def find_raw_batches(self, query: Document, *more: Any, **options: Any) -> Iterator[bytes]:
        found = self._collection.find_raw_batches(
            self._own(query), *more, **_with_own_hint(options)
        )
        return iter(found)

    def find_one(self, query: Document, *more: Any, **options: Any) -> Document | None:
        return self._collection.find_one(self._own(query), *more, **_with_own_hint(options))

    def count_documents(self, query: Document, **options: Any) -> int:
        return self._collection.count_documents(self._own(query), **_with_own_hint(options))

    def aggregate(self, stages: Sequence[Document], **options: Any) -> Iterator[Document]:
        return self._collection.aggregate(self._own_stages(stages), **_with_own_hint(options))

    def _own_stages(self, stages: Sequence[Document]) -> list[Document]:
        return [{"$match": self._own({})}, *map(self._own_stage, stages)]

    def _own_stage(self, stage: Document) -> Document:
        if (union := stage.get(UNION)) and union.get("coll") == self.name:
            return {UNION: {**union, "pipeline": self._own_stages(union["pipeline"])}}
        for name in stage:
            if name in STAGES_BEYOND:
                raise ValueError(f"{name} reads documents of other owners")
        return stage

    def index_information(self) -> Mapping[str, Any]:
        return self._collection.index_information()

    def find_one_and_update(
        self, query: Document, update: Any, projection: Any = None, **options: Any
    ) -> Document | None:
        return self._collection.find_one_and_update(self._own(query), update, projection, **options)

    def insert_many(self, documents: Sequence[Document]) -> InsertManyResult:
        for document in documents:
            self._require_own(document)
        return self._collection.insert_many(documents)

    def update_one(self, query: Document, update: Any, **options: Any) -> UpdateResult:
        return self._collection.update_one(self._own(query), update, **options)

    def update_many(self, query: Document, update: Any, **options: Any) -> UpdateResult:
        return self._collection.update_many(self._own(query), update, **_with_own_hint(options))

    def replace_one(self, query: Document, new: Document, **options: Any) -> UpdateResult:
        self._require_own(new)
        return self._collection.replace_one(self._own(query), new, **options)

    def delete_one(self, query: Document, **options: Any) -> DeleteResult:
        return self._collection.delete_one(self._own(query), **options)


class OwnDatabase:
    """The database of a collection, whose other collections have no documents of others either."""

    def __init__(self, database: MongoDatabase[Document], owner: str):
        self._database = database
        self._owner = owner
        self.client = database.client

    def __getitem__(self, name: str) -> OwnUploads:
        return OwnUploads(self._database[name], self._owner)

    def command(self, name: str) -> Document:
        """Run a command that reads nothing of any collection."""
        if name != "ping":
            raise ValueError(f"{name} is not for a view of a part of the uploads")
        return self._database.command(name)


class OwnCursor:
    """A cursor of PyMongo, which takes the names and ranges of indexes for those of owners."""

    def __init__(self, cursor: Cursor[Document], owner: str):
        self._cursor = cursor
        self._owner = owner

    def __iter__(self) -> Iterator[Document]:
        return iter(self._cursor)

    def clone(self) -> "OwnCursor":
        return OwnCursor(self._cursor.clone(), self._owner)

    def sort(self, *order: Any) -> "OwnCursor":
        self._cursor.sort(*order)
        return self

    def skip(self, count: int) -> "OwnCursor":
        self._cursor.skip(count)
        return self

    def limit(self, count: int) -> "OwnCursor":
        self._cursor.limit(count)
        return self

    def hint(self, index: str) -> "OwnCursor":
        self._cursor.hint(_name_for_owners(index))
        return self

    def min(self, key: Sequence[tuple[str, Any]]) -> "OwnCursor":
        self._cursor.min([(OWNER, self._owner), *key])
        return self

    def max(self, key: Sequence[tuple[str, Any]]) -> "OwnCursor":
        self._cursor.max([(OWNER, self._owner), *key])
        return self


def _with_own_hint(options: Document) -> Document:
    if hint := options.get("hint"):
        return {**options, "hint": _name_for_owners(hint)}
    return options
