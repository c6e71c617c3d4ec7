"""Asking for several uploads at once, again and again, and for many at little cost."""

import gzip
from typing import Any

import photographs
import pytest
from bson import ObjectId
from jobs import engine, job_of, run_until
from workshop import Workshop


@pytest.fixture(scope="module")
def shared_workshop(shared_workshop: Workshop) -> Workshop:
    shared_workshop.analyzer("says", "return {}")
    return shared_workshop


@pytest.fixture
def workshop(shared_workshop: Workshop) -> Workshop:
    """A workshop without uploads, whose analyzer is there."""
    shared_workshop.empty("says")
    return shared_workshop


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


@pytest.mark.parametrize("path", ["/api/uploads?limit=10", "/api/timeline?unit=day"])
def test_a_page_is_compressed_for_whoever_takes_that(workshop, monkeypatch, path):
    upload(workshop, 2)
    monkeypatch.setattr("clustr.api.http.compression.SHORTEST_BYTES", 10)
    client = workshop.app.test_client()
    plain = client.get(path)
    short = client.get(path, headers={"Accept-Encoding": "br, gzip;q=0.5"})
    assert (plain.content_encoding, short.content_encoding) == (None, "gzip")
    assert gzip.decompress(short.data) == plain.data
    assert short.headers["Content-Length"] == str(len(short.data))
    assert "Accept-Encoding" in plain.headers["Vary"] and "Accept-Encoding" in short.headers["Vary"]
    tags = [each.headers["ETag"] for each in (plain, short)]
    assert len({*tags}) == 2  # They are strong, so that they are those of other bytes.
    for encoding, tag in zip(("identity", "gzip"), tags, strict=True):
        known = client.get(path, headers={"Accept-Encoding": encoding, "If-None-Match": tag})
        assert (known.status_code, known.data, known.content_encoding) == (304, b"", None)
        assert known.headers["ETag"] == tag
        assert "Accept-Encoding" in known.headers["Vary"]


@pytest.mark.parametrize("encodings", ["", "identity", "gzip;q=0", "br, *;q=0"])
def test_nobody_gets_a_form_that_they_do_not_take(workshop, monkeypatch, encodings):
    monkeypatch.setattr("clustr.api.http.compression.SHORTEST_BYTES", 10)
    answer = ask(workshop, "limit=10", Accept_Encoding=encodings)
    assert answer.content_encoding is None
    assert answer.json["data"] == []


def test_what_is_short_is_sent_as_it_is(workshop):
    assert ask(workshop, "limit=10", Accept_Encoding="gzip").content_encoding is None


def test_what_has_changed_is_listed_in_the_order_of_the_changes(workshop):
    """By a person, by a job, by the end of an analysis, and by a way out of the trash."""
    ids = upload(workshop, 5)
    client = workshop.app.test_client()
    (known, *_) = ask(workshop, "sort=-updated_at").json["data"]
    query = f"updated_after={known['updated_at']}&limit=2&sort=updated_at"
    client.patch(f"/api/uploads/{ids[2]}", json={"caption": "Mimi"})
    order = {"action": "tag", "ids": ids[:1], "tags": ["holiday"]}
    job_id = client.post("/api/uploads/bulk", json=order).json["id"]
    with engine(workshop) as bulk:
        run_until(bulk, lambda: job_of(workshop, job_id).ended)
    client.delete(f"/api/uploads/{ids[1]}")
    client.delete(f"/api/uploads/{ids[3]}")
    client.post(f"/api/uploads/{ids[3]}/restore")
    page = ask(workshop, query).json
    found = page["data"]
    while cursor := page["next_cursor"]:
        page = ask(workshop, f"{query}&cursor={cursor}").json
        found += page["data"]
    assert [one["id"] for one in found if one["id"] != known["id"]] == [ids[2], ids[0], ids[3]]
    times = [one["updated_at"] for one in found]
    assert times == sorted(times)
    removed = client.get("/api/trash").json["data"]
    assert [one["id"] for one in removed] == [ids[1]]
    since = times[-1]
    assert workshop.horse("says", "run").process.wait(60) == 0
    newest = ask(workshop, f"updated_after={since}").json["data"]
    assert {one["id"] for one in newest} == {*ids} - {ids[1]}
    assert {one["status"] for one in newest} == {"processed"}
