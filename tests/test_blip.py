"""The analyzer `blip`: what it sends to a captioner, and what it makes of the answer."""

from dataclasses import replace

import photographs
import PIL.Image
import pytest
from blip_caller import IMAGE_ID, Caller
from blip_stand_in import BlipStandIn
from clustr_plugins import blip as plugin
from marshmallow import Schema, ValidationError, fields
from PIL import ImageChops, ImageStat

from clustr.plugins import Fail, HttpAnalyzer, HttpConfig, Image
from clustr.plugins.http import LARGEST_SENT_BYTES
from clustr.plugins.pixel_formats import to_rgb


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
    assert analyzer.timeout == 30
    caller.given["timeout"] = 50
    assert caller.analyzer().timeout == 60


@pytest.mark.parametrize("extension", ["jpg", "png", "webp"])
def test_the_usual_formats_go_as_they_are(blip, caller, extension):
    content = photographs.photograph(extension)
    caller.analyze(content, extension)
    (received,) = blip.requests
    assert received.content == content
    assert received.file_name == f"{IMAGE_ID}.{extension}"
    assert received.content_type == photographs.CONTENT_TYPES[extension]


@pytest.mark.parametrize(
    ("content", "extension"),
    [
        (photographs.transparent("png"), "png"),
        (photographs.transparent("webp"), "webp"),
        (photographs.palette("png"), "png"),
        (photographs.photograph("png", "camera"), "png"),
        (photographs.photograph("jpg", "camera"), "jpg"),
        (photographs.progressive_jpeg(), "jpg"),
        (photographs.mpo(), "jpg"),
        (photographs.oriented(6), "jpg"),
        (photographs.one_pixel("png"), "png"),
        (photographs.animated("webp"), "webp"),
    ],
)
def test_their_plain_variants_do_too(blip, caller, content, extension):
    caller.analyze(content, extension)
    assert blip.requests[0].content == content


@pytest.mark.parametrize(
    ("content", "extension"),
    [
        (photographs.photograph("tif"), "tif"),
        (photographs.photograph("bmp"), "bmp"),
        (photographs.compressed_tiff("tiff_lzw"), "tif"),
        (photographs.bilevel("tif"), "tif"),
        (photographs.floating_point(), "tif"),
        (photographs.oriented(6, "tif"), "tif"),
        (photographs.cmyk("jpg"), "jpg"),
        (photographs.cmyk("tif"), "tif"),
        (photographs.grey_16_bit("png"), "png"),
        (photographs.grey_16_bit("tif"), "tif"),
        (photographs.grey_16_bit_big_endian(), "tif"),
        (photographs.colour_16_bit(), "png"),
    ],
)
def test_other_formats_go_as_a_jpeg(blip, caller, content, extension):
    caller.analyze(content, extension)
    (received,) = blip.requests
    assert (received.format, received.mode) == ("JPEG", "RGB")
    assert received.file_name == f"{IMAGE_ID}.jpg"
    assert received.content_type == "image/jpeg"


@pytest.mark.parametrize(
    ("content", "extension", "name", "width"),
    [
        (photographs.photograph("tif"), "tif", "cat", 160),
        (photographs.photograph("bmp"), "bmp", "cat", 160),
        (photographs.oriented(6, "tif"), "tif", "cat", 160),
        (photographs.cmyk("jpg"), "jpg", "coffee", 160),
        (photographs.grey_16_bit("png"), "png", "camera", 120),
        (photographs.grey_16_bit("tif"), "tif", "camera", 120),
        (photographs.grey_16_bit_big_endian(), "tif", "camera", 120),
        (photographs.colour_16_bit(), "png", "coffee", 96),
        (photographs.floating_point(), "tif", "camera", 96),
    ],
)
def test_the_jpeg_looks_like_the_original(blip, caller, content, extension, name, width):
    caller.analyze(content, extension)
    expected = photographs.picture(name, width).convert("RGB")
    sent = blip.requests[0].picture()
    assert sent.size == expected.size
    assert max(ImageStat.Stat(ImageChops.difference(sent, expected)).mean) < 8


def test_what_is_clear_is_white(blip, caller):
    caller.analyze(photographs.transparent("tif"), "tif")
    sent = blip.requests[0].picture()
    assert min(sent.getpixel((sent.width - 3, 50))) > 250
    assert min(sent.getpixel((3, 50))) < 250


@pytest.mark.parametrize(
    ("width", "height", "sent_size"),
    [(4096, 64, (4096, 64)), (4097, 64, (1024, 16)), (40, 4097, (10, 1024)), (1, 5000, (1, 1024))],
)
def test_large_sides_are_made_smaller(blip, caller, width, height, sent_size):
    caller.analyze(photographs.unique("png", width=width, height=height), "png")
    received = blip.requests[0]
    assert (received.width, received.height) == sent_size


def test_large_files_are_made_smaller(blip, caller):
    content = photographs.photograph("jpg", "astronaut", 512)
    content += bytes(LARGEST_SENT_BYTES - len(content))
    caller.analyze(content)
    caller.analyze(content + b"\0")
    first, second = blip.requests
    assert first.content == content
    assert (second.width, second.height) == (512, 512)
    assert second.size < 200_000


def test_16_bits_are_scaled_and_not_clipped():
    values = [0, 256, 1000, 32768, 65535]
    picture = PIL.Image.new("I;16", (len(values), 1))
    for x, value in enumerate(values):
        picture.putpixel((x, 0), value)
    scaled = to_rgb(picture)
    for x, value in enumerate(values):
        assert all(abs(each - value / 257) <= 1 for each in scaled.getpixel((x, 0)))


def test_an_image_that_cannot_be_decoded_fails(caller):
    content = photographs.truncated(photographs.photograph("tif"), 0.5)
    with pytest.raises(Fail, match="broken or incomplete"):
        caller.analyze(content, "tif")


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
        ("", ""),
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
        with pytest.raises(Fail, match="404"):  # The stand-in has nothing there.
            caller.analyze(photographs.photograph())
    else:
        assert caller.analyze(photographs.photograph())["caption"]


def test_the_configuration():
    loaded = plugin.clustr_config_schema()().load({})
    assert loaded == {"service_url": "http://localhost:8001", "timeout": 20.0}
    assert plugin.BlipConfig().fields["service_url"].metadata["env"] == "BLIP_SERVICE_URL"
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
