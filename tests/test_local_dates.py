"""The date of an upload where the picture was taken: kept right, filtered and sorted by."""

import io
from datetime import datetime
from typing import Any

import photographs
import pytest
from bson import ObjectId
from stored_analyses import add, claim, finish
from workshop import Workshop, another

from clustr.database.id_ranges import BATCH
from clustr.database.local_dates import OLD_INDEXES

JUNE_IN_UTC, JULY_THERE = "2024-06-30T22:30:00Z", "2024-07-01T00:30:00"
ANSWERED = "2024-07-01T00:30:00.000000"


def stored(workshop: Workshop, upload_id: str) -> dict[str, Any]:
    found = workshop.collection.find_one({"_id": ObjectId(upload_id)})
    assert found
    return found


def get(workshop: Workshop, query: str) -> Any:
    answer = workshop.app.test_client().get(f"/api/uploads?{query}")
    assert answer.status_code == 200, answer.text
    return answer.json


def ids(workshop: Workshop, query: str) -> list[str]:
    return [upload["id"] for upload in get(workshop, query)["data"]]


def date_by_person(workshop: Workshop, upload_id: str, taken_at: str | None) -> Any:
    path = f"/api/uploads/{upload_id}"
    answer = workshop.app.test_client().patch(path, json={"taken_at": taken_at})
    assert answer.status_code == 200, answer.text
    return answer.json["taken_at_local"]


def test_edit_says_what_the_clock_showed(workshop):
    (upload_id,) = workshop.upload()
    uploaded = stored(workshop, upload_id)
    assert uploaded["sort_date"] == uploaded["upload_time"]
    assert date_by_person(workshop, upload_id, "2024-07-01T00:30:00+02:00") == ANSWERED
    assert get(workshop, "")["data"][0]["taken_at_local"] == ANSWERED
    assert stored(workshop, upload_id)["sort_date"].isoformat()[:16] == "2024-07-01T00:30"
    assert date_by_person(workshop, upload_id, None) is None
    assert stored(workshop, upload_id)["sort_date"] == uploaded["upload_time"]


@pytest.mark.parametrize(
    ("result", "local"),
    [
        ({"taken_at": JUNE_IN_UTC, "taken_at_local": JULY_THERE}, JULY_THERE),
        ({"taken_at": "2024-06-30T22:30:00.000000Z", "taken_at_local": JULY_THERE}, JULY_THERE),
        ({"taken_at": JUNE_IN_UTC}, "2024-06-30T22:30:00"),
        ({"taken_at": JUNE_IN_UTC, "taken_at_local": 7}, "2024-06-30T22:30:00"),
        ({"taken_at": JUNE_IN_UTC, "taken_at_local": "9999-12-31"}, "2024-06-30T22:30:00"),
        ({"taken_at": "2023-01-01", "taken_at_local": JULY_THERE}, "2024-06-30T22:30:00"),
        ({"taken_at": {"$": 1}, "taken_at_local": JULY_THERE}, "2024-06-30T22:30:00"),
    ],
)
def test_result_says_what_the_clock_showed(database, result, local):
    """As far as it is about this moment, and no more than a time zone away."""
    (upload_id,) = add(database, "queued")
    assert claim(database) == [upload_id]
    fields = {"taken_at": datetime.fromisoformat(JUNE_IN_UTC)}
    assert finish(database, upload_id, result=result, fields=fields) == 1
    assert database.uploads.get(upload_id).taken_at_local == datetime.fromisoformat(local)
    (other,) = database.listing.page(1).uploads
    assert other["sort_date"] == other["taken_at_local"]


def test_words_with_the_upload_say_it(workshop):
    form = {
        "files": (io.BytesIO(photographs.unique()), "photograph.jpg"),
        "metadata": '{"taken_at": "2024-07-01T00:30:00+02:00"}',
    }
    answer = workshop.app.test_client().post("/api/upload", data=form)
    found = stored(workshop, answer.json["data"][0]["id"])
    assert found["taken_at_local"] == found["sort_date"]
    assert get(workshop, "")["data"][0]["taken_at_local"] == ANSWERED


@pytest.fixture
def dated(workshop: Workshop) -> list[str]:
    """Uploads: one taken in July where it was June in UTC, one in August, one nobody knows when."""
    uploaded = workshop.upload(*(photographs.unique(number=number) for number in range(3)))
    date_by_person(workshop, uploaded[0], "2024-07-01T00:30:00+02:00")
    date_by_person(workshop, uploaded[1], "2024-08-01T00:30:00Z")
    return uploaded


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("taken_after=2024-07-01", [1, 0]),
        ("taken_after=2024-07-01&sort=date", [0, 1]),
        ("taken_after=2024-07-01T00:00:00Z", [1]),
        ("taken_after=2024-07-01&taken_before=2024-08-01", [0]),
        ("taken_before=2024-07-02", [0]),
        ("taken_before=2024-07-01", []),
        ("taken_after=2024-07-02&sort=-upload_time", [1]),
        ("taken_after=2024-07-01&status=processed&min_size=1", [1, 0]),
        ("sort=-date", [2, 1, 0]),
        ("sort=date", [0, 1, 2]),
        ("sort=-date&undated=true", [2]),
        ("sort=-date&undated=false", [1, 0]),
        ("q=photograph&sort=-date", [2, 1, 0]),
    ],
)
def test_day_is_the_one_where_the_picture_was_taken(workshop, dated, query, expected):
    assert ids(workshop, query) == [dated[number] for number in expected]


def test_day_of_a_bulk_order_is_that_day_too(workshop, dated):
    order = {"action": "tag", "tags": ["july"], "filter": {"taken_before": "2024-07-31"}}
    answer = workshop.app.test_client().post("/api/uploads/bulk", json=order | {"dry_run": True})
    assert answer.json["matched"] == 1, answer.text


def test_day_that_does_not_exist_is_refused(workshop):
    answer = workshop.app.test_client().get("/api/uploads?taken_after=2024-02-30")
    assert answer.status_code == 422
    assert "2024-07-01" in answer.json["errors"]["taken_after"][0]


def make_older(workshop: Workshop) -> None:
    """Take away what the version before did not write, and bring back its index."""
    uploads = workshop.collection
    for collection in (uploads, uploads.database[f"{uploads.name}_trash"]):
        collection.update_many({}, {"$unset": {"taken_at_local": "", "sort_date": ""}})
    uploads.create_index([("tag_keys", 1), ("taken_at", -1)], name=OLD_INDEXES[0])
    workshop.renew()


def test_uploads_of_an_older_version_get_dates(workshop, dated):
    assert workshop.app.test_client().delete(f"/api/uploads/{dated[0]}").status_code == 204
    make_older(workshop)
    assert ids(workshop, "taken_after=2024-08-01&sort=-upload_time") == [dated[1]]
    answer = workshop.app.test_client().get("/api/uploads?sort=-date")
    assert (answer.status_code, answer.json["type"][-14:]) == (503, "being_prepared")
    assert answer.headers["Retry-After"]
    local_dates = workshop.web.database.local_dates
    assert sum(local_dates.add_all_missing()) == 3
    assert [*local_dates.add_all_missing()] == []
    assert not {*OLD_INDEXES} & {*workshop.collection.index_information()}
    assert ids(workshop, "sort=-date") == [dated[2], dated[1]]
    client = workshop.app.test_client()
    assert client.post(f"/api/uploads/{dated[0]}/restore").status_code == 200
    assert ids(workshop, "taken_after=2024-07-01") == [dated[1], dated[0]]


def test_pass_over_many_goes_on_where_it_was_stopped(workshop):
    (upload_id,) = workshop.upload()
    template = stored(workshop, upload_id)
    workshop.collection.insert_many(another(template) for _ in range(BATCH + 10))
    make_older(workshop)
    local_dates = workshop.web.database.local_dates
    assert next(local_dates.add_all_missing()) == BATCH
    assert not local_dates.are_complete()
    assert sum(local_dates.add_all_missing()) == 11
    assert local_dates.are_complete()


def test_what_a_process_of_the_older_version_still_inserts_gets_dates(workshop, dated):
    document = stored(workshop, dated[1])
    del document["sort_date"], document["taken_at_local"]
    workshop.collection.insert_one(another(document))
    assert workshop.web.database.local_dates.add_missing() == 1
    assert workshop.web.database.local_dates.add_missing() == 0
    first, second = get(workshop, "taken_after=2024-08-01")["data"]
    assert first["taken_at_local"] == second["taken_at_local"]
