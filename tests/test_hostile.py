"""Hostile clients: slow ones in numbers, and requests that are none."""

import http.client
import re
import shutil
import socket
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from urllib.parse import urljoin, urlsplit

import photographs
import pytest
import requests
from running import Up, wait_until
from slow_clients import BEGINNINGS, nginx, slow_sockets
from web_side import WebSide
from workshop import Workshop

from clustr.supervisor.servers import free_port

KINDS = ("headers", "bodies", "idle")
UPLOADS = 10


@pytest.fixture(scope="module")
def nginx_program() -> str:
    program = shutil.which("nginx", path="/usr/sbin:/usr/bin:/sbin:/bin")
    if program is None:
        pytest.skip("nginx is not installed")
    return program


@pytest.fixture(scope="module")
def proxied(web_with: Callable[..., WebSide]) -> WebSide:
    """A service that believes one proxy."""
    web = web_with(AUTH="off", PROXY_HOPS="1", PLUGINS_ENABLED="dimensions", PLUGINS_DISABLED="")
    web.workshop.worker()
    return web


@pytest.fixture(scope="module")
def behind_nginx(
    proxied: WebSide, tmp_path_factory: pytest.TempPathFactory, nginx_program: str
) -> Iterator[str]:
    with nginx(nginx_program, tmp_path_factory.mktemp("nginx"), proxied.url) as url:
        yield url


def upload_some(url: str) -> None:
    """Upload photographs, each on a connection of its own."""
    photo = photographs.photograph()
    for _ in range(UPLOADS):
        answer = requests.post(f"{url}/api/upload", files={"files": ("a.jpg", photo)}, timeout=60)
        assert answer.status_code == 201, answer.text


@pytest.mark.parametrize("kind", KINDS)
def test_B1_uploads_go_on_behind_the_front_beside_200_slow_sockets(
    behind_nginx: str, kind: str
) -> None:
    with slow_sockets(behind_nginx, kind, 200):
        upload_some(behind_nginx)


@pytest.mark.parametrize("kind", KINDS)
def test_B1_uploads_go_on_without_a_front_beside_64_slow_sockets(service: Up, kind: str) -> None:
    with slow_sockets(service.url, kind, 64):
        upload_some(service.url)


@pytest.mark.parametrize("kind", BEGINNINGS)
def test_B11_others_are_answered_without_a_front_beside_200_slow_sockets(
    service: Up, kind: str
) -> None:
    with slow_sockets(service.url, kind, 200):
        for _ in range(UPLOADS):
            assert requests.get(f"{service.url}/api/uploads", timeout=60).status_code == 200
        small = photographs.one_pixel()
        answer = requests.post(f"{service.url}/api/upload", files={"files": small}, timeout=60)
        assert answer.status_code == 201, answer.text


class Waiting(WebSide):
    """One process, in which a request waits for a place for so many seconds."""

    def __init__(self, workshop: Workshop, seconds: float):
        self.program = (
            "-c",
            "import runpy\n"
            "from clustr.supervisor import gunicorn_worker\n"
            f"gunicorn_worker.WAIT_SECONDS = {seconds}\n"
            "runpy.run_module('gunicorn', run_name='__main__', alter_sys=True)\n",
        )
        super().__init__(workshop)


def upload_of_megabytes(url: str) -> requests.Response:
    content = photographs.photograph() + bytes(5_000_000)
    return requests.post(f"{url}/api/upload", files={"files": ("a.jpg", content)}, timeout=300)


def test_B11_an_upload_for_which_there_is_no_place_is_told_to_try_again(workshop: Workshop) -> None:
    web = Waiting(workshop, 1)
    with slow_sockets(web.url, "bodies", 100):
        with ThreadPoolExecutor(2) as clients:  # Each waits for a place for as long as it may.
            upload = clients.submit(upload_of_megabytes, web.url)
            url = f"{web.url}/api/nowhere"
            nowhere = clients.submit(requests.post, url, bytes(5_000_000), timeout=60)
        answer = upload.result()
        assert answer.status_code == 503
        assert answer.json()["type"] == "urn:clustr:problem:too_busy"
        assert int(answer.headers["Retry-After"]) > 0
        # What needs no body is answered as it is, however much is sent with it.
        assert nowhere.result().status_code == 404
    wait_until(lambda: upload_of_megabytes(web.url).status_code == 201, 60, "a place")


def test_B11_an_upload_waits_for_a_place_and_holds_no_thread(workshop: Workshop) -> None:
    web = Waiting(workshop, 600)
    with ThreadPoolExecutor(40) as clients:
        with slow_sockets(web.url, "bodies", 90):
            uploads = [clients.submit(upload_of_megabytes, web.url) for _ in range(40)]
            for _ in range(5):
                assert requests.get(f"{web.url}/api/uploads", timeout=60).status_code == 200
            assert not any(upload.done() for upload in uploads)
        assert [upload.result().status_code for upload in uploads] == [201] * 40


@pytest.mark.parametrize("host", ["elsewhere.example", "images.example.com.elsewhere.example", ""])
def test_the_front_refuses_names_that_it_was_not_told(behind_nginx: str, host: str) -> None:
    answer = requests.get(f"{behind_nginx}/api/uploads", headers={"Host": host}, timeout=60)
    assert answer.status_code == (421 if host else 400)
    assert "X-Request-ID" not in answer.headers  # nothing of it came to the service


def test_the_front_limits_the_connections_of_one_client(
    service: Up, tmp_path: Path, nginx_program: str
) -> None:
    with nginx(nginx_program, tmp_path, service.url, connections=10) as url:
        with slow_sockets(url, "bodies", 10):
            wait_until(lambda: asked(url).status_code == 429, 60, "a refusal")
            refused = asked(url)
            assert refused.headers["Content-Type"] == "application/problem+json"
            assert refused.json()["status"] == 429
            assert refused.headers["Retry-After"] == "1"
        wait_until(lambda: asked(url).status_code == 200, 60, "an answer")


def asked(url: str) -> requests.Response:
    return requests.get(f"{url}/api/health/live", headers={"Connection": "close"}, timeout=60)


def test_G13_behind_the_front_urls_are_those_of_the_front(behind_nginx: str) -> None:
    photo = photographs.photograph()
    answer = requests.post(f"{behind_nginx}/api/upload", files={"files": photo}, timeout=60)
    (accepted,) = answer.json()["data"]
    assert accepted["preview_url"].startswith(f"{behind_nginx}/uploads/")  # with its port


def test_below_a_path_of_another_site_everything_is_found(
    proxied: WebSide, tmp_path: Path, nginx_program: str
) -> None:
    with nginx(nginx_program, tmp_path, proxied.url, below="/clustr") as url:
        photo = photographs.photograph()
        photos = [("files", (f"{number}.jpg", photo)) for number in range(3)]
        sent = requests.post(f"{url}/clustr/api/upload", files=photos, timeout=60)
        for one in sent.json()["data"]:
            assert one["preview_url"].startswith(f"{url}/clustr/uploads/")
            assert requests.get(one["preview_url"], timeout=60).content == photo
        page = requests.get(f"{url}/clustr/api/uploads/?limit=1", timeout=60)
        assert [each.status_code for each in page.history] == [308]
        [one] = page.json()["data"]
        assert requests.get(one["thumbnail_url"], timeout=60).status_code == 200
        following = requests.get(page.links["next"]["url"], timeout=60)
        assert following.json()["data"][0]["id"] != one["id"]
        order = {"ids": [one["id"]], "action": "tag", "tags": ["cat"]}
        made = requests.post(f"{url}/clustr/api/uploads/bulk", json=order, timeout=60)
        analyses = f"{url}/clustr/api/uploads/{one['id']}/analyses/dimensions"
        again = wait_until(lambda: requests.post(analyses, timeout=60), 60, "its end")
        for answer in (made, again):
            assert answer.status_code == 202, answer.text
            there = requests.get(urljoin(url, answer.headers["Location"]), timeout=60)
            assert there.status_code == 200
        document = requests.get(f"{url}/clustr/openapi.json", timeout=60).json()
        assert document["servers"] == [{"url": "/clustr"}]
        for name in ("docs", "redoc", "api/health/page"):
            shown = requests.get(f"{url}/clustr/{name}", timeout=60)
            assert shown.status_code == 200
            for found in re.findall(r'(?:src|href)="([^"#]+)"', shown.text):
                if not found.startswith("data:"):
                    there = requests.get(urljoin(shown.url, found), timeout=60)
                    assert there.status_code == 200, (name, found)


def test_what_the_front_says_itself_is_a_problem_document(
    tmp_path: Path, nginx_program: str
) -> None:
    nobody = f"http://127.0.0.1:{free_port()}"
    with nginx(nginx_program, tmp_path, nobody) as url:
        away = requests.get(f"{url}/api/uploads", timeout=60)
        headers = {"Content-Type": "image/jpeg", "Content-Length": str(2 * 1024**3)}
        request = requests.Request("POST", f"{url}/api/upload").prepare()
        request.headers.update(headers)
        large = requests.Session().send(request, timeout=60)
    for answer, status in ((away, 502), (large, 413)):
        assert answer.status_code == status
        assert answer.headers["Content-Type"] == "application/problem+json"
        assert answer.json()["status"] == status
        assert answer.json()["type"].startswith("urn:clustr:problem:")
        assert answer.json()["detail"]
    assert away.headers["Retry-After"] == "5"


SMUGGLED = b"GET /api/health/live HTTP/1.1\r\nHost: localhost\r\n\r\n"
RAW = {
    "two lengths": (
        b"POST / HTTP/1.1\r\nHost: localhost\r\n"
        b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nabcdef"
    ),
    "length and chunks": (
        b"POST /api/upload HTTP/1.1\r\nHost: localhost\r\nContent-Length: 6\r\n"
        b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + SMUGGLED
    ),
    "hidden chunks": (
        b"POST /api/upload HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4\r\n"
        b"Transfer-Encoding: xchunked\r\n\r\nabcd"
    ),
    "space before colon": b"GET / HTTP/1.1\r\nHost : x\r\n\r\n",
    "folded header": b"GET / HTTP/1.1\r\nHost: localhost\r\nA: b\r\n c\r\n\r\n",
    "negative length": b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: -5\r\n\r\n",
    "length that is none": b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1_0\r\n\r\n",
    "bad chunk size": (
        b"POST / HTTP/1.1\r\nHost: localhost\r\n"
        b"Transfer-Encoding: chunked\r\n\r\nzz\r\nabc\r\n0\r\n\r\n"
    ),
    "absurd method": b"\x00\xff\x01 / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "no version": b"GET /\r\n\r\n",
    "absurd version": b"GET / HTTP/9.9\r\nHost: localhost\r\n\r\n",
    "long line": b"GET /" + b"a" * 10_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "long header": b"GET / HTTP/1.1\r\nHost: localhost\r\nA: " + b"a" * 20_000 + b"\r\n\r\n",
    "many headers": b"GET / HTTP/1.1\r\nHost: localhost\r\n" + b"A: b\r\n" * 500 + b"\r\n",
    "control in header": b"GET / HTTP/1.1\r\nHost: localhost\r\nA: b\x00c\r\n\r\n",
    "TLS": bytes.fromhex("16030100bb010000b7030346465a"),
    "noise": bytes(range(256)) * 4,
}


def answers_to(url: str, sent: bytes) -> bytes:
    """All that a server sends on a connection until it closes it, or falls silent."""
    address = urlsplit(url)
    with socket.create_connection((address.hostname, address.port), timeout=3) as connection:
        connection.sendall(sent)
        connection.shutdown(socket.SHUT_WR)
        received = b""
        try:
            while part := connection.recv(65536):
                received += part
        except (ConnectionResetError, TimeoutError):
            pass  # it closed the connection in the middle, or waits for more: both are no answer
        return received


@pytest.mark.parametrize("name", RAW)
def test_B4_what_can_be_read_in_two_ways_is_refused(service: Up, name: str) -> None:
    statuses = re.findall(rb"HTTP/1\.[01] (\d{3})", answers_to(service.url, RAW[name]))
    # 501 is what RFC 9112 has for a transfer coding that is not known.
    assert all(status.startswith(b"4") or status == b"501" for status in statuses), statuses
    assert requests.get(f"{service.url}/api/health/live", timeout=60).status_code == 200


@pytest.mark.parametrize("method", ["TRACE", "PROPFIND", "BREW", "get", "A" * 15])
def test_B8_absurd_methods_are_refused(service: Up, method: str) -> None:
    status, _ = answer_to(service.url, method, "/api/uploads")
    assert 400 <= status < 500


@pytest.mark.parametrize(
    "path",
    [
        "/uploads/../../etc/passwd",
        "/uploads/%2e%2e%2f%2e%2e%2fetc%2fpasswd",
        "/uploads/%252e%252e/etc/passwd",
        "//etc/passwd",
        "/uploads/%00.jpg",
        "/api/uploads/%ff%fe",
        "/api/uploads/" + "a" * 2000,
        "/uploads/.clustr-store",
        "/uploads/.incoming",
    ],
)
def test_G5_absurd_paths_are_refused(service: Up, path: str) -> None:
    status, body = answer_to(service.url, "GET", path)
    assert 400 <= status < 500
    assert b"root:" not in body


def answer_to(url: str, method: str, path: str) -> tuple[int, bytes]:
    """Status and body of the answer to a request that is sent as it is."""
    address = urlsplit(url)
    connection = http.client.HTTPConnection(address.hostname, address.port, timeout=60)
    with closing(connection):
        connection.request(method, path)
        answer = connection.getresponse()
        return answer.status, answer.read()
