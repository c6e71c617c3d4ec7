"""Schemas of health, plugins and the state of the service."""

from collections.abc import Iterable
from typing import Any

from marshmallow import INCLUDE, Schema, fields, validate

from clustr.api.http.fields import NOT_NEGATIVE, Pattern, date_time, number, one_of, text
from clustr.api.http.json_schema import json_schema
from clustr.api.http.service_addresses import without_addresses
from clustr.plugin_manager import Plugin, PluginState, code_hash, private_names
from clustr.plugin_manager.service_addresses import why_off
from clustr.services.default_services import DefaultServices
from clustr.services.running_processes import RunningProcess

EXAMPLE_RESULT_SCHEMA = {
    "type": "object",
    "properties": {"width": {"type": "integer"}, "height": {"type": "integer"}},
    "required": ["height", "width"],
    "additionalProperties": False,
}


def response_time_field() -> fields.Float:
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
    version = text(
        "MongoDB's version; null while it is away, and where keys are needed.",
        "6.0.5",
        required=True,
        allow_none=True,
    )


class OnlineSchema(Schema):
    """The answer of `GET /`."""

    status = fields.String(
        required=True,
        validate=validate.OneOf(["online"]),
        metadata={"description": "Always the same.", "example": "online"},
    )
    timestamp = date_time("The server's time.", required=True)
    version = text(
        "Clustr's version; null where keys are needed.", "0.1.0", required=True, allow_none=True
    )
    response_time = response_time_field()
    database = fields.Nested(DatabaseSchema, required=True)


def response_time_text_field(description: str) -> fields.String:
    return text(description, "7.0 ms", required=True, validate=Pattern(r"^[0-9.]+ ms$"))


class SearchTermsSchema(Schema):
    """How far the workers are with making the terms by which searches find uploads."""

    done = number(
        "Of how many uploads they are made.", 12_000, required=True, validate=NOT_NEGATIVE
    )
    total = number("Of so many.", 100_000, required=True, validate=NOT_NEGATIVE)


class ServiceSchema(Schema):
    """The health of one service; further members are details of it."""

    class Meta:
        unknown = INCLUDE

    status = fields.String(
        required=True,
        validate=validate.OneOf(
            ["healthy", "busy", "degraded", "unhealthy", "not_configured", "disabled"]
        ),
        metadata={
            "description": "How it is. `busy`: calls of its analyzer are under way, and it has no "
            "time to say how it is. `not_configured`: nobody has said where it is and it was "
            "never found, so it is asked nothing; the `detail` says how to have it. `disabled`: "
            "nothing that is loaded needs it. None of these is any trouble.",
            "example": "healthy",
        },
    )
    response_time = response_time_text_field("How long its check took.")
    detail = text(
        "What there is to say of it: the reason, where it is not healthy.",
        "The queue cannot be reached at the moment; please try again.",
    )
    error = text(
        "The same as `detail`, where it is not healthy.",
        "The queue cannot be reached at the moment; please try again.",
    )
    version = text("Of `backend` and `database`: the version.", "6.0.5")
    url = text("Where the service of an analyzer is, without credentials.", "http://localhost:8001")
    captioned_images = number(
        "Of `database`: how many of them have a caption, as the workers counted last, which they "
        "do every ten seconds, or less often when there is much to count.",
        30,
        validate=NOT_NEGATIVE,
    )
    uncaptioned_images = number(
        "Of `database`: how many have none, as counted at the same time.",
        12,
        validate=NOT_NEGATIVE,
    )
    image_count = number(
        "Of `database`: how many uploads there are, without those in the trash.",
        42,
        validate=NOT_NEGATIVE,
    )
    search_terms = fields.Nested(
        SearchTermsSchema,
        metadata={
            "description": "Of `database`: how far the terms are by which searches find uploads, "
            "while they are made anew after an update of Clustr or for other `SEARCH_LANGUAGES`, "
            "the newest uploads first. Searches go on meanwhile, and uploads without new terms "
            "are found by their old ones, if they have any. Left out when all are made.",
        },
    )


class HealthSchema(Schema):
    """The health of Clustr and of all services that it needs."""

    status = fields.String(
        required=True,
        validate=validate.OneOf(["healthy", "degraded", "critical"]),
        metadata={
            "description": "`critical` without the database or the storage, `degraded` without "
            "something else.",
            "example": "degraded",
        },
    )
    timestamp = date_time("The server's time.", required=True)
    response_time = response_time_text_field("How long the answer took.")
    services = fields.Dict(
        keys=fields.String(),
        values=fields.Nested(ServiceSchema),
        required=True,
        metadata={
            "description": "By name: `backend`, `database`, `queue`, `storage`, `plugins`, "
            "`captioner`, and what else plugins need. `captioner` is what the analyzer needs that "
            "writes captions, whatever that calls it; it is there without such an analyzer, too, "
            "as `disabled`. "
            "`queue` says how many jobs and how many workers each queue has, for how long the "
            "upload has waited that waits longest for an analysis to begin (`waiting_seconds`), "
            "and for each analyzer whose service is away how many analyses wait (`count`) and "
            "since when (`since`); it is `degraded` without a worker for a queue that an analyzer "
            "uses, and when an upload waits for more than 60 s. `storage` is `degraded` when there "
            "is room for fewer than ten uploads of the largest size, or for fewer than 1,000 "
            "files. `plugins` is `degraded` while one of them could not be loaded, and has the "
            "reasons by their names (`not_loaded`).",
            "example": {
                "backend": {
                    "status": "healthy",
                    "response_time": "0.0 ms",
                    "version": "0.1.0",
                    "uptime_seconds": 86400.0,
                },
                "database": {
                    "status": "healthy",
                    "response_time": "2.1 ms",
                    "version": "6.0.5",
                    "durable": True,
                    "image_count": 42,
                    "captioned_images": 30,
                    "uncaptioned_images": 12,
                },
                "queue": {
                    "status": "healthy",
                    "response_time": "1.3 ms",
                    "jobs": {"default": 0, "http": 1, "gpu": 0},
                    "workers": {"default": 2, "http": 2},
                    "waiting_seconds": 0.4,
                    "deferred": {"blip": {"count": 12, "since": "2026-11-22T10:38:28.000000Z"}},
                },
                "storage": {
                    "status": "healthy",
                    "response_time": "0.4 ms",
                    "free_bytes": 512000000000,
                    "free_inodes": 31000000,
                },
                "plugins": {"status": "healthy", "response_time": "0.0 ms"},
                "captioner": {
                    "status": "unhealthy",
                    "response_time": "5.2 ms",
                    "detail": "The captioner does not answer.",
                    "error": "The captioner does not answer.",
                    "url": "http://captioner:8001",
                },
            },
        },
    )


class AliveSchema(Schema):
    """The answers of the probes `/live` and `/ready`."""

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
    configured = fields.Boolean(
        required=True,
        metadata={
            "description": "Whether its service is known, if it needs one. While it is not, new "
            "uploads are not analyzed by it; once it is, what is missing is made.",
            "example": True,
        },
    )
    fields_ = fields.List(
        fields.String(),
        data_key="fields",
        required=True,
        metadata={
            "description": "The fields of uploads that it fills, such as `caption`.",
            "example": ["dimensions"],
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
        "Why it is not loaded, or what an analyzer of it needs to be configured.",
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
    outdated_processes = fields.List(
        fields.String(),
        required=True,
        allow_none=True,
        metadata={
            "description": "The processes that run other code of it than its files have now, by "
            "kind and id: they have to be restarted. `null` while Redis does not answer, which "
            "knows who runs.",
            "example": ["worker 4711"],
        },
    )
    analyzers = fields.List(
        fields.Nested(AnalyzerSchema),
        required=True,
        metadata={"description": "What it brings; nothing while it is not loaded."},
    )


class PluginListSchema(Schema):
    """All plugins that were found."""

    data = fields.List(fields.Nested(PluginSchema), required=True)


def dump_plugin(
    plugin: Plugin, services: DefaultServices, processes: Iterable[RunningProcess] | None
) -> dict[str, Any]:
    """Convert a plugin to the shape of `PluginSchema`.

    Args:
        processes: all that run; None when that is not known.
    """
    code = code_hash(plugin.file)
    outdated = None
    if processes is not None:
        running = [p for p in processes if plugin.name in p.plugins]
        outdated = [str(p) for p in running if p.plugins[plugin.name].code != code]
    missing = [a for a in plugin.analyzers if a.name in services.not_configured]
    reason = " ".join(map(services.advice, missing)) or plugin.reason or why_off(plugin)
    return {
        "name": plugin.name,
        "version": plugin.version,
        "source": plugin.source,
        "state": plugin.state,
        "reason": reason and without_addresses(reason),
        "hook_errors": plugin.hook_errors,
        "outdated_processes": outdated,
        "analyzers": [
            {
                "name": analyzer.name,
                "version": analyzer.version,
                "queue": analyzer.queue,
                "summary": analyzer.summary,
                "formats": sorted(analyzer.formats),
                "requires": analyzer.requires,
                "auto": analyzer.auto,
                "configured": analyzer not in missing,
                "fields": sorted(analyzer.fields),
                "result_schema": json_schema(
                    analyzer.result_schema, private_names(analyzer.result_schema)
                ),
            }
            for analyzer in plugin.analyzers
        ],
    }
