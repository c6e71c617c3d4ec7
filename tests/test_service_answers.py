"""What an `HttpAnalyzer` makes of the answers of its service: statuses, words, and the reasons."""

import json
import time
from pathlib import Path
from typing import Any

import pytest
import structlog
from marshmallow import INCLUDE, Schema, fields

from clustr.analysis.http_session import Session
from clustr.domain.secrets import Secret
from clustr.plugins import ConfigError, Context, Fail, HttpAnalyzer, HttpConfig, RetryLater, said_in
from clustr.testing import HttpStandIn

URL = "http://captioner:8001"


class Answer(Schema):
    caption = fields.String(required=True)


class Captioner(HttpAnalyzer):
    name = "captioner"
    service = "captioner"
    path = "/caption"
    result_schema = Answer


def captioner(url: str = URL) -> Captioner:
    return Captioner(HttpConfig().load({"service_url": url}))


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", ""),
        (b"CUDA out of memory", "CUDA out of memory"),
        (b'{"detail": "The image cannot be read."}', "The image cannot be read."),
        (b'{"detail": [{"loc": ["body", "image"], "msg": "Field required"}]}', "Field required"),
        (b'{"error": {"message": "no such model", "type": "x"}}', "no such model"),
        (b'{"error": "model \\"llava\\" not found"}', 'model "llava" not found'),
        (b'{"message": "busy", "code": 7}', "busy"),
        (b'"a text"', "a text"),
        (b'{"code": 7}', ""),
        (b"[" * 60_000, "[" * 299 + "…"),
        (b"<html><h1>502 Bad Gateway</h1>\n<hr>nginx</html>", "502 Bad Gateway nginx"),
        (b"two\r\nlines\x00\x1b[31m \xe2\x80\xae\xff", "two lines [31m \N{REPLACEMENT CHARACTER}"),
        (b"x" * 300, "x" * 300),
        (b"x" * 301, "x" * 299 + "…"),
    ],
)
def test_what_a_service_says_is_one_line(body, said):
    assert said_in(body) == said


def test_secrets_are_cut_out_of_what_it_says():
    Secret("sk-planted-1234567890")
    body = b"x" * 280 + b' {"key": "sk-planted-1234567890"}'
    assert "planted" not in said_in(body)
    assert said_in(b"Incorrect key: sk-planted-1234567890.") == "Incorrect key: ***."


@pytest.mark.parametrize(
    ("status", "outcome"),
    [
        *((status, RetryLater) for status in (408, 425, 429, 500, 502, 503, 504, 599)),
        *((status, ConfigError) for status in (301, 302, 307, 308, 401, 403, 404, 405, 407)),
        *((status, Fail) for status in (202, 204, 400, 413, 415, 422)),
    ],
)
def test_what_a_status_means(status, outcome):
    meaning = captioner().check_answer(status, b'{"detail": "It is so"}', {})
    assert type(meaning) is outcome
    assert meaning.reason == f"The captioner at {URL} answered with status {status}: It is so."


def test_an_answer_is_just_an_answer():
    assert captioner().check_answer(200, b"anything", {}) is None


@pytest.mark.parametrize(
    "body, end", [(b"", "500."), (b"Why?", "500: Why?"), (b"x" * 400, f"500: {'x' * 299}…")]
)
def test_a_refusal_is_a_sentence(body, end):
    assert captioner().refusal(500, body).endswith(f"status {end}")


def test_a_reason_names_the_address_without_credentials():
    analyzer = captioner("http://me:s3cret@captioner:8001/deep")
    assert analyzer.described == "The captioner at http://captioner:8001/deep"


@pytest.mark.parametrize(
    ("environment", "setting"),
    [
        ({}, "BLIP_SERVICE_URL"),
        ({"BLIP_SERVICE_URL": URL, "BLIP_BASE_URL": "http://no"}, "BLIP_SERVICE_URL"),
        ({"BLIP_BASE_URL": URL, "CLUSTR_PLUGIN__BLIP__SERVICE_URL": "http://no"}, "BLIP_BASE_URL"),
        ({"CLUSTR_PLUGIN__BLIP__SERVICE_URL": URL}, "CLUSTR_PLUGIN__BLIP__SERVICE_URL"),
    ],
)
def test_a_reason_names_the_setting_that_has_the_address(load, environment, setting):
    [analyzer] = load(enabled=("blip",), environment=environment).analyzers.values()
    url = URL if environment else "http://localhost:8001"
    assert analyzer.described == f"The captioner at {url} ({setting})"


@pytest.fixture
def context(tmp_path: Path, clustr_http: HttpStandIn):
    """A context for calls to the stand-in."""
    config = HttpConfig().load({"service_url": clustr_http.url, "timeout": 5})
    with Session() as http:
        log = structlog.stdlib.get_logger()
        yield Context(config, {}, log, http, time.monotonic() + 30, tmp_path)


class Picky(Captioner):
    """Its service may refuse fields one by one."""

    health_path = "/v1/models"

    def headers(self, context: Context) -> dict[str, str]:
        return {"Authorization": "Bearer of-the-test"}

    def check_answer(self, status: int, body: bytes, request: Any) -> Any:
        if status == 400 and request["json"]:
            return {"json": request["json"][1:]}
        return super().check_answer(status, body, request)


def test_a_request_can_be_changed_after_an_answer_and_not_without_end(clustr_http, context):
    analyzer = Picky(context.config)
    clustr_http.answer({"detail": "Unknown field"}, 400)
    with pytest.raises(Fail, match="status 400: Unknown field"):
        analyzer.ask({"json": [1, 2]}, context)
    assert [received.body for received in clustr_http.received] == [b"[1, 2]", b"[2]", b"[]"]
    with pytest.raises(Fail, match="status 400: Unknown field"):
        analyzer.ask({"json": [1, 2, 3, 4]}, context)
    assert len(clustr_http.received) == 6


def test_headers_are_sent_with_every_request(clustr_http, context):
    analyzer = Picky(context.config)
    clustr_http.answer({"status": "healthy"})
    analyzer.ask({"json": [], "headers": {"X-More": "yes"}}, context)
    assert analyzer.health(context).healthy
    assert analyzer.is_there(context)
    assert [received.path for received in clustr_http.received] == [
        "/caption",
        "/v1/models",
        "/v1/models",
    ]
    for received in clustr_http.received:
        assert received.headers["Authorization"] == "Bearer of-the-test"
    assert clustr_http.received[0].headers["X-More"] == "yes"


def test_health_says_what_the_service_says(clustr_http, context):
    clustr_http.answer({"detail": "The model loads"}, 503)
    health = captioner(clustr_http.url).health(context)
    said = f"The captioner at {clustr_http.url} answered with status 503: The model loads."
    assert (health.healthy, health.detail) == (False, said)
    clustr_http.go_away()
    health = captioner(clustr_http.url).health(context)
    assert health.detail == f"The captioner at {clustr_http.url} cannot be reached."


def test_of_a_large_refusal_no_more_is_read_than_is_said(clustr_http, context):
    clustr_http.answer(b"x" * 10_000_000, 500)
    with pytest.raises(RetryLater, match=r"status 500: x{299}…$"):
        captioner(clustr_http.url).ask({"data": b""}, context)


class Thing(Schema):
    label = fields.String(required=True)
    parts = fields.List(fields.Nested(lambda: Thing()))


class Strict(Schema):
    kept = fields.Integer()


class Open(Schema):
    class Meta:
        unknown = INCLUDE


class Things(Schema):
    things = fields.List(fields.Nested(Thing), required=True)
    many = fields.Nested(Strict, many=True)
    by_name = fields.Dict(fields.String(), fields.Nested(Strict), data_key="byName")
    open = fields.Nested(Open)


class Detector(Captioner):
    """Its answers have objects inside."""

    service = "detector"
    answer_schema = Things


def test_what_else_an_answer_has_is_ignored_at_every_depth():
    part = {"label": "ear", "box": [0, 1]}
    answer = {
        "took": 3,
        "things": [{"label": "dog", "box": [0, 1], "parts": [part]}],
        "many": [{"kept": 1, "more": 2}],
        "byName": {"a": {"kept": 3, "more": 4}},
        "open": {"anything": 5},
    }
    detector = Detector(HttpConfig().load({"service_url": URL}))
    assert detector.understand(json.dumps(answer).encode()) == {
        "things": [{"label": "dog", "parts": [{"label": "ear"}]}],
        "many": [{"kept": 1}],
        "by_name": {"a": {"kept": 3}},
        "open": {"anything": 5},
    }
    for wrong, reason in (
        ({"things": [{"box": []}]}, r"things\.0\.label: Missing data"),
        ({"things": [7]}, r"things\.0"),
        ({"things": {}, "byName": 3, "many": [[]]}, r"things: Not a valid list"),
    ):
        with pytest.raises(Fail, match=rf"^The detector's answer has another shape: .*{reason}"):
            detector.understand(json.dumps(wrong).encode())
