"""The analyzer `dimensions`, called as the worker calls it."""

import time
from collections.abc import Callable
from pathlib import Path

import photographs
import pytest
import structlog
from clustr_plugins import dimensions

from clustr.analysis.http_session import Session
from clustr.plugins import Context, Fail, Image


@pytest.fixture
def analyze(tmp_path: Path) -> Callable[[bytes], dict[str, int]]:
    (analyzer,) = dimensions.clustr_register_analyzers(config={})

    def analyze(content: bytes) -> dict[str, int]:
        path = tmp_path / "5f0000000000000000000001.bin"
        path.write_bytes(content)
        image = Image("5f0000000000000000000001", "0" * 64, "image/any", len(content), 1, 1, path)
        log = structlog.stdlib.get_logger()
        with Session() as http:
            context = Context({}, {}, log, http, time.monotonic() + 60, tmp_path)
            result = analyzer.analyze(image, context)
        assert analyzer.result_schema().load(result) == result
        return result

    return analyze


@pytest.mark.parametrize("extension", photographs.EXTENSIONS)
def test_photographs(analyze, extension):
    assert analyze(photographs.photograph(extension)) == {"width": 160, "height": 106}


@pytest.mark.parametrize("extension", ["jpg", "png", "webp", "tif"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_dimensions_are_as_displayed(analyze, extension, orientation):
    expected = {"width": 160, "height": 106}
    assert analyze(photographs.oriented(orientation, extension)) == expected


@pytest.mark.parametrize("extension", ["jpg", "png", "bmp"])
def test_the_header_is_enough(analyze, extension):
    content = photographs.truncated(photographs.photograph(extension), 0.5)
    assert analyze(content) == {"width": 160, "height": 106}


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (photographs.text(), "unknown kind"),
        (photographs.empty(), "unknown kind"),
        (photographs.png_bomb(), "megapixels"),
        (photographs.photograph("png")[:20], "broken"),
    ],
)
def test_what_is_no_image_fails_with_its_reason(analyze, content, reason):
    with pytest.raises(Fail, match=reason):
        analyze(content)


def test_it_fills_no_field_of_the_upload():
    (analyzer,) = dimensions.clustr_register_analyzers(config={})
    assert (analyzer.name, analyzer.version, dict(analyzer.fields)) == ("dimensions", 1, {})
