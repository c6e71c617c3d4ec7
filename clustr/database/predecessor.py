"""Reads the database of Clustr's predecessor: a FastAPI service with one document for each file."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from pymongo.errors import InvalidName

from clustr.database.connection import Document, connect, translate_errors
from clustr.domain.errors import StartUpError

# What the predecessor uses unless its settings say otherwise.
DEFAULT_DATABASE = "clustr"
TIMEOUT_SECONDS = 60.0
# Ids become part of addresses.
OLD_ID = re.compile(r"[0-9A-Za-z_-]{1,100}")


class NotTaken(Exception):
    """A document, or its file, cannot be taken over; the text says why."""


@dataclass(frozen=True, slots=True)
class PredecessorUpload:
    """What is taken over of a document.

    Attributes:
        filename: under which the predecessor stored the file.
        file_path: where it did; empty when it is not said.
        has_faces: whether it has faces or their clusters, which are not taken over.
    """

    id: str
    original_name: str
    filename: str
    file_path: str
    upload_time: datetime
    caption: str
    tags: tuple[str, ...]
    has_faces: bool


class Predecessor:
    """The predecessor's collection of uploads, which is only read.

    Args:
        url: of its MongoDB; the path is the name of the database.
        collection: the name of the collection.

    Raises:
        StartUpError: the address or the name is invalid.
    """

    def __init__(self, url: str, collection: str):
        self._client = connect(url, TIMEOUT_SECONDS)
        database = self._client.get_default_database(DEFAULT_DATABASE)
        try:
            self._uploads = database[collection]
        except InvalidName as error:
            self._client.close()
            raise StartUpError(f"{collection!r} is no name of a collection: {error}") from None

    def list_keys(self) -> list[tuple[object, str]]:
        """The keys of all documents, and what to call each, the oldest upload first.

        They are read at once: a cursor would not stay open for as long as the files take.

        Raises:
            StartUpError: there are none; so another collection is meant.
            DatabaseUnavailable: its MongoDB does not answer.
        """
        with translate_errors():
            documents = self._uploads.find({}, {"id": 1}).sort([("upload_time", 1), ("_id", 1)])
            keys = [(found["_id"], str(found.get("id", found["_id"]))) for found in documents]
        if not keys:
            raise StartUpError(
                f"the collection {self._uploads.name} of the database "
                f"{self._uploads.database.name} is empty: where the predecessor has its uploads, "
                "its settings MONGODB_DATABASE and MONGODB_UPLOADS_COLLECTION say"
            )
        return keys

    def read(self, key: object) -> PredecessorUpload:
        """Read a document.

        Raises:
            NotTaken: it is gone, or not in the predecessor's form.
            DatabaseUnavailable: its MongoDB does not answer.
        """
        with translate_errors():
            document = self._uploads.find_one({"_id": key})
        if document is None:
            raise NotTaken("The document was removed meanwhile.")
        return _from_document(document)

    def close(self) -> None:
        self._client.close()


def _from_document(document: Document) -> PredecessorUpload:
    old_id = _text(document, "id")
    if not OLD_ID.fullmatch(old_id):
        raise NotTaken("Its id is not of letters, digits, - and _ (1 to 100 of them).")
    filename = _text(document, "filename")
    if not filename:
        raise NotTaken("It has no filename.")
    tags = document.get("tags") or []
    if not isinstance(tags, list) or not all(isinstance(tag, str) for tag in tags):
        raise NotTaken("Its tags are no list of texts.")
    return PredecessorUpload(
        id=old_id,
        original_name=_text(document, "original_name") or filename,
        filename=filename,
        file_path=_text(document, "file_path"),
        upload_time=_time(document.get("upload_time")),
        caption=_text(document, "caption"),
        tags=tuple(tags),
        has_faces=bool(document.get("faces") or document.get("face_cluster_ids")),
    )


def _text(document: Mapping[str, Any], name: str) -> str:
    """The text in a field; empty when there is none."""
    value = document.get(name)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise NotTaken(f"Its {name} is no text.")
    return value


def _time(value: object) -> datetime:
    """A time, or a text with one (ISO 8601); without a time zone it is in UTC."""
    try:
        moment = datetime.fromisoformat(value) if isinstance(value, str) else value
        if isinstance(moment, datetime):
            return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
    except (ValueError, OverflowError) as error:
        raise NotTaken(f"Its upload_time is no time: {error}.") from error
    raise NotTaken("Its upload_time is no time.")
