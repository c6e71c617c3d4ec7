"""How connections end: nobody waits for another's client, and every answer is read."""

import http.client
import itertools
import shutil
import socket
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import replace
from urllib.parse import urlsplit

import pytest
import requests
from calling import BOUNDARY, form, named
from running import Up, wait_until
from slow_clients import slow_to_hang_up
from web_side import WebSide

from clustr.supervisor import lingering_close
from clustr.supervisor.lingering_close import CloseLimits, LingeringClose

REQUESTS = 200
NO_LIMITS = CloseLimits(3600, 3600, float("inf"))  # So that a connection is closed for one reason.
FORM = f"multipart/form-data; boundary={BOUNDARY}"
LARGE = bytes(60_000_000)  # more than the sockets on the way hold


def slow_request(url: str) -> float:
    """Seconds that the slowest but 5 % of some requests took, each on a connection of its own."""
    address = urlsplit(url)
    seconds = []
    for _ in range(REQUESTS):
        began = time.perf_counter()
        connection = http.client.HTTPConnection(address.hostname, address.port, timeout=20)
        connection.request("GET", "/api/health/live", headers={"Connection": "close"})
        assert connection.getresponse().read()
        connection.close()
        seconds.append(time.perf_counter() - began)
    return sorted(seconds)[REQUESTS * 95 // 100]


def test_B9_clients_that_are_slow_to_hang_up_hold_up_nobody(service: Up) -> None:
    def nobody_is_held_up() -> bool:
        """Whether requests are as quick as others; a busy machine may have held up these alone."""
        alone = slow_request(service.url)
        with slow_to_hang_up(service.url, 50):
            beside = slow_request(service.url)
        return beside < 2 * alone + 0.05

    wait_until(nobody_is_held_up, 60, "requests that nobody holds up")


@pytest.fixture(scope="module")
def narrow(web_with: Callable[..., WebSide]) -> WebSide:
    """A web side that refuses much of what comes."""
    return web_with(
        MAX_UPLOAD_SIZE="1000000", MAX_REQUEST_SIZE="50000000", MAX_FILES_PER_REQUEST="2"
    )


def with_urllib(method: str, url: str, body: bytes, content_type: str) -> int:
    headers = {"Content-Type": content_type}
    request = urllib.request.Request(url, data=body, headers=headers, method=method)
    try:
        return urllib.request.urlopen(request, timeout=60).status
    except urllib.error.HTTPError as error:
        with error:
            assert error.read()
            return error.code


def with_requests(method: str, url: str, body: bytes, content_type: str) -> int:
    headers = {"Content-Type": content_type}
    answer = requests.request(method, url, data=body, headers=headers, timeout=60)
    assert answer.json()["status"] == answer.status_code
    return answer.status_code


def in_chunks(method: str, url: str, body: bytes, content_type: str) -> int:
    headers = {"Content-Type": content_type}
    chunks = (body[i : i + 1_000_000] for i in range(0, len(body), 1_000_000))
    return requests.request(method, url, data=chunks, headers=headers, timeout=60).status_code


def with_curl(method: str, url: str, body: bytes, content_type: str) -> int:
    program = shutil.which("curl")
    if program is None:
        pytest.skip("curl is not installed")
    told = ["-sS", "-o", "/dev/null", "-w", "%{http_code}", "-X", method, "--data-binary", "@-"]
    headers = ["-H", f"Content-Type: {content_type}", "-H", "Expect:"]
    ran = subprocess.run([program, *told, *headers, url], input=body, capture_output=True)
    assert ran.returncode == 0, ran.stderr
    return int(ran.stdout)


CLIENTS = (with_urllib, with_requests, in_chunks, with_curl)

REFUSED_EARLY = {
    "too long a request": ("POST", "/api/upload", LARGE, FORM, 413),
    "a file that is too large": ("POST", "/api/upload", LARGE[:45_000_000], FORM, 413),
    "too many files": ("POST", "/api/upload", LARGE[:45_000_000], FORM, 413),
    "no form": ("POST", "/api/upload", LARGE[:45_000_000], "text/plain", 422),
    "too long JSON": ("POST", "/api/uploads/exists", LARGE, "application/json", 413),
    "an unknown query": ("POST", "/api/upload?colour=red", LARGE, FORM, 422),
    "no such path": ("POST", "/api/nowhere", LARGE, "application/json", 404),
    "no such method": ("PUT", "/api/uploads", LARGE, "application/json", 405),
}


@pytest.mark.parametrize(
    ("why", "client"),
    # JSON of unknown length is read as far as it may go, and is then not whole.
    [
        case
        for case in itertools.product(REFUSED_EARLY, CLIENTS)
        if case != ("too long JSON", in_chunks)
    ],
)
def test_B10_a_refusal_is_read_whatever_is_still_sent(narrow: WebSide, why: str, client) -> None:
    method, path, body, content_type, status = REFUSED_EARLY[why]
    if content_type == FORM:
        few = [(named(b"a.jpg"), b"")] * (3 if why == "too many files" else 0)
        body = form(*few, (named(b"large.jpg"), body))
    assert client(method, narrow.url + path, body, content_type) == status


def test_B10_a_refusal_of_what_is_no_request_is_read(narrow: WebSide) -> None:
    address = urlsplit(narrow.url)
    with socket.create_connection((address.hostname, address.port), timeout=20) as client:
        client.sendall(b"POST / HTTP/1.1\r\nHost : x\r\nContent-Length: 60000000\r\n\r\n")
        client.sendall(LARGE)
        assert client.recv(12) == b"HTTP/1.1 400"


@pytest.fixture
def connection() -> Iterator[tuple[socket.socket, socket.socket]]:
    """A client's end and a server's."""
    listener = socket.create_server(("127.0.0.1", 0))
    with listener, socket.create_connection(listener.getsockname(), timeout=10) as client:
        server, _ = listener.accept()
        with server:
            yield client, server


class Closer:
    """A `LingeringClose` that was started, and which connections it has closed."""

    def __init__(self, most_sending: int):
        self.closed: list[socket.socket] = []
        self._closing = LingeringClose(most_sending)
        self._closing.start()

    def close(self, server: socket.socket, sends: bool) -> float:
        """Seconds until it was closed."""
        began, done = time.monotonic(), threading.Event()
        self._closing.close(server, sends, done.set)
        assert done.wait(60)
        assert server.fileno() == -1
        return time.monotonic() - began


def test_a_connection_is_closed_when_its_client_hangs_up(connection, monkeypatch) -> None:
    monkeypatch.setattr(lingering_close, "STILL_SENDING", NO_LIMITS)
    client, server = connection
    client.close()
    Closer(1).close(server, sends=True)


def test_a_client_that_goes_on_sending_has_so_much_time(connection, monkeypatch) -> None:
    monkeypatch.setattr(lingering_close, "STILL_SENDING", CloseLimits(2, 1.5, float("inf")))
    client, server = connection
    threading.Thread(target=send_until_it_fails, args=[client, 0.05], daemon=True).start()
    assert Closer(1).close(server, sends=True) > 1.5  # It is closed though it is not silent.


def test_a_client_that_is_silent_has_less(connection, monkeypatch) -> None:
    monkeypatch.setattr(lingering_close, "STILL_SENDING", replace(NO_LIMITS, silent_seconds=0.5))
    _, server = connection
    Closer(1).close(server, sends=True)


def test_of_one_who_has_sent_everything_little_more_is_read(connection, monkeypatch) -> None:
    monkeypatch.setattr(lingering_close, "HANGING_UP", replace(NO_LIMITS, bytes=64 * 1024))
    client, server = connection
    threading.Thread(target=send_until_it_fails, args=[client, 0], daemon=True).start()
    Closer(1).close(server, sends=False)


def test_beyond_the_most_clients_have_the_time_of_those_that_are_done(
    connection, monkeypatch
) -> None:
    monkeypatch.setattr(lingering_close, "HANGING_UP", replace(NO_LIMITS, seconds=0.5))
    monkeypatch.setattr(lingering_close, "STILL_SENDING", NO_LIMITS)
    _, server = connection
    Closer(0).close(server, sends=True)


def send_until_it_fails(client: socket.socket, pause: float) -> None:
    try:
        while True:
            client.sendall(bytes(1000))
            time.sleep(pause)
    except OSError:
        pass
