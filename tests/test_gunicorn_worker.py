"""The worker: which requests it answers at once, and which need a place."""

from collections.abc import Iterator

import pytest
from gunicorn.config import Config
from gunicorn.http import RequestParser
from hypothesis import given, settings
from hypothesis import strategies as some

from clustr.supervisor.gunicorn_worker import is_complete_request

WHOLE = [
    b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    b"\r\nGET / HTTP/1.1\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc",
    b"POST / HTTP/1.1\r\ncontent-length:3\r\nHost: x\r\n\r\nabcGET / HTTP/1.1\r\n",
]
NOT_WHOLE = [
    b"",
    b"GET / HTTP/1.1\r\nHost: x\r\n",
    b"\r\n\r\n",
    b"\r\nPOST / HTTP/1.1\r\nContent-Length: 3\r\n\r\nab",
    b"POST / HTTP/1.1\r\nContent-Length: 4\r\n\r\nabc",
    b"POST / HTTP/1.1\r\nContent-Length: " + b"9" * 5000 + b"\r\n\r\n",
    b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
]


@pytest.mark.parametrize("data", WHOLE)
def test_what_is_whole_needs_no_place(data: bytes) -> None:
    assert is_complete_request(data)
    assert not waits(data)


@pytest.mark.parametrize("data", NOT_WHOLE)
def test_what_is_not_whole_needs_one(data: bytes) -> None:
    assert not is_complete_request(data)


class WouldWaitError(Exception):
    """gunicorn read on where nothing more has come."""


def waits(data: bytes) -> bool:
    """Whether gunicorn, when it has read this, waits for more of the request."""

    def source() -> Iterator[bytes]:
        yield data
        raise WouldWaitError

    try:
        request = next(RequestParser(Config(), source(), ("127.0.0.1", 1)))
        while request.body.read(100):
            pass
    except WouldWaitError:
        return True
    except Exception:  # It is refused, which waits for nobody either.
        return False
    return False


LINES = [
    b"",
    b"POST / HTTP/1.1",
    b"GET / HTTP/1.0",
    b"Host: x",
    b"Content-Length: 3",
    b"CONTENT-LENGTH:3",
    b"Content-Length: \t3 ",
    b"Content-Length : 3",
    b" Content-Length: 3",
    b"X: Content-Length: 0",
    b"Content-Length:",
    b"Content_Length: 3",
    b"Content-Length: +3",
    b"Content-Length: \xb2",
    b"Transfer-Encoding: chunked",
    b"transfer-encoding: identity",
    b"Expect: 100-continue",
    b"abc",
    b"0",
]
ENDS = some.sampled_from([b"\r\n"] * 20 + [b"\n", b"\r", b" ", b"\x00"])
BYTES = some.lists(some.tuples(some.sampled_from(LINES), ENDS).map(b"".join)).map(b"".join)
REQUESTS = some.tuples(some.just(b"POST / HTTP/1.1\r\n"), BYTES).map(b"".join)


@settings(deadline=None)
@given(BYTES | REQUESTS)
def test_what_is_said_to_be_whole_keeps_gunicorn_waiting_for_nothing(data: bytes) -> None:
    assert not (is_complete_request(data) and waits(data))
