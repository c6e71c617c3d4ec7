"""Servers on real sockets that do what servers should not."""

import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


class Server:
    """Accepts connections and has `serve(connection)` answer each in a thread of its own."""

    def __init__(self, serve: Callable[["Server", socket.socket], None]):
        self.serve = serve
        self.accepted = 0
        self.received: list[bytes] = []
        self.done = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}/"
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                self.accepted += 1
                threading.Thread(target=self._run, args=(connection,), daemon=True).start()

    def _run(self, connection: socket.socket) -> None:
        with connection, suppress(OSError):
            self.serve(self, connection)

    def read_request(self, connection: socket.socket) -> bytes:
        """Read the head of a request, and its body when that has a length."""
        data = b""
        while b"\r\n\r\n" not in data:
            if not (part := connection.recv(65536)):
                raise ConnectionAbortedError
            data += part
        head, _, body = data.partition(b"\r\n\r\n")
        length = 0
        for line in head.lower().split(b"\r\n"):
            if line.startswith(b"content-length:"):
                length = int(line.partition(b":")[2])
        rest = bytearray(body)
        while len(rest) < length:
            rest += connection.recv(65536)
        self.received.append(head + b"\r\n\r\n" + rest)
        return head

    def drip(self, connection: socket.socket, content: bytes, seconds: float = 0.1) -> None:
        """Send a byte at a time."""
        for byte in content:
            connection.sendall(bytes([byte]))
            if self.done.wait(seconds):
                return

    def close(self) -> None:
        self.done.set()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()


@contextmanager
def server(serve: Callable[[Server, socket.socket], None]) -> Iterator[Server]:
    running = Server(serve)
    try:
        yield running
    finally:
        running.close()


def answering(*answers: bytes) -> Callable[[Server, socket.socket], None]:
    """Answer the requests on a connection in turn, then go on with the last one for ever."""

    def serve(server: Server, connection: socket.socket) -> None:
        number = 0
        while True:
            server.read_request(connection)
            connection.sendall(answers[min(number, len(answers) - 1)])
            number += 1

    return serve


def slow_headers(server: Server, connection: socket.socket) -> None:
    server.read_request(connection)
    server.drip(connection, b"HTTP/1.1 200 OK\r\nX-Long: " + b"x" * 1000)


def endless_headers(server: Server, connection: socket.socket) -> None:
    server.read_request(connection)
    while not server.done.is_set():
        connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")


def slow_body(server: Server, connection: socket.socket) -> None:
    server.read_request(connection)
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
    server.drip(connection, b"x" * 1000)


def slow_chunks(server: Server, connection: socket.socket) -> None:
    server.read_request(connection)
    connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    server.drip(connection, b"1\r\nx\r\n" * 1000, 0.03)


def silent(server: Server, connection: socket.socket) -> None:
    server.done.wait(30)


def endless_body(server: Server, connection: socket.socket) -> None:
    server.read_request(connection)
    connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
    while not server.done.is_set():
        connection.sendall(bytes(65536))


def with_tls(serve: Callable[[Server, socket.socket], None], certificate: tuple[Path, Path]):
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(*certificate)

    def serve_with_tls(server: Server, connection: socket.socket) -> None:
        with context.wrap_socket(connection, server_side=True) as wrapped:
            serve(server, wrapped)

    return serve_with_tls
