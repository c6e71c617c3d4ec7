"""Limits on what a plugin's code may take, which it cannot talk its way out of."""

import contextlib
import faulthandler
import signal
import time
from collections.abc import Iterator
from types import FrameType

STANDARD_ERROR = 2

# What stays deaf to the limit, such as C code that holds the interpreter, is ended together with
# its process after this much longer.
GRACE_SECONDS = 4.0


class TimeUp(BaseException):
    """The time is up. No `Exception`, so that `except Exception` in a plugin does not catch it."""


class Interrupted(BaseException):
    """The process was asked to stop."""


@contextlib.contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raise `TimeUp` in the main thread when the block takes longer; then again each second.

    Raises:
        TimeUp: also at the end of the block, when code in it has swallowed the first one.
    """
    ends = time.monotonic() + seconds

    def ring(_signal: int, _frame: FrameType | None) -> None:
        raise TimeUp

    handler = signal.signal(signal.SIGALRM, ring)
    outer_seconds, _ = signal.setitimer(signal.ITIMER_REAL, seconds, 1.0)
    outer_ends = time.monotonic() + outer_seconds
    try:
        # Not `sys.stderr`, for which a plugin may have put something that is no file.
        faulthandler.dump_traceback_later(seconds + GRACE_SECONDS, exit=True, file=STANDARD_ERROR)
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, handler)
        if outer_seconds:  # The timer is one for the whole process: hand it back to who had it.
            signal.setitimer(signal.ITIMER_REAL, max(0.001, outer_ends - time.monotonic()))
    if time.monotonic() > ends:
        raise TimeUp


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
