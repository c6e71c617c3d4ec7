"""gunicorn's worker with threads, of which slow clients can never hold all.

A thread that waits for the rest of a request cannot serve others meanwhile. So a request that has
arrived whole is answered at once, and any other needs one of a limited number of places. A
connection that gets none waits for one without a thread; one that waits for too long is answered
with an error that asks to try again.
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
from clustr.supervisor import web_process
from clustr.supervisor.lingering_close import LingeringClose

# For the first bytes on a new connection; then it is watched without a thread.
FIRST_BYTES_SECONDS = 0.1
# How long a connection waits for a place, and how often it is checked for a complete request.
WAIT_SECONDS = 10.0
CHECK_SECONDS = 0.1

# How much of a request is peeked at, and how much of an unread body is discarded at once.
PEEK_BYTES = 64 * 1024

EMPTY_LINE = b"\r\n"  # which may come before a request (RFC 9112, section 2.2)
HEAD_END = b"\r\n\r\n"
FRAMING_HEADERS = re.compile(
    rb"\n(content-length|transfer-encoding)[ \t]*:[ \t]*([^ \t\r\n]*)", re.I
)
LONGEST_LENGTH_DIGITS = 18  # digits

WAITING_FOR_PLACE = object()  # a true value: the connection is not to be closed


class BoundedThreadWorker(gthread.ThreadWorker):
    """gunicorn's worker, in which slow clients do not hold up others.

    Incomplete requests may hold three fifths of the threads, and requests that wait for analyses a
    fifth. A separate thread closes connections (docs/decisions/closing.md).
    """

    def init_process(self) -> None:
        self._places = threading.Semaphore(max(1, self.cfg.threads * 3 // 5))
        web_process.set_threads(self.cfg.threads)
        self._with_place: set[gthread.TConn] = set()
        self._waiting: dict[gthread.TConn, float] = {}  # until when, by the monotonic clock
        self._refused: set[gthread.TConn] = set()
        self._check_waiting_at = 0.0
        self._lingering_close = LingeringClose(self.cfg.threads // 4)
        self._lingering_close.start()
        super().init_process()

    def handle(self, conn: gthread.TConn) -> Any:
        """Answer the next request of a connection; the result is false if it is the last one."""
        conn.request = None
        if not conn.initialized and not conn.wait_for_data(FIRST_BYTES_SECONDS):
            return gthread._DEFER
        if not self._may_read(conn):
            return WAITING_FOR_PLACE
        keep_open = super().handle(conn)
        if not keep_open:
            conn.still_sends = not has_sent_everything(conn)
        return keep_open

    def _may_read(self, conn: gthread.TConn) -> bool:
        # Encrypted data cannot be peeked at.
        if self.cfg.is_ssl or conn in self._with_place or conn in self._refused:
            return True
        data = peek_request(conn)
        if data is None or is_complete_request(data):
            return True
        if self._places.acquire(blocking=False):
            self._with_place.add(conn)
            return True
        return False

    def handle_request(self, req: Request, conn: gthread.TConn) -> bool:
        conn.request = req
        if conn in self._refused:
            req.body = rejected_body()
        kept: bool = super().handle_request(req, conn)
        return kept

    def finish_request(self, conn: gthread.TConn, fs: "Future[Any]") -> None:
        """Go on with a connection after a request.

        This and the methods below run in the main thread.
        """
        self._refused.discard(conn)
        if conn in self._with_place:
            self._with_place.remove(conn)
            self._places.release()
        if fs.cancelled() or fs.exception():
            super().finish_request(conn, fs)
        elif fs.result() is WAITING_FOR_PLACE:
            self._waiting[conn] = time.monotonic() + WAIT_SECONDS
        elif fs.result():
            super().finish_request(conn, fs)
        else:
            self._close(conn, conn.still_sends)
        self._assign_places()

    def _close(self, conn: gthread.TConn, still_sends: bool) -> None:
        self._lingering_close.close(
            conn.sock, still_sends, lambda: self.method_queue.defer(self._count_closed)
        )

    def _count_closed(self) -> None:
        self.nr_conns -= 1

    def _assign_places(self) -> None:
        while self._waiting and self._places.acquire(blocking=False):
            conn = next(iter(self._waiting))
            del self._waiting[conn]
            self._with_place.add(conn)
            self.enqueue_req(conn)

    def wait_for_and_dispatch_events(self, timeout: float) -> None:
        if self._waiting:
            timeout = min(timeout, CHECK_SECONDS)
        super().wait_for_and_dispatch_events(timeout)
        if not self.alive:
            web_process.ending.set()
        now = time.monotonic()
        if self._waiting and now >= self._check_waiting_at:
            self._check_waiting_at = now + CHECK_SECONDS
            self._check_waiting(now)

    def _check_waiting(self, now: float) -> None:
        for conn, until in list(self._waiting.items()):
            data = peek_request(conn)
            ready = data is None or is_complete_request(data)
            if not ready and now < until:
                continue
            del self._waiting[conn]
            if ready:
                self.enqueue_req(conn)
            elif data and has_head(data):
                self._refused.add(conn)
                self.enqueue_req(conn)
            else:
                self._close(conn, still_sends=True)


def peek_request(conn: gthread.TConn) -> bytes | None:
    """Peek at the bytes of a connection's next request that have arrived, up to a limit.

    Returns None when the client has closed the connection.
    """
    data = conn.parser.unreader.buf.getvalue() if conn.parser else b""
    try:
        new_data = conn.sock.recv(PEEK_BYTES, socket.MSG_PEEK | socket.MSG_DONTWAIT)
    except BlockingIOError:
        return data
    except OSError:
        return None
    return data + new_data if new_data else None


def has_head(data: bytes) -> bool:
    """Whether these bytes contain the request line and all headers."""
    return HEAD_END in data.removeprefix(EMPTY_LINE)


def is_complete_request(data: bytes) -> bool:
    """Whether these bytes begin with a complete request, so that no read has to wait for more.

    A chunked request never counts as complete, and a malformed one may not.
    """
    data = data.removeprefix(EMPTY_LINE)
    end = data.find(HEAD_END)
    if end < 0:
        return False
    body_bytes = len(data) - end - len(HEAD_END)
    return all(
        name.lower() == b"content-length"
        and value.isdigit()
        and len(value) <= LONGEST_LENGTH_DIGITS
        and int(value) <= body_bytes
        for name, value in FRAMING_HEADERS.findall(data, 0, end)
    )


class RejectedBodyReader:
    """Stands for a body that is not received because there is no place: reading it raises."""

    def read(self, size: int) -> bytes:
        raise TooBusy


def rejected_body() -> Body:
    """A body in place of one that is not received: reading it raises `TooBusy`."""
    body = Body(RejectedBodyReader())
    body.failed = True  # So gunicorn does not look for another request after it.
    return body


def has_sent_everything(conn: gthread.TConn) -> bool:
    """Whether the client has sent the request that was answered last completely; never waits."""
    if conn.request is None:  # The client sent something that is no request.
        return False
    try:
        conn.sock.setblocking(False)
        finished: bool = conn.parser.finish_body(max_bytes=PEEK_BYTES)
        return finished
    except Exception:  # There is more to come, or the end of the request is unknown.
        return False
