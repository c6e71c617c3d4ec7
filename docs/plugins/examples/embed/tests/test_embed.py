import numpy as np
import pytest
from clustr_embed import Embed
from PIL import Image

from clustr.testing import assert_analyzer_contract, run_analyzer, sample_image


def vector_of(picture):
    return np.frombuffer(run_analyzer(Embed(), picture).vectors["embedding"], np.float16)


def test_it_keeps_the_contract():
    assert_analyzer_contract(Embed())


def test_a_smaller_copy_is_near_and_another_picture_is_far():
    picture = Image.open(sample_image("jpeg")).convert("RGB")
    one = vector_of(picture)
    smaller = vector_of(picture.resize((picture.width // 2, picture.height // 2)))
    other = vector_of(picture.point(lambda value: 255 - value))
    assert one @ smaller > 0.99
    assert one @ other < 0


@pytest.mark.parametrize("grey", [127, 128])
def test_what_has_no_direction_has_no_vector(grey):
    end = run_analyzer(Embed(), Image.new("RGB", (8, 8), (grey,) * 3))
    assert (end.state, end.vectors) == ("succeeded", {})
