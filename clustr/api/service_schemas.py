"""The shapes on the wire of what the service says of itself."""

from typing import Any

from marshmallow import INCLUDE, Schema, fields, validate

from clustr.api.fields import NOT_NEGATIVE, moment, number, one_of, text
from clustr.api.json_schemas import json_schema
from clustr.plugin_host import Plugin, PluginState

EXAMPLE_RESULT_SCHEMA = {
    "type": "object",
    "properties": {"width": {"type": "integer"}, "height": {"type": "integer"}},
    "required": ["height", "width"],
    "additionalProperties": False,
}


def milliseconds() -> fields.Float:
    return fields.Float(
        required=True,
        validate=NOT_NEGATIVE,
        metadata={"description": "How long the answer took, in milliseconds.", "example": 3.86},
    )


class DatabaseSchema(Schema):
    """Whether the database answers."""

    status = fields.String(
        required=True,
        validate=validate.OneOf(["connected", "disconnected"]),
        metadata={"description": "Whether it answers.", "example": "connected"},
    )
    version = text("MongoDB's version.", "6.0.5", required=True, allow_none=True)


class OnlineSchema(Schema):
    """That the service is there."""

    status = fields.String(
        required=True,
        validate=validate.OneOf(["online"]),
        metadata={"description": "Always the same.", "example": "online"},
    )
    timestamp = moment("The server's time.", required=True)
    version = text("Clustr's version.", "0.1.0", required=True)
    response_time = milliseconds()
    database = fields.Nested(DatabaseSchema, required=True)


class ServiceSchema(Schema):
    """How one service is; more members say more about it."""

    class Meta:
        unknown = INCLUDE

    status = fields.String(
        required=True,
        validate=validate.OneOf(["healthy", "degraded", "unhealthy"]),
        metadata={"description": "How it is.", "example": "healthy"},
    )
    detail = text(
        "What is wrong, if something is.",
        "The queue cannot be reached at the moment; please try again.",
    )


class HealthSchema(Schema):
    """How the service and all that it needs are."""

    status = fields.String(
        required=True,
        validate=validate.OneOf(["healthy", "degraded", "critical"]),
        metadata={
            "description": "`critical` without the database or the storage, `degraded` without "
            "something else.",
            "example": "degraded",
        },
    )
    timestamp = moment("The server's time.", required=True)
    response_time = milliseconds()
    services = fields.Dict(
        keys=fields.String(),
        values=fields.Nested(ServiceSchema),
        required=True,
        metadata={
            "description": "By name: `backend`, `database`, `queue`, `storage`, and what plugins "
            "need. `queue.deferred` says for each analyzer whose service is away how many analyses "
            "wait (`count`) and since when (`since`).",
            "example": {
                "backend": {"status": "healthy", "version": "0.1.0", "uptime_seconds": 86400.0},
                "database": {"status": "healthy", "version": "6.0.5", "durable": True},
                "queue": {
                    "status": "healthy",
                    "jobs": {"default": 0, "http": 1, "gpu": 0},
                    "deferred": {"blip": {"count": 12, "since": "2026-11-22T10:38:28Z"}},
                },
                "storage": {"status": "healthy"},
                "captioner": {"status": "unhealthy", "detail": "it does not answer"},
            },
        },
    )


class AliveSchema(Schema):
    """That the process serves, or can take uploads."""

    status = fields.String(
        required=True,
        validate=validate.OneOf(["alive", "ready", "not ready"]),
        metadata={"description": "`alive` from `/live`, the others from `/ready`."},
    )


class AnalyzerSchema(Schema):
    """An analyzer that a plugin brings."""

    name = text("The key of its results.", "dimensions", required=True)
    version = number("Raised when results may change.", 1, required=True)
    queue = text("The kind of work: which workers do it.", "default", required=True)
    summary = text("What it finds.", "Width and height in pixels, as displayed", required=True)
    formats = fields.List(
        fields.String(),
        required=True,
        metadata={
            "description": "The content types that it looks at; all when there are none.",
            "example": ["image/jpeg"],
        },
    )
    requires = fields.List(
        fields.String(),
        required=True,
        metadata={"description": "The analyzers whose results it needs.", "example": []},
    )
    auto = fields.Boolean(
        required=True,
        metadata={
            "description": "Whether it looks at every upload, or only when it is asked to.",
            "example": True,
        },
    )
    result_schema = fields.Dict(
        required=True,
        metadata={
            "description": "The shape of its results, as a JSON schema.",
            "example": EXAMPLE_RESULT_SCHEMA,
        },
    )


class PluginSchema(Schema):
    """A plugin that was found, whether or not it could be loaded."""

    name = text("Its name.", "dimensions", required=True)
    version = text("The version of its package.", "0.1.0", required=True, allow_none=True)
    source = fields.String(
        required=True,
        validate=validate.OneOf(["package", "folder"]),
        metadata={
            "description": "`package` when it is installed, `folder` when it was dropped in.",
            "example": "package",
        },
    )
    state = one_of(
        PluginState,
        "`loaded`; `disabled` by the settings; `misconfigured` when its own settings do not fit; "
        "`failed` when its code did; `conflict` with another plugin, such as about a name.",
    )
    reason = text(
        "Why it is not loaded.",
        "BLIP_SERVICE_URL: Not a valid URL.",
        required=True,
        allow_none=True,
    )
    hook_errors = number(
        "How often a hook of it raised when it was told of something, in the process that answers.",
        0,
        required=True,
        validate=NOT_NEGATIVE,
    )
    analyzers = fields.List(
        fields.Nested(AnalyzerSchema),
        required=True,
        metadata={"description": "What it brings; nothing while it is not loaded."},
    )


class PluginListSchema(Schema):
    """All plugins that were found."""

    data = fields.List(fields.Nested(PluginSchema), required=True)


def plugin_on_wire(plugin: Plugin) -> dict[str, Any]:
    """A plugin in the shape of `PluginSchema`."""
    return {
        "name": plugin.name,
        "version": plugin.version,
        "source": plugin.source,
        "state": plugin.state,
        "reason": plugin.reason,
        "hook_errors": plugin.hook_errors,
        "analyzers": [
            {
                "name": analyzer.name,
                "version": analyzer.version,
                "queue": analyzer.queue,
                "summary": analyzer.summary,
                "formats": sorted(analyzer.formats),
                "requires": analyzer.requires,
                "auto": analyzer.auto,
                "result_schema": json_schema(analyzer.result_schema),
            }
            for analyzer in plugin.analyzers
        ],
    }
