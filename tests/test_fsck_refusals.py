"""What `clustr fsck` refuses to repair, and leaves as it is."""

import os
import pty

import pytest
from fork_server import fork_server
from fsck_store import DEFECTS, Store, check, fsck

from clustr.services.fsck import RepairRefused


def unchanged(store: Store, *arguments: str, **environment: str) -> str:
    """Run it, which must be refused; what it said."""
    before = store.files(), store.records()
    ran = fsck(store, *arguments, **environment)
    assert ran.returncode == 2, ran.stdout + ran.stderr
    assert (store.files(), store.records()) == before
    assert store.quarantined.count_documents({}) == 0
    (said,) = [line for line in ran.stderr.splitlines() if line.startswith("clustr: ")]
    return said


def test_a_store_that_looks_unmounted_is_refused(own_store):
    store = own_store
    marker = store.folder / ".clustr-store"
    marker.rename(store.folder / "elsewhere")
    assert "UPLOAD_FOLDER looks as if it is not mounted" in unchanged(store, "--repair", "--yes")
    store.folder.rename(store.folder.with_name("moved"))
    assert "not mounted" in unchanged(store)
    assert not store.folder.exists()


def test_a_store_that_is_unmounted_after_the_look_is_left_alone(own_store):
    store = own_store
    store.plant_one_of_each()
    with check(store) as one:
        findings = list(one.findings())
        (store.folder / ".clustr-store").unlink()
        before = store.files(), store.records()
        assert len(findings) == len(DEFECTS)
        for finding in findings:
            with pytest.raises(RepairRefused):
                one.repair(finding)
    assert (store.files(), store.records()) == before


def test_a_trash_that_cannot_be_read_is_said_in_a_sentence(own_store):
    trash = own_store.folder / ".trash"
    trash.mkdir()
    (trash / "notes.txt").touch()  # What is of no upload is passed over.
    assert fsck(own_store).returncode == 0
    (trash / "notes.txt").unlink()
    trash.rmdir()
    trash.touch()
    assert unchanged(own_store) == "clustr: Files cannot be read at the moment; please try again."


def test_too_much_is_refused(store):
    for upload_id in store.add(11):
        store.lose_file(upload_id)
    said = unchanged(store, "--repair", "--yes")
    assert "11 of 15 uploads would go, which is more than 10 %" in said
    assert fsck(store, "--repair", "--yes", "--limit", "74").returncode == 0
    assert len(store.records()) == 4


def test_ten_uploads_are_never_too_much(store):
    for upload_id in store.add(10):
        store.lose_file(upload_id)
    assert fsck(store, "--repair", "--yes").returncode == 0


def test_a_wrong_database_is_refused(store):
    store.add(8)
    said = unchanged(store, "--grace", "0", "--repair", "--yes", MONGODB_DATABASE="another")
    assert "is that of another installation of Clustr" in said


def test_plugins_that_are_not_loaded_here_are_refused(store):
    store.add(8)
    said = unchanged(store, "--repair", "--yes", PLUGINS_ENABLED="")
    assert "12 of 12 uploads would go" in said


def test_nobody_to_ask_is_refused(store):
    store.lose_file(store.add()[0])
    assert "this is no terminal" in unchanged(store, "--repair")


def test_a_database_that_is_away_is_said(store):
    said = unchanged(store, MONGODB_URL="mongodb://127.0.0.1:9/?serverSelectionTimeoutMS=9")
    assert said == "clustr: MongoDB does not answer at the address of MONGODB_URL"


@pytest.mark.parametrize(("answer", "code", "left"), [(b"n\n", 1, 5), (b"y\n", 0, 4)])
def test_at_a_terminal_it_asks(store, answer, code, left):
    store.lose_file(store.add()[0])
    ours, theirs = pty.openpty()
    os.write(ours, answer)
    environment = {"PATH": os.environ["PATH"], **store.workshop.environment}
    folder = store.workshop.folder
    said = folder / "said"
    with said.open("w") as output:
        streams = [theirs, output.fileno(), output.fileno()]
        program = ["-m", "clustr", "fsck", "--repair"]
        ended = fork_server().start(program, environment, folder, streams).wait(60)
    os.close(ours)
    os.close(theirs)
    assert "Repair 1 missing?" in said.read_text()
    assert ended == code, said.read_text()
    assert len(store.records()) == left
