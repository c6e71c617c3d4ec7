"""What is left of analyzers that no plugin brings any more: counting and removing it."""

from collections.abc import Iterable
from dataclasses import dataclass

from pymongo.collection import Collection

from clustr.database.analysis_updates import settle_stages
from clustr.database.connection import Document, translate_errors
from clustr.database.documents import IS_UPLOAD
from clustr.database.indexes import drop_index

BATCH = 500
INDEX_PREFIX = "results."


@dataclass(frozen=True, slots=True)
class LeftBehind:
    """What there is of an analyzer.

    Attributes:
        analyses: how many, with and without results, the trash included.
        vectors: how many.
        indexes: the names of indexes on its results that no installed plugin declares.
    """

    analyses: int
    vectors: int
    indexes: tuple[str, ...]


class Forgetting:
    """Removes the analyses and indexes of an analyzer; `Vectors.forget` removes its vectors."""

    def __init__(
        self,
        uploads: Collection[Document],
        vectors: Collection[Document],
        spaces: Collection[Document],
    ):
        self._uploads = uploads
        self._trash = uploads.database[f"{uploads.name}_trash"]
        self._vectors = vectors
        self._spaces = spaces

    def left_behind(self, analyzer: str, unused_indexes: Iterable[str]) -> LeftBehind:
        """What there is of an analyzer.

        Args:
            unused_indexes: the names of the indexes on results that no installed plugin declares.
        """
        of_analyzer = {"analyses.name": analyzer}
        with translate_errors():
            spaces = self._spaces.distinct("_id", {"analyzer": analyzer})
            return LeftBehind(
                sum(each.count_documents(of_analyzer) for each in (self._uploads, self._trash)),
                self._vectors.count_documents({"space": {"$in": spaces}}),
                tuple(name for name in unused_indexes if self._has_results(analyzer, name)),
            )

    def _has_results(self, analyzer: str, index: str) -> bool:
        """Whether the analyzer has results in this index."""
        field = index.removeprefix(INDEX_PREFIX).partition(":")[0]
        there = {f"analyses.result.{field}": {"$exists": True}}
        query = {
            "analyses": {"$elemMatch": {"name": analyzer, f"result.{field}": {"$exists": True}}}
        }
        found = self._uploads.find(query | there, {"_id": 1}).hint(index).limit(1)
        return next(iter(found), None) is not None

    def drop_indexes(self, names: Iterable[str]) -> None:
        """Drop indexes on results."""
        with translate_errors():
            for name in names:
                drop_index(self._uploads, name)

    def remove_analyses(self, analyzer: str) -> int:
        """Remove some analyses of an analyzer; return how many, 0 when none is left.

        What waits for one of them is skipped. Fields of uploads that it has filled stay.
        """
        others = {"$filter": {"input": "$analyses", "cond": {"$ne": ["$$this.name", analyzer]}}}
        update = [{"$set": {"analyses": others}}, *settle_stages([analyzer])]
        query = {"analyses.name": analyzer, **IS_UPLOAD}
        with translate_errors():
            for collection in (self._uploads, self._trash):
                ids = [d["_id"] for d in collection.find(query, {"_id": 1}).limit(BATCH)]
                if ids:
                    selected = {"_id": {"$in": ids}, **query}
                    return collection.update_many(selected, update).modified_count
        return 0
