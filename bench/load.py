"""The load: clients that send prepared requests over kept connections and time each answer.

It runs in a process of its own, so that its threads take no time from who measures beside it.
"""

import http.client
import io
import itertools
import json
import multiprocessing
import threading
import time
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from secrets import token_bytes
from typing import TypeVar
from urllib.parse import urlsplit

from PIL import Image, ImageFilter

T = TypeVar("T")

NO_HEADERS: Mapping[str, str] = {}
# The markers of ITU-T T.81, annex B, and the two bytes of a segment's length.
START_OF_IMAGE, COMMENT = b"\xff\xd8", b"\xff\xfe"
COMMENT_HEAD = COMMENT + bytes(2)
UNIQUE_BYTES = 8
BOUNDARY = "clustr-bench-0123456789abcdef"


@dataclass(frozen=True)
class Measured:
    """What a load came to.

    Attributes:
        seconds: from the first request to the last answer.
        latencies: seconds of each request, in ascending order.
        answers: the bodies of the answers.
        ended_at: when the last answer was there, on the clock of `time.time()`.
    """

    seconds: float
    latencies: Sequence[float]
    answers: Sequence[bytes]
    ended_at: float

    @property
    def rate(self) -> float:
        """Requests a second."""
        return len(self.latencies) / self.seconds

    def percentile(self, share: float) -> float:
        """The latency in seconds that this share of the requests kept below."""
        return self.latencies[min(len(self.latencies) - 1, int(share * len(self.latencies)))]


def photograph(size: int) -> bytes:
    """A JPEG of `size` bytes whose content is as hard to decode as a photograph's.

    A comment at its beginning fills it up; see `another`.
    """
    noise = Image.effect_noise((1600, 1200), 60).filter(ImageFilter.GaussianBlur(2))
    picture = Image.merge("RGB", (noise, noise.rotate(90).resize(noise.size), noise.rotate(180)))

    def encoded(quality: int) -> bytes:
        file = io.BytesIO()
        picture.save(file, "JPEG", quality=quality)
        return file.getvalue()

    largest = size - len(COMMENT_HEAD) - UNIQUE_BYTES
    too_large = bisect_right(range(96), largest, lo=30, key=lambda q: len(encoded(q)))
    start, rest = START_OF_IMAGE, encoded(too_large - 1).removeprefix(START_OF_IMAGE)
    comment = bytes(size - len(start + COMMENT_HEAD + rest))
    return start + COMMENT + (len(comment) + 2).to_bytes(2) + comment + rest


def another(photo: bytes) -> bytes:
    """The same photograph as a file that nobody has: its comment begins with random bytes."""
    head = len(START_OF_IMAGE + COMMENT_HEAD)
    return photo[:head] + token_bytes(UNIQUE_BYTES) + photo[head + UNIQUE_BYTES :]


def form(files: Sequence[bytes]) -> bytes:
    """A multipart body with these files in parts named `files`."""
    parts = []
    for number, content in enumerate(files):
        head = (
            f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="files"; '
            f'filename="photograph-{number}.jpg"\r\nContent-Type: image/jpeg\r\n\r\n'
        )
        parts += [head.encode(), content, b"\r\n"]
    return b"".join([*parts, f"--{BOUNDARY}--\r\n".encode()])


def uploads(url: str, photo: bytes, requests: int, clients: int, files: int = 1) -> Measured:
    """Upload different photographs, `files` in a request, from `clients` clients at once."""
    return _in_own_process(_upload, url, photo, requests, clients, files)


def gets(url: str, paths: Sequence[str], requests: int, clients: int) -> Measured:
    """Get these paths, one after the other and again."""
    return _in_own_process(_get, url, paths, requests, clients)


def gets_in_turn(
    groups: Sequence[tuple[str, Sequence[str]]], requests: int, clients: int
) -> list[Measured]:
    """Get the paths of each group, which is of one URL, so many times; one group after another."""
    return _in_own_process(_get_in_turn, groups, requests, clients)


def _get_in_turn(
    groups: Sequence[tuple[str, Sequence[str]]], requests: int, clients: int
) -> list[Measured]:
    return [_get(url, paths, requests, clients) for url, paths in groups]


def _in_own_process(run: Callable[..., T], *arguments: object) -> T:
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(run, arguments)


def _upload(url: str, photo: bytes, requests: int, clients: int, files: int) -> Measured:
    headers = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}

    def send(connection: "Connection", number: int) -> None:
        different = [another(photo) for _ in range(files)]
        connection.send_request("POST", "/api/upload", form(different), headers)

    return _measure(url, send, 201, requests, clients)


def _get(url: str, paths: Sequence[str], requests: int, clients: int) -> Measured:
    def send(connection: "Connection", number: int) -> None:
        connection.send_request("GET", paths[number % len(paths)])

    return _measure(url, send, 200, requests, clients)


class Connection(http.client.HTTPConnection):
    """A connection that is kept, to an address whose user, if it has one, is a key."""

    def __init__(self, url: str):
        address = urlsplit(url)
        super().__init__(address.hostname or "", address.port, timeout=60)
        self._headers = {"X-API-Key": address.username} if address.username else {}

    def send_request(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: Mapping[str, str] = NO_HEADERS,
    ) -> None:
        self.request(method, path, body, {**headers, **self._headers})


def _measure(
    url: str,
    send: Callable[[Connection, int], None],
    expected: int,
    requests: int,
    clients: int,
) -> Measured:
    numbers = iter(range(requests))
    taking = threading.Lock()
    latencies: list[float] = []
    answers: list[bytes] = []

    def client() -> None:
        connection = Connection(url)
        while True:
            with taking:
                number = next(numbers, None)
            if number is None:
                return
            began = time.perf_counter()
            send(connection, number)
            response = connection.getresponse()
            body = response.read()
            latencies.append(time.perf_counter() - began)
            assert response.status == expected, (response.status, body[:500])
            answers.append(body if len(body) < 100_000 else b"")

    threads = [threading.Thread(target=client) for _ in range(clients)]
    began = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seconds = time.perf_counter() - began
    assert len(latencies) == requests, "a client broke off"
    return Measured(seconds, sorted(latencies), answers, time.time())


def ids(measured: Measured) -> list[str]:
    """The ids of all uploads of a load."""
    answers = (json.loads(answer)["data"] for answer in measured.answers)
    return [upload["id"] for upload in itertools.chain.from_iterable(answers)]
