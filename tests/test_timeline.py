"""The timeline: counts by month and day with cursors, for every filter of the list of uploads."""

import io
import json
import threading
from typing import Any

import photographs
import pytest
from running import wait_until
from workshop import Workshop

from clustr.database.kept_counts import KeptCounts
from clustr.domain.errors import TooSlow

TAKEN = [
    *("2024-07-01T00:30:00+02:00", "2024-07-15T12:00:00Z", "2024-06-30T23:59:59.999-07:00"),
    *("2023-12-31T23:30:00-05:00", "2999-01-01T00:00:00Z", "9999-12-31T23:59:59.999Z"),
    "0001-01-01T00:00:00Z",
]
MONTHS = ["9999-12", "2999-01", "2024-07", "2024-06", "2023-12", "0001-01"]


def get(workshop: Workshop, path: str, status: int = 200) -> Any:
    answer = workshop.app.test_client().get(path)
    assert answer.status_code == status, answer.text
    return answer.json


def timeline(workshop: Workshop, query: str = "") -> dict[str, int]:
    """The counts by month, after a look at all else that is said."""
    found = get(workshop, f"/api/timeline?{query}")
    unit = "day" if "unit=day" in query else "month"
    assert all([*each] == [unit, "count", "cursor"] for each in found["data"])
    counts = {each[unit]: each["count"] for each in found["data"]}
    assert [*counts] == sorted(counts, reverse=True)
    assert sum(counts.values()) == found["total"]
    return counts


def listed(workshop: Workshop, query: str) -> list[str]:
    """The ids on all pages, to the end."""
    ids, cursor = [], ""
    while cursor is not None:
        more = f"&cursor={cursor}" if cursor else ""
        page = get(workshop, f"/api/uploads?sort=-date&limit=2&{query}{more}")
        ids += [upload["id"] for upload in page["data"]]
        cursor, query = page["next_cursor"], query.partition("&cursor=")[0]
    return ids


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """What few uploads are counted for is not kept, also where a machine is slow."""
    monkeypatch.setattr("clustr.database.kept_counts.QUICK_SECONDS", 60.0)


@pytest.fixture
def dated(workshop: Workshop) -> list[str]:
    """Uploads that were taken at these times, and one of which nobody knows when."""
    tags = ["far" if "999-" in taken_at[:5] else "near" for taken_at in TAKEN]
    said = [{"taken_at": t, "tags": {"set": [tag]}} for t, tag in zip(TAKEN, tags, strict=True)]
    files = [(io.BytesIO(photographs.unique(number=n)), "photograph.jpg") for n in range(8)]
    form = {"files": files, "metadata": json.dumps([*said, None])}
    answer = workshop.app.test_client().post("/api/upload", data=form)
    assert answer.status_code == 201, answer.text
    return [accepted["id"] for accepted in answer.json["data"]]


def this_month(workshop: Workshop, upload_id: str) -> str:
    return get(workshop, f"/api/uploads/{upload_id}")["upload_time"][:7]


def test_each_month_with_uploads_is_there_newest_first(workshop, dated):
    found = get(workshop, "/api/timeline")
    uploaded = this_month(workshop, dated[-1])
    assert {each["month"] for each in found["data"]} == {*MONTHS, uploaded}
    assert (found["undated"], found["total"]) == (1, len(dated))
    assert timeline(workshop)["2024-07"] == 2
    assert timeline(workshop) == timeline(workshop, "unit=month")


def test_days_are_those_of_the_clock_there(workshop, dated):
    days = timeline(workshop, "unit=day&undated=false")
    expected = ["9999-12-31", "2999-01-01", "2024-07-15", "2024-07-01", "2024-06-30"]
    assert [*days] == [*expected, "2023-12-31", "0001-01-01"]


@pytest.mark.parametrize("unit", ["month", "day"])
@pytest.mark.parametrize("filters", ["", "tag=near", "tag=near&status=processed", "q=far"])
def test_listing_begins_where_the_cursor_says(workshop, dated, unit, filters):
    whole = listed(workshop, filters)
    found = get(workshop, f"/api/timeline?unit={unit}&{filters}")
    assert len(whole) == found["total"] > 0
    seen = 0
    for period in found["data"]:
        assert listed(workshop, f"{filters}&cursor={period['cursor']}") == whole[seen:]
        seen += period["count"]
    assert seen == len(whole)


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ("tag=far", {"9999-12": 1, "2999-01": 1}),
        ("tag=far&tag_not=near", {"9999-12": 1, "2999-01": 1}),
        ("q=taken:2024-07", {"2024-07": 2}),
        ("taken_after=2024-07-02&taken_before=2999-01-01", {"2024-07": 1}),
        ("taken_after=2024-07-01T00:00:00Z&taken_before=2025-01-01T00:00:00Z", {"2024-07": 1}),
        ("status=error", {}),
        ("content_type=image/webp", {}),
        ("min_width=100000", {}),
    ],
)
def test_every_filter_of_the_listing_goes(workshop, dated, filters, expected):
    # The second was taken at 06:59:59 in UTC of the first day.
    expected = dict(expected)
    if "T00:00:00Z" in filters:
        expected["2024-06"] = 1
    assert timeline(workshop, filters) == dict(sorted(expected.items(), reverse=True))


def test_undated_are_counted_where_they_were_uploaded(workshop, dated):
    uploaded = this_month(workshop, dated[-1])
    assert timeline(workshop, "undated=true") == {uploaded: 1}
    assert get(workshop, "/api/timeline?undated=true")["undated"] == 1
    assert get(workshop, "/api/timeline?undated=false")["undated"] == 0


def test_nothing_is_sent_while_nothing_changes(workshop, dated):
    client = workshop.app.test_client()
    tag = client.get("/api/timeline").headers["ETag"]
    known = client.get("/api/timeline", headers={"If-None-Match": tag})
    assert (known.status_code, known.data) == (304, b"")
    assert client.delete(f"/api/uploads/{dated[0]}").status_code == 204
    assert client.get("/api/timeline", headers={"If-None-Match": tag}).status_code == 200


@pytest.mark.parametrize("name", ["sort=-date", "cursor=AAAA", "page=1", "unit=year", "fields=id"])
def test_what_it_does_not_have_is_refused(workshop, name):
    errors = get(workshop, f"/api/timeline?{name}", 422)["errors"]
    assert [*errors] == [name.partition("=")[0]]


def test_nothing_is_a_timeline_too(workshop):
    assert get(workshop, "/api/timeline") == {"data": [], "undated": 0, "total": 0}


@pytest.mark.parametrize(
    "filters", ["", "status=pending", "tag=near", "duplicate=false", "taken_after=2000-01-01"]
)
def test_counting_reads_an_index_and_no_upload(workshop, dated, filters):
    database = workshop.collection.database
    database.command("profile", 2)
    timeline(workshop, filters)
    database.command("profile", 0)
    aggregated = {"ns": workshop.collection.full_name, "command.aggregate": {"$exists": True}}
    [plan] = database["system.profile"].find(aggregated)
    database["system.profile"].drop()  # Nobody can delete anything in it.
    assert plan["docsExamined"] == 0, plan
    assert plan["keysExamined"] <= len(dated) + 2, plan


def test_counts_of_many_are_kept_for_a_while(workshop, dated, monkeypatch):
    """They are answered at once, and made anew behind that."""
    monkeypatch.setattr("clustr.database.kept_counts.FEW_UPLOADS", 2)
    monkeypatch.setattr("clustr.database.kept_counts.FRESH_FACTOR", 1e9)
    before = timeline(workshop, "undated=false")
    client = workshop.app.test_client()
    assert client.delete(f"/api/uploads/{dated[0]}").status_code == 204
    assert timeline(workshop, "undated=false") == before
    assert timeline(workshop, "undated=false&tag=near")["2024-07"] == 1
    monkeypatch.setattr("clustr.database.kept_counts.FRESH_FACTOR", 0)
    assert timeline(workshop, "undated=false")["2024-07"] in (1, 2)
    now = {**before, "2024-07": 1}
    wait_until(lambda: timeline(workshop, "undated=false") == now, 60, "a new count")


def test_count_that_takes_long_goes_on(monkeypatch):
    """Who asks is told to ask again, and gets it then."""
    monkeypatch.setattr("clustr.database.kept_counts.QUICK_SECONDS", 0.3)
    monkeypatch.setattr("clustr.database.kept_counts.FEW_UPLOADS", 2)
    monkeypatch.setattr("clustr.database.kept_counts.WAIT_SECONDS", 0.01)
    kept, begun, may_end = KeptCounts(), [], threading.Event()

    def count(seconds: float) -> list[dict[str, int]]:
        if seconds < 1:
            raise TooSlow
        begun.append(seconds)
        assert may_end.wait(30)
        return [{"count": 3}]

    for _ in range(3):
        with pytest.raises(TooSlow):
            kept.get("all", count)
    may_end.set()
    monkeypatch.setattr("clustr.database.kept_counts.WAIT_SECONDS", 30)
    assert kept.get("all", count) == [{"count": 3}]
    assert len(begun) == 1
