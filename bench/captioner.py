"""A captioner: `python -m bench.captioner PORT [SECONDS] [AT_ONCE]`.

Each caption takes so many seconds, by default none, and so many are made at a time, by default any
number. `GET` of anything says how many were made.
"""

import contextlib
import socketserver
import sys
import threading
import time
from typing import ClassVar

BODY = b'{"caption": "a photograph", "tags": ["bench"]}'
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s"


class Handler(socketserver.StreamRequestHandler):
    """Reads requests from one connection and answers each with the same words."""

    disable_nagle_algorithm = True
    seconds = 0.0
    places: ClassVar[contextlib.AbstractContextManager[object]] = contextlib.nullcontext()
    lock: ClassVar[threading.Lock] = threading.Lock()
    made = 0

    def handle(self) -> None:
        with contextlib.suppress(ConnectionError):
            while first := self.rfile.readline():
                self.answer(first)

    def answer(self, first: bytes) -> None:
        length = 0
        while (line := self.rfile.readline()) not in (b"\r\n", b""):
            name, _, value = line.partition(b":")
            if name.lower() == b"content-length":
                length = int(value)
        self.rfile.read(length)
        body = BODY if first.startswith(b"POST") else str(Handler.made).encode()
        if body is BODY:
            with self.places:
                time.sleep(self.seconds)
            with self.lock:
                Handler.made += 1
        self.wfile.write(ANSWER % (len(body), body))


class Server(socketserver.ThreadingTCPServer):
    """A thread for each connection."""

    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 128


if __name__ == "__main__":
    port, *limits = sys.argv[1:]
    if limits:
        Handler.seconds = float(limits[0])
    if limits[1:]:
        Handler.places = threading.Semaphore(int(limits[1]))
    Server(("127.0.0.1", int(port)), Handler).serve_forever()
