"""How an upload is written down in MongoDB, and read from there.

Others may write there, too. A record of theirs that cannot be read as an upload is left out of
whatever holds several, and logged once by each process; `clustr fsck` names it.
"""

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from datetime import datetime
from functools import lru_cache

from bson import ObjectId

from clustr import logs, reasons
from clustr.catalog.connection import Document
from clustr.errors import ForeignRecord, NotFound
from clustr.images import CONTENT_TYPES
from clustr.upload import Analysis, Retry, State, Status, Upload

log = logs.logger(__name__)

ID = re.compile(r"[0-9a-f]{24}")
LONGEST_ID = 100  # of what is no id, to be repeated to the client

SHA256 = re.compile(r"[0-9a-f]{64}")

# What becomes part of a header or a path when an upload is answered.
KINDS = {
    "original_name": str,
    "filename": str,
    "content_type": str,
    "sha256": str,
    "size": int,
    "upload_time": datetime,
    "updated_at": datetime,
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
        raise NotFound(
            f"There is no {kind} with the id {reasons.plain(text)[:LONGEST_ID]}; {form}."
        )
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


def _from_document(document: Document) -> Upload:
    for name, kind in KINDS.items():
        if not isinstance(document[name], kind):
            raise TypeError(f"{name} is no {kind.__name__}")
    if not SHA256.fullmatch(document["sha256"]):
        raise ValueError("sha256 is no SHA-256")
    duplicate_of, retry = document.get("duplicate_of"), document.get("retry")
    return Upload(
        id=str(document["_id"]),
        original_name=document["original_name"],
        filename=document["filename"],
        upload_time=document["upload_time"],
        updated_at=document["updated_at"],
        edited_at=document.get("edited_at"),
        size=document["size"],
        content_type=CONTENT_TYPES[extension_of(document)],
        sha256=document["sha256"],
        width=document["dimensions"]["width"],
        height=document["dimensions"]["height"],
        status=Status(document["status"]),
        analyses=tuple(_analysis_from_document(a) for a in document["analyses"]),
        request_id=document["request_id"],
        duplicate_of=str(duplicate_of) if duplicate_of else None,
        taken_at=document.get("taken_at"),
        caption=document.get("caption"),
        tags=tuple(document.get("tags", ())),
        faces=tuple(document.get("faces", ())),
        face_cluster_ids=tuple(document.get("face_cluster_ids", ())),
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
