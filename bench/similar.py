"""The rows of similar uploads: the nearest of a million, beside the bare search."""

import json
import shutil
import statistics
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

import numpy as np
import pymongo
import simsimd
from bson import ObjectId
from pymongo.collection import Collection

from bench.large import children
from bench.rows import Figure
from bench.seed import document
from bench.service import Contender, web
from clustr.components import build_database
from clustr.database import NewVector
from clustr.plugins import Vector
from clustr.plugins.vectors import vector_space
from clustr.settings import read_settings

COUNT = 1_000_000
BATCH = 10_000
LIMIT = 20
TENTH = "tenth"  # a tag of each tenth upload
QUERIES = 10
NUMBERS = Vector(field="embedding", dimensions=256)
BITS = Vector(field="look", dimensions=64, kind="bits")
STORED_AT_A_TIME = 100  # what the engine writes together at most
PLUGIN = f"""
from marshmallow import Schema
from clustr.plugins import Analyzer, Vector, hookimpl

class Seeded(Analyzer):
    name = "seeded"
    auto = False
    result_schema = Schema
    vectors = ({NUMBERS!r}, {BITS!r})

@hookimpl
def clustr_register_analyzers(config):
    return [Seeded()]
"""


class Seeded:
    """A million uploads with two vectors each, and these vectors beside them.

    Attributes:
        ids: of the uploads, in the order of the rows of `numbers` and `bits`.
    """

    def __init__(self, uploads: Collection):
        random = np.random.default_rng(1)
        self.numbers = np.empty((COUNT, NUMBERS.dimensions), np.float16)
        self.bits = random.integers(0, 2**63, COUNT, np.uint64)
        self.ids: list[str] = []
        pattern = document(0, datetime.now(UTC), "seeded", 0)
        for first in range(0, COUNT, BATCH):
            made = random.standard_normal((BATCH, NUMBERS.dimensions), np.float32)
            made /= np.linalg.norm(made, axis=1, keepdims=True)
            self.numbers[first : first + BATCH] = made
            self._insert(uploads, pattern, first)
        for vector in (NUMBERS, BITS):
            space = {"_id": vector_space("seeded", 1, vector), "last": COUNT, "removed": 0}
            space |= {"analyzer": "seeded", "field": vector.field, "version": 1}
            uploads.database["vector_spaces"].insert_one(space)

    def _insert(self, uploads: Collection, pattern: dict[str, Any], first: int) -> None:
        documents, vectors = [], []
        for row in range(first, first + BATCH):
            key = ObjectId()
            self.ids.append(str(key))
            named = {vector.field: ObjectId() for vector in (NUMBERS, BITS)}
            done = {"state": "succeeded", "result": {}, "vectors": named}
            tags = [TENTH] if row % 10 == 0 else []
            own = {"_id": key, "filename": f"{key}.jpg", "sha256": str(key).rjust(64, "0")}
            own |= {"original_sha256": own["sha256"], "tags": tags, "tag_keys": tags}
            documents.append({**pattern, **own, "analyses": [{**pattern["analyses"][0], **done}]})
            for vector, data in ((NUMBERS, self.numbers[row]), (BITS, self.bits[row])):
                about = {"space": vector_space("seeded", 1, vector), "number": row + 1}
                stored = {"upload": key, "data": data.tobytes()}
                vectors.append({"_id": named[vector.field], **about, **stored})
        uploads.insert_many(documents, ordered=False)
        uploads.database["vectors"].insert_many(vectors, ordered=False)

    def bare_numbers(self, row: int) -> list[int]:
        """The search that ours is measured beside: all distances, and the rows of the nearest."""
        query = self.numbers[row : row + 1]
        found = 1 - np.asarray(simsimd.cdist(query, self.numbers, metric="dot", threads=1))[0]
        return nearest_of(found)

    def bare_bits(self, row: int) -> list[int]:
        return nearest_of(np.bitwise_count(self.bits ^ self.bits[row]))

    def by_numpy(self, row: int) -> list[str]:
        """The ids of the nearest, in double precision, without the one itself."""
        query = self.numbers[row].astype(float)
        blocks = range(0, COUNT, BATCH)
        parts = [self.numbers[at : at + BATCH].astype(float) @ query for at in blocks]
        order = np.argsort(1 - np.concatenate(parts))[: LIMIT + 1]
        return [self.ids[each] for each in order if each != row][:LIMIT]


def nearest_of(found: np.ndarray) -> list[int]:
    rows = np.argpartition(found, LIMIT)[: LIMIT + 1]
    return rows[np.argsort(found[rows])].tolist()


def similar(contenders: Sequence[Contender], rounds: int) -> Iterator[Figure]:
    """The nearest of a million by HTTP, beside the bare search in this process."""
    ours = contenders[0]
    folder = ours.folder.parent / "similar"
    plugins = folder / "plugins"
    plugins.mkdir(parents=True)
    (plugins / "seeded.py").write_text(PLUGIN)
    settings = ours.settings | {"PLUGINS_FOLDER": str(plugins), "DATA_FOLDER": str(folder)}
    application = "clustr.app:create_app()"
    with web("similar", application, folder / "uploads", settings) as running:
        uploads = pymongo.MongoClient(running.settings["MONGODB_URL"])["similar"]["uploads"]
        seeded = Seeded(uploads)
        before = [own_memory(pid) for pid in children(running.pid)]
        yield from made_from_nothing(running, folder)
        yield from searches(running, seeded, rounds)
        after = [own_memory(pid) for pid in children(running.pid)]
        grown = [max(a - b for a, b in zip(after, before, strict=True)) / 1e6]
        yield Figure("  a web process's own memory, more than before", "MB", grown, most=60)
        yield from new_vectors(running, seeded)


def made_from_nothing(ours: Contender, folder: Path) -> Iterator[Figure]:
    """The copy of the vectors, which the first search makes."""
    for vector in (NUMBERS, BITS):
        shutil.rmtree(folder / "vectors", ignore_errors=True)
        began, spent = time.perf_counter(), cpu_seconds(ours)
        uploads = pymongo.MongoClient(ours.settings["MONGODB_URL"])["similar"]["uploads"]
        (first,) = uploads.find({}, {"_id": 1}).limit(1)
        while ask(ours, str(first["_id"]), vector) is None:
            time.sleep(0.2)
        work = f"the copy of {COUNT} x {vector.dimensions} {vector.kind} made from nothing"
        yield Figure(work, "seconds", [time.perf_counter() - began], most=60)
        yield Figure("  of the web processes", "CPU seconds", [cpu_seconds(ours) - spent], most=60)


def searches(ours: Contender, seeded: Seeded, rounds: int) -> Iterator[Figure]:
    """In turns with the bare search; then with a filter beside those without; and whether exact."""
    rows = np.random.default_rng(2).integers(0, COUNT, QUERIES).tolist()
    for vector, bare in ((NUMBERS, seeded.bare_numbers), (BITS, seeded.bare_bits)):

        def by_http(row: int, vector: Vector = vector, more: str = "") -> Any:
            return ask(ours, seeded.ids[row], vector, more)

        def with_filter(row: int, vector: Vector = vector) -> Any:
            return ask(ours, seeded.ids[row], vector, f"&tag={TENTH}")

        what = f"similar of {COUNT} x {vector.dimensions} {vector.kind}"
        both = in_turn([by_http, bare], rows, rounds)
        work = f"{what}; floor: the bare search"
        yield Figure(work, "ms", *both, bound=1.5, less_is_better=True)
        filtered = in_turn([with_filter, by_http], rows, rounds)
        work = f"{what}, a tenth by a tag; floor: all"
        yield Figure(work, "ms", *filtered, bound=1.0, less_is_better=True)
    wrong = sum(ids_of(ask(ours, seeded.ids[row], NUMBERS)) != seeded.by_numpy(row) for row in rows)
    yield Figure(f"  of {QUERIES} answers others than NumPy's", "answers", [wrong], most=0)


def in_turn(searches: Sequence[Callable], rows: Sequence[int], rounds: int) -> list[list[float]]:
    """The milliseconds of a search by each, round by round."""
    found: list[list[float]] = [[] for _ in searches]
    for _ in range(rounds):
        took: list[list[float]] = [[] for _ in searches]
        for row in rows:
            for search, times in zip(searches, took, strict=True):
                began = time.perf_counter()
                search(row)
                times.append((time.perf_counter() - began) * 1000)
        for times, all_times in zip(took, found, strict=True):
            all_times.append(statistics.median(times))
    return found


def new_vectors(ours: Contender, seeded: Seeded) -> Iterator[Figure]:
    """What storing one costs, and when it is found."""
    database = build_database(read_settings(ours.settings), 10)
    store, found = [], []
    data = NUMBERS.encode([1] * NUMBERS.dimensions)
    new = [NewVector(i, "seeded", 1, NUMBERS, data) for i in seeded.ids[:STORED_AT_A_TIME]]
    for _ in range(20):
        began = time.perf_counter()
        database.vectors.add(new)
        store.append((time.perf_counter() - began) * 1000 / len(new))
    uploads = pymongo.MongoClient(ours.settings["MONGODB_URL"])["similar"]["uploads"]
    for asked, upload_id in zip(seeded.ids[10:15], seeded.ids[15:20], strict=True):
        data = seeded.numbers[len(found)].tobytes()
        for each in (asked, upload_id):  # The vector of both is the same.
            [vector_id] = database.vectors.add([NewVector(each, "seeded", 1, NUMBERS, data)])
            named = {f"analyses.0.vectors.{NUMBERS.field}": ObjectId(vector_id)}
            uploads.update_one({"_id": ObjectId(each)}, {"$set": named})
        began = time.perf_counter()
        while upload_id not in ids_of(ask(ours, asked, NUMBERS)):
            assert time.perf_counter() - began < 10, "it is not found"
        found.append((time.perf_counter() - began) * 1000)
    database.close()
    yield Figure(f"storing a vector, {STORED_AT_A_TIME} at a time", "ms", store, most=0.2)
    yield Figure("a new vector is found after", "ms", found, most=1000)


def ask(ours: Contender, upload_id: str, vector: Vector, more: str = "") -> Any:
    """The answer; None while the vectors are being read."""
    query = f"by=seeded.{vector.field}&limit={LIMIT}&fields=id{more}"
    address = f"{ours.url}/api/uploads/{upload_id}/similar?{query}"
    try:
        with urllib.request.urlopen(address, timeout=60) as answer:
            return json.load(answer)
    except HTTPError as error:
        if error.code == 503:
            return None
        raise


def ids_of(answer: Any) -> list[str]:
    return [one["id"] for one in answer["data"]]


def own_memory(pid: int) -> int:
    """Bytes of a process that are no pages of files."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss_Anon:"))


def cpu_seconds(ours: Contender) -> float:
    """What the web processes have worked so far."""
    spent = 0
    for pid in children(ours.pid):
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        spent += int(fields[11]) + int(fields[12])
    return spent / 100
