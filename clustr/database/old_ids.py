"""Old ids: which upload was taken over from which one of the predecessor."""

from bson import ObjectId
from pymongo.collection import Collection

from clustr.database.connection import Document, translate_errors

INDEXES: dict[str, Document] = {"filename": {"keys": [("filename", 1)]}}


class OldIds:
    """The collection of old ids; each has the name of the old file, too.

    Args:
        uploads: those that may be found.
    """

    def __init__(self, collection: Collection[Document], uploads: Collection[Document]):
        self._collection = collection
        self._uploads = uploads

    def add(self, old_id: str, filename: str, upload_id: str) -> None:
        """Note what has become of an upload of the predecessor."""
        document = {"filename": filename, "upload_id": ObjectId(upload_id)}
        with translate_errors():
            self._collection.replace_one({"_id": old_id}, document, upsert=True)

    def has(self, old_id: str) -> bool:
        """Whether it was taken over, also when that upload has been removed since."""
        with translate_errors():
            return self._collection.find_one({"_id": old_id}) is not None

    def find(self, old_id: str) -> str | None:
        """The id of the upload that has this old id; None when there is none, or no more."""
        return self._find({"_id": old_id})

    def find_by_filename(self, filename: str) -> str | None:
        """The id of the upload whose file the predecessor stored under this name."""
        return self._find({"filename": filename})

    def _find(self, query: Document) -> str | None:
        with translate_errors():
            found = self._collection.find_one(query)
            # It is asked for in any case, so that an old id of somebody else takes no longer than
            # one that never existed.
            upload_id = found["upload_id"] if found else ObjectId()
            upload = self._uploads.find_one({"_id": upload_id}, {"_id": 1})
        return str(upload["_id"]) if upload else None
