"""The rows of the library: what listing and searching cost, and that it does not grow."""

import itertools
import json
import urllib.request
from collections.abc import Callable, Sequence
from urllib.parse import urlencode

import pymongo

from bench import load
from bench.rows import Figure
from bench.seed import WORDS, seed_library
from bench.service import Contender
from clustr.catalog import Catalog
from clustr.errors import DatabaseUnavailable

SIZES = (1_000, 100_000, 1_000_000)
REQUESTS = 1000
CLIENTS = 4
DEEP = 20  # pages a walk goes before it is measured
FILTERS = {
    "status": "status=processed",
    "tag": f"tag={WORDS[2]}",
    "content type": "content_type=image/png",
    "analysis": "analyzer=blip&analysis_status=succeeded",
    "duplicate": "duplicate=true",
}
SORTS = ("-upload_time", "taken_at", "-size", "name")


def listing(contenders: Sequence[Contender], rounds: int) -> list[Figure]:
    """The listing at every size; the floor is the bare keyset query, answered with orjson."""
    ours, floor = contenders
    figures: list[Figure] = []
    first_rates: dict[int, list[float]] = {}
    for count in SIZES:
        fill(contenders, count)
        for limit in (20, 100):
            path = f"/api/uploads?limit={limit}"
            rates = [[rate(each, [path]) for each in (ours, floor)] for _ in range(rounds)]
            mine, floors = ([each[n] for each in rates] for n in range(2))
            work = f"first page of {limit}, {count} uploads"
            figures.append(Figure(work, "requests/s", mine, floors, bound=0.65))
            small = first_rates.setdefault(limit, mine)
            if count != SIZES[0]:
                figures.append(Figure("  to that of 1,000", "requests/s", mine, small, bound=0.9))
        figures += walks(ours, rounds, count)
        figures += one_upload(contenders, rounds, count)
    figures += searches(ours, rounds)
    figures += far_pages(ours, rounds)
    return figures


def fill(contenders: Sequence[Contender], count: int) -> None:
    """Let both have a library of so many uploads, with all indexes."""
    for contender in contenders:
        url, database = contender.settings["MONGODB_URL"], contender.name
        with pymongo.MongoClient(url) as client:
            uploads = client[database]["uploads"]
            uploads.drop()
            seed_library(uploads, count)
            if contender.name == "floor":
                uploads.create_index([("upload_time", -1), ("_id", -1)])
        if contender.name != "floor":
            catalog = Catalog(url, database, "uploads", timeout_seconds=600)
            make_indexes(catalog)
            catalog.close()


def make_indexes(catalog: Catalog) -> None:
    """Make all indexes; of a million uploads a call makes some, and the next one goes on."""
    while True:
        try:
            return catalog.make_indexes()
        except DatabaseUnavailable:
            continue


def rate(contender: Contender, paths: Sequence[str]) -> float:
    return load.gets(contender.url, paths, REQUESTS, CLIENTS).rate


def walks(ours: Contender, rounds: int, count: int) -> list[Figure]:
    """A page far behind the first, by cursor: every order, and every filter with one of them."""
    queries = [f"sort={sort}" for sort in SORTS]
    pairs = zip(FILTERS.values(), itertools.cycle(SORTS), strict=False)
    queries += [f"{filter}&sort={sort}" for filter, sort in pairs]
    figures = []
    for query in queries:
        first = f"/api/uploads?limit=20&{query}"
        deep = far(ours, first)
        rates = [(rate(ours, [deep]), rate(ours, [first])) for _ in range(rounds)]
        work = f"page {DEEP} by cursor to the first, {query}, {count}"
        mine, firsts = ([each[n] for each in rates] for n in range(2))
        figures.append(Figure(work, "requests/s", mine, firsts, bound=0.8))
    return figures


def far(contender: Contender, first: str) -> str:
    """The address of a page some way behind the first."""
    path = first
    for _ in range(DEEP):
        cursor = ask(contender, path)["next_cursor"]
        if cursor is None:
            break
        path = f"{first}&cursor={cursor}"
    return path


def ask(contender: Contender, path: str) -> dict:
    with urllib.request.urlopen(contender.url + path, timeout=30) as answer:
        return json.load(answer)


def one_upload(contenders: Sequence[Contender], rounds: int, count: int) -> list[Figure]:
    """Uploads by their ids."""
    paths = {}
    for contender in contenders:
        with pymongo.MongoClient(contender.settings["MONGODB_URL"]) as client:
            some = client[contender.name]["uploads"].aggregate([{"$sample": {"size": 200}}])
            paths[contender.name] = [f"/api/uploads/{each['_id']}" for each in some]
    rates = [[rate(each, paths[each.name]) for each in contenders] for _ in range(rounds)]
    mine, floors = ([each[n] for each in rates] for n in range(2))
    return [Figure(f"one upload of {count}", "requests/s", mine, floors, bound=0.65)]


def searches(ours: Contender, rounds: int) -> list[Figure]:
    """The first page for a rare word, for one in two of a hundred uploads, and a common one."""
    with pymongo.MongoClient(ours.settings["MONGODB_URL"]) as client:
        count = client[ours.name]["uploads"].estimated_document_count()
    figures = []
    for word in ("4711", "lighthouse", WORDS[0]):
        path = f"/api/uploads?{urlencode({'q': word})}"
        slowest = slow(lambda path=path: load.gets(ours.url, [path], 100, 1), rounds)
        figures.append(Figure(f"search for {word} among {count}", "p99 ms", slowest, most=300))
    return figures


def far_pages(ours: Contender, rounds: int) -> list[Figure]:
    """The farthest page that is answered; what lies behind it is refused at once."""
    path = "/api/uploads?limit=20&page=501"
    slowest = slow(lambda: load.gets(ours.url, [path], 100, 1), rounds)
    return [Figure("the farthest page by its number", "p99 ms", slowest, most=50)]


def slow(measure: Callable[[], load.Measured], rounds: int) -> list[float]:
    """The 99th percentile of each round, in milliseconds."""
    return [measure().percentile(0.99) * 1000 for _ in range(rounds)]
