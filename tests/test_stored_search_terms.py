"""The terms of uploads are those of their words, whoever has written these, and whenever."""

# ruff: noqa: RUF001  Letters of all scripts are meant here.

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import photographs
import pytest
from bson import ObjectId
from editing import edited, say
from trash import remove, restore
from workshop import Workshop, another

from clustr.database.analysis_updates import DUE_TERM
from clustr.database.search_terms import BATCH, OLD_INDEX, SearchTerms, TermsProgress
from clustr.domain.edits import TagEdit

TAKEN = "2024-07-31T22:30:00+00:00"
NO_TERMS: Mapping[str, Any] = {"$unset": {"search": ""}}


@pytest.fixture
def workshop(saying_workshop: Workshop) -> Workshop:
    return saying_workshop


def terms_of(workshop: Workshop, upload_id: str) -> set[str]:
    found = workshop.collection.find_one({"_id": ObjectId(upload_id)})
    assert found is not None
    assert DUE_TERM not in found["search"]["terms"]
    assert found["search"]["version"]
    return {*found["search"]["terms"]}


def search_terms(workshop: Workshop, *languages: str) -> SearchTerms:
    """The terms as a process makes them that has these languages."""
    state = workshop.collection.database["search_state"]
    return SearchTerms(workshop.collection, state, workshop.web.database.vocabulary, languages)


def test_a_new_upload_has_the_terms_of_its_name(workshop):
    (upload_id,) = workshop.upload()
    assert terms_of(workshop, upload_id) == {"n=photograph"}


def test_several_new_uploads_have_the_terms_of_their_names(workshop):
    contents = [photographs.photograph(extension) for extension in ("jpg", "png")]
    for upload_id in workshop.upload(*contents):
        assert "n=photograph" in terms_of(workshop, upload_id)


def test_what_analyzers_and_people_write_has_terms(workshop, upload_id):
    assert {"c=cat", "#=cat", "#=sofa"} <= terms_of(workshop, upload_id)
    edited(workshop, upload_id, caption="two dogs", tags={"add": ["red ball"]})
    terms = terms_of(workshop, upload_id)
    assert {"c=dogs", "c~dog", "#=cat", "#=red ball", "t=red"} <= terms
    assert "c=cat" not in terms
    say(workshop, '{"caption": "a lion", "tags": ["lion"]}')
    terms = terms_of(workshop, upload_id)
    assert {"c=dogs", "#=lion", "#=red ball"} <= terms
    assert not {"c=lion", "#=cat"} & terms
    edited(workshop, upload_id, caption=None, tags=None, original_name="zoo.jpg")
    terms = terms_of(workshop, upload_id)
    assert {"c=lion", "#=lion", "n=zoo"} <= terms
    assert not {"c=dogs", "#=red ball", "n=photograph"} & terms


@pytest.mark.parametrize(
    ("edit", "results", "day"),
    [
        ("2024-07-31T23:30:00+02:00", [], "2024-07-31"),
        ("2024-08-01T00:30:00+02:00", [], "2024-08-01"),
        ("2024-07-31T23:30:00Z", [{"taken_at": "2024-07-31T23:30:00Z"}], "2024-07-31"),
        (None, [{"taken_at": TAKEN, "taken_at_local": "2024-08-01T00:30:00"}], "2024-08-01"),
        (None, [{"taken_at": TAKEN, "taken_at_local": 7}], "2024-07-31"),
        (None, [None, {"taken_at": TAKEN}, {"taken_at_local": "2024-08-01"}], "2024-07-31"),
    ],
)
def test_dates_are_those_where_the_picture_was_taken(workshop, upload_id, edit, results, day):
    """By the time zone of an edit, and by the analysis that says when it was."""
    if edit:
        edited(workshop, upload_id, taken_at=edit)
    else:
        workshop.collection.update_one(
            {},
            {
                "$set": {
                    "taken_at": datetime.fromisoformat(TAKEN),
                    "analyses": [{"result": result} for result in results],
                    "search.terms": [DUE_TERM],
                }
            },
        )
        workshop.web.database.search_terms.update([upload_id])
    assert f"d={day}" in terms_of(workshop, upload_id)
    assert len([term for term in terms_of(workshop, upload_id) if term[0] == "d"]) == 1


def test_the_day_follows_what_an_analyzer_says_later_of_the_place(workshop, upload_id):
    """The moment is the same, but where it was, it was the next day."""
    say(workshop, json.dumps({"when": TAKEN, "taken_at": TAKEN}))
    assert "d=2024-07-31" in terms_of(workshop, upload_id)
    local = {"taken_at_local": "2024-08-01T00:30:00"}
    say(workshop, json.dumps({"when": TAKEN, "taken_at": TAKEN, **local}))
    assert "d=2024-08-01" in terms_of(workshop, upload_id)
    # No time zone is so far away: `taken_at_local` is the moment, and so is the day of a search.
    local = {"taken_at_local": "2024-08-20T00:30:00"}
    say(workshop, json.dumps({"when": TAKEN, "taken_at": TAKEN, **local}))
    assert "d=2024-07-31" in terms_of(workshop, upload_id)


def test_tags_of_many_uploads_at_once_have_terms(workshop, upload_id):
    (other_id,) = workshop.upload()
    ids = [upload_id, other_id]
    assert {*workshop.web.database.editing.edit_tags(ids, TagEdit(add=("blue",)))} == {*ids}
    assert all("#=blue" in terms_of(workshop, each) for each in (upload_id, other_id))


def test_an_upload_out_of_the_trash_has_the_terms_of_the_languages_of_now(workshop, upload_id):
    workshop.collection.update_one({}, {"$set": {"search.terms": ["c=old"], "search.version": "0"}})
    assert remove(workshop, upload_id) == 204
    assert restore(workshop, upload_id).status_code == 200
    assert {"c=cat", "#=cat", "#=sofa", "n=photograph"} <= terms_of(workshop, upload_id)


def test_what_a_killed_process_has_left_is_made_later(workshop, upload_id):
    workshop.collection.update_one(
        {}, {"$set": {"caption": "a bear", "search.terms": [DUE_TERM]}}
    )  # as it is before the terms are written
    terms = search_terms(workshop, "en")
    assert terms.update_due() == 1
    assert "c=bear" in terms_of(workshop, upload_id)
    assert terms.update_due() == 0


def test_what_a_process_of_an_older_release_stores_beside_a_newer_one_gets_terms(workshop):
    (upload_id,) = workshop.upload()
    terms = search_terms(workshop, "en")
    assert [*terms.update_all()] and terms.progress() is None
    long_ago = datetime(2020, 1, 1, tzinfo=UTC)
    old = another(workshop.collection.find_one(), upload_time=long_ago)
    foreign = {"_id": "a foreign record", "upload_time": datetime.now(UTC)}
    workshop.collection.insert_many([old, foreign])
    workshop.collection.update_many({}, NO_TERMS)
    assert terms.update_due() == 1
    assert terms_of(workshop, upload_id) == {"n=photograph"}
    assert terms.update_due() == 0


def test_the_terms_of_an_older_library_are_made_from_the_newest_on(workshop, upload_id):
    collection = workshop.collection
    pattern = collection.find_one()
    more = [another(pattern, caption=f"picture {n}") for n in range(BATCH + 10)]
    collection.insert_many(more)
    collection.update_many({}, NO_TERMS)
    collection.create_index([("caption", "text")], name=OLD_INDEX)
    collection.insert_one({"_id": "a foreign record"})
    terms = search_terms(workshop, "en")
    total = BATCH + 12
    assert terms.progress() == TermsProgress(0, total)
    steps = terms.update_all()
    assert next(steps) == BATCH
    assert "c=picture" in terms_of(workshop, str(more[-1]["_id"]))
    assert "search" not in collection.find_one({"_id": ObjectId(upload_id)})
    assert terms.progress() == TermsProgress(BATCH, total)
    assert OLD_INDEX in collection.index_information()
    # Another process goes on where this one has stopped.
    assert sum(search_terms(workshop, "en").update_all()) == 11
    assert OLD_INDEX not in collection.index_information()
    assert terms.progress() is None
    assert "c=cat" in terms_of(workshop, upload_id)
    assert sum(terms.update_all()) == 0


def test_another_language_makes_all_terms_anew(workshop, upload_id):
    edited(workshop, upload_id, caption="у моря")
    assert sum(search_terms(workshop, "en").update_all()) == 0
    assert "c~мор" not in terms_of(workshop, upload_id)
    russian = search_terms(workshop, "en", "ru")
    assert russian.progress() == TermsProgress(0, 1)
    assert sum(russian.update_all()) == 1
    assert "c~мор" in terms_of(workshop, upload_id)
    assert russian.progress() is None
