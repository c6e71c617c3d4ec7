"""The rows of the library: what listing costs, and that it does not grow."""

import itertools
import json
import math
import statistics
import urllib.request
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path
from urllib.error import HTTPError

import pymongo
from pymongo.collection import Collection

from bench import load
from bench.captions import TAGS
from bench.large import children
from bench.rows import Figure
from bench.seed import seed_library
from bench.service import Contender, web
from clustr.database.listing import MAX_SKIPPED

SMALL, *LARGER = (1_000, 100_000, 1_000_000)
CLIENTS = 4
LIMIT = 20
FILTERS = {
    "all": "",
    "status": "&status=processed",
    "tag": f"&tag={TAGS[2]}",
    "content type": "&content_type=image/png",
    "analysis": "&analyzer=blip&analysis_status=succeeded",
    "duplicate": "&duplicate=true",
}
SORTS = ("upload_time", "taken_at", "size", "name", "date")
LISTINGS = [
    f"/api/uploads?limit={LIMIT}&sort={sign}{sort}{filter}"
    for filter in FILTERS.values()
    for sort in SORTS
    for sign in ("-", "")
]
TRIVIAL = "/api/health/live"


def listing(contenders: Sequence[Contender], rounds: int) -> Iterator[Figure]:
    """A small library and one that grows, each listed by Clustr and by the floor.

    The floor is the bare keyset query, answered with orjson, on the same uploads.
    """
    with libraries(contenders[0]) as (small, small_floor, large, large_floor):
        seed_library(uploads_of(small), SMALL)
        yield from first_pages(small, small_floor, f"{SMALL} uploads", 0.65, rounds)
        yield from walks(small, rounds, SMALL)
        yield one_upload(small, small_floor, rounds, SMALL)
        for count in LARGER:
            seed_library(uploads_of(large), count)
            yield from first_pages(large, small, f"{count} uploads; floor: {SMALL}", 0.9, rounds)
            yield from walks(large, rounds, count)
            yield one_upload(large, large_floor, rounds, count)
        yield from far_pages(large)
        yield from timelines(large, rounds)
        yield from under_load(large, rounds)


@contextmanager
def libraries(ours: Contender) -> Iterator[tuple[Contender, ...]]:
    """Clustr and the floor on a small library, and both on a large one."""
    with ExitStack() as running:
        yield tuple(
            running.enter_context(web(name, application, ours.folder / name, ours.settings))
            for name in ("small", "large")
            for application in ("clustr.app:create_app()", "bench.floor:app")
        )


def uploads_of(contender: Contender) -> Collection:
    return pymongo.MongoClient(contender.settings["MONGODB_URL"])[contender.name]["uploads"]


def first_pages(
    one: Contender, other: Contender, of: str, bound: float, rounds: int
) -> list[Figure]:
    """The first page of one beside that of another."""
    figures = []
    for limit in (20, 100):
        groups = [(each.url, [f"/api/uploads?limit={limit}"]) for each in (one, other)]
        rates = in_turn(groups, 1000, rounds)
        figures.append(Figure(f"first page of {limit}, {of}", "requests/s", *rates, bound=bound))
    return figures


def in_turn(
    groups: Sequence[tuple[str, Sequence[str]]], requests: int, rounds: int
) -> list[list[float]]:
    """Requests a second of each group, round by round."""
    measured = [load.gets_in_turn(groups, requests, CLIENTS) for _ in range(rounds)]
    return [[each[n].rate for each in measured] for n in range(len(groups))]


def walks(ours: Contender, rounds: int, count: int) -> Iterator[Figure]:
    """A page far behind the first, by cursor, beside the first: the worst of all listings."""
    pairs = [(far(ours, first, count), first) for first in LISTINGS]
    groups = [(ours.url, [path]) for path in itertools.chain(*pairs)]
    rates = [statistics.median(each) for each in in_turn(groups, 150, rounds)]
    ratios = [deep / first for deep, first in zip(rates[::2], rates[1::2], strict=True)]
    worst = pairs[ratios.index(min(ratios))]
    both = in_turn([(ours.url, [path]) for path in worst], 1000, rounds)
    work = f"by cursor, {count} uploads; floor: the first page; the worst of {len(pairs)}"
    yield Figure(f"{work}: {query_of(worst[1])}", "requests/s", *both, bound=0.8)


def query_of(path: str) -> str:
    """What makes one of the listings different from others."""
    return path.partition("&")[2]


def far(contender: Contender, first: str, count: int) -> str:
    """The address of a page as far behind the first as every listing goes by number."""
    number = min(MAX_SKIPPED // LIMIT, count // 400)
    return f"{first}&cursor={ask(contender, f'{first}&page={number}')['next_cursor']}"


def ask(contender: Contender, path: str) -> dict:
    with urllib.request.urlopen(contender.url + path, timeout=30) as answer:
        return json.load(answer)


def one_upload(ours: Contender, floor: Contender, rounds: int, count: int) -> Figure:
    """Uploads by their ids."""
    some = uploads_of(ours).aggregate([{"$sample": {"size": 200}}, {"$project": {"_id": 1}}])
    paths = [f"/api/uploads/{each['_id']}" for each in some]
    rates = in_turn([(each.url, paths) for each in (ours, floor)], 1000, rounds)
    return Figure(f"one upload of {count}", "requests/s", *rates, bound=0.65)


def far_pages(ours: Contender) -> list[Figure]:
    """What a page by its number costs MongoDB at most: the farthest ones, and those behind them."""
    farthest, middle = MAX_SKIPPED // LIMIT + 1, LARGER[-1] // LIMIT // 2
    figures = []
    for number, work in ((farthest, "the farthest that is answered"), (middle, "refused with 422")):
        spent = {f: max(database_time(ours, f, number) for _ in range(3)) for f in LISTINGS}
        most, worst = max((milliseconds, first) for first, milliseconds in spent.items())
        work = f"page {number}, {work}; the worst of {len(spent)}: {query_of(worst)}"
        figures.append(Figure(work, "ms of MongoDB", [most], most=50))
    return figures


def database_time(ours: Contender, first: str, number: int) -> float:
    """Milliseconds that MongoDB works for a page by its number, which may be refused."""
    uploads = uploads_of(ours)
    profile = uploads.database["system.profile"]
    profile.drop()
    uploads.database.command("profile", 2)
    try:
        ask(ours, f"{first}&page={number}")
    except HTTPError as error:
        assert error.code == 422, error
    finally:
        uploads.database.command("profile", 0)
    return sum(each["millis"] for each in profile.find({"ns": uploads.full_name}))


def timelines(ours: Contender, rounds: int) -> list[Figure]:
    """The months of the largest library, and how long one waits who asks for them first."""
    figures = []
    for name, most in (("all", 50), ("tag", 150)):
        path = f"/api/timeline?unit=month{FILTERS[name]}"
        work = f"months of {LARGER[-1]} uploads, filter: {name}"
        first = [load.gets(ours.url, [path], 1, 1).seconds * 1000]
        waits = [load.gets(ours.url, [path], 300, 1).percentile(0.99) * 1000 for _ in range(rounds)]
        figures += [
            Figure(work, "p99 ms", waits, most=most),
            Figure("  the first to ask", "ms", first, most=math.inf),
        ]
    return figures


def under_load(ours: Contender, rounds: int) -> list[Figure]:
    """The least route beside four who read pages far behind, and the memory that these take."""
    paths = [f"{first}&page={MAX_SKIPPED // LIMIT + 1}" for first in LISTINGS]
    paths += [far(ours, first, LARGER[-1]) for first in LISTINGS]
    waits, memory = [], []
    with ThreadPoolExecutor(1) as other:
        for _ in range(rounds):
            read = partial(load.gets, ours.url, paths, 1000, CLIENTS)
            reading = other.submit(read)
            waits.append(load.gets(ours.url, [TRIVIAL], 300, 1).percentile(0.99) * 1000)
            assert not reading.done(), "the pages were read before"
            reading.result()
            memory.append(proportional([ours.pid, *children(ours.pid)]) / 1e6)
    return [
        Figure(f"{TRIVIAL} beside 4 who read far pages", "p99 ms", waits, most=100),
        Figure("  the web processes, two workers", "MB of PSS", memory, most=150),
    ]


def proportional(processes: Sequence[int]) -> int:
    """Bytes that these processes have in memory; of what they share each has its part (PSS)."""
    lines: list[str] = []
    for pid in processes:
        with suppress(FileNotFoundError, ProcessLookupError):  # It has ended meanwhile.
            lines += Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Pss:")) * 1024
