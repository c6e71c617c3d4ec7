"""A stand-in for the service that an analyzer calls: a real HTTP server on a loopback address."""

import io
import json
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Lock, Thread
from typing import Any, ClassVar

import multipart

LOOPBACK = "127.0.0.1"
POLL_SECONDS = 0.01


@dataclass(frozen=True, slots=True)
class Part:
    """One part of a form that was posted."""

    name: str
    filename: str | None
    content_type: str | None
    content: bytes


@dataclass(frozen=True, slots=True)
class Received:
    """A request that was received.

    Attributes:
        path: with the query.
        headers: their names are case-insensitive.
        parts: the parts of a multipart form, by their names.
        at: when it was received, in seconds on the clock of `time.monotonic()`.
    """

    method: str
    path: str
    headers: Message
    body: bytes
    parts: Mapping[str, Part]
    at: float


@dataclass(frozen=True, slots=True)
class Answer:
    """What is answered to a request.

    Attributes:
        content: bytes are sent unchanged, anything else as JSON.
        delay: how many seconds pass before it is sent; other requests are answered meanwhile. A
            call whose `timeout` is shorter ends before, and the analysis is `deferred`.
    """

    content: Any = b""
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    delay: float = 0.0


class HttpStandIn:
    """Gives requests the answers that a test sets, and records the requests.

    Attributes:
        url: its address, such as `http://127.0.0.1:35001`.
        received: the requests, in order.
    """

    def __init__(self) -> None:
        self.received: list[Received] = []
        self._lock = Lock()
        self._gone = Event()
        self.answer({})
        self._listen(port=0)
        self.url = f"http://{LOOPBACK}:{self._server.server_port}"

    def _listen(self, port: int) -> None:
        handler = type("Handler", (_Handler,), {"stand_in": self})
        self._server = ThreadingHTTPServer((LOOPBACK, port), handler)
        self._thread = Thread(target=self._server.serve_forever, args=(POLL_SECONDS,), daemon=True)
        self._thread.start()

    def answer(
        self,
        content: Any = b"",
        status: int = 200,
        headers: Mapping[str, str] | None = None,
        delay: float = 0.0,
    ) -> None:
        """Set the answer to all further requests; the arguments are the attributes of `Answer`."""
        self.answer_in_sequence(Answer(content, status, headers or {}, delay))

    def answer_in_sequence(self, *answers: Answer) -> None:
        """Set the answers to the next requests, one after the other; the last one stays.

        Raises:
            ValueError: there is none.
        """
        if not answers:
            raise ValueError("give at least one Answer")
        left = list(answers)
        self.answer_by(lambda _request: left.pop(0) if len(left) > 1 else left[0])

    def answer_by(self, function: Callable[[Received], Any]) -> None:
        """Have a function answer all further requests.

        Args:
            function: returns an `Answer`, or the content of one; it is called for one request at a
                time. Where it raises, the answer is 500 with the exception.
        """
        self._answer_by = function

    def _answer_to(self, request: Received) -> Answer:
        with self._lock:
            self.received.append(request)
            try:
                answered = self._answer_by(request)
            except Exception as error:  # The test sees it as what its analyzer makes of it.
                answered = Answer(f"{type(error).__name__}: {error}".encode(), 500)
        answer = answered if isinstance(answered, Answer) else Answer(answered)
        self._gone.wait(answer.delay)
        return answer

    def go_away(self) -> None:
        """Refuse connections from now on, and answer no request over those that are open.

        Answers that are delayed are sent at once.
        """
        self._gone.set()
        if self._thread.is_alive():
            self._server.shutdown()
            self._thread.join()
            self._server.server_close()

    def come_back(self) -> None:
        """Accept connections again, at the same address, after `go_away`."""
        if not self._thread.is_alive():
            self._gone.clear()
            self._listen(self._server.server_port)

    def __enter__(self) -> "HttpStandIn":
        return self

    def __exit__(self, *_: object) -> None:
        self.go_away()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    stand_in: ClassVar[HttpStandIn]

    def _respond(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.stand_in._gone.is_set():
            self.close_connection = True
            return
        parts, at = _parts(self.headers, body), time.monotonic()
        request = Received(self.command, self.path, self.headers, body, parts, at)
        answer = self.stand_in._answer_to(request)
        content = answer.content
        content = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(answer.status)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        if self.stand_in._gone.is_set():
            self.send_header("Connection", "close")  # It has this connection closed, too.
        with suppress(ConnectionError):  # The client has not waited.
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content)

    do_DELETE = do_GET = do_HEAD = do_PATCH = do_POST = do_PUT = _respond

    def log_message(self, *_: object) -> None:
        """Print nothing."""


def _parts(headers: Message, body: bytes) -> dict[str, Part]:
    boundary = headers.get_boundary()
    if boundary is None or headers.get_content_type() != "multipart/form-data":
        return {}
    return {
        part.name: Part(part.name, part.filename, part.content_type, part.raw)
        for part in multipart.MultipartParser(io.BytesIO(body), boundary)
    }
