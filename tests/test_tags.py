"""Tags and statistics: counted in the background, read at the same cost at any size."""

from datetime import timedelta
from typing import Any

import photographs
import pytest
from calling import get, total_uploads, uploaded
from failing import fail_once
from running import wait_until

from clustr.database import Database, new_id, now
from clustr.database.counters import Counters
from clustr.database.documents import to_document
from clustr.database.tags import tag_fields
from clustr.domain.errors import DatabaseUnavailable
from clustr.domain.models import Status, Upload


def document(number: int, *tags: str) -> dict[str, Any]:
    upload_id, moment = new_id(), now() - timedelta(days=number % 3)
    upload = Upload(
        id=upload_id,
        original_name="cat.jpg",
        filename=f"{upload_id}.jpg",
        upload_time=moment,
        updated_at=moment,
        size=1000,
        content_type="image/jpeg",
        sha256=upload_id.rjust(64, "0"),
        width=10,
        height=10,
        status=(Status.PENDING, Status.PROCESSED)[number % 2],
        analyses=(),
        request_id="seeded",
    )
    return to_document(upload) | tag_fields(tags)


def count(database: Database) -> int:
    """Count all, and say in how many steps."""
    steps = 1
    while not database.counters.step():
        steps += 1
    return steps


def test_what_was_never_counted_is_nothing(database):
    assert database.counters.totals() is None
    assert database.counters.tags("", 10) == {}
    count(database)
    tally = database.counters.totals()
    assert (tally.uploads, tally.bytes, tally.statuses, tally.days) == (0, 0, {}, {})


def test_a_round_counts_all_of_a_kind(database, collection, monkeypatch):
    monkeypatch.setattr("clustr.database.counters.BATCH", 7)
    named = [["cat"], ["cat", "sofa"], ["cable"], []]
    documents = [document(n, *named[n % 4]) for n in range(60)]
    collection.insert_many(documents)
    assert count(database) == 9
    tally = database.counters.totals()
    assert tally.uploads == 60
    assert tally.bytes == 60_000
    assert tally.statuses == {"pending": 30, "processed": 30}
    assert list(tally.days.values()) == [20, 20, 20]
    assert list(tally.days) == sorted(tally.days, reverse=True)
    assert list(database.counters.tags("", 10).items()) == [
        ("cat", 30),
        ("cable", 15),
        ("sofa", 15),
    ]
    assert list(database.counters.tags("ca", 10)) == ["cable", "cat"]
    assert list(database.counters.tags("ca", 1)) == ["cable"]
    assert database.counters.tags("c.*", 10) == {}


@pytest.mark.parametrize("prefix", ["mun", "MÜN", "mu\u0308n", "mün"])
def test_a_prefix_is_compared_without_case_and_marks(database, collection, prefix):
    collection.insert_many(document(n, "München", "Berlin", "munter", "be") for n in range(3))
    count(database)
    assert list(database.counters.tags(prefix, 10)) == ["München", "munter"]
    assert list(database.counters.tags("be", 10)) == ["be", "Berlin"]


@pytest.mark.parametrize("batch", [2, 1000])
def test_spellings_are_counted_as_one_and_the_most_frequent_is_shown(
    database, collection, monkeypatch, batch
):
    monkeypatch.setattr("clustr.database.counters.BATCH", batch)
    monkeypatch.setattr("clustr.database.counters.KEY_BATCH", 2)
    spellings = ["CAT", *["Cat"] * 4, *["cat"] * 3, *["MÜNCHEN"] * 2, "München", "Munchen", "café"]
    collection.insert_many(document(n, spelling) for n, spelling in enumerate(spellings))
    count(database)
    most_used = [("Cat", 8), ("MÜNCHEN", 3), ("café", 1), ("Munchen", 1)]
    assert sorted(database.counters.tags("", 10).items()) == sorted(most_used)
    assert list(database.counters.tags("", 2).items()) == most_used[:2]
    assert database.counters.tags("mün", 10) == {"Munchen": 1, "MÜNCHEN": 3}
    assert list(database.counters.tags("CA", 10).items()) == [("café", 1), ("Cat", 8)]
    collection.update_many({"tags": "cat"}, {"$set": {"tags": ["CAT"]}})
    collection.delete_one({"tags": "Cat"})
    count(database)
    assert database.counters.tags("cat", 10) == {"CAT": 7}
    # What nobody has any more is forgotten, and so is what others have written.
    collection.delete_many({"tags": "CAT"})
    collection.update_one({"tags": "Munchen"}, {"$set": {"tags": [7, {"a": 1}]}})
    count(database)
    assert database.counters.tags("", 10) == {"MÜNCHEN": 3, "Cat": 3, "café": 1}
    for name in ("tags", "tag_spellings"):
        assert not [*collection.database[name].find({"_id": {"$in": ["CAT", "cat ", 7]}})]


def test_what_an_older_version_counted_is_shown_until_the_next_round(database, collection):
    """It counted each spelling by itself."""
    old = [{"_id": "Cat", "count": 2, "folded": "cat"}, {"_id": "cat", "count": 1, "folded": "cat"}]
    collection.database["tags"].insert_many(old)
    collection.insert_many({**document(0), "tags": [tag]} for tag in ("Cat", "Cat", "cat"))
    assert database.counters.tags("CAT", 10) == {"Cat": 2, "cat": 1}
    count(database)
    assert database.counters.tags("", 10) == {"Cat": 3}
    assert collection.database["tags"].count_documents({}) == 1


def test_what_is_gone_is_not_counted_in_the_next_round(database, collection, monkeypatch):
    monkeypatch.setattr("clustr.database.counters.BATCH", 3)
    collection.insert_many(document(n, "cat", "sofa") for n in range(10))
    count(database)
    collection.update_many({}, {"$pull": {"tags": "sofa"}})
    collection.delete_one({})
    assert not database.counters.step()
    # In the middle of a round the one before counts.
    assert database.counters.tags("", 10) == {"cat": 10, "sofa": 10}
    count(database)
    assert database.counters.tags("", 10) == {"cat": 9}
    assert database.counters.totals().uploads == 9


def test_a_round_that_was_broken_off_counts_nothing_twice(database, collection, monkeypatch):
    """As when the process that counts is killed, and another begins."""
    monkeypatch.setattr("clustr.database.counters.BATCH", 3)
    collection.insert_many(document(n, "cat") for n in range(10))
    assert not database.counters.step()
    assert not database.counters.step()
    database.counters._pass = None
    count(database)
    assert database.counters.tags("", 10) == {"cat": 10}


@pytest.mark.parametrize("steps", [2, 4])
def test_a_round_that_another_process_has_overtaken_begins_anew(
    database, collection, monkeypatch, steps
):
    """As when this one was halted for longer than its lease; the other may be killed, too."""
    monkeypatch.setattr("clustr.database.counters.BATCH", 3)
    collection.insert_many(document(n, "early" if n < 3 else "late") for n in range(10))
    assert not database.counters.step()
    names = ("tallies", "tags", "tag_spellings")
    another = Counters(collection, *(collection.database[name] for name in names))
    assert [another.step() for _ in range(steps)][-1] == (steps == 4)
    count(database)
    assert database.counters.tags("", 10) == {"late": 7, "early": 3}
    assert database.counters.totals().uploads == 10


def test_a_round_that_is_overtaken_in_its_last_batch_publishes_nothing(
    database, collection, monkeypatch
):
    """The counts of the other would go with those of the rounds before."""
    monkeypatch.setattr("clustr.database.counters.BATCH", 6)
    collection.insert_many(document(n, "early" if n < 3 else "late") for n in range(10))
    names = ("tallies", "tags", "tag_spellings")
    another = Counters(collection, *(collection.database[name] for name in names))
    assert not database.counters.step()
    add_tags = Counters._add_tags

    def halt(*arguments: Any) -> None:
        monkeypatch.setattr(Counters, "_add_tags", add_tags)
        add_tags(*arguments)
        assert not another.step()

    monkeypatch.setattr(Counters, "_add_tags", halt)
    assert not database.counters.step()
    assert another.step()
    assert database.counters.tags("", 10) == {"late": 7, "early": 3}


def test_a_batch_that_was_counted_in_part_is_counted_once(database, collection, monkeypatch):
    collection.insert_many(document(n, "cat") for n in range(10))
    fail_once(monkeypatch, Counters, "_add_tags", DatabaseUnavailable)
    with pytest.raises(DatabaseUnavailable):
        database.counters.step()
    count(database)
    assert database.counters.totals().uploads == 10
    assert database.counters.tags("", 10) == {"cat": 10}


def test_what_is_asked_costs_the_same_however_many_there_are(database, collection):
    collection.insert_many(document(n, f"tag {n}", "all") for n in range(500))
    count(database)
    mongo_database = collection.database
    mongo_database.command("profile", 2)
    database.counters.tags("", 10)
    database.counters.tags("tag 4", 10)
    database.counters.totals()
    mongo_database.command("profile", 0)
    for plan in mongo_database["system.profile"].find({"op": "query"}):
        assert plan["docsExamined"] <= 10, plan
        assert not plan.get("hasSortStage"), plan


def test_workers_count(service):
    [one] = uploaded(service, photographs.photograph())

    uploads = total_uploads(service)

    def counted() -> dict[str, Any] | None:
        stats = get(service, "/api/stats").json()
        is_counted = stats["uploads"] == uploads and stats["statuses"].get("processed")
        return stats if is_counted else None

    stats = wait_until(counted, 120, "a round with this upload")
    assert stats["bytes"] >= one["file_size"]
    assert stats["counted_at"].endswith("Z")
    assert sum(stats["days"].values()) == sum(stats["statuses"].values()) == stats["uploads"]
    assert stats["analyzers"]["dimensions"]["states"]

    def tagged() -> list[dict[str, Any]]:
        return get(service, "/api/tags?limit=3").json()["data"]

    tags = wait_until(tagged, 120, "tags that were counted")
    assert all(tag["count"] > 0 for tag in tags)
    found = get(service, "/api/tags", params={"prefix": tags[0]["name"]}).json()["data"]
    assert found[0]["name"] == tags[0]["name"]


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("limit=0", "limit"),
        ("limit=1001", "limit"),
        ("limit=x", "limit"),
        (f"prefix={'a' * 201}", "prefix"),
        ("prefx=a", "prefx"),
    ],
)
def test_what_is_wrong_is_named(service, query, field):
    answer = get(service, f"/api/tags?{query}")
    assert answer.status_code == 422
    assert list(answer.json()["errors"]) == [field]
