"""gunicorn's worker with threads, of which slow clients never hold all.

A thread that reads what its client has not sent yet, and may send slowly, is lost to others for as
long. So a request that has arrived whole is answered at once, and any other needs one of a limited
number of places. Who gets none waits for one, without a thread; who waits for too long is told to
try again.
"""

import re
import socket
import threading
import time
from concurrent.futures import Future
from typing import Any

from gunicorn.http.body import Body
from gunicorn.http.message import Request
from gunicorn.workers import gthread

from clustr.domain.errors import TooBusy
from clustr.supervisor.lingering_close import LingeringClose

# For the first bytes on a new connection; then it is watched without a thread.
FIRST_BYTES_SECONDS = 0.1
# For a place; in between it is looked whether the request has arrived.
WAIT_SECONDS = 10.0
LOOK_SECONDS = 0.1

# How much of a request is looked for, and how much that was left unread is thrown away at once.
LOOK_BYTES = 64 * 1024

EMPTY_LINE = b"\r\n"  # which may come before a request (RFC 9112, section 2.2)
HEAD_END = b"\r\n\r\n"
FRAMING = re.compile(rb"\n(content-length|transfer-encoding)[ \t]*:[ \t]*([^ \t\r\n]*)", re.I)
LONGEST_LENGTH = 18  # digits

WAITS = object()  # a true value: the connection is not to be closed


class BoundedThreadWorker(gthread.ThreadWorker):
    """gunicorn's worker, in which nobody waits for others that send slowly or are slow to hang up.

    Three quarters of the threads may be held by requests that have not arrived whole. Connections
    are closed in a thread of its own (docs/decisions/closing.md).
    """

    def init_process(self) -> None:
        self._places = threading.Semaphore(max(1, self.cfg.threads * 3 // 4))
        self._placed: set[gthread.TConn] = set()
        self._waiting: dict[gthread.TConn, float] = {}  # until when, by the monotonic clock
        self._refused: set[gthread.TConn] = set()
        self._look_at = 0.0
        self._lingering_close = LingeringClose(self.cfg.threads // 4)
        self._lingering_close.start()
        super().init_process()

    def handle(self, conn: gthread.TConn) -> Any:
        """Answer the next request of a connection; what this returns is false if it is the last."""
        conn.request = None
        if not conn.initialized and not conn.wait_for_data(FIRST_BYTES_SECONDS):
            return gthread._DEFER
        if not self._may_read(conn):
            return WAITS
        goes_on = super().handle(conn)
        if not goes_on:
            conn.still_sends = not has_sent_everything(conn)
        return goes_on

    def _may_read(self, conn: gthread.TConn) -> bool:
        # What arrives encrypted cannot be looked at.
        if self.cfg.is_ssl or conn in self._placed or conn in self._refused:
            return True
        data = arrived(conn)
        if data is None or is_whole(data):
            return True
        if self._places.acquire(blocking=False):
            self._placed.add(conn)
            return True
        return False

    def handle_request(self, req: Request, conn: gthread.TConn) -> bool:
        conn.request = req
        if conn in self._refused:
            req.body = not_received()
        return super().handle_request(req, conn)

    def finish_request(self, conn: gthread.TConn, fs: "Future[Any]") -> None:
        """Go on with a connection after a request.

        This runs in the main thread, as what follows does.
        """
        self._refused.discard(conn)
        if conn in self._placed:
            self._placed.remove(conn)
            self._places.release()
        if fs.cancelled() or fs.exception():
            super().finish_request(conn, fs)
        elif fs.result() is WAITS:
            self._waiting[conn] = time.monotonic() + WAIT_SECONDS
        elif fs.result():
            super().finish_request(conn, fs)
        else:
            self._close(conn, conn.still_sends)
        self._give_places()

    def _close(self, conn: gthread.TConn, still_sends: bool) -> None:
        self._lingering_close.close(
            conn.sock, still_sends, lambda: self.method_queue.defer(self._forget)
        )

    def _forget(self) -> None:
        self.nr_conns -= 1

    def _give_places(self) -> None:
        while self._waiting and self._places.acquire(blocking=False):
            conn = next(iter(self._waiting))
            del self._waiting[conn]
            self._placed.add(conn)
            self.enqueue_req(conn)

    def wait_for_and_dispatch_events(self, timeout: float) -> None:
        if self._waiting:
            timeout = min(timeout, LOOK_SECONDS)
        super().wait_for_and_dispatch_events(timeout)
        now = time.monotonic()
        if self._waiting and now >= self._look_at:
            self._look_at = now + LOOK_SECONDS
            self._look_after_waiting(now)

    def _look_after_waiting(self, now: float) -> None:
        for conn, until in list(self._waiting.items()):
            data = arrived(conn)
            ready = data is None or is_whole(data)
            if not ready and now < until:
                continue
            del self._waiting[conn]
            if ready:
                self.enqueue_req(conn)
            elif has_head(data):
                self._refused.add(conn)
                self.enqueue_req(conn)
            else:
                self._close(conn, still_sends=True)


def arrived(conn: gthread.TConn) -> bytes | None:
    """What has arrived of a connection's next request, or its beginning; it stays to be read.

    None when the client has hung up.
    """
    data = conn.parser.unreader.buf.getvalue() if conn.parser else b""
    try:
        more = conn.sock.recv(LOOK_BYTES, socket.MSG_PEEK | socket.MSG_DONTWAIT)
    except BlockingIOError:
        return data
    except OSError:
        return None
    return data + more if more else None


def has_head(data: bytes) -> bool:
    """Whether a request's line and headers are in these bytes."""
    return HEAD_END in data.removeprefix(EMPTY_LINE)


def is_whole(data: bytes) -> bool:
    """Whether these bytes begin with a request that can be read without waiting for more of it.

    It is said of no request in chunks, nor of everything that is malformed.
    """
    data = data.removeprefix(EMPTY_LINE)
    end = data.find(HEAD_END)
    if end < 0:
        return False
    left = len(data) - end - len(HEAD_END)
    return all(
        name.lower() == b"content-length"
        and value.isdigit()
        and len(value) <= LONGEST_LENGTH
        and int(value) <= left
        for name, value in FRAMING.findall(data, 0, end)
    )


class NotReceived:
    """What is read of a body for which there is no place."""

    def read(self, size: int) -> bytes:
        raise TooBusy


def not_received() -> Body:
    """A body in place of one that is not received: whoever reads it is told why."""
    body = Body(NotReceived())
    body.failed = True  # So gunicorn looks for no other request behind it.
    return body


def has_sent_everything(conn: gthread.TConn) -> bool:
    """Whether the request that was answered last has been sent to its end; this does not wait."""
    if conn.request is None:  # What it sent could not be read as one.
        return False
    try:
        conn.sock.setblocking(False)
        return conn.parser.finish_body(max_bytes=LOOK_BYTES)
    except Exception:  # There is more to come, or nobody knows where the request ends.
        return False
