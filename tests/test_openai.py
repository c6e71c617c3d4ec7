"""The analyzer `openai`, and the habits of the servers that speak its protocol."""

import base64
import io
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import photographs
import PIL.Image
import pytest
from chat_stand_in import GOOD, ChatStandIn, completion
from clustr_plugins import openai as plugin
from marshmallow import ValidationError
from plugin_commands import run_plugins
from workshop import Workshop

from clustr.plugins import ConfigError, Fail, Image, RetryLater
from clustr.testing import run_analyzer

URL = "http://localhost:11434/v1"
SAID = json.dumps(GOOD)
FOUND = (GOOD["caption"], GOOD["tags"])


def config(**given: Any) -> dict[str, Any]:
    return plugin.OpenAIConfig().load({"base_url": URL, "model": "see:7b", **given})


def analyzer(**given: Any) -> plugin.OpenAI:
    [made] = plugin.clustr_register_analyzers(config=config(**given))
    return made


@pytest.fixture
def photograph(tmp_path: Path) -> Path:
    path = tmp_path / "cat.webp"
    path.write_bytes(photographs.photograph("webp"))
    return path


@pytest.fixture
def chat() -> Iterator[ChatStandIn]:
    with ChatStandIn() as running:
        yield running


def ask(chat: ChatStandIn, photograph: Path, *images: Path, **given: Any) -> list[Any]:
    """How the analyses of images end, one after the other, in one process."""
    given = config(base_url=chat.url, **given)
    one = plugin.OpenAI(given)
    return [run_analyzer(one, image, config=given) for image in (photograph, *images)]


# What is sent


def request_of(photograph: Path, **given: Any) -> dict[str, Any]:
    image = Image("5f" * 12, "0" * 64, "image/webp", 1, 160, 106, photograph)
    return analyzer(**given).build_request(image, None)["json"]


def test_a_jpeg_is_sent_as_the_address_of_an_object(photograph):
    body = request_of(photograph)
    [message] = body["messages"]
    assert message["role"] == "user"
    question, picture = message["content"]
    assert "in English" in question["text"]
    assert "up to 10 words" in question["text"]
    assert picture["type"] == "image_url"
    kind, _, encoded = picture["image_url"]["url"].partition(",")
    assert kind == "data:image/jpeg;base64"
    sent = PIL.Image.open(io.BytesIO(base64.b64decode(encoded)))
    assert (sent.format, sent.width) == ("JPEG", 160)


def test_nothing_is_sent_that_newer_models_refuse(photograph):
    assert request_of(photograph).keys() == {"model", "messages", "response_format"}
    assert request_of(photograph, model="").keys() == {"messages", "response_format"}
    assert request_of(photograph)["response_format"]["type"] == "json_schema"


def test_more_members_of_the_request_are_toml(photograph):
    for extra in ({"top_p": 0.5, "options": {"seed": 7}}, "top_p = 0.5\n[options]\nseed = 7"):
        body = request_of(photograph, extra_body=extra)
        assert (body["top_p"], body["options"]) == (0.5, {"seed": 7})
    with pytest.raises(ValidationError, match="expected TOML"):
        config(extra_body="no toml")


def test_the_question_is_configured(photograph):
    body = request_of(
        photograph, prompt="In {language}, {max_tags} tags {}", language="German", max_tags=3
    )
    assert body["messages"][0]["content"][0]["text"] == "In German, 3 tags {}"


# What is answered


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (SAID, FOUND),
        (f"```json\n{SAID}\n```", FOUND),
        (f"```\n{SAID}```", FOUND),
        (f"Sure! Here is the JSON:\n\n{SAID}\n\nLet me know if you need more.", FOUND),
        (f"<think>A {{cat}}? It is {{'caption': 7}}.</think>\n{SAID}", FOUND),
        (f"It is a cat, {{clearly}}.</think>{SAID}", FOUND),
        (str(GOOD), FOUND),
        (f"Here: {GOOD} as you wished", FOUND),
        ([{"type": "text", "text": SAID[:20]}, {"type": "text", "text": SAID[20:]}], FOUND),
        ([SAID], FOUND),
        ('{"caption": "A cat\non a mat.", "tags": []}', ("A cat\non a mat.", [])),
        ('{"caption": "A cat", "tags": "cat, mat"}', ("A cat", ["cat", " mat"])),
        ('{"caption": "A cat", "tags": null}', ("A cat", [])),
        ('{"caption": "A cat", "tags": ["cat", 7, null]}', ("A cat", ["cat"])),
        ("A cat on a mat.", ("A cat on a mat.", [])),
        ("", None),
        (None, None),
        ("<think>It may be a cat, or", None),
        ('{"caption": "A cat', None),
        ('{"text": "A cat"}', None),
        ("{" * 100_000, None),
    ],
)
def test_what_models_write_around_the_answer(content, found):
    assert plugin.words_in(plugin.text_of(content)) == found


def test_a_long_answer_is_read_in_time_that_grows_with_its_length():
    """In time that grows with the square, this takes minutes."""
    said = "a cat on a sofa. " * 60_000
    assert plugin.text_of(said) == said.strip()


def test_the_result(photograph, chat):
    [end] = ask(chat, photograph)
    assert end.result == {"caption": "A cat on a mat.", "tags": ["cat", "mat"]}
    assert end.fields == end.result
    assert end.model == {
        "name": "see:7b",
        "prompt_tokens": 800,
        "completion_tokens": 20,
        "total_tokens": 820,
    }


def test_an_opening_that_says_nothing_is_cut_and_tags_are_limited(photograph, chat):
    said = {"caption": "This image shows a cat.", "tags": ["A", "a", "b ", "#c", ""]}
    chat.habit = lambda _body: (200, completion(json.dumps(said)))
    assert ask(chat, photograph)[0].result == {"caption": "A cat.", "tags": ["a", "b", "c"]}
    [end] = ask(chat, photograph, cut_opening=False, max_tags=1)
    assert end.result == {"caption": "This image shows a cat.", "tags": ["a"]}


def test_a_key_is_sent(photograph, chat):
    given = config(base_url=chat.url)
    run_analyzer(plugin.OpenAI(given), photograph, config=given, secrets={"api_key": "sk-1234567"})
    assert chat.headers[0]["Authorization"] == "Bearer sk-1234567"
    ask(chat, photograph)
    assert "Authorization" not in chat.headers[1]


@pytest.mark.parametrize(
    ("status", "said"),
    [
        (400, {"error": "'response_format.type' must be 'json_schema' or 'text'"}),
        (400, {"error": {"message": "This response_format type is unavailable now"}}),
        (422, {"detail": "Extra inputs are not permitted"}),
        (500, {"error": {"message": "failed to parse grammar"}}),
    ],
)
def test_a_server_that_refuses_the_format_is_asked_without_and_that_is_remembered(
    photograph, chat, status, said
):
    def habit(body: dict[str, Any]) -> tuple[int, Any]:
        return (status, said) if "response_format" in body else (200, completion(SAID))

    chat.habit = habit
    ends = ask(chat, photograph, photograph)
    assert [end.state for end in ends] == ["succeeded", "succeeded"]
    assert ["response_format" in body for body in chat.bodies] == [True, False, False]


def test_a_model_that_thinks_too_long_gets_more_room_once(photograph, chat):
    def habit(body: dict[str, Any]) -> tuple[int, Any]:
        if body.get("max_tokens", 0) < 2000:
            return 200, completion("", "length", reasoning_content="Hm, a cat …")
        return 200, completion(SAID)

    chat.habit = habit
    assert ask(chat, photograph)[0].state == "succeeded"
    assert [body.get("max_tokens") for body in chat.bodies] == [None, 4096]
    chat.habit = lambda _body: (200, completion("<think>Hm, a cat", "length"))
    [end] = ask(chat, photograph, extra_body={"max_tokens": 2000})
    assert end.state == "failed"
    assert "thought until its limit of tokens" in end.error
    assert [body.get("max_tokens") for body in chat.bodies[2:]] == [2000, 8000]


def test_a_newer_model_gets_the_limit_under_its_newer_name(photograph, chat):
    def habit(body: dict[str, Any]) -> tuple[int, Any]:
        if "max_tokens" in body:
            message = "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead."
            return 400, {"error": {"message": message}}
        return 200, completion(SAID)

    chat.habit = habit
    assert ask(chat, photograph, extra_body={"max_tokens": 500})[0].state == "succeeded"
    assert chat.bodies[1]["max_completion_tokens"] == 500
    assert "response_format" in chat.bodies[1]


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (completion(None, refusal="I cannot help with that."), "refused: I cannot help with that."),
        (completion("", "content_filter"), "filter of contents"),
        (completion(""), "said nothing"),
        (completion('{"caption": " ", "tags": []}'), "said nothing"),
        ({"choices": [{"text": "an older protocol"}]}, "has no message"),
        ({"choices": []}, "another shape: choices"),
        ({"object": "list"}, "another shape: choices"),
    ],
)
def test_answers_without_a_caption_are_failed(photograph, chat, answer, reason):
    chat.habit = lambda _body: (200, answer)
    [end] = ask(chat, photograph)
    assert end.state == "failed"
    assert reason in end.error


# What is refused: no service is needed for these.

KEY, MODEL = "CLUSTR_PLUGIN__OPENAI__API_KEY", "CLUSTR_PLUGIN__OPENAI__MODEL"


@pytest.mark.parametrize(
    ("status", "answer", "outcome", "words"),
    [
        (401, {"error": {"message": "Incorrect API key provided"}}, ConfigError, KEY),
        (402, {"error": {"message": "Insufficient credits"}}, ConfigError, "Insufficient credits"),
        (
            404,
            {"error": {"message": 'model "llava" not found, try pulling it first'}},
            ConfigError,
            "ollama pull",
        ),
        (404, {"error": {"message": "The model `x` does not exist"}}, ConfigError, MODEL),
        (400, {"error": {"message": "No models loaded. Please load a model"}}, ConfigError, MODEL),
        (400, {"error": "this model does not support images"}, ConfigError, MODEL),
        (404, "404 page not found", ConfigError, "usually ends in /v1"),
        (503, {"error": {"message": "Loading model"}}, RetryLater, "Loading model"),
        (429, {"error": {"message": "Rate limit reached"}}, RetryLater, "Rate limit reached"),
        (500, {"error": {"message": "CUDA out of memory"}}, RetryLater, "CUDA out of memory"),
        (400, {"error": {"message": "Your request was rejected"}}, Fail, "request was rejected"),
        (200, {"error": {"message": "Provider overloaded", "code": 503}}, RetryLater, "overloaded"),
        (200, {"error": "Model has crashed"}, RetryLater, "Model has crashed"),
    ],
)
def test_what_a_refusal_means(status, answer, outcome, words):
    body = (answer if isinstance(answer, str) else json.dumps(answer)).encode()
    meaning = analyzer().check_answer(status, body, {"json": {"messages": []}})
    assert type(meaning) is outcome
    assert words in meaning.reason
    assert f"captioner at {URL}" in meaning.reason


def test_without_an_address_there_is_no_analyzer():
    assert plugin.clustr_register_analyzers(config=plugin.OpenAIConfig().load({})) == []


@pytest.mark.parametrize("name", ["base_url", "model", "prompt", "language", "extra_body"])
def test_all_that_changes_answers_is_in_the_hash_of_the_configuration(load, name):
    def hash_with(value: str) -> str:
        environment = {
            "CLUSTR_PLUGIN__OPENAI__BASE_URL": URL,
            f"CLUSTR_PLUGIN__OPENAI__{name.upper()}": value,
        }
        [loaded] = [p for p in load(("openai",), (), "", environment).plugins if p.name == "openai"]
        assert loaded.state == "loaded", loaded.reason
        return loaded.config_hash

    one, other = ("a = 1", "a = 2") if name == "extra_body" else (f"{URL}/a", f"{URL}/b")
    assert hash_with(one) != hash_with(other)


# Altogether


def test_uploads_are_captioned_by_it_and_its_model_is_in_the_provenance(tmp_path, servers, chat):
    settings = {
        "PLUGINS_DISABLED": "",
        "PLUGINS_ENABLED": "openai,blip",
        "CLUSTR_PLUGIN__OPENAI__BASE_URL": chat.url,
        "CLUSTR_PLUGIN__OPENAI__API_KEY": "sk-planted-123",
        "CLUSTR_PLUGIN__OPENAI__MODEL": "see",
    }
    with Workshop(tmp_path, servers, **settings) as workshop:
        [upload] = workshop.upload()
        worker = workshop.worker()
        analysis = workshop.end_of(upload, "openai")
        assert analysis.provenance["model"]["name"] == "see:7b"
        assert analysis.provenance["model"]["total_tokens"] == 820
        stored = workshop.get(upload)
        assert (stored.caption, list(stored.tags)) == ("A cat on a mat.", ["cat", "mat"])
        health = workshop.app.test_client().get("/api/health/captioner").get_json()
        assert (health["status"], health["url"]) == ("healthy", chat.url)
        assert "sk-planted" not in worker.output()


def test_the_picture_that_is_sent_can_be_looked_at_beside_the_answer(tmp_path, photograph, chat):
    address = {"CLUSTR_PLUGIN__OPENAI__BASE_URL": chat.url, "PLUGINS_DISABLED": ""}
    done = run_plugins(tmp_path, "check", "openai", str(photograph), **address)
    assert done.returncode == 0, done.stderr
    assert re.match(
        r"openai: fine\n  tried: .*\n.*cat\.webp: succeeded, after \d+ ms\n", done.stdout
    )
    sent = Path(re.search(r"sent: (\S+)", done.stdout)[1])
    with PIL.Image.open(sent) as picture:
        assert (picture.format, picture.width) == ("JPEG", 160)
    shutil.rmtree(sent.parent)
    assert '"caption": "A cat on a mat."' in done.stdout
    assert len(chat.bodies) == 1
    done = run_plugins(tmp_path, "check", "openai", str(photograph), PLUGINS_DISABLED="")
    assert done.returncode == 1
    assert "it has no analyzer" in done.stdout
