"""The end of an analysis, and how it follows from what the analyzer's code returned or raised."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC
from typing import Any

from marshmallow import Schema, ValidationError, fields, validate

from clustr import logs
from clustr.analysis.json_values import to_json_values
from clustr.analysis.limits import TimeUp
from clustr.domain import failure_messages
from clustr.domain.models import State
from clustr.plugin_manager import author_traceback, describe_plugin_exception
from clustr.plugins import Analyzer, ConfigError, Fail, ModelResult, Outcome, RetryLater, Skip

log = logs.logger(__name__)

LARGEST_RESULT_BYTES = 1_000_000
LARGEST_MODEL_INFO_BYTES = 10_000


class DimensionsField(Schema):
    """The width and height of an upload, in pixels."""

    width = fields.Integer(required=True, strict=True, validate=validate.Range(min=1))
    height = fields.Integer(required=True, strict=True, validate=validate.Range(min=1))


# What an analyzer may write into the upload's own fields. It is checked here, because listings
# return these fields unchecked.
UPLOAD_FIELDS: dict[str, fields.Field[Any]] = {
    "caption": fields.String(),
    "tags": fields.List(fields.String()),
    "dimensions": fields.Nested(DimensionsField),
    "taken_at": fields.AwareDateTime(default_timezone=UTC),
    "faces": fields.List(fields.Dict(keys=fields.String())),
}
UploadFields = Schema.from_dict(UPLOAD_FIELDS, name="UploadFields")


@dataclass(frozen=True, slots=True)
class End:
    """How the analysis of one image ended.

    Attributes:
        state: `succeeded`, `skipped`, `failed` or `deferred`.
        result: in plain JSON values, when it succeeded.
        error: why, when it did not.
        fields: what the result puts into the upload's own fields.
        model: what the result says of the model that gave it.
        vectors: what the result has of vectors, by their keys, as `Vector.encode` makes them.
        after: the seconds after which the analyzer asks for another attempt, if it is deferred.
        is_fault: whether it is deferred because a call failed, and not as the service is busy.
        faults: how many faults the image has had, this one included.
        seconds: how long the analysis took.
        traceback: where in the plugin's code it failed, for operators.
    """

    state: State
    result: dict[str, Any] | None = None
    error: str | None = None
    fields: Mapping[str, Any] = field(default_factory=dict)
    model: Mapping[str, Any] = field(default_factory=dict)
    vectors: Mapping[str, bytes] = field(default_factory=dict)
    after: float | None = None
    is_fault: bool = False
    faults: int | None = None
    seconds: float = 0.0
    traceback: str | None = None


class InvalidBatchAnswer(Exception):
    """`analyze_batch` did not return a list with one answer for each image."""


class ResultChecker:
    """Checks what the code of one analyzer returned or raised, and says how the analysis ended.

    Raises:
        Exception: what the analyzer's `result_schema` raises.
    """

    def __init__(self, analyzer: Analyzer):
        self._analyzer = analyzer
        self._schema = analyzer.result_schema()
        self._upload_fields = UploadFields()

    def end_from_answer(self, answer: Any) -> End:
        """The end by what a batch gave for one image: a result, or an `Outcome`."""
        if isinstance(answer, Outcome):
            return self.end_from_exception(answer)
        return self.end_from_result(answer)

    def end_from_exception(self, error: BaseException, seconds: float | None = None) -> End:
        """The end of an analysis whose code raised.

        Args:
            seconds: the time limit of that code; by default that of the whole analysis.
        """
        if message := memory_error_message(self._analyzer, error):
            return End(State.FAILED, error=message)
        match error:
            case Skip():
                return End(State.SKIPPED, error=failure_messages.as_plain_text(error))
            case Fail() | InvalidBatchAnswer():
                return End(State.FAILED, error=failure_messages.as_plain_text(error))
            case RetryLater() | ConfigError():
                after = getattr(error, "after", None)
                after = after if isinstance(after, int | float) else None
                return End(
                    State.DEFERRED,
                    error=failure_messages.as_plain_text(error),
                    after=after,
                    is_fault=after is None and not getattr(error, "busy", False),
                )
            case TimeUp():
                message = f"took longer than {seconds or self._analyzer.timeout:g} seconds"
                return End(State.FAILED, error=message, traceback=author_traceback(error))
        own_traceback = author_traceback(error)
        raised = {"exception": own_traceback} if own_traceback else {"exc_info": error}
        log.error("analyzer_raised", **raised)
        description = describe_plugin_exception(error)
        return End(State.FAILED, error=description, traceback=own_traceback)

    def end_from_result(self, result: Any) -> End:
        """The end by a result: it succeeded, or failed because the result cannot be stored."""
        model: dict[str, Any] = {}
        try:
            if isinstance(result, ModelResult):
                model = to_json_values(result.model, "the result's model", LARGEST_MODEL_INFO_BYTES)
            result, vectors = self._take_vectors(result)
            result = self._validate_result(result)
            upload_fields = self._upload_field_values(result)
        except ValueError as error:
            return End(State.FAILED, error=failure_messages.as_plain_text(error))
        return End(
            State.SUCCEEDED, result=result, fields=upload_fields, model=model, vectors=vectors
        )

    def _take_vectors(self, result: Any) -> tuple[Any, dict[str, bytes]]:
        """A result without its vectors, and those.

        Raises:
            ValueError: one is missing, or does not fit its declaration.
        """
        if not self._analyzer.vectors or not isinstance(result, dict):
            return result, {}
        values, vectors = dict(result), {}
        for vector in self._analyzer.vectors:
            if vector.field not in values:
                raise ValueError(
                    f"the result has no {vector.field}, which is declared as a vector; None says "
                    "that there is none"
                )
            value = values.pop(vector.field)
            if value is not None:
                vectors[vector.field] = vector.encode(value)
        return values, vectors

    def _validate_result(self, result: Any) -> dict[str, Any]:
        """Check a result, and return it in plain JSON values.

        Raises:
            ValueError: it does not fit its schema, or JSON or MongoDB cannot hold it.
        """
        if not isinstance(result, dict):
            raise ValueError(f"returned {type(result).__name__} instead of a dict")
        plain = to_json_values(result, "the result", LARGEST_RESULT_BYTES)
        if errors := self._schema.validate(plain):
            problems = json.dumps(errors, default=str)
            raise ValueError(f"the result does not fit its schema: {problems}")
        return plain

    def _upload_field_values(self, result: Mapping[str, Any]) -> dict[str, Any]:
        """The values that the result gives to the upload's own fields.

        Raises:
            ValueError: one of them does not fit its field.
        """
        keys = self._analyzer.fields
        values = {name: result[key] for name, key in keys.items() if result.get(key) is not None}
        if not values:
            return {}
        try:
            filled: dict[str, Any] = self._upload_fields.load(values)
        except ValidationError as error:
            problems = json.dumps(error.messages)
            raise ValueError(f"the result does not fit the upload's fields: {problems}") from error
        return filled


def memory_error_message(analyzer: Analyzer, error: BaseException | None) -> str | None:
    """The message for an error that the memory limit caused; None for any other error."""
    for _ in range(10):  # A plugin could make a ring of causes.
        if isinstance(error, MemoryError) and analyzer.memory_mb:
            return f"needed more memory than its limit of {analyzer.memory_mb} MB"
        error = error.__cause__ if error else None
    return None
