"""The runner: runs one analyzer on images in this process, within its limits.

It knows no database, queue or storage: it is given images and says how each analysis ended.
Whatever the plugin's code does, there is an end with a reason, unless it takes the process with it.
"""

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass, field, replace
from datetime import UTC
from functools import partial
from itertools import islice
from typing import Any

import orjson
import structlog
from marshmallow import Schema, ValidationError, fields, validate

from clustr import logs
from clustr.analysis.http_session import Session
from clustr.analysis.limits import MEGABYTE, Interrupted, MemoryLimit, TimeLimits, TimeUp, memory
from clustr.analysis.process_state import ProcessState
from clustr.analysis.temp_folder import temp_folder
from clustr.domain import failure_messages
from clustr.domain.json_input import is_within
from clustr.domain.models import State
from clustr.plugin_manager import Plugin, authors_frames
from clustr.plugins import Analyzer, ConfigError, Context, Fail, Image, Outcome, RetryLater, Skip
from clustr.plugins.analyzer import SETUP_SECONDS

log = logs.logger(__name__)

LARGEST_RESULT_BYTES = 1_000_000
DEEPEST_RESULT = 50
LARGEST_MODEL_INFO_BYTES = 10_000
TEARDOWN_SECONDS = 10.0
_encode = json.JSONEncoder(allow_nan=False).encode
# What a process may grow by that is kept, where its analyzer does not say.
LARGEST_GROWTH_MEGABYTES = 2048


class DimensionsField(Schema):
    """The width and height of an upload, in pixels."""

    width = fields.Integer(required=True, strict=True, validate=validate.Range(min=1))
    height = fields.Integer(required=True, strict=True, validate=validate.Range(min=1))


# What an analyzer may write into the upload's own fields: listings read them back without looking.
UPLOAD_FIELDS: dict[str, fields.Field[Any]] = {
    "caption": fields.String(),
    "tags": fields.List(fields.String()),
    "dimensions": fields.Nested(DimensionsField),
    "taken_at": fields.AwareDateTime(default_timezone=UTC),
    "faces": fields.List(fields.Dict(keys=fields.String())),
}
UploadFields = Schema.from_dict(UPLOAD_FIELDS, name="UploadFields")


class NotPrepared(Exception):
    """An analyzer could not be set up."""


@dataclass(frozen=True, slots=True)
class End:
    """How the analysis of one image ended.

    Attributes:
        state: `succeeded`, `skipped`, `failed` or `deferred`.
        result: in plain JSON values, when it succeeded.
        error: why, when it did not.
        fields: what the result puts into the upload's own fields.
        after: seconds after which the analyzer asks to be tried again, if it was deferred and says.
        seconds: how long it took.
    """

    state: State
    result: dict[str, Any] | None = None
    error: str | None = None
    fields: Mapping[str, Any] = field(default_factory=dict)
    after: float | None = None
    seconds: float = 0.0


class InvalidBatchAnswer(Exception):
    """`analyze_batch` did not answer as it has to."""


def _id_of(image: Image) -> dict[str, str]:
    return {"upload_id": image.id}


class Runner:
    """One analyzer, run in the main thread of this process.

    Args:
        plugin: the one that brings it.
        interruptible: the plugin's code runs in blocks of this, which can be cut short.

    Attributes:
        prepared: whether it is set up.
        provenance: what is stored beside every result, once it is.
        limits, surroundings: how long the plugin's code may take, and what is put right after it,
            once it is prepared.
    """

    def __init__(
        self,
        analyzer: Analyzer,
        plugin: Plugin,
        interruptible: AbstractContextManager[None] | None = None,
    ):
        self.analyzer = analyzer
        self.provenance: dict[str, Any] = {}
        self.prepared = False
        self._plugin = plugin
        self._interruptible = interruptible or nullcontext()
        self._upload_fields = UploadFields()
        self._resident_bytes = 0
        self._resources = ExitStack()

    def prepare(self) -> None:
        """Set the analyzer up, unless it is; what it may take of memory counts from here.

        Raises:
            NotPrepared: it cannot be set up; it says why.
            Interrupted: it was cut short.
        """
        self._memory = MemoryLimit(self.analyzer.memory_mb)
        if self.prepared:
            return
        self.surroundings = ProcessState()
        self._resources.callback(self.surroundings.close)
        self.limits = self._resources.enter_context(TimeLimits())
        self._context = partial(
            Context,
            config=self._plugin.config,
            secrets=self._plugin.secrets,
            log=logs.logger(f"clustr.plugin.{self._plugin.name}"),
            http=self._resources.enter_context(Session()),
            tmpdir=self._resources.enter_context(temp_folder()),
        )
        try:
            self._set_up()
        finally:
            self.limits.rest()
        self.prepared = True
        self._resident_bytes = memory()[1]

    def _set_up(self) -> None:
        try:
            self._call(SETUP_SECONDS, self.analyzer.setup)
            self._schema = self.analyzer.result_schema()
        except Interrupted:
            raise
        except TimeUp as error:
            raise NotPrepared(f"setup() took longer than {SETUP_SECONDS} seconds") from error
        except BaseException as error:
            log.error("setup_raised", exc_info=authors_frames(error))
            said = (
                self._said_of_memory(error)
                or f"raised {failure_messages.describe_exception(error)}"
            )
            raise NotPrepared(f"setup() {said}") from error
        self.provenance = {
            "plugin": self._plugin.name,
            "plugin_version": self._plugin.version,
            "model": self._model_info(),
            "config_hash": self._plugin.config_hash,
        }

    def _model_info(self) -> dict[str, Any]:
        """What the analyzer says of its model; nothing, if that cannot be stored."""
        try:
            said = self._call(SETUP_SECONDS, self.analyzer.model_info)
            return _plain(dict(said), "the model's description", LARGEST_MODEL_INFO_BYTES)
        except Interrupted:
            raise
        except BaseException as error:
            log.error("model_info_not_used", exc_info=authors_frames(error))
            return {}

    def grown(self) -> bool:
        """Whether the process has more in memory than it should keep since it was set up."""
        most = self.analyzer.memory_mb or LARGEST_GROWTH_MEGABYTES
        return memory()[1] - self._resident_bytes > most * MEGABYTE

    def run(
        self, images: Sequence[Image], about: Callable[[Image], Mapping[str, str]] = _id_of
    ) -> Iterator[tuple[Image, End]]:
        """How the analysis of each image ends.

        When the last end is a deferral, what the analyzer needs is away, and the images that were
        not looked at have no end.

        Args:
            about: what lines of the log say while an image is looked at.

        Raises:
            Interrupted: it was cut short; the images under way have no end.
        """
        remaining = iter(images)
        size = self.analyzer.batch_size
        try:
            while some := list(islice(remaining, size if size > 1 else None)):
                ends = self._together(some) if size > 1 and len(some) > 1 else None
                if ends is None:
                    ends = self._one_by_one(some, about)
                for image, end in ends:
                    yield image, end
                if end.state is State.DEFERRED:
                    return
        finally:
            self.limits.rest()

    def _together(self, images: list[Image]) -> list[tuple[Image, End]] | None:
        """How they end, the deferred ones first; None when one of them spoils it for the others."""
        began = time.perf_counter()
        try:
            answers = self._answers(images)
            ends = [self._judge(answer) for answer in answers]
        except Interrupted:
            raise
        except InvalidBatchAnswer as error:
            ends = [End(State.FAILED, error=str(error))] * len(images)
        except BaseException as error:
            log.warning("batch_raised", images=len(images), exc_info=authors_frames(error))
            return None
        each = (time.perf_counter() - began) / len(images)
        pairs = [(i, replace(e, seconds=each)) for i, e in zip(images, ends, strict=True)]
        return sorted(pairs, key=lambda pair: pair[1].state is not State.DEFERRED)

    def _answers(self, images: list[Image]) -> list[Any]:
        """What `analyze_batch` returns, an answer for each image.

        Raises:
            WrongAnswer: it returned something else.
        """
        seconds = self.analyzer.timeout * len(images)
        answers = self._call(seconds, self.analyzer.analyze_batch, images)
        if not isinstance(answers, list | tuple):
            kind = type(answers).__name__
            raise InvalidBatchAnswer(f"analyze_batch() returned {kind} instead of a list")
        if len(answers) != len(images):
            counts = f"{len(answers)} results for {len(images)} images"
            raise InvalidBatchAnswer(f"analyze_batch() returned {counts}")
        return answers

    def _one_by_one(
        self, images: list[Image], about: Callable[[Image], Mapping[str, str]]
    ) -> Iterator[tuple[Image, End]]:
        for image in images:
            began = time.perf_counter()
            bound = structlog.contextvars.bind_contextvars(**about(image))
            try:
                end = self._alone(image)
            finally:
                structlog.contextvars.reset_contextvars(**bound)
            yield image, replace(end, seconds=time.perf_counter() - began)
            if end.state is State.DEFERRED:
                return

    def _alone(self, image: Image) -> End:
        try:
            if self.analyzer.batch_size > 1:
                return self._judge(self._answers([image])[0])
            seconds = self.analyzer.timeout
            return self._success(self._call(seconds, self.analyzer.analyze, image))
        except Interrupted:
            raise
        except BaseException as error:
            return self._judge_raised(error)

    def _call(self, seconds: float, call: Callable[..., Any], *arguments: Any) -> Any:
        """Call the plugin's code, within all limits and leaving nothing behind."""
        context = self._context(deadline=time.monotonic() + seconds)
        try:
            with self.limits.limit(seconds), self._memory, self._interruptible:
                return call(*arguments, context)
        finally:
            self.surroundings.put_right()

    def _judge(self, answer: Any) -> End:
        if isinstance(answer, Outcome):
            return self._judge_raised(answer)
        return self._success(answer)

    def _judge_raised(self, error: BaseException) -> End:
        if said := self._said_of_memory(error):
            return End(State.FAILED, error=said)
        match error:
            case Skip():
                return End(State.SKIPPED, error=failure_messages.as_plain_text(error))
            case Fail() | InvalidBatchAnswer():
                return End(State.FAILED, error=failure_messages.as_plain_text(error))
            case RetryLater() | ConfigError():
                after = getattr(error, "after", None)
                after = after if isinstance(after, int | float) else None
                return End(State.DEFERRED, error=failure_messages.as_plain_text(error), after=after)
            case TimeUp():
                error = f"took longer than {self.analyzer.timeout:g} seconds"
                return End(State.FAILED, error=error)
        log.error("analyzer_raised", exc_info=authors_frames(error))
        return End(State.FAILED, error=failure_messages.describe_exception(error))

    def _said_of_memory(self, error: BaseException | None) -> str | None:
        """What there is to say when an error comes from the limit of memory."""
        for _ in range(10):  # A plugin could make a ring of causes.
            if isinstance(error, MemoryError) and self.analyzer.memory_mb:
                return f"needed more memory than its limit of {self.analyzer.memory_mb} MB"
            error = error.__cause__ if error else None
        return None

    def _success(self, result: Any) -> End:
        try:
            result = self._storable(result)
            filled = self._filled(result)
        except ValueError as error:
            return End(State.FAILED, error=failure_messages.as_plain_text(error))
        return End(State.SUCCEEDED, result=result, fields=filled)

    def _storable(self, result: Any) -> dict[str, Any]:
        """The result in plain JSON values.

        Raises:
            ValueError: it does not fit its schema, or is nothing that JSON and MongoDB both hold.
        """
        if not isinstance(result, dict):
            raise ValueError(f"returned {type(result).__name__} instead of a dict")
        plain = _plain(result, "the result", LARGEST_RESULT_BYTES)
        if errors := self._schema.validate(plain):
            said = json.dumps(errors, default=str)
            raise ValueError(f"the result does not fit its schema: {said}")
        return plain

    def _filled(self, result: Mapping[str, Any]) -> dict[str, Any]:
        """What the result puts into the upload's own fields.

        Raises:
            ValueError: it does not fit there.
        """
        keys = self.analyzer.fields
        values = {name: result[key] for name, key in keys.items() if result.get(key) is not None}
        if not values:
            return {}
        try:
            return self._upload_fields.load(values)
        except ValidationError as error:
            said = json.dumps(error.messages)
            raise ValueError(f"the result does not fit the upload's fields: {said}") from error

    def close(self) -> None:
        """Tear the analyzer down, if it was set up."""
        if self.prepared:
            try:
                with self.limits.limit(TEARDOWN_SECONDS):
                    self.analyzer.teardown()
            except BaseException as error:  # What was analyzed is written down; this is the end.
                log.error("teardown_raised", exc_info=authors_frames(error))
            finally:
                self.surroundings.put_right()
        self.prepared = False
        self._resources.close()


def _plain(value: dict[str, Any], what: str, most_bytes: int) -> dict[str, Any]:
    """A value as what JSON makes of it.

    Args:
        what: what it is called in errors.

    Raises:
        ValueError: it is nothing that JSON and MongoDB can both hold, or too much.
    """
    try:
        text = _encode(value)
        plain = json.loads(text) if len(text) <= most_bytes else None
        # JavaScript and MongoDB hold no larger ones; it refuses halves of characters, too.
        orjson.dumps(plain, option=orjson.OPT_STRICT_INTEGER)
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"{what} cannot be written as JSON: {error}") from error
    if len(text) > most_bytes:
        raise ValueError(f"{what} has {len(text)} bytes of JSON")
    if "\\u0000" in text or not is_within(plain, DEEPEST_RESULT):
        raise ValueError(f"{what} has NUL characters or is nested too deeply")
    return plain
