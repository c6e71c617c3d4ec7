"""Nothing is ever seen half: not a file whose client went away, not a result that is written."""

import socket
from collections.abc import Iterator
from urllib.parse import urlsplit

import photographs
import pytest
from calling import BOUNDARY, form, get, named, total_uploads, uploaded
from running import Up, wait_until

from clustr.api.schemas.uploads import UploadSchema


def pieces(body: bytes, count: int) -> Iterator[bytes]:
    """The body cut off at so many places."""
    for number in range(1, count + 1):
        yield body[: len(body) * number // (count + 1)]


@pytest.mark.parametrize("reset", [False, True], ids=["closed", "reset"])
def test_B7_a_client_that_goes_away_leaves_nothing(service: Up, reset: bool) -> None:
    photo = photographs.photograph(width=None)
    body = form((named(b"a.jpg"), photo), (named(b"b.jpg"), photo))
    head = (
        "POST /api/upload HTTP/1.1\r\nHost: localhost\r\n"
        f"Content-Type: multipart/form-data; boundary={BOUNDARY}\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    ).encode()
    before, said = total_uploads(service), service.output()
    address = urlsplit(service.url)
    for piece in pieces(body, 10):
        connection = socket.create_connection((address.hostname, address.port), timeout=60)
        connection.sendall(head + piece)
        if reset:  # An immediate end, which loses what is still under way.
            linger = b"\1\0\0\0\0\0\0\0"
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        connection.close()
    incoming = service.data / "uploads" / ".incoming"
    wait_until(lambda: not list(incoming.iterdir()), 60, "temporary files are gone")
    assert total_uploads(service) == before
    assert '"event": "fault"' not in service.output()[len(said) :]


def test_C8_every_state_that_is_seen_is_a_whole_one(service: Up) -> None:
    """Asked as fast as answers come, while analyses are written."""
    schema = UploadSchema()
    for number in range(5):
        (accepted,) = uploaded(service, photographs.unique("jpg", 700_000 + number))
        seen = []
        while not seen or seen[-1]["status"] == "pending":
            seen.append(get(service, f"/api/uploads/{accepted['id']}").json())
            assert len(seen) < 20_000, seen[-1]
        for upload in seen:
            assert not schema.validate(upload), upload
            for name, analysis in upload["analyses"].items():
                succeeded = analysis["status"] == "succeeded"
                assert (analysis["result"] is not None) == succeeded, (name, analysis)
            blip = upload["analyses"]["blip"]
            assert (upload["caption"] is not None) == (blip["status"] == "succeeded")
        assert seen[-1]["status"] == "processed"
