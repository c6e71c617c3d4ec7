"""Closes connections without anybody waiting for their clients.

A socket that is closed while its client still sends is reset, and the client may never see the
answer (RFC 9112, section 9.6). So the sending side is closed first; what the client still sends is
read and thrown away, until it hangs up or has had its time.
"""

import math
import selectors
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from gunicorn.workers.gthread import PollableMethodQueue

READ_BYTES = 64 * 1024
CHECK_SECONDS = 0.25


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a client is waited for.

    Attributes:
        seconds: altogether.
        silent_seconds: without a byte.
        bytes: how much of what it sends is read.
    """

    seconds: float
    silent_seconds: float
    bytes: float


# For a client that has sent its whole request; these are gunicorn's own limits.
HANGING_UP = Patience(seconds=2, silent_seconds=2, bytes=64 * 1024)
# For a client that was answered before it had sent its whole request, as in nginx
# (`lingering_time`, `lingering_timeout`): most read no answer before everything is sent.
STILL_SENDING = Patience(seconds=30, silent_seconds=5, bytes=math.inf)


class Closing:
    """A connection that is being closed."""

    __slots__ = ("_bytes_left", "_ends_at", "_patience", "client", "closed", "silent_until")

    def __init__(self, client: socket.socket, patience: Patience, closed: Callable[[], None]):
        self.client = client
        self.closed = closed
        self._patience = patience
        self._ends_at = time.monotonic() + patience.seconds
        self._bytes_left = patience.bytes
        self._heard()

    @property
    def still_sends(self) -> bool:
        return self._patience is STILL_SENDING

    def _heard(self) -> None:
        self.silent_until = min(self._ends_at, time.monotonic() + self._patience.silent_seconds)

    def read(self) -> bool:
        """Throw away what the client has sent; whether to go on waiting for more."""
        try:
            received = len(self.client.recv(READ_BYTES))
        except BlockingIOError:
            return True
        except OSError:
            return False
        self._bytes_left -= received
        self._heard()
        return received > 0 and self._bytes_left > 0


class LingeringClose(threading.Thread):
    """Closes connections in a thread of its own, which watches all of them at once.

    Args:
        most_sending: how many clients are read from at a time that have not sent everything; those
            beyond are given the time of those that have.
    """

    def __init__(self, most_sending: int):
        super().__init__(name="lingering-close", daemon=True)
        self._most_sending = most_sending
        self._calls = PollableMethodQueue()
        self._calls.init()
        self._selector = selectors.DefaultSelector()
        self._selector.register(
            self._calls.fileno(), selectors.EVENT_READ, self._calls.run_callbacks
        )
        self._closing: set[Closing] = set()

    def close(self, client: socket.socket, sends: bool, closed: Callable[[], None]) -> None:
        """Close a connection, in a while.

        Args:
            sends: whether the client may not have sent its whole request.
            closed: called in the end, in the thread.
        """
        try:
            client.setblocking(False)
            client.shutdown(socket.SHUT_WR)
        except OSError:  # The client is gone.
            client.close()
            closed()
            return
        self._calls.defer(self._begin, client, sends, closed)

    def _begin(self, client: socket.socket, sends: bool, closed: Callable[[], None]) -> None:
        sending = sum(one.still_sends for one in self._closing)
        patience = STILL_SENDING if sends and sending < self._most_sending else HANGING_UP
        closing = Closing(client, patience, closed)
        self._closing.add(closing)
        self._selector.register(client, selectors.EVENT_READ, lambda _: self._read(closing))

    def _read(self, closing: Closing) -> None:
        if not closing.read():
            self._end(closing)

    def _end(self, closing: Closing) -> None:
        self._closing.remove(closing)
        self._selector.unregister(closing.client)
        closing.client.close()
        closing.closed()

    def run(self) -> None:
        """Watch the connections for as long as the process lives."""
        check_at = 0.0
        while True:
            for key, _ in self._selector.select(CHECK_SECONDS if self._closing else None):
                key.data(key.fileobj)
            now = time.monotonic()
            if now >= check_at:
                check_at = now + CHECK_SECONDS
                for closing in [one for one in self._closing if one.silent_until <= now]:
                    self._end(closing)
