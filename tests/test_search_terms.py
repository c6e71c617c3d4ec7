"""Terms and matching: what a search finds, and what it must not find, in many scripts."""

# ruff: noqa: RUF001  Letters of all scripts are meant here.

from dataclasses import dataclass

import pytest

from clustr.search.query import parse
from clustr.search.terms import (
    LONGEST_TAG,
    LONGEST_WORD,
    MAX_TOKENS,
    Stemming,
    fold,
    name_tokens,
    text_tokens,
)

STEMMING = Stemming(("en", "ru"))


@dataclass(frozen=True)
class Words:
    """The words of an upload."""

    name: str
    caption: str | None = None
    tags: tuple[str, ...] = ()


LIBRARY = {
    "dogs": Words("IMG_2024-07-Beach.jpg", "two dogs on a beach", ("dog", "sandy beach")),
    "cat": Words("DSC01234.JPG", "a cat sleeps on the sofa beside a dog", ("cat", "Sofa")),
    "vacation": Words("summerHoliday2023.heic", "our vacation at the sea", ("vacation",)),
    "rocket": Words("rocket_0954.jpg", "a rocket starts at 10:30, 1,000.5 tons", ("space",)),
    "rock": Words("rock'n'roll.png", "the band's singer", ("music",)),
    "street": Words("strasse.png", "eine lange Straße in München", ("Straße",)),
    "cafe": Words("5.webp", "un café à l'ombre", ("Café", "Crème brûlée")),
    "sea-ru": Words("море.jpg", "дом у моря, ёлки и йод", ("море",)),
    "city-ru": Words("6.jpg", "и снова большие города", ("город",)),
    "temple": Words("7.jpg", "Ναός στην Αθήνα, Ο ΔΡΟΜΟΣ", ("ναός",)),
    "photo-ja": Words("8.jpg", "日本語の海の写真", ("写真",)),
    "bus": Words("9.jpg", "バスとパン", ("バス",)),
    "lotus": Words("10.jpg", "ハスの花", ("ハス",)),
    "zh": Words("北京2024.jpg", "北京的長城", ("長城", "ﾃｽﾄ")),
    "ko": Words("11.jpg", "바다에서 찍은 사진", ("바다",)),
    "thai": Words("12.jpg", "ทะเลสวยมาก", ("ทะเล",)),
    "thai-field": Words("13.jpg", "ทุ่งนา", ("นา",)),
    "hindi": Words("14.jpg", "समुद्र के किनारे हिन्दी", ("समुद्र",)),
    "hindi-other": Words("15.jpg", "हद और समद", ("हद",)),
    "arabic": Words("16.jpg", "صورة البحر", ("بحر",)),
    "hebrew": Words("17.jpg", "תמונה של הים", ("ים",)),
    "ukrainian": Words("18.jpg", "їжак і йогурт", ("їжак",)),
    "many": Words("scan.tif", None, ("Zürich", "ｆｕｌｌ ｗｉｄｔｈ")),
}

# What is looked for, and just which uploads are found.
QUERIES = [
    # English: stems, all words, fields, minus, phrases
    ("dog", "dogs cat"),
    ("dogs", "dogs cat"),
    ("DOG", "dogs cat"),
    ("dogs beach", "dogs"),
    ("dog sofa", "cat"),
    ("dog rocket", ""),
    ("vacations", "vacation"),
    ("sleeping", "cat"),
    ("dog -cat", "dogs"),
    ("dog -sofa -beach", ""),
    ('"on a beach"', "dogs"),
    ('"a on beach"', ""),
    ('"dogs on"', "dogs"),
    ('"dog on"', ""),
    ('dog -"on a beach"', "cat"),
    ('"dog"', "dogs cat"),
    ('"vacations"', ""),
    ("tag:dog", "dogs"),
    ("tag:beach", "dogs"),
    ('tag:"sandy beach"', "dogs"),
    ('caption:"sandy beach"', ""),
    ("caption:cat -tag:dog", "cat"),
    ("name:beach", "dogs"),
    ("name:dog", ""),
    ("band", "rock"),
    ("bands", "rock"),
    ("singers", "rock"),
    # names of files, and numbers
    ("rocket", "rocket"),
    ("jpg", ""),
    ("rocket_0954.jpg", "rocket"),
    ("0954", "rocket"),
    ("IMG_2024-07-Beach", "dogs"),
    ("2024", "dogs zh"),
    ("2024-07", "dogs"),
    ("holiday", "vacation"),
    ("summerholiday2023", "vacation"),
    ("10:30", "rocket"),
    ("1,000.5", "rocket"),
    ("000.5", ""),
    # marks and letters
    ("strasse", "street"),
    ("Straße", "street"),
    ("munchen", "street"),
    ("MÜNCHEN", "street"),
    ("cafe", "cafe"),
    ("CAFÉS", "cafe"),
    ("ombre", "cafe"),
    ('tag:"creme brulee"', "cafe"),
    ("zurich", "many"),
    ("full width", "many"),
    # Russian and Ukrainian
    ("море", "sea-ru"),
    ("моря", "sea-ru"),
    ("елка", "sea-ru"),
    ("йод", "sea-ru"),
    ("иод", ""),
    ("городами", "city-ru"),
    ("їжак", "ukrainian"),
    ("іжак", ""),
    # Greek
    ("ναοσ", "temple"),
    ("ΝΑΌΣ", "temple"),
    ("δρόμος", "temple"),
    # Chinese and Japanese
    ("海", "photo-ja"),
    ("海の", "photo-ja"),
    ("日本語", "photo-ja"),
    ("本日", ""),
    ("写真 海", "photo-ja"),
    ("バス", "bus"),
    ("ハス", "lotus"),
    ("長城", "zh"),
    ("城長", ""),
    ("北京2024", "zh"),
    ("テスト", "zh"),
    # Korean, Thai
    ("바다", "ko"),
    ("사진", "ko"),
    ("다바", ""),
    ("ทะเล", "thai"),
    ("สวย", "thai"),
    ("นา", "thai-field"),
    ("ทุงนา", ""),
    # Hindi, Arabic, Hebrew
    ("हिन्दी", "hindi"),
    ("समुद्र", "hindi"),
    ("समद", "hindi-other"),
    ("صورة", "arabic"),
    ("بحر", "arabic"),
    ("תמונה", "hebrew"),
    ("הים -תמונה", ""),
]
PREFIXES = [
    ("vac", "vacation"),
    ("vacati", "vacation"),
    ("dog be", "dogs cat"),
    ("be dog", ""),
    ("v", ""),
    ("tag:sa", "dogs"),
    ("name:sa", ""),
    ("dog -so", "dogs cat"),
    ('"vac"', ""),
    ("vac ", ""),
    ("мо", "sea-ru"),
    ("город", "city-ru"),
    ("2024-0", "dogs"),
    ("समु", "hindi"),
    ("stras", "street"),
]


def found(q: str, prefix: bool = False) -> set[str]:
    query = parse(q, STEMMING, prefix)
    stored = {
        key: STEMMING.terms_of_upload(words.name, words.caption, words.tags)
        for key, words in LIBRARY.items()
    }
    return {key for key, terms in stored.items() if query.matches(terms)}


@pytest.mark.parametrize(("q", "expected"), QUERIES)
def test_whole_words_find_these_uploads_and_no_others(q, expected):
    assert found(q) == {*expected.split()}


@pytest.mark.parametrize(("q", "expected"), PREFIXES)
def test_the_last_word_is_a_prefix_while_somebody_types(q, expected):
    assert found(q, prefix=True) == {*expected.split()}


@pytest.mark.parametrize(("q", "is_found"), [("general", True), ('"general"', False)])
def test_a_word_in_quotation_marks_is_just_that_word(q, is_found):
    stored = STEMMING.terms_of_upload("1.jpg", "generally")
    assert parse(q, STEMMING, prefix=False).matches(stored) == is_found


@pytest.mark.parametrize(
    ("name", "q"),
    [
        ("ශ්\u200dරී ලංකාව.jpg", "ශ්\u200dරී ලංකාව.jpg"),
        ("می\u200cخواهم.jpg", "می\u200cخواهم"),
        ("Soft\u00adware.jpg", "software"),
        ("summer holiday.jpg", '"summer holiday.jpg"'),
        ("IMG_1234.jpg", '"IMG_1234.jpg"'),
        ("Tom's dog.jpg", '"Tom\'s dog"'),
        ("YouTube video.jpg", '"youtube video"'),
        ("YouTube video.jpg", '"you tube video"'),
        ("DSC01234 edited.jpg", '"DSC01234 edited"'),
        ("iPhone 15.jpg", '"iphone 15"'),
        ("YouTube日本.jpg", "youtube"),
    ],
)
def test_an_upload_is_found_by_its_own_name(name, q):
    assert parse(q, STEMMING, prefix=False).matches(STEMMING.terms_of_upload(name))


def test_terms_say_the_field_and_whether_it_is_just_this_word():
    stored = STEMMING.terms_of_upload("Beach.jpg", "two beaches", ["beach", "red ball"])
    assert {"c=two", "c=beaches", "c~beach", "#=beach", "t=red", "t=ball", "n=beach"} <= {
        *stored.terms
    }
    assert "#=red ball" in stored.terms
    assert not {"c=beach", "t=beach", "#=red"} & {*stored.terms}
    assert stored.text == "t beach \nt red ball \nc two beaches \nn beach "


def test_the_languages_are_those_that_are_chosen():
    text = "у моря"
    assert "c~мор" in STEMMING.terms_of_upload("1.jpg", text).terms
    assert "c~мор" not in Stemming(["en"]).terms_of_upload("1.jpg", text).terms
    assert STEMMING.version != Stemming(["en"]).version


@pytest.mark.parametrize(
    ("word", "folded"),
    [
        ("straße", "strasse"),
        ("ёж", "еж"),
        ("йод", "йод"),
        ("ναός", "ναοσ"),
        ("バス", "バス"),
        ("हिन्दी", "हिन्दी"),
        ("น้ำ", "น้ำ"),
        ("ệ", "e"),
        ("łøđð", "lodd"),
        ("ǿæœþı", "oaeoethi"),
    ],
)
def test_only_latin_and_greek_letters_lose_their_marks(word, folded):
    assert fold(word) == folded


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("IMG_2024-07-Beach.jpg", "img 2024-07 beach"),
        ("myHTMLPage.png", "my html page"),
        ("IMG20240715_123456.jpeg", "img 20240715 123456"),
        ("a.b.c.webp", "a b c"),
        (".jpg", "jpg"),
        ("日本2024海.jpg", "日 本 2024 海"),
        ("___.jpg", ""),
    ],
)
def test_names_of_files_are_cut_at_all_that_people_write_between_words(name, words):
    assert " ".join(token.word for token in name_tokens(name)) == words


def test_long_texts_have_a_limited_number_of_terms_of_limited_length():
    stored = STEMMING.terms_of_upload(
        "x" * 300, " ".join(f"w{n}" for n in range(5 * MAX_TOKENS)), ["y" * 1000 + " z" * 1000]
    )
    assert len(stored.terms) < 3 * MAX_TOKENS
    assert max(map(len, stored.terms)) <= max(LONGEST_WORD, LONGEST_TAG) + 2


def test_what_is_not_seen_does_not_matter():
    assert [t.word for t in text_tokens("so\u00adfa \u200ebei\u200dge")] == ["sofa", "beige"]
