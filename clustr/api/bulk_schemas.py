"""The shapes on the wire of jobs, and of the analyses of all uploads together."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from marshmallow import Schema, ValidationError, fields, validate, validates_schema

from clustr import reasons
from clustr.api.schemas import (
    EXAMPLE_HASH,
    EXAMPLE_ID,
    HEX_ID,
    ID_PATTERN,
    NOT_NEGATIVE,
    STATE,
    WholeNumber,
    moment,
    number,
    one_of,
    text,
)
from clustr.bulk import Estimate
from clustr.catalog import Counted, Job, JobState, Select, Selection
from clustr.images import CONTENT_TYPES
from clustr.plugin_host import Plugin
from clustr.plugins import Analyzer
from clustr.upload import State, Status

MOST_IDS = 10_000
MOST_TAGS = 20
LONGEST_TAG = 200
LARGEST_NUMBER = 2**53 - 1
ANALYZER_NAME = validate.Regexp(
    r"^[a-z][a-z0-9_]{0,99}$", error="A name is a-z, 0-9 and _, and begins with a letter."
)
LARGEST_LIMIT = 1_000_000_000
EXAMPLE_MOMENT = "2026-11-22T10:38:28Z"
EXAMPLE_COUNTS = {
    "selected": 500,
    "waiting": 0,
    "queued": 187,
    "running": 1,
    "deferred": 0,
    "succeeded": 309,
    "skipped": 2,
    "failed": 1,
    "cancelled": 0,
}


def point_in_time(description: str) -> fields.AwareDateTime:
    """A moment that a client sends; without an offset it is UTC."""
    return fields.AwareDateTime(
        default_timezone=UTC,
        validate=_within_utc,
        metadata={"description": description, "example": EXAMPLE_MOMENT},
    )


def _within_utc(value: datetime) -> None:
    try:
        value.astimezone(UTC)
    except OverflowError as error:
        raise ValidationError("Not a valid aware datetime.") from error


class TrueOrFalse(fields.Boolean):
    """A truth value of JSON, and not a number or a text that can be taken for one."""

    def _deserialize(self, value: Any, *args: Any, **kwargs: Any) -> bool | None:
        if not isinstance(value, bool):
            raise self.make_error("invalid", input=value)
        return value


class BodySchema(Schema):
    """What a client sends; of a misspelt member it is said what may have been meant."""

    def handle_error(self, error: ValidationError, *_: Any, **__: Any) -> None:
        """Say more of what is unknown than that it is."""
        for name, said in error.messages.items():
            if said == [self.error_messages["unknown"]]:
                error.messages[name] = [reasons.unknown("field", name, self.fields)]


def upload_ids(description: str) -> fields.List:
    """Ids of uploads that a client sends."""
    each = fields.String(
        validate=validate.Regexp(ID_PATTERN, error="An id is 24 hexadecimal digits, in lower case.")
    )
    return fields.List(
        each,
        validate=validate.Length(1, MOST_IDS),
        metadata={"description": description, "example": [EXAMPLE_ID]},
    )


def _limit(description: str) -> fields.Integer:
    return fields.Integer(
        strict=True,
        validate=validate.Range(0, LARGEST_NUMBER),
        metadata={"description": description},
    )


class FilterSchema(BodySchema):
    """Which uploads are looked at, by the filters of the listing."""

    status = fields.Enum(
        Status, by_value=fields.String, metadata={"description": "Those of this status."}
    )
    tag = fields.List(
        fields.String(validate=validate.Length(1, LONGEST_TAG)),
        validate=validate.Length(1, MOST_TAGS),
        metadata={"description": "Those with all of these tags.", "example": ["cat"]},
    )
    content_type = fields.String(
        validate=validate.OneOf(sorted(CONTENT_TYPES.values())),
        metadata={"description": "Those of this true type.", "example": "image/jpeg"},
    )
    analyzer = fields.String(
        validate=ANALYZER_NAME,
        metadata={"description": "The analyzer that `analysis_status` is about."},
    )
    analysis_status = fields.Enum(
        State,
        by_value=fields.String,
        metadata={"description": "Those of which the analysis of `analyzer` is in this state."},
    )
    duplicate = TrueOrFalse(
        metadata={"description": "Those whose bytes an earlier upload had, or those it is not so."}
    )
    uploaded_after = point_in_time("Those uploaded at this time or later.")
    uploaded_before = point_in_time("Those uploaded before this time.")
    taken_after = point_in_time("Those taken at this time or later.")
    taken_before = point_in_time("Those taken before this time.")
    min_width = _limit("Those at least so wide, in pixels.")
    max_width = _limit("Those at most so wide, in pixels.")
    min_height = _limit("Those at least so high, in pixels.")
    max_height = _limit("Those at most so high, in pixels.")
    min_size = _limit("Those of at least so many bytes.")
    max_size = _limit("Those of at most so many bytes.")

    @validates_schema
    def check_what_goes_together(self, filters: dict[str, Any], **_more: Any) -> None:
        check_analysis(filters)


def check_analysis(filters: Mapping[str, Any]) -> None:
    """Make sure that a status of an analysis is asked for with the analyzer, and so the reverse.

    Raises:
        ValidationError: one of them is alone.
    """
    for one, other in (("analyzer", "analysis_status"), ("analysis_status", "analyzer")):
        if one in filters and other not in filters:
            raise ValidationError(f"It goes with `{one}`; give both.", other)


class AnalysisOrderSchema(BodySchema):
    """Which analyzer is to look at which uploads."""

    analyzer = text("Its name.", "dimensions", required=True)
    select = one_of(
        Select,
        "Of the analyses that are not under way: `missing`, those of uploads without a result "
        "(that came before the analyzer, or where it failed or was cancelled or could not begin); "
        "`stale`, those of an earlier version of the analyzer; `failed`; or `all`.",
    )
    ids = upload_ids("Only these uploads. Unknown ones are no error.")
    filter = fields.Nested(
        FilterSchema,
        metadata={"description": "Only uploads that meet all of this."},
    )
    limit = fields.Integer(
        strict=True,
        validate=validate.Range(1, LARGEST_LIMIT),
        metadata={"description": "How many at most, the oldest first.", "example": 500},
    )
    dry_run = TrueOrFalse(
        load_default=False,
        metadata={
            "description": "Change nothing; only say how many there are, and how long they take.",
            "example": False,
        },
    )


class EstimateSchema(Schema):
    """What an order would come to."""

    matched = number("How many uploads are selected.", 500, required=True, validate=NOT_NEGATIVE)
    estimated_seconds = fields.Float(
        required=True,
        allow_none=True,
        validate=NOT_NEGATIVE,
        metadata={
            "description": "How long one worker would take for them, by what its latest runs took "
            "in the middle; several share the work. Null while nothing is known of any run.",
            "example": 61.5,
        },
    )


class JobCountsSchema(Schema):
    """How many uploads of a job have come how far."""

    selected = number("How many were selected so far.", 500, required=True, validate=NOT_NEGATIVE)
    waiting = number("They wait for another analysis.", 0, required=True, validate=NOT_NEGATIVE)
    queued = number("They wait for a worker.", 187, required=True, validate=NOT_NEGATIVE)
    running = number("They are being analyzed.", 1, required=True, validate=NOT_NEGATIVE)
    deferred = number(
        "They wait for a service that is away.", 0, required=True, validate=NOT_NEGATIVE
    )
    succeeded = number(
        "It is done to them; they have a new result.", 309, required=True, validate=NOT_NEGATIVE
    )
    skipped = number(
        "There was nothing to say about them.", 2, required=True, validate=NOT_NEGATIVE
    )
    failed = number(
        "They failed; a result from before is still there.", 1, required=True, validate=NOT_NEGATIVE
    )
    cancelled = number("They were cancelled with the job.", 0, required=True, validate=NOT_NEGATIVE)


class JobFailureSchema(Schema):
    """What went wrong with one upload of a job."""

    id = text("The id of the upload.", EXAMPLE_ID, required=True, validate=HEX_ID)
    error = text("Why.", "took longer than 60 seconds", required=True)


class JobSchema(Schema):
    """What is to be done to many uploads, and how far that is."""

    id = text("24 hexadecimal digits.", EXAMPLE_ID, required=True, validate=HEX_ID)
    kind = fields.String(
        required=True,
        validate=validate.OneOf(["analyze", "delete", "restore", "tag", "untag"]),
        metadata={"description": "What is done.", "example": "analyze"},
    )
    state = one_of(
        JobState,
        "`queued` until a worker takes it up, `running` until all is done; in the end `succeeded` "
        "(also when single uploads failed), `failed` when the job as a whole could not go on, or "
        "`cancelled`.",
    )
    parameters = fields.Dict(
        required=True,
        metadata={
            "description": "What was ordered; `ids` are left out of lists.",
            "example": {"analyzer": "dimensions", "select": "stale", "limit": 500},
        },
    )
    total = number(
        "How many uploads it is about; null while they are being found.",
        500,
        required=True,
        allow_none=True,
        validate=NOT_NEGATIVE,
    )
    counts = fields.Nested(JobCountsSchema, required=True)
    error = text(
        "Why the job as a whole failed.",
        "Unknown analyzer dimension; did you mean dimensions?",
        required=True,
        allow_none=True,
    )
    failures = fields.List(
        fields.Nested(JobFailureSchema),
        metadata={
            "description": "The first 1,000 uploads that failed, of analyses once all have ended; "
            "left out of lists.",
        },
    )
    request_id = text(
        "The `X-Request-ID` of the request that ordered it.", EXAMPLE_HASH[:32], required=True
    )
    created_at = moment("When it was ordered.", required=True)
    started_at = moment("When a worker took it up.", required=True, allow_none=True)
    finished_at = moment(
        "When it ended; thirty days later it is removed.", required=True, allow_none=True
    )
    cancel_requested_at = moment("When somebody wanted it to end.", required=True, allow_none=True)
    updated_at = moment("When anything of it last changed.", required=True)


class JobListSchema(Schema):
    """The newest jobs."""

    data = fields.List(fields.Nested(JobSchema), required=True)


class JobQuerySchema(Schema):
    """Which jobs are wanted."""

    limit = WholeNumber(
        load_default=20,
        validate=validate.Range(1, 100),
        metadata={"description": "How many jobs."},
    )


class DurationsSchema(Schema):
    """How long one image takes, in milliseconds, by the latest runs."""

    p50 = fields.Float(
        required=True,
        validate=NOT_NEGATIVE,
        metadata={"description": "Half of them took so long at most.", "example": 123.0},
    )
    p95 = fields.Float(
        required=True,
        validate=NOT_NEGATIVE,
        metadata={"description": "95 of 100 took so long at most.", "example": 310.5},
    )


class AnalyzerStatisticsSchema(Schema):
    """How the analyses of one analyzer are."""

    analyzer = text("Its name.", "dimensions", required=True)
    plugin = text("The plugin that brings it.", "dimensions", required=True)
    version = number("The version of the analyzer.", 1, required=True)
    states = fields.Dict(
        keys=fields.String(validate=validate.OneOf([state.value for state in State])),
        values=fields.Integer(validate=NOT_NEGATIVE),
        required=True,
        metadata={
            "description": f"How many are in each state; those in which there is none are left "
            f"out. {STATE}",
            "example": {"succeeded": 4807, "skipped": 12, "failed": 3, "queued": 187},
        },
    )
    oldest_waiting_at = moment(
        "Since when the one waits that has waited longest for its turn; null when none does.",
        required=True,
        allow_none=True,
    )
    rate_per_minute = fields.Float(
        required=True,
        allow_none=True,
        validate=NOT_NEGATIVE,
        metadata={"description": "How many ended a minute, of late.", "example": 486.2},
    )
    durations_ms = fields.Nested(
        DurationsSchema,
        required=True,
        allow_none=True,
        metadata={"description": "How long one image takes; null when nothing is known."},
    )
    stale = number(
        "How many ended that are of an earlier version of the analyzer.",
        0,
        required=True,
        allow_none=True,
        validate=NOT_NEGATIVE,
    )
    counted_at = moment(
        "When all this was counted, which is done every ten seconds, or less often when there is "
        "much to count; null when it never was, because no worker has run.",
        required=True,
        allow_none=True,
    )


class AnalysesSchema(Schema):
    """How the analyses of all analyzers are."""

    data = fields.List(fields.Nested(AnalyzerStatisticsSchema), required=True)


def selection_of(order: dict[str, Any]) -> Selection:
    """What an order in the shape of `AnalysisOrderSchema` selects."""
    ids = order.get("ids")
    return Selection(
        analyzer=order["analyzer"],
        select=order["select"],
        ids=tuple(ids) if ids is not None else None,
        filter=order.get("filter", {}),
        limit=order.get("limit"),
    )


def estimate_on_wire(estimate: Estimate) -> dict[str, Any]:
    """An estimate in the shape of `EstimateSchema`."""
    return {"matched": estimate.matched, "estimated_seconds": estimate.seconds}


def job_on_wire(job: Job, in_list: bool = False) -> dict[str, Any]:
    """A job in the shape of `JobSchema`."""
    wire = {
        "id": job.id,
        "kind": job.kind,
        "state": job.state,
        "parameters": job.parameters,
        "total": job.total,
        "counts": {name: job.counts.get(name, 0) for name in EXAMPLE_COUNTS},
        "error": job.error,
        "request_id": job.request_id,
        "created_at": job.created_at,
        "started_at": job.started_at,
        "finished_at": job.finished_at,
        "cancel_requested_at": job.cancel_requested_at,
        "updated_at": job.updated_at,
    }
    if not in_list:
        wire["failures"] = [{"id": f.upload_id, "error": f.error} for f in job.failures]
    return wire


def statistics_on_wire(
    analyzer: Analyzer, plugin: Plugin, counted: Counted | None
) -> dict[str, Any]:
    """What was counted of an analyzer in the shape of `AnalyzerStatisticsSchema`."""
    durations = counted.durations if counted else None
    return {
        "analyzer": analyzer.name,
        "plugin": plugin.name,
        "version": analyzer.version,
        "states": counted.states if counted else {},
        "oldest_waiting_at": counted.oldest_waiting_at if counted else None,
        "rate_per_minute": counted.rate_per_minute if counted else None,
        "durations_ms": {"p50": durations.p50, "p95": durations.p95} if durations else None,
        "stale": counted.stale if counted else None,
        "counted_at": counted.counted_at if counted else None,
    }
