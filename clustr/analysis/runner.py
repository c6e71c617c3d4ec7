"""The runner: runs one analyzer on images in this process, within its limits.

It knows no database, queue or storage: it gets images and returns the end of each analysis. Every
analysis has an end with a reason, whatever the plugin's code does, unless it ends the process.
"""

import inspect
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import replace
from functools import partial
from itertools import islice
from typing import Any

import structlog

from clustr import logs
from clustr.analysis.ends import (
    LARGEST_MODEL_INFO_BYTES,
    End,
    InvalidBatchAnswer,
    ResultChecker,
    memory_error_message,
)
from clustr.analysis.http_session import Session
from clustr.analysis.json_values import to_json_values
from clustr.analysis.limits import (
    MEGABYTE,
    Interrupted,
    MemoryLimit,
    TimeLimits,
    TimeUp,
    memory_usage,
)
from clustr.analysis.process_state import ProcessState
from clustr.analysis.temp_folder import temp_folder
from clustr.domain.models import State
from clustr.plugin_manager import Plugin, describe_plugin_exception, plugin_exc_info
from clustr.plugins import Analyzer, Context, HttpAnalyzer, Image
from clustr.plugins.analyzer import SETUP_SECONDS
from clustr.plugins.http import PREPARATION_SECONDS

log = logs.logger(__name__)

NO_MORE = object()
TEARDOWN_SECONDS = 10.0
# How much a persistent process may grow when its analyzer has no `memory_mb`.
LARGEST_GROWTH_MEGABYTES = 2048


class NotPrepared(Exception):
    """An analyzer could not be set up."""


def _default_log_context(image: Image) -> dict[str, str]:
    return {"upload_id": image.id}


class Runner:
    """One analyzer, run in the main thread of this process.

    Args:
        plugin: the plugin that registers the analyzer.
        interruptible: a context manager around each call of the plugin's code, and around each wait
            for the service that it calls; it may interrupt the block.

    Attributes:
        prepared: whether the analyzer is set up.
        provenance: what is stored beside every result, once the analyzer is set up.
        limits, process_state: the time limits of the plugin's code and the state that is restored
            after it, once the analyzer is set up.
        yields: whether the analyzer gives the results of a batch one after the other.
        unavailable: the end of the last analysis of `run`, if by that what the analyzer needs is
            unavailable.
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
        self.yields = inspect.isgeneratorfunction(analyzer.analyze_batch)
        self.unavailable: End | None = None
        self._plugin = plugin
        self.interruptible = interruptible or nullcontext()
        self._resident_bytes = 0
        self._resources = ExitStack()

    def prepare(self) -> None:
        """Set the analyzer up, unless it is set up; its memory limit counts from here.

        Raises:
            NotPrepared: it cannot be set up; the message says why.
            Interrupted: SIGTERM interrupted it.
        """
        self._memory = MemoryLimit(self.analyzer.memory_mb)
        if self.prepared:
            return
        self.process_state = ProcessState()
        self._resources.callback(self.process_state.close)
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
            self.limits.stop_watching()
        self.prepared = True
        self._resident_bytes = memory_usage()[1]

    def _set_up(self) -> None:
        try:
            self._call(SETUP_SECONDS, self.analyzer.setup)
            self._checker = ResultChecker(self.analyzer)
        except Interrupted:
            raise
        except TimeUp as error:
            raise NotPrepared(f"setup() took longer than {SETUP_SECONDS} seconds") from error
        except BaseException as error:
            log.error("setup_raised", exc_info=plugin_exc_info(error))
            problem = (
                memory_error_message(self.analyzer, error)
                or f"raised {describe_plugin_exception(error)}"
            )
            raise NotPrepared(f"setup() {problem}") from error
        self.provenance = {
            "plugin": self._plugin.name,
            "plugin_version": self._plugin.version,
            "model": self._model_info(),
            "config_hash": self._plugin.config_hash,
        }

    def _model_info(self) -> dict[str, Any]:
        """The result of the analyzer's `model_info`; empty, if that fails or cannot be stored."""
        try:
            description = self._call(SETUP_SECONDS, self.analyzer.model_info)
            return to_json_values(
                dict(description), "the model's description", LARGEST_MODEL_INFO_BYTES
            )
        except Interrupted:
            raise
        except BaseException as error:
            log.error("model_info_not_used", exc_info=plugin_exc_info(error))
            return {}

    def has_grown(self) -> bool:
        """Whether the process has grown by more memory than it may keep since it was set up."""
        max_megabytes = self.analyzer.memory_mb or LARGEST_GROWTH_MEGABYTES
        return memory_usage()[1] - self._resident_bytes > max_megabytes * MEGABYTE

    def run(
        self,
        images: Sequence[Image],
        log_context: Callable[[Image], Mapping[str, str]] = _default_log_context,
    ) -> Iterator[tuple[Image, End]]:
        """Analyze images; yield each with the end of its analysis.

        When what the analyzer needs is unavailable, the images that were not analyzed have no end.

        Args:
            log_context: the keys and values that log lines get while an image is analyzed.

        Raises:
            Interrupted: SIGTERM interrupted it; the current images have no end.
        """
        remaining = iter(images)
        size = self.analyzer.batch_size
        self.unavailable = None
        try:
            while batch := list(islice(remaining, size if size > 1 else None)):
                left, is_answered = batch, False
                for image, end in self._analyze_batch(batch) if len(batch) > 1 < size else ():
                    left = [each for each in left if each is not image]
                    is_answered = is_answered or end.state is not State.DEFERRED
                    yield image, end
                if not left and not is_answered:
                    self.unavailable = end
                    return
                for image, end in self._analyze_each(left, log_context):
                    if end.state is State.DEFERRED:
                        self.unavailable = end
                    yield image, end
                if self.unavailable:
                    return
        finally:
            self.limits.stop_watching()

    def _analyze_batch(self, images: list[Image]) -> Iterator[tuple[Image, End]]:
        """Analyze images together; those that have no end then have to be analyzed alone."""
        began = time.perf_counter()
        answers: Sequence[Any] | Iterator[Any] = ()
        try:
            answers = self._call_analyze_batch(images)
            if not isinstance(answers, Iterator):
                ends = [self._checker.end_from_answer(answer) for answer in answers]
        except Interrupted:
            raise
        except InvalidBatchAnswer as error:
            ends = [End(State.FAILED, error=str(error))] * len(images)
        except BaseException as error:
            log.warning("batch_raised", images=len(images), exc_info=plugin_exc_info(error))
            return
        if isinstance(answers, Iterator):
            yield from self._ends_as_they_come(answers, images)
            return
        seconds_each = (time.perf_counter() - began) / len(images)
        for image, end in zip(images, ends, strict=True):
            yield image, replace(end, seconds=seconds_each)

    def _ends_as_they_come(
        self, answers: Iterator[Any], images: Sequence[Image]
    ) -> Iterator[tuple[Image, End]]:
        """Yield the ends of a batch whose results come one after the other.

        When that raises or takes too long, only the last image left has an end by that: one of
        several is at fault, and nobody knows which.
        """
        left = [*images]
        while left:
            began = time.perf_counter()
            failed: End | None = None
            try:
                image, end = self._next_end(answers, left)
            except Interrupted:
                raise
            except InvalidBatchAnswer as error:
                failed = End(State.FAILED, error=str(error))
            except BaseException as error:
                if len(left) > 1:
                    log.warning("batch_raised", images=len(left), exc_info=plugin_exc_info(error))
                    break
                failed = self._checker.end_from_exception(error)
            seconds = time.perf_counter() - began
            if failed:
                yield from [(each, replace(failed, seconds=seconds)) for each in left]
                break
            left = [each for each in left if each is not image]
            yield image, replace(end, seconds=seconds)
        self._close_answers(answers)

    def _next_end(self, answers: Iterator[Any], left: Sequence[Image]) -> tuple[Image, End]:
        """The next image of a batch that has a result, with its end.

        Raises:
            InvalidBatchAnswer: there is none, or no image with an answer.
        """
        answer = self._call(self.analyzer.timeout, lambda _context: next(answers, NO_MORE))
        if answer is NO_MORE:
            raise InvalidBatchAnswer("analyze_batch() ended without a result for this image")
        if not isinstance(answer, tuple) or len(answer) != 2:
            kind = type(answer).__name__
            raise InvalidBatchAnswer(f"analyze_batch() yielded {kind} instead of (image, result)")
        image = next((each for each in left if each is answer[0]), None)
        if image is None:
            raise InvalidBatchAnswer("analyze_batch() yielded a result for no image that is left")
        return image, self._checker.end_from_answer(answer[1])

    def _close_answers(self, answers: Iterator[Any]) -> None:
        """End the code of a plugin that yields the results of a batch."""
        close = getattr(answers, "close", lambda: None)
        try:
            self._call(self.analyzer.timeout, lambda _context: close())
        except Interrupted:
            raise
        except BaseException as error:
            log.warning("batch_not_closed", exc_info=plugin_exc_info(error))

    def _call_analyze_batch(self, images: list[Image]) -> Sequence[Any] | Iterator[Any]:
        """Call `analyze_batch`, and return its answers, one for each image.

        Raises:
            InvalidBatchAnswer: it returned something else.
        """
        seconds = self.analyzer.timeout * len(images)
        answers = self._call(seconds, self.analyzer.analyze_batch, images)
        if isinstance(answers, Iterator):
            return answers
        if not isinstance(answers, list | tuple):
            kind = type(answers).__name__
            raise InvalidBatchAnswer(f"analyze_batch() returned {kind} instead of a list")
        if len(answers) != len(images):
            counts = f"{len(answers)} results for {len(images)} images"
            raise InvalidBatchAnswer(f"analyze_batch() returned {counts}")
        return answers

    def _analyze_each(
        self, images: list[Image], log_context: Callable[[Image], Mapping[str, str]]
    ) -> Iterator[tuple[Image, End]]:
        for image in images:
            began = time.perf_counter()
            bound = structlog.contextvars.bind_contextvars(**log_context(image))
            try:
                end = self._analyze_image(image)
            finally:
                structlog.contextvars.reset_contextvars(**bound)
            yield image, replace(end, seconds=time.perf_counter() - began)
            if end.state is State.DEFERRED:
                return

    def _analyze_image(self, image: Image) -> End:
        try:
            if self.analyzer.batch_size > 1:
                answers = self._call_analyze_batch([image])
                if isinstance(answers, Iterator):
                    return next(self._ends_as_they_come(answers, [image]))[1]
                return self._checker.end_from_answer(answers[0])
            seconds = self.analyzer.timeout
            return self._checker.end_from_result(self._call(seconds, self.analyzer.analyze, image))
        except Interrupted:
            raise
        except BaseException as error:
            return self._checker.end_from_exception(error)

    def _call(self, seconds: float, call: Callable[..., Any], *arguments: Any) -> Any:
        """Call the plugin's code within all limits, and restore the process's state after it."""
        context = self.new_context(seconds)
        try:
            with self.limits.limit(seconds), self._memory, self.interruptible:
                return call(*arguments, context)
        finally:
            self.process_state.restore()

    def new_context(self, seconds: float) -> Context:
        """A context for a call of the plugin's code that may take so many seconds from now."""
        return self._context(deadline=time.monotonic() + seconds)

    def build_request(self, analyzer: HttpAnalyzer, image: Image) -> Mapping[str, Any] | End:
        """Call `build_request`; when it raises, return the end of the analysis.

        Raises:
            Interrupted: SIGTERM interrupted it.
        """
        try:
            request: Mapping[str, Any] = self._call(
                PREPARATION_SECONDS, analyzer.build_request, image
            )
        except Interrupted:
            raise
        except BaseException as error:
            return self._checker.end_from_exception(error, PREPARATION_SECONDS)
        return request

    def parse_answer(self, analyzer: HttpAnalyzer, answer: bytes | BaseException) -> End:
        """The end of an analysis by what `ask` has returned or raised.

        Raises:
            Interrupted: SIGTERM interrupted `parse`.
        """
        if isinstance(answer, BaseException):
            return self._checker.end_from_exception(answer)

        def parse(body: bytes, _context: Context) -> dict[str, Any]:
            return analyzer.parse(analyzer.understand(body))

        try:
            return self._checker.end_from_result(self._call(PREPARATION_SECONDS, parse, answer))
        except Interrupted:
            raise
        except BaseException as error:
            return self._checker.end_from_exception(error, PREPARATION_SECONDS)

    def provenance_of(self, end: End) -> dict[str, Any]:
        """What is stored beside the result of an analysis: what gave it."""
        model = {**self.provenance.get("model", {}), **end.model}
        return {**self.provenance, "model": model} if end.model else self.provenance

    def close(self) -> None:
        """Tear the analyzer down, if it was set up."""
        if self.prepared:
            try:
                with self.limits.limit(TEARDOWN_SECONDS):
                    self.analyzer.teardown()
            except BaseException as error:  # All results are stored by now.
                log.error("teardown_raised", exc_info=plugin_exc_info(error))
            finally:
                self.process_state.restore()
        self.prepared = False
        self._resources.close()
