"""Commands find the service that runs, and are told which it is by those that know better."""

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from fork_server import run_program
from running import Up
from workshop import FIRST_PARTY, analyzer


def command(folder: Path, *arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
    """Run a command in another folder, where nothing says which service is meant."""
    elsewhere = folder / "elsewhere"
    elsewhere.mkdir(exist_ok=True)
    variables = {"PATH": os.environ["PATH"], "XDG_STATE_HOME": str(folder / "state"), **settings}
    return run_program(["-m", "clustr", *arguments], variables, elsewhere)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("service")


@pytest.fixture(scope="module")
def running(folder: Path) -> Iterator[Up]:
    """A service whose settings are those of its folder: the file `.env` and the plugins."""
    (folder / "plugins").mkdir()
    (folder / "plugins" / "it.py").write_text(analyzer("it", "return {}"))
    (folder / ".env").write_text(
        f"PLUGINS_DISABLED={','.join(FIRST_PARTY)}\nMONGODB_DATABASE=noted\n"
    )
    up = Up(folder, {"WEB_WORKERS": "1"}, ())
    try:
        yield up.wait_until_started()
    finally:
        up.end()


@pytest.fixture
def another(folder: Path) -> Iterator[Path]:
    """A note that says that another service runs."""
    [note] = (folder / "state" / "clustr" / "running").iterdir()
    another = note.with_name("1.json")
    another.write_text(note.read_text())
    yield another
    another.unlink()


DRY_RUN = "analyze", "it", "--missing", "--dry-run"


def test_command_uses_the_service_that_runs_elsewhere_and_says_so(running, folder) -> None:
    done = command(folder, *DRY_RUN)
    assert done.stderr == f"clustr: using {running.url}, with DATA_FOLDER={running.data}\n"
    assert (done.returncode, done.stdout.split(";")[0]) == (0, "0 uploads")
    chosen = command(folder, "plugins", "list", DATA_FOLDER=str(folder / "none"))
    assert "using" not in chosen.stderr
    (folder / "pictures").mkdir()
    done = command(folder, "import", str(folder / "pictures"), "--dry-run", PORT="1")
    assert (done.returncode, done.stderr) == (0, f"clustr: using {running.url}\n")


def test_list_compares_plugins_with_the_service_that_runs_elsewhere(running, folder) -> None:
    using = f"clustr: using {running.url}, with DATA_FOLDER={running.data}\n"
    done = command(folder, "plugins", "list")
    assert using in done.stderr
    assert "runs other code" not in done.stderr
    assert "not there any more" not in done.stderr
    (folder / "plugins" / "it.py").write_text(analyzer("it", "return {}", version=2))
    done = command(folder, "plugins", "list", "--json")
    assert using in done.stderr
    warnings = json.loads(done.stdout)["warnings"]
    assert "runs other code of the plugin it (it v1) than its files have (it v2)" in warnings[0]


@pytest.mark.usefixtures("running", "another")
def test_of_several_services_one_has_to_be_named(running, folder) -> None:
    done = command(folder, "import", str(folder), "--dry-run")
    assert f"several services run: say which is meant with --url ({running.url}" in done.stderr
    done = command(folder, *DRY_RUN)
    assert done.returncode == 2
    assert "several services run: say which is meant with DATA_FOLDER" in done.stderr
    done = command(folder, "plugins", "list")
    assert done.returncode == 0
    assert "warning: plugins are not compared with what runs: several services run" in done.stderr


def test_one_that_has_ended_is_not_used(running, folder) -> None:
    [note] = (folder / "state" / "clustr" / "running").iterdir()
    content = note.read_text()
    assert running.stop() == 0
    assert not note.exists()
    assert "using" not in command(folder, "plugins", "list").stderr
    note.write_text(content)  # That of one that was killed.
    assert "using" not in command(folder, "plugins", "list").stderr
    assert not note.exists()


def test_without_a_home_it_runs_all_the_same_and_keeps_what_workers_log(up, tmp_path) -> None:
    (tmp_path / "state").write_text("no folder")
    disabled = ",".join(FIRST_PARTY)
    running = up(PLUGINS_DISABLED=disabled, WEB_WORKERS="1").wait_until_started()
    assert running.stop() == 0
    kept = (running.data / "log" / "worker.log").read_text()
    assert "worker_ended" in kept
    assert [line for line in kept.splitlines() if line not in running.output()] == []
