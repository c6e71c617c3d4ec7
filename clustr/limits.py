"""Limits on what a plugin's code may take, which it cannot talk its way out of."""

import contextlib
import faulthandler
import resource
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

STANDARD_ERROR = 2
MEGABYTE = 1024 * 1024

# What stays deaf to the limit, such as C code that holds the interpreter, is ended together with
# its process after this much longer.
GRACE_SECONDS = 4.0


class TimeUp(BaseException):
    """The time is up. No `Exception`, so that `except Exception` in a plugin does not catch it."""


class Interrupted(BaseException):
    """The process was asked to stop."""


class TimeLimits:
    """Time limits for blocks of code, one after the other, in the main thread.

    What ends a process that is deaf is a thread, which takes longer to start than many an analysis:
    it is started for all blocks of half a second together, and goes away at the end of `with`.
    """

    SHARED_SECONDS = 0.5

    def __init__(self) -> None:
        self._ends_process_at = float("-inf")

    def __enter__(self) -> "TimeLimits":
        self._handler = signal.signal(signal.SIGALRM, _ring)
        return self

    def __exit__(self, *_: object) -> None:
        faulthandler.cancel_dump_traceback_later()
        signal.signal(signal.SIGALRM, self._handler)

    @contextlib.contextmanager
    def limit(self, seconds: float) -> Iterator[None]:
        """Raise `TimeUp` when the block takes longer; then again each second.

        Raises:
            TimeUp: also at the end of the block, when code in it has swallowed the first one.
        """
        began = time.monotonic()
        self._watch(began + seconds + GRACE_SECONDS, seconds + GRACE_SECONDS)
        if signal.getsignal(signal.SIGALRM) is not _ring:  # Code in an earlier block has done that.
            signal.signal(signal.SIGALRM, _ring)
        outer_seconds, _ = signal.setitimer(signal.ITIMER_REAL, seconds, 1.0)
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            if outer_seconds:  # The timer is one for the whole process: give it back.
                left = outer_seconds - (time.monotonic() - began)
                signal.setitimer(signal.ITIMER_REAL, max(0.001, left))
        if time.monotonic() > began + seconds:
            raise TimeUp

    def _watch(self, at: float, seconds: float) -> None:
        if not at - self.SHARED_SECONDS <= self._ends_process_at <= at:
            # Not `sys.stderr`, for which a plugin may have put something that is no file.
            faulthandler.dump_traceback_later(seconds, exit=True, file=STANDARD_ERROR)
            self._ends_process_at = at


def _ring(_signal: int, _frame: FrameType | None) -> None:
    raise TimeUp


@contextlib.contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raise `TimeUp` in the main thread when the block takes longer; then again each second.

    Raises:
        TimeUp: also at the end of the block, when code in it has swallowed the first one.
    """
    with TimeLimits() as limits, limits.limit(seconds):
        yield


class MemoryLimit:
    """A limit on the memory of this process, as a number of megabytes beyond what it has now.

    What counts is what can be written to (RLIMIT_DATA of getrlimit(2)) and not all addresses, for
    every new thread reserves 128 MB of those and uses next to nothing.

    Args:
        megabytes: None for no limit.
    """

    def __init__(self, megabytes: int | None):
        self.megabytes = megabytes
        self._bytes = None if megabytes is None else memory()[0] + megabytes * MEGABYTE

    @contextlib.contextmanager
    def applied(self) -> Iterator[None]:
        """Let what wants more in the block fail, in Python with a `MemoryError`."""
        if self._bytes is None:
            yield
            return
        soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
        lowest = min((x for x in (soft, hard) if x != resource.RLIM_INFINITY), default=self._bytes)
        resource.setrlimit(resource.RLIMIT_DATA, (min(self._bytes, lowest), hard))
        try:
            yield
        finally:  # Clustr's own code, which writes down what happened, has no such limit.
            resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


def memory() -> tuple[int, int]:
    """The bytes of this process's data and stacks, and how many of all are in memory (proc(5))."""
    figures = Path("/proc/self/statm").read_text().split()
    page = resource.getpagesize()
    return int(figures[5]) * page, int(figures[1]) * page


class Interruption:
    """What SIGTERM does: end the block that is marked as interruptible, or the next such block.

    Outside of those blocks nothing is cut short, so that a result is always written as a whole.
    """

    def __init__(self) -> None:
        self.requested = False
        self._interruptible = False
        signal.signal(signal.SIGTERM, self._request)

    def _request(self, _signal: int, _frame: FrameType | None) -> None:
        self.requested = True
        if self._interruptible:
            raise Interrupted

    @contextlib.contextmanager
    def allowed(self) -> Iterator[None]:
        """Mark the block as interruptible.

        Raises:
            Interrupted: SIGTERM came, now or before.
        """
        self._interruptible = True
        try:
            if self.requested:
                raise Interrupted
            yield
        finally:
            self._interruptible = False
