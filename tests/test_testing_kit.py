"""`clustr.testing` beyond one image: services that are slow or busy, batches, and applications."""

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import PIL.Image
import pytest
import requests
from marshmallow import INCLUDE, Schema
from plugin_sources import CONFIGURED, GOOD
from running import wait_until
from workshop import analyzer

from clustr.plugins import Analyzer, Fail, HttpAnalyzer, HttpConfig, NoResult, RetryLater, Skip
from clustr.testing import Answer, End, HttpStandIn, Received, run_batch, sample_image


class Anything(Schema):
    """A result of any shape."""

    class Meta:
        unknown = INCLUDE


class Asks(HttpAnalyzer):
    """Says what a service answers."""

    name = "asks"
    result_schema = Anything
    service = "oracle"


def ends_of(service: HttpStandIn, images: int, **config: Any) -> list[End]:
    """How the analyses of so many images end that are asked for at once."""
    given = HttpConfig().load(
        {"service_url": service.url, "timeout": 30, "concurrency": 8, **config}
    )
    return run_batch(Asks(given), [sample_image("jpeg")] * images, config=given)


# The stand-in for a service


def test_answers_in_sequence_of_which_the_last_one_stays(clustr_http: HttpStandIn) -> None:
    clustr_http.answer_in_sequence(
        Answer(status=429, headers={"Retry-After": "7"}), Answer({"a": 1}), Answer(b"plain")
    )
    answers = [requests.get(clustr_http.url, timeout=30) for _ in range(4)]
    assert [answer.status_code for answer in answers] == [429, 200, 200, 200]
    assert answers[0].headers["Retry-After"] == "7"
    assert [answer.content for answer in answers] == [b"", b'{"a": 1}', b"plain", b"plain"]
    with pytest.raises(ValueError, match="at least one"):
        clustr_http.answer_in_sequence()


def test_function_answers_by_the_request(clustr_http: HttpStandIn) -> None:
    def answer(request: Received) -> Any:
        if request.path == "/teapot":
            return Answer(status=418)
        return {"path": request.path, "missing": {}["no"] if request.path == "/bad" else None}

    clustr_http.answer_by(answer)
    answers = [
        requests.get(clustr_http.url + path, timeout=30) for path in ("/a", "/teapot", "/bad")
    ]
    assert answers[0].json() == {"path": "/a", "missing": None}
    assert [one.status_code for one in answers] == [200, 418, 500]
    assert answers[2].text == "KeyError: 'no'"


def test_times_of_requests_are_known_and_a_delayed_answer_delays_no_other(
    clustr_http: HttpStandIn,
) -> None:
    clustr_http.answer({"a": 1}, delay=0.2)
    before = time.monotonic()
    ends = ends_of(clustr_http, 8)
    assert [end.state for end in ends] == ["succeeded"] * 8
    times = [request.at for request in clustr_http.received]
    assert len(times) == 8
    assert before < min(times)
    assert time.monotonic() >= min(times) + 0.2


def test_service_that_goes_away_sends_what_was_delayed() -> None:
    with HttpStandIn() as service, ThreadPoolExecutor(1) as threads:
        service.answer({"a": 1}, delay=1000)
        answer = threads.submit(requests.get, service.url, timeout=60)
        wait_until(lambda: service.received, 60, "the request")
        service.go_away()
        assert answer.result().json() == {"a": 1}


def test_service_that_goes_away_answers_nothing_over_open_connections(
    clustr_http: HttpStandIn,
) -> None:
    with requests.Session() as session:
        assert session.get(clustr_http.url, timeout=30).status_code == 200
        clustr_http.go_away()
        with pytest.raises(requests.ConnectionError):
            session.get(clustr_http.url, timeout=30)
    assert len(clustr_http.received) == 1


def test_service_that_was_away_comes_back_at_the_same_address(clustr_http: HttpStandIn) -> None:
    clustr_http.answer({})
    clustr_http.come_back()  # It was not away.
    clustr_http.go_away()
    assert [end.state for end in ends_of(clustr_http, 1)] == ["deferred"]
    clustr_http.come_back()
    assert [end.state for end in ends_of(clustr_http, 1)] == ["succeeded"]
    assert len(clustr_http.received) == 1


# Batches


def test_slow_answer_holds_up_no_other_call(clustr_http: HttpStandIn) -> None:
    clustr_http.answer_in_sequence(Answer({}, delay=1000), Answer({}))
    ends = ends_of(clustr_http, 8, timeout=3)
    states = [end.state for end in ends]
    assert (states.count("deferred"), states.count("succeeded")) == (1, 7)


def test_calls_are_no_more_at_once_than_the_analyzer_says(clustr_http: HttpStandIn) -> None:
    clustr_http.answer({}, delay=0.1)
    ends = ends_of(clustr_http, 6, concurrency=2)
    assert [end.state for end in ends] == ["succeeded"] * 6
    times = sorted(request.at for request in clustr_http.received)
    for number in range(2, 6):  # The third is sent once the first or second was answered.
        assert times[number] - times[number - 2] >= 0.1


class Batches(Analyzer):
    """Looks at three images at a time; those that are black are bad."""

    name = "batches"
    result_schema = Anything
    batch_size = 3

    def analyze_batch(self, images, context):
        lightest = [image.open().convert("L").getextrema()[1] for image in images]
        return [{"of": len(images)} if light else Fail("too dark") for light in lightest]


def test_batch_is_given_as_a_worker_gives_it() -> None:
    pictures = [PIL.Image.new("L", (8, 8), light) for light in (1, 0, 1, 1)]
    ends = run_batch(Batches(), pictures)
    assert [end.result or end.error for end in ends] == [
        {"of": 3},
        "too dark",
        {"of": 3},
        {"of": 1},
    ]


class BatchesOfPngs(Batches):
    """Looks at those of one type."""

    formats = frozenset({"image/png"})


def test_images_of_other_types_are_in_no_batch() -> None:
    picture = PIL.Image.new("L", (8, 8), 1)
    ends = run_batch(BatchesOfPngs(), [picture, sample_image("jpeg"), picture])
    assert [end.result or (end.state, end.error) for end in ends] == [
        {"of": 2},
        ("skipped", "does not look at image/jpeg"),
        {"of": 2},
    ]


class Away(Analyzer):
    """Needs what is away."""

    name = "away"
    result_schema = Anything

    def analyze(self, image, context):
        raise RetryLater("nobody is there")


def test_images_that_were_not_begun_are_deferred_with_the_first() -> None:
    ends = run_batch(Away(), [sample_image("jpeg")] * 3)
    assert [(end.state, end.error) for end in ends] == [("deferred", "nobody is there")] * 3
    assert run_batch(Away(), []) == []


# Applications


@pytest.fixture
def plugins(tmp_path: Path) -> str:
    folder = tmp_path / "plugins"
    folder.mkdir()
    sources = {
        "sees": analyzer("sees", "return 1 / 0", fields={"caption": "caption", "tags": "tags"}),
        "more": analyzer("more", "return 1 / 0", requires=("sees",)),
        "strict": GOOD.replace('name = "good"', 'name = "strict"').replace(
            "        unknown = INCLUDE", "        unknown = RAISE"
        ),
        "asks": ASKS,
        "asked": analyzer("asked", "return 1 / 0", auto=False),
        "after": analyzer("after", "return 1 / 0", requires=("asked",)),
        "tiffs": analyzer("tiffs", "return 1 / 0", formats={"image/tiff"}),
    }
    for name, source in sources.items():
        (folder / f"{name}.py").write_text(source)
    return str(folder)


ASKS = """
from marshmallow import INCLUDE, Schema
from clustr.plugins import *

class Result(Schema):
    class Meta:
        unknown = INCLUDE

class Config(HttpConfig):
    service_url = ServiceUrl(load_default="http://127.0.0.1:1")

class Asks(HttpAnalyzer):
    name = "asks"
    result_schema = Result

@hookimpl
def clustr_config_schema():
    return Config

@hookimpl
def clustr_register_analyzers(config):
    return [Asks(config)]
"""


def test_upload_has_the_results_that_the_test_gives(clustr_app, plugins: str) -> None:
    app = clustr_app("sees", PLUGINS_FOLDER=plugins, PLUGINS_ENABLED="sees,more,asks")
    words = {"caption": "a cat", "tags": ["cat"]}
    upload = app.make_upload(results={"more": {"n": 1}, "sees": words, "asks": Skip("nothing")})
    assert (upload["caption"], upload["tags"]) == ("a cat", ["cat"])
    analyses = upload["analyses"]
    assert (analyses["sees"]["result"], analyses["more"]["result"]) == (words, {"n": 1})
    assert analyses["sees"]["provenance"]["plugin"] == "sees"
    assert (analyses["asks"]["status"], analyses["asks"]["error"]) == ("skipped", "nothing")
    assert upload["status"] == "processed"
    other = app.make_upload(sample_image("jpeg"), results={"asks": {"a": 1}})
    assert other["content_type"] == "image/jpeg"
    assert other["analyses"]["sees"]["status"] == "queued"
    listed = app.client.get("/api/uploads?tag=cat").get_json()
    assert [one["id"] for one in listed["data"]] == [upload["id"]]
    assert app.make_upload()["sha256"] != upload["sha256"]
    again = clustr_app("sees", PLUGINS_FOLDER=plugins)
    assert again.client.get("/api/uploads").get_json()["total"] == 0


def test_upload_has_results_of_analyzers_that_look_at_none_by_themselves(
    clustr_app, plugins: str
) -> None:
    app = clustr_app("asked", PLUGINS_FOLDER=plugins, PLUGINS_ENABLED="asked,after")
    upload = app.make_upload(results={"after": {"n": 2}, "asked": {"n": 1}})
    results = {name: analysis["result"] for name, analysis in upload["analyses"].items()}
    assert results == {"asked": {"n": 1}, "after": {"n": 2}}
    assert "asked" not in app.make_upload()["analyses"]


def test_result_that_no_worker_would_store_is_refused(clustr_app, plugins: str) -> None:
    app = clustr_app("sees", PLUGINS_FOLDER=plugins, PLUGINS_ENABLED="sees,more,tiffs")
    for results, reason in (
        ({"sees": {"caption": 7}}, "sees: the result does not fit the upload's fields"),
        ({"sees": []}, "sees: returned list instead of a dict"),
        (
            {"more": {}},
            "more has no work at this upload: it requires sees, whose results have to be given$",
        ),
        ({"tiffs": {}}, "tiffs has no work at this upload: it looks at image/tiff only$"),
        ({"seees": {}}, "there is no analyzer seees; there are sees, tiffs, more"),
    ):
        with pytest.raises(ValueError, match=reason):
            app.make_upload(results=results)


def test_file_that_is_refused_and_plugin_that_is_not_loaded(clustr_app, plugins: str) -> None:
    app = clustr_app("sees", PLUGINS_FOLDER=plugins)
    with pytest.raises(ValueError, match=r"the image is refused: .*undecodable"):
        app.make_upload(sample_image("truncated"))
    Path(plugins, "sees.py").write_text(CONFIGURED)
    with pytest.raises(ValueError, match="the plugin sees is misconfigured: size: Missing data"):
        clustr_app("sees", PLUGINS_FOLDER=plugins)
    with pytest.raises(ValueError, match="the plugin more is disabled"):
        clustr_app("more", PLUGINS_FOLDER=plugins, PLUGINS_ENABLED="asks")
    with pytest.raises(ValueError, match="unknown plugin mroe; did you mean more"):
        clustr_app("mroe", PLUGINS_FOLDER=plugins, PLUGINS_ENABLED="asks")


COMMANDS = """
import click
import numpy as np
from marshmallow import INCLUDE, Schema, fields
from clustr.plugins import *

class Result(Schema):
    class Meta:
        unknown = INCLUDE

class Config(Schema):
    word = fields.String(load_default="hello")

class Embeds(Analyzer):
    name = "embeds"
    result_schema = Result
    vectors = (Vector(field="embedding", dimensions=2),)

@hookimpl
def clustr_config_schema():
    return Config

@hookimpl
def clustr_register_analyzers(config):
    return [Embeds()]

@hookimpl
def clustr_register_commands(config, library):
    @click.command()
    @click.option("--width", default=0)
    def export(width):
        if width < 0:
            raise click.ClickException("negative")
        for upload in library.walk({"min_width": width}):
            vector = np.frombuffer(library.vector(upload, "embeds"), np.float16)
            near = [one.upload.id for one in library.nearest(upload, "embeds")]
            click.echo(f"{config['word']} {upload.id} {vector} {near}")
    return [export]
"""


def test_commands_run_on_the_uploads_of_the_test(clustr_app, plugins: str) -> None:
    Path(plugins, "embeds.py").write_text(COMMANDS)
    app = clustr_app("embeds", PLUGINS_FOLDER=plugins, CLUSTR_PLUGIN__EMBEDS__WORD="servus")
    assert app.library.count() == 0
    one = app.make_upload(results={"embeds": {"embedding": [1, 0]}})["id"]
    other = app.make_upload(results={"embeds": {"embedding": [0, 3]}})["id"]
    assert app.library.get(one).analyses[0].state == "succeeded"
    done = app.invoke("export")
    assert done.exit_code == 0
    assert done.output.splitlines() == [
        f"servus {one} [1. 0.] ['{other}']",
        f"servus {other} [0. 1.] ['{one}']",
    ]
    assert app.invoke("export", "--width", "1000").output == ""
    refused = app.invoke("export", "--width", "-1")
    assert (refused.exit_code, refused.stderr) == (1, "Error: negative\n")
    app.make_upload()
    with pytest.raises(NoResult, match=r"has no vector embeds\.embedding"):
        app.invoke("export")
    with pytest.raises(ValueError, match="unknown command exprot; did you mean export"):
        app.invoke("exprot")
