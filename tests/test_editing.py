"""Editing: what humans say of an upload, beside what analyzers say."""

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import urlencode

import photographs
import pytest
from running import moment, wait_until
from workshop import Workshop

from clustr.api.schemas.uploads import AnalysisSchema, UploadSchema
from clustr.database import TagEdit
from clustr.domain.models import UNFINISHED

SAYS = """
import json
return json.loads(Path({said!r}).read_text())
"""


@pytest.fixture(scope="module")
def shared_workshop(shared_workshop: Workshop) -> Workshop:
    """A workshop whose analyzer says what a test has it say."""
    fields = {"caption": "caption", "tags": "tags", "taken_at": "when"}
    said = str(shared_workshop.folder / "said")
    shared_workshop.analyzer("says", SAYS.format(said=said), fields=fields)
    return shared_workshop


@pytest.fixture
def workshop(shared_workshop: Workshop) -> Workshop:
    shared_workshop.empty("says")
    return shared_workshop


@pytest.fixture
def upload_id(workshop: Workshop) -> str:
    """An upload that an analyzer says something of, and can be made to say something else."""
    (workshop.folder / "said").write_text('{"caption": "a cat", "tags": ["cat", "sofa"]}')
    (upload_id,) = workshop.upload()
    work(workshop)
    return upload_id


def work(workshop: Workshop) -> None:
    """Do what is queued, in a process of its own."""
    assert workshop.horse("says", "run").process.wait(30) == 0


def say(workshop: Workshop, text: str) -> None:
    """Let the analyzer say something else of every upload."""
    (workshop.folder / "said").write_text(text)
    for upload in workshop.collection.find():
        assert run_again(workshop, str(upload["_id"])).status_code == 202
    work(workshop)


def edit(workshop: Workshop, upload_id: str, body: Any, **headers: str) -> Any:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    path = f"/api/uploads/{upload_id}"
    return workshop.app.test_client().patch(path, json=body, headers=named)


def edited(workshop: Workshop, upload_id: str, **words: Any) -> Any:
    answer = edit(workshop, upload_id, words)
    assert answer.status_code == 200, answer.text
    assert not UploadSchema().validate(answer.json)
    return answer.json


def get(workshop: Workshop, path: str) -> Any:
    return workshop.app.test_client().get(path)


def run_again(workshop: Workshop, upload_id: str, analyzer: str = "says") -> Any:
    return workshop.app.test_client().post(f"/api/uploads/{upload_id}/analyses/{analyzer}")


def taken_at(workshop: Workshop, upload_id: str) -> str | None:
    """The time that is answered, which the listing has as well."""
    found = get(workshop, f"/api/uploads/{upload_id}").json["taken_at"]
    listed = {one["id"]: one for one in get(workshop, "/api/uploads").json["data"]}
    assert listed[upload_id]["taken_at"] == found
    return found and moment(found).isoformat()


def words_of(workshop: Workshop, upload_id: str) -> tuple[Any, ...]:
    upload = workshop.get(upload_id)
    return upload.caption, list(upload.tags), upload.original_name


@pytest.mark.parametrize(
    "words",
    [
        {"caption": "Mimi"},
        {"tags": {"set": ["a", "b"]}},
        {"original_name": "m.jpg"},
        {"tags": None},
    ],
)
def test_an_edit_answers_what_a_reading_does(workshop, upload_id, words):
    """They are written in two ways, for speed."""
    edited = edit(workshop, upload_id, words)
    found = get(workshop, f"/api/uploads/{upload_id}")
    assert (found.json, found.headers["ETag"]) == (edited.json, edited.headers["ETag"])


def test_human_words_win_survive_runs_and_can_be_withdrawn(workshop, upload_id):
    assert words_of(workshop, upload_id) == ("a cat", ["cat", "sofa"], "photograph.jpg")
    now = edited(workshop, upload_id, caption="Mimi", original_name="mimi.jpg", tags={"set": []})
    assert (now["caption"], now["tags"], now["original_name"]) == ("Mimi", [], "mimi.jpg")
    say(workshop, '{"caption": "a dog", "tags": ["dog"]}')
    assert words_of(workshop, upload_id) == ("Mimi", [], "mimi.jpg")
    now = edited(workshop, upload_id, tags=None)
    assert (now["caption"], now["tags"], now["original_name"]) == ("Mimi", ["dog"], "mimi.jpg")
    now = edited(workshop, upload_id, caption=None, original_name=None)
    assert words_of(workshop, upload_id) == ("a dog", ["dog"], "photograph.jpg")
    assert not {"human", "found"} & set(workshop.collection.find_one())
    say(workshop, '{"caption": "$dollar", "tags": ["$tag"]}')
    assert words_of(workshop, upload_id) == ("$dollar", ["$tag"], "photograph.jpg")


def test_no_caption_is_a_word_as_well(workshop, upload_id):
    assert edited(workshop, upload_id, caption="")["caption"] == ""
    say(workshop, '{"caption": "a dog", "tags": ["dog"]}')
    assert words_of(workshop, upload_id)[:2] == ("", ["dog"])
    assert edited(workshop, upload_id, caption=None)["caption"] == "a dog"


FIRST, SECOND = "2001-02-03T04:05:06.250000+00:00", "2020-01-01T00:00:00+00:00"


@pytest.fixture
def dated_id(workshop: Workshop) -> str:
    """An upload of which an analyzer says when it was taken, and what is to be seen."""
    (workshop.folder / "said").write_text(f'{{"when": "{FIRST}", "caption": "a cat"}}')
    (upload_id,) = workshop.upload()
    work(workshop)
    return upload_id


def test_a_date_is_set_right_and_withdrawn(workshop, dated_id):
    assert taken_at(workshop, dated_id) == FIRST
    edited(workshop, dated_id, taken_at="1999-12-31T23:30:00+01:00")
    assert taken_at(workshop, dated_id) == "1999-12-31T22:30:00+00:00"
    found = get(workshop, "/api/uploads?taken_before=2000-01-01T00:00:00Z").json["data"]
    assert [one["id"] for one in found] == [dated_id]
    edited(workshop, dated_id, caption="mine")
    say(workshop, f'{{"when": "{SECOND}", "caption": "a dog"}}')
    assert taken_at(workshop, dated_id) == "1999-12-31T22:30:00+00:00"
    edited(workshop, dated_id, taken_at=None)
    assert (taken_at(workshop, dated_id), words_of(workshop, dated_id)[0]) == (SECOND, "mine")
    edited(workshop, dated_id, caption=None)
    assert taken_at(workshop, dated_id) == SECOND
    assert not {"human", "found"} & set(workshop.collection.find_one())


def test_a_date_where_analyzers_have_none_is_withdrawn_as_well(workshop, upload_id):
    edited(workshop, upload_id, caption="mine")
    edited(workshop, upload_id, taken_at="1999-12-31T23:30:00")
    assert taken_at(workshop, upload_id) == "1999-12-31T23:30:00+00:00"
    edited(workshop, upload_id, taken_at=None)
    say(workshop, '{"caption": "a dog", "tags": []}')
    assert taken_at(workshop, upload_id) is None
    assert workshop.collection.find_one({"taken_at": {"$exists": True}}) is None


@pytest.mark.parametrize("edit_first", [True, False])
def test_a_date_outlives_what_was_edited_before_it_could_be(workshop, dated_id, edit_first):
    """Of such an upload the time of the analyzers is in its own field alone."""
    edited(workshop, dated_id, caption="mine")
    workshop.collection.update_one({}, {"$unset": {"found.taken_at": "", "edited_at": ""}})
    if edit_first:
        edited(workshop, dated_id, taken_at=SECOND)
        edited(workshop, dated_id, taken_at=None)
    assert taken_at(workshop, dated_id) == FIRST
    (workshop.folder / "said").write_text('{"caption": "a dog"}')  # and no time
    assert run_again(workshop, dated_id).status_code == 202
    work(workshop)
    assert taken_at(workshop, dated_id) == FIRST
    edited(workshop, dated_id, caption=None)
    assert taken_at(workshop, dated_id) == FIRST


def test_a_removed_tag_stays_removed_and_an_added_one_stays(workshop, upload_id):
    now = edited(workshop, upload_id, tags={"add": ["$Mimi", "pet"], "remove": ["sofa"]})
    assert now["tags"] == ["cat", "$Mimi", "pet"]
    say(workshop, '{"caption": "a", "tags": ["sofa", "pet", "chair", "cat"]}')
    assert words_of(workshop, upload_id)[1] == ["chair", "cat", "$Mimi", "pet"]
    now = edited(workshop, upload_id, tags={"add": ["sofa"], "remove": ["pet", "cat"]})
    assert now["tags"] == ["chair", "$Mimi", "sofa"]
    now = edited(workshop, upload_id, tags={"set": ["one", "two", "one"]})
    assert now["tags"] == ["one", "two"]
    now = edited(workshop, upload_id, tags={"add": ["three"], "remove": ["one"]})
    assert now["tags"] == ["two", "three"]
    say(workshop, '{"caption": "a", "tags": ["four"]}')
    assert words_of(workshop, upload_id)[1] == ["two", "three"]


def test_uploads_without_any_words_can_be_edited(workshop):
    (upload_id,) = workshop.upload()
    now = edited(workshop, upload_id, tags={"add": ["new"]})
    assert (now["caption"], now["tags"]) == (None, ["new"])
    now = edited(workshop, upload_id, tags=None)
    assert (now["caption"], now["tags"]) == (None, [])
    assert workshop.collection.find_one().keys() & {"human", "found"} == set()


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "body"),
        ({"captoin": "a"}, "captoin"),
        ({"caption": 1}, "caption"),
        ({"caption": " \n\0"}, "caption"),
        ({"caption": "a" * 1001}, "caption"),
        ({"original_name": ""}, "original_name"),
        ({"taken_at": "yesterday"}, "taken_at"),
        ({"taken_at": ""}, "taken_at"),
        ({"taken_at": 1}, "taken_at"),
        ({"taken_at": "0001-01-01T00:00:00+23:00"}, "taken_at"),
        ({"original_name": "a" * 256}, "original_name"),
        ({"tags": []}, "tags"),
        ({"tags": {}}, "tags.set"),
        ({"tags": {"set": ["a"], "add": ["b"]}}, "tags.set"),
        ({"tags": {"add": []}}, "tags.add"),
        ({"tags": {"add": ["a"], "remove": ["a"]}}, "tags.remove"),
        ({"tags": {"add": ["a" * 101]}}, "tags.add.0"),
        ({"tags": {"set": [str(n) for n in range(101)]}}, "tags.set"),
        ({"tags": {"set": [None]}}, "tags.set.0"),
        ({"tags": {"more": []}}, "tags.more"),
    ],
)
def test_what_cannot_be_used_is_named(workshop, body, field):
    (upload_id,) = workshop.upload()
    answer = edit(workshop, upload_id, body)
    assert answer.status_code == 422, answer.text
    assert any(name.startswith(field) for name in answer.json["errors"]), answer.json["errors"]
    assert workshop.collection.find_one().keys() & {"human", "found"} == set()


def test_words_are_cleaned(workshop):
    (upload_id,) = workshop.upload()
    now = edited(
        workshop,
        upload_id,
        caption=" two\r\nlines\t\u202eand\0 more ",
        original_name="C:\\photos\\a\0b.jpg",
        tags={"set": ["a\nb", "e\u0301", "\u00e9", "a b"]},
    )
    assert now["caption"] == "two lines and more"
    assert now["original_name"] == "ab.jpg"
    assert now["tags"] == ["a b", "\u00e9"]


def test_what_joins_letters_and_emoji_is_kept(workshop):
    (upload_id,) = workshop.upload()
    joined = "👩\u200d🚀 می\u200cکنم"
    name = f"{joined}.jpg"
    now = edited(workshop, upload_id, caption=joined, original_name=name, tags={"set": [joined]})
    assert (now["caption"], now["original_name"], now["tags"]) == (joined, name, [joined])
    listed = get(workshop, f"/api/uploads?{urlencode({'tag': joined})}").json["data"]
    assert [one["id"] for one in listed] == [upload_id]


def test_direction_marks_are_kept_and_what_turns_text_is_not(workshop):
    (upload_id,) = workshop.upload()
    caption = "\u202b\u05d7\u05ea\u05d5\u05dc!\u200f\u202c (a \u2066cat\u2069)"
    tags = ["\u05d7\u05ea\u05d5\u05dc\u200f", "\u05d7\u05ea\u05d5\u05dc", "cat\u200e", "\u202dCat"]
    now = edited(workshop, upload_id, caption=caption, tags={"set": tags})
    assert now["caption"] == "\u05d7\u05ea\u05d5\u05dc!\u200f (a cat)"
    assert now["tags"] == ["\u05d7\u05ea\u05d5\u05dc\u200f", "cat\u200e"]
    for tag in ("\u05d7\u05ea\u05d5\u05dc", "CAT"):
        listed = get(workshop, f"/api/uploads?{urlencode({'tag': tag})}").json["data"]
        assert [one["id"] for one in listed] == [upload_id]
    assert edit(workshop, upload_id, {"tags": {"set": ["\u200e"]}}).status_code == 422


def test_tags_that_are_added_one_by_one_have_a_limit(workshop):
    (upload_id,) = workshop.upload()
    edited(workshop, upload_id, tags={"add": [str(n) for n in range(100)]})
    edited(workshop, upload_id, tags={"add": ["7"]})
    answer = edit(workshop, upload_id, {"tags": {"add": ["one more"]}})
    assert answer.status_code == 422
    assert "100" in answer.json["errors"]["tags"][0]
    assert len(words_of(workshop, upload_id)[1]) == 100


def test_unknown_uploads_and_ids_that_are_none(workshop):
    assert edit(workshop, "0" * 24, {"caption": "a"}).status_code == 404
    assert edit(workshop, "none", {"caption": "a"}).status_code == 404
    assert edit(workshop, "0" * 24, {"caption": "a"}, If_Match='"x"').status_code == 404


def test_a_lost_update_is_refused(workshop):
    (upload_id,) = workshop.upload()
    first = edit(workshop, upload_id, {"caption": "first"})
    second = edit(workshop, upload_id, {"caption": "second"}, If_Match=first.headers["ETag"])
    assert second.status_code == 200
    assert second.headers["ETag"] != first.headers["ETag"]
    lost = edit(workshop, upload_id, {"caption": "lost"}, If_Match=first.headers["ETag"])
    assert lost.status_code == 412
    assert lost.json["type"] == "urn:clustr:problem:outdated"
    assert words_of(workshop, upload_id)[0] == "second"
    several = f'"other", {second.headers["ETag"]}'
    assert edit(workshop, upload_id, {"tags": None}, If_Match=several).status_code == 200
    assert edit(workshop, upload_id, {"caption": "any"}, If_Match="*").status_code == 200
    for wrong in ('"other"', '""', "", f'"{upload_id}-fffffffffffff"', "x, y"):
        assert edit(workshop, upload_id, {"caption": "x"}, If_Match=wrong).status_code == 412, wrong


def test_of_many_edits_of_one_version_exactly_one_is_made(workshop):
    (upload_id,) = workshop.upload()
    etag = edit(workshop, upload_id, {"caption": "read"}).headers["ETag"]
    statuses = []

    def write(number: int) -> None:
        body = {"caption": f"{number}"}
        statuses.append(edit(workshop, upload_id, body, If_Match=etag).status_code)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(statuses) == [200] + [412] * 7


def test_each_edit_gives_another_version(workshop):
    (upload_id,) = workshop.upload()
    etags = [edit(workshop, upload_id, {"caption": "same"}).headers["ETag"] for _ in range(20)]
    assert len(set(etags)) == 20
    assert etags == sorted(etags)


def test_a_person_saves_while_five_analyses_end(own_workshop):
    names = [f"says{number}" for number in range(5)]
    for number, name in enumerate(names):
        body = f'time.sleep({number} / 5); return {{"caption": "{name}"}}'
        own_workshop.analyzer(name, body, fields={"caption": "caption"})
    busy, quiet = own_workshop.upload(photographs.unique(number=1), photographs.unique(number=2))
    path = f"/api/uploads/{quiet}"
    read, tag = get(own_workshop, path), get(own_workshop, f"/api/uploads/{busy}").headers["ETag"]
    saved = 0
    horses = [own_workshop.horse(name, "run") for name in names]
    while any(horse.alive() for horse in horses):
        answer = edit(own_workshop, busy, {"caption": f"mine {saved}"}, If_Match=tag)
        assert answer.status_code == 200, answer.text
        tag, saved = answer.headers["ETag"], saved + 1
    assert [horse.process.wait(30) for horse in horses] == [0] * 5
    assert words_of(own_workshop, busy)[0] == f"mine {saved - 1}"
    # Nobody edited this one: its version is as it was, and its answer another one.
    now = own_workshop.app.test_client().get(path, headers={"If-None-Match": read.headers["ETag"]})
    assert (now.status_code, now.json["status"]) == (200, "processed")
    assert now.json["caption"] in names  # Whichever ended last.
    assert now.json["version"] == read.json["version"]
    assert (
        edit(own_workshop, quiet, {"caption": "mine"}, If_Match=read.headers["ETag"]).status_code
        == 200
    )
    assert (
        edit(own_workshop, quiet, {"caption": "x"}, If_Match=now.headers["ETag"]).status_code == 412
    )


def test_the_version_of_a_body_is_one_for_if_match(workshop, upload_id):
    listed = get(workshop, "/api/uploads?fields=version").json["data"][0]["version"]
    assert get(workshop, f"/api/uploads/{upload_id}").json["version"] == listed
    first = edit(workshop, upload_id, {"caption": "first"}, If_Match=f'"{listed}"')
    assert first.headers["ETag"].startswith(f'"{first.json["version"]}.')
    assert edit(workshop, upload_id, {"caption": "x"}, If_Match=f'"{listed}"').status_code == 412
    # Not every generator of clients lets its user write the quotes.
    second = edit(workshop, upload_id, {"tags": {"set": []}}, If_Match=first.json["version"])
    assert second.status_code == 200
    client = workshop.app.test_client()
    assert client.delete(f"/api/uploads/{upload_id}").status_code == 204
    assert get(workshop, "/api/trash").json["data"][0]["version"] == second.json["version"]


def test_a_tag_of_many_uploads_is_an_edit_of_each(workshop, upload_id):
    before = get(workshop, f"/api/uploads/{upload_id}").json["version"]
    assert workshop.web.database.editing.edit_tags([upload_id], TagEdit(add=("new",))) == [
        upload_id
    ]
    assert edit(workshop, upload_id, {"caption": "x"}, If_Match=f'"{before}"').status_code == 412


def test_what_was_edited_before_there_were_versions_has_one(workshop, upload_id):
    edit(workshop, upload_id, {"caption": "old"})
    workshop.collection.update_one({}, {"$unset": {"edited_at": ""}})
    found = get(workshop, f"/api/uploads/{upload_id}")
    answer = edit(workshop, upload_id, {"caption": "new"}, If_Match=found.headers["ETag"])
    assert (answer.status_code, answer.json["caption"]) == (200, "new")


def test_what_is_no_version_is_not_told_as_somebody_elses_edit(workshop, upload_id):
    found = get(workshop, f"/api/uploads/{upload_id}")
    for wrong in ("x", f"W/{found.headers['ETag']}", f'"{"0" * 24}-0"'):
        answer = edit(workshop, upload_id, {"caption": "x"}, If_Match=wrong)
        assert answer.status_code == 412
        assert "names no version" in answer.json["detail"]


def test_humans_and_analyzers_at_once_lose_nothing(workshop, upload_id):
    for number in range(5):
        assert run_again(workshop, upload_id).status_code == 202
        horse = workshop.horse("says", f"run{number}")
        while horse.alive():
            edited(workshop, upload_id, tags={"add": [f"human{number}"]})
        assert horse.process.wait(30) == 0
    assert words_of(workshop, upload_id)[1] == ["cat", "sofa", *[f"human{n}" for n in range(5)]]
    edited(workshop, upload_id, tags=None)
    assert words_of(workshop, upload_id)[1] == ["cat", "sofa"]


# The analyses of one upload


def test_the_analyses_of_one_upload(workshop, upload_id):
    listed = get(workshop, f"/api/uploads/{upload_id}/analyses").json["data"]
    one = get(workshop, f"/api/uploads/{upload_id}/analyses/says").json
    assert listed == {"says": one}
    assert not AnalysisSchema().validate(one)
    assert one["result"] == {"caption": "a cat", "tags": ["cat", "sofa"]}
    assert get(workshop, f"/api/uploads/{upload_id}/analyses/other").status_code == 404
    assert get(workshop, f"/api/uploads/{'0' * 24}/analyses").status_code == 404
    assert get(workshop, f"/api/uploads/{'0' * 24}/analyses/says").status_code == 404
    assert get(workshop, "/api/uploads/none/analyses").status_code == 404


def test_an_analysis_is_run_again(workshop, upload_id):
    (workshop.folder / "said").write_text('{"caption": "a dog", "tags": []}')
    answer = run_again(workshop, upload_id)
    assert answer.status_code == 202, answer.text
    assert answer.headers["Location"] == f"/api/uploads/{upload_id}/analyses/says"
    assert answer.json["status"] == "queued"
    assert answer.json["result"]["caption"] == "a cat"  # until there is a newer one
    stored = workshop.stored(upload_id, "says")
    assert (stored["priority"], stored.get("job")) == (0, None)
    assert run_again(workshop, upload_id).status_code == 409
    wait_until(lambda: workshop.redis.exists(workshop.key("bell:says")), 5, "the bell")
    work(workshop)
    one = get(workshop, answer.headers["Location"]).json
    assert (one["status"], one["result"]["caption"]) == ("succeeded", "a dog")
    assert workshop.get(upload_id).caption == "a dog"


def test_it_is_refused_where_nothing_can_be_run(workshop, upload_id):
    unknown = run_again(workshop, upload_id, "sayss")
    assert unknown.status_code == 404
    assert unknown.json["detail"] == "Unknown analyzer sayss; did you mean says?"
    assert run_again(workshop, "0" * 24).status_code == 404
    assert run_again(workshop, "none").status_code == 404


def test_an_analyzer_that_came_later_looks_at_one_upload(own_workshop):
    (upload_id,) = own_workshop.upload()
    own_workshop.analyzer("late", 'return {"n": 1}')
    own_workshop.renew()
    assert run_again(own_workshop, upload_id, "late").status_code == 202
    assert own_workshop.state_of(upload_id, "late") in UNFINISHED
    assert own_workshop.horse("late", "run").process.wait(30) == 0
    assert own_workshop.end_of(upload_id, "late").result == {"n": 1}


def test_what_a_page_shows_is_what_counts(workshop, upload_id):
    edited(workshop, upload_id, caption="Mimi", tags={"add": ["pet"]})
    (other,) = workshop.upload(photographs.one_pixel())
    page = {one["id"]: one for one in get(workshop, "/api/uploads").json["data"]}
    assert page[upload_id]["caption"] == "Mimi"
    assert page[upload_id]["tags"] == ["cat", "sofa", "pet"]
    assert page[other]["caption"] is None


# What names a version changes no other one


def test_whatever_names_another_version_changes_nothing(workshop, upload_id):
    path = f"/api/uploads/{upload_id}"
    client = workshop.app.test_client()
    old = edit(workshop, upload_id, {"caption": "first"}).headers["ETag"]
    edit(workshop, upload_id, {"caption": "second"})
    stored = workshop.collection.find_one()
    for wrong in (old, '"other"', "", f"W/{get(workshop, path).headers['ETag']}"):
        stale = {"headers": {"If-Match": wrong}}
        answers = [
            client.patch(path, json={"caption": "third"}, **stale),
            client.delete(path, **stale),
            client.delete(f"{path}?permanently=true", **stale),
            client.post(f"{path}/analyses/says", **stale),
        ]
        assert [answer.status_code for answer in answers] == [412] * 4, wrong
        assert {answer.json["type"] for answer in answers} == {"urn:clustr:problem:outdated"}
        assert workshop.collection.find_one() == stored


def test_what_shall_not_be_of_its_version_is_left_as_it_is(workshop, upload_id):
    """With `If-None-Match` (RFC 9110, 13.1.2), which a weak tag matches as well."""
    path = f"/api/uploads/{upload_id}"
    client = workshop.app.test_client()
    old = edit(workshop, upload_id, {"caption": "first"}).headers["ETag"]
    edited = edit(workshop, upload_id, {"caption": "second"})
    true, version = edited.headers["ETag"], f'"{edited.json["version"]}"'
    stored = workshop.collection.find_one()
    for named in (true, version, f"W/{true}", f"{old}, {true}", "*"):
        condition = {"headers": {"If-None-Match": named}}
        answers = [
            client.patch(path, json={"caption": "third"}, **condition),
            client.delete(path, **condition),
            client.delete(f"{path}?permanently=true", **condition),
            client.post(f"{path}/analyses/says", **condition),
        ]
        assert [answer.status_code for answer in answers] == [412] * 4, named
        assert {answer.json["type"] for answer in answers} == {"urn:clustr:problem:outdated"}
        assert all("If-None-Match" in answer.json["detail"] for answer in answers)
        assert workshop.collection.find_one() == stored
    both = {"If-Match": true, "If-None-Match": true}
    assert client.patch(path, json={"caption": "third"}, headers=both).status_code == 412
    other = {"headers": {"If-None-Match": f'{old}, "x"'}}
    assert client.post(f"{path}/analyses/says", **other).status_code == 202
    assert client.delete(path, **other).status_code == 204
    for method, below in ((client.post, "/restore"), (client.delete, "?permanently=true")):
        assert method(path + below, headers={"If-None-Match": true}).status_code == 412
        assert method(path + below, headers={"If-None-Match": "*"}).status_code == 412
    assert client.post(f"{path}/restore", **other).status_code == 200
    assert client.patch(path, json={"caption": "third"}, **other).status_code == 200
    assert (
        client.delete("/api/uploads/" + "0" * 24, headers={"If-None-Match": "*"}).status_code == 404
    )


def test_in_the_trash_a_version_counts_as_well(workshop, upload_id):
    path = f"/api/uploads/{upload_id}"
    client = workshop.app.test_client()
    old = edit(workshop, upload_id, {"caption": "first"}).headers["ETag"]
    true = edit(workshop, upload_id, {"caption": "second"}).headers["ETag"]
    assert client.delete(path, headers={"If-Match": true}).status_code == 204
    stale, named = {"headers": {"If-Match": old}}, {"headers": {"If-Match": f'"x", {true}'}}
    assert client.post(f"{path}/restore", **stale).status_code == 412
    assert client.delete(f"{path}?permanently=true", **stale).status_code == 412
    restored = client.post(f"{path}/restore", **named)
    assert (restored.status_code, restored.json["caption"]) == (200, "second")
    version = {"headers": {"If-Match": restored.headers["ETag"]}}
    assert client.post(f"{path}/analyses/says", **version).status_code == 202
    assert client.delete(path).status_code == 204
    assert client.delete(f"{path}?permanently=true", **stale).status_code == 412
    assert client.delete(f"{path}?permanently=true", headers={"If-Match": "*"}).status_code == 204
    assert client.post(f"{path}/restore", **named).status_code == 404
    assert client.delete(path, **stale).status_code == 404


@pytest.mark.parametrize("path", ["uploads/bulk", "analyses", "upload", f"jobs/{'0' * 24}/cancel"])
def test_where_nothing_has_a_version_none_is_ignored(workshop, upload_id, path):
    body = {"action": "delete", "ids": [upload_id]}
    asked = {"json": body, "headers": {"If-Match": "*"}}
    answer = workshop.app.test_client().post(f"/api/{path}", **asked)
    assert answer.status_code == 412, answer.text
    assert "If-Match" in answer.json["detail"]
    assert workshop.web.database.jobs.unfinished() == []


def test_of_an_edit_and_a_removal_of_one_version_exactly_one_is_made(workshop):
    """Either comes first: never is what somebody has just written removed unseen."""
    client = workshop.app.test_client
    outcomes = set()
    for number in range(20):
        (upload_id,) = workshop.upload(photographs.unique(number=number))
        path = f"/api/uploads/{upload_id}"
        version = {"If-Match": get(workshop, path).headers["ETag"]}
        acts = [
            lambda path=path, version=version: client().delete(path, headers=version),
            lambda upload_id=upload_id, version=version: edit(
                workshop, upload_id, {"caption": "written"}, If_Match=version["If-Match"]
            ),
        ]
        with ThreadPoolExecutor(2) as threads:
            removed, written = [one.result() for one in [threads.submit(act) for act in acts]]
        outcomes.add((removed.status_code, written.status_code))
        assert get(workshop, path).status_code == (200 if written.status_code == 200 else 404)
    assert outcomes <= {(412, 200), (204, 404)}
