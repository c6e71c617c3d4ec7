"""What the web processes of a host have in memory."""

import shutil
from pathlib import Path

import requests
from running import child, descendants, wait_until

import clustr


def memory(pid: int) -> dict[str, int]:
    """Memory of a process by its names in proc_pid_smaps(5), in KiB."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    return {name: int(value.split()[0]) for name, value in (line.split(":") for line in lines)}


def test_web_processes_share_what_they_import(service):
    gunicorn = child(service.pid, "gunicorn")
    workers = descendants(gunicorn.pid)
    assert len(workers) == 2
    for worker in workers:
        assert memory(worker.pid)["Shared_Dirty"] > 20 * 1024


def test_with_reload_a_change_of_the_code_has_an_effect(up, tmp_path):
    """So what was imported before the fork must not be what a new web process runs."""
    copied = tmp_path / "clustr"  # which comes before the installed package, as the working folder
    shutil.copytree(Path(clustr.__file__).parent, copied)
    running = up(RELOAD="true").wait_until_started()
    resource = copied / "api/resources/root.py"
    changed = resource.read_text().replace('"online"', '"changed"')
    resource.write_text(changed)

    def is_changed() -> bool:
        try:
            return requests.get(running.url, timeout=10).json()["status"] == "changed"
        except requests.ConnectionError:  # The process that was asked has just ended.
            return False

    wait_until(is_changed, 30, "an answer of the changed code")
