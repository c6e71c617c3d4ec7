"""Tags that differ in the case of letters alone are one tag, also those of an older version."""

import unicodedata
from typing import Any

import photographs
import pytest
from bson import ObjectId
from jobs import engine, job_of, run_until
from running import wait_until
from workshop import Workshop

from clustr.database import tag_key
from clustr.database.listing_queries import INDEXES
from clustr.database.tag_keys import OLD_INDEXES
from clustr.database.tags import distinct_tags
from clustr.database.upload_filter import INDEXED_SORTS, SORTS, Sort

SAYS = """
import json
return json.loads(Path({said!r}).read_text())
"""
OLDER_SORTS = {
    "name": "original_name",
    **{name: name for name in ("size", "taken_at", "upload_time")},
}
SPELLINGS = ("München", "MÜNCHEN", "münchen", "Mu\u0308nchen", " mÜnchen ")


def add_analyzer(workshop: Workshop) -> None:
    """Have an analyzer that says the tags in the file `said` of each upload."""
    said = str(workshop.folder / "said")
    workshop.analyzer("says", SAYS.format(said=said), fields={"tags": "tags"})


@pytest.fixture(scope="module")
def shared_workshop(shared_workshop: Workshop) -> Workshop:
    add_analyzer(shared_workshop)
    return shared_workshop


@pytest.fixture
def workshop(shared_workshop: Workshop) -> Workshop:
    shared_workshop.empty("says")
    (shared_workshop.folder / "said").write_text('{"tags": ["cat", "sofa"]}')
    return shared_workshop


@pytest.fixture
def older_workshop(own_workshop: Workshop) -> Workshop:
    """One whose indexes are going to be those of an older version."""
    add_analyzer(own_workshop)
    (own_workshop.folder / "said").write_text('{"tags": ["cat", "sofa"]}')
    return own_workshop


def upload(workshop: Workshop, *tags: list[str]) -> list[str]:
    """The ids of uploads of which a human said these tags each."""
    ids = workshop.upload(*[photographs.unique(number=number) for number in range(len(tags))])
    for upload_id, said in zip(ids, tags, strict=True):
        edit(workshop, upload_id, set=said)
    return ids


def edit(workshop: Workshop, upload_id: str, **tags: list[str]) -> list[str]:
    """The tags of an upload after this was said of them."""
    client = workshop.app.test_client()
    answer = client.patch(f"/api/uploads/{upload_id}", json={"tags": tags})
    assert answer.status_code == 200, answer.text
    return answer.get_json()["tags"]


def say(workshop: Workshop, *tags: str) -> None:
    """Let the analyzer say these tags of every upload, once more or for the first time."""
    (workshop.folder / "said").write_text(f'{{"tags": {[*tags]}}}'.replace("'", '"'))
    for document in workshop.collection.find():
        path = f"/api/uploads/{document['_id']}/analyses/says"
        assert workshop.app.test_client().post(path).status_code in (202, 409)
    assert workshop.horse("says", "run").process.wait(60) == 0


def tags_of(workshop: Workshop, upload_id: str) -> list[str]:
    """The tags of an upload, which has a key for each of them."""
    stored = workshop.collection.find_one({"_id": ObjectId(upload_id)})
    assert stored["tag_keys"] == [*map(tag_key, stored["tags"])]
    assert len({*stored["tag_keys"]}) == len(stored["tag_keys"])
    return stored["tags"]


def found(workshop: Workshop, **query: Any) -> set[str]:
    """The ids of what a listing has, which says how many they are."""
    answer = workshop.app.test_client().get("/api/uploads", query_string=query)
    assert answer.status_code == 200, answer.text
    page = answer.get_json()
    assert page["total"] == len(page["data"])
    return {one["id"] for one in page["data"]}


def matched(workshop: Workshop, action: str, **filter: Any) -> int:
    body = {"action": action, "filter": filter, "dry_run": True}
    answer = workshop.app.test_client().post("/api/uploads/bulk", json=body)
    assert answer.status_code == 200, answer.text
    return answer.get_json()["matched"]


def done(workshop: Workshop, path: str, **order: Any) -> dict[str, int]:
    """How many uploads a job was about, once it is done, and how many it could not do."""
    answer = workshop.app.test_client().post(path, json=order)
    assert answer.status_code == 202, answer.text
    job_id = answer.get_json()["id"]
    with engine(workshop) as bulk:
        run_until(bulk, lambda: job_of(workshop, job_id).ended)
    return {name: count for name, count in job_of(workshop, job_id).counts.items() if count}


# In filters


@pytest.mark.parametrize("asked", SPELLINGS)
def test_a_filter_finds_a_tag_in_whatever_case(workshop, asked):
    ids = upload(workshop, *([spelling, "Sofa"] for spelling in SPELLINGS), ["Munchen"], ["sofa"])
    munich = {*ids[:-2]}
    for sort in (f"{sign}{by}" for by in SORTS for sign in ("", "-")):
        assert found(workshop, tag=asked, sort=sort) == munich
    assert found(workshop, tag=[asked, "SOFA"]) == munich
    assert found(workshop, tag_not=asked) == {*ids} - munich
    assert found(workshop, tag_not=[asked, "SOFA"]) == {ids[-2]}
    assert found(workshop, tag=asked, content_type="image/png") == set()
    assert found(workshop, tag=asked, q="photograph") == munich
    assert found(workshop, tag=asked, min_width=1) == munich
    assert matched(workshop, "delete", tag=[asked]) == len(munich)
    body = {"analyzer": "says", "select": "all", "filter": {"tag": [asked]}, "dry_run": True}
    workshop.collection.update_many({}, {"$set": {"analyses.$[].state": "succeeded"}})
    estimate = workshop.app.test_client().post("/api/analyses", json=body)
    assert estimate.get_json()["matched"] == len(munich)


def test_a_cursor_goes_on_with_the_same_tag_in_another_case(workshop):
    ids = upload(workshop, ["Cat"], ["cat"], ["CAT"])
    client = workshop.app.test_client()
    first = client.get("/api/uploads?tag=Cat&limit=2").get_json()
    more = client.get(f"/api/uploads?tag=CAT&limit=2&cursor={first['next_cursor']}").get_json()
    assert [one["id"] for one in (*first["data"], *more["data"])] == ids[::-1]


def test_jobs_find_a_tag_in_whatever_case(workshop):
    ids = upload(workshop, ["Cat"], ["cat"], ["dog"])
    assert done(workshop, "/api/uploads/bulk", action="delete", filter={"tag": ["CAT"]}) == {
        "selected": 2,
        "succeeded": 2,
    }
    assert found(workshop) == {ids[2]}
    assert matched(workshop, "restore", tag=["cAt"]) == 2
    done(workshop, "/api/uploads/bulk", action="restore", filter={"tag": ["cAt"]})
    assert found(workshop, tag="CAT") == {*ids[:2]}


# In edits


def test_what_is_there_is_not_added_and_its_spelling_stays(workshop):
    (upload_id,) = upload(workshop, ["cat", "sofa"])
    assert edit(workshop, upload_id, add=["Cat", "SOFA", "Dog"]) == ["cat", "sofa", "Dog"]
    assert edit(workshop, upload_id, add=["dog"], remove=["CAT"]) == ["sofa", "Dog"]
    assert edit(workshop, upload_id, set=["Tree", "tree", "STRASSE", "Straße"]) == [
        "Tree",
        "STRASSE",
    ]
    assert found(workshop, tag="straße") == {upload_id}
    assert tags_of(workshop, upload_id) == ["Tree", "STRASSE"]


def test_what_an_analyzer_says_is_not_added_in_another_spelling(workshop):
    (upload_id,) = workshop.upload()
    say(workshop, "cat", "Cat", "Sofa", "sofa ")
    assert tags_of(workshop, upload_id) == ["cat", "Sofa"]
    assert {*edit(workshop, upload_id, add=["CAT", "dog"])} == {"cat", "Sofa", "dog"}
    say(workshop, "SOFA", "Dog")  # What a human said besides stays, as it was written.
    assert {*tags_of(workshop, upload_id)} == {"cat", "SOFA", "dog"}
    assert edit(workshop, upload_id, remove=["sofa", "CAT"]) == ["dog"]
    say(workshop, "Sofa", "cAt", "tree")
    assert tags_of(workshop, upload_id) == ["tree", "dog"]
    assert edit(workshop, upload_id, add=["SOFA"]) == ["tree", "dog", "SOFA"]
    answer = workshop.app.test_client().patch(f"/api/uploads/{upload_id}", json={"tags": None})
    assert answer.get_json()["tags"] == ["Sofa", "cAt", "tree"]
    assert tags_of(workshop, upload_id) == ["Sofa", "cAt", "tree"]
    assert not {"human", "found"} & {*workshop.collection.find_one()}


def test_to_add_and_remove_one_tag_is_refused_in_whatever_case(workshop):
    (upload_id,) = workshop.upload()
    body = {"tags": {"add": ["Cat"], "remove": ["CAT"]}}
    answer = workshop.app.test_client().patch(f"/api/uploads/{upload_id}", json=body)
    assert answer.status_code == 422
    assert answer.get_json()["errors"] == {"tags.remove": ["Also in `add`: CAT."]}


def test_the_limit_is_of_tags_and_not_of_spellings(workshop):
    (upload_id,) = upload(workshop, [f"tag {number}" for number in range(100)])
    assert len(edit(workshop, upload_id, add=["TAG 7"])) == 100
    assert len(edit(workshop, upload_id, remove=["Tag 7"])) == 99


def test_many_are_tagged_and_untagged_in_whatever_case(workshop):
    ids = upload(workshop, ["cat"], ["Sofa"], [])
    order = {"filter": {"tag": ["CAT"]}, "tags": ["Cat", "Pet", "PET"]}
    assert done(workshop, "/api/uploads/bulk", action="tag", **order)["succeeded"] == 1
    assert tags_of(workshop, ids[0]) == ["cat", "Pet"]
    done(workshop, "/api/uploads/bulk", action="tag", ids=ids, tags=["PET"])
    assert [tags_of(workshop, one)[-1] for one in ids] == ["Pet", "PET", "PET"]
    done(workshop, "/api/uploads/bulk", action="untag", filter={}, tags=["pet", "SOFA"])
    assert [tags_of(workshop, one) for one in ids] == [["cat"], [], []]


# Those of an older version


def make_older(workshop: Workshop) -> None:
    """Let all uploads, and what is in the trash, be as the version before left them.

    It knew no keys, and its indexes were on the tags themselves.
    """
    collection = workshop.collection
    trash = collection.database[f"{collection.name}_trash"]
    human = ("human.tags.set_keys", "human.tags.added_keys")
    for each in (collection, trash):
        each.update_many({}, {"$unset": dict.fromkeys(("tag_keys", "found.tag_keys", *human), "")})
    for index in INDEXED_SORTS["tag_keys"]:
        collection.drop_index(f"tag_keys_by_{index}")
    for by, field in OLDER_SORTS.items():
        keys = [("tags", 1), (field, -1), ("_id", -1)]
        there = {"tags": {"$exists": True}}
        collection.create_index(keys, name=f"tags_by_{by}", partialFilterExpression=there)
    workshop.renew()
    workshop.web.database.make_indexes()


def indexes(workshop: Workshop) -> set[str]:
    return {*workshop.collection.index_information()}


def test_what_is_older_is_found_at_once_and_gets_its_keys_in_the_background(older_workshop):
    workshop = older_workshop
    ids = upload(workshop, ["Cat", "cat "], ["CAT", "Ünder"], ["dog"], ["cat"])
    before = [*workshop.collection.find()]
    make_older(workshop)
    workshop.collection.update_one({"_id": ObjectId(ids[0])}, {"$set": {"tags": ["Cat", "cat"]}})
    (newer,) = upload(workshop, ["cAT"])
    assert indexes(workshop) >= {
        *OLD_INDEXES,
        *(n for n in INDEXES if n.startswith("tag_keys")),
    }

    def check() -> None:
        for asked in ("cat", "Cat"):
            cats = {ids[0], ids[1], ids[3], newer}
            assert found(workshop, tag=asked) == cats
            assert found(workshop, tag=asked, sort="name") == cats
            assert found(workshop, tag=[asked, "üNDER"]) == {ids[1]}
            assert found(workshop, tag=asked, q="photograph") == cats
            assert matched(workshop, "delete", tag=[asked]) == 4
            assert found(workshop, tag_not=asked) == {ids[2]}
            assert found(workshop, tag_not=asked, untagged="true") == set()

    check()
    worker = workshop.worker()
    wait_until(lambda: not {*OLD_INDEXES} & indexes(workshop), 60, "keys of all")
    assert worker.alive()
    check()
    workshop.renew()  # Also for processes that start now.
    check()
    assert tags_of(workshop, ids[0]) == ["Cat"]
    for older in before[1:]:
        now = workshop.collection.find_one({"_id": older["_id"]})
        assert (now["tags"], now["human"]) == (older["tags"], older["human"])
    lists = workshop.web.database.listing
    assert lists.page(5, sort=Sort("name")).total == 5


def test_an_older_upload_that_is_being_changed_has_its_keys_first(older_workshop):
    workshop = older_workshop
    ids = workshop.upload(*[photographs.unique(number=number) for number in range(3)])
    say(workshop, "Cat", "Sofa")
    edit(workshop, ids[0], add=["Tree", "DOG"], remove=["SOFA"])
    edit(workshop, ids[1], set=["CAT", "Tree"])
    make_older(workshop)
    assert {*edit(workshop, ids[0], add=["CAT", "dog"])} == {"Cat", "Tree", "DOG"}
    assert edit(workshop, ids[1], remove=["cat"]) == ["Tree"]
    done(workshop, "/api/uploads/bulk", action="tag", ids=[ids[2]], tags=["SOFA", "new"])
    assert {*tags_of(workshop, ids[2])} == {"Cat", "Sofa", "new"}
    make_older(workshop)
    say(workshop, "SOFA", "TREE", "dOg")
    assert {*tags_of(workshop, ids[0])} == {"Cat", "Tree", "DOG"}
    assert tags_of(workshop, ids[1]) == ["Tree"]
    assert {*tags_of(workshop, ids[2])} == {"Sofa", "new", "TREE", "dOg"}


def test_what_was_put_into_the_trash_by_an_older_version_is_restored(older_workshop):
    workshop = older_workshop
    ids = upload(workshop, ["Cat"], ["CAT", "Sofa"], ["dog"])
    client = workshop.app.test_client()
    for upload_id in ids:
        assert client.delete(f"/api/uploads/{upload_id}").status_code == 204
    make_older(workshop)
    client = workshop.app.test_client()
    assert matched(workshop, "restore", tag=["cat"]) == 2
    assert client.post(f"/api/uploads/{ids[0]}/restore").get_json()["tags"] == ["Cat"]
    assert tags_of(workshop, ids[0]) == ["Cat"]
    with engine(workshop) as bulk:
        assert sum(bulk._database.tag_keys.add_all_missing()) == 2
    assert not {*OLD_INDEXES} & indexes(workshop)
    done(workshop, "/api/uploads/bulk", action="restore", filter={"tag": ["SOFA"]})
    assert tags_of(workshop, ids[1]) == ["CAT", "Sofa"]
    assert found(workshop, tag="cat") == {*ids[:2]}


def test_keys_are_made_of_some_at_a_time(workshop, monkeypatch):
    monkeypatch.setattr("clustr.database.id_ranges.BATCH", 3)
    upload(workshop, *([f"Tag {number}"] for number in range(10)))
    before = [*workshop.collection.find().sort("_id", 1)]
    make_older(workshop)
    other = {"_id": ObjectId(), "tags": [1, {}]}
    workshop.collection.insert_many([other, {"_id": "other", "tags": "cat"}])
    steps = [*workshop.web.database.tag_keys.add_all_missing()]
    assert sum(steps) == 10
    assert max(steps) <= 3
    ours = {"sha256": {"$exists": True}}
    assert [*workshop.collection.find(ours).sort("_id", 1)] == before
    assert workshop.collection.find_one({"_id": other["_id"]}) == other
    assert [*workshop.web.database.tag_keys.add_all_missing()] == []


def test_what_changes_while_keys_are_made_has_them_in_the_end(workshop, monkeypatch):
    """An analysis that ends between the reading and the writing takes part in the next time."""
    monkeypatch.setattr("clustr.database.id_ranges.BATCH", 1)
    ids = upload(workshop, ["Cat"], ["Dog"], ["Sofa"])
    make_older(workshop)
    walk = workshop.web.database.tag_keys.add_all_missing()
    assert next(walk) == 1
    one = {"_id": ObjectId(ids[0])}
    workshop.collection.update_one(one, {"$unset": {"tag_keys": ""}})  # As if it had not matched.
    assert sum(walk) == 3
    assert [tags_of(workshop, each) for each in ids] == [["Cat"], ["Dog"], ["Sofa"]]


def test_a_search_for_a_tag_that_is_too_slow_meanwhile_is_no_fault_of_the_client(
    workshop, monkeypatch
):
    monkeypatch.setattr("clustr.database.listing.SEARCH_SECONDS", 1e-6)
    monkeypatch.setattr("clustr.database.listing.MAX_EXAMINED", 2)
    upload(workshop, ["Cat"], ["Dog"], ["Sofa"], ["Sofa"])
    make_older(workshop)
    answer = workshop.app.test_client().get("/api/uploads?tag=cat")
    assert answer.status_code == 503
    assert answer.headers["Retry-After"]
    assert sum(workshop.web.database.tag_keys.add_all_missing()) == 4
    assert len(found(workshop, tag="cat")) == 1


# Their keys


@pytest.mark.parametrize(
    ("first", "second", "same"),
    [
        ("Cat", "cAT", True),
        ("ΣΊΣΥΦΟΣ", "σίσυφος", True),
        ("ДОМ", "дом", True),
        ("STRASSE", "straße", True),
        ("Å", "\u212b", True),
        ("É", "e\u0301", True),
        ("schön", "schon", False),
        ("カニ", "かに", False),
        ("m²", "m2", False),
    ],
)
def test_keys_are_the_same_for_what_differs_in_case_alone(first, second, same):
    assert (tag_key(first) == tag_key(second)) is same
    assert tag_key(tag_key(first)) == tag_key(first) == unicodedata.normalize("NFC", tag_key(first))
    assert len(distinct_tags([first, second])) == 2 - same
