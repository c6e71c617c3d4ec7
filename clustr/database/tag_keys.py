"""The keys of tags, for uploads of a version that had none: they are made once, in the background.

That version had indexes on the tags themselves. They are left until every upload has the keys, and
so tell whether all have. Until then who looks for a tag looks at the others as well, and who is
about to change the tags of an upload makes its keys first.
"""

from collections.abc import Iterator, Sequence
from contextlib import suppress

from bson import ObjectId
from pymongo import UpdateOne
from pymongo.collection import Collection

from clustr.database.analysis_updates import effective_fields, later_updated_at
from clustr.database.clock import now
from clustr.database.connection import Document, answering
from clustr.database.documents import IS_UPLOAD, UNLIKE_AN_UPLOAD
from clustr.database.indexes import drop_index
from clustr.database.tags import keys_missing

BEFORE_ALL = ObjectId(bytes(12))
LOOKED_AT_ONCE = 2000
# While the last of them is there, there may be uploads without keys.
OLD_INDEXES = ("tags_by_name", "tags_by_size", "tags_by_taken_at", "tags_by_upload_time")
LACKING: Document = {"tags": {"$exists": True}, "tag_keys": None}
READ = {"tags": 1, "found.tags": 1, "human.tags": 1, "updated_at": 1}


class TagKeys:
    """Makes the keys of the tags of uploads, and of what is in the trash."""

    def __init__(self, uploads: Collection[Document]):
        self._uploads = uploads
        self._trash = uploads.database[f"{uploads.name}_trash"]
        self._complete = False

    def are_complete(self) -> bool:
        """Whether all uploads have them, which stays so."""
        if not self._complete:
            with answering():
                self._complete = OLD_INDEXES[-1] not in self._uploads.index_information()
        return self._complete

    def complete_these(self, upload_ids: Sequence[str]) -> None:
        """Make those of these uploads, wherever they are, should they lack them."""
        if not upload_ids or self.are_complete():
            return
        here = {"_id": {"$in": [ObjectId(upload_id) for upload_id in upload_ids]}}
        with answering():
            for collection in (self._uploads, self._trash):
                while _complete(collection, here):
                    pass

    def walk(self) -> Iterator[int]:
        """Make those of all uploads, some of them with each step.

        Yields:
            how many uploads lacked them.
        """
        if self.are_complete():
            return
        # What is moved into the trash meanwhile is seen there; what is restored has them.
        for collection in (self._uploads, self._trash):
            lacked = True
            while lacked:  # What is changed at the same moment is left to the next time.
                lacked = False
                for here in _ranges(collection):
                    with answering():
                        count = _complete(collection, here)
                    lacked = lacked or count > 0
                    yield count
        with answering():
            for name in OLD_INDEXES:
                drop_index(self._uploads, name)


def _ranges(collection: Collection[Document]) -> Iterator[Document]:
    """Queries for all uploads that there are now, for some with each."""
    after = BEFORE_ALL
    while True:
        here: Document = {"_id": {"$gt": after}}
        with answering():
            ends = collection.find(here, {"_id": 1}).sort("_id", 1).skip(LOOKED_AT_ONCE - 1)
            end = next(iter(ends.limit(1)), None)
        if end is None:
            yield here
            return
        yield {"_id": {"$gt": after, "$lte": end["_id"]}}
        after = end["_id"]


def _complete(collection: Collection[Document], here: Document) -> int:
    """Make the keys of those of these uploads that lack them; how many did."""
    updates = []
    for document in collection.find({**here, **LACKING, **IS_UPLOAD}, READ).hint("_id_"):
        with suppress(*UNLIKE_AN_UPLOAD):  # What others have written is left as it is.
            keys = {name: {"$literal": value} for name, value in keys_missing(document).items()}
            unchanged = {"_id": document["_id"], "updated_at": document["updated_at"], **LACKING}
            updates.append(
                UpdateOne(unchanged, [{"$set": keys}, effective_fields(), _seen(document)])
            )
    if updates:
        collection.bulk_write(updates, ordered=False)
    return len(updates)


def _seen(document: Document) -> Document:
    """The stage by which the upload is another one where it shows other tags than before."""
    same = {"$eq": ["$tags", {"$literal": document["tags"]}]}
    return {"$set": {"updated_at": {"$cond": [same, "$updated_at", later_updated_at(now())]}}}
