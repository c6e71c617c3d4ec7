"""`clustr plugins forget`: what is left of an analyzer that is gone is removed, nothing else."""

import re

import photographs
import pytest
from running import wait_until
from workshop import Workshop, analyzer

VECTORS = "vectors = (Vector(field='shape', dimensions=2),)"
FILTER = """
@hookimpl
def clustr_register_filters(config):
    return [Filter(analyzer="{0}", field="{1}", type=fields.Integer(), indexed=True)]
"""
ANALYZE = """
return {{"{0}": image.width, "shape": [image.width, 1]}}
"""


def write(workshop: Workshop, name: str, field: str, requires: tuple[str, ...] = ()) -> None:
    source = analyzer(name, ANALYZE.format(field), requires=requires)
    source = source.replace("    result_schema", f"    {VECTORS}\n    result_schema")
    workshop.write(name, source + FILTER.format(name, field))


@pytest.fixture
def ids(workshop: Workshop) -> list[str]:
    """Uploads that `gone` and `kept` have looked at, the last of them in the trash."""
    write(workshop, "gone", "only_of_gone")
    write(workshop, "kept", "of_kept")
    workshop.web.database.make_result_indexes()
    ids = workshop.upload(*(photographs.unique("png", n, 20 + n, 9) for n in range(3)))
    for name in ("gone", "kept"):
        workshop.analyze(name)
    workshop.web.removal.remove(ids[2])
    return ids


def remove_plugin(workshop: Workshop) -> None:
    (workshop.plugins / "gone.py").unlink()
    workshop.renew()
    wait_until(lambda: "gone" not in plugins_of(workshop, "web"), 30, "the record of the web side")


def plugins_of(workshop: Workshop, kind: str) -> set[str]:
    """The plugins that processes of a kind have loaded, as they have announced it."""
    running = workshop.web.running_processes.running()
    return {name for process in running if process.kind == kind for name in process.plugins}


def test_what_is_left_is_removed_with_counts_and_the_rest_stays(
    workshop: Workshop, ids: list[str]
) -> None:
    remove_plugin(workshop)
    told = workshop.command("plugins", "forget", "gone", "--dry-run")
    assert told.returncode == 0, told.stderr
    said = "gone has left 3 analyses, 3 vectors and 1 indexes (results.only_of_gone)."
    assert told.stdout.splitlines() == [said, "Nothing was changed."]
    database = workshop.collection.database
    assert database["vectors"].count_documents({}) == 6
    running = workshop.worker("--queues", "gpu")
    done = workshop.command("plugins", "forget", "gone", "--yes")
    running.stop()
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-1] == "Succeeded: removed 3 analyses, 3 vectors, 1 indexes."
    for name in (workshop.collection.name, f"{workshop.collection.name}_trash"):
        for document in database[name].find():
            assert [each["name"] for each in document["analyses"]] == ["kept"]
            assert document["status"] == "processed"
    assert {each["space"].split(".")[0] for each in database["vectors"].find()} == {"kept"}
    assert database["vector_spaces"].distinct("analyzer") == ["kept"]
    indexes = workshop.collection.index_information()
    assert "results.of_kept" in indexes
    assert "results.only_of_gone" not in indexes
    answer = workshop.app.test_client().get("/api/jobs").get_json()["data"][0]
    assert (answer["kind"], answer["parameters"]) == ("forget", {"analyzer": "gone"})
    again = workshop.command("plugins", "forget", "gone", "--yes")
    assert again.returncode == 2
    assert "there is nothing of an analyzer gone" in again.stderr


def test_what_waits_for_it_is_skipped(workshop: Workshop) -> None:
    write(workshop, "gone", "only_of_gone")
    write(workshop, "needs", "of_needs", requires=("gone",))
    [upload_id] = workshop.upload(photographs.unique("png", 1))
    (workshop.plugins / "needs.py").unlink()
    remove_plugin(workshop)
    assert workshop.web.database.forgetting.remove_analyses("gone") == 1
    analysis = workshop.analysis(upload_id, "needs")
    assert (analysis.state, analysis.error) == ("skipped", "requires gone")
    assert workshop.get(upload_id).status == "processed"
    assert workshop.web.database.forgetting.remove_analyses("gone") == 0


def test_what_a_plugin_brings_or_may_bring_is_not_forgotten(
    workshop: Workshop, ids: list[str]
) -> None:
    refused = workshop.command("plugins", "forget", "gone", "--yes")
    assert refused.returncode == 2
    assert "the plugin gone brings gone; remove it, or add it to PLUGINS_DISABLED" in refused.stderr
    workshop.write("gone", "import nothing_there")
    refused = workshop.command("plugins", "forget", "gone", "--yes")
    assert refused.returncode == 2
    assert "the plugin gone is failed, and may bring gone" in refused.stderr
    remove_plugin(workshop)
    refused = workshop.command("plugins", "forget", "gone")
    assert refused.returncode == 2
    assert "say --yes" in refused.stderr
    assert workshop.collection.database["vectors"].count_documents({}) == 6
    assert workshop.collection.count_documents({"analyses.name": "gone"}) == 2
    assert len(ids) == 3


def test_what_a_process_has_loaded_still_is_not_forgotten(
    workshop: Workshop, ids: list[str]
) -> None:
    running = workshop.worker("--queues", "gpu")
    wait_until(lambda: "gone" in plugins_of(workshop, "worker"), 30, "the worker")
    remove_plugin(workshop)
    for option in ("--dry-run", "--yes"):
        refused = workshop.command("plugins", "forget", "gone", option)
        assert (refused.returncode, refused.stdout) == (2, "")
        assert re.search(
            r"worker \d+ on \S+ still has the plugin gone, which brings gone\. Restart it: ",
            refused.stderr,
        )
    running.stop()
    assert workshop.command("plugins", "forget", "gone", "--dry-run").returncode == 0
    assert workshop.collection.count_documents({"analyses.name": "gone"}) == len(ids) - 1
