"""Uploads as documents of MongoDB: their schema, writing and reading them.

Other programs may write to the collection, too. A foreign record, which cannot be read as an
upload, is left out of lists, and each process logs it once; `clustr fsck` names it. `SCHEMA` is the
schema of an upload; queries leave out foreign records with `IS_UPLOAD`.
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
from clustr.database.tags import tag_fields
from clustr.domain import failure_messages
from clustr.domain.errors import ForeignRecord, NotFound
from clustr.domain.models import Analysis, Retry, State, Status, Upload
from clustr.imaging.formats import CONTENT_TYPES

log = logs.logger(__name__)

ID = re.compile(r"[0-9a-f]{24}")
LONGEST_ID = 100  # of an invalid id that an error repeats to the client

TEXT = {"bsonType": "string"}
NUMBER = {"bsonType": ["int", "long"]}
TIME = {"bsonType": "date"}
TEXTS = {"bsonType": "array", "items": TEXT}


def _nullable(schema: Document) -> Document:
    """The schema of a value that can also be null."""
    kinds = schema["bsonType"]
    return {**schema, "bsonType": [*([kinds] if isinstance(kinds, str) else kinds), "null"]}


ANALYSIS: Document = {
    "bsonType": "object",
    "required": ["name", "version", "state"],
    "properties": {
        "name": TEXT,
        "version": _nullable(NUMBER),
        "state": {"enum": [str(state) for state in State]},
        "priority": NUMBER,
        "attempts": NUMBER,
        "crashes": NUMBER,
        "faults": NUMBER,
        "fault_at": _nullable(TIME),
        "failed_version": NUMBER,
        "traceback": TEXT,
        "due_at": TIME,
        "started_at": _nullable(TIME),
        "finished_at": _nullable(TIME),
        "deferred_at": _nullable(TIME),
        "lease_until": _nullable(TIME),
        "run": _nullable(TEXT),
        "error": _nullable(TEXT),
        "requires": TEXTS,
        "provenance": {"bsonType": ["object", "null"]},
        "vectors": {"bsonType": ["object", "null"]},
    },
}
# The schema of an upload's record, as MongoDB's `$jsonSchema`. It constrains what Clustr needs:
# values that become part of a header or a path, that are compared, or that are computed with.
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
        "edited_at": _nullable(TIME),
        "taken_at": _nullable(TIME),
        "taken_at_local": _nullable(TIME),
        "sort_date": _nullable(TIME),
        "status": {"enum": [str(status) for status in Status]},
        "request_id": TEXT,
        "uploaded_by": _nullable(TEXT),
        "owner": TEXT,
        "duplicate_of": {"bsonType": ["objectId", "null"]},
        "caption": _nullable(TEXT),
        "tags": _nullable(TEXTS),
        "tag_keys": _nullable(TEXTS),
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
            "properties": {"tags": _nullable(TEXTS), "tag_keys": _nullable(TEXTS)},
        },
        "copies_changed": NUMBER,
    },
}
# The range of `datetime` in Python.
FIRST_MOMENT, LAST_MOMENT = (m.replace(tzinfo=UTC) for m in (datetime.min, datetime.max))


def _times_in(properties: Document) -> list[str]:
    return [name for name, schema in properties.items() if "date" in schema.get("bsonType", ())]


def _matches_schema(schema: Document, times: Iterable[str], *denied: Document) -> Document:
    """The part of a query that documents of a schema match.

    It is a double negation, so that MongoDB does not try an index for it: the other conditions of
    the query choose the index.

    Args:
        times: the fields that hold times, which have to be within the range of `datetime`.
        denied: conditions that the documents must not match.
    """
    beyond = [{name: {"$lt": FIRST_MOMENT}} for name in times]
    beyond += [{name: {"$gt": LAST_MOMENT}} for name in times]
    return {"$nor": [{"$nor": [{"$jsonSchema": schema}]}, *denied, *beyond]}


_ID = {"$convert": {"input": "$_id", "to": "string", "onError": "", "onNull": ""}}
_FILENAMES = [{"$concat": [_ID, f".{extension}"]} for extension in CONTENT_TYPES]
_TIMES = _times_in(SCHEMA["properties"])
_SHALLOW_PROPERTIES = {
    name: {word: schema[word] for word in ("bsonType", "enum", "pattern") if word in schema}
    for name, schema in SCHEMA["properties"].items()
}
# The part of a query that matches only records which can be read as uploads: those for which
# `reason_why_foreign` is None. It takes MongoDB a tenth of a millisecond per record.
IS_UPLOAD = _matches_schema(
    SCHEMA,
    [*_TIMES, *(f"analyses.{name}" for name in _times_in(ANALYSIS["properties"]))],
    {"$expr": {"$not": [{"$in": ["$filename", _FILENAMES]}]}},
)
# The same without checking nested lists and objects, for queries over all uploads: at a tenth of
# the cost it leaves out the records of other programs at least.
LOOKS_LIKE_UPLOAD = _matches_schema({**SCHEMA, "properties": _SHALLOW_PROPERTIES}, _TIMES)
OLDEST_FIRST = [("upload_time", 1), ("_id", 1)]
NEWEST_FIRST = [("upload_time", -1), ("_id", -1)]
HAS_OBJECT_ID: Document = {"_id": {"$type": "objectId"}}

PYTHON_TYPES: dict[str, type] = {
    "string": str,
    "int": int,
    "long": int,
    "date": datetime,
    "array": list,
    "object": dict,
    "objectId": ObjectId,
    "null": NoneType,
}

# The exceptions from reading a record that lacks fields of an upload, or has other types in them.
MALFORMED_RECORD_ERRORS = (AttributeError, KeyError, OverflowError, TypeError, ValueError)


def parse_id(text: str, kind: str = "upload") -> ObjectId:
    """The ObjectId of an id as clients write it: 24 hexadecimal digits, in lower case.

    Args:
        kind: what the id is of, for the error.

    Raises:
        NotFound: this is no id of Clustr's, such as a UUID; so there is nothing with it.
    """
    if not ID.fullmatch(text):
        form = "an id is 24 hexadecimal digits, in lower case"
        shortened = failure_messages.as_plain_text(text)[:LONGEST_ID]
        raise NotFound(f"There is no {kind} with the id {shortened}; {form}.")
    return ObjectId(text)


# The field with the name of the key that brought an upload, if that key sees only its own uploads.
OWNER = "owner"

ANY_FACET = "any"
DUPLICATE_FACETS = {True: "duplicate", False: "original"}
# The field that only an original has, with its SHA-256 and its owner; older ones lack it.
ORIGINAL = "original_sha256"


def original_mark(sha256: str, owner: str | None) -> str:
    """The value of `ORIGINAL`: each owner has an original of its own, and so have all others."""
    return sha256 if owner is None else f"{sha256} {owner}"


# An expression for `facets`, computed from the upload in an update.
FACETS: list[object] = [
    ANY_FACET,
    "$content_type",
    {
        "$cond": [
            {"$ifNull": ["$duplicate_of", False]},
            DUPLICATE_FACETS[True],
            DUPLICATE_FACETS[False],
        ]
    },
    "$status",
]


def facets(status: str, content_type: str, duplicate: bool) -> list[str]:
    """The values by which an upload can be listed besides tags and analyses, in one field.

    So one index for each sort order serves all of these filters, and the list of all uploads.
    """
    return [ANY_FACET, content_type, DUPLICATE_FACETS[duplicate], status]


def to_document(upload: Upload) -> Document:
    """The document of a new upload; its analyses are due at once."""
    document = {
        "_id": ObjectId(upload.id),
        "original_name": upload.original_name,
        "filename": upload.filename,
        "upload_time": upload.upload_time,
        "sort_date": upload.upload_time,
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
    if upload.uploaded_by is not None:
        document["uploaded_by"] = upload.uploaded_by
    if upload.owner is not None:
        document[OWNER] = upload.owner
    if upload.duplicate_of is None:
        document[ORIGINAL] = original_mark(upload.sha256, upload.owner)
    if upload.caption or upload.tags:  # An analyzer has said them before the upload came here.
        document |= {"caption": upload.caption, **tag_fields(upload.tags)}
        document["words_at"] = upload.updated_at
    if upload.retry:
        document["retry"] = asdict(upload.retry)
    return document


def _analysis_to_document(upload: Upload, analysis: Analysis) -> Document:
    document = {
        "name": analysis.name,
        "version": analysis.version,
        "state": analysis.state,
        "priority": 0,
        "due_at": upload.updated_at,
        "attempts": 0,
        "crashes": 0,
    }
    if analysis.error:  # It is skipped without a run.
        document |= {"error": analysis.error, "finished_at": upload.updated_at}
    if analysis.result is not None:
        document |= {"result": analysis.result, "provenance": analysis.provenance}
        document["finished_at"] = upload.updated_at
    if analysis.requires:
        document["requires"] = analysis.requires
    return document


def from_document(document: Document) -> Upload:
    """The upload of a document.

    The file name becomes part of a path, and the type a header: so the name has to belong to the
    id, and the type is derived from the extension of the name.

    Raises:
        ForeignRecord: the document is not one that Clustr has written.
    """
    with reading_record(document["_id"]):
        return _from_document(document)


@contextmanager
def reading_record(record_id: object) -> Iterator[None]:
    """Turn `MALFORMED_RECORD_ERRORS` in the block into `ForeignRecord`, and log the record."""
    try:
        yield
    except MALFORMED_RECORD_ERRORS as error:
        log_foreign_record(str(record_id), f"{type(error).__name__}: {error}")
        raise ForeignRecord(record_id) from error


def from_documents(documents: Iterable[Document]) -> Iterator[Upload]:
    """The uploads of documents, without foreign records."""
    for document in documents:
        with suppress(ForeignRecord):
            yield from_document(document)


def reason_why_foreign(document: Document) -> str | None:
    """Why a record cannot be read as an upload; None when it can."""
    try:
        _from_document(document)
    except MALFORMED_RECORD_ERRORS as error:
        return _describe_error(error)
    return None


def _describe_error(error: Exception) -> str:
    message = f"no field {error}" if isinstance(error, KeyError) else str(error)
    return message[:300]


@lru_cache(1000)
def log_foreign_record(record_id: str, error: str) -> None:
    """Log a foreign record, once in a process (as long as it is in the cache)."""
    log.warning("foreign_record", id=record_id, error=error[:300])


def extension_of(document: Document) -> str:
    """The extension of an upload's file name, from which its type follows.

    Raises:
        ValueError: the name is not one that Clustr gives.
    """
    filename: str = document["filename"]
    upload_id, _, extension = filename.partition(".")
    if upload_id != str(document["_id"]) or extension not in CONTENT_TYPES:
        raise ValueError("its file cannot be called so")
    return extension


def filenames_of(documents: Iterable[Document]) -> set[str]:
    """The file names of documents; for an invalid name, all names that its file can have."""
    names = set()
    for document in documents:
        try:
            extensions = [extension_of(document)]
        except MALFORMED_RECORD_ERRORS:
            extensions = [*CONTENT_TYPES]
        names |= {f"{document['_id']}.{extension}" for extension in extensions}
    return names


class _SchemaCheck:
    """Checks values against one of the schemas above, as MongoDB's `$jsonSchema` does."""

    def __init__(self, schema: Mapping[str, Any]):
        kinds = schema.get("bsonType", ())
        self._kinds = tuple(
            PYTHON_TYPES[kind] for kind in ([kinds] if isinstance(kinds, str) else kinds)
        )
        self._allowed = schema.get("enum")
        self._pattern = re.compile(schema.get("pattern", "").replace(r"\z", r"\Z"))
        self._required = schema.get("required", ())
        self._inner = {n: _SchemaCheck(inner) for n, inner in schema.get("properties", {}).items()}
        self._element = _SchemaCheck(schema["items"]) if "items" in schema else None

    def require(self, value: Any, name: str = "the record") -> None:
        """Check a value.

        Args:
            name: the name of the value in errors.

        Raises:
            KeyError, TypeError, ValueError: the value does not match the schema.
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


_UPLOAD_CHECK = _SchemaCheck(SCHEMA)


def _from_document(document: Document) -> Upload:
    _UPLOAD_CHECK.require(document)
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
        analyses=tuple(analysis_from_document(a) for a in document["analyses"]),
        request_id=document["request_id"],
        duplicate_of=str(duplicate_of) if duplicate_of else None,
        taken_at=document.get("taken_at"),
        taken_at_local=local_date_of(document),
        caption=document.get("caption"),
        tags=tuple(document.get("tags") or ()),
        faces=tuple(document.get("faces") or ()),
        face_cluster_ids=tuple(document.get("face_cluster_ids") or ()),
        retry=Retry(**retry) if retry else None,
        uploaded_by=document.get("uploaded_by"),
        owner=document.get(OWNER),
    )


def local_date_of(document: Mapping[str, Any]) -> datetime | None:
    """What the clock showed when the picture was taken, without a time zone.

    Of an upload that has not been given its local date yet, it is in UTC.
    """
    local: datetime | None = document.get("taken_at_local") or document.get("taken_at")
    return local and local.replace(tzinfo=None)


def analysis_from_document(document: Document) -> Analysis:
    """The analysis of an element of `analyses`.

    Raises:
        AttributeError, KeyError, TypeError, ValueError: Clustr has not written it.
    """
    return Analysis(
        name=document["name"],
        version=document["version"],
        state=State(document["state"]),
        attempts=document.get("attempts", 0),
        started_at=document.get("started_at"),
        finished_at=document.get("finished_at"),
        error=document.get("error"),
        failed_version=document.get("failed_version"),
        requires=tuple(document.get("requires", ())),
        result=document.get("result"),
        provenance=document.get("provenance"),
        vectors={name: str(key) for name, key in (document.get("vectors") or {}).items()},
        private=tuple(document.get("private") or ()),
    )
