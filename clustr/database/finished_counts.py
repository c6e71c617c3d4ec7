"""Finished counts: which writes to the uploads each count has seen, whoever has made it.

Counting takes long where there are many uploads, and any process may count next: each finds here
whether there is anything to count.
"""

from pymongo.collection import Collection

from clustr.database.change_watch import ChangeWatch, Position
from clustr.database.connection import Document, translate_errors


class FinishedCounts:
    """Says which counts of the uploads are outdated.

    Args:
        uploads: what is counted.
        collection: the collection with a document for each count.
    """

    def __init__(self, uploads: Collection[Document], collection: Collection[Document]):
        self._watch = ChangeWatch(uploads)
        self._collection = collection
        self._began_at: dict[str, Position | None] = {}
        # Where each count began, and where this process has seen that nothing was written since:
        # the oplog may no longer reach back to the first.
        self._unchanged: dict[str, tuple[Position, Position]] = {}

    def begin(self, name: str) -> None:
        """Note that this process begins a count: it has whatever was written so far."""
        self._began_at[name] = self._watch.position()

    def finish(self, name: str, form: str) -> None:
        """Store for all processes that the count which began last has been made.

        Args:
            form: whatever the count depends on besides the uploads, such as a version.
        """
        document = {"form": form, "began_at": self._began_at.pop(name)}
        with translate_errors():
            self._collection.replace_one({"_id": name}, document, upsert=True)

    def is_outdated(self, name: str, form: str) -> bool:
        """Whether the uploads, or what else a count depends on, may have changed since it began."""
        with translate_errors():
            found = self._collection.find_one({"_id": name, "form": form})
        if found is None:
            return True
        began_at: Position = found["began_at"]
        before, seen = self._unchanged.get(name, (None, None))
        unchanged_until = self._watch.unchanged_until(seen if before == began_at else began_at)
        if unchanged_until is None:
            return True
        self._unchanged[name] = began_at, unchanged_until
        return False
