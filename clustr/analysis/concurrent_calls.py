"""Concurrent calls: an analyzer that calls a service has several calls under way at a time.

What the plugin does around a call, `build_request` and `parse`, runs in the main thread, one at a
time and within all limits. The calls themselves, `HttpAnalyzer.ask`, run in threads. Each has its
own time limit, which starts when it is sent, and its own outcome.
"""

import math
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from typing import TypeGuard

import structlog

from clustr.analysis.ends import End
from clustr.analysis.runner import Runner
from clustr.plugins import Analyzer, HttpAnalyzer, Image


def has_one_caller(analyzer: Analyzer) -> TypeGuard[HttpAnalyzer]:
    """Whether one process of the installation makes all calls of an analyzer to its service.

    It does not for one with its own `analyze`, nor for one whose analyses have one attempt each:
    when the process ends, all that are under way have to be made again.
    """
    if not isinstance(analyzer, HttpAnalyzer) or analyzer.max_attempts == 1:
        return False
    return type(analyzer).analyze is HttpAnalyzer.analyze


def concurrency_of(analyzer: Analyzer) -> int:
    """How many calls to its service an analyzer may have under way; 1 for any other analyzer."""
    return analyzer.concurrency if has_one_caller(analyzer) else 1


class CallWindow:
    """How many calls may be under way: additive increase, multiplicative decrease (RFC 5681).

    Args:
        limit: the most.
    """

    def __init__(self, limit: int):
        self._limit = limit
        self._size = float(limit)
        self._shrunk_at = 0.0
        self._paused_until = -math.inf

    @property
    def size(self) -> int:
        """How many calls may be under way; a pause does not change that."""
        return int(self._size)

    @property
    def pause_seconds(self) -> float:
        """For how long nothing may be sent."""
        return max(0.0, self._paused_until - time.monotonic())

    def pause(self, seconds: float) -> None:
        """Let nothing be sent for so long, or until the end of a longer pause."""
        self._paused_until = max(self._paused_until, time.monotonic() + seconds)

    def probe(self) -> None:
        """Let one call be under way."""
        self._size = 1.0

    def open(self) -> None:
        """Let the most calls be under way: the probe has succeeded."""
        self._size = self._limit

    def grow(self) -> None:
        """Grow by one for each window of calls that are answered."""
        self._size = min(self._limit, self._size + 1 / self._size)

    def shrink(self, sent_at: float) -> None:
        """Halve the window, unless it was halved since the call was sent.

        Args:
            sent_at: when the call was sent that the service could not serve, by `time.monotonic()`.
        """
        if sent_at > self._shrunk_at:
            self._size = max(1.0, self._size / 2)
            self._shrunk_at = time.monotonic()


@dataclass(frozen=True, slots=True)
class FinishedCall:
    """A call that is over.

    Attributes:
        image: the image that was sent.
        end: how its analysis ended.
        sent_at: when it was sent, by `time.monotonic()`; None when nothing was sent.
    """

    image: Image
    end: End
    sent_at: float | None


class ConcurrentCalls:
    """The calls of one analyzer that are under way.

    Args:
        runner: the analyzer, which is prepared.
        log_context: the keys and values that log lines get while an image is analyzed.
    """

    def __init__(self, runner: Runner, log_context: Callable[[Image], Mapping[str, str]]):
        assert isinstance(runner.analyzer, HttpAnalyzer)  # `concurrency_of` says so.
        self._runner = runner
        self._analyzer = runner.analyzer
        self._log_context = log_context
        self._threads = ThreadPoolExecutor(self._analyzer.concurrency, "call")
        self._under_way: dict[Future[bytes], tuple[Image, float]] = {}

    def __len__(self) -> int:
        """How many are under way."""
        return len(self._under_way)

    def start(self, image: Image) -> FinishedCall | None:
        """Build the request of an image, and send it.

        Returns:
            None, or the end of the analysis when there is nothing to send.

        Raises:
            Interrupted: SIGTERM came.
        """
        with structlog.contextvars.bound_contextvars(**self._log_context(image)):
            request = self._runner.build_request(self._analyzer, image)
        if isinstance(request, End):
            return FinishedCall(image, request, None)
        context = self._runner.new_context(self._analyzer.timeout)
        future = self._threads.submit(self._analyzer.ask, request, context)
        self._under_way[future] = image, time.monotonic()
        return None

    def wait(self, seconds: float) -> Iterator[FinishedCall]:
        """Wait until a call is over; parse the answers of all that are, one after the other.

        When none is under way, it waits for all of the time.

        Args:
            seconds: how long to wait at most.

        Raises:
            Interrupted: SIGTERM came.
        """
        self._runner.limits.stop_watching()
        with self._runner.interruptible:
            if not self._under_way:
                time.sleep(seconds)
            done, _ = wait(self._under_way, seconds, FIRST_COMPLETED)
        for future in done:
            image, sent_at = self._under_way.pop(future)
            error = future.exception()
            with structlog.contextvars.bound_contextvars(**self._log_context(image)):
                answer = future.result() if error is None else error
                end = self._runner.parse_answer(self._analyzer, answer)
            end = replace(end, seconds=time.monotonic() - sent_at)
            yield FinishedCall(image, end, sent_at)

    def close(self) -> None:
        """Send nothing more, and wait for nothing that is under way."""
        self._threads.shutdown(wait=False, cancel_futures=True)
