"""What each index costs an upload: MongoDB's time with all indexes, and without this one."""

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pymongo

from bench.rows import Figure
from bench.seed import ANALYZERS, model, new_upload
from bench.service import Contender
from clustr.components import build_plugin_manager, indexed_result_fields
from clustr.database import INDEXES, Database, now, result_indexes
from clustr.settings import read_settings

UPLOADS = 40
TURNS = 8  # in each round, so that what else the machine does falls upon both
MOST_INDEXES = 24


def indexes(contenders: Sequence[Contender], rounds: int) -> Iterator[Figure]:
    """Each index beside an upload of which all analyses wait."""
    url = contenders[0].settings["MONGODB_URL"]
    declared = declared_indexes()
    for name in declared:
        yield with_and_without(url, name, rounds)
    count = len(declared) + 1  # MongoDB's own, by id
    yield Figure("indexes of uploads", "", [count], most=MOST_INDEXES)


def declared_indexes() -> dict[str, Any]:
    """All indexes of uploads, by name."""
    fields = indexed_result_fields(build_plugin_manager(read_settings()))
    return INDEXES | result_indexes(fields)


def with_and_without(url: str, name: str, rounds: int) -> Figure:
    """An upload of which all analyses wait, with an index and without it."""
    declared = declared_indexes()
    without = {other: index for other, index in declared.items() if other != name}
    with pymongo.MongoClient(url) as client:
        server = client.admin.command("serverStatus")["pid"]
        both = [opened(client, url, "all", declared), opened(client, url, "less", without)]
        pairs = [[cost(server, each) for each in both] for _ in range(TURNS * rounds)]
        for each in both:
            each.close()
    spent = [[pair[n] for pair in pairs] for n in range(2)]
    work = f"an upload with the index {name}; floor: without it"
    return Figure(work, "µs of MongoDB", *spent, bound=1.15, less_is_better=True)


def opened(
    client: pymongo.MongoClient, url: str, database_name: str, declared: Mapping[str, Any]
) -> Database:
    """A database with these indexes and some uploads."""
    uploads = client[database_name]["uploads"]
    uploads.drop()
    uploads.create_indexes([model(name, **index) for name, index in declared.items()])
    database = Database(url, database_name, "uploads", timeout_seconds=30)
    add(database, UPLOADS)
    return database


def cost(server: int, database: Database) -> float:
    """Microseconds that MongoDB works for one upload."""
    before = worked(server)
    add(database, UPLOADS)
    return (worked(server) - before) / UPLOADS / 1000


def add(database: Database, count: int) -> None:
    """Add uploads as the web side does, one by one."""
    for number in range(count):
        database.uploads.add([new_upload(number, now(), ANALYZERS)])


def worked(pid: int) -> int:
    """Nanoseconds that the threads of a process have worked, also those that have ended."""
    return time.clock_gettime_ns(~pid << 3 | 2)  # clock_getcpuclockid(3), which Python has not.
