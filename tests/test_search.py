"""Search: words in tags, captions and original names, in a useful order."""

import itertools
from collections.abc import Iterator
from typing import Any

import pytest
from flask.testing import FlaskClient
from running import Servers, moment
from workshop import Workshop

from clustr.database import new_id, now
from clustr.database.documents import to_document
from clustr.database.tags import tag_fields
from clustr.domain.models import Status, Upload

PROBLEM = "application/problem+json"
COUNT = 1500
RARE = 25


def document(name: str, caption: str | None = None, *tags: str, **more: Any) -> dict[str, Any]:
    upload_id, moment = new_id(), now()
    upload = Upload(
        id=upload_id,
        original_name=name,
        filename=f"{upload_id}.jpg",
        upload_time=moment,
        updated_at=moment,
        size=1000,
        content_type="image/jpeg",
        sha256=upload_id.rjust(64, "0"),
        width=10,
        height=10,
        status=Status.PROCESSED,
        analyses=(),
        request_id="seeded",
        caption=caption,
    )
    return to_document(upload) | {"caption": caption, **tag_fields(tags), **more}


FEW = {
    "named": document("zebra at night.jpg", "something striped"),
    "captioned": document("1.jpg", "a zebra in the grass and a lion"),
    "tagged": document("2.jpg", "an animal", "zebra", "grass"),
    "longer": document("3.jpg", "an animal", "zebra crossing"),
    "all of it": document("zebra.jpg", "a zebra", "zebra"),
    "accented": document("4.jpg", "un café à Paris", "Café"),
    "named so": document("5.jpg", "a $where (in) brackets.* [all]"),
}


@pytest.fixture(scope="module")
def workshop(servers: Servers, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workshop]:
    with Workshop(tmp_path_factory.mktemp("search"), servers) as workshop:
        workshop.web.database.make_indexes()
        common = (
            document(f"{n}.jpg", "a bird over the sea", *(["sea"] if n % 2 else []), size=n + 1)
            for n in range(COUNT)
        )
        some = [document(f"{n}.jpg", "one that is seldom seen") for n in range(RARE)]
        workshop.collection.insert_many([*FEW.values(), *some, *common])
        yield workshop


@pytest.fixture(scope="module")
def client(workshop: Workshop) -> FlaskClient:
    return workshop.app.test_client()


def search(client: FlaskClient, q: str, **more: Any) -> dict[str, Any]:
    answer = client.get("/api/uploads", query_string={"q": q, **more})
    assert answer.status_code == 200, answer.text
    return answer.get_json()


def names(page: dict[str, Any]) -> list[str]:
    known = {str(document["_id"]): name for name, document in FEW.items()}
    return [known.get(upload["id"], "a bird") for upload in page["data"]]


def test_exact_tags_come_first_then_what_matches_best(client):
    page = search(client, "zebra")
    assert page["order"] == "score"
    assert page["total"] == 5
    assert not page["total_is_estimate"]
    found = names(page)
    assert found[:2] == ["all of it", "tagged"]
    assert found[2] == "longer"
    assert set(found[3:]) == {"named", "captioned"}
    matched = dict(zip(found, (upload["matched"] for upload in page["data"]), strict=True))
    assert matched == {
        "all of it": ["tag", "caption", "name"],
        "tagged": ["tag"],
        "longer": ["tag"],
        "captioned": ["caption"],
        "named": ["name"],
    }


@pytest.mark.parametrize(
    ("q", "found"),
    [
        ("ZEBRA -animal", {"named", "captioned", "all of it"}),
        ('zebra -"an animal"', {"named", "captioned", "all of it"}),
        ('"zebra crossing"', {"longer"}),
        ('"in the grass"', {"captioned"}),
        ("lion paris", {"captioned", "accented"}),
        ("cafe", {"accented"}),
        ("CAFÉ", {"accented"}),
        ("$where", {"named so"}),
        ("unheard", set()),
    ],
)
def test_words_phrases_and_minuses(client, q, found):
    page = search(client, q)
    assert set(names(page)) == found
    assert page["total"] == len(found)
    assert all(upload["matched"] for upload in page["data"])


@pytest.mark.parametrize("q", ["bird", "sea", '"the sea"', "bird zebra", "bird -zebra"])
def test_of_a_common_word_the_newest_come_first(client, q):
    page = search(client, q, limit=10)
    assert page["order"] == "newest"
    times = [(moment(upload["upload_time"]), upload["id"]) for upload in page["data"]]
    assert times == sorted(times, reverse=True)
    assert all("caption" in upload["matched"] for upload in page["data"])
    assert len(page["data"]) == 10
    assert page["total"] is None
    assert page["total_is_estimate"]


@pytest.mark.parametrize(("q", "total"), [("zebra", 5), ("bird", COUNT), ("sea", COUNT)])
def test_a_walk_is_whole(client, q, total):
    walked, more = [], {}
    for _ in range(100):
        page = search(client, q, limit=2 if total == 5 else 100, **more)
        walked += [upload["id"] for upload in page["data"]]
        if page["next_cursor"] is None:
            break
        more = {"cursor": page["next_cursor"]}
    assert len(walked) == len(set(walked)) == total
    first, second = search(client, q, limit=2), search(client, q, limit=2, page=2)
    assert [u["id"] for u in (*first["data"], *second["data"])] == walked[:4]


WRITTEN = ["Grünwald", "GRUNWALD", "gru\u0308nwald", "Grünwald's", "  grunwald-nord", "(GRÜNWALD)"]


@pytest.mark.parametrize("q", ["grünwald", "GRÜNWALD", "grunwald", "Gru\u0308nwald", "grünwald-x"])
@pytest.mark.parametrize("common", [False, True])
def test_the_same_word_finds_the_same_however_it_is_written_and_however_common_it_is(
    workshop, client, q, common
):
    words = [*WRITTEN, "grunwalder", "grün wald", "überGRÜNWALD", "Gruenwald"] * (
        10 if common else 1
    )
    fields = [(word, None, ()) for word in words] + [("1.jpg", word, ()) for word in words]
    fields += [("1.jpg", None, (word.strip(),)) for word in words]
    documents = [document(name, caption, *tags) for name, caption, tags in fields]
    keys = workshop.collection.insert_many(documents).inserted_ids
    try:
        meant = {str(d["_id"]) for d, f in zip(documents, fields, strict=True) if is_meant(f)}
        page = search(client, q, limit=100)
        assert page["order"] == ("newest" if common else "score")
        found = [*page["data"]]
        while page["next_cursor"]:
            page = search(client, q, limit=100, cursor=page["next_cursor"])
            found += page["data"]
        assert {one["id"] for one in found} == meant
        assert all(len(one["matched"]) == 1 for one in found)
        others = search(client, f'bird -"{q}"', limit=1)
        assert others["data"]
        phrase = search(client, f'"{q.removesuffix("-x")}"', limit=100)
        assert {one["id"] for one in phrase["data"]} <= meant
        assert phrase["total"] == (len(meant) if len(meant) <= 1000 else None)
        assert search(client, f"{q} -GRUNWALD -grünwald")["total"] == 0
    finally:
        workshop.collection.delete_many({"_id": {"$in": keys}})


def is_meant(fields: tuple[str, str | None, tuple[str, ...]]) -> bool:
    name, caption, tags = fields
    return any(word in (name, caption) or word.strip() in tags for word in WRITTEN)


@pytest.mark.parametrize("letter", "aou-" + "\u0131\u0301")
def test_the_longest_word_with_marks_can_be_looked_for(client, letter):
    for q in (f"bird {letter * 480}", f'"the {letter * 480}"'):
        answer = client.get("/api/uploads", query_string={"q": q})
        assert answer.status_code in (200, 422), answer.text


def test_only_what_is_shown_is_read(workshop, client):
    """However many have a word that is rare enough for an order."""
    uploads = workshop.collection
    uploads.database.command("profile", 2)
    page = search(client, "seldom", limit=5)
    uploads.database.command("profile", 0)
    assert page["order"] == "score"
    assert page["total"] == RARE
    assert len(page["data"]) == 5
    found = [*uploads.database["system.profile"].find({"ns": uploads.full_name, "op": "query"})]
    assert 1 <= sum(plan["docsExamined"] for plan in found) <= 6
    assert sum(plan["keysExamined"] for plan in found) < 4 * RARE


def test_the_index_of_an_older_version_is_made_anew(workshop, client):
    """Of one by which could not be said without a look which uploads have a word."""
    keys = [("tags", "text"), ("caption", "text")]
    workshop.collection.drop_index("words")
    workshop.collection.create_index(keys, name="words", default_language="none")
    workshop.web.database.make_indexes()
    assert search(client, "zebra")["total"] == 5


def test_search_goes_with_filters(client):
    assert names(search(client, "zebra", tag="grass")) == ["tagged"]
    assert names(search(client, "zebra", status="pending")) == []
    page = search(client, "bird", tag="sea", limit=5)
    assert [upload["tags"] for upload in page["data"]] == [["sea"]] * 5
    page = search(client, "bird", min_size=10, max_size=12)
    assert sorted(upload["size"] for upload in page["data"]) == [10, 11, 12]
    page = search(client, "zebra", fields="id,tags")
    assert all(upload.keys() == {"id", "tags", "matched"} for upload in page["data"])


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ({"q": ""}, "q"),
        ({"q": "-zebra"}, "q"),
        ({"q": '"zebra'}, "q"),
        ({"q": "- ... !"}, "q"),
        ({"q": "a " * 21}, "q"),
        ({"q": "a" * 501}, "q"),
        ({"q": "zebra", "sort": "size"}, "sort"),
        ({"q": "zebra", "cursor": "nonsense"}, "cursor"),
        ({"q": "zebra", "cursor": "A" * 3000}, "cursor"),
        ({"q": "zebra", "page": "1000000"}, "page"),
    ],
)
def test_what_is_wrong_is_named(client, query, field):
    answer = client.get("/api/uploads", query_string=query)
    assert answer.status_code == 422
    assert answer.content_type == PROBLEM
    assert list(answer.get_json()["errors"]) == [field]


def test_a_cursor_is_of_its_search(client):
    cursor = search(client, "zebra", limit=1)["next_cursor"]
    for query in ({"q": "bird"}, {"q": "zebra", "tag": "zebra"}, {}):
        answer = client.get("/api/uploads", query_string={**query, "cursor": cursor})
        assert list(answer.get_json()["errors"]) == ["cursor"]
    listed = client.get("/api/uploads?limit=1").get_json()["next_cursor"]
    answer = client.get("/api/uploads", query_string={"q": "zebra", "cursor": listed})
    assert list(answer.get_json()["errors"]) == ["cursor"]


@pytest.mark.parametrize("text", list(itertools.chain("\0\\*+?[](){}|^$.é日", ["(*UCP)", "\\E"])))
def test_any_character_is_looked_for_as_it_is(client, text):
    for q in (f"bird{text}", f'"bird {text}"', f"bird -x{text}y"):
        answer = client.get("/api/uploads", query_string={"q": q})
        assert answer.status_code in (200, 422), (q, answer.text)


@pytest.mark.parametrize("more", [{}, {"content_type": "image/jpeg"}])
def test_a_walk_repeats_no_upload_whose_words_are_changed_meanwhile(workshop, client, more):
    """Neither what was shown and matches less now, nor what was not and matches more."""
    found, changes = [], ["zebra", "nothing", "zebra zebra zebra zebra"]
    everything = [one["id"] for one in search(client, "zebra", **more)["data"]]
    page = search(client, "zebra", limit=1, **more)
    while True:
        found += [one["id"] for one in page["data"]]
        if page["next_cursor"] is None:
            break
        if changes:
            for upload_id in (found[-1], everything[-1]):
                edited = {"caption": changes[-1], "tags": {"set": [changes[-1]]}}
                answer = client.patch(f"/api/uploads/{upload_id}", json=edited)
                assert answer.status_code == 200
            changes.pop()
        page = search(client, "zebra", limit=1, cursor=page["next_cursor"], **more)
    assert found == [one for one in everything if one in found]
    assert len(found) == len({*found}) >= len(everything) - 1
