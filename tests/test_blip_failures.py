"""The analyzer `blip` against a captioner that does badly, or is not there."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import photographs
import pytest
from analyzer_images import analyzer_image
from blip_caller import Caller
from blip_stand_in import MODES, BlipStandIn

from clustr.plugins import ConfigError, Fail, RetryLater


@contextmanager
def takes(least: float, most: float) -> Iterator[None]:
    began = time.monotonic()
    yield
    assert least <= time.monotonic() - began <= most


@pytest.fixture
def blip(caller: Caller) -> BlipStandIn:
    return caller.captioner


OUTCOMES = {
    "away": RetryLater,
    "too_many": RetryLater,
    "error": RetryLater,
    "slow": RetryLater,
    "hang": RetryLater,
    "garbage": Fail,
    "page": RetryLater,
    "wrong_shape": Fail,
    "huge": Fail,
    "gzip_bomb": Fail,
    "redirect": ConfigError,
}


def test_every_mode_is_tried():
    assert {"ok", *OUTCOMES} == set(MODES)


@pytest.mark.parametrize(("mode", "outcome"), OUTCOMES.items())
def test_D5_D6_the_outcome_of_what_goes_wrong(blip, caller, mode, outcome):
    blip.mode = mode
    caller.given["timeout"] = 1
    with takes(0, 1.5), pytest.raises(outcome) as raised:
        caller.analyze(photographs.photograph())
    assert raised.value.reason
    assert len(blip.requests) == 1
    blip.mode = "ok"
    assert caller.analyze(photographs.photograph())["caption"]


def test_D6_no_redirect_is_followed(blip, caller):
    blip.mode = "redirect"
    with pytest.raises(ConfigError, match="307"):
        caller.analyze(photographs.photograph())
    assert blip.elsewhere == 0


@pytest.mark.parametrize("mode", ["huge", "gzip_bomb"])
def test_D6_no_more_is_read_than_needed(blip, caller, mode):
    blip.mode = mode
    with pytest.raises(Fail, match="larger than 65536 bytes"):
        caller.analyze(photographs.photograph())
    blip.stop()
    assert blip.bytes_sent < 32 * 2**20  # what the system buffers between two sockets


@pytest.mark.parametrize("mode", ["away", "too_many"])
@pytest.mark.parametrize(
    ("header", "after"),
    [
        (None, None),
        ("7", 7.0),
        ("0", 0.0),
        ("Wed, 21 Oct 2026 07:28:00 GMT", None),
        ("-1", None),
        ("1.5", None),
        ("9" * 5000, None),
    ],
)
def test_retry_after(blip, caller, mode, header, after):
    blip.mode, blip.retry_after = mode, header
    with pytest.raises(RetryLater) as raised:
        caller.analyze(photographs.photograph())
    assert raised.value.after == after


def test_away_and_back_on_the_same_port(blip, caller):
    caller.analyze(photographs.photograph())
    blip.stop()
    for _ in range(2):
        with takes(0, 1), pytest.raises(RetryLater, match="cannot be reached"):
            caller.analyze(photographs.photograph())
        assert not caller.health().healthy
    blip.start()
    assert caller.analyze(photographs.photograph())["caption"]
    assert caller.health().healthy


def test_a_name_that_does_not_exist(caller):
    caller.given["service_url"] = "http://captioner.invalid:8001"
    with pytest.raises(RetryLater):
        caller.analyze(photographs.photograph())


def test_an_address_that_cannot_be_called(caller):
    caller.given["service_url"] = "http://127.0.0.1:123456"
    with pytest.raises(ConfigError):
        caller.analyze(photographs.photograph())
    assert not caller.health().healthy


@pytest.mark.parametrize("status", [401, 403, 404, 405, 407])
def test_a_refusal_of_access_or_a_wrong_address_is_for_the_operator(blip, caller, status):
    blip.answer_status = status
    with pytest.raises(ConfigError, match=str(status)):
        caller.analyze(photographs.photograph())


@pytest.mark.parametrize("status", ["400", "413", "422"])
def test_other_refusals_are_final(blip, caller, status):
    blip.answer_status = int(status)
    with pytest.raises(Fail, match=status):
        caller.analyze(photographs.photograph())


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"\xff\xfe\xfd",
        b'{"caption": "caf\xe9", "tags": []}',
        b"[" * 60_000,
        b'{"caption": "cut of',
        b"null",
        [],
        "a caption",
        {},
        {"caption": "no tags"},
        {"tags": ["no caption"]},
        {"caption": None, "tags": []},
        {"caption": ["a"], "tags": []},
        {"caption": "a", "tags": None},
        {"caption": "a", "tags": {"a": "b"}},
        {"caption": "a", "tags": ["b", 7]},
        {"caption": "a", "tags": [["b"]]},
        {"caption": "a" * 70_000, "tags": []},
    ],
)
def test_D6_answers_that_cannot_be_used(blip, caller, answer):
    blip.answer = answer
    with pytest.raises(Fail, match="answer"):
        caller.analyze(photographs.photograph())


@pytest.mark.parametrize(
    ("mode", "healthy", "detail"),
    [
        ("ok", True, None),
        ("too_many", True, None),
        ("away", False, "answered with status 503: The captioner is away."),
        ("error", False, "answered with status 500: Internal server error."),
        ("hang", False, "does not answer within 1.5 seconds."),
        ("slow", False, "does not answer within 1.5 seconds."),
    ],
)
def test_health(blip, caller, mode, healthy, detail):
    blip.mode = mode
    with takes(0, 1.9):
        health = caller.health()
    assert (health.service, health.healthy) == ("captioner", healthy)
    assert health.detail == (detail and f"The captioner at {blip.url} {detail}")
    assert not blip.requests


def test_the_reasons_can_be_read(caller):
    """They are shown to people, so each is a sentence."""
    failures: list[Callable[[], Any]] = [
        lambda: caller.analyzer().understand(b"x"),
        lambda: caller.analyzer().understand(b"{}"),
    ]
    for failure in failures:
        with pytest.raises(Fail) as raised:
            failure()
        assert raised.value.reason[0].isupper()
        assert raised.value.reason.endswith(".")


def test_a_call_ends_before_its_analysis(blip, caller):
    blip.mode = "hang"
    image = analyzer_image(caller.folder, photographs.photograph())
    context = replace(caller.context(), deadline=time.monotonic() + 1.5)
    with takes(0.3, 1.4), pytest.raises(RetryLater, match="in time"):
        caller.analyzer().analyze(image, context)
