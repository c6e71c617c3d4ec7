"""What comes from outside and is odd: JSON beyond the limits, chunks that are none, line breaks."""

import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import requests
from flask import Flask
from marshmallow import EXCLUDE, Schema, fields
from running import Up

from clustr.api.http.errors import messages_by_field, problem_json
from clustr.api.http.json_provider import OrjsonProvider
from clustr.domain import json_input
from clustr.domain.errors import StartUpError
from clustr.plugin_manager.configuration import read_tables
from clustr.plugins import Fail, HttpAnalyzer
from clustr.settings import read_settings

ID = "0" * 24
ENDPOINTS = [
    ("PATCH", f"/api/uploads/{ID}"),
    ("POST", "/api/uploads/bulk"),
    ("POST", "/api/uploads/exists"),
    ("POST", "/api/analyses"),
]
DEEP = b"[" * 1000 + b"]" * 1000
BODIES = {
    "deep": (DEEP, "at most 50 levels"),
    "unclosed": (b"[" * 900_000, "at most 50 levels"),
    "deep in a member": (b'{"filter":' * 60 + b"1" + b"}" * 60, "at most 50 levels"),
    "digits": (b'{"limit":' + b"1" * 4400 + b"}", "beyond the largest"),
    "key": (b'{"\\ud800":1}', "half a character"),
    "value": (b'{"caption":"a\\udc00","analyzer":"\\ud800"}', "half a character"),
    "filter": (b'{"action":"delete","filter":{"tag":["\\ud800"]}}', "half a character"),
    "raw half": (b'{"caption":"\xed\xa0\x80"}', "half a character"),
    "NaN": (b'{"limit":NaN}', "no JSON; what is wrong is at line 1, column 10"),
}


def answer_to_json(service: Up, method: str, path: str, body: bytes) -> requests.Response:
    headers = {"Content-Type": "application/json"}
    return requests.request(method, service.url + path, data=body, headers=headers, timeout=60)


@pytest.mark.parametrize(("method", "path"), ENDPOINTS)
def test_json_beyond_a_limit_is_refused_with_the_limit(service: Up, method: str, path: str) -> None:
    for name, (body, said) in BODIES.items():
        answer = answer_to_json(service, method, path, body)
        assert answer.status_code == 422, (name, answer.text[:500])
        assert said in answer.json()["errors"]["body"][0], name


@pytest.mark.parametrize(("method", "path"), ENDPOINTS)
def test_many_and_long_names_are_answered_soon_and_briefly(service: Up, method, path) -> None:
    many = json.dumps({f"tga{number}": 1 for number in range(50_000)}).encode()
    long = json.dumps({"x" * 900_000: 1}).encode()
    for body in (many, long):
        answer = answer_to_json(service, method, path, body)
        assert answer.status_code == 422
        assert len(answer.content) < 50_000


def test_odd_texts_in_a_query_or_a_path_are_no_fault(service: Up) -> None:
    odd = ("%ED%A0%80", "%FF", "%00", "%0A", "%F0%9F%90%88", "1" * 3000, "%5B" * 900)
    names = ("tag", "q", "content_type", "analyzer", "status", "limit", "page", "min_width", "sort",
             "cursor", "fields", "uploaded_after", "duplicate", "analyses.x.y", "no")  # fmt: skip
    with requests.Session() as session:
        for value in odd:
            queries = [f"/api/uploads?{name}={value}" for name in names]
            paths = [f"/api/uploads?{value}=1", f"/api/uploads/{value}", f"/api/plugins/{value}",
                     f"/api/uploads/{ID}/analyses/{value}", f"/api/jobs/{value}",
                     f"/uploads/{value}", f"/api/health/{value}", f"/api/tags?{value}",
                     f"/api/suggest?q={value}", f"/api/suggest?q=tag:{value}"]  # fmt: skip
            for path in [*queries, *paths]:
                status = session.get(service.url + path, timeout=60).status_code
                assert status < 500, (path, status)


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "/api/uploads/bulk", {"action": "delete", "ids": [f"{ID}\n"]}),
        ("POST", "/api/uploads/exists", {"sha256": ["a" * 64 + "\n"]}),
        ("GET", "/api/uploads?analyzer=blip%0A&analysis_status=failed", None),
        ("GET", f"/api/uploads/{ID}%0A", None),
        ("GET", f"/uploads/{ID}.jpg%0A", None),
        ("GET", "/api/trash?cursor=" + ID + "-1%0A", None),
    ],
)
def test_a_line_break_at_the_end_belongs_to_no_name(service: Up, method, path, body) -> None:
    answer = requests.request(method, service.url + path, json=body, timeout=60)
    assert answer.status_code in (404, 422), answer.text


def test_no_pattern_of_ours_lets_a_line_break_follow() -> None:
    """Those of fields are checked in `Pattern`; any other says itself where a text ends."""
    root = Path(json_input.__file__).parent.parent
    for source in [*(root / "clustr").rglob("*.py"), *(root / "plugins").glob("*.py")]:
        text = source.read_text()
        for pattern in re.findall(r"validate\.Regexp\(\s*r?f?\"(.*?)\"[,)]", text, re.DOTALL):
            assert pattern.endswith(r"\Z"), (source, pattern)


def raw_answer(service: Up, request: bytes) -> bytes:
    address = urlsplit(service.url)
    with socket.create_connection((address.hostname, address.port), 20) as connection:
        connection.sendall(request)
        return b"".join(iter(lambda: connection.recv(65536), b""))


@pytest.fixture
def lines_logged(service: Up) -> Iterator[list[str]]:
    before = len(service.output())
    lines: list[str] = []
    yield lines
    assert "Traceback" not in service.output()[before:]


@pytest.mark.parametrize("content_type", ["application/json", "multipart/form-data; boundary=x"])
@pytest.mark.parametrize(
    "chunks",
    [
        b"0x2\r\n{}\r\n0\r\n\r\n",
        b"+2\r\n{}\r\n0\r\n\r\n",
        b"2;a\nb\r\n{}\r\n0\r\n\r\n",
        b"2\r\n{}XX0\r\n\r\n",
        b"2\r\n{}\r\n0\r\nno trailer\r\n\r\n",
    ],
)
def test_a_malformed_chunk_is_the_clients_mistake(
    service: Up, lines_logged: list[str], chunks: bytes, content_type: str
) -> None:
    path = "/api/analyses" if content_type == "application/json" else "/api/upload"
    head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: {content_type}\r\n"
    framing = "Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
    answer = raw_answer(service, (head + framing).encode() + chunks)
    assert answer.startswith(b"HTTP/1.1 400 "), answer
    assert b"urn:clustr:problem:malformed_body" in answer


def test_a_large_body_in_chunks_is_too_large(service: Up) -> None:
    def spaces() -> Iterator[bytes]:
        for _ in range(3):
            yield b" " * 500_000

    headers = {"Content-Type": "application/json"}
    url = f"{service.url}/api/analyses"
    answer = requests.post(url, data=spaces(), headers=headers, timeout=60)
    assert answer.status_code == 413
    assert "1000000 bytes" in answer.json()["detail"]


def test_whatever_an_error_has_to_say_can_be_written() -> None:
    app = Flask("test")
    app.json = OrjsonProvider(app)
    with app.app_context():
        body = {"detail": "\ud800", "errors": {"\udc00": ["\ud800", object(), 10**5000, {1: "x"}]}}
        document = json.loads(problem_json(body))
    assert document["detail"] == "?"
    assert messages_by_field({"json": {str(n): ["no"] for n in range(1000)}}).keys() == {
        str(n) for n in range(100)
    }


class Answer(Schema):
    """What a service answers."""

    caption = fields.String(required=True)
    more = fields.Raw()

    class Meta:
        unknown = EXCLUDE


class Captioner(HttpAnalyzer):
    """Reads answers."""

    name = "captioner"
    service = "captioner"
    result_schema = Answer


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("deep", "nested too deeply; at most 50 levels"),
        ("unclosed", "nested too deeply; at most 50 levels"),
        ("deep in a member", "nested too deeply; at most 50 levels"),
        ("digits", "more than 4300 digits"),
    ],
)
def test_answers_of_services_have_limits(name: str, said: str) -> None:
    with pytest.raises(Fail, match=said):
        Captioner({"service_url": "http://127.0.0.1:1", "timeout": 1}).understand(BODIES[name][0])


def test_settings_have_limits_too(tmp_path: Path) -> None:
    file = tmp_path / "plugins.toml"
    for content, said in (
        ("a = " + "[" * 5000 + "]" * 5000, "nested too deeply"),
        ("a = " + "1" * 4400, "digits"),
        ("a = 1\n" * 200_000, "at most 1000000 are allowed"),
    ):
        file.write_text(content)
        with pytest.raises(StartUpError, match=said):
            read_tables(file)
    with pytest.raises(StartUpError, match="BASE_URL: expected text in UTF-8"):
        read_settings({"BASE_URL": "http://\udcff"})


def test_a_start_with_bytes_that_are_no_text_says_so(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "clustr", "fsck"]
    environment = {"PATH": os.environ["PATH"], b"MONGODB_DATABASE": b"\xff"}
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, timeout=60)
    assert done.stderr.decode() == "clustr: MONGODB_DATABASE: expected text in UTF-8\n"


@pytest.mark.parametrize("depth", [0, 1, 50, 51, 900])
def test_depth_is_counted_exactly(depth: int) -> None:
    text = "[" * depth + "1" + "]" * depth
    if depth <= 50:
        json_input.loads(text)
    else:
        with pytest.raises(json_input.InvalidJSON, match="at most 50 levels"):
            json_input.loads(text)
