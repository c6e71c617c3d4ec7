"""The examples in docs/search.md are true."""

import re
from pathlib import Path

import pytest

from clustr.search.query import MAX_PARTS, parse
from clustr.search.terms import Stemming, UploadTerms

PAGE = (Path(__file__).parent.parent / "docs/search.md").read_text()
EXAMPLES = re.findall(r"^\| `(.+?)` \| .+ \| (.+) \| (.+) \|$", PAGE, re.MULTILINE)
STEMMING = Stemming(["en"])


def terms(text: str) -> UploadTerms:
    """The terms of an upload with this name, or else with this caption."""
    if text.endswith(".jpg"):
        return STEMMING.terms_of_upload(text)
    return STEMMING.terms_of_upload("1.jpg", text)


@pytest.mark.parametrize(("q", "found", "other"), EXAMPLES)
def test_an_example_finds_the_one_and_not_the_other(q, found, other):
    query = parse(q, STEMMING)
    assert query.matches(terms(found))
    assert not query.matches(terms(other))


def test_the_page_has_examples_and_the_limits():
    assert len(EXAMPLES) == 11
    assert f"at most {MAX_PARTS} parts" in PAGE
