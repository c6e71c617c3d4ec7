"""Limits of time and memory for a plugin's code, which that code cannot lift."""

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

# Code that does not react to the time limit, such as C code that holds the interpreter, is ended
# together with its process after so many more seconds.
GRACE_SECONDS = 4.0

# How long the main thread ran, how long it waited for a processor, and how often it got one.
SCHEDULING = Path("/proc/self/schedstat")
SHORTEST_TIMER_SECONDS = 0.001


class TimeUp(BaseException):
    """The time is up. Not an `Exception`: a plugin's `except Exception` shall not catch it."""


class Interrupted(BaseException):
    """The process was asked to stop."""


def processor_wait_seconds() -> float:
    """How long the main thread has waited for a processor so far, ready to run (proc(5)).

    0 where the kernel does not count that.
    """
    try:
        return int(SCHEDULING.read_text().split()[1]) / 1e9
    except (OSError, IndexError):
        return 0.0


class TimeLimits:
    """Time limits for blocks of code, one after the other, in the main thread.

    Time in which the thread was ready to run and others had the processor does not count: workers
    have a low priority, and an image is not at fault because others are busy.

    A thread ends a process that does not react (`faulthandler`). To start and to stop that thread
    takes longer than many an analysis, so one start serves all blocks of half a second, and
    `stop_watching` stops it when no block follows for a second. A process has one timer
    (setitimer(2)): at the end of `with`, it is set again as it was before.
    """

    SHARED_SECONDS = 0.5
    UNWATCH_SECONDS = 1.0

    def __enter__(self) -> "TimeLimits":
        self.in_block = False
        self.on_alarm = self._handle_alarm
        self._began = time.monotonic()
        self._block_ends_at = self._waited_seconds = 0.0
        self._ends_process_at = float("-inf")
        self._outer_seconds, _ = signal.setitimer(signal.ITIMER_REAL, 0)
        self._handler = signal.signal(signal.SIGALRM, self.on_alarm)
        return self

    def __exit__(self, *_: object) -> None:
        signal.setitimer(signal.ITIMER_REAL, 0)
        faulthandler.cancel_dump_traceback_later()
        signal.signal(signal.SIGALRM, self._handler)
        if self._outer_seconds:
            seconds_left = self._outer_seconds - (time.monotonic() - self._began)
            signal.setitimer(signal.ITIMER_REAL, max(0.001, seconds_left))

    def limit(self, seconds: float) -> "Limit":
        """Raise `TimeUp` when the block takes longer; then again each second.

        Raises:
            TimeUp: also at the end of the block, when code in it has swallowed the first one.
        """
        return Limit(self, seconds)

    def stop_watching(self) -> None:
        """Stop the watchdog thread soon: no code of the plugin runs any more after the last block.

        Generators that a block has returned count as its code. Until this is called, the watchdog
        ends the process as if the last block went on.
        """
        self.in_block = False
        # Who waits for calls comes here again and again, and shall not put it off each time.
        if not signal.getitimer(signal.ITIMER_REAL)[0]:
            signal.setitimer(signal.ITIMER_REAL, self.UNWATCH_SECONDS)

    def begin_block(self, seconds: float) -> None:
        """Begin a block that may take so many seconds."""
        self._block_ends_at = time.monotonic() + seconds
        if self._watch(self._block_ends_at, seconds):
            self._waited_seconds = processor_wait_seconds()
        self.in_block = True
        signal.setitimer(signal.ITIMER_REAL, seconds, 1.0)

    def is_time_up(self) -> bool:
        """Whether the block has taken longer than it may."""
        return time.monotonic() > self._block_ends_at and self._seconds_left() <= 0

    def _seconds_left(self) -> float:
        """What the block may still take; up to `SHARED_SECONDS` more, as the watchdog does."""
        waited_seconds = processor_wait_seconds() - self._waited_seconds
        return self._block_ends_at + waited_seconds - time.monotonic()

    def _watch(self, block_ends_at: float, seconds: float) -> bool:
        """Have the watchdog end the process if a block does not end, unless it does so already.

        It does that `GRACE_SECONDS` after the block's end, or up to `SHARED_SECONDS` before that.

        Args:
            block_ends_at: when the block has to end, by `time.monotonic()`.
            seconds: the same as seconds from now.

        Returns:
            whether the watchdog was started anew.
        """
        at = block_ends_at + GRACE_SECONDS
        if at - self.SHARED_SECONDS <= self._ends_process_at <= at:
            return False
        # Not `sys.stderr`, which a plugin may have replaced by something that is no file.
        faulthandler.dump_traceback_later(seconds + GRACE_SECONDS, exit=True, file=STANDARD_ERROR)
        self._ends_process_at = at
        return True

    def _handle_alarm(self, _signal: int, _frame: FrameType | None) -> None:
        if not self.in_block:
            faulthandler.cancel_dump_traceback_later()
            self._ends_process_at = float("-inf")
            return
        seconds = self._seconds_left()
        if seconds <= 0:
            raise TimeUp
        self._watch(time.monotonic() + seconds, seconds)
        signal.setitimer(signal.ITIMER_REAL, max(SHORTEST_TIMER_SECONDS, seconds), 1.0)


class Limit:
    """A time limit for one block of code; `TimeLimits.limit` makes it."""

    __slots__ = ("_limits", "_seconds")

    def __init__(self, limits: TimeLimits, seconds: float):
        self._limits = limits
        self._seconds = seconds

    def __enter__(self) -> None:
        self._limits.begin_block(self._seconds)

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._limits.in_block = False
        # The code in the block may have set another handler.
        if getsignal(signal.SIGALRM) is not self._limits.on_alarm:
            signal.signal(signal.SIGALRM, self._limits.on_alarm)
        signal.setitimer(signal.ITIMER_REAL, 0)
        if kind is None and self._limits.is_time_up():
            raise TimeUp


class MemoryLimit:
    """A limit on the memory of this process, as a number of megabytes beyond what it has now.

    In its blocks an allocation beyond the limit fails; in Python it raises `MemoryError`.

    The limit is on writable memory (RLIMIT_DATA of getrlimit(2)), not on the address space: every
    new thread reserves 128 MB of addresses and uses next to nothing.

    Args:
        megabytes: None for no limit.
    """

    def __init__(self, megabytes: int | None):
        self.megabytes = megabytes
        self._bytes = None if megabytes is None else memory_usage()[0] + megabytes * MEGABYTE

    def __enter__(self) -> None:
        if self._bytes is None:
            return
        self._outer = soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
        lowest = min((x for x in (soft, hard) if x != resource.RLIM_INFINITY), default=self._bytes)
        resource.setrlimit(resource.RLIMIT_DATA, (min(self._bytes, lowest), hard))

    def __exit__(self, *_: object) -> None:
        if self._bytes is not None:  # Clustr's own code, which writes the ends down, has no limit.
            resource.setrlimit(resource.RLIMIT_DATA, self._outer)


def memory_usage() -> tuple[int, int]:
    """The bytes of this process's data and stacks, and its resident bytes (proc(5), `statm`)."""
    figures = Path("/proc/self/statm").read_text().split()
    page = resource.getpagesize()
    return int(figures[5]) * page, int(figures[1]) * page


class Interruption:
    """A context manager whose block SIGTERM interrupts, at once or at its beginning.

    Code outside of the blocks is not interrupted, so that a result is always stored as a whole.

    Raises:
        Interrupted: in a block, when SIGTERM comes or has come before.

    Attributes:
        requested: whether SIGTERM has come.
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
