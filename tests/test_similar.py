"""Similar uploads: found exactly, whatever becomes of the files in which a host keeps vectors."""

import json
import shutil
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import photographs
import pytest
from bson import ObjectId
from numpy.typing import NDArray
from running import Servers, wait_until
from sent_commands import listen, sent
from workshop import Workshop, another

from clustr.components import VECTORS_FOLDER
from clustr.database import NewVector, UploadFilter
from clustr.domain.errors import BeingRead
from clustr.plugins import Vector
from clustr.services.nearest import Nearest
from clustr.services.vector_copy import VectorField

UNKNOWN_ID = "0" * 24
DIMENSIONS = 16
COSINE = Vector(field="cosine", dimensions=DIMENSIONS)
EUCLIDEAN = replace(COSINE, field="euclidean", metric="euclidean")
BITS = Vector(field="bits", dimensions=100, kind="bits")
VECTORS = (COSINE, EUCLIDEAN, BITS)
PLUGIN = """
import numpy as np
from marshmallow import Schema, fields
from clustr.plugins import *

class Result(Schema):
    n = fields.Integer()

class It(Analyzer):
    name = "it"
    result_schema = Result
    vectors = {vectors}

    def analyze(self, image, context):
        if image.width == 13:
            return {{"n": 13, "cosine": None, "euclidean": None, "bits": None}}
        numbers = np.arange(16) + image.width
        return {{"n": 1, "cosine": numbers, "euclidean": numbers, "bits": [image.width % 2] * 100}}

@hookimpl
def clustr_register_analyzers(config):
    return [It()]

@hookimpl
def clustr_register_filters(config):
    return [Filter(analyzer="it", field="n", type=fields.Integer(), operators=("eq", "gte"))]
"""

# Reads the vectors of a workshop into the files, and says how often it was told to wait.
READS = """
import resource, sys, time
from clustr import logs
from clustr.components import VECTORS_FOLDER, build_database, build_plugin_manager
from clustr.domain.errors import BeingRead, StorageFull
from clustr.services import nearest, vector_copy
from clustr.settings import read_settings
settings = read_settings()
logs.configure("json", "info")
vector_copy.BATCH = 50
if len(sys.argv) > 2:
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]),) * 2)
database = build_database(settings, 10)
found = nearest.Nearest(
    database, settings.data_folder / VECTORS_FOLDER, build_plugin_manager(settings)
)
field = found.field("it.cosine")
print("ready", flush=True)
while True:
    try:
        neighbors = found.find(field, field.vector.encode([1] * 16), int(sys.argv[1]))
        print("found", *(each.upload_id for each in neighbors), flush=True)
        break
    except BeingRead:
        time.sleep(0.01)
    except StorageFull:
        print("full", flush=True)
        break
"""


class Gallery:
    """Uploads with vectors that are made up, written as the engine writes them."""

    def __init__(self, workshop: Workshop):
        self.workshop = workshop
        self.collection = workshop.collection
        self.values: dict[str, dict[str, Any]] = {}

    @property
    def database(self) -> Any:
        return self.workshop.web.database

    @property
    def folder(self) -> Path:
        """Where the files are of this installation."""
        folder = self.workshop.settings.data_folder / VECTORS_FOLDER
        return folder / self.database.installation()

    def fresh(self) -> Nearest:
        """What another process of this host searches with."""
        folder = self.workshop.settings.data_folder / VECTORS_FOLDER
        return Nearest(self.database, folder, self.workshop.web.plugin_manager)

    def add(self, values: Sequence[dict[str, Any]], **more: Any) -> list[str]:
        """Add uploads with these vectors, by their fields."""
        pattern = self.collection.find_one({"request_id": "pattern"})
        if pattern is None:
            [first] = self.workshop.upload(photographs.unique("png", 7, 13), request_id="pattern")
            pattern = self.collection.find_one({"_id": ObjectId(first)})
        [analysis] = pattern["analyses"]
        documents = [another(pattern, request_id="made", **more) for _ in values]
        fields = {vector.field: vector for vector in VECTORS}
        new = [
            NewVector(str(document["_id"]), "it", 1, fields[name], fields[name].encode(value))
            for document, given in zip(documents, values, strict=True)
            for name, value in given.items()
        ]
        ids = iter(self.database.vectors.add(new))
        for n, (document, given) in enumerate(zip(documents, values, strict=True)):
            named = {name: ObjectId(next(ids)) for name in given}
            done = {"state": "succeeded", "result": {"n": n}, "vectors": named}
            document["analyses"] = [{**analysis, **done}]
        self.collection.insert_many(documents)
        added = [str(document["_id"]) for document in documents]
        self.values |= dict(zip(added, values, strict=True))
        return added

    def add_random(self, count: int, seed: int = 1, **more: Any) -> list[str]:
        numbers = np.random.default_rng(seed).standard_normal((count, DIMENSIONS))
        return self.add([{"cosine": each} for each in numbers], **more)

    def similar(self, upload_id: str, **query: Any) -> Any:
        """The answer of the route."""
        query = {"by": "it.cosine", **query}
        client = self.workshop.app.test_client()
        return client.get(f"/api/uploads/{upload_id}/similar", query_string=query)

    def found(self, upload_id: str, **query: Any) -> list[tuple[str, float]]:
        answer = self.similar(upload_id, **query)
        assert answer.status_code == 200, answer.text
        return [(one["id"], one["distance"]) for one in answer.get_json()["data"]]

    def nearest(self, nearest: Nearest, limit: int = 10) -> list[str]:
        """The nearest to a vector of ones, by that object."""
        field = nearest.field("it.cosine")
        while True:
            try:
                found = nearest.find(field, field.vector.encode([1] * DIMENSIONS), limit)
                return [each.upload_id for each in found]
            except BeingRead:
                continue

    def expected(self, limit: int = 10, among: Sequence[str] | None = None) -> list[str]:
        """The nearest to a vector of ones, by NumPy."""
        given = {i: v["cosine"] for i, v in self.values.items() if "cosine" in v}
        if among is not None:
            given = {i: given[i] for i in among}
        return by_numpy(COSINE, [1] * DIMENSIONS, given)[:limit]


def stored(vector: Vector, values: Sequence[Any]) -> NDArray[Any]:
    """Vectors with the precision in which they are stored."""
    if vector.kind == "bits":
        return np.array([np.unpackbits(np.frombuffer(vector.encode(v), np.uint8)) for v in values])
    return np.array([np.frombuffer(vector.encode(v), np.float16) for v in values]).astype(float)


def distances(vector: Vector, query: Any, values: Sequence[Any]) -> NDArray[Any]:
    others, [one] = stored(vector, values), stored(vector, [query])
    if vector.metric == "cosine":
        return np.maximum(0, 1 - others @ one)
    if vector.metric == "euclidean":
        return np.linalg.norm(others - one, axis=1)
    return (others != one).sum(axis=1).astype(float)


def by_numpy(vector: Vector, query: Any, values: dict[str, Any]) -> list[str]:
    """The ids in the order of the distance, then of the ids."""
    found = distances(vector, query, [*values.values()]).astype(np.float32)
    return [i for _, i in sorted(zip(found.tolist(), values, strict=True))]


@pytest.fixture(scope="module")
def shared_gallery(
    servers: Servers, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Workshop]:
    listen()
    with Workshop(tmp_path_factory.mktemp("similar"), servers) as workshop:
        workshop.write("it", PLUGIN.format(vectors=VECTORS))
        yield workshop


@pytest.fixture
def gallery(shared_gallery: Workshop) -> Iterator[Gallery]:
    shared_gallery.empty("it")
    shared_gallery.renew()
    shutil.rmtree(shared_gallery.settings.data_folder / VECTORS_FOLDER, ignore_errors=True)
    yield Gallery(shared_gallery)
    shared_gallery.end_programs()


def test_similar_uploads_are_found_from_the_bytes_on(gallery: Gallery) -> None:
    workshop = gallery.workshop
    ids = workshop.upload(*(photographs.unique("png", n, 30 + n, 9) for n in (0, 1, 5)))
    assert gallery.similar(ids[0]).get_json()["type"].endswith("no_result")
    assert workshop.horse("it", "run").process.wait(30) == 0
    answer = gallery.similar(ids[0]).get_json()
    assert [one["id"] for one in answer["data"]] == ids[1:]
    assert (answer["by"], answer["metric"]) == ("it.cosine", "cosine")
    listed = workshop.app.test_client().get("/api/uploads").get_json()["data"]
    by_id = {one["id"]: one for one in listed}
    for one in answer["data"]:
        assert 0 < one.pop("distance") < 1
        assert one == by_id[one["id"]]


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector.field)
def test_the_nearest_are_those_of_numpy(gallery: Gallery, vector: Vector) -> None:
    random = np.random.default_rng(5)
    shape = (3000, vector.dimensions)
    values = random.integers(0, 2, shape) if vector is BITS else random.standard_normal(shape)
    values[1000:1050] = values[0]  # Some are the same, and so are their distances.
    ids = gallery.add([{vector.field: value} for value in values])
    given = dict(zip(ids, values, strict=True))
    for n in (0, 1, 2999):
        others = {i: value for i, value in given.items() if i != ids[n]}
        found = gallery.found(ids[n], by=f"it.{vector.field}", limit=100)
        assert [i for i, _ in found] == by_numpy(vector, values[n], others)[:100]
        expected = distances(vector, values[n], [given[i] for i, _ in found])
        assert np.allclose([distance for _, distance in found], expected, atol=1e-5)


def test_fields_filters_and_the_farthest_are_as_in_the_list(gallery: Gallery) -> None:
    tagged = gallery.add_random(40, 1, tags=["Cat"], tag_keys=["cat"])
    others = gallery.add_random(40, 2)
    found = gallery.found(others[0], limit=100, tag="cat")
    assert {i for i, _ in found} == {*tagged}
    found = gallery.found(others[0], limit=100, **{"analyses.it.n__gte": 35})
    assert {i for i, _ in found} == {*tagged[35:], *others[35:]}
    near = [pair for pair in gallery.found(others[0], limit=100) if pair[1] <= 0.5]
    assert 0 < len(near) < 79
    assert gallery.found(others[0], limit=100, max_distance=0.5) == near
    [one] = gallery.similar(others[0], limit=1, fields="tags").get_json()["data"]
    assert set(one) == {"id", "tags", "distance"}
    assert gallery.found(others[0], status="error") == []


@pytest.fixture
def checked(gallery: Gallery) -> Iterator[Callable[[], list[int]]]:
    """Called, how many uploads MongoDB looked at in each check of what may be an answer."""
    database = gallery.collection.database
    database.command("profile", 2)

    def stop_and_look() -> list[int]:
        database.command("profile", 0)
        checks = {"ns": gallery.collection.full_name, "command.hint": "_id_"}
        found = database["system.profile"].find(checks).sort("ts", 1)
        return [check["docsExamined"] for check in found]

    yield stop_and_look
    database.command("profile", 0)
    database["system.profile"].drop()


def test_few_that_meet_a_filter_are_found_among_many(
    gallery: Gallery, checked: Callable[[], list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("clustr.services.nearest.MOST_CHECKED", 50)
    gallery.add_random(1000)
    far = gallery.add(
        [{"cosine": [-1] * 15 + [n / 100]} for n in range(300)], tags=["Cat"], tag_keys=["cat"]
    )
    [one] = gallery.add([{"cosine": [1] * DIMENSIONS}])
    given = {i: gallery.values[i]["cosine"] for i in far}
    found = [i for i, _ in gallery.found(one, limit=20, tag="cat")]
    assert found == by_numpy(COSINE, [1] * DIMENSIONS, given)[:20]
    # MongoDB said which they are, and then those alone were looked at.
    assert checked() == [20 * 15 + 16, 20 + 16]


def test_what_takes_too_long_with_a_filter_is_refused_with_what_helps(
    gallery: Gallery, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("clustr.services.nearest.MOST_CHECKED", 50)
    monkeypatch.setattr("clustr.database.vectors.SEARCH_SECONDS", 1e-6)
    gallery.add_random(1000)
    gallery.add([{"cosine": [-1] * DIMENSIONS}] * 30, tags=["Cat"], tag_keys=["cat"])
    [one] = gallery.add([{"cosine": [1] * DIMENSIONS}])
    refused = gallery.similar(one, tag="cat")
    assert (refused.status_code, list(refused.get_json()["errors"])) == (422, ["max_distance"])
    assert gallery.found(one, tag="cat", max_distance=0.4) == []


def test_of_many_at_the_same_distance_few_are_looked_at(
    gallery: Gallery, checked: Callable[[], list[int]]
) -> None:
    ids = gallery.add([{"bits": [1] * 100}] * 1200)
    tagged = gallery.add([{"bits": [1] * 100}] * 30, tags=["Cat"], tag_keys=["cat"])
    found = [i for i, _ in gallery.found(ids[0], by="it.bits", limit=20)]
    assert found == sorted(ids)[1:21]
    found = [i for i, _ in gallery.found(ids[0], by="it.bits", limit=20, tag="cat")]
    assert found == sorted(tagged)[:20]
    assert checked() == [20 + 16, 20 * 15 + 16, 1230 - 20 * 15 - 16]


@pytest.mark.parametrize(
    ("query", "error"),
    [
        ({"by": ""}, "by"),
        ({"by": "it"}, "by"),  # It has three.
        ({"by": "it.cosin"}, "by"),
        ({"limit": 0}, "limit"),
        ({"limit": 101}, "limit"),
        ({"page": 1}, "page"),
        ({"sort": "name"}, "sort"),
        ({"max_distance": -1}, "max_distance"),
        ({"max_distance": "nan"}, "max_distance"),
        ({"analyses.it.m": 1}, "analyses.it.m"),
        ({"limit": [1, 2]}, "limit"),
    ],
)
def test_what_cannot_be_asked_is_said(gallery: Gallery, query: Any, error: str) -> None:
    [upload_id] = gallery.add_random(1)
    answer = gallery.similar(upload_id, **query)
    assert answer.status_code == 422
    assert list(answer.get_json()["errors"]) == [error]


def test_an_unknown_vector_is_named_with_those_that_there_are(gallery: Gallery) -> None:
    [upload_id] = gallery.add_random(1)
    [message] = gallery.similar(upload_id, by="it.cosin").get_json()["errors"]["by"]
    assert "it.cosin" in message
    assert message.endswith("; did you mean it.cosine?")


def test_no_vector_yet_is_another_problem_than_no_such_upload(gallery: Gallery) -> None:
    workshop = gallery.workshop
    answer = gallery.similar(UNKNOWN_ID)
    assert answer.status_code == 404
    assert answer.get_json()["type"].endswith("not_found")
    queued, none = workshop.upload(
        photographs.unique("png", 1), photographs.unique("png", 2, 13, 13)
    )
    answer = gallery.similar(queued)
    assert answer.status_code == 404
    assert answer.get_json()["type"].endswith("no_result")
    detail = f"The upload {queued} has no vector it.cosine yet; its analysis it is queued."
    assert answer.get_json()["detail"] == detail
    assert workshop.horse("it", "run").process.wait(30) == 0
    detail = f"The upload {none} has no vector it.cosine; its result of it has none."
    assert gallery.similar(none).get_json()["detail"] == detail
    workshop.web.removal.remove(queued)
    assert gallery.similar(queued).get_json()["type"].endswith("in_trash")


def test_a_vector_of_an_earlier_version_is_no_answer(gallery: Gallery) -> None:
    old, new, other = gallery.add_random(3)
    stale = {"$set": {"analyses.0.version": 0, "analyses.0.vectors": {}}}
    gallery.collection.update_one({"_id": ObjectId(old)}, stale)
    assert [i for i, _ in gallery.found(new)] == [other]
    detail = gallery.similar(old).get_json()["detail"]
    assert detail.endswith("its result is of version 0 of it, which is at version 1.")


def test_what_goes_is_found_no_more_and_comes_back_with_the_upload(gallery: Gallery) -> None:
    ids = gallery.add_random(5)
    removal = gallery.workshop.web.removal
    before = gallery.found(ids[0])
    removal.remove(ids[1])
    assert {i for i, _ in gallery.found(ids[0])} == {*ids[2:]}
    removal.restore(ids[1])
    assert gallery.found(ids[0]) == before
    removal.remove(ids[1], permanently=True)
    assert {i for i, _ in gallery.found(ids[0])} == {*ids[2:]}


def test_a_vector_without_a_result_is_no_answer(gallery: Gallery) -> None:
    ids = gallery.add_random(3)
    vector = NewVector(ids[0], "it", 1, COSINE, COSINE.encode([1] * DIMENSIONS))
    gallery.database.vectors.add([vector])
    stray = NewVector(UNKNOWN_ID, "it", 1, COSINE, COSINE.encode([1] * DIMENSIONS))
    gallery.database.vectors.add([stray])
    assert gallery.nearest(gallery.fresh()) == gallery.expected()


@pytest.mark.parametrize("wanted", [None, UploadFilter(tag_keys=("cat",))], ids=["all", "tag"])
def test_an_owner_is_answered_from_own_vectors_alone(
    gallery: Gallery, wanted: UploadFilter | None
) -> None:
    """Whatever others have, the same is found, and the same is asked of MongoDB for it."""
    tags = {"tags": ["Cat"], "tag_keys": ["cat"]}
    mine = gallery.add_random(60, 1, owner="alice", **tags)
    nearest = gallery.fresh()
    field = nearest.field("it.cosine")

    def search() -> tuple[list[str], list[Any]]:
        gallery.nearest(nearest)  # The files have all vectors after it.
        with sent() as commands:
            vector = field.vector.encode([1] * DIMENSIONS)
            found = nearest.seen_by("alice").find(field, vector, 10, wanted)
        return [each.upload_id for each in found], commands

    search()  # What is asked once in a while is known after it.
    before = search()
    assert before[0] == gallery.expected(10, mine)
    for owner in ("bob", None):
        more = {"owner": owner} if owner else {}
        gallery.add([{"cosine": [1] * DIMENSIONS}] * 300, **more, **tags)  # Nearer than all.
    assert search() == before


def test_an_upload_in_the_trash_is_still_of_its_owner(gallery: Gallery) -> None:
    first, *others = gallery.add_random(3, owner="alice")
    nearest = gallery.fresh()
    removal = gallery.workshop.web.removal
    removal.remove(first)
    assert gallery.nearest(nearest.seen_by("alice")) == gallery.expected(10, others)
    removal.restore(first)
    assert gallery.nearest(nearest.seen_by("alice")) == gallery.expected()
    assert gallery.nearest(nearest.seen_by("bob")) == []


def test_new_vectors_are_found_at_once_by_all_processes(gallery: Gallery) -> None:
    one, other = gallery.fresh(), gallery.fresh()
    for n in range(4):
        gallery.add_random(20, n)
        first, second = (one, other) if n % 2 else (other, one)
        assert gallery.nearest(first) == gallery.nearest(second) == gallery.expected()
    [space] = gallery.folder.iterdir()
    assert json.loads((space / "state.json").read_text())["rows"] == 80


def test_a_vector_that_is_written_late_is_found(gallery: Gallery) -> None:
    """Its number was given before, and that of another one was seen meanwhile."""
    nearest = gallery.fresh()
    ids = gallery.add_random(40)
    vectors = gallery.database.vectors.collection
    late = list(vectors.find({"number": {"$in": [3, 7, 8, 40]}}))
    vectors.delete_many({"_id": {"$in": [each["_id"] for each in late]}})
    missing = {str(each["upload"]) for each in late}
    expected = [i for i in gallery.expected(40) if i not in missing]
    assert gallery.nearest(nearest, 40) == expected
    vectors.insert_many(late[:2])
    assert len(gallery.nearest(nearest, 40)) == 38
    vectors.insert_many(late[2:])
    assert gallery.nearest(nearest, 40) == gallery.nearest(gallery.fresh(), 40)
    assert gallery.nearest(nearest, 40) == gallery.expected(40)
    assert len(ids) == 40


def damage(folder: Path, how: str) -> None:
    [space] = folder.iterdir()
    state = space / "state.json"
    if how == "folder":
        shutil.rmtree(folder)
    elif how in ("data", "ids", "owners", "dead"):
        [file] = space.glob(f"*.{how}")
        file.unlink()
    elif how == "cut":
        [file] = space.glob("*.data")
        file.write_bytes(file.read_bytes()[:-1])
    elif how == "empty":
        state.write_text("")
    else:
        loaded = json.loads(state.read_text())
        state.write_text(json.dumps({**loaded, how: {"number": 10**6}.get(how, 7)}))


@pytest.mark.parametrize(
    "how",
    [
        "folder",
        "data",
        "ids",
        "owners",
        "dead",
        "cut",
        "empty",
        "format",
        "space",
        "boot",
        "number",
        "gaps",
        "more",
    ],
)
def test_files_that_are_lost_or_doubtful_are_made_again(gallery: Gallery, how: str) -> None:
    gallery.add_random(50)
    nearest = gallery.fresh()
    assert gallery.nearest(nearest) == gallery.expected()
    damage(gallery.folder, how)
    assert gallery.nearest(gallery.fresh()) == gallery.expected()
    assert gallery.nearest(nearest) == gallery.expected()
    [space] = gallery.folder.iterdir()
    assert len(list(space.glob("*.data"))) == 1


def test_files_of_another_state_of_mongodb_are_made_again(gallery: Gallery) -> None:
    """Such as after it was restored from a backup: the same numbers are of other vectors."""
    gallery.add_random(50)
    assert gallery.nearest(gallery.fresh()) == gallery.expected()
    for name in ("vectors", "vector_spaces"):
        gallery.collection.database[name].delete_many({})
    gallery.collection.delete_many({})
    gallery.values.clear()
    gallery.add_random(60, 2)
    assert gallery.nearest(gallery.fresh()) == gallery.expected()


def test_what_was_removed_leaves_the_files(gallery: Gallery) -> None:
    ids = gallery.add_random(1600)
    nearest = gallery.fresh()
    assert gallery.nearest(nearest) == gallery.expected()
    gone = gallery.expected(1200)
    for upload_id in gone:
        del gallery.values[upload_id]
    gallery.collection.delete_many({"_id": {"$in": [ObjectId(i) for i in gone]}})
    keys = {"upload": {"$in": [ObjectId(i) for i in gone]}}
    stale = [str(d["_id"]) for d in gallery.database.vectors.collection.find(keys)]
    gallery.database.vectors.remove(stale[:900])
    assert gallery.nearest(nearest) == gallery.expected()
    [space] = gallery.folder.iterdir()
    [dead] = space.glob("*.dead")
    assert sum(dead.read_bytes()) > 0
    gallery.database.vectors.remove(stale[900:])
    gallery.add_random(1, 3)
    assert gallery.nearest(nearest) == gallery.expected()
    assert json.loads((space / "state.json").read_text())["rows"] == 401
    assert len(ids) == 1600


def test_a_process_that_is_killed_while_it_appends_harms_nobody(gallery: Gallery) -> None:
    gallery.add_random(4000)
    for rows in (50, 600, 1500):
        program = gallery.workshop.run("-c", READS, "10")
        wait_until(lambda at=rows: rows_of(gallery) >= at, 30, f"{rows} vectors in the files")
        program.signal(signal.SIGKILL)
        program.process.wait()
        assert rows_of(gallery) < 4000
    assert gallery.nearest(gallery.fresh()) == gallery.expected()


def rows_of(gallery: Gallery) -> int:
    """How many vectors the files count."""
    states = list(gallery.folder.glob("*/state.json"))
    return json.loads(states[0].read_text())["rows"] if states else 0


def test_processes_that_append_at_the_same_time_write_each_vector_once(gallery: Gallery) -> None:
    gallery.add_random(1500)
    programs = [gallery.workshop.run("-c", READS, "10") for _ in range(3)]
    threads = [threading.Thread(target=gallery.add_random, args=(300, n)) for n in (7, 8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for program in programs:
        assert program.process.wait(60) == 0, program.output()
        assert "found" in program.output()
    assert gallery.nearest(gallery.fresh()) == gallery.expected()
    assert rows_of(gallery) == 2100


def test_a_full_disk_is_said_and_what_is_there_stays(gallery: Gallery) -> None:
    gallery.add_random(2000)
    program = gallery.workshop.run("-c", READS, "10", str(1000 * COSINE.size))
    assert program.process.wait(60) == 0, program.output()
    assert program.output().splitlines()[-1] == "full"
    assert rows_of(gallery) == 1000
    assert gallery.nearest(gallery.fresh()) == gallery.expected()


def test_a_full_disk_is_answered_507(gallery: Gallery) -> None:
    [upload_id, _] = gallery.add_random(2)
    folder = gallery.workshop.settings.data_folder / VECTORS_FOLDER
    folder.parent.mkdir(exist_ok=True)
    folder.write_text("where a folder should be")
    answer = gallery.similar(upload_id)
    folder.unlink()
    assert answer.status_code == 507
    assert answer.get_json()["type"].endswith("storage_full")


def test_the_first_search_among_very_many_is_put_off_and_ends(
    gallery: Gallery, monkeypatch: pytest.MonkeyPatch
) -> None:
    gallery.add_random(200)
    monkeypatch.setattr("clustr.services.vector_copy.BATCH", 20)
    monkeypatch.setattr("clustr.services.nearest.CATCH_UP_SECONDS", 0.0)
    for owner, said in ((None, r" \(20 of 200\);"), ("alice", r"database;")):
        shutil.rmtree(gallery.folder, ignore_errors=True)
        nearest = gallery.fresh()
        field = nearest.field("it.cosine")
        with pytest.raises(BeingRead, match=said):
            nearest.seen_by(owner).find(field, field.vector.encode([1] * DIMENSIONS), 10)
        wait_until(lambda: rows_of(gallery) == 200, 20, "all vectors in the files")
        assert gallery.nearest(nearest) == gallery.expected()


def test_files_of_an_earlier_version_are_removed(gallery: Gallery) -> None:
    gallery.add_random(5)
    nearest = gallery.fresh()
    gallery.nearest(nearest)
    later = VectorField("it", 2, COSINE)
    assert nearest.find(later, COSINE.encode([1] * DIMENSIONS), 5) == []
    assert [path.name for path in gallery.folder.iterdir()] == [later.space]


def test_the_route_is_described_with_the_filters_of_plugins(gallery: Gallery) -> None:
    document = gallery.workshop.app.test_client().get("/openapi.json").get_json()
    operation = document["paths"]["/api/uploads/{upload_id}/similar"]["get"]
    names = {parameter["name"] for parameter in operation["parameters"]}
    assert {"by", "max_distance", "limit", "tag", "q", "fields", "analyses.it.n__gte"} <= names
    assert not names & {"page", "cursor", "sort"}
    [by] = [each for each in operation["parameters"] if each["name"] == "by"]
    [reference] = by["schema"]["allOf"]
    values = document["components"]["schemas"][reference["$ref"].rpartition("/")[2]]["enum"]
    assert values == ["it.bits", "it.cosine", "it.euclidean"]  # `it` alone would not say which.
