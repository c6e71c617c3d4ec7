"""Calling the service in tests, as clients do and as no client should."""

import http.client
import socket
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import requests

SECONDS = 90
BOUNDARY = "boundary-of-the-tests"
FORM = f"multipart/form-data; boundary={BOUNDARY}"
PROBLEM = "application/problem+json"


def get(service: Any, path: str, **options: Any) -> requests.Response:
    return requests.get(service.url + path, timeout=SECONDS, **options)


def part(
    content: bytes,
    name: str = "photograph.jpg",
    content_type: str = "image/jpeg",
    field: str = "files",
) -> tuple[str, tuple[str, bytes, str]]:
    """A file of a form, for `upload`."""
    return field, (name, content, content_type)


def upload(service: Any, *parts: Any, **options: Any) -> requests.Response:
    return requests.post(f"{service.url}/api/upload", files=parts, timeout=SECONDS, **options)


def uploaded(service: Any, *contents: bytes) -> list[dict[str, Any]]:
    """Upload files that must all be accepted, and return what is said of each."""
    answer = upload(service, *map(part, contents))
    assert answer.status_code == 201, answer.text
    assert answer.json()["errors"] == []
    return answer.json()["data"]


def total_uploads(service: Any) -> int:
    return get(service, "/api/uploads?limit=1").json()["total"]


def form(*parts: tuple[bytes, bytes]) -> bytes:
    """A multipart body written by hand: for each part its headers and its content."""
    delimiter = f"--{BOUNDARY}".encode()
    written = [b"%s\r\n%s\r\n\r\n%s\r\n" % (delimiter, *each) for each in parts]
    return b"".join(written) + delimiter + b"--\r\n"


def named(filename: bytes) -> bytes:
    """The headers of a part with a file of this name, as it is."""
    return b'Content-Disposition: form-data; name="files"; filename="%s"' % filename


def post_form(service: Any, *parts: tuple[bytes, bytes]) -> requests.Response:
    return post(service, form(*parts), f"multipart/form-data; boundary={BOUNDARY}")


def post(service: Any, body: Any, content_type: str | None) -> requests.Response:
    headers = {"Content-Type": content_type} if content_type else {}
    return requests.post(f"{service.url}/api/upload", body, headers=headers, timeout=SECONDS)


class Raw(http.client.HTTPResponse):
    """The answer to bytes that were sent as they are, over a connection that stays open.

    Attributes:
        body: the answer's content.
    """

    def __init__(self, service: Any, sent: bytes, method: str = "GET", ends: bool = False):
        address = urlsplit(service.url)
        self.connection = socket.create_connection((address.hostname, address.port), SECONDS)
        self.connection.sendall(sent)
        if ends:
            self.connection.shutdown(socket.SHUT_WR)
        super().__init__(self.connection, method=method)
        self.begin()
        self.body = self.read()

    def is_last(self) -> bool:
        """Whether the service has closed the connection after this answer."""
        return self.connection.recv(1) == b""

    def __exit__(self, *_: object) -> None:
        self.close()
        self.connection.close()


def get_raw(service: Any, path: str, *headers: str) -> Raw:
    """Ask for a path that clients would tidy up first."""
    lines = [f"GET {path} HTTP/1.1", "Host: localhost", *headers]
    return Raw(service, "\r\n".join([*lines, "", ""]).encode("latin-1"))


def stored_files(service) -> set[Path]:
    """Every file below the folder of uploads; those that are still arriving, too."""
    return {path for path in (service.data / "uploads").rglob("*") if path.is_file()}


def total(service) -> int:
    return get(service, "/api/uploads?limit=1").json()["total"]


def problem(answer: requests.Response, status: int, name: str) -> dict:
    """The problem document, which must be of this status and kind."""
    assert answer.status_code == status, answer.text
    assert answer.headers["Content-Type"] == PROBLEM
    document = answer.json()
    assert document["type"] == f"urn:clustr:problem:{name}"
    assert document["status"] == status
    return document
