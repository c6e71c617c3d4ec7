"""A stand-in for the service that an analyzer calls: a real HTTP server on a loopback address."""

import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
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
    """

    method: str
    path: str
    headers: Message
    body: bytes
    parts: Mapping[str, Part]


@dataclass(frozen=True, slots=True)
class _Answer:
    content: bytes
    status: int
    headers: Mapping[str, str]


class HttpStandIn:
    """Gives every request the same answer, and records the requests.

    Attributes:
        url: its address, such as `http://127.0.0.1:35001`.
        received: the requests, in order.
    """

    def __init__(self) -> None:
        self.received: list[Received] = []
        self.answer({})
        handler = type("Handler", (_Handler,), {"stand_in": self})
        self._server = ThreadingHTTPServer((LOOPBACK, 0), handler)
        self.url = f"http://{LOOPBACK}:{self._server.server_port}"
        self._thread = Thread(target=self._server.serve_forever, args=(POLL_SECONDS,), daemon=True)
        self._thread.start()

    def answer(
        self, content: Any = b"", status: int = 200, headers: Mapping[str, str] | None = None
    ) -> None:
        """Set the answer to all further requests.

        Args:
            content: bytes are sent unchanged, anything else as JSON.
        """
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self._answer = _Answer(body, status, headers or {})

    def go_away(self) -> None:
        """Refuse connections from now on."""
        if self._thread.is_alive():
            self._server.shutdown()
            self._thread.join()
            self._server.server_close()

    def __enter__(self) -> "HttpStandIn":
        return self

    def __exit__(self, *_: object) -> None:
        self.go_away()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    stand_in: ClassVar[HttpStandIn]

    def _respond(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        request = Received(self.command, self.path, self.headers, body, _parts(self.headers, body))
        self.stand_in.received.append(request)
        answer = self.stand_in._answer
        self.send_response(answer.status)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(answer.content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(answer.content)

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
