"""Schemas of uploads and analyses, for the OpenAPI document and the tests.

Responses are not dumped through the schemas but by the functions at the end, which are many times
faster; a test checks that both agree.
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
    NOT_NEGATIVE,
    POSITIVE,
    BodySchema,
    Pattern,
    QueryInteger,
    date_time,
    normalize_hash,
    number,
    one_of,
    text,
)
from clustr.api.http.problem_schema import ProblemSchema
from clustr.api.http.service_addresses import without_addresses
from clustr.api.http.urls import FileUrls, url_of
from clustr.api.schemas.waiting import wait_for_field
from clustr.components import WebComponents
from clustr.domain.models import Analysis, State, Status, Upload
from clustr.domain.result_fields import field_tree, without_fields
from clustr.imaging.formats import CONTENT_TYPES
from clustr.plugin_manager import private_fields
from clustr.plugins import Analyzer
from clustr.services.intake import AcceptedFile
from clustr.services.thumbnails import DEFAULT_SIZE, SIZES, VERSION

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
STATE_DESCRIPTION = (
    "`waiting` for another analysis, `queued`, `running`, `deferred` until a service that is away "
    "is back; and in the end `succeeded`, `skipped`, `failed` or `cancelled`."
)
NAME_LENGTH = validate.Length(1, 255)
# Why a file was refused.
REFUSAL_CODES = (
    "unsupported_type",
    "too_large",
    "too_many_pixels",
    "undecodable",
    "empty",
    "no_files",
)


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


class RefusedFileSchema(Schema):
    """A file that was not accepted."""

    index = number(
        "Which file of the request it is, from 0; null when the request has no file.",
        1,
        required=True,
        allow_none=True,
        validate=NOT_NEGATIVE,
    )
    original_filename = text(
        "The name that the client gave it; null when the request has no file.",
        "notes.png",
        required=True,
        allow_none=True,
    )
    code = fields.String(
        required=True,
        validate=validate.OneOf(REFUSAL_CODES),
        metadata={"description": "Why it was refused.", "example": "unsupported_type"},
    )
    detail = text(
        "The same for people.",
        "The content is none of the image formats that are accepted: jpg, png.",
        required=True,
    )


class UploadProblemSchema(ProblemSchema):
    """The error of an upload request of which no file was accepted."""

    errors = fields.Raw(
        metadata={
            "description": "The refused files, in the order of the request; the first decides on "
            "`type` and `status`. Not there when the request as a whole was refused, but for an "
            "option or header that cannot be used: then by its name what is wrong.",
            "oneOf": [
                {"type": "array", "items": {"$ref": "#/components/schemas/RefusedFile"}},
                {
                    "type": "object",
                    "additionalProperties": {"type": "array", "items": {"type": "string"}},
                },
            ],
        },
    )


class AcceptedFileSchema(Schema):
    """A file that was accepted and is safely stored."""

    index = number(
        "Which file of the request it is, from 0.", 0, required=True, validate=NOT_NEGATIVE
    )
    id = text("The id of the upload.", EXAMPLE_ID, required=True, validate=HEX_ID)
    stored_filename = text(
        "Its name on the server: the id and the extension of the true type.",
        EXAMPLE_FILENAME,
        required=True,
        validate=Pattern(FILENAME_PATTERN),
    )
    preview_url = text("Where its bytes are.", EXAMPLE_URL, required=True)
    original_filename = text(
        "The name that the client gave it, without folders and control characters.",
        "cat.jpg",
        required=True,
        validate=NAME_LENGTH,
    )
    file_size = number("Bytes.", 125_000, required=True, validate=POSITIVE)
    content_type = content_type_field()
    status = one_of(Status, STATUS_DESCRIPTION)
    duplicate_of = duplicate_of_field()
    reused = fields.Boolean(
        required=True,
        metadata={
            "description": "Whether it is an upload that was there already, and the file was not "
            "kept: with `duplicates=reuse`.",
            "example": False,
        },
    )


class UploadedSchema(Schema):
    """The accepted and the refused files of a request."""

    message = text("A sentence.", "Successfully uploaded 2 files", required=True)
    data = fields.List(
        fields.Nested(AcceptedFileSchema),
        required=True,
        metadata={"description": "The files that were accepted, in the order of the request."},
    )
    errors = fields.List(
        fields.Nested(RefusedFileSchema),
        required=True,
        metadata={"description": "The files that were refused, in the order of the request."},
    )


class DimensionsSchema(Schema):
    """Width and height as displayed, that is with the EXIF orientation applied."""

    width = number("Pixels.", 1920, required=True, validate=POSITIVE)
    height = number("Pixels.", 1080, required=True, validate=POSITIVE)


class ProvenanceSchema(Schema):
    """The plugin, model and configuration that produced a result."""

    plugin = text("The plugin that brings the analyzer.", "dimensions", required=True)
    plugin_version = text(
        "The version of the plugin's package; null for a drop-in.",
        "0.1.0",
        required=True,
        allow_none=True,
    )
    model = fields.Dict(
        required=True,
        metadata={
            "description": "What the analyzer says of its model; without one it is empty.",
            "example": {"name": "blip-base", "version": "2024-05"},
        },
    )
    config_hash = text(
        "Of the plugin's configuration: another one gives another text.",
        EXAMPLE_HASH[:16],
        required=True,
    )


class AnalysisSchema(Schema):
    """The state of one analyzer's analysis of one upload."""

    status = one_of(State, STATE_DESCRIPTION)
    version = number("The version of the analyzer.", 1, required=True)
    attempts = number("How many runs began.", 1, required=True, validate=NOT_NEGATIVE)
    started_at = date_time("When the last run began.", required=True, allow_none=True)
    finished_at = date_time("When the last run ended.", required=True, allow_none=True)
    stale = fields.Boolean(
        required=True,
        metadata={
            "description": "Whether the analyzer has a newer version by now.",
            "example": False,
        },
    )
    provenance = fields.Nested(
        ProvenanceSchema,
        required=True,
        allow_none=True,
        metadata={"description": "What gave the result; null without one."},
    )
    error = text("Why there is no result, or not yet.", "HTTP 503", required=True, allow_none=True)
    failed_version = number(
        "The version of the analyzer that failed; only of an analysis that has failed, whose "
        "`version` is that of an earlier result, if there is one.",
        2,
    )
    result = fields.Dict(
        allow_none=True,
        metadata={
            "description": "What the analyzer found, in the shape of its `result_schema` in "
            "`GET /api/plugins`; left out of listings.",
            "example": {"width": 1920, "height": 1080},
        },
    )


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


class UploadOptionsSchema(Schema):
    """The query of an upload request."""

    duplicates = fields.String(
        load_default="keep",
        validate=validate.OneOf(["keep", "reuse"]),
        metadata={
            "description": "What to do with a file whose bytes are stored already: `keep` makes an "
            "upload of its own, `reuse` answers with the upload that is there and keeps nothing."
        },
    )
    wait_for = wait_for_field("all analyses of the uploads")


class UploadHeadersSchema(Schema):
    """The headers of an upload request."""

    # It has no example, because Swagger UI would send that key with every request.
    key = fields.String(
        data_key="Idempotency-Key",
        validate=Pattern("^[!-~]{1,255}$", error="Expected 1 to 255 visible ASCII characters."),
        metadata={
            "description": "A name for this request, new for each, such as a UUID: sent again with "
            "the same name and files, it is answered as before and stores nothing more.",
        },
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


class DimensionsQuerySchema(Schema):
    """The query of `/api/debug/dimensions`."""

    id = text("The id of an upload.", EXAMPLE_ID, required=True, validate=HEX_ID)


class FileQuerySchema(Schema):
    """The query of an original."""

    download = QueryInteger(
        load_default=0,
        validate=validate.Range(0, 1),
        metadata={"description": "1 to have browsers save it instead of showing it."},
    )


class ThumbnailQuerySchema(Schema):
    """The query of a thumbnail."""

    size = QueryInteger(
        load_default=DEFAULT_SIZE,
        validate=validate.Range(SIZES[0], SIZES[-1]),
        metadata={
            "description": "Pixels of the longer side at most; the next larger of "
            f"{', '.join(map(str, SIZES))} is taken."
        },
    )
    v = QueryInteger(
        metadata={
            "description": "How the thumbnail was made, as the `thumbnail_url` has it: with it the "
            "answer can be cached for ever, without it or with an older one for some minutes."
        },
    )


METADATA = "Of a signed address: what is sent of metadata, as `FILES_METADATA` has it."
SHARE = "Of a signed address: the `id` of the share that it belongs to."
EXPIRES = "Of a signed address: when it expires, in seconds since 1970."
SIGNATURE = "Of a signed address: the signature of all before it."


class SignedThumbnailQuerySchema(ThumbnailQuerySchema):
    """The query of a thumbnail, whose address may be signed."""

    share = fields.String(metadata={"description": SHARE})
    expires = QueryInteger(metadata={"description": EXPIRES})
    signature = fields.String(metadata={"description": SIGNATURE})


class ComparedDimensionsSchema(Schema):
    """The stored dimensions of an upload, and those of its file."""

    id = text("The id of the upload.", EXAMPLE_ID, required=True, validate=HEX_ID)
    stored = fields.Nested(DimensionsSchema, required=True)
    read = fields.Nested(DimensionsSchema, required=True)
    match = fields.Boolean(
        required=True, metadata={"description": "Whether both are the same.", "example": True}
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


def dump_analysis(
    analysis: Analysis, components: WebComponents, with_result: bool
) -> dict[str, Any]:
    """Convert an analysis to the shape of `AnalysisSchema`."""
    analyzer = components.plugin_manager.analyzers.get(analysis.name)
    private = field_tree((*analysis.private, *private_fields_of(analyzer)))
    wire = {
        "status": analysis.state,
        "version": analysis.version,
        "attempts": analysis.attempts,
        "started_at": analysis.started_at,
        "finished_at": analysis.finished_at,
        "stale": analyzer is not None and analysis.version < analyzer.version,
        "provenance": analysis.provenance,
        "error": without_addresses(analysis.error),
    }
    if analysis.state is State.FAILED and analysis.failed_version is not None:
        wire["failed_version"] = analysis.failed_version
    return wire | {"result": without_fields(analysis.result, private)} if with_result else wire


def private_fields_of(analyzer: Analyzer | None) -> tuple[str, ...]:
    """The paths of the private fields of an analyzer's results; none when it is not there."""
    return private_fields(analyzer.result_schema) if analyzer else ()


def dump_accepted(accepted: AcceptedFile) -> dict[str, Any]:
    """Convert an accepted file to the shape of `AcceptedFileSchema`."""
    upload = accepted.upload
    return {
        "index": accepted.index,
        "id": upload.id,
        "stored_filename": upload.filename,
        "preview_url": url_of(upload.filename),
        "original_filename": upload.original_name,
        "file_size": upload.size,
        "content_type": upload.content_type,
        "status": upload.status,
        "duplicate_of": upload.duplicate_of,
        "reused": accepted.reused,
    }
