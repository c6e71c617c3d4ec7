"""The time by MongoDB's clock, which all processes share.

One host writes a lease and another reads it, and the clocks of two hosts may differ. MongoDB sends
its time with every heartbeat of a client. Between two heartbeats the monotonic clock of this host
counts on, which does not jump. Before the first heartbeat the time is that of this host.
"""

import threading
import time
from datetime import UTC, datetime, timedelta
from typing import Any

from pymongo import monitoring

from clustr import logs

log = logs.logger(__name__)

TOLERANCE_SECONDS = 5.0  # A busy host may read an answer late; leases allow for more than this.

# After MongoDB's own clock has jumped, each process learns of it with its next heartbeat, and
# extends its leases accordingly with the next renewal.
SETTLING_SECONDS = 30.0

# No due time is further ahead than this, unless it was written while the clock was wrong.
MAX_AHEAD = timedelta(hours=2)


class Clock(monitoring.ServerHeartbeatListener):
    """A clock that the heartbeats of MongoDB clients synchronize."""

    def __init__(self) -> None:
        self._ahead_seconds = time.time() - time.monotonic()  # of this host's monotonic clock
        self._synchronized = False
        self._jumped_at = float("-inf")
        self._lock = threading.Lock()

    def now(self) -> datetime:
        """This moment in UTC, to the millisecond, which is what MongoDB keeps."""
        moment = datetime.fromtimestamp(time.monotonic() + self._ahead_seconds, UTC)
        return moment.replace(microsecond=moment.microsecond // 1000 * 1000)

    def settled(self) -> bool:
        """Whether all processes use the same time: not for a while after MongoDB's jumps."""
        return time.monotonic() - self._jumped_at > SETTLING_SECONDS

    def succeeded(self, event: monitoring.ServerHeartbeatSucceededEvent) -> None:
        """Correct the clock by the time in an answer of the primary, if it is far from it."""
        server_time = event.reply.document.get("localTime")
        if server_time is None or not event.reply.is_writable:
            return
        with self._lock:
            until = time.monotonic() + self._ahead_seconds
            since = until - event.duration  # in seconds
            seconds = server_time.replace(tzinfo=UTC).timestamp()
            wrong_by = max(0.0, seconds - until) or min(0.0, seconds - since)
            if abs(wrong_by) > TOLERANCE_SECONDS:
                log.warning("clock_set", seconds=round(wrong_by, 3))
                self._ahead_seconds += wrong_by
                if self._synchronized:
                    self._jumped_at = time.monotonic()
            self._synchronized = True

    def started(self, event: monitoring.ServerHeartbeatStartedEvent) -> None:
        """Ignore the start of a heartbeat: it has no time yet."""

    def failed(self, event: monitoring.ServerHeartbeatFailedEvent) -> None:
        """Ignore a failed heartbeat: it has no time."""


# One for all clients of a process: code without a client needs the time, too.
clock = Clock()
now = clock.now


def due_condition() -> dict[str, Any]:
    """A condition for a field: its time has come, or was written while the clock was wrong."""
    moment = now()
    return {"$not": {"$gte": moment, "$lt": moment + MAX_AHEAD}, "$exists": True}


def is_due(moment: datetime) -> bool:
    """Whether this time has come, or was written while the clock was wrong."""
    return not now() <= moment < now() + MAX_AHEAD
