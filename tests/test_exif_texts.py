"""Texts in EXIF data, which the analyzer `exif` makes harmless and readable."""

# ruff: noqa: RUF001  Letters of all scripts are meant here.

import pytest
from exif_data import (
    PHOTOGRAPH,
    Analyze,
    analyzes,
    block,
    image,
    jpeg,
    text_tag,
)
from PIL.ExifTags import Base

# Pillow warns of broken data while it opens a file; the worker ignores it (pillow_setup.prepare).
pytestmark = pytest.mark.filterwarnings("ignore:::PIL")


@pytest.fixture(scope="module")
def analyze(tmp_path_factory: pytest.TempPathFactory) -> Analyze:
    return analyzes(tmp_path_factory.mktemp("exif"))


TEXTS = (
    (Base.Make, lambda result: result["camera"]["make"]),
    (Base.Model, lambda result: result["camera"]["model"]),
    (Base.LensMake, lambda result: result["lens"]["make"]),
    (Base.LensModel, lambda result: result["lens"]["model"]),
    (Base.Software, lambda result: result["software"]),
    (Base.Artist, lambda result: result["artist"]),
    (Base.Copyright, lambda result: result["copyright"]),
)
FLAG = "🏴\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f"
JOINED = f"👩\u200d🚀 می\u200cکنم {FLAG} a\u2060b"
STRINGS = {
    "html": (b"<script>alert(1)</script>", "<script>alert(1)</script>"),
    "operator": (b'{"$where": "sleep(1)"}', '{"$where": "sleep(1)"}'),
    "sql": (b"'; DROP TABLE users;--", "'; DROP TABLE users;--"),
    "format": (b"%s%n{0.__class__}${jndi:ldap://a}", "%s%n{0.__class__}${jndi:ldap://a}"),
    "padded": (b"  OLYMPUS  CORP.   \0\0\0", "OLYMPUS CORP."),
    "behind its end": (b"Canon\0what was in memory", "Canon"),
    "NUL first": (b"\0secret", None),
    "nothing": (b"    ", None),
    "controls": (b"a\x1b[31mb\x07\x7f\xc2\x9bc", "a[31mbc"),
    "lines": (b"two\r\nlines\tof text", "two lines of text"),
    "directions": ("a\u202eb\u2066c\u200fd\ufeffe\u202c".encode(), "abc\u200fde"),
    "unicode": ("Ω≈ç 田中さん 👩 e\u0301".encode(), "Ω≈ç 田中さん 👩 e\u0301"),
    "joiners": (JOINED.encode(), JOINED),
    "of a later Unicode": (
        "\U0001fae8\U0001fae9\U000e1000".encode(),
        "\U0001fae8\U0001fae9\U000e1000",
    ),
    "surrogates": (b"a\xed\xa0\x80b", "a\ufffd\ufffd\ufffdb"),
    "latin-1": (b"M\xfcller", "Müller"),
    "nothing of windows-1252": (b"\x81M\xfcller", "Müller"),
    "not characters": ("a\ufffeb\U0010ffffc\ue000d\ufdd0".encode(), "abcd"),
    "cut": ("Zoë Müllerö".encode()[:-1], "Zoë Müller"),
    "broken": ("Zoë".encode() + b"\xff" + "Müller".encode(), "Zoë\ufffdMüller"),
    "long": (b"x" * 60_000, "x" * 255),
    "long characters": ("😀".encode() * 10_000, "😀" * 255),
}


@pytest.mark.parametrize("name", STRINGS)
@pytest.mark.parametrize(("tag", "read"), TEXTS)
def test_A11_texts(analyze, name, tag, read):
    written, expected = STRINGS[name]
    result = analyze(jpeg(block(text_tag(tag, written))))
    assert read(result) == expected


@pytest.mark.parametrize(
    ("encoding", "texts"),
    [
        ("utf-8", "Zoë Müller|田中さん|Привет|日本|é|😀|Ω≈ç"),
        (
            "latin-1",
            "Müller|Zoë Müller|Hélène|préférés|étés|MÜLLER © 2024|André|Ångström|¡Olé!|niño|é"
            "|Ñandú|çà et là|Große Straße|Français, à l'été|Ærø|ÀÉÎ|± 0.5°|Þórður",
        ),
        (
            "cp1252",
            "It’s O’Brien|“Hello” he said — “bye”|Žižek|Šaša Žižek|cœur|€ 100|l’été|™ Foo®"
            "|wait…what|L’Œuvre d’été|‘A’|Rock’n’Roll|Copyright © 2024 – Zoë’s “Studio”",
        ),
        (
            "cp932",
            "山田太郎|田中|撮影者|カメラ|キヤノン株式会社|日本|林|森|渡邊|Nikon カメラ"
            "|株式会社ニコン|DSC-H7 撮影|ひらがな|東京タワー|佐藤 花子|高木"
            "|鈴木|Copyright 2024 山田|デジタル一眼レフ|ﾆｺﾝ 日本製|木村|伊藤|中村"
            "|撮影 渡邊太郎 (C) 2024",
        ),
    ],
)
def test_texts_in_the_encodings_that_programs_write(analyze, encoding, texts):
    for text in texts.split("|"):
        for ending in (b"\0", b" \0\0", b""):
            written = text_tag(Base.Artist, text.encode(encoding) + ending)
            assert analyze(jpeg(block(written)))["artist"] == text


@pytest.mark.parametrize(
    ("encoding", "character"), [("utf-8", "田"), ("cp932", "田"), ("utf-8", "é")]
)
@pytest.mark.parametrize("before", ["", "a", "ab", "abc"])
def test_long_texts_are_not_cut_within_a_character(analyze, encoding, character, before):
    written = text_tag(Base.Artist, (before + character * 5_000).encode(encoding))
    assert analyze(jpeg(block(written)))["artist"] == (before + character * 255)[:255]


@pytest.mark.parametrize("extension", ["png", "webp", "tif"])
def test_A11_nasty_strings_in_all_tags_of_other_formats(analyze, extension):
    for written, _ in STRINGS.values():
        value = written.decode("latin-1")[:20_000]
        tags = dict.fromkeys((tag for tag, _ in TEXTS), value)
        analyze(image(extension, tags, dict.fromkeys(PHOTOGRAPH, value), {1: value, 29: value}))
