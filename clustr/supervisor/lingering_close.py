"""Closes connections in a thread, so that no other thread waits for their clients.

When a socket is closed while its client still sends, the connection is reset and the client may
never see the answer (RFC 9112, section 9.6). So the sending side is closed first; what the client
still sends is read and discarded until it closes the connection or its time is over.
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
class CloseLimits:
    """How long to wait for a client to close its side.

    Attributes:
        seconds: at most, altogether.
        silent_seconds: at most, without a byte from it.
        bytes: how much of what it still sends is read.
    """

    seconds: float
    silent_seconds: float
    bytes: float


# For a client that has sent its whole request; these are gunicorn's own limits.
HANGING_UP = CloseLimits(seconds=2, silent_seconds=2, bytes=64 * 1024)
# For a client that was answered before it had sent its whole request, as in nginx
# (`lingering_time`, `lingering_timeout`): most read no answer before everything is sent.
STILL_SENDING = CloseLimits(seconds=30, silent_seconds=5, bytes=math.inf)


class ClosingConnection:
    """A connection that is being closed.

    Attributes:
        on_closed: called after it is closed.
        silent_until: when it is closed unless its client sends something, by `time.monotonic()`.
    """

    __slots__ = ("_bytes_left", "_ends_at", "_limits", "client", "on_closed", "silent_until")

    def __init__(self, client: socket.socket, limits: CloseLimits, on_closed: Callable[[], None]):
        self.client = client
        self.on_closed = on_closed
        self._limits = limits
        self._ends_at = time.monotonic() + limits.seconds
        self._bytes_left = limits.bytes
        self._restart_silence_timer()

    @property
    def still_sends(self) -> bool:
        return self._limits is STILL_SENDING

    def _restart_silence_timer(self) -> None:
        self.silent_until = min(self._ends_at, time.monotonic() + self._limits.silent_seconds)

    def read(self) -> bool:
        """Read and discard what the client has sent; whether to wait for more."""
        try:
            received = len(self.client.recv(READ_BYTES))
        except BlockingIOError:
            return True
        except OSError:
            return False
        self._bytes_left -= received
        self._restart_silence_timer()
        return received > 0 and self._bytes_left > 0


class LingeringClose(threading.Thread):
    """Closes connections in a thread of its own, which watches all of them at once.

    Args:
        most_sending: how many clients at a time may have the limits `STILL_SENDING`; further ones
            get `HANGING_UP`.
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
        self._closing: set[ClosingConnection] = set()

    def close(self, client: socket.socket, sends: bool, on_closed: Callable[[], None]) -> None:
        """Close a connection soon; return at once.

        Args:
            sends: whether the client may still be sending its request.
            on_closed: called after it is closed, usually in this thread.
        """
        try:
            client.setblocking(False)
            client.shutdown(socket.SHUT_WR)
        except OSError:  # The client is gone.
            client.close()
            on_closed()
            return
        self._calls.defer(self._begin_closing, client, sends, on_closed)

    def _begin_closing(
        self, client: socket.socket, sends: bool, on_closed: Callable[[], None]
    ) -> None:
        sending = sum(connection.still_sends for connection in self._closing)
        limits = STILL_SENDING if sends and sending < self._most_sending else HANGING_UP
        closing = ClosingConnection(client, limits, on_closed)
        self._closing.add(closing)
        self._selector.register(client, selectors.EVENT_READ, lambda _: self._read_from(closing))

    def _read_from(self, closing: ClosingConnection) -> None:
        if not closing.read():
            self._finish_closing(closing)

    def _finish_closing(self, closing: ClosingConnection) -> None:
        self._closing.remove(closing)
        self._selector.unregister(closing.client)
        closing.client.close()
        closing.on_closed()

    def run(self) -> None:
        """Watch the connections for as long as the process lives."""
        check_at = 0.0
        while True:
            for key, _ in self._selector.select(CHECK_SECONDS if self._closing else None):
                key.data(key.fileobj)
            now = time.monotonic()
            if now >= check_at:
                check_at = now + CHECK_SECONDS
                for closing in [
                    connection for connection in self._closing if connection.silent_until <= now
                ]:
                    self._finish_closing(closing)
