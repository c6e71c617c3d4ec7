"""`clustr.testing`: what it promises to the authors of plugins, and our own plugins held to it."""

import hashlib
import json
import os
import pkgutil
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import clustr_plugins
import PIL.Image
import pytest
import requests
from clustr_plugins import blip
from marshmallow import INCLUDE, Schema, fields
from PIL import ExifTags
from plugin_projects import PYTEST

from clustr.imaging import images
from clustr.plugins import Analyzer, ConfigError, Fail, RetryLater, Skip
from clustr.testing import (
    BROKEN,
    KINDS,
    HttpStandIn,
    assert_analyzer_contract,
    run_analyzer,
    sample_image,
)

OURS = [entry.name for entry in entry_points(group="clustr.plugins") if entry.dist.name == "clustr"]


class Anything(Schema):
    """A result of any shape."""

    class Meta:
        unknown = INCLUDE


class SizeResult(Schema):
    """The size of an image."""

    width = fields.Integer(required=True)


class Size(Analyzer):
    """An analyzer that keeps the contract; what is wrong with the others is added to it."""

    name = "size"
    result_schema = SizeResult

    def analyze(self, image, context):
        return {"width": image.open().width}


# Our own analyzers


@pytest.mark.parametrize("name", OURS)
def test_first_party_analyzers_keep_the_contract(name: str, clustr_http: HttpStandIn) -> None:
    words = {"caption": "a disc", "tags": ["disc", "line"]}
    clustr_http.answer({**words, "choices": [{"message": {"content": json.dumps(words)}}]})
    plugin = entry_points(group="clustr.plugins")[name].load()
    config: dict[str, Any] = {}
    if hasattr(plugin, "clustr_config_schema"):
        schema = plugin.clustr_config_schema()()
        taken = {field.data_key or name for name, field in schema.fields.items()}
        addresses = taken & {"service_url", "base_url"}
        config = schema.load(dict.fromkeys(addresses, clustr_http.url))
    analyzers = list(plugin.clustr_register_analyzers(config))
    assert analyzers
    for analyzer in analyzers:
        assert_analyzer_contract(analyzer, config)


def test_every_first_party_plugin_is_tried() -> None:
    modules = {module.name for module in pkgutil.iter_modules(clustr_plugins.__path__)}
    assert modules == set(OURS)


# The contract


def stays_within(analyze: Callable[..., Any], **attributes: Any) -> Analyzer:
    return type("It", (Size,), {"analyze": analyze, **attributes})()


def size_of(image: Any) -> dict[str, Any]:
    return {"width": image.open().width}


def overwrite(_self, image, _context):
    result = size_of(image)
    image.path.write_bytes(b"")
    return result


def write_beside(_self, image, _context):
    image.path.with_suffix(".txt").write_text("notes")
    return size_of(image)


def open_by_oneself(_self, image, _context):
    with PIL.Image.open(image.path) as picture:
        picture.load()
        return {"width": picture.width}


def wait(_self, image, _context):
    raise RetryLater("the model is away")


def fail(_self, image, _context):
    raise Fail("the service refused the image")


class Batches(Size):
    """Looks at images together."""

    batch_size = 4

    def analyze_batch(self, images, context):
        return [self.one(image) for image in images]

    def one(self, image):
        try:
            return size_of(image)
        except Fail as outcome:
            return outcome


class Yields(Batches):
    """Gives its answers as they come."""

    def analyze_batch(self, images, context):
        for image in images:
            yield image, self.one(image)


class LetsFailOut(Batches):
    """Gives its answers as they come, up to the first image that it refuses."""

    def analyze_batch(self, images, context):
        for image in images:
            yield image, size_of(image)


class YieldsForOne(Batches):
    """Gives its answers as they come, and cannot look at more than one image."""

    def analyze_batch(self, images, context):
        [image] = images
        yield image, self.one(image)


class YieldsToWait(Batches):
    """Says of every image that it has to wait."""

    def analyze_batch(self, images, context):
        yield images[0], RetryLater("the model is away")


class MixesUp(Batches):
    """Gets the order of a batch wrong."""

    def analyze_batch(self, images, context):
        return list(reversed(super().analyze_batch(images, context)))


class OnlyOne(Batches):
    """Cannot look at more than one."""

    def analyze_batch(self, images, context):
        [image] = images
        return [self.one(image)]


class Heavy(Size):
    """As if its class were in a module that imports torch."""


class SetUpOnce(Size):
    """Cannot be set up again."""

    ready = False

    def setup(self, context):
        if self.ready:
            raise RuntimeError("it is set up")
        self.ready = True


class Counts(Size):
    """Says something else each time."""

    result_schema = Anything
    seen = 0

    def analyze(self, image, context):
        self.seen += 1
        return {**size_of(image), "seen": self.seen}


RULES = {
    "a name": (stays_within(Size.analyze, name="Size"), "declaration", r"must match \[a-z\]"),
    "a batch": (stays_within(Size.analyze, batch_size=2), "declaration", "needs analyze_batch"),
    "setup": (SetUpOnce(), "setup", "RuntimeError: it is set up"),
    "raises": (
        stays_within(lambda _s, image, _c: 1 / 0),
        "result",
        "of the sample jpeg: ZeroDivisionError",
    ),
    "another shape": (
        stays_within(lambda _s, image, _c: {"with": 1}),
        "result",
        r"does not fit its schema: .*\n.*return a dict as SizeResult declares it",
    ),
    "no JSON": (
        stays_within(lambda _s, image, _c: {"width": {1}}, result_schema=Anything),
        "result",
        "cannot be written as JSON",
    ),
    "waits": (stays_within(wait), "result", "has to wait: the model is away\n.*clustr_http"),
    "fails": (
        stays_within(fail),
        "result",
        "fails for every readable sample: the service refused the image\n.*raise Skip",
    ),
    "slow": (
        stays_within(lambda _s, image, _c: time.sleep(5), timeout=0.1),
        "timeout",
        "took longer than 0.1 seconds",
    ),
    "broken images": (
        stays_within(open_by_oneself),
        "broken images",
        r"of the sample truncated: OSError.*\n.*image\.open\(\)",
    ),
    "overwrites": (stays_within(overwrite), "file", "changed the file of the sample jpeg"),
    "writes": (stays_within(write_beside), "file", r"wrote \w+\.txt beside"),
    "counts": (Counts(), "same again", 'of the sample jpeg it said {"width": 160, "seen": 1}, and'),
    "mixes up": (
        MixesUp(),
        "batch",
        r"of the sample \w+ it said {.width.: 160}, and then {.width.: 1}",
    ),
    "only one": (OnlyOne(), "batch", "raised ValueError: too many values to unpack"),
    "yields for one": (YieldsForOne(), "batch", "raised ValueError: too many values to unpack"),
    "yields to wait": (YieldsToWait(), "result", "has to wait: the model is away\n.*clustr_http"),
}


@pytest.mark.parametrize("broken", RULES)
def test_contract_says_which_rule_is_broken_and_how_to_mend_it(broken: str) -> None:
    analyzer, rule, said = RULES[broken]
    with pytest.raises(AssertionError, match=said) as caught:
        assert_analyzer_contract(analyzer)
    first, second = str(caught.value).split("\n", 1)
    assert first.startswith(f"{analyzer.name} breaks the rule '{rule}': ")
    assert second.startswith("To mend it: ")
    if "Error" in said:
        assert type(caught.value.__cause__).__name__ in said


@pytest.mark.parametrize(
    "analyzer",
    [
        Size(),
        Batches(),
        Yields(),
        LetsFailOut(),
        stays_within(Size.analyze, formats=frozenset({"image/tiff"})),
        stays_within(Size.analyze, formats=frozenset({"image/heic"})),
    ],
)
def test_contract_is_kept(analyzer: Analyzer) -> None:
    before = dict(vars(analyzer))
    limit = PIL.Image.MAX_IMAGE_PIXELS
    assert_analyzer_contract(analyzer)
    assert vars(analyzer) == before
    assert limit == PIL.Image.MAX_IMAGE_PIXELS


HEAVY = """
import torch
from marshmallow import Schema
from clustr.plugins import Analyzer

class Result(Schema):
    pass

class Heavy(Analyzer):
    name = "heavy"
    result_schema = Result

    def analyze(self, image, context):
        image.open()
        return {}
"""


def test_contract_sees_what_an_import_brings(tmp_path, monkeypatch) -> None:
    (tmp_path / "torch.py").touch()
    (tmp_path / "heavy_one.py").write_text(HEAVY)
    monkeypatch.syspath_prepend(tmp_path)
    import heavy_one  # noqa: PLC0415

    with pytest.raises(AssertionError, match="importing heavy_one imports torch"):
        assert_analyzer_contract(heavy_one.Heavy())
    # As the host imports a drop-in: under a name by which nobody else can.
    monkeypatch.setitem(sys.modules, "clustr_dropin_heavy_one", heavy_one)
    monkeypatch.setattr(heavy_one.Heavy, "__module__", "clustr_dropin_heavy_one")
    with pytest.raises(AssertionError, match="importing clustr_dropin_heavy_one imports torch"):
        assert_analyzer_contract(heavy_one.Heavy())


def test_required_results_have_to_be_given() -> None:
    analyzer = stays_within(
        lambda _s, image, _c: {"width": image.results["other"]["width"]}, requires=("other",)
    )
    for call in (assert_analyzer_contract, lambda a: run_analyzer(a, sample_image("png"))):
        with pytest.raises(ValueError, match="requires other"):
            call(analyzer)
    given = {"other": {"width": 7}}
    assert_analyzer_contract(analyzer, results=given)
    assert run_analyzer(analyzer, sample_image("png"), results=given).result == {"width": 7}


# One run


def raising(error: BaseException) -> Analyzer:
    def analyze(_self, _image, _context):
        raise error

    return stays_within(analyze)


@pytest.mark.parametrize(
    ("analyzer", "state", "error"),
    [
        (Size(), "succeeded", None),
        (raising(Skip("no face")), "skipped", "no face"),
        (raising(Fail("no use")), "failed", "no use"),
        (raising(RetryLater("away", after=3)), "deferred", "away"),
        (raising(ConfigError("no key")), "deferred", "no key"),
        (raising(SystemExit(3)), "failed", "SystemExit: 3"),
        (stays_within(Size.analyze, formats={"image/webp"}), "skipped", "not look at image/jpeg"),
        (stays_within(lambda *_: {"width": "x"}), "failed", "Not a valid integer"),
        (stays_within(lambda *_: bytearray(10**9), memory_mb=50), "failed", "limit of 50 MB"),
        (stays_within(lambda *_: time.sleep(9), timeout=0.1), "failed", "longer than 0.1 seconds"),
    ],
)
def test_ends_are_those_of_a_worker(analyzer: Analyzer, state: str, error: str | None) -> None:
    end = run_analyzer(analyzer, sample_image("jpeg"))
    assert end.state == state
    assert (error is None and end.error is None) or error in end.error
    assert (end.result is not None) == (state == "succeeded")


def test_run_gives_the_analyzer_what_a_worker_would() -> None:
    def analyze(_self, image, context):
        assert context.tmpdir.is_dir()
        assert context.seconds_left() > 50
        return {
            "image": [image.content_type, image.size, image.width, image.height, image.sha256],
            "config": context.config["level"],
            "secret": context.secrets["key"],
            "caption": "seen",
        }

    analyzer = stays_within(analyze, result_schema=Anything, fields={"caption": "caption"})
    path = sample_image("oriented")
    content = path.read_bytes()
    end = run_analyzer(analyzer, path, config={"level": 3}, secrets={"key": "k"})
    sha256 = hashlib.sha256(content).hexdigest()
    assert end.result["image"] == ["image/jpeg", len(content), 160, 120, sha256]
    assert (end.result["config"], end.result["secret"]) == (3, "k")
    assert end.fields == {"caption": "seen"}
    picture = PIL.Image.new("L", (7, 5))
    assert run_analyzer(Size(), picture).result == {"width": 7}
    with pytest.raises(FileNotFoundError):
        run_analyzer(Size(), Path("none.jpg"))


# The samples


def test_samples_are_what_they_are_called(clustr_samples: Callable[[str], Path]) -> None:
    with PIL.Image.open(sample_image("oriented")) as picture:
        assert picture.size == (120, 160)
        assert picture.getexif()[ExifTags.Base.Orientation] == 6
    modes = {"cmyk": "CMYK", "png16": "I;16", "alpha": "RGBA", "animated": "P", "jpeg": "RGB"}
    for kind, mode in modes.items():
        with PIL.Image.open(sample_image(kind)) as picture:
            assert picture.mode == mode, kind
    with PIL.Image.open(sample_image("animated")) as picture:
        assert picture.n_frames == 3
    widths = {kind: run_analyzer(Size(), sample_image(kind)) for kind in KINDS}
    assert {kind for kind, end in widths.items() if end.state == "failed"} == set(BROKEN)
    assert widths["1x1"].result == {"width": 1}
    assert widths["oriented"].result == {"width": 160}
    assert "50000000 pixels" in widths["huge_header"].error
    upright, turned = (images.open_displayed(sample_image(k)) for k in ("jpeg", "oriented"))
    left = [
        picture.convert("L").crop((0, 0, 160, 40)).resize((1, 1)) for picture in (upright, turned)
    ]
    assert abs(left[0].getpixel((0, 0)) - left[1].getpixel((0, 0))) <= 2
    copy = clustr_samples("png")
    assert copy != sample_image("png")
    copy.write_bytes(b"")
    assert sample_image("png").stat().st_size > 0
    with pytest.raises(ValueError, match="unknown kind of sample cmik; did you mean cmyk"):
        sample_image("cmik")


# The stand-in


def test_stand_in_answers_and_remembers(clustr_http: HttpStandIn) -> None:
    assert requests.get(clustr_http.url, timeout=30).json() == {}
    clustr_http.answer({"a": 1}, status=418, headers={"Retry-After": "3"})
    form = {"image": ("x.bin", bytes(range(256)), "image/x")}
    answer = requests.post(
        f"{clustr_http.url}/label?top=3", files=form, data={"more": "ö"}, timeout=30
    )
    assert (answer.status_code, answer.json(), answer.headers["Retry-After"]) == (
        418,
        {"a": 1},
        "3",
    )
    asked, posted = clustr_http.received
    assert (asked.method, asked.path, asked.parts) == ("GET", "/", {})
    assert (posted.method, posted.path) == ("POST", "/label?top=3")
    assert posted.headers["content-type"].startswith("multipart/form-data")
    image = posted.parts["image"]
    assert (image.filename, image.content, image.content_type) == form["image"]
    assert posted.parts["more"].content.decode() == "ö"
    clustr_http.answer(b"\0raw")
    assert requests.put(clustr_http.url, data=b"body", timeout=30).content == b"\0raw"
    assert clustr_http.received[-1].body == b"body"
    clustr_http.go_away()
    with pytest.raises(requests.ConnectionError):
        requests.get(clustr_http.url, timeout=30)


def test_analyzer_over_http_waits_for_a_service_that_is_away(clustr_http: HttpStandIn) -> None:
    config = blip.BlipConfig().load({"service_url": clustr_http.url})
    [analyzer] = blip.clustr_register_analyzers(config)
    clustr_http.answer(status=503, headers={"Retry-After": "7"})
    end = run_analyzer(analyzer, sample_image("png"), config=config)
    assert (end.state, end.after) == ("deferred", 7)
    clustr_http.go_away()
    assert run_analyzer(analyzer, sample_image("png"), config=config).state == "deferred"


# In a project of somebody else's

FOREIGN = """
import sys

def test_nothing_is_loaded_that_is_not_asked_for():
    loaded = {name for name in sys.modules if name.startswith("clustr")}
    assert loaded == {"clustr", "clustr.testing", "clustr.testing.pytest_plugin"}

def test_no_server_is_needed(clustr_http, clustr_samples):
    assert clustr_samples("jpeg").exists()
    loaded = {name.split(".")[0] for name in sys.modules}
    assert not loaded & {"flask", "pymongo", "redis", "rq", "gunicorn"}
"""


def test_fixtures_cost_nothing_until_they_are_asked_for(tmp_path: Path) -> None:
    (tmp_path / "test_foreign.py").write_text(textwrap.dedent(FOREIGN))
    command = [sys.executable, *PYTEST]
    environment = {"PATH": os.environ["PATH"]}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    assert "2 passed" in done.stdout
