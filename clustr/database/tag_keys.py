"""Migration of uploads of an older version that lack tag keys: one pass in the background.

That version had indexes on the tags themselves. They are dropped once every upload has tag keys, so
their absence means that the migration is complete. Until then, filters by tag also match uploads
without keys, and a change of an upload's tags adds the keys first.
"""

from collections.abc import Iterator, Sequence
from contextlib import suppress

from bson import ObjectId
from pymongo import UpdateOne
from pymongo.collection import Collection

from clustr.database.analysis_updates import effective_fields_stage, next_updated_at
from clustr.database.clock import now
from clustr.database.connection import Document, translate_errors
from clustr.database.documents import IS_UPLOAD, MALFORMED_RECORD_ERRORS
from clustr.database.id_ranges import id_ranges
from clustr.database.indexes import drop_index
from clustr.database.tags import missing_key_fields

# While the last of them exists, there may be uploads without keys.
OLD_INDEXES = ("tags_by_name", "tags_by_size", "tags_by_taken_at", "tags_by_upload_time")
WITHOUT_KEYS: Document = {"tags": {"$exists": True}, "tag_keys": None}
PROJECTION = {"tags": 1, "found.tags": 1, "human.tags": 1, "updated_at": 1}


class TagKeys:
    """Adds tag keys to uploads, including those in the trash."""

    def __init__(self, uploads: Collection[Document]):
        self._uploads = uploads
        self._trash = uploads.database[f"{uploads.name}_trash"]
        self._all_have_keys = False

    def are_complete(self) -> bool:
        """Whether all uploads have tag keys. Once true, it stays true."""
        if not self._all_have_keys:
            with translate_errors():
                self._all_have_keys = OLD_INDEXES[-1] not in self._uploads.index_information()
        return self._all_have_keys

    def add_missing(self, upload_ids: Sequence[str]) -> None:
        """Add the tag keys of these uploads, also in the trash, where they lack them."""
        if not upload_ids or self.are_complete():
            return
        query = {"_id": {"$in": [ObjectId(upload_id) for upload_id in upload_ids]}}
        with translate_errors():
            for collection in (self._uploads, self._trash):
                while _add_missing_keys(collection, query):
                    pass

    def add_all_missing(self) -> Iterator[int]:
        """Add the tag keys of all uploads, some of them with each step.

        Yields:
            how many uploads lacked them.
        """
        if self.are_complete():
            return
        # An upload that moves into the trash meanwhile is seen there; a restored one has keys.
        for collection in (self._uploads, self._trash):
            lacked = True
            while lacked:  # Uploads that changed meanwhile are left to the next turn.
                lacked = False
                for query in id_ranges(collection):
                    with translate_errors():
                        count = _add_missing_keys(collection, query)
                    lacked = lacked or count > 0
                    yield count
        with translate_errors():
            for name in OLD_INDEXES:
                drop_index(self._uploads, name)


def _add_missing_keys(collection: Collection[Document], query: Document) -> int:
    """Add tag keys to those of these uploads that lack them; return how many lacked them."""
    updates = []
    for document in collection.find({**query, **WITHOUT_KEYS, **IS_UPLOAD}, PROJECTION).hint(
        "_id_"
    ):
        with suppress(*MALFORMED_RECORD_ERRORS):  # Foreign records are left as they are.
            keys = {
                name: {"$literal": value} for name, value in missing_key_fields(document).items()
            }
            unchanged = {
                "_id": document["_id"],
                "updated_at": document["updated_at"],
                **WITHOUT_KEYS,
            }
            updates.append(
                UpdateOne(
                    unchanged, [{"$set": keys}, effective_fields_stage(), _touch_stage(document)]
                )
            )
    if updates:
        collection.bulk_write(updates, ordered=False)
    return len(updates)


def _touch_stage(document: Document) -> Document:
    """The stage that changes `updated_at` if the tags have changed."""
    same = {"$eq": ["$tags", {"$literal": document["tags"]}]}
    return {"$set": {"updated_at": {"$cond": [same, "$updated_at", next_updated_at(now())]}}}
