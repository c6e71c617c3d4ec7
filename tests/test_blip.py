"""The analyzer `blip`: what it sends to a captioner, and what it makes of the answer."""

from dataclasses import replace

import photographs
import pytest
from analyzer_images import IMAGE_ID
from blip_caller import Caller
from blip_stand_in import BlipStandIn
from clustr_plugins import blip as plugin
from marshmallow import Schema, ValidationError, fields

from clustr.plugins import ConfigError, Fail, HttpAnalyzer, HttpConfig, Image


@pytest.fixture
def blip(caller: Caller) -> BlipStandIn:
    return caller.captioner


def test_a_caption_and_tags(blip, caller):
    result = caller.analyze(photographs.photograph("jpg", "astronaut"))
    assert result["caption"].startswith("a 160x160 image, mostly ")
    assert "square" in result["tags"]
    assert len(blip.requests) == 1


def test_its_declaration(caller):
    analyzer = caller.analyzer()
    assert (analyzer.name, analyzer.queue) == ("blip", "http")
    assert analyzer.fields == {"caption": "caption", "tags": "tags"}
    assert analyzer.timeout == 70
    caller.given["timeout"] = 50
    assert caller.analyzer().timeout == 60


def test_the_part_that_is_sent(blip, caller):
    caller.analyze(photographs.photograph("png"), "png")
    (received,) = blip.requests
    assert received.file_name == f"{IMAGE_ID}.jpg"
    assert received.content_type == "image/jpeg"
    assert (received.format, received.mode, received.width) == ("JPEG", "RGB", 160)


def test_the_side_of_what_is_sent_is_configured(blip, caller):
    caller.given["max_side"] = 64
    caller.analyze(photographs.photograph("png"), "png")
    assert blip.requests[0].width == 64


def test_one_connection_for_many_images(blip, caller):
    for number in range(30):
        caller.analyze(photographs.unique("jpg", number))
    assert len(blip.requests) == 30
    assert len({received.sha256 for received in blip.requests}) == 30
    assert blip.connections == 1


@pytest.mark.parametrize(
    ("caption", "expected"),
    [
        ("a cat", "a cat"),
        ("  a\tcat\r\non a  mat\u2028", "a cat on a mat"),
        ("a\x00 \x1b[31mred\x1b[0m cat\x7f\x85", "a [31mred[0m cat"),
        ("half \ud83d a \ude00 face", "half a face"),
        ("une tasse de café \N{GRINNING FACE}", "une tasse de café \N{GRINNING FACE}"),
        ("👩\u200d🚀 می\u200cکنم \U0001fae8", "👩\u200d🚀 می\u200cکنم \U0001fae8"),
        ("a\u202etac\u202c \u2067cat\u2069, \u200fab\u200e", "atac cat, \u200fab\u200e"),
        ("<script>alert(1)</script>", "<script>alert(1)</script>"),
        ("x" * 2000, "x" * 1000),
        ("x" * 999 + " y", "x" * 999),
    ],
)
def test_captions_are_cleaned(blip, caller, caption, expected):
    blip.answer = {"caption": caption, "tags": []}
    result = caller.analyze(photographs.photograph())
    assert result == {"caption": expected, "tags": []}
    result["caption"].encode()


def test_what_says_nothing_is_cut_unless_the_setting_is_off(blip, caller):
    blip.answer = {"caption": "an image of a cat", "tags": ["Cat", "cat"]}
    result = caller.analyze(photographs.photograph())
    assert result == {"caption": "a cat", "tags": ["cat"]}
    caller.given["cut_opening"] = False
    assert caller.analyze(photographs.photograph())["caption"] == "an image of a cat"


@pytest.mark.parametrize("caption", ["", " \n", "\x00"])
def test_a_captioner_that_says_nothing_has_failed(blip, caller, caption):
    blip.answer = {"caption": caption, "tags": ["cat"]}
    with pytest.raises(Fail, match=r"^The captioner said nothing\.$"):
        caller.analyze(photographs.photograph())


def test_tags_are_cleaned(blip, caller):
    joined = "👩\u200d🚀"
    tags = [
        "cat",
        " cat\n",
        "",
        "\x00",
        "a  mat",
        "\ud800",
        joined,
        "y" * 200,
        *map(str, range(200)),
    ]
    blip.answer = {"caption": "a cat", "tags": tags, "score": 0.9, "model": {"name": "blip"}}
    result = caller.analyze(photographs.photograph())
    assert result["tags"] == ["cat", "a mat", joined, "y" * 100, *map(str, range(96))]


@pytest.mark.parametrize("prefix", ["", "/", "/captioner", "/captioner/"])
def test_the_address_may_have_a_path(blip, caller, prefix):
    caller.given["service_url"] += prefix
    if prefix.startswith("/captioner"):
        with pytest.raises(ConfigError, match="404"):  # The stand-in has nothing there.
            caller.analyze(photographs.photograph())
    else:
        assert caller.analyze(photographs.photograph())["caption"]


def test_the_configuration():
    loaded = plugin.clustr_config_schema()().load({})
    assert loaded == {
        "service_url": "http://localhost:8001",
        "timeout": 60.0,
        "cut_opening": True,
    }
    assert plugin.BlipConfig().load({"timeout": "7.5"})["timeout"] == 7.5


@pytest.mark.parametrize(
    "url",
    ["http://blip:8001", "https://a.b.c/path/", "http://[::1]:8001", "http://blip_service:8001/"],
)
def test_addresses(url):
    assert plugin.BlipConfig().load({"service_url": url})["service_url"] == url


@pytest.mark.parametrize(
    "given",
    [
        {"service_url": "localhost:8001"},
        {"service_url": "ftp://localhost"},
        {"service_url": "http://"},
        {"service_url": "http:///path"},
        {"service_url": "http://localhost:8001/?a=b"},
        {"service_url": "http://local host"},
        {"service_url": ""},
        {"timeout": 0},
        {"timeout": "soon"},
        {"timeout": "nan"},
        {"unknown": 1},
    ],
)
def test_values_that_are_refused(given):
    with pytest.raises(ValidationError):
        plugin.BlipConfig().load(given)


class Score(Schema):
    """What a service of somebody else's says; the answer of the stand-in has no `score`."""

    caption = fields.String(required=True)
    score = fields.Float(load_default=0.5)


class Scorer(HttpAnalyzer):
    """An analyzer that sets no more than it must, and sends one thing besides the image."""

    name = "scorer"
    result_schema = Score
    service = "scorer"
    path = "/caption"
    converts = False

    def build_request(self, image, context):
        form = super().build_request(image, context)
        return {**form, "headers": {"Accept-Language": context.config["language"]}}


class ScorerConfig(HttpConfig):
    language = fields.String(load_default="en")


def test_an_analyzer_of_somebody_else(blip, caller):
    content = photographs.photograph("tif")
    path = caller.folder / f"{IMAGE_ID}.tif"
    path.write_bytes(content)
    image = Image(IMAGE_ID, "0" * 64, "image/tiff", len(content), 160, 106, path)
    config = ScorerConfig().load({"service_url": f"{blip.url}/", "timeout": "30"})
    analyzer = Scorer(config)
    assert (analyzer.queue, analyzer.timeout) == ("http", 40)
    context = replace(caller.context(), config=config)
    blip.answer = {"caption": "a cat", "more": 1}
    assert analyzer.analyze(image, context) == {"caption": "a cat", "score": 0.5}
    assert blip.requests[0].content == content
    assert blip.requests[0].content_type == "image/tiff"
    blip.answer = {"caption": 7, "score": "much"}
    with pytest.raises(Fail, match=r"scorer's answer .* caption: Not a .*; score: Not a .*"):
        analyzer.analyze(image, context)
    with pytest.raises(ValidationError, match="service_url"):
        ScorerConfig().load({})
