"""How an upload is written down in MongoDB, and read from there.

Others may write there, too. A record of theirs that cannot be read as an upload is left out of
whatever holds several, and logged once by each process; `clustr fsck` names it. What an upload's
record looks like is in `SCHEMA`: queries leave out other records by `IS_UPLOAD`.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict
from datetime import UTC, datetime
from functools import lru_cache
from types import NoneType
from typing import Any

from bson import Code, ObjectId

from clustr import logs
from clustr.database.connection import Document
from clustr.domain import failure_messages
from clustr.domain.errors import ForeignRecord, NotFound
from clustr.domain.models import Analysis, Retry, State, Status, Upload
from clustr.imaging.images import CONTENT_TYPES

log = logs.logger(__name__)

ID = re.compile(r"[0-9a-f]{24}")
LONGEST_ID = 100  # of what is no id, to be repeated to the client

TEXT = {"bsonType": "string"}
NUMBER = {"bsonType": ["int", "long"]}
TIME = {"bsonType": "date"}
TEXTS = {"bsonType": "array", "items": TEXT}


def _or_null(schema: Document) -> Document:
    """The schema of what can also be null; what is not required can be missing, too."""
    kinds = schema["bsonType"]
    return {**schema, "bsonType": [*([kinds] if isinstance(kinds, str) else kinds), "null"]}


ANALYSIS: Document = {
    "bsonType": "object",
    "required": ["name", "version", "state"],
    "properties": {
        "name": TEXT,
        "version": _or_null(NUMBER),
        "state": {"enum": [str(state) for state in State]},
        "priority": NUMBER,
        "attempts": NUMBER,
        "crashes": NUMBER,
        "due_at": TIME,
        "started_at": _or_null(TIME),
        "finished_at": _or_null(TIME),
        "deferred_at": _or_null(TIME),
        "lease_until": _or_null(TIME),
        "run": _or_null(TEXT),
        "error": _or_null(TEXT),
        "requires": TEXTS,
        "provenance": {"bsonType": ["object", "null"]},
    },
}
# What the record of an upload is like, as a JSON Schema in MongoDB's manner. It says as much as is
# read of a record: what becomes part of a header or a path, what is compared, what is counted with.
SCHEMA: Document = {
    "required": [
        *("_id", "original_name", "filename", "content_type", "sha256", "size", "dimensions"),
        *("upload_time", "updated_at", "status", "request_id", "analyses"),
    ],
    "properties": {
        "_id": {"bsonType": "objectId"},
        "original_name": TEXT,
        "filename": {**TEXT, "pattern": rf"^[0-9a-f]{{24}}\.({'|'.join(CONTENT_TYPES)})\z"},
        "content_type": TEXT,
        "sha256": {**TEXT, "pattern": r"^[0-9a-f]{64}\z"},
        "size": NUMBER,
        "dimensions": {
            "bsonType": "object",
            "required": ["width", "height"],
            "properties": {"width": NUMBER, "height": NUMBER},
        },
        "upload_time": TIME,
        "updated_at": TIME,
        "edited_at": _or_null(TIME),
        "taken_at": _or_null(TIME),
        "status": {"enum": [str(status) for status in Status]},
        "request_id": TEXT,
        "duplicate_of": {"bsonType": ["objectId", "null"]},
        "caption": _or_null(TEXT),
        "tags": _or_null(TEXTS),
        "tag_keys": _or_null(TEXTS),
        "faces": {"bsonType": ["array", "null"]},
        "face_cluster_ids": {"bsonType": ["array", "null"]},
        "analyses": {"bsonType": "array", "items": ANALYSIS},
        "retry": {
            "bsonType": ["object", "null"],
            "required": ["key", "fingerprint", "position"],
            "properties": {"key": TEXT, "fingerprint": TEXT, "position": NUMBER},
        },
        "human": {
            "bsonType": ["object", "null"],
            "properties": {
                "tags": {
                    "bsonType": "object",
                    "properties": dict.fromkeys(
                        ("set", "set_keys", "added", "added_keys", "removed"), TEXTS
                    ),
                }
            },
        },
        "found": {
            "bsonType": ["object", "null"],
            "properties": {"tags": _or_null(TEXTS), "tag_keys": _or_null(TEXTS)},
        },
        "copies_changed": NUMBER,
    },
}
# Python knows no times before the first or after the last.
FIRST_MOMENT, LAST_MOMENT = (m.replace(tzinfo=UTC) for m in (datetime.min, datetime.max))


def _times_in(properties: Document) -> list[str]:
    return [name for name, schema in properties.items() if "date" in schema.get("bsonType", ())]


def _met_by(schema: Document, times: Iterable[str], *denied: Document) -> Document:
    """The part of a query that is met by what is like a schema.

    Said as a denial: so MongoDB does not look for an index for it, and what else is in the query
    leads to the records.
    """
    beyond = [{name: {"$lt": FIRST_MOMENT}} for name in times]
    beyond += [{name: {"$gt": LAST_MOMENT}} for name in times]
    return {"$nor": [{"$nor": [{"$jsonSchema": schema}]}, *denied, *beyond]}


_ID = {"$convert": {"input": "$_id", "to": "string", "onError": "", "onNull": ""}}
_FILENAMES = [{"$concat": [_ID, f".{extension}"]} for extension in CONTENT_TYPES]
_TIMES = _times_in(SCHEMA["properties"])
_FLAT = {
    name: {word: schema[word] for word in ("bsonType", "enum", "pattern") if word in schema}
    for name, schema in SCHEMA["properties"].items()
}
# The part of a query that only records meet which can be read as uploads: those for which there is
# no `reason_why_foreign`. It costs MongoDB a tenth of a millisecond for a record.
IS_UPLOAD = _met_by(
    SCHEMA,
    [*_TIMES, *(f"analyses.{name}" for name in _times_in(ANALYSIS["properties"]))],
    {"$expr": {"$not": [{"$in": ["$filename", _FILENAMES]}]}},
)
# The same without a look into the lists and objects in them, for whoever goes through all uploads:
# a tenth of the cost, for records that are none of other programs at least.
LIKE_AN_UPLOAD = _met_by({**SCHEMA, "properties": _FLAT}, _TIMES)
OF_AN_OBJECT_ID: Document = {"_id": {"$type": "objectId"}}

KINDS: dict[str, type] = {
    "string": str,
    "int": int,
    "long": int,
    "date": datetime,
    "array": list,
    "object": dict,
    "objectId": ObjectId,
    "null": NoneType,
}

# What comes of a record that has not the fields of an upload, or other things in them.
UNLIKE_AN_UPLOAD = (AttributeError, KeyError, OverflowError, TypeError, ValueError)


def key_of(text: str, kind: str = "upload") -> ObjectId:
    """The key of what has this id.

    Args:
        kind: of what it is looked for.

    Raises:
        NotFound: this is no id of Clustr's, such as a UUID; so there is nothing with it.
    """
    if not ID.fullmatch(text):
        form = "an id is 24 hexadecimal digits, in lower case"
        shown = failure_messages.as_plain_text(text)[:LONGEST_ID]
        raise NotFound(f"There is no {kind} with the id {shown}; {form}.")
    return ObjectId(text)


ANY = "any"
DUPLICATE = {True: "duplicate", False: "original"}
# The field that only an original has, with its SHA-256; older ones lack it.
ORIGINAL = "original_sha256"
# The same as `facets`, of an upload as it is in the middle of an update.
FACETS: list[object] = [
    ANY,
    "$content_type",
    {"$cond": [{"$ifNull": ["$duplicate_of", False]}, DUPLICATE[True], DUPLICATE[False]]},
    "$status",
]


def facets(status: str, content_type: str, duplicate: bool) -> list[str]:
    """What an upload can be listed by besides tags and analyses, in one field.

    So one index for each order answers for all of them, and for all uploads.
    """
    return [ANY, content_type, DUPLICATE[duplicate], status]


def to_document(upload: Upload) -> Document:
    """The document of a new upload: what waits to be analyzed is due at once."""
    document = {
        "_id": ObjectId(upload.id),
        "original_name": upload.original_name,
        "filename": upload.filename,
        "upload_time": upload.upload_time,
        "updated_at": upload.updated_at,
        "size": upload.size,
        "content_type": upload.content_type,
        "sha256": upload.sha256,
        "dimensions": {"width": upload.width, "height": upload.height},
        "status": upload.status,
        "request_id": upload.request_id,
        "duplicate_of": ObjectId(upload.duplicate_of) if upload.duplicate_of else None,
        "facets": facets(upload.status, upload.content_type, upload.duplicate_of is not None),
        "analyses": [_analysis_to_document(upload, analysis) for analysis in upload.analyses],
    }
    if upload.duplicate_of is None:
        document[ORIGINAL] = upload.sha256
    if upload.retry:
        document["retry"] = asdict(upload.retry)
    return document


def _analysis_to_document(upload: Upload, analysis: Analysis) -> Document:
    document = {
        "name": analysis.name,
        "version": analysis.version,
        "state": analysis.state,
        "priority": 0,
        "due_at": upload.upload_time,
        "attempts": 0,
        "crashes": 0,
    }
    if analysis.error:  # It ends before it begins.
        document |= {"error": analysis.error, "finished_at": upload.upload_time}
    if analysis.requires:
        document["requires"] = analysis.requires
    return document


def from_document(document: Document) -> Upload:
    """The upload of a document.

    Its file name becomes a path, and its type a header: the name has to be that of its id, and the
    type is the one that the name says.

    Raises:
        ForeignRecord: it is not as Clustr writes one.
    """
    with reading_record(document["_id"]):
        return _from_document(document)


@contextmanager
def reading_record(record_id: object) -> Iterator[None]:
    """Turn what comes of a record that is none of an upload into `ForeignRecord`, and log it."""
    try:
        yield
    except UNLIKE_AN_UPLOAD as error:
        log_foreign(str(record_id), f"{type(error).__name__}: {error}")
        raise ForeignRecord(record_id) from error


def from_documents(documents: Iterable[Document]) -> Iterator[Upload]:
    """The uploads of documents, without those that Clustr has not written."""
    for document in documents:
        with suppress(ForeignRecord):
            yield from_document(document)


def reason_why_foreign(document: Document) -> str | None:
    """Why a record is not as Clustr writes one; None when it is."""
    try:
        _from_document(document)
    except UNLIKE_AN_UPLOAD as error:
        return _what_is_wrong(error)
    return None


def _what_is_wrong(error: Exception) -> str:
    said = f"no field {error}" if isinstance(error, KeyError) else str(error)
    return said[:300]


@lru_cache(1000)
def log_foreign(record_id: str, error: str) -> None:
    """Log that this record is not one of Clustr's, which is done once."""
    log.warning("foreign_record", id=record_id, error=error[:300])


def extension_of(document: Document) -> str:
    """The extension of an upload's file name, which says its type.

    Raises:
        ValueError: the name is none of Clustr's.
    """
    upload_id, _, extension = document["filename"].partition(".")
    if upload_id != str(document["_id"]) or extension not in CONTENT_TYPES:
        raise ValueError("its file cannot be called so")
    return extension


def filenames_of(documents: Iterable[Document]) -> set[str]:
    """The file names of documents; where one cannot be right, all that its file can have."""
    names = set()
    for document in documents:
        try:
            extensions = [extension_of(document)]
        except UNLIKE_AN_UPLOAD:
            extensions = [*CONTENT_TYPES]
        names |= {f"{document['_id']}.{extension}" for extension in extensions}
    return names


class _Check:
    """Sees whether a value is as a schema says, which is one of those above."""

    def __init__(self, schema: Mapping[str, Any]):
        kinds = schema.get("bsonType", ())
        self._kinds = tuple(KINDS[kind] for kind in ([kinds] if isinstance(kinds, str) else kinds))
        self._allowed = schema.get("enum")
        self._pattern = re.compile(schema.get("pattern", "").replace(r"\z", r"\Z"))
        self._required = schema.get("required", ())
        self._inner = {n: _Check(inner) for n, inner in schema.get("properties", {}).items()}
        self._element = _Check(schema["items"]) if "items" in schema else None

    def require(self, value: Any, name: str = "the record") -> None:
        """See that a value is so.

        Raises:
            KeyError, TypeError, ValueError: it is not.
        """
        if self._kinds and (not isinstance(value, self._kinds) or isinstance(value, bool | Code)):
            raise TypeError(f"{name} is a {type(value).__name__}")
        if self._allowed and value not in self._allowed:
            raise ValueError(f"{name} is {value!r}")
        if isinstance(value, str) and not self._pattern.match(value):
            raise ValueError(f"{name} is {value!r}")
        if isinstance(value, dict):
            for required in self._required:
                if required not in value:
                    raise KeyError(required)
            for inner, check in self._inner.items():
                if inner in value:
                    check.require(value[inner], inner)
        elif self._element and isinstance(value, list):
            for element in value:
                self._element.require(element, f"an element of {name}")


_CHECK = _Check(SCHEMA)


def _from_document(document: Document) -> Upload:
    _CHECK.require(document)
    content_type = CONTENT_TYPES[extension_of(document)]
    duplicate_of, retry = document.get("duplicate_of"), document.get("retry")
    return Upload(
        id=str(document["_id"]),
        original_name=document["original_name"],
        filename=document["filename"],
        upload_time=document["upload_time"],
        updated_at=document["updated_at"],
        edited_at=document.get("edited_at"),
        size=document["size"],
        content_type=content_type,
        sha256=document["sha256"],
        width=document["dimensions"]["width"],
        height=document["dimensions"]["height"],
        status=Status(document["status"]),
        analyses=tuple(_analysis_from_document(a) for a in document["analyses"]),
        request_id=document["request_id"],
        duplicate_of=str(duplicate_of) if duplicate_of else None,
        taken_at=document.get("taken_at"),
        caption=document.get("caption"),
        tags=tuple(document.get("tags") or ()),
        faces=tuple(document.get("faces") or ()),
        face_cluster_ids=tuple(document.get("face_cluster_ids") or ()),
        retry=Retry(**retry) if retry else None,
    )


def _analysis_from_document(document: Document) -> Analysis:
    return Analysis(
        name=document["name"],
        version=document["version"],
        state=State(document["state"]),
        attempts=document.get("attempts", 0),
        started_at=document.get("started_at"),
        finished_at=document.get("finished_at"),
        error=document.get("error"),
        requires=tuple(document.get("requires", ())),
        result=document.get("result"),
        provenance=document.get("provenance"),
    )
