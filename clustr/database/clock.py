"""The time by MongoDB's clock, which is the one that all processes share.

A lease that one host writes is read by another, and the clocks of two hosts may differ. MongoDB
tells its time with every heartbeat of a client; between two of them, time goes on here by the
monotonic clock of this host, which does not jump. As long as MongoDB was not met, the time is that
of this host.
"""

import threading
import time
from datetime import UTC, datetime, timedelta
from typing import Any

from pymongo import monitoring

from clustr import logs

log = logs.logger(__name__)

TOLERANCE_SECONDS = 5.0  # Leases have more to spare; an answer may be read late on a busy host.

# After MongoDB's own clock has jumped, each process learns of it with its next heartbeat, and
# prolongs its leases by it with the next renewal.
SETTLING_SECONDS = 30.0

# Nothing is put off for longer: what lies further ahead was written while the clock was wrong.
FARTHEST = timedelta(hours=2)


class Clock(monitoring.ServerHeartbeatListener):
    """A clock that is put right by the heartbeats of clients that it listens to."""

    def __init__(self) -> None:
        self._ahead_seconds = time.time() - time.monotonic()  # of this host's monotonic clock
        self._told = False
        self._jumped_at = float("-inf")
        self._lock = threading.Lock()

    def now(self) -> datetime:
        """This moment in UTC, to the millisecond, which is what MongoDB keeps."""
        moment = datetime.fromtimestamp(time.monotonic() + self._ahead_seconds, UTC)
        return moment.replace(microsecond=moment.microsecond // 1000 * 1000)

    def settled(self) -> bool:
        """Whether all processes go by the same time: not for a while after MongoDB's has jumped."""
        return time.monotonic() - self._jumped_at > SETTLING_SECONDS

    def succeeded(self, event: monitoring.ServerHeartbeatSucceededEvent) -> None:
        """Take the time from an answer of the primary, given at some time of the heartbeat."""
        told = event.reply.document.get("localTime")
        if told is None or not event.reply.is_writable:
            return
        with self._lock:
            until = time.monotonic() + self._ahead_seconds
            since = until - event.duration  # in seconds
            seconds = told.replace(tzinfo=UTC).timestamp()
            wrong_by = max(0.0, seconds - until) or min(0.0, seconds - since)
            if abs(wrong_by) > TOLERANCE_SECONDS:
                log.warning("clock_set", seconds=round(wrong_by, 3))
                self._ahead_seconds += wrong_by
                if self._told:
                    self._jumped_at = time.monotonic()
            self._told = True

    def started(self, event: monitoring.ServerHeartbeatStartedEvent) -> None:
        """Nothing is told yet."""

    def failed(self, event: monitoring.ServerHeartbeatFailedEvent) -> None:
        """Nothing was told."""


# One for all clients of a process: the time is also asked for where no client is at hand.
clock = Clock()
now = clock.now


def due_condition() -> dict[str, Any]:
    """A condition: this time has come, or was written while the clock was wrong."""
    moment = now()
    return {"$not": {"$gte": moment, "$lt": moment + FARTHEST}, "$exists": True}


def is_due(moment: datetime) -> bool:
    """Whether this time has come, or was written while the clock was wrong."""
    return not now() <= moment < now() + FARTHEST
