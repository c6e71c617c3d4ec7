"""The HTTP session that analyzers get: a session of requests with a time limit for each exchange.

The time-outs of requests and urllib3 hold for single calls on the socket: a server that sends one
byte a second is never timed out. Here `timeout` holds for the whole exchange: every call on the
connection's socket is allowed just the time that is left.
"""

import http.cookiejar
import io
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Literal, cast

import requests
import urllib3
from requests.adapters import HTTPAdapter
from urllib3.exceptions import ConnectTimeoutError, NameResolutionError, NewConnectionError

LONGEST_CONNECT_SECONDS = 5.0
# Connections to a host that are kept open: as many as an analyzer may have calls under way.
MAX_CONNECTIONS = 64

# The deadline of the exchange that this thread begins, by `time.monotonic()`.
_deadline: ContextVar[float] = ContextVar("deadline")


class Session(requests.Session):
    """A requests session for calls to services.

    - `timeout` is a total in seconds for connecting, sending, and receiving headers and body, or a
      tuple of seconds to connect and that total. Connecting may take five seconds at most. What
      takes longer raises `requests.exceptions.Timeout`. Only the look-up of the host's name is not
      cut short: the C library has no way to.
    - No redirect is ever followed: it is an answer like any other.
    - Nothing is tried again, no cookies are kept, no proxy is used, and neither `.netrc` nor the
      environment counts.
    - Connections are kept open and used again.

    To read an answer of at most N bytes, ask with `stream=True` in a `with` statement and add up
    `response.iter_content(N + 1)` until there are more than N: it gives decoded bytes, never more
    than asked for at once, so that a small answer that unpacks to a huge one is bounded as well.

    Args:
        timeout: the total in seconds of a call that gives none.
    """

    def __init__(self, timeout: float = 30):
        super().__init__()
        self.trust_env = False
        self.cookies.set_policy(http.cookiejar.DefaultCookiePolicy(allowed_domains=[]))
        self.mount("http://", _Adapter(timeout))
        self.mount("https://", _Adapter(timeout))

    def get_redirect_target(self, response: requests.Response) -> None:
        """None, so that requests follows no redirect, and does not read the body of one either."""


class _Adapter(HTTPAdapter):
    """Gives every exchange its deadline."""

    def __init__(self, timeout: float):
        super().__init__(pool_maxsize=MAX_CONNECTIONS)
        self._timeout = timeout

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = {"http": _HTTPPool, "https": _HTTPSPool}

    def send(
        self,
        request: requests.PreparedRequest,
        stream: bool = False,
        timeout: float | tuple[float, float] | tuple[float, None] | None = None,
        verify: bool | str = True,
        cert: Any = None,
        proxies: Mapping[str, str] | None = None,
    ) -> requests.Response:
        connect, total = timeout if isinstance(timeout, tuple) else (timeout, timeout)
        total = total or self._timeout
        connect = min(connect or total, total, LONGEST_CONNECT_SECONDS)
        deadline = time.monotonic() + total
        token = _deadline.set(deadline)
        try:
            with _timeout_at(deadline):
                # Nothing is given for the proxies: a connection through one has no total.
                response = super().send(request, stream, (connect, total), verify, cert)
        finally:
            _deadline.reset(token)
        return _Response(response, deadline)


class _Response(requests.Response):
    """A response whose body raises `ReadTimeout` at the deadline, as its headers do."""

    def __init__(self, response: requests.Response, deadline: float):
        super().__init__()
        self.__dict__.update(response.__dict__)
        self._deadline = deadline

    def iter_content(self, *args: Any, **kwargs: Any) -> Iterator[Any]:
        return self._until_deadline(super().iter_content(*args, **kwargs))

    def _until_deadline(self, chunks: Iterator[Any]) -> Iterator[Any]:
        with _timeout_at(self._deadline):
            yield from chunks


@contextmanager
def _timeout_at(deadline: float) -> Iterator[None]:
    """Raise `ReadTimeout` for a connection error of requests that comes after the deadline."""
    try:
        yield
    except requests.ConnectTimeout:
        raise
    except requests.ConnectionError as error:
        if time.monotonic() < deadline:
            raise
        message = "The exchange was not over in time."
        raise requests.ReadTimeout(message, request=error.request) from error


class _DeadlineSocket:
    """A connected socket on which every call has to be over by the same deadline.

    It offers what http.client and urllib3 use of a socket; `settimeout` is one of the rest, and is
    of no effect on the calls that wait.
    """

    def __init__(self, connected: socket.socket):
        self._socket = connected
        self.deadline = _deadline.get()

    def sendall(self, data: Any) -> None:
        unsent = memoryview(data).cast("B")
        while unsent:
            self.limit()
            unsent = unsent[self._socket.send(unsent) :]

    def makefile(self, mode: Literal["rb"]) -> io.BufferedReader:
        return io.BufferedReader(_DeadlineReader(self, self._socket.makefile(mode, buffering=0)))

    def limit(self) -> None:
        """Allow the next call just the time that is left."""
        seconds_left = self.deadline - time.monotonic()
        if seconds_left <= 0:
            raise TimeoutError("timed out")
        self._socket.settimeout(seconds_left)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._socket, name)


class _DeadlineReader(io.RawIOBase):
    """The raw stream that http.client reads a response from."""

    def __init__(self, limited: _DeadlineSocket, file: io.RawIOBase):
        self._limited = limited
        self._file = file

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        self._limited.limit()
        return self._file.readinto(buffer)

    def close(self) -> None:
        self._file.close()
        super().close()


def _seconds_until(moment: float) -> float:
    """The seconds left as a time-out for a socket: never 0, which would make it non-blocking."""
    return max(0.001, moment - time.monotonic())


class _HTTPConnection(urllib3.connection.HTTPConnection):
    """urllib3's connection with one time limit to connect, and with a `_DeadlineSocket`."""

    sock: Any

    def _new_conn(self) -> socket.socket:
        """Connect to the first of the host's addresses that answers, within one time for all.

        urllib3 and the standard library allow each address the whole time.
        """
        assert self.timeout is not None  # Every call is given one.
        connect_by = time.monotonic() + self.timeout
        try:
            addresses = socket.getaddrinfo(
                self.host.strip("[]"), self.port, type=socket.SOCK_STREAM
            )
        except (socket.gaierror, UnicodeError) as error:
            # urllib3 does nothing with the reason but put it into the message.
            raise NameResolutionError(self.host, self, error) from error  # type: ignore[arg-type]
        problem: OSError | None = None
        for *_, address in addresses:
            try:
                host_and_port = cast("tuple[str, int]", address[:2])  # as of any TCP address
                connected = socket.create_connection(host_and_port, _seconds_until(connect_by))
                connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                connected.settimeout(_seconds_until(connect_by))  # for the handshake of TLS
                return connected
            except OSError as error:
                problem = error
        if isinstance(problem, TimeoutError):
            raise ConnectTimeoutError(self, "Connecting took too long.") from problem
        raise NewConnectionError(self, f"Connecting failed: {problem}") from problem

    def connect(self) -> None:
        super().connect()
        self.sock = _DeadlineSocket(self.sock)

    def request(self, *args: Any, **kwargs: Any) -> None:
        if self.sock is not None:  # The connection is one that was kept open.
            self.sock.deadline = _deadline.get()
        super().request(*args, **kwargs)


class _HTTPSConnection(_HTTPConnection, urllib3.connection.HTTPSConnection):
    pass


class _HTTPPool(urllib3.HTTPConnectionPool):
    ConnectionCls = _HTTPConnection


class _HTTPSPool(urllib3.HTTPSConnectionPool):
    ConnectionCls = _HTTPSConnection
