"""The files in which a host keeps vectors: all processes share them, and any damage is mended."""

import json
import shutil
import signal
import threading
from pathlib import Path

import pytest
from bson import ObjectId
from made_vectors import (
    COSINE,
    DIMENSIONS,
    Gallery,
)
from running import wait_until

from clustr.components import VECTORS_FOLDER
from clustr.domain.errors import BeingRead
from clustr.services.vector_copy import VectorField

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

# Comes before it: kills itself the n-th time that it opens or renames a file of vectors.
KILLED = f"""
import os, signal, sys
left = int(sys.argv.pop())

def count(event, arguments):
    global left
    if event in ("open", "os.rename") and "/{VECTORS_FOLDER}/" in str(arguments[0]):
        left -= 1
        if not left:
            os.kill(os.getpid(), signal.SIGKILL)

sys.addaudithook(count)
"""


def test_new_vectors_are_found_at_once_by_all_processes(vector_gallery: Gallery) -> None:
    one, other = vector_gallery.fresh(), vector_gallery.fresh()
    for n in range(4):
        vector_gallery.add_random(20, n)
        first, second = (one, other) if n % 2 else (other, one)
        assert (
            vector_gallery.nearest(first)
            == vector_gallery.nearest(second)
            == vector_gallery.expected()
        )
    [space] = vector_gallery.folder.iterdir()
    assert json.loads((space / "state.json").read_text())["rows"] == 80


def test_a_vector_that_is_written_late_is_found(vector_gallery: Gallery) -> None:
    """Its number was given before, and that of another one was seen meanwhile."""
    nearest = vector_gallery.fresh()
    ids = vector_gallery.add_random(40)
    vectors = vector_gallery.database.vectors.collection
    late = list(vectors.find({"number": {"$in": [3, 7, 8, 40]}}))
    vectors.delete_many({"_id": {"$in": [each["_id"] for each in late]}})
    missing = {str(each["upload"]) for each in late}
    expected = [i for i in vector_gallery.expected(40) if i not in missing]
    assert vector_gallery.nearest(nearest, 40) == expected
    vectors.insert_many(late[:2])
    assert len(vector_gallery.nearest(nearest, 40)) == 38
    vectors.insert_many(late[2:])
    assert vector_gallery.nearest(nearest, 40) == vector_gallery.nearest(vector_gallery.fresh(), 40)
    assert vector_gallery.nearest(nearest, 40) == vector_gallery.expected(40)
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
def test_files_that_are_lost_or_doubtful_are_made_again(vector_gallery: Gallery, how: str) -> None:
    vector_gallery.add_random(50)
    nearest = vector_gallery.fresh()
    assert vector_gallery.nearest(nearest) == vector_gallery.expected()
    damage(vector_gallery.folder, how)
    assert vector_gallery.nearest(vector_gallery.fresh()) == vector_gallery.expected()
    assert vector_gallery.nearest(nearest) == vector_gallery.expected()
    [space] = vector_gallery.folder.iterdir()
    assert len(list(space.glob("*.data"))) == 1


def test_files_of_another_state_of_mongodb_are_made_again(vector_gallery: Gallery) -> None:
    """Such as after it was restored from a backup: the same numbers are of other vectors."""
    vector_gallery.add_random(50)
    assert vector_gallery.nearest(vector_gallery.fresh()) == vector_gallery.expected()
    for name in ("vectors", "vector_spaces"):
        vector_gallery.collection.database[name].delete_many({})
    vector_gallery.collection.delete_many({})
    vector_gallery.values.clear()
    vector_gallery.add_random(60, 2)
    assert vector_gallery.nearest(vector_gallery.fresh()) == vector_gallery.expected()


def test_what_was_removed_leaves_the_files(vector_gallery: Gallery) -> None:
    ids = vector_gallery.add_random(1600)
    nearest = vector_gallery.fresh()
    assert vector_gallery.nearest(nearest) == vector_gallery.expected()
    gone = vector_gallery.expected(1200)
    for upload_id in gone:
        del vector_gallery.values[upload_id]
    vector_gallery.collection.delete_many({"_id": {"$in": [ObjectId(i) for i in gone]}})
    keys = {"upload": {"$in": [ObjectId(i) for i in gone]}}
    stale = [str(d["_id"]) for d in vector_gallery.database.vectors.collection.find(keys)]
    vector_gallery.database.vectors.remove(stale[:900])
    assert vector_gallery.nearest(nearest) == vector_gallery.expected()
    [space] = vector_gallery.folder.iterdir()
    [dead] = space.glob("*.dead")
    assert sum(dead.read_bytes()) > 0
    vector_gallery.database.vectors.remove(stale[900:])
    vector_gallery.add_random(1, 3)
    assert vector_gallery.nearest(nearest) == vector_gallery.expected()
    assert json.loads((space / "state.json").read_text())["rows"] == 401
    assert len(ids) == 1600


def test_a_process_that_is_killed_while_it_appends_harms_nobody(vector_gallery: Gallery) -> None:
    vector_gallery.add_random(1000)
    for moment in range(14, 20):  # A batch is appended in six steps.
        program = vector_gallery.workshop.run("-c", KILLED + READS, "10", str(moment))
        assert program.process.wait(60) == -signal.SIGKILL, program.output()
    assert 0 < rows_of(vector_gallery) < 1000
    assert vector_gallery.nearest(vector_gallery.fresh()) == vector_gallery.expected()


def rows_of(vector_gallery: Gallery) -> int:
    """How many vectors the files count."""
    states = list(vector_gallery.folder.glob("*/state.json"))
    return json.loads(states[0].read_text())["rows"] if states else 0


def test_processes_that_append_at_once_write_each_vector_once(
    vector_gallery: Gallery,
) -> None:
    vector_gallery.add_random(1500)
    programs = [vector_gallery.workshop.run("-c", READS, "10") for _ in range(3)]
    threads = [threading.Thread(target=vector_gallery.add_random, args=(300, n)) for n in (7, 8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for program in programs:
        assert program.process.wait(60) == 0, program.output()
        assert "found" in program.output()
    assert vector_gallery.nearest(vector_gallery.fresh()) == vector_gallery.expected()
    assert rows_of(vector_gallery) == 2100


def test_a_full_disk_is_said_and_what_is_there_stays(vector_gallery: Gallery) -> None:
    vector_gallery.add_random(2000)
    program = vector_gallery.workshop.run("-c", READS, "10", str(1000 * COSINE.size))
    assert program.process.wait(60) == 0, program.output()
    assert program.output().splitlines()[-1] == "full"
    assert rows_of(vector_gallery) == 1000
    assert vector_gallery.nearest(vector_gallery.fresh()) == vector_gallery.expected()


def test_a_full_disk_is_answered_507(vector_gallery: Gallery) -> None:
    [upload_id, _] = vector_gallery.add_random(2)
    folder = vector_gallery.workshop.settings.data_folder / VECTORS_FOLDER
    folder.parent.mkdir(exist_ok=True)
    folder.write_text("where a folder should be")
    answer = vector_gallery.similar(upload_id)
    folder.unlink()
    assert answer.status_code == 507
    assert answer.get_json()["type"].endswith("storage_full")


def test_the_first_search_among_very_many_is_put_off_and_ends(
    vector_gallery: Gallery, monkeypatch: pytest.MonkeyPatch
) -> None:
    vector_gallery.add_random(200)
    monkeypatch.setattr("clustr.services.vector_copy.BATCH", 20)
    monkeypatch.setattr("clustr.services.nearest.CATCH_UP_SECONDS", 0.0)
    for owner, said in ((None, r" \(20 of 200\);"), ("alice", r"database;")):
        shutil.rmtree(vector_gallery.folder, ignore_errors=True)
        nearest = vector_gallery.fresh()
        field = nearest.field("it.cosine")
        with pytest.raises(BeingRead, match=said):
            nearest.seen_by(owner).find(field, field.vector.encode([1] * DIMENSIONS), 10)
        wait_until(lambda: rows_of(vector_gallery) == 200, 60, "all vectors in the files")
        assert vector_gallery.nearest(nearest) == vector_gallery.expected()


def test_files_of_an_earlier_version_are_removed(vector_gallery: Gallery) -> None:
    vector_gallery.add_random(5)
    nearest = vector_gallery.fresh()
    vector_gallery.nearest(nearest)
    later = VectorField("it", 2, COSINE)
    assert nearest.find(later, COSINE.encode([1] * DIMENSIONS), 5) == []
    assert [path.name for path in vector_gallery.folder.iterdir()] == [later.space]
