"""The language of searches: its parts, and errors that say what is wrong where."""

from datetime import date

import pytest

from clustr.domain.errors import InvalidInput
from clustr.search.query import MAX_PARTS, Phrase, Taken, Word, parse
from clustr.search.terms import FIELDS, Stemming

STEMMING = Stemming(["en"])
ARROWS = ["cat -> dog", "cat --> dog", "cat -= dog", "cat -+ dog", "cat -| dog", "cat -— dog"]


def errors(q: str) -> str:
    with pytest.raises(InvalidInput) as raised:
        parse(q, STEMMING)
    (message,) = raised.value.errors["q"]
    return message


@pytest.mark.parametrize(
    ("q", "said"),
    [
        ('a "cat on', "The quotation mark at character 3 is not closed"),
        ("", "Give a word"),
        (" ... -! ", "Give a word"),
        ('cat -tag:"⭐"', "At character 5: there are no letters and no digits to look for"),
        ("cat -⭐", "At character 5: there are no letters"),
        ('-"❤️ !" cat', "At character 1: there are no letters"),
        ("cat -‼\ufe0f", "At character 5: there are no letters"),
        ("cat -#\ufe0f\u20e3", "At character 5: there are no letters"),
        ("cat -*.png", "At character 5: there are no letters"),
        ('cat -"*.png"', "endings of names are not looked for"),
        ("cat -_.jpeg", "endings of names are not looked for"),
        ("*.png cat", "At character 1: there are no letters"),
        ("tag:⭐ cat", "At character 1: there are no letters"),
        ("cat name:!!!", "At character 5: there are no letters"),
        ('tag:"" cat', "At character 1: there are no letters"),
        ("cat tags:dog", "At character 5: there is no `tags:`"),
        ("cat tag: dog", "At character 5: a word has to follow `tag:` directly"),
        ("taken:yesterday", "At character 1: `taken:yesterday` has no date"),
        ("dog before:2024-13", "At character 5: `before:2024-13` has no date"),
        ("dog -after:2024-02-30", "At character 5: `after:2024-02-30` has no date"),
        ("dog taken:2024-00", "At character 5: `taken:2024-00` has no date"),
        ("taken:2024-07-00", "has no date"),
        ("taken:0000", "has no date"),
        ("after:9999", "has no date"),
        ("before:0001", "has no date"),
        (" ".join(["cat"] * (MAX_PARTS + 1)), f"Give at most {MAX_PARTS}"),
    ],
)
def test_errors_say_what_is_wrong_where(q, said):
    assert said in errors(q)


def test_the_parts_of_a_search():
    parts = parse('cat "on a sofa" -dog tag:red taken:2024-07 ', STEMMING).parts
    assert [part.excluded for part in parts] == [False, False, True, False, False]
    kinds = [{type(condition) for condition in part.conditions} for part in parts]
    assert kinds == [{Word}, {Word, Phrase}, {Word}, {Word}, {Taken}]
    assert parts[1].conditions[-1] == Phrase(tuple(FIELDS), ("on", "a", "sofa"))
    (red,) = parts[3].conditions
    assert isinstance(red, Word)
    assert red.fields == ("tag",)


@pytest.mark.parametrize("q", ["http://example.org/dog", "10:30", '"re: dog"', "dog's", "a-b_c"])
def test_what_looks_like_the_grammar_is_looked_for(q):
    assert parse(q, STEMMING).words


@pytest.mark.parametrize("q", ["cat & dog", "cat - dog", "cat -! dog", "cat ⭐ dog", *ARROWS])
def test_punctuation_by_itself_is_left_out(q):
    assert parse(q, STEMMING).parts == parse("cat dog", STEMMING).parts


@pytest.mark.parametrize(
    ("q", "first", "last"),
    [
        ("taken:2024", date(2024, 1, 1), date(2024, 12, 31)),
        ("taken:2024-12", date(2024, 12, 1), date(2024, 12, 31)),
        ("taken:2024-2", date(2024, 2, 1), date(2024, 2, 29)),
        ("taken:2024-2-29", date(2024, 2, 29), date(2024, 2, 29)),
        ("before:2024-07", date.min, date(2024, 6, 30)),
        ("after:2024-07", date(2024, 8, 1), date.max),
        ("after:2024-12-31", date(2025, 1, 1), date.max),
    ],
)
def test_dates_are_periods(q, first, last):
    ((condition,),) = (part.conditions for part in parse(q, STEMMING).parts)
    assert condition == Taken(first, last)


def test_dates_match_the_day_on_which_a_picture_was_taken():
    stored = STEMMING.terms_of_upload("1.jpg", "a dog", taken_on=date(2024, 7, 31))
    assert parse("dog taken:2024-07", STEMMING).matches(stored)
    assert not parse("dog after:2024-07", STEMMING).matches(stored)
    assert parse("dog -taken:2024-08", STEMMING).matches(stored)
    undated = STEMMING.terms_of_upload("1.jpg", "a dog")
    assert not parse("taken:2024-07", STEMMING).matches(undated)
    assert parse("-taken:2024-07", STEMMING).matches(undated)


def test_the_best_match_has_the_lowest_rank():
    words = [
        ("1.jpg", None, ["beach"]),
        ("1.jpg", "at the beach", []),
        ("beach.jpg", None, []),
        ("1.jpg", "at beaches", []),
        ("1.jpg", "a beachfront", []),
    ]
    query = parse("beach", STEMMING)
    ranks = [query.rank({*STEMMING.terms_of_upload(*each).terms}) for each in words]
    assert ranks == sorted(set(ranks))


def test_a_hit_says_in_which_fields_it_matches():
    query = parse("dog bea", STEMMING)
    terms = {*STEMMING.terms_of_upload("beach.jpg", "two dogs", ["dog", "cat"]).terms}
    assert query.matched_fields(terms) == ["tag", "caption", "name"]
    terms = {*STEMMING.terms_of_upload("1.jpg", "two dogs on a beach", ["cat"]).terms}
    assert query.matched_fields(terms) == ["caption"]
