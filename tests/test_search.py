"""Search: words in tags, captions and original names, in a useful order."""

import itertools
from collections.abc import Iterator
from typing import Any

import pytest
from flask.testing import FlaskClient
from running import Servers, moment
from workshop import Workshop

from clustr.database import MAX_RANKED, new_id, now
from clustr.database.documents import to_document
from clustr.database.tags import tag_fields
from clustr.domain.models import Status, Upload

PROBLEM = "application/problem+json"
COUNT = MAX_RANKED + 100
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


FEW: dict[str, dict[str, Any]] = {
    "named": document("zebra at night.jpg", "something striped"),
    "captioned": document("1.jpg", "a zebra in the grass and a lion"),
    "tagged": document("2.jpg", "an animal", "zebra", "grass"),
    "longer": document("3.jpg", "an animal", "zebra crossing"),
    "all of it": document("zebra.jpg", "a zebra", "zebra"),
    "accented": document("4.jpg", "un café à Paris", "Café"),
    "named so": document("5.jpg", "a $where (in) brackets.* [all]"),
    "plural": document("6.jpg", "two zebras and their lions"),
    "begins so": document("7.jpg", None, "zebrafish"),
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
        insert(workshop, [*FEW.values(), *some, *common])
        yield workshop


def insert(workshop: Workshop, documents: list[dict[str, Any]]) -> list[Any]:
    """Insert documents with their terms, as new uploads are."""
    terms = workshop.web.database.search_terms
    stored = [each | {"search": terms.of_new(each)} for each in documents]
    return workshop.collection.insert_many(stored).inserted_ids


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


def test_exact_tags_come_first_then_words_then_other_forms_then_beginnings(client):
    page = search(client, "zebra")
    assert page["order"] == "score"
    assert page["total"] == 7
    assert not page["total_is_estimate"]
    found = names(page)
    assert found == [
        *("all of it", "tagged", "longer"),
        *("captioned", "named", "plural", "begins so"),
    ]
    matched = dict(zip(found, (upload["matched"] for upload in page["data"]), strict=True))
    assert matched == {
        "all of it": ["tag", "caption", "name"],
        "tagged": ["tag"],
        "longer": ["tag"],
        "captioned": ["caption"],
        "named": ["name"],
        "plural": ["caption"],
        "begins so": ["tag"],
    }


@pytest.mark.parametrize(
    ("q", "found"),
    [
        ("ZEBRA -animal ", {"named", "captioned", "all of it", "plural"}),
        ('zebra -"an animal"', {"named", "captioned", "all of it", "plural"}),
        ('"zebra crossing"', {"longer"}),
        ('"in the grass"', {"captioned"}),
        ("zebra lion", {"captioned", "plural"}),
        ("lion paris", set()),
        ("zebras ", {"named", "captioned", "tagged", "longer", "all of it", "plural"}),
        ("cafe", {"accented"}),
        ("CAFÉ", {"accented"}),
        ("$where", {"named so"}),
        ("name:zebra", {"named", "all of it"}),
        ("tag:zebra", {"tagged", "longer", "all of it", "begins so"}),
        ("tag:zebra ", {"tagged", "longer", "all of it"}),
        ('tag:"zebra crossing"', {"longer"}),
        ("zeb", {"named", "captioned", "tagged", "longer", "all of it", "plural", "begins so"}),
        ("zeb ", set()),
        ("unheard", set()),
    ],
)
def test_words_phrases_and_minuses(client, q, found):
    page = search(client, q)
    assert set(names(page)) == found
    assert page["total"] == len(found)
    assert all(upload["matched"] for upload in page["data"])


def test_the_last_word_is_a_whole_one_where_that_is_asked_for(client):
    assert search(client, "zeb", prefix="off")["data"] == []
    assert "begins so" not in names(search(client, "zebra", prefix="off"))


def test_what_has_none_of_a_word_is_found(client):
    without = search(client, "-bird -seldom", limit=100)
    assert {*names(without)} == {*FEW}
    assert without["order"] == "newest"
    assert all(upload["matched"] == [] for upload in without["data"])


@pytest.mark.parametrize("q", ["bird", "sea", '"the sea"', "bird sea", "bird -zebra"])
def test_of_common_words_the_newest_come_first(client, q):
    page = search(client, q, limit=10)
    assert page["order"] == "newest"
    times = [(moment(upload["upload_time"]), upload["id"]) for upload in page["data"]]
    assert times == sorted(times, reverse=True)
    assert all("caption" in upload["matched"] for upload in page["data"])
    assert len(page["data"]) == 10
    assert page["total"] is None
    assert page["total_is_estimate"]


@pytest.mark.parametrize(
    ("q", "total"), [("zebra", 7), ("bird", COUNT), ("sea bird", COUNT), ("-zebra", COUNT + RARE)]
)
@pytest.mark.parametrize("sort", [None, "-name", "taken_at"])
def test_a_walk_is_whole(client, q, total, sort):
    walked, more = [], {"sort": sort} if sort else {}
    page = {"next_cursor": None}
    total += 3 if q == "-zebra" else 0  # of the few, besides
    for _ in range(100):
        page = search(client, q, limit=2 if total == 7 else 100, **more)
        walked += [upload["id"] for upload in page["data"]]
        if page["next_cursor"] is None:
            break
        more["cursor"] = page["next_cursor"]
    assert len(walked) == len(set(walked)) == total
    more.pop("cursor")
    first, second = search(client, q, limit=2, **more), search(client, q, limit=2, page=2, **more)
    assert [u["id"] for u in (*first["data"], *second["data"])] == walked[:4]


@pytest.mark.parametrize("q", ["zebra", "bird", "bird sea", "-zebra"])
def test_the_order_that_is_asked_for_is_kept(client, q):
    for sort in ("size", "-size"):
        page = search(client, q, sort=sort, limit=100)
        sizes = [upload["size"] for upload in page["data"]]
        assert sizes == sorted(sizes, reverse=sort == "-size")
        assert "order" not in page


@pytest.mark.parametrize("letter", "aou-" + "\u0131\u0301")
def test_the_longest_word_with_marks_can_be_looked_for(client, letter):
    for q in (f"bird {letter * 480}", f'"the {letter * 480}"'):
        answer = client.get("/api/uploads", query_string={"q": q})
        assert answer.status_code in (200, 422), answer.text


def test_only_what_is_shown_is_read(workshop, client):
    """However many have a word that is rare enough for an order."""
    uploads = workshop.collection
    uploads.database.command("profile", 2)
    page = search(client, "seldom ", limit=5)
    uploads.database.command("profile", 0)
    assert page["order"] == "score"
    assert page["total"] == RARE
    assert len(page["data"]) == 5
    found = [*uploads.database["system.profile"].find({"ns": uploads.full_name, "op": "query"})]
    assert 1 <= sum(plan["docsExamined"] for plan in found) <= 6
    assert sum(plan["keysExamined"] for plan in found) < 4 * RARE


def test_search_goes_with_filters(client):
    assert {*names(search(client, "zebra", tag="grass"))} == {"tagged"}
    assert names(search(client, "zebra", status="pending")) == []
    page = search(client, "bird", tag="sea", limit=5)
    assert [upload["tags"] for upload in page["data"]] == [["sea"]] * 5
    page = search(client, "bird", min_size=10, max_size=12)
    assert sorted(upload["size"] for upload in page["data"]) == [10, 11, 12]
    page = search(client, "zebra", fields="id,tags")
    assert all(upload.keys() == {"id", "tags", "matched"} for upload in page["data"])


@pytest.mark.parametrize(
    ("query", "field", "said"),
    [
        ({"q": ""}, "q", "length"),
        ({"q": '"zebra'}, "q", "quotation mark at character 1"),
        ({"q": "- ... !"}, "q", "a word"),
        ({"q": "a " * 21}, "q", "at most 20"),
        ({"q": "a" * 501}, "q", "length"),
        ({"q": "cat colour:red"}, "q", "character 5"),
        ({"q": "taken:July"}, "q", "taken:2024-07"),
        ({"q": "taken:2024-13"}, "q", "no date"),
        ({"q": "tag: red"}, "q", "directly"),
        ({"q": "zebra", "prefix": "no"}, "prefix", "on, off"),
        ({"q": "zebra", "cursor": "nonsense"}, "cursor", "no cursor"),
        ({"q": "zebra", "cursor": "A" * 3000}, "cursor", "this cursor is of another"),
        ({"q": "zebra", "cursor": "_" * 60}, "cursor", "no cursor"),
    ],
)
def test_what_is_wrong_is_named(client, query, field, said):
    answer = client.get("/api/uploads", query_string=query)
    assert answer.status_code == 422
    assert answer.content_type == PROBLEM
    (messages,) = answer.get_json()["errors"].values()
    assert list(answer.get_json()["errors"]) == [field]
    assert said in messages[0].lower() or said in messages[0]


def test_a_cursor_is_of_its_search_and_sort(client):
    ranked = search(client, "zebra", limit=1)["next_cursor"]
    newest = search(client, "bird", limit=1)["next_cursor"]
    listed = client.get("/api/uploads?limit=1").get_json()["next_cursor"]
    for cursor, query in (
        (ranked, {"q": "bird"}),
        (ranked, {"q": "zebra", "tag": "zebra"}),
        (ranked, {"q": "zebra", "prefix": "off"}),
        (ranked, {"q": "zebra", "sort": "size"}),
        (ranked, {}),
        (newest, {"q": "bird", "sort": "size"}),
        (newest, {"q": "sea"}),
        (listed, {"q": "zebra"}),
    ):
        answer = client.get("/api/uploads", query_string={**query, "cursor": cursor})
        assert list(answer.get_json()["errors"]) == ["cursor"], query


@pytest.mark.parametrize("text", list(itertools.chain("\0\\*+?[](){}|^$.é日", ["(*UCP)", "\\E"])))
def test_any_character_is_looked_for_as_it_is(client, text):
    for q in (f"bird{text}", f'"bird {text}"', f"bird -x{text}y"):
        answer = client.get("/api/uploads", query_string={"q": q})
        assert answer.status_code in (200, 422), (q, answer.text)


@pytest.mark.parametrize("more", [{}, {"content_type": "image/jpeg"}])
def test_a_walk_repeats_no_upload_whose_words_are_changed_meanwhile(workshop, client, more):
    """Neither what was shown and matches less now, nor what was not and matches more."""
    found: list[str] = []
    changes = ["zebra", "nothing", "zebra zebra zebra zebra"]
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
