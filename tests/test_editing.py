"""Editing: what humans say of an upload, beside what analyzers say."""

from urllib.parse import urlencode

import photographs
import pytest
from editing import edit, edited, get, run_again, say, taken_at, words_of, work
from workshop import Workshop


@pytest.fixture
def workshop(saying_workshop: Workshop) -> Workshop:
    return saying_workshop


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
        ({"caption": "a", "uploaded_by": "me"}, "uploaded_by"),
        ({"caption": "a", "owner": "me"}, "owner"),
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


def test_humans_and_analyzers_at_once_lose_nothing(workshop, upload_id):
    for number in range(2):
        assert run_again(workshop, upload_id).status_code == 202
        edited(workshop, upload_id, tags={"add": [f"human{number}"]})
        horse = workshop.horse("says", f"run{number}")
        while horse.alive():
            edited(workshop, upload_id, tags={"add": [f"human{number}"]})
        assert horse.process.wait(60) == 0
    assert words_of(workshop, upload_id)[1] == ["cat", "sofa", "human0", "human1"]
    edited(workshop, upload_id, tags=None)
    assert words_of(workshop, upload_id)[1] == ["cat", "sofa"]


def test_what_a_page_shows_is_what_counts(workshop, upload_id):
    edited(workshop, upload_id, caption="Mimi", tags={"add": ["pet"]})
    (other,) = workshop.upload(photographs.one_pixel())
    page = {one["id"]: one for one in get(workshop, "/api/uploads").json["data"]}
    assert page[upload_id]["caption"] == "Mimi"
    assert page[upload_id]["tags"] == ["cat", "sofa", "pet"]
    assert page[other]["caption"] is None
