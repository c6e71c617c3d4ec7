"""Kills: a process that is killed with work under way loses none of it."""

import os
import signal
from pathlib import Path
from typing import Any

import photographs
from running import Up, descendants, wait_until
from test_outage import Service
from workshop import FIRST_PARTY, Workshop, analyzer, end_leases

from clustr.domain.models import State
from clustr.supervisor.servers import free_port

# Does not end before the test wants it.
HELD = analyzer("held", "while not Path('go').exists(): time.sleep(0.02)\nreturn {}")


def test_C7_work_horse_and_worker_that_are_killed_lose_nothing(workshop):
    workshop.write("held", HELD)
    ids = workshop.upload(*[photographs.photograph(width=40)] * 4)
    worker = workshop.worker("--workers", "2")
    wait_until(lambda: values(workshop, "state").count("running") == 2, 60, "work under way")
    os.kill(worker.horses()[0].pid, signal.SIGKILL)
    wait_until(lambda: 1 in values(workshop, "crashes"), 60, "the crash to be noted")
    _, _, *rq_workers = worker.children()
    wait_until(lambda: values(workshop, "state").count("running") == 2, 60, "work under way")
    for process in rq_workers:
        os.kill(process.pid, signal.SIGKILL)
    wait_until(lambda: not any(one.alive() for one in rq_workers), 60, "the end of the workers")
    wait_until(lambda: len(worker.children()) == 4, 60, "new workers")
    workshop.end_leases()
    (workshop.folder / "go").touch()
    for upload_id in ids:
        found = workshop.end_of(upload_id, "held")
        assert (found.state, found.error) == (State.SUCCEEDED, None)
    assert worker.alive()


def test_scratch_folders_of_what_was_killed_are_removed(workshop):
    workshop.analyzer(
        "slow",
        "(context.tmpdir / 'file').touch()\n"
        "Path('folder').write_text(str(context.tmpdir)); time.sleep(60)",
    )
    workshop.upload()

    def folder() -> Path:
        """That of a process which is at work; it is told once."""
        told = workshop.folder / "folder"
        wait_until(lambda: told.exists() and told.read_text(), 60, "the analysis")
        folder = Path(told.read_text())
        told.unlink()
        assert folder.is_dir()
        return folder

    worker = workshop.worker()
    of_horse = folder()
    [horse] = worker.horses()
    os.kill(horse.pid, signal.SIGKILL)
    wait_until(lambda: not of_horse.exists(), 60, "the end of the work-horse's folder")
    of_all = folder()
    worker.end()
    assert of_all.is_dir()
    workshop.end_leases()
    workshop.worker()
    wait_until(lambda: not of_all.exists(), 60, "the end of the folder that was left")
    assert folder() not in (of_horse, of_all)


def values(workshop: Workshop, key: str) -> list[Any]:
    """What all analyses have under this key."""
    return [document["analyses"][0][key] for document in workshop.collection.find({})]


def test_C12_all_killed_with_work_under_way_and_started_again_on_another_port(tmp_path):
    (tmp_path / "plugins").mkdir()
    (tmp_path / "plugins" / "held.py").write_text(HELD)
    settings = {"PLUGINS_DISABLED": ",".join(FIRST_PARTY), "LOG_FORMAT": "json"}
    first = Up(tmp_path, settings, ())
    family = []
    try:
        first.wait_until_started()
        service = Service(first, None, None, tmp_path)
        contents = [photographs.photograph(width=40 + n) for n in range(8)]
        ids = service.upload(*contents)
        wait_until(lambda: "running" in service.states(ids, "held"), 60, "something under way")
        family = descendants(first.pid)
    finally:
        first.kill()
    wait_until(lambda: not any(one.alive() for one in family), 60, "the end of all")
    (tmp_path / "go").touch()
    second = Up(tmp_path, {**settings, "PORT": str(free_port())}, ())
    try:
        service = Service(second.wait_until_started(), None, None, tmp_path)
        assert service.get("/api/uploads").json()["total"] == len(ids)
        for upload_id, content in zip(ids, contents, strict=True):
            upload = service.get(f"/api/uploads/{upload_id}").json()
            assert service.get(f"/uploads/{upload['filename']}").content == content
        with second.mongodb() as client:
            end_leases(client["clustr"]["uploads"])
        service.wait_until_processed(ids, 60)
    finally:
        second.end()
