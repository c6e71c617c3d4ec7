"""How many uploads there are: what is said of that is what a walk through all of them finds."""

import itertools
import threading
from collections.abc import Iterator
from pathlib import Path

import photographs
import pytest
import requests
from calling import get, part, upload
from pymongo import MongoClient
from running import Servers, wait_until
from test_tags import count, document
from web_side import WebSide
from workshop import Workshop

from clustr.database import Database


@pytest.fixture(scope="module")
def own_servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    """Servers that may be killed."""
    running = Servers(tmp_path_factory.mktemp("servers"))
    try:
        running.start()
        yield running
    finally:
        running.end()


class Uploads(threading.Thread):
    """Uploads one photograph after another until it is told to stop, whatever is answered."""

    def __init__(self, up: WebSide):
        super().__init__(daemon=True)
        self.up = up
        self.accepted = 0
        self.stopped = threading.Event()
        self.start()

    def run(self) -> None:
        for width in itertools.count(20):
            if self.stopped.is_set():
                return
            try:
                answer = upload(self.up, part(photographs.photograph(width=width)))
            except requests.RequestException:
                continue
            self.accepted += answer.status_code == 201


def walked(up: WebSide, query: str = "") -> int:
    """How many uploads a walk with a cursor finds."""
    found, cursor = set(), ""
    while True:
        page = get(up, f"/api/uploads?limit=100&fields=id{query}{cursor}").json()
        found |= {one["id"] for one in page["data"]}
        if page["next_cursor"] is None:
            return len(found)
        cursor = f"&cursor={page['next_cursor']}"


@pytest.fixture
def running(own_servers: Servers, tmp_path: Path) -> Iterator[WebSide]:
    """Web processes and a worker on servers that may be killed."""
    with Workshop(tmp_path, own_servers, PLUGINS_DISABLED="blip,exif,palette,phash") as workshop:
        workshop.worker()
        yield WebSide(workshop, processes=2)


def test_every_number_is_right_after_mongod_was_killed_under_uploads(own_servers, running):
    uploads = Uploads(running)
    wait_until(lambda: uploads.accepted >= 14, 60, "some uploads")
    with MongoClient(own_servers.mongodb_url) as client:
        client.admin.command("fsync")  # The number of this moment is what mongod has at its start.
    wait_until(lambda: uploads.accepted >= 40, 60, "more uploads")
    own_servers.kill_mongod()
    before = uploads.accepted
    wait_until(lambda: uploads.accepted >= before + 3, 60, "uploads to the mongod that follows")
    uploads.stopped.set()
    uploads.join()
    there = walked(running)
    assert there >= uploads.accepted
    for query in ("", "&content_type=image/jpeg", "&min_width=1", "&sort=size", "&q=photograph"):
        page = get(running, f"/api/uploads?limit=1{query}").json()
        assert (query, page["total"], page["total_is_estimate"]) == (query, there, False)
    pages = [get(running, f"/api/uploads?limit=7&page={n}").json() for n in range(1, there // 7)]
    assert {page["total"] for page in pages} == {there}

    def counted() -> bool:
        return get(running, "/api/stats").json()["uploads"] == there

    wait_until(counted, 180, "the statistics to be right")


def test_an_estimate_is_put_right_after_mongod_was_killed(own_servers, monkeypatch):
    monkeypatch.setattr("clustr.database.upload_counts.COUNTED_TOTAL", 50)
    monkeypatch.setattr("clustr.database.upload_counts.MANY_SECONDS", 0)
    database = Database(own_servers.mongodb_url, "totals", "uploads", 10)
    database.make_indexes()
    with MongoClient(own_servers.mongodb_url, tz_aware=True) as client:
        collection = client["totals"]["uploads"]
        collection.insert_many(document(n) for n in range(100))
        client.admin.command("setParameter", 1, syncdelay=0)  # There is no other checkpoint.
        client.admin.command("fsync")  # The number of this moment is what mongod has at its start.
        collection.insert_many(document(100 + n) for n in range(200))
        own_servers.kill_mongod()
        assert collection.estimated_document_count() == 100
        assert database.listing.page(10).total == 100
        count(database)
        assert database.listing.page(10).total == database.upload_counts.count() == 300
        collection.insert_many(document(300 + n) for n in range(5))
        assert database.listing.page(10).total == 305
        # What it takes for few is no estimate.
        further = [found["_id"] for found in collection.find({}, {"_id": 1}).skip(41)]
        collection.delete_many({"_id": {"$in": further}})
        assert database.listing.page(10).total == 41
    database.close()
