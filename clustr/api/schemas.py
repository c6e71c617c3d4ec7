"""The shapes on the wire, as marshmallow schemas: what the OpenAPI document shows and tests check.

Answers are not dumped through them but written by the functions at the end, which is many times
faster; a test holds the two together.
"""

from typing import Any

from apispec import APISpec
from apispec.ext.marshmallow import MarshmallowPlugin
from flask import request
from marshmallow import INCLUDE, Schema, ValidationError, fields, validate, validates_schema

from clustr.api.current import parts
from clustr.images import CONTENT_TYPES
from clustr.plugin_host import Plugin, PluginState
from clustr.upload import Analysis, State, Status, Upload

EXAMPLE_ID = "692192f4e13f5a0c4d1b7a90"
EXAMPLE_HASH = "5f2b7a0d4c8e9f1a3b6c7d8e0f1a2b3c4d5e6f7a8b9c0d1e2f3a4b5c6d7e8f90"
HEX_ID = validate.Regexp(r"[0-9a-f]{24}\Z")


def text(description: str, example: Any = None, **more: Any) -> fields.String:
    return fields.String(metadata=_metadata(description, example), **more)


def number(description: str, example: Any = None, **more: Any) -> fields.Integer:
    return fields.Integer(metadata=_metadata(description, example), **more)


def moment(description: str, **more: Any) -> fields.AwareDateTime:
    return fields.AwareDateTime(metadata=_metadata(description, "2026-11-22T10:38:28Z"), **more)


def _metadata(description: str, example: Any) -> dict[str, Any]:
    return {"description": description} | ({} if example is None else {"example": example})


class ProblemSchema(Schema):
    """What went wrong, as a problem document (RFC 9457)."""

    type = text("Which problem this is; stable.", "urn:clustr:problem:not_found", required=True)
    title = text("The problem in a few words.", "Not found", required=True)
    status = number("The HTTP status.", 404, required=True)
    detail = text("What went wrong this time.", "There is no such upload.", required=True)
    instance = text("The path that was asked for.", "/api/uploads", required=True)
    request_id = text("Find it in the logs by this.", required=True)
    errors = fields.Dict(
        keys=fields.String(),
        values=fields.List(fields.String()),
        metadata={"description": "For each field that is wrong: why, and what is allowed."},
    )


class RefusedFileSchema(Schema):
    """A file that was not accepted."""

    original_filename = text("The name that the client gave it.", "notes.png", required=True)
    code = fields.String(
        required=True,
        validate=validate.OneOf(
            ["unsupported_type", "too_large", "too_many_pixels", "undecodable", "empty", "no_files"]
        ),
        metadata={"description": "Why it was refused.", "example": "unsupported_type"},
    )
    detail = text("The same for people.", "The content is no accepted format.", required=True)


class UploadProblemSchema(ProblemSchema):
    """Why nothing of a request was accepted; `errors` has an entry for each file."""

    errors = fields.List(fields.Nested(RefusedFileSchema))


class AcceptedFileSchema(Schema):
    """A file that was accepted and is safely stored."""

    id = text("The id of the upload.", EXAMPLE_ID, required=True, validate=HEX_ID)
    stored_filename = text("Its name on the server.", f"{EXAMPLE_ID}.jpg", required=True)
    preview_url = text("Where it can be seen.", required=True)
    original_filename = text("The name that the client gave it.", "cat.jpg", required=True)
    file_size = number("Bytes.", 125_000, required=True)
    content_type = text("The true type, whatever the name says.", "image/jpeg", required=True)
    status = fields.Enum(Status, by_value=True, required=True)
    duplicate_of = text(
        "The id of an earlier upload with the same bytes.", required=True, allow_none=True
    )


class UploadedSchema(Schema):
    """What came of the files of a request, each on its own."""

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
    """Pixels as displayed, that is with the EXIF orientation applied."""

    width = number("Pixels.", 1920, required=True)
    height = number("Pixels.", 1080, required=True)


class AnalysisSchema(Schema):
    """One analyzer's state on one upload."""

    status = fields.Enum(
        State, by_value=True, required=True, metadata={"description": "How far it is."}
    )
    version = number("The version of the analyzer.", 1, required=True)
    attempts = number("How many runs began.", 1, required=True)
    started_at = moment("When the last run began.", required=True, allow_none=True)
    finished_at = moment("When the last run ended.", required=True, allow_none=True)
    stale = fields.Boolean(
        required=True,
        metadata={"description": "Whether the analyzer has a newer version by now."},
    )
    error = text("Why there is no result.", required=True, allow_none=True)
    result = fields.Dict(
        allow_none=True,
        metadata={"description": "What the analyzer found; left out of listings."},
    )


class UploadSchema(Schema):
    """One stored image with its metadata and the state of its analyses."""

    id = text("24 hexadecimal digits.", EXAMPLE_ID, required=True, validate=HEX_ID)
    original_name = text("The name that the client gave it.", "cat.jpg", required=True)
    filename = text("Its name on the server.", f"{EXAMPLE_ID}.jpg", required=True)
    file_path = text("Where it lies below the folder of uploads.", required=True)
    url = text("Where its bytes are.", required=True)
    upload_time = moment("When it was uploaded.", required=True)
    taken_at = moment("When the picture was taken.", required=True, allow_none=True)
    size = number("Bytes.", 125_000, required=True)
    content_type = fields.String(
        required=True,
        validate=validate.OneOf(sorted(CONTENT_TYPES.values())),
        metadata={"description": "The true type.", "example": "image/jpeg"},
    )
    sha256 = text("Of the bytes, in hexadecimal digits.", EXAMPLE_HASH, required=True)
    dimensions = fields.Nested(DimensionsSchema, required=True)
    status = fields.Enum(
        Status,
        by_value=True,
        required=True,
        metadata={
            "description": "`pending` while an analysis is unfinished, `error` when one failed for "
            "good, else `processed`."
        },
    )
    caption = text("What is to be seen.", "a cat on a sofa", required=True, allow_none=True)
    tags = fields.List(fields.String(), required=True, metadata={"example": ["cat", "sofa"]})
    faces = fields.List(fields.Dict(), required=True)
    face_cluster_ids = fields.List(fields.String(), required=True)
    analyses = fields.Dict(
        keys=fields.String(),
        values=fields.Nested(AnalysisSchema),
        required=True,
        metadata={"description": "The state of each analysis, by the analyzer's name."},
    )
    duplicate_of = text("An earlier upload with the same bytes.", required=True, allow_none=True)
    updated_at = moment("When anything of it last changed.", required=True)


class UploadPageSchema(Schema):
    """A part of the listing, newest first."""

    data = fields.List(fields.Nested(UploadSchema), required=True)
    total = number("How many uploads there are.", 42, required=True)
    page = number("The page that was asked for; null with a cursor.", 1, allow_none=True)
    limit = number("How many were asked for.", 20, required=True)
    next_cursor = text("Ask with it for what follows.", required=True, allow_none=True)


class UploadQuerySchema(Schema):
    """Which part of the listing is wanted."""

    page = fields.Integer(
        validate=validate.Range(1, 1_000_000),
        metadata={"description": "Which page, from 1; not beside `cursor`.", "default": 1},
    )
    limit = fields.Integer(
        load_default=20,
        validate=validate.Range(1, 100),
        metadata={"description": "How many uploads on a page."},
    )
    cursor = text("The `next_cursor` of the answer before; it costs the same at any depth.")

    @validates_schema
    def check_place(self, query: dict[str, Any], **_more: Any) -> None:
        if "page" in query and "cursor" in query:
            raise ValidationError("Give either `page` or `cursor`, not both.", "cursor")


class DatabaseSchema(Schema):
    """Whether the database answers."""

    status = fields.String(required=True, validate=validate.OneOf(["connected", "disconnected"]))
    version = text("MongoDB's version.", "6.0.5", required=True, allow_none=True)


class OnlineSchema(Schema):
    """That the service is there."""

    status = fields.String(required=True, validate=validate.Equal("online"))
    timestamp = moment("The server's time.", required=True)
    version = text("Clustr's version.", "0.1.0", required=True)
    response_time = fields.Float(required=True, metadata={"description": "Milliseconds."})
    database = fields.Nested(DatabaseSchema, required=True)


class ServiceSchema(Schema):
    """How one service is; more members say more about it."""

    class Meta:
        unknown = INCLUDE

    status = fields.String(
        required=True, validate=validate.OneOf(["healthy", "degraded", "unhealthy"])
    )
    detail = text("What is wrong, if something is.")


class HealthSchema(Schema):
    """How the service and all that it needs are."""

    status = fields.String(
        required=True, validate=validate.OneOf(["healthy", "degraded", "critical"])
    )
    timestamp = moment("The server's time.", required=True)
    response_time = fields.Float(required=True, metadata={"description": "Milliseconds."})
    services = fields.Dict(
        keys=fields.String(),
        values=fields.Nested(ServiceSchema),
        required=True,
        metadata={
            "description": "By name: `backend`, `database`, `queue`, `storage`, and what plugins "
            "need. `queue.deferred` says for each analyzer whose service is away how many analyses "
            "wait (`count`) and since when (`since`)."
        },
    )


class AliveSchema(Schema):
    """That the process serves, or can take uploads."""

    status = text("`alive`, `ready` or `not ready`.", "alive", required=True)


class AnalyzerSchema(Schema):
    """An analyzer that a plugin brings."""

    name = text("The key of its results.", "dimensions", required=True)
    version = number("Raised when results may change.", 1, required=True)
    queue = text("The kind of work.", "default", required=True)
    summary = text("What it finds.", required=True)
    result_schema = fields.Dict(
        required=True, metadata={"description": "The shape of its results, as a JSON schema."}
    )


class PluginSchema(Schema):
    """A plugin that was found, whether or not it could be loaded."""

    name = text("Its name.", "dimensions", required=True)
    version = text("The version of its package.", "0.1.0", required=True, allow_none=True)
    source = fields.String(required=True, validate=validate.OneOf(["package", "folder"]))
    state = fields.Enum(PluginState, by_value=True, required=True)
    reason = text("Why it is not loaded.", required=True, allow_none=True)
    analyzers = fields.List(fields.Nested(AnalyzerSchema), required=True)


class PluginListSchema(Schema):
    """All plugins that were found."""

    data = fields.List(fields.Nested(PluginSchema), required=True)


class DimensionsQuerySchema(Schema):
    """Whose dimensions are wanted."""

    id = text("The id of an upload.", EXAMPLE_ID, required=True)


class ComparedDimensionsSchema(Schema):
    """The dimensions that are stored beside those that the file has now."""

    id = text("The id of the upload.", EXAMPLE_ID, required=True)
    stored = fields.Nested(DimensionsSchema, required=True)
    read = fields.Nested(DimensionsSchema, required=True)
    match = fields.Boolean(required=True)


_inlining = MarshmallowPlugin(schema_name_resolver=lambda _schema: None)
APISpec("", "", "3.0.3", plugins=[_inlining])


def json_schema(schema: type[Schema]) -> dict[str, Any]:
    """A marshmallow schema as one JSON schema, with nothing referred to elsewhere."""
    return _inlining.converter.schema2jsonschema(schema)


def url_of(filename: str) -> str:
    """Where clients find an original: below `BASE_URL`, or else the host that they called."""
    base = parts.settings.base_url or request.root_url
    return f"{base.rstrip('/')}{parts.settings.upload_url_path}/{filename}"


def upload_on_wire(upload: Upload, with_results: bool) -> dict[str, Any]:
    """An upload in the shape of `UploadSchema`."""
    return {
        "id": upload.id,
        "original_name": upload.original_name,
        "filename": upload.filename,
        "file_path": parts.storage.key(upload.filename),
        "url": url_of(upload.filename),
        "upload_time": upload.upload_time,
        "taken_at": upload.taken_at,
        "size": upload.size,
        "content_type": upload.content_type,
        "sha256": upload.sha256,
        "dimensions": {"width": upload.width, "height": upload.height},
        "status": upload.status,
        "caption": upload.caption,
        "tags": upload.tags,
        "faces": upload.faces,
        "face_cluster_ids": upload.face_cluster_ids,
        "analyses": {a.name: analysis_on_wire(a, with_results) for a in upload.analyses},
        "duplicate_of": upload.duplicate_of,
        "updated_at": upload.updated_at,
    }


def analysis_on_wire(analysis: Analysis, with_result: bool) -> dict[str, Any]:
    """An analysis in the shape of `AnalysisSchema`."""
    analyzer = parts.host.analyzers.get(analysis.name)
    wire = {
        "status": analysis.state,
        "version": analysis.version,
        "attempts": analysis.attempts,
        "started_at": analysis.started_at,
        "finished_at": analysis.finished_at,
        "stale": analyzer is not None and analysis.version < analyzer.version,
        "error": analysis.error,
    }
    return wire | {"result": analysis.result} if with_result else wire


def accepted_on_wire(upload: Upload) -> dict[str, Any]:
    """An upload in the shape of `AcceptedFileSchema`."""
    return {
        "id": upload.id,
        "stored_filename": upload.filename,
        "preview_url": url_of(upload.filename),
        "original_filename": upload.original_name,
        "file_size": upload.size,
        "content_type": upload.content_type,
        "status": upload.status,
        "duplicate_of": upload.duplicate_of,
    }


def plugin_on_wire(plugin: Plugin) -> dict[str, Any]:
    """A plugin in the shape of `PluginSchema`."""
    return {
        "name": plugin.name,
        "version": plugin.version,
        "source": plugin.source,
        "state": plugin.state,
        "reason": plugin.reason,
        "analyzers": [
            {
                "name": analyzer.name,
                "version": analyzer.version,
                "queue": analyzer.queue,
                "summary": analyzer.summary,
                "result_schema": json_schema(analyzer.result_schema),
            }
            for analyzer in plugin.analyzers
        ],
    }
