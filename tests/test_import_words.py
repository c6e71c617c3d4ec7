"""The words that `clustr import` finds beside pictures: XMP, and the JSON of Google Takeout."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from importing import Import, counts
from web_side import WebSide

from clustr.client.importing.sidecars import sidecar_names, sidecars_of

NAMESPACES = """
 xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#" xmlns:dc="http://purl.org/dc/elements/1.1/"
 xmlns:photoshop="http://ns.adobe.com/photoshop/1.0/" xmlns:exif="http://ns.adobe.com/exif/1.0/"
 xmlns:xmp="http://ns.adobe.com/xap/1.0/"
"""
LONG = "a photograph with a name that nobody would like to type.jpg"


@pytest.fixture(scope="module")
def web(web_with: Callable[..., WebSide]) -> WebSide:
    return web_with(processes=1)


@pytest.fixture
def pictures(web: WebSide, tmp_path: Path) -> Import:
    return Import(web, tmp_path, "")


def xmp(inside: str, attributes: str = "") -> str:
    """A sidecar whose description has these elements and attributes."""
    description = f"<rdf:Description {attributes}>{inside}</rdf:Description>"
    rdf = f"<rdf:RDF>{description}</rdf:RDF>"
    return f"<x:xmpmeta xmlns:x='adobe:ns:meta/' {NAMESPACES}>{rdf}</x:xmpmeta>"


def listed(name: str, kind: str, *items: str) -> str:
    """An element with a list."""
    inside = "".join(f"<rdf:li{item}</rdf:li>" for item in items)
    return f"<{name}><rdf:{kind}>{inside}</rdf:{kind}></{name}>"


def takeout(**said: Any) -> str:
    return json.dumps(said)


def words(pictures: Import, name: str) -> tuple[Any, Any, Any]:
    """Caption, tags and time of the picture with this name, as the service answers them."""
    upload_id = pictures.upload(name)["_id"]
    found = pictures.web.workshop.app.test_client().get(f"/api/uploads/{upload_id}").json
    return found["caption"], found["tags"], found["taken_at"]


def test_words_of_sidecars_come_with_the_pictures(pictures):
    whole = xmp(
        listed("dc:title", "Alt", ' xml:lang="de">Katze', ' xml:lang="x-default">Mimi')
        + listed("dc:description", "Alt", ' xml:lang="x-default">asleep &amp;\n  at home')
        + listed("dc:subject", "Bag", ">cat", ">sofa", "/><rdf:li>"),
        'photoshop:DateCreated="2024-07-01T00:30:00+02:00"',
    )
    for name in ("beside.jpg", "stem.jpg", "both.jpg", "old.jpg", "new.jpg", "two(1).jpg", LONG):
        pictures.add(name)
    pictures.add("beside.jpg.xmp", whole)
    pictures.add(
        "stem.XMP", xmp("<exif:DateTimeOriginal>2024:07:01 12:00:00</exif:DateTimeOriginal>")
    )
    pictures.add("both.jpg.xmp", xmp("", 'dc:title="ours"'))
    pictures.add("both.jpg.json", takeout(description="theirs", photoTakenTime={"timestamp": "60"}))
    pictures.add("old.jpg.json", takeout(description="Ostsee", people=[{"name": "Anna"}, {}, 5]))
    pictures.add("new.jpg.supplemental-metadata.json", takeout(description="Nordsee"))
    pictures.add("two.jpg(1).json", takeout(title="two.jpg", description="the second"))
    pictures.add(f"{LONG[:46]}.json", takeout(title=LONG, description="long"))
    ran = pictures.run("--tag", "all")
    assert ran.returncode == 0, ran.stdout
    assert words(pictures, "beside.jpg") == (
        "Mimi: asleep & at home",
        ["all", "cat", "sofa"],
        "2024-06-30T22:30:00.000000Z",
    )
    assert words(pictures, "stem.jpg") == (None, ["all"], "2024-07-01T12:00:00.000000Z")
    assert words(pictures, "both.jpg") == ("ours", ["all"], "1970-01-01T00:01:00.000000Z")
    assert words(pictures, "old.jpg") == ("Ostsee", ["all", "Anna"], None)
    assert words(pictures, "new.jpg") == ("Nordsee", ["all"], None)
    assert words(pictures, "two(1).jpg") == ("the second", ["all"], None)
    assert words(pictures, LONG) == ("long", ["all"], None)


@pytest.mark.parametrize(
    ("sidecar", "said"),
    [
        ("<x", "it is no XML"),
        ('<!DOCTYPE x [<!ENTITY a "aaaa">]><x>&a;</x>', "declares a document type"),
        ("<?xml version='1.0' encoding='none'?><x/>", "it is no XML"),
        ("\0" * 5_000_000, "it has more than 4194304 bytes"),
        (xmp(f"<dc:description>{'word ' * 300}</dc:description>"), "caption after 1000"),
        (xmp(listed("dc:subject", "Bag", *(f">tag {n}" for n in range(120)))), "after 100 of them"),
    ],
)
def test_words_that_cannot_be_read_are_listed_and_the_picture_is_sent(pictures, sidecar, said):
    pictures.add("one.jpg")
    pictures.add("one.jpg.xmp", sidecar)
    ran = pictures.run()
    assert ran.returncode == 1
    assert counts(ran) == {"uploaded": 1, "words that were lost": 1}
    ((_, detail),) = pictures.report().values()
    assert said in detail


@pytest.mark.parametrize(
    ("picture", "sidecars", "found"),
    [
        ("a.jpg", ["a.jpg.json", "a.jpg(1).json", "b.jpg.json", "a.json"], ["a.jpg.json"]),
        ("a(1).jpg", ["a.jpg.json", "a.jpg(1).json"], ["a.jpg(1).json"]),
        (
            "a(1).jpg",
            ["a.jpg.supplemental-metadata(1).json"],
            ["a.jpg.supplemental-metadata(1).json"],
        ),
        ("a.jpg", ["a.jpg.supplemental-metadata(1).json"], []),
        ("a.jpg", ["a.jpg.suppl.json"], ["a.jpg.suppl.json"]),
        ("a.jpg", ["a.jpg.other.json", "a.jpgx.json"], []),
        (LONG, [f"{LONG[:46]}.json"], [f"{LONG[:46]}.json"]),
        (f"{LONG[:-4]}(2).jpg", [f"{LONG[:46]}(2).json"], [f"{LONG[:46]}(2).json"]),
        (LONG, [f"{LONG[:40]}.json"], []),
        ("a-edited.jpg", ["a.jpg.json"], ["a.jpg.json"]),
        ("a-edited(1).jpg", ["a.jpg(1).json"], ["a.jpg(1).json"]),
        ("A.JPG", ["a.jpg.xmp", "a.xmp", "A.JPG.json"], ["a.jpg.xmp", "A.JPG.json"]),
    ],
)
def test_the_names_of_sidecars(picture, sidecars, found):
    assert [*sidecars_of(picture, sidecar_names(sidecars))] == found


def test_a_json_of_another_picture_with_the_same_cut_name_says_nothing(pictures):
    other = f"{LONG[:46]} another.jpg"
    pictures.add(LONG)
    pictures.add(f"{LONG[:46]}.json", takeout(title=other, description="another"))
    assert pictures.run().returncode == 0
    assert words(pictures, LONG) == (None, [], None)


@pytest.mark.parametrize(
    "said",
    [
        [],
        {"photoTakenTime": 5, "people": "Anna", "description": 5},
        {"photoTakenTime": {"timestamp": "9" * 30}, "people": [{"name": 5}]},
        {"photoTakenTime": {"timestamp": "soon"}, "description": "\u202e \u200b"},
    ],
)
def test_what_is_not_as_expected_says_nothing(pictures, said):
    pictures.add("one.jpg")
    pictures.add("one.jpg.json", json.dumps(said))
    assert pictures.run().returncode == 0
    assert words(pictures, "one.jpg") == (None, [], None)


def test_sidecars_without_a_picture_are_counted_and_links_are_not_read(pictures, tmp_path):
    outside = tmp_path / "outside.xmp"
    outside.write_text(xmp("", 'dc:title="of nobody else"'))
    pictures.add("one.jpg")
    (pictures.folder / "one.jpg.xmp").symlink_to(outside)
    pictures.add("film.mp4.json", takeout(description="a film"))
    assert counts(pictures.run()) == {
        "uploaded": 1,
        "links that lead out of the folder, not followed": 1,
        "sidecars (.xmp, .json) of no picture here": 1,
    }
    assert words(pictures, "one.jpg") == (None, [], None)
