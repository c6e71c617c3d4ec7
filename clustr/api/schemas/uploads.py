"""Schemas of uploads, for the OpenAPI document and the tests.

Responses are not dumped through schemas but by functions such as `dump_upload`, which are many
times faster; a test checks that both agree.
"""

from datetime import datetime
from typing import Any

from marshmallow import Schema, fields, validate

from clustr.api.http.etags import version_of
from clustr.api.http.fields import (
    EXAMPLE_HASH,
    EXAMPLE_ID,
    HEX_ID,
    HEX_SHA256,
    POSITIVE,
    BodySchema,
    Pattern,
    date_time,
    normalize_hash,
    number,
    one_of,
    text,
)
from clustr.api.http.urls import FileUrls
from clustr.api.schemas.analyses import AnalysisSchema, dump_analysis
from clustr.components import WebComponents
from clustr.domain.models import Status, Upload
from clustr.imaging.formats import CONTENT_TYPES
from clustr.services.thumbnails import VERSION

EXAMPLE_FILENAME = f"{EXAMPLE_ID}.jpg"
EXAMPLE_VERSION = f"{EXAMPLE_ID}-19aab1c2d3e"
EXAMPLE_ETAG = f'"{EXAMPLE_VERSION}.5f2b7a0d4c8e9f1a"'
EXAMPLE_URL = f"http://127.0.0.1:5000/uploads/{EXAMPLE_FILENAME}"
EXAMPLE_THUMBNAIL_URL = (
    f"http://127.0.0.1:5000/api/uploads/{EXAMPLE_ID}/thumbnail?size=300&v={VERSION}"
)
FILENAME_PATTERN = rf"^[0-9a-f]{{24}}\.({'|'.join(CONTENT_TYPES)})$"
LOCAL_TIME_PATTERN = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{6}$"
STATUS_DESCRIPTION = (
    "`pending` while an analysis is unfinished, `error` when one failed for good, else `processed`."
)
NAME_LENGTH = validate.Length(1, 255)


def content_type_field() -> fields.String:
    return fields.String(
        required=True,
        validate=validate.OneOf(sorted(CONTENT_TYPES.values())),
        metadata={
            "description": "The true type, whatever name and type the client gave.",
            "example": "image/jpeg",
        },
    )


def duplicate_of_field() -> fields.String:
    return text(
        "The id of the oldest upload with the same bytes that there is now, outside of the trash; "
        "null for that one itself. It changes when that one is removed or restored.",
        EXAMPLE_ID,
        required=True,
        allow_none=True,
        validate=HEX_ID,
    )


def thumbnail_url_field() -> fields.String:
    return text(
        "Where a thumbnail of 300 pixels is. For another size put that in; where the address is "
        "signed, another size needs a key.",
        EXAMPLE_THUMBNAIL_URL,
        required=True,
    )


class DimensionsSchema(Schema):
    """Width and height as displayed, that is with the EXIF orientation applied."""

    width = number("Pixels.", 1920, required=True, validate=POSITIVE)
    height = number("Pixels.", 1080, required=True, validate=POSITIVE)


class UploadSchema(Schema):
    """One stored image with its metadata and the state of its analyses."""

    id = text("24 hexadecimal digits.", EXAMPLE_ID, required=True, validate=HEX_ID)
    original_name = text(
        "The name that the client gave it, without folders and control characters.",
        "cat.jpg",
        required=True,
        validate=NAME_LENGTH,
    )
    filename = text(
        "Its name on the server: the id and the extension of the true type.",
        EXAMPLE_FILENAME,
        required=True,
        validate=Pattern(FILENAME_PATTERN),
    )
    file_path = text(
        "Where it lies below the folder of uploads.",
        f"{EXAMPLE_ID[:4]}/{EXAMPLE_FILENAME}",
        required=True,
    )
    url = text("Where its bytes are.", EXAMPLE_URL, required=True)
    thumbnail_url = thumbnail_url_field()
    upload_time = date_time("When it was uploaded.", required=True)
    taken_at = date_time(
        "When the picture was taken: what a person wrote, else what the analyzer `exif` found, "
        "whose result says where that is from.",
        required=True,
        allow_none=True,
    )
    taken_at_local = text(
        "What the clock showed there at that time, without an offset: `sort=date`, months of the "
        "timeline and filters by a day go by it.",
        "2024-07-01T00:30:00.000000",
        required=True,
        allow_none=True,
        validate=Pattern(LOCAL_TIME_PATTERN),
    )
    size = number("Bytes.", 125_000, required=True, validate=POSITIVE)
    content_type = content_type_field()
    sha256 = text(
        "SHA-256 of the bytes, in hexadecimal digits.",
        EXAMPLE_HASH,
        required=True,
        validate=HEX_SHA256,
    )
    dimensions = fields.Nested(DimensionsSchema, required=True)
    status = one_of(Status, STATUS_DESCRIPTION)
    caption = text("What is to be seen.", "a cat on a sofa", required=True, allow_none=True)
    tags = fields.List(
        fields.String(),
        required=True,
        metadata={"description": "Words for what is to be seen.", "example": ["cat", "sofa"]},
    )
    faces = fields.List(
        fields.Dict(),
        required=True,
        metadata={
            "description": "The faces that were found; boxes in fractions of the displayed width "
            "and height.",
            "example": [],
        },
    )
    face_cluster_ids = fields.List(
        fields.String(),
        required=True,
        metadata={"description": "The people that the faces were taken for.", "example": []},
    )
    analyses = fields.Dict(
        keys=fields.String(),
        values=fields.Nested(AnalysisSchema),
        required=True,
        metadata={
            "description": "The state of each analysis, by the analyzer's name; also of analyzers "
            "that are not installed any more.",
            "example": {
                "dimensions": {
                    "status": "succeeded",
                    "version": 1,
                    "attempts": 1,
                    "started_at": "2026-11-22T10:38:28.000000Z",
                    "finished_at": "2026-11-22T10:38:28.000000Z",
                    "stale": False,
                    "provenance": {
                        "plugin": "dimensions",
                        "plugin_version": "0.1.0",
                        "model": {},
                        "config_hash": EXAMPLE_HASH[:16],
                    },
                    "error": None,
                    "result": {"width": 1920, "height": 1080},
                }
            },
        },
    )
    duplicate_of = duplicate_of_field()
    uploaded_by = text(
        "The name of the key that brought it; null where requests need no key, and of an upload "
        "from before they did.",
        "camera",
        required=True,
        allow_none=True,
    )
    updated_at = date_time(
        "When anything of it last changed; that an analysis has begun does not count as a change.",
        required=True,
    )
    version = text(
        "Changes when a person changes the upload, and not when an analysis ends. Send it as "
        '`If-Match: "<version>"`, in double quotes, and the upload is changed only if nobody else '
        "has changed it since it was read.",
        EXAMPLE_VERSION,
        required=True,
    )


class HashesSchema(BodySchema):
    """The hashes of files that a client has."""

    sha256 = fields.List(
        fields.String(pre_load=normalize_hash, validate=HEX_SHA256),
        required=True,
        validate=validate.Length(1, 1000),
        metadata={
            "description": "The SHA-256 of each, in 64 hexadecimal digits.",
            "example": [EXAMPLE_HASH],
        },
    )


class ExistingSchema(Schema):
    """The uploads with the hashes of a request."""

    data = fields.Dict(
        keys=fields.String(),
        values=fields.String(allow_none=True, validate=HEX_ID),
        required=True,
        metadata={
            "description": "For each hash, in lower case, the id of the first upload with these "
            "bytes, or null.",
            "example": {EXAMPLE_HASH: EXAMPLE_ID},
        },
    )


def dump_upload(upload: Upload, components: WebComponents, with_results: bool) -> dict[str, Any]:
    """Convert an upload to the shape of `UploadSchema`."""
    urls = FileUrls()
    return {
        "id": upload.id,
        "original_name": upload.original_name,
        "filename": upload.filename,
        "file_path": components.storage.key(upload.filename),
        "url": urls.of_file(upload.filename),
        "thumbnail_url": urls.of_thumbnail(upload.id),
        "upload_time": upload.upload_time,
        "taken_at": upload.taken_at,
        "taken_at_local": dump_local_time(upload.taken_at_local),
        "size": upload.size,
        "content_type": upload.content_type,
        "sha256": upload.sha256,
        "dimensions": {"width": upload.width, "height": upload.height},
        "status": upload.status,
        "caption": upload.caption,
        "tags": upload.tags,
        "faces": upload.faces,
        "face_cluster_ids": upload.face_cluster_ids,
        "analyses": {a.name: dump_analysis(a, components, with_results) for a in upload.analyses},
        "duplicate_of": upload.duplicate_of,
        "uploaded_by": upload.uploaded_by,
        "updated_at": upload.updated_at,
        "version": version_of(upload.id, upload.edited_at),
    }


def dump_local_time(time: datetime | None) -> str | None:
    """Convert a time without a time zone to text, which has none either."""
    return time.isoformat(timespec="microseconds") if time else None
