"""What the analyzer says of images: that it keeps the contract, and of some that the test draws."""

import clustr_sharpness as plugin
import PIL.Image
import PIL.ImageFilter

from clustr.testing import assert_analyzer_contract, run_analyzer

[ANALYZER] = plugin.clustr_register_analyzers({})


def score(picture: PIL.Image.Image) -> float:
    end = run_analyzer(ANALYZER, picture)
    assert end.result is not None, end.error
    value: float = end.result["score"]
    return value


def test_contract() -> None:
    assert_analyzer_contract(ANALYZER)


def test_a_plain_picture_is_not_sharp() -> None:
    assert score(PIL.Image.new("RGB", (64, 48), "teal")) == 0


def test_a_blurred_picture_is_less_sharp() -> None:
    checked = PIL.Image.effect_noise((256, 256), 80)
    assert score(checked) > 3 * score(checked.filter(PIL.ImageFilter.GaussianBlur(2))) > 0


def test_filters() -> None:
    names = [each.name for each in plugin.clustr_register_filters({})]
    assert names == ["min_sharpness", "max_sharpness"]
