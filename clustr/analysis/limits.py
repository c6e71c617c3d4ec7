"""Limits on what a plugin's code may take, which it cannot talk its way out of."""

import faulthandler
import resource
import signal
import time

# That of `signal` looks for a name of what it finds, which takes 40 times as long.
from _signal import getsignal
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

    What ends a process that is deaf is a thread, which takes longer to start and to stop than many
    an analysis: it is started for all blocks of half a second together, and stopped by `rest` when
    none follows for a second. The timer, of which a process has one, is given back at the end of
    `with` to whoever had set it.
    """

    SHARED_SECONDS = 0.5
    REST_SECONDS = 1.0

    def __enter__(self) -> "TimeLimits":
        self.within = False  # a block
        self.ring = self._ring
        self._began = time.monotonic()
        self._ends_process_at = float("-inf")
        self._outer_seconds, _ = signal.setitimer(signal.ITIMER_REAL, 0)
        self._handler = signal.signal(signal.SIGALRM, self.ring)
        return self

    def __exit__(self, *_: object) -> None:
        signal.setitimer(signal.ITIMER_REAL, 0)
        faulthandler.cancel_dump_traceback_later()
        signal.signal(signal.SIGALRM, self._handler)
        if self._outer_seconds:
            left = self._outer_seconds - (time.monotonic() - self._began)
            signal.setitimer(signal.ITIMER_REAL, max(0.001, left))

    def limit(self, seconds: float) -> "Limit":
        """Raise `TimeUp` when the block takes longer; then again each second.

        Raises:
            TimeUp: also at the end of the block, when code in it has swallowed the first one.
        """
        return Limit(self, seconds)

    def rest(self) -> None:
        """Say, after some blocks, that nothing of theirs runs any more, what they return included.

        Until then the process is ended as if the last block went on.
        """
        self.within = False
        signal.setitimer(signal.ITIMER_REAL, self.REST_SECONDS)

    def watch(self, at: float, seconds: float) -> None:
        """End the process at this time of the monotonic clock, in so many seconds, or before."""
        if not at - self.SHARED_SECONDS <= self._ends_process_at <= at:
            # Not `sys.stderr`, for which a plugin may have put something that is no file.
            faulthandler.dump_traceback_later(seconds, exit=True, file=STANDARD_ERROR)
            self._ends_process_at = at

    def _ring(self, _signal: int, _frame: FrameType | None) -> None:
        if self.within:
            raise TimeUp
        faulthandler.cancel_dump_traceback_later()
        self._ends_process_at = float("-inf")


class Limit:
    """A time limit for one block of code; `TimeLimits.limit` makes it."""

    __slots__ = ("_began", "_limits", "_seconds")

    def __init__(self, limits: TimeLimits, seconds: float):
        self._limits = limits
        self._seconds = seconds

    def __enter__(self) -> None:
        self._began = time.monotonic()
        seconds = self._seconds + GRACE_SECONDS
        self._limits.watch(self._began + seconds, seconds)
        self._limits.within = True
        signal.setitimer(signal.ITIMER_REAL, self._seconds, 1.0)

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._limits.within = False
        if getsignal(signal.SIGALRM) is not self._limits.ring:  # The code in the block did that.
            signal.signal(signal.SIGALRM, self._limits.ring)
        signal.setitimer(signal.ITIMER_REAL, 0)
        if kind is None and time.monotonic() > self._began + self._seconds:
            raise TimeUp


class MemoryLimit:
    """A limit on the memory of this process, as a number of megabytes beyond what it has now.

    In its blocks what wants more fails, in Python with a `MemoryError`.

    What counts is what can be written to (RLIMIT_DATA of getrlimit(2)) and not all addresses, for
    every new thread reserves 128 MB of those and uses next to nothing.

    Args:
        megabytes: None for no limit.
    """

    def __init__(self, megabytes: int | None):
        self.megabytes = megabytes
        self._bytes = None if megabytes is None else memory()[0] + megabytes * MEGABYTE

    def __enter__(self) -> None:
        if self._bytes is None:
            return
        self._outer = soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
        lowest = min((x for x in (soft, hard) if x != resource.RLIM_INFINITY), default=self._bytes)
        resource.setrlimit(resource.RLIMIT_DATA, (min(self._bytes, lowest), hard))

    def __exit__(self, *_: object) -> None:
        if self._bytes is not None:  # Clustr's own code, which writes the ends down, has no limit.
            resource.setrlimit(resource.RLIMIT_DATA, self._outer)


def memory() -> tuple[int, int]:
    """The bytes of this process's data and stacks, and how many of all are in memory (proc(5))."""
    figures = Path("/proc/self/statm").read_text().split()
    page = resource.getpagesize()
    return int(figures[5]) * page, int(figures[1]) * page


class Interruption:
    """What SIGTERM does: end the block of this that is under way, or the next one.

    Outside of those blocks nothing is cut short, so that a result is always written as a whole.

    Raises:
        Interrupted: in a block, when SIGTERM came, now or before.
    """

    def __init__(self) -> None:
        self.requested = False
        self._interruptible = False
        signal.signal(signal.SIGTERM, self._request)

    def _request(self, _signal: int, _frame: FrameType | None) -> None:
        self.requested = True
        if self._interruptible:
            self._interruptible = False
            raise Interrupted

    def __enter__(self) -> None:
        if self.requested:
            raise Interrupted
        self._interruptible = True

    def __exit__(self, *_: object) -> None:
        self._interruptible = False
