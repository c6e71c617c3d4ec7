"""A captioner that can be told to misbehave: a real HTTP server, for tests and for trying out.

    with BlipStandIn() as blip:
        blip.mode = "away"

By hand: `python tests/blip_stand_in.py --port 8001`, and `--mode slow` or another one of `MODES`.
"""

import argparse
import functools
import hashlib
import io
import json
import socket
import threading
import time
import zlib
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import PIL.Image
from werkzeug.formparser import FormDataParser

MODES = {
    "ok": "captions and tags that follow from the picture",
    "away": "503 to everything, /health included",
    "too_many": "429",
    "error": "500",
    "slow": "a byte per second from the first one of the status line on",
    "hang": "no answer, /health included",
    "garbage": "200 with something that is not JSON",
    "page": "200 with a page of HTML, as a proxy sends it",
    "wrong_shape": "200 with JSON of another shape",
    "huge": "200 with a gigabyte",
    "gzip_bomb": "200 with a megabyte that unpacks to a gigabyte",
    "redirect": "307 to /elsewhere on the same server",
}
GIBIBYTE = 1024**3
LONGEST_WAIT_SECONDS = 120

COLOURS = {
    "black": (20, 20, 20),
    "grey": (128, 128, 128),
    "white": (240, 240, 240),
    "red": (200, 40, 40),
    "orange": (225, 140, 50),
    "yellow": (230, 220, 60),
    "green": (60, 150, 60),
    "blue": (50, 90, 190),
    "purple": (130, 60, 150),
    "pink": (235, 165, 185),
    "brown": (110, 75, 50),
    "beige": (215, 195, 165),
}


@dataclass(frozen=True)
class Received:
    """An image that was posted: the part as it came, and what Pillow found in it."""

    file_name: str
    content_type: str
    content: bytes
    format: str | None
    mode: str | None
    width: int
    height: int

    @property
    def size(self) -> int:
        return len(self.content)

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.content).hexdigest()

    def picture(self) -> PIL.Image.Image:
        return PIL.Image.open(io.BytesIO(self.content))


class BlipStandIn:
    """The server, and what it has seen.

    Attributes:
        mode: one of `MODES`; counts for each request from when it has arrived.
        answer: what is answered in the mode `ok`, an object or bytes; None to look at the picture.
        answer_status: the status of that answer.
        retry_after: the value of the header of 429 and 503; None for no header.
        delay_seconds: how long an answer in the mode `ok` takes to think of.
        requests: the images that were received, in order.
        connections: how many connections were accepted.
        elsewhere: how many requests followed the redirect.
        bytes_sent: how many bytes of bodies left, up to what the system has buffered.
    """

    def __init__(self, port: int = 0, host: str = "127.0.0.1", mode: str = "ok"):
        self.host, self.port = host, port
        self.mode = mode
        self.answer: Any = None
        self.answer_status = 200
        self.retry_after: str | None = None
        self.delay_seconds = 0.0
        self.requests: list[Received] = []
        self.health_requests = 0
        self.connections = 0
        self.elsewhere = 0
        self.bytes_sent = 0
        self.stopping = threading.Event()
        self._server: _Server | None = None

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}"

    def __enter__(self) -> "BlipStandIn":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Begin to serve, on the same port as before when it was stopped."""
        self.stopping.clear()
        self._server = _Server(self)
        self.port = self._server.server_port
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def stop(self) -> None:
        """End all connections and refuse new ones."""
        if self._server:
            self.stopping.set()
            self._server.stop()
            self._server = None


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, blip: BlipStandIn):
        self.blip = blip
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        super().__init__((blip.host, blip.port), _Handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._lock:
            self._open.add(request)
        self.blip.connections += 1
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        with self._lock:
            self._open.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: clients that give up are what this server is for."""

    def stop(self) -> None:
        self.shutdown()
        with self._lock:
            for connection in self._open:
                with suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
        self.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Server

    def do_GET(self) -> None:
        blip = self.server.blip
        if self.path != "/health":
            blip.elsewhere += self.path == "/elsewhere"
            self.answer(404, {"detail": "There is nothing here."})
            return
        blip.health_requests += 1
        if blip.mode in ("away", "hang", "slow", "error"):
            getattr(self, blip.mode)()
        else:
            self.answer(200, {"status": "healthy"})

    def do_POST(self) -> None:
        blip = self.server.blip
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.path != "/caption":
            self.do_GET()
            return
        received = self.understand(body)
        if not received:
            self.answer(400, {"detail": "Expected one part named image."})
            return
        blip.requests.append(received)
        self.received = received
        getattr(self, blip.mode)()

    def understand(self, body: bytes) -> Received | None:
        """The one part of the form, or None when there is another one."""
        content_type = self.headers["Content-Type"]
        mimetype, _, parameters = content_type.partition(";")
        boundary = parameters.partition("boundary=")[2]
        parser = FormDataParser(stream_factory=lambda **_: io.BytesIO())
        options = {"boundary": boundary}
        _, form, files = parser.parse(io.BytesIO(body), mimetype, len(body), options)
        parts = list(files.items(multi=True))
        if form or [name for name, _ in parts] != ["image"]:
            return None
        part = parts[0][1]
        content = part.read()
        try:
            with PIL.Image.open(io.BytesIO(content)) as picture:
                found = (picture.format, picture.mode, *picture.size)
        except OSError:
            found = (None, None, 0, 0)
        return Received(part.filename or "", part.content_type or "", content, *found)

    def ok(self) -> None:
        blip = self.server.blip
        blip.stopping.wait(blip.delay_seconds)
        if blip.answer is not None or blip.answer_status != 200:
            self.answer(blip.answer_status, blip.answer)
        elif self.received.format is None:
            self.answer(422, {"detail": "The image cannot be read."})
        else:
            self.answer(200, describe(self.received.picture()))

    def away(self) -> None:
        self.answer(503, {"detail": "The captioner is away."}, **self.retry_after())

    def too_many(self) -> None:
        self.answer(429, {"detail": "Too many requests."}, **self.retry_after())

    def error(self) -> None:
        self.answer(500, {"detail": "Internal server error"})

    def slow(self) -> None:
        body = json.dumps({"caption": "slow " * 100, "tags": []})
        whole = f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode()
        for byte in whole:
            self.wfile.write(bytes([byte]))
            if self.server.blip.stopping.wait(1):
                break
        self.close_connection = True

    def hang(self) -> None:
        self.server.blip.stopping.wait(LONGEST_WAIT_SECONDS)
        self.close_connection = True

    def garbage(self) -> None:
        self.answer(200, b"captions: none today")

    def page(self) -> None:
        self.answer(200, b"<!DOCTYPE html>\n<html><body><h1>The site is down.</h1></body></html>")

    def wrong_shape(self) -> None:
        self.answer(200, {"caption": 7, "tags": "brown"})

    def huge(self) -> None:
        self.head(200, {"Content-Length": str(GIBIBYTE)})
        chunk = b" " * 2**16
        for _ in range(GIBIBYTE // len(chunk)):
            self.write(chunk)

    def gzip_bomb(self) -> None:
        self.answer(200, bomb(), **{"Content-Encoding": "gzip"})

    def redirect(self) -> None:
        self.answer(307, {}, Location=f"{self.server.blip.url}/elsewhere")

    def retry_after(self) -> dict[str, str]:
        value = self.server.blip.retry_after
        return {} if value is None else {"Retry-After": value}

    def answer(self, status: int, body: Any, **headers: str) -> None:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        length = {"Content-Length": str(len(content))}
        self.head(status, {"Content-Type": "application/json", **length, **headers})
        self.write(content)

    def head(self, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()

    def write(self, content: bytes) -> None:
        self.wfile.write(content)
        self.server.blip.bytes_sent += len(content)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


@functools.cache
def bomb() -> bytes:
    """About a megabyte of gzip that unpacks to a gibibyte of spaces."""
    compressor = zlib.compressobj(9, wbits=31)
    block = b" " * 2**20
    first, again = (
        compressor.compress(block) + compressor.flush(zlib.Z_FULL_FLUSH) for _ in range(2)
    )
    return first + again * 1023


def describe(picture: PIL.Image.Image) -> dict[str, Any]:
    """A caption and tags that follow from the colours and the shape of the picture."""
    small = picture.convert("RGB").resize((24, 24)).tobytes()
    pixels = zip(small[0::3], small[1::3], small[2::3], strict=True)
    colours = [name for name, _ in Counter(map(nearest_colour, pixels)).most_common(2)]
    width, height = picture.size
    shape = "square" if width == height else "landscape" if width > height else "portrait"
    return {
        "caption": f"a {width}x{height} image, mostly {colours[0]}",
        "tags": [*colours, shape],
        "model": "stand-in",
    }


@functools.cache
def nearest_colour(pixel: tuple[int, int, int]) -> str:
    def distance(name: str) -> int:
        return sum((a - b) ** 2 for a, b in zip(pixel, COLOURS[name], strict=True))

    return min(COLOURS, key=distance)


def main() -> None:
    parser = argparse.ArgumentParser(
        description="A stand-in for a captioner.",
        epilog="Modes: " + "; ".join(f"{mode}: {what}" for mode, what in MODES.items()),
    )
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8001)
    parser.add_argument("--mode", choices=list(MODES), default="ok")
    arguments = parser.parse_args()
    with BlipStandIn(arguments.port, arguments.host, arguments.mode) as blip:
        print(f"The stand-in for a captioner serves on {blip.url}; Ctrl-C ends it.", flush=True)
        seen = 0
        with suppress(KeyboardInterrupt):
            while True:
                time.sleep(0.2)
                for received in blip.requests[seen:]:
                    seen += 1
                    print(
                        f"{received.file_name}: {received.size} bytes, {received.format} "
                        f"{received.width}x{received.height}",
                        flush=True,
                    )


if __name__ == "__main__":
    main()
