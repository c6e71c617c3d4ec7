"""MongoDB halted or busy: a search is answered or put off, and never said to be too much."""

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from pymongo import MongoClient
from running import Servers, wait_until
from test_listing_cost import document
from web_side import WebSide
from workshop import Workshop

from clustr.database import Database, Sort, UploadFilter
from clustr.database.upload_filter import RangeLimit
from clustr.domain.errors import TooSlow

COUNT = 107
HALTED_SECONDS = 0.7
SEARCHES = [
    *("min_width=10", "min_height=1", "min_size=1&sort=name", "q=photograph", 'q="photograph 1"'),
    *("status=processed&tag=cat", "max_width=120&sort=-taken_at", "q=jpg&duplicate=true&limit=1"),
    *("min_width=10&page=3", "min_width=10&sort=size", "q=nowhere"),
]
WIDE = RangeLimit("width", "gte", 100 + COUNT - 10)


@pytest.fixture(scope="module")
def database(servers: Servers) -> Iterator[Database]:
    built = Database(servers.mongodb_url, "stalls", "uploads", 10)
    built.make_indexes()
    with MongoClient(servers.mongodb_url, tz_aware=True) as client:
        client["stalls"]["uploads"].insert_many(map(document, range(COUNT)))
    yield built
    built.close()


@pytest.fixture
def web_side(servers: Servers, tmp_path: Path) -> Iterator[WebSide]:
    """A web side with as many uploads, whose MongoDB may be halted."""
    with Workshop(tmp_path, servers) as workshop:
        running = WebSide(workshop, processes=2)
        workshop.collection.insert_many(map(document, range(COUNT)))
        yield running


def test_a_search_is_answered_or_put_off_while_mongodb_is_halted(servers, web_side):

    def ask(query: str) -> requests.Response:
        return requests.get(f"{web_side.url}/api/uploads?{query}", timeout=60)

    expected = {query: ask(query).json() for query in SEARCHES}
    assert all(page["total"] is not None for page in expected.values())
    answers: dict[str, requests.Response] = {}
    threads = [
        threading.Thread(target=lambda q=query: answers.update({q: ask(q)})) for query in SEARCHES
    ]
    with servers.frozen_mongod():
        for thread in threads:
            thread.start()
        threads[0].join(HALTED_SECONDS)
    for thread in threads:
        thread.join()
    for query, answer in answers.items():
        if answer.status_code == 503:
            assert answer.headers["Retry-After"]
        else:
            assert (query, answer.status_code) == (query, 200)
            # A cursor of `q` tells when its walk began.
            assert answer.json() | {"next_cursor": None} == expected[query] | {"next_cursor": None}
    wait_until(lambda: ask("min_width=10").status_code == 200, 60, "an answer as before")


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every search takes too long, as while MongoDB is halted."""
    monkeypatch.setattr("clustr.database.listing.SEARCH_SECONDS", 1e-6)


@pytest.mark.parametrize("down", [False, True])
@pytest.mark.parametrize(
    "wanted",
    [
        UploadFilter(bounds=(WIDE,)),
        UploadFilter(status="processed", tag_keys=("cat",)),
        UploadFilter(tag_keys=("cat", "sofa"), bounds=(WIDE, RangeLimit("size", "gte", 1005))),
        UploadFilter(duplicate=True, content_type="image/png"),
    ],
)
@pytest.mark.parametrize("by", ["upload_time", "size", "taken_at", "name"])
def test_what_took_too_long_is_found_by_looking_at_few(
    database, monkeypatch, wanted: UploadFilter, by: str, down: bool
):
    def walk() -> list[tuple[list[Any], int | None]]:
        pages, cursor = [], None
        while not pages or cursor:
            page = database.listing.page(4, 1, cursor, wanted, Sort(by, down))
            pages.append(([one["_id"] for one in page.uploads], page.total))
            cursor = page.next_cursor
        second = database.listing.page(4, 2, None, wanted, Sort(by, down))
        return [*pages, ([one["_id"] for one in second.uploads], second.total)]

    expected = walk()
    monkeypatch.setattr("clustr.database.listing.SEARCH_SECONDS", 1e-6)
    assert walk() == expected


@pytest.mark.parametrize("down", [False, True])
def test_what_would_look_at_too_many_is_refused(database, impatient, monkeypatch, down):
    wanted = UploadFilter(bounds=(WIDE,))
    monkeypatch.setattr("clustr.database.listing.MAX_EXAMINED", COUNT + 1)
    assert database.listing.page(4, upload_filter=wanted, sort=Sort("size", down)).total == 10
    monkeypatch.setattr("clustr.database.listing.MAX_EXAMINED", 30)
    with pytest.raises(TooSlow):
        database.listing.page(40, upload_filter=wanted, sort=Sort("size", down))


def test_a_page_is_shown_where_counting_all_would_look_at_too_many(
    database, impatient, monkeypatch
):
    monkeypatch.setattr("clustr.database.listing.MAX_EXAMINED", 30)
    wanted, oldest_first = UploadFilter(bounds=(WIDE,)), Sort("upload_time", descending=False)
    page = database.listing.page(4, upload_filter=wanted, sort=oldest_first)
    assert (len(page.uploads), page.total) == (4, None)
    further = database.listing.page(4, 1, page.next_cursor, wanted, oldest_first)
    assert (len(further.uploads), further.total) == (4, None)
