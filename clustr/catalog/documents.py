"""How an upload is written down in MongoDB."""

import re
from dataclasses import asdict

from bson import ObjectId

from clustr.catalog.connection import Document
from clustr.errors import InvalidInput
from clustr.upload import Analysis, Retry, State, Status, Upload

ID = re.compile(r"[0-9a-f]{24}")


def key_of(text: str) -> ObjectId:
    """The key of what has this id.

    Raises:
        InvalidInput: this is no id.
    """
    if not ID.fullmatch(text):
        raise InvalidInput({"id": ["An id is 24 hexadecimal digits, in lower case."]})
    return ObjectId(text)


ANY = "any"
DUPLICATE = {True: "duplicate", False: "original"}
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
    duplicate_of, retry = document.get("duplicate_of"), document.get("retry")
    return Upload(
        id=str(document["_id"]),
        original_name=document["original_name"],
        filename=document["filename"],
        upload_time=document["upload_time"],
        updated_at=document["updated_at"],
        edited_at=document.get("edited_at"),
        size=document["size"],
        content_type=document["content_type"],
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
