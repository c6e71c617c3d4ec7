"""Editing: what people write about an upload, stored apart from what analyzers write.

The field `human` holds the edits, and `found` what the upload's fields would be without them. The
same update derives the upload's own fields from both, so that listing and searching read plain
fields.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from bson import ObjectId
from pymongo import ReturnDocument
from pymongo.collection import Collection

from clustr.database.analysis_updates import (
    DUE_TERMS,
    EDITABLE_FIELDS,
    analyzer_taken_at,
    effective_fields_stage,
    next_updated_at,
)
from clustr.database.clock import now
from clustr.database.connection import Document, translate_errors
from clustr.database.documents import IS_UPLOAD, from_document, parse_id
from clustr.database.local_dates import LOCAL_DATE, SORT_DATE, local_date_stages
from clustr.database.not_found import not_found_error
from clustr.database.search_terms import SearchTerms
from clustr.database.tag_keys import TagKeys
from clustr.database.tags import TagList, exclude_keys, tag_fields
from clustr.database.versions import ANY_VERSION, Versions, require_version, version_query
from clustr.domain.edits import Edit, TagEdit
from clustr.domain.errors import InvalidInput
from clustr.domain.models import NewUpload, Upload

MAX_TAGS = 100
TOO_MANY_TAGS = f"At most {MAX_TAGS} tags can be set or added, and as many removed."


class Editing:
    """Stores the edits of uploads."""

    def __init__(
        self, collection: Collection[Document], tag_keys: TagKeys, search_terms: SearchTerms
    ):
        self._collection = collection
        self._tag_keys = tag_keys
        self._search_terms = search_terms

    def edit(
        self,
        upload_id: str,
        changes: Edit,
        versions: Versions = ANY_VERSION,
    ) -> Upload:
        """Edit an upload.

        Args:
            changes: new values for some of `caption`, `original_name`, `tags` and `taken_at`; None
                undoes earlier edits of the field.
            versions: the versions of the upload to which the change may be made.

        Returns:
            the upload after the change.

        Raises:
            InvalidInput: there would be more than `MAX_TAGS` edited tags.
            NotFound: there is no such upload.
            ForeignRecord: its record is not one that Clustr has written.
            Outdated: the upload has another version.
        """
        tags = changes.get("tags")
        query = {"_id": parse_id(upload_id)}
        room = {"$expr": _has_room(tags)} if isinstance(tags, TagEdit) else {}
        self._tag_keys.add_missing([upload_id])
        with translate_errors():
            changed = self._collection.find_one_and_update(
                {**query, **IS_UPLOAD, **version_query(versions), **room},
                _edit_stages(changes),
                return_document=ReturnDocument.AFTER,
            )
            existing = None if changed else self._collection.find_one(query)
        if changed is not None:
            self._search_terms.update([upload_id])
            return from_document(changed)
        if existing is None:
            raise not_found_error(self._collection, upload_id)
        from_document(existing)
        require_version(existing, versions)
        raise InvalidInput({"tags": [TOO_MANY_TAGS]})

    def edit_tags(self, upload_ids: Sequence[str], tags: TagEdit) -> list[str]:
        """Edit the tags of several uploads.

        Returns:
            the ids of the edited uploads; the others have too many tags, or do not exist.
        """
        query = {"_id": {"$in": [ObjectId(upload_id) for upload_id in upload_ids]}}
        with_room = {**query, **IS_UPLOAD, "$expr": _has_room(tags)}
        self._tag_keys.add_missing(upload_ids)
        with translate_errors():
            # An upload that had room for these tags still matches: adding them again adds nothing.
            self._collection.update_many(with_room, _edit_stages({"tags": tags}))
            edited = [str(found["_id"]) for found in self._collection.find(with_room, {"_id": 1})]
        self._search_terms.update(edited)
        return edited


def _edit_stages(changes: Edit) -> list[Document]:
    """The stages of the update that stores an edit."""
    edits = {
        f"human.{name}": _human_value(name, changes[name])
        for name in EDITABLE_FIELDS
        if name in changes
    }
    if "taken_at" in changes:
        edits["human.taken_at_local"] = _human_value("taken_at", _local_time(changes["taken_at"]))
    nothing = {"$eq": ["$human", {}]}
    return [
        {
            "$set": {
                "found": {
                    "$ifNull": ["$found", {n: f"${n}" for n in (*EDITABLE_FIELDS, "tag_keys")}]
                }
            }
        },
        {"$set": {"found.taken_at": analyzer_taken_at()}},
        {"$set": edits},
        effective_fields_stage(),
        *(local_date_stages() if "taken_at" in changes else []),
        {
            "$set": {
                "human": {"$cond": [nothing, "$$REMOVE", "$human"]},
                "found": {"$cond": [nothing, "$$REMOVE", "$found"]},
                "updated_at": next_updated_at(now()),
            }
        },
        {"$set": {"edited_at": "$updated_at"}},
        {"$set": {"words_at": "$updated_at", "search.terms": DUE_TERMS}},
    ]


def fields_of_new_upload(upload: NewUpload) -> Document:
    """The fields that the edit of an upload adds to its new document.

    They are what `_edit_stages` makes of an upload that no analyzer has seen.
    """
    words: Document = {name: word for name, word in upload.edit.items() if word is not None}
    if not words:
        return {}
    human = {**words}
    fields = {**tag_fields(()), **words}
    if isinstance(tags := words.get("tags"), TagEdit):
        fields |= tag_fields(tags.add if tags.set is None else tags.set)
        human["tags"] = _human_tags_of_new(tags, fields)
    if "taken_at" in words:
        local = human["taken_at_local"] = _local_time(words["taken_at"])
        fields |= dict.fromkeys((LOCAL_DATE, SORT_DATE), local)
    found = {"original_name": upload.original_name, "taken_at": None}
    times = dict.fromkeys(("edited_at", "words_at"), upload.updated_at)
    return {**fields, "human": human, "found": found, **times}


def _human_tags_of_new(tags: TagEdit, fields: Document) -> Document:
    if tags.set is not None:
        return {"set": fields["tags"], "set_keys": fields["tag_keys"]}
    removed = tag_fields(tags.remove)["tag_keys"]
    return {"added": fields["tags"], "added_keys": fields["tag_keys"], "removed": removed}


def _local_time(moment: object) -> datetime | None:
    """A time with its time zone as clocks there showed it; stored as if that were UTC."""
    return moment.replace(tzinfo=UTC) if isinstance(moment, datetime) else None


def _human_value(name: str, word: str | datetime | TagEdit | None) -> Any:
    if word is None:
        return "$$REMOVE"
    if isinstance(word, TagEdit):
        return _human_tags(word)
    return {"$literal": word}


def _human_tags(tags: TagEdit) -> Document:
    """An expression for `human.tags` after this edit, on top of all earlier ones."""
    if tags.set is not None:
        fields = tag_fields(tags.set)
        return {"$literal": {"set": fields["tags"], "set_keys": fields["tag_keys"]}}
    only, added = _edited_list("set", tags), _edited_list("added", tags)
    others = {"added": added.tags, "added_keys": added.keys, "removed": _removed_keys(tags)}
    changed = {"set": only.tags, "set_keys": only.keys}
    return {"$cond": [{"$gt": ["$human.tags.set", None]}, changed, others]}


def _edited_list(name: str, tags: TagEdit) -> TagList:
    """One of the lists in `human.tags` after this edit, in the spelling of the upload's tags."""
    before = TagList.from_fields(f"human.tags.{name}", f"human.tags.{name}_keys")
    new = TagList.from_tags(tags.add).without(before.keys)
    left = before.without({"$literal": tag_fields(tags.remove)["tag_keys"]})
    return left.followed_by(new.spelled_as(TagList.from_fields("tags", "tag_keys")))


def _removed_keys(tags: TagEdit) -> Document:
    """An expression for the keys of the removed tags after this edit."""
    added, removed = (
        {"$literal": tag_fields(tags_of_edit)["tag_keys"]}
        for tags_of_edit in (tags.add, tags.remove)
    )
    before = exclude_keys({"$ifNull": ["$human.tags.removed", []]}, added)
    return {"$concatArrays": [before, exclude_keys(removed, before)]}


def _has_room(tags: TagEdit) -> Document | bool:
    """An expression for whether no list in `human.tags` gets longer than `MAX_TAGS`."""
    if tags.set is not None:
        return True
    lists = [_edited_list("set", tags).keys, _edited_list("added", tags).keys, _removed_keys(tags)]
    return {"$and": [{"$lte": [{"$size": each}, MAX_TAGS]} for each in lists]}
