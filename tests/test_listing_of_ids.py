"""Asking for several uploads at once, again and again, and for many at little cost."""

from typing import Any

import photographs
import pytest
from bson import ObjectId
from workshop import Workshop


@pytest.fixture
def workshop(workshop: Workshop) -> Workshop:
    workshop.analyzer("says", "return {}")
    return workshop


def ask(workshop: Workshop, query: str, **headers: str) -> Any:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return workshop.app.test_client().get(f"/api/uploads?{query}", headers=named)


def upload(workshop: Workshop, count: int) -> list[str]:
    contents = [photographs.photograph(width=40 + number) for number in range(count)]
    return workshop.upload(*contents)


def test_those_of_the_ids_that_are_there_are_listed(workshop):
    ids = upload(workshop, 4)
    query = f"ids={ids[0]},{ids[2]},{ObjectId()},{ids[0]}"
    answer = ask(workshop, query)
    assert [one["id"] for one in answer.json["data"]] == [ids[2], ids[0]]
    assert answer.json["total"] == 2
    first = ask(workshop, f"{query}&limit=1&sort=upload_time").json
    assert [one["id"] for one in first["data"]] == [ids[0]]
    cursor = first["next_cursor"]
    then = ask(workshop, f"{query}&limit=1&sort=upload_time&cursor={cursor}").json
    assert [one["id"] for one in then["data"]] == [ids[2]]
    assert not ask(workshop, f"{query}&status=error").json["data"]


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("ids=", "ids"),
        ("ids=6b0320122fce94d44a44b78f,7", "ids"),
        ("ids=" + ",".join(str(ObjectId()) for _ in range(101)), "ids"),
        ("limit=101", "limit"),
        ("limit=101&fields=id,analyses", "limit"),
        ("limit=101&fields=id,analyses.says", "limit"),
        ("limit=101&fields=id,analyses.results", "limit"),
        ("limit=1001&fields=id", "limit"),
    ],
)
def test_what_is_too_much_is_refused(workshop, query, field):
    answer = ask(workshop, query)
    assert answer.status_code == 422
    assert [*answer.json["errors"]] == [field]


def test_a_page_that_is_the_same_is_not_sent_again(workshop):
    ids = upload(workshop, 2)
    query = f"ids={','.join(ids)}&fields=status,caption"
    tag = ask(workshop, query).headers["ETag"]
    again = ask(workshop, query, If_None_Match=tag)
    assert (again.status_code, again.data, again.headers["ETag"]) == (304, b"", tag)
    client = workshop.app.test_client()
    assert client.patch(f"/api/uploads/{ids[0]}", json={"caption": "Mimi"}).status_code == 200
    changed = ask(workshop, query, If_None_Match=tag)
    assert changed.status_code == 200
    assert changed.headers["ETag"] != tag


def test_many_are_listed_at_once_when_little_of_each_is_asked_for(workshop):
    (pattern,) = workshop.upload()
    document = workshop.collection.find_one({"_id": ObjectId(pattern)})
    assert document
    document |= {"duplicate_of": ObjectId(pattern)}
    document.pop("original_sha256")
    keys = [ObjectId() for _ in range(1100)]
    workshop.collection.insert_many(
        {**document, "_id": key, "filename": f"{key}.jpg"} for key in keys
    )
    answer = ask(workshop, "limit=1000&fields=dimensions")
    assert len(answer.json["data"]) == 1000
    assert {*answer.json["data"][0]} == {"id", "dimensions"}
    cursor = answer.json["next_cursor"]
    rest = ask(workshop, f"limit=1000&fields=dimensions&cursor={cursor}")
    assert len(rest.json["data"]) == 101
    assert rest.json["next_cursor"] is None
