"""The terms of uploads: what a search looks at, derived from the words of each upload.

`search` holds the terms and the text of `clustr.search.terms.UploadTerms`, and by which rules and
languages they were made (`version`). A new upload is inserted with them. A change of words sets
`DUE_TERM` in the same update, because MongoDB computes what they are in the end (see
`clustr.database.analysis_updates.effective_fields_stage`), and only Python can make terms. Whoever
changed them calls `update` next. If that process dies in between, `update_due` makes up for it, as
it does for new uploads of a process of an older release that still runs.

`update_all` makes the terms of all uploads that lack them or have those of another version.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any

from bson import ObjectId
from pymongo import UpdateOne, WriteConcern
from pymongo.collection import Collection

from clustr.database.analysis_updates import DUE_TERM, EDITABLE_FIELDS
from clustr.database.clock import now
from clustr.database.connection import Document, translate_errors
from clustr.database.documents import LOOKS_LIKE_UPLOAD, MALFORMED_RECORD_ERRORS
from clustr.database.indexes import drop_index
from clustr.database.local_dates import LOCAL_DATE
from clustr.database.search_conditions import TERMS_INDEX
from clustr.database.vocabulary import Vocabulary
from clustr.search.terms import Stemming

# What says which day it was where the picture was taken.
LOCAL_TIME_FIELDS = (
    LOCAL_DATE,
    *("human.taken_at", "human.taken_at_local"),
    *("analyses.result.taken_at", "analyses.result.taken_at_local"),
)
INDEXES: dict[str, Document] = {
    # The uploads with a term are in the order of the list of all.
    TERMS_INDEX: {"keys": [("search.terms", 1), ("upload_time", -1), ("_id", -1)]},
}
OLD_INDEX = "words"  # Releases before searched by it; dropped when all uploads have terms.
IS_DUE: Document = {"search.terms": DUE_TERM}
LACKS_TERMS: Document = {"search.terms": None, **LOOKS_LIKE_UPLOAD}
BATCH = 500
RECENT = timedelta(days=1)
HIGHEST_ID = ObjectId(b"\xff" * 12)


@dataclass(frozen=True, slots=True)
class TermsProgress:
    """How far the terms of all uploads are made.

    Attributes:
        done, total: numbers of uploads.
    """

    done: int
    total: int


class SearchTerms:
    """Makes and stores the terms of uploads.

    Args:
        uploads: the collection of uploads.
        state: a collection that holds how far `update_all` is.
        vocabulary: gets all terms that are made.
        languages: the languages whose words are stemmed; keys of `clustr.search.terms.LANGUAGES`.
    """

    def __init__(
        self,
        uploads: Collection[Document],
        state: Collection[Document],
        vocabulary: Vocabulary,
        languages: Sequence[str],
    ):
        self.stemming = Stemming(languages)
        self._uploads = uploads
        self._trash = uploads.database[f"{uploads.name}_trash"]
        # What is lost in a crash is still due.
        self._unjournaled = uploads.with_options(write_concern=WriteConcern(w=1, j=False))
        self._state = state
        self._vocabulary = vocabulary

    def of_new(self, words: Mapping[str, Any]) -> Document:
        """The field `search` for a new upload with these `EDITABLE_FIELDS`."""
        made = self._of_words(words)
        self._vocabulary.add(made["terms"])
        return made

    def _of_words(self, words: Mapping[str, Any]) -> Document:
        """The field `search` for these `EDITABLE_FIELDS`.

        Raises:
            AttributeError, TypeError: they are of a foreign record.
        """
        made = self.stemming.terms_of_upload(
            words["original_name"],
            words.get("caption"),
            words.get("tags") or (),
            _taken_on(words),
        )
        return {"terms": list(made.terms), "text": made.text, "version": self.stemming.version}

    def update(self, upload_ids: Sequence[str]) -> None:
        """Store the terms of those of these uploads whose words have changed."""
        keys = [ObjectId(upload_id) for upload_id in upload_ids]
        with translate_errors():
            for first in range(0, len(keys), BATCH):
                query = {"_id": {"$in": keys[first : first + BATCH]}, **IS_DUE}
                self._update(self._unjournaled, query)

    def update_due(self) -> int:
        """Store the terms of some uploads whose words have changed, or that are `RECENT` and new.

        Returns:
            of how many; 0 when none is left.
        """
        recent = {"upload_time": {"$gte": now() - RECENT}, **LACKS_TERMS}
        made = 0
        with translate_errors():
            for due in (IS_DUE, recent):
                found = self._uploads.find(due, {"_id": 1}).hint(TERMS_INDEX).limit(BATCH)
                if keys := [document["_id"] for document in found]:
                    made += self._update(self._uploads, {"_id": {"$in": keys}, **due})
        return made

    def update_all(self) -> Iterator[int]:
        """Store the terms of all uploads without terms of this version, the newest first.

        It goes on where the last process that did it has stopped, and includes the trash.

        Yields:
            how many lacked them, batch by batch.
        """
        version = self.stemming.version
        with translate_errors():
            state = self._state.find_one({"_id": "terms"}) or {}
            if state.get("version") != version:
                total = self._uploads.estimated_document_count()
                state = {"version": version, "done": 0, "total": total, "before": HIGHEST_ID}
                self._state.replace_one({"_id": "terms"}, state, upsert=True)
        while state.get("before") is not None:
            with translate_errors():
                below = {"_id": {"$lt": state["before"]}}
                ends = self._uploads.find(below, {"_id": 1}).sort("_id", -1).skip(BATCH - 1)
                end = next(iter(ends.limit(1)), None)
                within = {"$lt": state["before"], **({"$gte": end["_id"]} if end else {})}
                made = self._update(self._uploads, self._outdated({"_id": within}))
                if end is None:
                    made += self._update_trash()
                state["before"] = end["_id"] if end else None
                state["done"] += BATCH if end else 0
                self._state.update_one(
                    {"_id": "terms", "version": version},
                    {"$set": {name: state[name] for name in ("before", "done")}},
                )
                if end is None:
                    drop_index(self._uploads, OLD_INDEX)
            yield made

    def progress(self) -> TermsProgress | None:
        """How far `update_all` is; None when all uploads have terms of this version."""
        with translate_errors():
            state = self._state.find_one({"_id": "terms"})
            if state is None or state["version"] != self.stemming.version:
                total = self._uploads.estimated_document_count()
                return TermsProgress(0, total) if total else None
        if state["before"] is None:
            return None
        return TermsProgress(min(state["done"], state["total"]), state["total"])

    def _outdated(self, query: Document) -> Document:
        other = {"search.version": {"$ne": self.stemming.version}}
        return {"$and": [query, other, LOOKS_LIKE_UPLOAD]}

    def _update_trash(self) -> int:
        made = 0
        after: Document = {}
        while True:
            found = self._trash.find(after, {"_id": 1}).sort("_id", 1).limit(BATCH)
            keys = [document["_id"] for document in found]
            if not keys:
                return made
            made += self._update(self._trash, self._outdated({"_id": {"$in": keys}}))
            after = {"_id": {"$gt": keys[-1]}}

    def _update(self, collection: Collection[Document], query: Document) -> int:
        """Store the terms of the uploads that match; return of how many."""
        updates, terms = [], set[str]()
        projection = dict.fromkeys((*EDITABLE_FIELDS, *LOCAL_TIME_FIELDS), 1)
        for document in collection.find(query, projection).hint("_id_"):
            with suppress(*MALFORMED_RECORD_ERRORS):  # Foreign records are left as they are.
                made = self._of_words(document)
                terms.update(made["terms"])
                # Whoever has changed a word since then makes the terms of that.
                same = {name: document.get(name) for name in EDITABLE_FIELDS}
                updates.append(
                    UpdateOne({"_id": document["_id"], **same}, {"$set": {"search": made}})
                )
        self._vocabulary.add(terms)
        return collection.bulk_write(updates, ordered=False).modified_count if updates else 0


def _taken_on(document: Mapping[str, Any]) -> date | None:
    """The day on which a picture was taken, where it was taken as far as that is known."""
    taken_at: datetime | None = document.get("taken_at")
    if taken_at is None:
        return None
    local: datetime | None = document.get(LOCAL_DATE)
    if local is not None:
        return local.date()
    # An upload of an older version may lack it.
    edits = document.get("human") or {}
    if edits.get("taken_at"):
        return (edits.get("taken_at_local") or taken_at).date()
    for analysis in document.get("analyses") or ():
        result = analysis.get("result") or {}
        with suppress(KeyError, TypeError, ValueError):  # It is not of this kind.
            if datetime.fromisoformat(result["taken_at"]) == taken_at:
                return datetime.fromisoformat(result["taken_at_local"]).date()
    return taken_at.date()
