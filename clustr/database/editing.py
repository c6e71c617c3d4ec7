"""Editing: what humans say of an upload, kept apart from what analyzers say.

Their words are in the field `human`, and what the upload would be without them in `found`. The
upload's own fields hold what counts, and follow from both by the same update: whoever lists or
searches reads plain fields.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from bson import ObjectId
from pymongo import ReturnDocument
from pymongo.collection import Collection

from clustr.database.analysis_updates import (
    SEARCHED,
    WORDS,
    effective_fields,
    found_taken_at,
    later_updated_at,
)
from clustr.database.clock import now
from clustr.database.connection import Document, answering
from clustr.database.documents import IS_UPLOAD, from_document, key_of
from clustr.database.not_found import not_found_error
from clustr.database.tag_keys import TagKeys
from clustr.database.tags import TagList, keys_without, with_keys
from clustr.database.versions import ANY_VERSION, Versions, of_version, require_version
from clustr.domain.errors import InvalidInput
from clustr.domain.models import Upload

MOST_TAGS = 100
TOO_MANY = f"At most {MOST_TAGS} tags can be set or added, and as many removed."


@dataclass(frozen=True, slots=True)
class TagEdit:
    """What a human says of the tags: these and no others, or those besides, and those not.

    A tag that is there already, but for the case of its letters, is not added: its spelling stays.

    Attributes:
        set: the only tags; None when some are added or removed.
    """

    set: tuple[str, ...] | None = None
    add: tuple[str, ...] = ()
    remove: tuple[str, ...] = ()


Word = str | datetime | TagEdit


class Editing:
    """Writes down what humans say."""

    def __init__(self, collection: Collection[Document], tag_keys: TagKeys):
        self._collection = collection
        self._tag_keys = tag_keys

    def edit(
        self,
        upload_id: str,
        words: Mapping[str, Word | None],
        versions: Versions = ANY_VERSION,
    ) -> Upload:
        """Write down what a human says of an upload.

        Args:
            words: for `caption`, `original_name`, `tags` and `taken_at`, as far as something is
                said of them; None takes back what was said before.
            versions: of which it may be.

        Returns:
            the upload as it is then.

        Raises:
            InvalidInput: there would be more than `MOST_TAGS` tags of humans.
            NotFound: there is no such upload.
            ForeignRecord: its record is not one that Clustr has written.
            Outdated: it is of none of these versions.
        """
        tags = words.get("tags")
        here = {"_id": key_of(upload_id)}
        room = {"$expr": _has_room(tags)} if isinstance(tags, TagEdit) else {}
        self._tag_keys.complete_these([upload_id])
        with answering():
            changed = self._collection.find_one_and_update(
                {**here, **IS_UPLOAD, **of_version(versions), **room},
                _edited(words),
                return_document=ReturnDocument.AFTER,
            )
            if changed is not None:
                return from_document(changed)
            there = self._collection.find_one(here)
        if there is None:
            raise not_found_error(self._collection, upload_id)
        from_document(there)
        require_version(there, versions)
        raise InvalidInput({"tags": [TOO_MANY]})

    def tag(self, upload_ids: Sequence[str], tags: TagEdit) -> list[str]:
        """Say the same of the tags of several uploads.

        Returns:
            the ids of those that have it so now; others have too many tags, or are not there.
        """
        here = {"_id": {"$in": [ObjectId(upload_id) for upload_id in upload_ids]}}
        with_room = {**here, **IS_UPLOAD, "$expr": _has_room(tags)}
        self._tag_keys.complete_these(upload_ids)
        with answering():
            # What has room for these tags has room for them once more: they are there then.
            self._collection.update_many(with_room, _edited({"tags": tags}))
            return [str(found["_id"]) for found in self._collection.find(with_room, {"_id": 1})]


def _edited(words: Mapping[str, Word | None]) -> list[Document]:
    """The update that writes down what a human says."""
    said = {f"human.{name}": _said(name, words[name]) for name in WORDS if name in words}
    nothing = {"$eq": ["$human", {}]}
    return [
        {"$set": {"found": {"$ifNull": ["$found", {n: f"${n}" for n in (*WORDS, "tag_keys")}]}}},
        {"$set": {"found.taken_at": found_taken_at()}},
        {"$set": said},
        effective_fields(),
        {
            "$set": {
                "human": {"$cond": [nothing, "$$REMOVE", "$human"]},
                "found": {"$cond": [nothing, "$$REMOVE", "$found"]},
                "updated_at": later_updated_at(now()),
            }
        },
        {"$set": {"edited_at": "$updated_at"}},
        *([{"$set": {"words_at": "$updated_at"}}] if words.keys() & {*SEARCHED} else []),
    ]


def _said(name: str, word: Word | None) -> Any:
    if word is None:
        return "$$REMOVE"
    if isinstance(word, TagEdit):
        return _said_of_tags(word)
    return {"$literal": word}


def _said_of_tags(tags: TagEdit) -> Document:
    """What humans have said of the tags when this is said after all that was said before."""
    if tags.set is not None:
        said = with_keys(tags.set)
        return {"$literal": {"set": said["tags"], "set_keys": said["tag_keys"]}}
    only, added = _with("set", tags), _with("added", tags)
    others = {"added": added.tags, "added_keys": added.keys, "removed": _removed(tags)}
    changed = {"set": only.tags, "set_keys": only.keys}
    return {"$cond": [{"$gt": ["$human.tags.set", None]}, changed, others]}


def _with(name: str, tags: TagEdit) -> TagList:
    """A list of what humans said, with what is added, in the upload's spelling."""
    before = TagList.at(f"human.tags.{name}", f"human.tags.{name}_keys")
    new = TagList.of(tags.add).without(before.keys)
    left = before.without({"$literal": with_keys(tags.remove)["tag_keys"]})
    return left.followed_by(new.spelled_as(TagList.at("tags", "tag_keys")))


def _removed(tags: TagEdit) -> Document:
    """The keys of the tags that humans said are not to be there."""
    added, removed = ({"$literal": with_keys(said)["tag_keys"]} for said in (tags.add, tags.remove))
    before = keys_without({"$ifNull": ["$human.tags.removed", []]}, added)
    return {"$concatArrays": [before, keys_without(removed, before)]}


def _has_room(tags: TagEdit) -> Document | bool:
    """An expression for: no list of what humans said gets too long."""
    if tags.set is not None:
        return True
    lists = [_with("set", tags).keys, _with("added", tags).keys, _removed(tags)]
    return {"$and": [{"$lte": [{"$size": each}, MOST_TAGS]} for each in lists]}
