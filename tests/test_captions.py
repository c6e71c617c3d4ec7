"""`clean_caption` and `clean_tags`: what is kept of the words of captioners."""

import pytest

from clustr.plugins import clean_caption, clean_tags


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        ("This image shows a cat on a mat.", "A cat on a mat."),
        ("The photo depicts two dogs.", "Two dogs."),
        ("the picture features a red car", "a red car"),
        ("In this image, we can see a beach.", "A beach."),
        ("In the picture there are three boats", "Three boats"),
        ("an image of a cat", "a cat"),
        ("A photograph of the sea", "The sea"),
        ("This is a photo of a bridge.", "A bridge."),
        ("Here is an image showing a bridge.", "A bridge."),
        ("Caption: A cat", "A cat"),
        ("This image of a cat was taken at night.", "A cat was taken at night."),
    ],
)
def test_an_opening_that_says_nothing_is_cut(said, kept):
    assert clean_caption(said) == kept
    assert clean_caption(said, cut_opening=False) == said


@pytest.mark.parametrize(
    "said",
    [
        "a black and white photo of a man",
        "a close up of a flower",
        "a picture frame on a wall",
        "The image",
        "This image shows",
        "An image sensor of a camera",
        "a man shows a picture of his dog",
        "photo of a cat",
        "\u732b\u306e\u5199\u771f",
        "",
    ],
)
def test_everything_else_stays(said):
    assert clean_caption(said) == said


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        (["Cat", "cat", "CAT"], ["cat"]),
        (["dogs", "dog"], ["dogs", "dog"]),
        (["\ufb01sh", "fish"], ["\ufb01sh"]),
        (["Stra\u00dfe", "strasse"], ["stra\u00dfe"]),
        (["#beach", "'sea'", "sun.", "-"], ["beach", "sea", "sun", "-"]),
        (["ice  cream", "", " ", "\x00"], ["ice cream"]),
        (["sch\u00f6n", "schon"], ["sch\u00f6n", "schon"]),
    ],
)
def test_tags_are_in_lower_case_and_each_is_there_once(said, kept):
    assert clean_tags(said) == kept


def test_there_are_no_more_tags_than_asked_for():
    assert clean_tags(map(str, range(200))) == [str(number) for number in range(100)]
    assert clean_tags(["a", "A", "b", "c"], 2) == ["a", "b"]
    assert clean_tags(["a"], 0) == []
