"""What goes wrong is always said in the same form, and never says more than it should."""

import io
import re
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

import photographs
import pytest
import requests
from calling import get, get_raw, part, upload

from clustr.api.http.errors import ERROR_TABLE
from clustr.api.http.problem_schema import ProblemSchema
from clustr.domain import errors

PROBLEM = "application/problem+json"
# Words that would only be there if the inside of the service were shown.
INSIDE = re.compile(
    r"Traceback|File \"|\.py\b|site-packages|mongodb://|redis://|0x[0-9a-f]{6}|/usr/"
)


def subclasses(of: type) -> set[type]:
    return {each for one in of.__subclasses__() for each in {one, *subclasses(one)}}


def check(answer: requests.Response, status: int) -> dict:
    """The problem document, which must be whole and show nothing of the inside."""
    assert answer.status_code == status, answer.text
    assert answer.headers["Content-Type"] == PROBLEM
    document = answer.json()
    ProblemSchema().load(document)
    assert document["status"] == status
    assert document["instance"] == urlsplit(answer.url).path
    assert document["request_id"] == answer.headers["X-Request-ID"]
    assert document["title"]
    assert document["detail"]
    assert not INSIDE.search(answer.text)
    return document


def test_every_error_has_a_row():
    not_answered = {errors.RefusedFile, errors.StartUpError, errors.InvalidSettings}
    assert set(ERROR_TABLE) == subclasses(errors.ClustrError) - not_answered


def test_rows_have_statuses_that_say_who_can_help():
    for error, row in ERROR_TABLE.items():
        assert 400 <= row.status < 500 or row.status in (503, 507), error
        assert re.fullmatch(r"[a-z]+(_[a-z]+)*", row.name)
        assert row.title
    names = [row.name for row in set(ERROR_TABLE.values())]  # A client need not tell some apart.
    assert len(names) == len(set(names))


def test_codes_of_refused_files_are_those_of_the_contract():
    found = {each.code: ERROR_TABLE[each].status for each in subclasses(errors.RefusedFile)}
    assert found == {
        "unsupported_type": 415,
        "too_large": 413,
        "too_many_pixels": 413,
        "undecodable": 422,
        "empty": 422,
        "no_files": 422,
    }
    assert all(ERROR_TABLE[each].name == each.code for each in subclasses(errors.RefusedFile))


@pytest.mark.parametrize(
    "path",
    [
        "/nothing",
        "/api",
        "/api/uploads/0123456789abcdef01234567/nothing",
        "/docs/assets/nothing.js",
        "/%00",
        "/%F0%9F%90%88",
    ],
)
def test_404_where_there_is_nothing(service, path):
    with get_raw(service, path) as answer:
        assert answer.status == 404
        assert answer.headers["Content-Type"] == PROBLEM
    document = get(service, path).json()
    assert document["type"] == "urn:clustr:problem:not_found"
    assert document["title"] == "Not found"


def test_404_of_what_is_not_there_is_of_the_same_kind(service):
    document = check(get(service, "/api/plugins/nothing"), 404)
    assert document["type"] == "urn:clustr:problem:not_found"
    assert document["title"] == "Not found"
    assert "nothing" in document["detail"]
    assert "database" in check(get(service, "/api/health/nothing"), 404)["detail"]


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("DELETE", "/api/upload", {"POST", "OPTIONS"}),
        ("GET", "/api/upload", {"POST", "OPTIONS"}),
        ("POST", "/api/uploads", {"GET", "HEAD", "OPTIONS"}),
        ("PUT", "/uploads/0123456789abcdef01234567.png", {"GET", "HEAD", "OPTIONS"}),
        ("TRACE", "/", {"GET", "HEAD", "OPTIONS"}),
        ("POST", "/openapi.json", {"GET", "HEAD", "OPTIONS"}),
        ("POST", "/docs", {"GET", "HEAD", "OPTIONS"}),
    ],
)
def test_405_says_what_is_allowed(service, method, path, allowed):
    answer = requests.request(method, service.url + path, timeout=60)
    document = check(answer, 405)
    assert document["type"] == "urn:clustr:problem:method_not_allowed"
    assert set(answer.headers["Allow"].split(", ")) == allowed
    assert (
        document["detail"]
        == f"{method} is not allowed here; allowed are {', '.join(sorted(allowed))}."
    )


def test_413_where_no_files_are_expected(service):
    """What would be ignored is not read either."""
    address = urlsplit(service.url)
    with socket.create_connection((address.hostname, address.port), 10) as connection:
        connection.sendall(
            b"POST /api/upload HTTP/1.1\r\nHost: localhost\r\n"
            b"Content-Type: application/x-www-form-urlencoded\r\n"
            b"Content-Length: 99999999999\r\n\r\n"
        )
        head = connection.recv(65536)
    assert head.startswith(b"HTTP/1.1 413 ")
    assert b"application/problem+json" in head


def test_input_that_is_wrong(service):
    document = check(get(service, "/api/uploads?limit=many&colour=red"), 422)
    assert document["type"] == "urn:clustr:problem:invalid_input"
    assert document["errors"].keys() == {"limit", "colour"}


@pytest.mark.parametrize(
    "content",
    [
        photographs.text(),
        photographs.truncated(photographs.photograph("png"), 0.5),
        photographs.truncated(photographs.photograph("tif"), 0.9),
        photographs.truncated(photographs.photograph("webp"), 0.3),
        photographs.png_bomb(),
        b"\x89PNG\r\n\x1a\n" + bytes(100),
    ],
    ids=["text", "png", "tif", "webp", "bomb", "png header"],
)
def test_G10_why_a_file_is_refused_shows_nothing_of_the_inside(service, content):
    answer = upload(service, part(content))
    assert 400 <= answer.status_code < 500
    assert not INSIDE.search(answer.text)
    assert str(service.data) not in answer.text
    assert ".incoming" not in answer.text


def test_G10_a_fault_is_told_to_the_log_alone(app_with, capfd):
    app = app_with(LOG_FORMAT="json")

    @app.get("/fault")
    def fail() -> str:
        raise RuntimeError("the password is swordfish")

    answer = app.test_client().get("/fault", headers={"X-Request-ID": "find-me"})
    assert answer.status_code == 500
    assert answer.headers["Content-Type"] == PROBLEM
    assert answer.headers["X-Request-ID"] == "find-me"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    document = answer.json
    ProblemSchema().load(document)
    assert document["type"] == "urn:clustr:problem:fault"
    assert document["request_id"] == "find-me"
    assert not re.search("swordfish|RuntimeError|fail", answer.text)
    assert not INSIDE.search(answer.text)
    logged = capfd.readouterr().err
    assert "swordfish" in logged
    assert "Traceback" in logged
    assert "find-me" in logged


def ask_mongodb_for_half_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    """For apps whose MongoDB is away: they ask it several times, one after the other."""
    monkeypatch.setattr("clustr.components.WEB_TIMEOUT_SECONDS", 0.5)


@pytest.fixture
def closed_port() -> Iterator[int]:
    """A port at which nobody listens, and nobody else can."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]


def test_without_its_database_the_service_says_so(app_with, closed_port, monkeypatch):
    """Nothing listens at the address; what needs no database is answered all the same."""
    app_with()  # While the database is there, the folder of uploads is made.
    app_with()  # The first start asks it whether the store is new.
    ask_mongodb_for_half_a_second(monkeypatch)
    client = app_with(MONGODB_URL=f"mongodb://127.0.0.1:{closed_port}").test_client()
    answer = client.get("/api/uploads")
    assert answer.status_code == 503
    assert answer.json["type"] == "urn:clustr:problem:database_unavailable"
    assert answer.headers["Retry-After"] == "5"
    assert not INSIDE.search(answer.text)
    assert str(closed_port) not in answer.text
    online = client.get("/")
    assert online.status_code == 200
    assert online.json["database"] == {"status": "disconnected", "version": None}


BROKEN_PLUGIN = "import nothing_of_this_name\n"
HOPELESS_PLUGIN = """
from marshmallow import Schema
from clustr.plugins import Analyzer, hookimpl

class It(Analyzer):
    name = "hopeless"
    result_schema = Schema
    summary = "Nothing"

    def health(self, context):
        raise OSError("cannot open /usr/lib/nothing of mongodb://user:swordfish@10.0.0.1/")

@hookimpl
def clustr_register_analyzers(config):
    return [It()]
"""


def check_inside(answers: list, *secrets: object) -> set[int]:
    """The statuses of answers, none of which may show the inside."""
    for answer in answers:
        where = (answer.request.path, answer.text)
        assert not INSIDE.search(answer.text), where
        for secret in ("swordfish", "10.0.0.1", *map(str, secrets)):
            assert secret not in answer.text, where
        if answer.mimetype == PROBLEM:
            ProblemSchema().load(answer.json)
    return {answer.status_code for answer in answers}


def send(client, number: int):
    content = io.BytesIO(photographs.unique("png", number))
    return client.post("/api/upload", data={"files": (content, "a.png")})


@pytest.mark.parametrize("setting", ["MONGODB_URL", "REDIS_URL"])
def test_G10_a_server_that_is_away_is_not_named(
    app_with, closed_port, tmp_path, setting, monkeypatch
):
    app_with()  # While the database is there, the folder of uploads is made.
    if setting == "MONGODB_URL":
        ask_mongodb_for_half_a_second(monkeypatch)
    scheme = setting.partition("_")[0].lower()
    client = app_with(**{setting: f"{scheme}://127.0.0.1:{closed_port}"}).test_client()
    unknown = "/api/uploads/0123456789abcdef01234567"
    with ThreadPoolExecutor(3) as threads:  # Each waits for what is away for as long as it may.
        asked = [threads.submit(client.get, path) for path in ("/api/health", unknown)]
        asked.append(threads.submit(send, client, 92_001))
        answers = [each.result() for each in asked]
    found = check_inside(answers, closed_port, tmp_path)
    assert found == ({200, 503} if scheme == "mongodb" else {200, 201, 404})


def test_G10_a_store_that_is_away_is_not_named(app_with, tmp_path):
    client = app_with().test_client()
    [stored] = send(client, 92_002).json["data"]
    (tmp_path / "uploads").rename(tmp_path / "elsewhere")
    answers = [
        client.get("/api/health"),
        client.get("/api/health/ready"),
        client.get(urlsplit(stored["preview_url"]).path),
        send(client, 92_003),
    ]
    assert check_inside(answers, tmp_path) >= {200, 503, 507}


def test_G10_what_is_wrong_with_plugins_names_no_place(app_with, tmp_path):
    folder = tmp_path / "plugins"
    folder.mkdir()
    (folder / "broken.py").write_text(BROKEN_PLUGIN)
    (folder / "hopeless.py").write_text(HOPELESS_PLUGIN)
    client = app_with().test_client()
    answers = [
        client.get("/api/health"),
        client.get("/api/health/hopeless"),
        client.get("/api/plugins"),
        client.get("/api/plugins/broken"),
    ]
    assert check_inside(answers, tmp_path) == {200}
    assert answers[1].json["status"] == "unhealthy"
    assert answers[3].json["state"] == "failed"
