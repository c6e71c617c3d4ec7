"""Commands find the service that runs, and are told which it is by those that know better."""

import json
import os
import subprocess
from pathlib import Path

from fork_server import run_program
from running import Up
from workshop import FIRST_PARTY, analyzer

from clustr.supervisor.servers import free_port


def command(folder: Path, *arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
    """Run a command in another folder, where nothing says which service is meant."""
    elsewhere = folder / "elsewhere"
    elsewhere.mkdir(exist_ok=True)
    variables = {"PATH": os.environ["PATH"], "XDG_STATE_HOME": str(folder / "state"), **settings}
    return run_program(["-m", "clustr", *arguments], variables, elsewhere)


def start(up, folder: Path) -> Up:
    """A service whose settings are those of its folder: the file `.env` and the plugins."""
    (folder / "plugins").mkdir()
    (folder / "plugins" / "it.py").write_text(analyzer("it", "return {}"))
    (folder / ".env").write_text(
        f"PLUGINS_DISABLED={','.join(FIRST_PARTY)}\nMONGODB_DATABASE=noted\n"
    )
    return up(own_python=True, WEB_WORKERS="1").wait_until_started()


def test_command_uses_the_service_that_runs_elsewhere_and_says_so(up, tmp_path) -> None:
    running = start(up, tmp_path)
    arguments = "analyze", "it", "--missing", "--dry-run"
    done = command(tmp_path, *arguments)
    assert done.stderr == f"clustr: using {running.url}, with DATA_FOLDER={running.data}\n"
    assert (done.returncode, done.stdout.split(";")[0]) == (0, "0 uploads")
    chosen = command(tmp_path, *arguments, DATA_FOLDER=str(tmp_path / "none"))
    assert "using" not in chosen.stderr
    assert chosen.returncode == 2
    import_pictures = "import", str(tmp_path / "pictures"), "--dry-run"
    (tmp_path / "pictures").mkdir()
    done = command(tmp_path, *import_pictures, PORT="1")
    assert (done.returncode, done.stderr) == (0, f"clustr: using {running.url}\n")
    [note] = (tmp_path / "state" / "clustr" / "running").iterdir()
    another = note.with_name("1.json")
    another.write_text(note.read_text())
    done = command(tmp_path, *import_pictures)
    assert f"several services run: say which is meant with --url ({running.url}" in done.stderr
    done = command(tmp_path, *arguments)
    assert done.returncode == 2
    assert "several services run: say which is meant with DATA_FOLDER" in done.stderr
    another.unlink()
    content = note.read_text()
    assert running.stop() == 0
    assert not note.exists()
    note.write_text(content)  # That of one that was killed.
    assert "using" not in command(tmp_path, *arguments).stderr
    assert not note.exists()


def test_list_compares_plugins_with_the_service_that_runs_elsewhere(up, tmp_path) -> None:
    running = start(up, tmp_path)
    using = f"clustr: using {running.url}, with DATA_FOLDER={running.data}\n"
    done = command(tmp_path, "plugins", "list")
    assert using in done.stderr
    assert "runs other code" not in done.stderr
    assert "not there any more" not in done.stderr
    (tmp_path / "plugins" / "it.py").write_text(analyzer("it", "return {}", version=2))
    done = command(tmp_path, "plugins", "list", "--json")
    assert using in done.stderr
    warnings = json.loads(done.stdout)["warnings"]
    assert "runs other code of the plugin it (it v1) than its files have (it v2)" in warnings[0]
    [note] = (tmp_path / "state" / "clustr" / "running").iterdir()
    another = note.with_name("1.json")
    another.write_text(note.read_text())
    done = command(tmp_path, "plugins", "list")
    assert done.returncode == 0
    assert "warning: plugins are not compared with what runs: several services run" in done.stderr
    another.unlink()
    assert running.stop() == 0
    assert "using" not in command(tmp_path, "plugins", "list").stderr


def test_what_workers_log_is_kept_beside_the_logs_of_servers(up, tmp_path) -> None:
    running = up(PLUGINS_DISABLED=",".join(FIRST_PARTY), WEB_WORKERS="1").wait_until_started()
    assert running.stop() == 0
    kept = (running.data / "log" / "worker.log").read_text()
    assert "worker_ended" in kept
    assert [line for line in kept.splitlines() if line not in running.output()] == []


def test_without_a_home_it_runs_all_the_same(up, tmp_path) -> None:
    (tmp_path / "state").write_text("no folder")
    disabled = ",".join(FIRST_PARTY)
    port = str(free_port())
    running = up(PLUGINS_DISABLED=disabled, WEB_WORKERS="1", PORT=port).wait_until_started()
    assert running.stop() == 0
