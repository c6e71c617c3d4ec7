"""The session of the analyzers, against real sockets that do what servers should not."""

import gzip
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import requests
from blip_stand_in import bomb
from socket_servers import (
    Server,
    answering,
    endless_body,
    endless_headers,
    server,
    silent,
    slow_body,
    slow_chunks,
    slow_headers,
    with_tls,
)

from clustr.analysis.http_session import Session

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


@pytest.fixture
def session() -> Iterator[Session]:
    with Session() as session:
        yield session


@contextmanager
def takes(least: float) -> Iterator[None]:
    """Takes as long, and not so long as whatever else could end it; a machine may be busy."""
    began = time.monotonic()
    yield
    assert least <= time.monotonic() - began <= 4


@pytest.mark.parametrize("serve", [slow_headers, endless_headers, slow_body, slow_chunks, silent])
def test_D5_the_timeout_is_a_total(session, serve):
    with server(serve) as slow, takes(0.4), pytest.raises(requests.Timeout):
        session.get(slow.url, timeout=0.5)


@pytest.mark.parametrize("serve", [slow_body, slow_chunks])
def test_D5_the_timeout_includes_a_streamed_body(session, serve):
    with (
        server(serve) as slow,
        takes(0.4),
        pytest.raises(requests.Timeout),
        session.get(slow.url, timeout=0.5, stream=True) as response,
    ):
        assert response.status_code == 200
        for _ in response.iter_content(100_000):
            pass


def test_the_timeout_ends_a_body_that_never_does(session):
    with (
        server(endless_body) as endless,
        takes(0.4),
        pytest.raises(requests.Timeout),
        session.get(endless.url, timeout=0.5, stream=True) as response,
    ):
        for _ in response.iter_content(65536):
            pass


def test_the_timeout_includes_sending(session):
    """The server accepts and reads nothing, so that what is sent fills all buffers."""
    with server(silent) as deaf, takes(0.4), pytest.raises(requests.Timeout):
        session.post(deaf.url, data=bytes(64 * 1024 * 1024), timeout=0.5)


def test_sending_may_take_longer_than_connecting(session):
    def read_late(server: Server, connection: socket.socket) -> None:
        server.done.wait(1.2)
        server.read_request(connection)
        connection.sendall(OK)

    content = bytes(16 * 1024 * 1024)
    with server(read_late) as late:
        assert session.post(late.url, data=content, timeout=(1, 60)).text == "ok"
        assert late.received[0].endswith(content)


def test_the_default_timeout():
    with (
        Session(timeout=0.3) as session,
        server(silent) as deaf,
        takes(0.2),
        pytest.raises(requests.Timeout),
    ):
        session.get(deaf.url)


@pytest.fixture
def unreachable() -> Iterator[str]:
    """The address of a server whose queue of connections is full, so that nothing connects."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        waiting = []
        for _ in range(4):
            waiting.append(socket.socket())
            waiting[-1].setblocking(False)
            waiting[-1].connect_ex(listener.getsockname())
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/"
        for connection in waiting:
            connection.close()


@pytest.mark.parametrize("timeout", [0.4, (0.4, 20), (20, 0.4)])
def test_connecting_is_limited(session, unreachable, timeout):
    with takes(0.3), pytest.raises(requests.ConnectTimeout):
        session.get(unreachable, timeout=timeout)


def test_all_addresses_of_a_host_share_the_time(session, unreachable, monkeypatch):
    port = int(unreachable.rstrip("/").rpartition(":")[2])
    address = (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))
    real = socket.getaddrinfo

    def look_up(host: str, *args, **kwargs):
        return [address] * 20 if host == "many.test" else real(host, *args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    with takes(0.3), pytest.raises(requests.ConnectTimeout):
        session.get(f"http://many.test:{port}/", timeout=0.4)


def test_nobody_listens(session):
    with socket.socket() as unheard, pytest.raises(requests.ConnectionError) as refused:
        unheard.bind(("127.0.0.1", 0))
        session.get(f"http://127.0.0.1:{unheard.getsockname()[1]}/", timeout=30)
    assert not isinstance(refused.value, requests.Timeout)


@pytest.mark.parametrize("host", ["no-such-host.invalid", "x" * 64 + ".test"])
def test_a_name_that_does_not_exist(session, host):
    with pytest.raises(requests.RequestException):
        session.get(f"http://{host}/", timeout=30)


def test_localhost_by_its_name(session):
    with server(answering(OK)) as answers:
        url = answers.url.replace("127.0.0.1", "localhost")
        assert session.get(url, timeout=30).text == "ok"


def test_a_connection_is_used_again(session):
    with server(answering(OK)) as answers:
        for _ in range(5):
            assert session.post(answers.url, data=b"content", timeout=30).text == "ok"
        assert answers.accepted == 1


def test_the_deadline_of_a_connection_used_again_is_the_new_one(session):
    def second_is_slow(server: Server, connection: socket.socket) -> None:
        server.read_request(connection)
        connection.sendall(OK)
        server.read_request(connection)
        server.done.wait(2.2)
        connection.sendall(OK)
        server.read_request(connection)
        server.drip(connection, OK)

    with server(second_is_slow) as slow:
        assert session.get(slow.url, timeout=2).text == "ok"
        assert session.get(slow.url, timeout=30).text == "ok"
        with takes(0.4), pytest.raises(requests.Timeout):
            session.get(slow.url, timeout=0.5)
        assert slow.accepted == 1


def test_after_a_timeout_the_next_call_has_a_new_connection(session):
    with server(silent) as slow:
        with pytest.raises(requests.Timeout):
            session.get(slow.url, timeout=0.5)
        slow.serve = answering(OK)
        assert session.get(slow.url, timeout=30).text == "ok"
        assert slow.accepted == 2


def test_a_connection_that_the_server_closed_meanwhile(session):
    closed = threading.Event()

    def once(server: Server, connection: socket.socket) -> None:
        server.read_request(connection)
        connection.sendall(OK)
        connection.shutdown(socket.SHUT_WR)
        closed.set()

    with server(once) as answers:
        assert session.get(answers.url, timeout=30).text == "ok"
        assert closed.wait(30)
        assert session.get(answers.url, timeout=30).text == "ok"
        assert answers.accepted == 2


def at_most(response: requests.Response, limit: int) -> bytes:
    """As the documentation of `Session` says."""
    body = b""
    for chunk in response.iter_content(limit + 1):
        body += chunk
        if len(body) > limit:
            break
    return body


@pytest.mark.parametrize(
    "head",
    [
        b"Content-Length: 1000000000\r\n",
        b"",
        b"Content-Encoding: gzip\r\n",
        b"Transfer-Encoding: chunked\r\n",
        b"Transfer-Encoding: chunked\r\nContent-Encoding: gzip\r\n",
    ],
)
def test_reading_no_more_than_a_limit(session, head):
    sent = 0

    def huge(server: Server, connection: socket.socket) -> None:
        nonlocal sent
        server.read_request(connection)
        connection.sendall(b"HTTP/1.1 200 OK\r\n" + head + b"\r\n")
        block = bomb() if b"gzip" in head else bytes(2**20)
        if b"chunked" in head:
            block = b"%x\r\n%s\r\n" % (len(block), block)
        while True:
            connection.sendall(block)
            sent += len(block)

    with (
        server(huge) as endless,
        session.get(endless.url, timeout=60, stream=True) as response,
    ):
        body = at_most(response, 1000)
        assert 1000 < len(body) <= 2002
    assert sent < 32 * 2**20  # what the system buffers between two sockets


def test_a_packed_answer_is_unpacked(session):
    content = gzip.compress(b"unpacked")
    head = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(content)
    with server(answering(head + content)) as answers:
        assert session.get(answers.url, timeout=30).text == "unpacked"
        with session.get(answers.url, timeout=30, stream=True) as response:
            assert at_most(response, 1000) == b"unpacked"
        assert answers.accepted == 1


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("options", [{}, {"allow_redirects": True}])
def test_redirects_are_not_followed(session, status, options):
    with server(answering(OK)) as target:
        answer = (
            f"HTTP/1.1 {status} Elsewhere\r\nLocation: {target.url}\r\nContent-Length: 0\r\n\r\n"
        )
        with server(answering(answer.encode())) as redirects:
            response = session.post(redirects.url, data=b"content", timeout=30, **options)
            assert response.status_code == status
            assert len(redirects.received) == 1
        assert target.accepted == 0


def test_the_body_of_a_redirect_is_not_read(session):
    def huge_redirect(server: Server, connection: socket.socket) -> None:
        server.read_request(connection)
        connection.sendall(b"HTTP/1.1 302 Found\r\nLocation: /x\r\n\r\n")
        while True:
            connection.sendall(bytes(65536))

    with (
        server(huge_redirect) as redirects,
        session.get(redirects.url, timeout=30, stream=True) as response,
    ):
        assert response.status_code == 302


def test_the_environment_does_not_count(session, monkeypatch, tmp_path):
    with server(answering(OK)) as proxy, server(answering(OK)) as answers:
        netrc = tmp_path / "netrc"
        netrc.write_text("default login somebody password secret\n")
        monkeypatch.setenv("NETRC", str(netrc))
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        monkeypatch.setenv("http_proxy", proxy.url)
        monkeypatch.setenv("ALL_PROXY", proxy.url)
        assert session.get(answers.url, timeout=30).text == "ok"
        assert proxy.accepted == 0
        assert b"authorization" not in answers.received[0].lower()


def test_nothing_is_tried_again(session):
    def hang_up(server: Server, connection: socket.socket) -> None:
        server.read_request(connection)

    with server(hang_up) as rude, pytest.raises(requests.ConnectionError):
        session.post(rude.url, data=b"content", timeout=30)
    assert rude.accepted == len(rude.received) == 1


def test_no_cookies_are_kept(session):
    cookie = b"HTTP/1.1 200 OK\r\nSet-Cookie: a=b\r\nContent-Length: 0\r\n\r\n"
    with server(answering(cookie)) as answers:
        session.get(answers.url, timeout=30)
        session.get(answers.url, timeout=30)
        assert b"cookie" not in answers.received[1].lower()


@pytest.mark.parametrize("answer", [b"SSH-2.0-OpenSSH_9.2\r\n", b"\0" * 100, b"\r\n" * 10])
def test_what_is_no_http_is_no_connection(session, answer):
    def other(server: Server, connection: socket.socket) -> None:
        server.read_request(connection)
        connection.sendall(answer)

    with server(other) as strange, pytest.raises(requests.ConnectionError):
        session.get(strange.url, timeout=30)


def test_tls_ends_in_time_as_well(session):
    """A server that accepts and says nothing of TLS: the handshake is part of connecting."""
    with server(silent) as deaf, takes(0.3), pytest.raises(requests.Timeout):
        session.get(deaf.url.replace("http:", "https:"), timeout=(0.4, 5))


def test_tls_connections_are_used_again(session, certificate):
    with server(with_tls(answering(OK), certificate)) as answers:
        url = answers.url.replace("http:", "https:")
        with pytest.raises(requests.exceptions.SSLError):
            session.get(url, timeout=30)  # Nobody vouches for the certificate.
        for _ in range(3):
            assert session.post(url, data=bytes(10**6), timeout=30, verify=certificate[0]).ok
        assert answers.accepted == 2


@pytest.mark.parametrize("serve", [slow_headers, slow_body, silent])
def test_the_timeout_is_a_total_with_tls(session, certificate, serve):
    with (
        server(with_tls(serve, certificate)) as slow,
        takes(0.4),
        pytest.raises(requests.Timeout),
    ):
        url = slow.url.replace("http:", "https:")
        session.post(url, data=bytes(10**7), timeout=0.5, verify=certificate[0])


def test_many_threads_each_with_a_session():
    """The deadlines of one thread are nothing to another."""
    outcomes: list[str] = []

    def call(url: str, timeout: float) -> None:
        with Session() as session:
            try:
                outcomes.append(session.get(url, timeout=timeout).text)
            except requests.Timeout:
                outcomes.append("timeout")

    with server(silent) as deaf, server(answering(OK)) as answers:
        threads = [
            threading.Thread(target=call, args=(url, timeout))
            for url, timeout in [(deaf.url, 0.3), (answers.url, 60)] * 8
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert sorted(outcomes) == ["ok"] * 8 + ["timeout"] * 8
