"""`clustr up` as people run it: real servers, real workers, real signals."""

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import stat
import subprocess
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import pytest
import requests
from calling import total_uploads
from fork_server import run_program
from pymongo import MongoClient
from running import Process, Servers, Up, child, descendants, start, wait_until

from clustr.supervisor import servers
from clustr.supervisor.child import LARGEST_LOG_BYTES, OLD_LOGS, old_log

FEW_PLUGINS = {"PLUGINS_DISABLED": "blip,exif,palette,phash"}
ONE_OF_EACH = ("mongod", "redis-server", "clustr worker", "gunicorn")


def upload(up) -> requests.Response:
    with (up.data / "sample.jpg").open("rb") as file:
        return requests.post(f"{up.url}/api/upload", files={"files": file}, timeout=60)


def succeeds(ask) -> bool:
    """Whether a request is answered well; a web side that is away is only not there yet."""
    try:
        return ask().ok
    except requests.RequestException:
        return False


def analyzed(up, upload_id: str) -> bool:
    answer = requests.get(f"{up.url}/api/uploads/{upload_id}", timeout=60).json()
    return answer["analyses"]["dimensions"]["status"] == "succeeded"


@pytest.fixture(scope="module")
def running(service_with) -> Up:
    """One with the default settings, as people start it; what else is set has no effect."""
    ignored = {"UPLAOD_FOLDER": "/srv", "CLUSTR_PORT": "8000", "PLUGINS_DISABLED": "palet"}
    return service_with(own_python=True, **ignored)


@pytest.fixture(scope="module")
def on_given_servers(servers: Servers, service_with) -> Callable[..., Up]:
    """Starts one that uses the servers of the tests; keywords are more settings."""

    def start(**settings: str) -> Up:
        addresses = {"MONGODB_URL": servers.mongodb_url, "REDIS_URL": servers.redis_url}
        database = f"up{uuid.uuid4().hex}"
        return service_with(**addresses, MONGODB_DATABASE=database, WEB_WORKERS="1", **settings)

    return start


@pytest.fixture(scope="module")
def quiet(on_given_servers) -> Up:
    return on_given_servers(LOG_LEVEL="warning")


def refusal(folder: Path, *arguments: str, **settings: str) -> str:
    """The one line that `clustr up` prints when it cannot start; keywords are settings."""
    port = str(servers.free_port())
    defaults = {"PATH": os.environ["PATH"], "HOST": "127.0.0.1", "PORT": port}
    ended = run_program(["-m", "clustr", "up", *arguments], defaults | settings, folder)
    assert (ended.returncode, ended.stdout) == (2, "")
    [line] = ended.stderr.splitlines()
    return line


def test_what_it_prints_works_when_pasted(running):
    if not shutil.which("curl"):
        pytest.skip("what is printed is for curl")
    printed = [line for line in running.output().splitlines() if line.startswith("  curl ")]
    assert len(printed) == 3
    answers = []
    for line in printed:
        ran = subprocess.run(
            ["bash", "-c", f"{line} --fail --silent --show-error"],
            cwd="/",
            capture_output=True,
            text=True,
        )
        assert ran.returncode == 0, (line, ran.stderr)
        answers.append(json.loads(ran.stdout))
    uploaded, listed, health = answers
    assert [one["id"] for one in listed["data"][:1]] == [one["id"] for one in uploaded["data"]]
    assert health["services"]["database"]["status"] == "healthy"
    assert str(running.data / "uploads") in running.output()


def test_commands_find_the_servers_that_it_started(running):
    upload_id = upload(running).json()["data"][0]["id"]
    wait_until(lambda: analyzed(running, upload_id), 60, "the analysis")
    count = total_uploads(running)
    again = running.command("analyze", "dimensions", "--all")
    assert (again.returncode, again.stderr) == (0, "")
    assert f"Succeeded: {count} succeeded." in again.stdout
    checked = running.command("fsck", "--json")
    assert (checked.returncode, checked.stderr) == (0, "")
    assert json.loads(checked.stdout)["checked"] == {"uploads": count, "files": count}


def test_no_password_is_in_what_it_prints_or_in_a_command_line(running):
    assert upload(running).status_code == 201
    passwords = servers.make_passwords(running.data)
    shown = [one.command for one in descendants(running.pid)] + [running.output()]
    shown += [log.read_text(errors="replace") for log in (running.data / "log").iterdir()]
    assert len(shown) > 4
    for password in passwords:
        assert not [text for text in shown if password in text]


@pytest.mark.skipif(os.getuid() != 0, reason="only root can act as another account")
def test_another_account_reads_no_password(running):
    """Also where every folder can be looked into."""
    for folder in (running.data, *list(running.data.resolve().parents)[:-2]):
        folder.chmod(0o755)
    names = [running.data / "addresses.json", *(running.data / servers.PASSWORDS).iterdir()]
    assert len(names) == 5
    for name in names:
        read = subprocess.run(["cat", name], user="nobody", group="nogroup", capture_output=True)
        assert (read.returncode, read.stdout) == (1, b"")
        assert b"Permission denied" in read.stderr
    running.data.chmod(0o700)


def test_what_is_set_without_effect_is_in_the_greeting_and_the_log(running):
    printed = running.output()
    greeting = printed.partition("is explained at")[2].partition("Things to try")[0]
    log = "".join(line for line in printed.splitlines() if '"event"' in line)
    for said in (
        "UPLAOD_FOLDER is no setting; did you mean UPLOAD_FOLDER?",
        "CLUSTR_PORT is no setting; did you mean PORT?",
        "PLUGINS_DISABLED: unknown plugin palet; did you mean palette?",
    ):
        assert f"  without effect: {said}\n" in greeting
        assert said in log


def test_the_greeting_says_how_to_have_captions(running):
    said = "  captions No captioner is configured. To have captions, set CLUSTR_PLUGIN__OPENAI__"
    assert said in running.output().partition("is explained at")[2]


def test_data_folder_in_use_is_said_in_one_line(running, tmp_path):
    line = refusal(tmp_path, "--data", str(running.data))
    assert line.startswith(f"clustr: DATA_FOLDER={running.data} is already in use")


def test_data_is_for_its_owner_alone(running):
    assert upload(running).status_code == 201
    assert stat.S_IMODE(running.data.stat().st_mode) == 0o700
    for name in ("log", "mongodb", "redis", servers.PASSWORDS):
        assert stat.S_IMODE((running.data / name).stat().st_mode) == 0o700
    assert stat.S_IMODE((running.data / "uploads").stat().st_mode) == 0o750
    assert "can be read by every account" not in running.output()
    assert "upload_folder_open_to_others" not in running.output()


def test_logs_of_its_servers_are_rotated_by_size(running):
    logs = [running.data / "log" / name for name in ("mongod.log", "redis.log")]
    for log in logs:
        for number in range(1, OLD_LOGS + 1):  # as rotations before have left them
            old_log(log, number).write_bytes(b"x" * number)
        with log.open("ab") as file:  # as the servers do
            file.truncate(LARGEST_LOG_BYTES)

    def sizes(log: Path) -> list[int]:
        old = (old_log(log, number) for number in range(1, OLD_LOGS + 1))
        with contextlib.suppress(FileNotFoundError):  # It is just being moved.
            return [each.stat().st_size for each in old]
        return []

    for log in logs:
        rotated = [*range(1, OLD_LOGS)]
        wait_until(lambda log=log, r=rotated: sizes(log)[1:] == r, 60, "the rotation")
        assert sizes(log)[0] >= LARGEST_LOG_BYTES
        assert len(list(log.parent.glob(f"{log.name}*"))) <= OLD_LOGS + 1
    last_words = {"mongod": b"Received signal", "redis-server": b"Received SIGTERM"}
    for log, (program, words) in zip(logs, last_words.items(), strict=True):
        os.kill(child(running.pid, program).pid, signal.SIGTERM)
        wait_until(lambda log=log, w=words: log.exists() and w in log.read_bytes(), 60, program)


def memory(pid: int) -> dict[str, int]:
    """Memory of a process by its names in proc_pid_smaps(5), in KiB."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    return {name: int(value.split()[0]) for name, value in (line.split(":") for line in lines)}


def test_web_processes_share_what_they_import(running):
    gunicorn = child(running.pid, "gunicorn")
    workers = descendants(gunicorn.pid)
    assert len(workers) == 2
    for worker in workers:
        assert memory(worker.pid)["Shared_Dirty"] > 20 * 1024


def test_what_is_killed_comes_back(running):
    for name in ONE_OF_EACH:
        before = wait_until(lambda name=name: child(running.pid, name), 60, name)
        before.kill()
        wait_until(lambda before=before: not before.alive(), 60, f"the end of {name}")
        wait_until(lambda name=name: child(running.pid, name), 60, f"another {name}")
        wait_until(lambda: succeeds(lambda: upload(running)), 60, f"an upload after {name}")
    upload_id = upload(running).json()["data"][0]["id"]
    wait_until(lambda: analyzed(running, upload_id), 60, "the analysis")
    assert running.stop() == 0


# On servers that are given


def test_servers_that_are_given_are_used(quiet, servers):
    assert not child(quiet.pid, "mongod")
    assert not child(quiet.pid, "redis-server")
    assert requests.get(f"{quiet.url}/api/health/ready", timeout=60).ok
    assert servers.mongodb_url not in quiet.output()  # an address may hold a password


def test_a_level_of_warning_silences_gunicorn_too(quiet):
    assert upload(quiet).status_code == 201
    assert quiet.stop() == 0
    assert [line for line in quiet.output().splitlines() if line.startswith("web ")] == []


def test_people_at_a_terminal_read_a_short_line_of_each_upload(on_given_servers):
    """And one of each analysis that failed; `debug` has all, as lines for programs do."""
    running = on_given_servers(LOG_FORMAT="console")
    wait_until(lambda: "web_process_ready" in running.output(), 60, "the web process")
    before = len(running.output().splitlines())
    upload_id = upload(running).json()["data"][0]["id"]
    wait_until(lambda: analyzed(running, upload_id), 60, "the analysis")
    requests.get(f"{running.url}/api/uploads/{upload_id}", timeout=60)
    wait_until(lambda: running.output().splitlines()[before:], 60, "the line of the upload")
    [line] = running.output().splitlines()[before:]
    assert "upload_stored" in line
    assert upload_id in line
    assert len(line) <= 120
    assert re.match(r"web +\| \d\d:\d\d:\d\d \[info\] ", line), line
    assert running.stop() == 0


# Three on the same data: the first is killed, the second stopped


class Killed(NamedTuple):
    """What is known of one that was killed with -9."""

    up: Up
    folder: Path
    family: list[Process]
    uploaded: dict[str, Any]


@pytest.fixture(scope="module")
def killed() -> Iterator[Killed]:
    # Not in pytest's folder, which it closes to other accounts whenever it is started.
    with TemporaryDirectory(ignore_cleanup_errors=True) as name:
        folder = Path(name)
        first = Up(folder, FEW_PLUGINS, ())
        try:
            first.wait_until_started()
            uploaded = upload(first).json()["data"][0]
            family = descendants(first.pid)
            first.kill()
            yield Killed(first, folder, family, uploaded)
        finally:
            first.end()


@pytest.fixture(scope="module")
def second(killed: Killed) -> Iterator[Up]:
    """One that starts where one was killed, with folders that everybody can read by now."""
    wait_until(lambda: not [one for one in killed.family if one.alive()], 60, "an end of all")
    data = killed.up.data
    for folder in (data / "uploads", data, *list(data.resolve().parents)[:-2]):
        folder.chmod(0o755)
    running = Up(killed.folder, FEW_PLUGINS, ())
    try:
        yield running.wait_until_started()
    finally:
        running.end()


@pytest.fixture(scope="module")
def third(killed: Killed, second: Up) -> Iterator[Up]:
    """One on data of a version whose servers had no passwords."""
    count = total_uploads(second)
    assert second.stop() == 0
    without_passwords(second.data, count)
    running = Up(killed.folder, FEW_PLUGINS, ())
    try:
        yield running.wait_until_started()
    finally:
        running.end()


def test_kill_9_leaves_nothing(killed):
    assert all(any(name in one.command for one in killed.family) for name in ONE_OF_EACH)
    wait_until(lambda: not [one for one in killed.family if one.alive()], 60, "an end of all")


def test_commands_leave_alone_what_it_left_behind(killed, servers):
    """Another server may have its port by now."""
    first = killed.up
    wait_until(lambda: not [one for one in killed.family if one.alive()], 60, "an end of all")
    addresses = json.loads((first.data / "addresses.json").read_text())
    assert set(addresses) == {"MONGODB_URL", "REDIS_URL"}
    (first.data / "addresses.json").write_text(json.dumps({"MONGODB_URL": servers.mongodb_url}))
    refused = first.command("analyze", "dimensions", "--all")
    assert refused.returncode == 2
    assert refused.stderr == "clustr: MongoDB does not answer at the address of MONGODB_URL\n"


def test_after_kill_9_the_data_is_there_at_the_next_start(killed, second):
    """Its mongod has another port, which its set has to learn."""
    uploaded = killed.uploaded
    found = requests.get(f"{second.url}/api/uploads/{uploaded['id']}", timeout=60)
    assert found.status_code == 200
    assert requests.get(f"{second.url}/uploads/{uploaded['stored_filename']}", timeout=60).ok
    wait_until(lambda: analyzed(second, uploaded["id"]), 60, "the analysis")
    assert upload(second).status_code == 201


def test_a_folder_that_everybody_can_read_is_named(second):
    assert f"DATA_FOLDER={second.data} can be read by every account" in second.output()
    assert f"chmod 700 {second.data}" in second.output()
    upload_id = upload(second).json()["data"][0]["id"]
    wait_until(lambda: analyzed(second, upload_id), 60, "the analysis")
    wait_until(lambda: second.output().count("web_process_ready") == 2, 60, "both processes")
    said = "upload_folder_open_to_others"
    wait_until(lambda: second.output().count(said) >= 3, 60, "what is said of the folder")
    # By each web process and by the worker when they start, and not at each analysis.
    assert second.output().count(said) == 3
    assert stat.S_IMODE(second.data.stat().st_mode) == 0o755


def test_data_of_a_version_without_passwords_is_kept(killed, third):
    assert requests.get(f"{third.url}/api/uploads/{killed.uploaded['id']}", timeout=60).ok
    assert upload(third).status_code == 201


def without_passwords(data: Path, uploads: int) -> None:
    """Make a data folder as it was when its servers asked for none."""
    addresses = json.loads((data / servers.ADDRESSES).read_text())
    port = urlsplit(addresses["MONGODB_URL"]).port  # At another it would not become primary.
    arguments = servers.mongod_arguments(servers.find_program(servers.MONGOD), port, data)
    at = arguments.index("--keyFile")
    mongod = start([*arguments[:at], *arguments[at + 2 :]])
    with MongoClient("127.0.0.1", port, directConnection=True) as client:
        wait_until(lambda: client.admin.command("hello")["isWritablePrimary"], 60, "the primary")
        client.admin.command("dropUser", servers.MONGODB_USER)
        assert client.clustr.uploads.count_documents({}) == uploads
    mongod.terminate()
    mongod.wait(60)
    shutil.rmtree(data / servers.PASSWORDS)
    (data / servers.ADDRESSES).chmod(0o644)


def test_an_upload_is_analyzed_and_sigterm_ends_all(third):
    answer = upload(third)
    assert answer.status_code == 201, answer.text
    upload_id = answer.json()["data"][0]["id"]
    wait_until(lambda: analyzed(third, upload_id), 60, "the analysis")
    family = descendants(third.pid)
    assert all(any(name in one.command for one in family) for name in ONE_OF_EACH)
    assert third.stop() == 0
    wait_until(lambda: not [one for one in family if one.alive()], 60, "an end of all")
    assert "Traceback" not in third.output()


# One that does not start


def test_an_interrupt_ends_it_while_it_starts(up):
    running = up()
    wait_until(lambda: child(running.pid, "mongod"), 60, "a child")
    family = descendants(running.pid)
    os.kill(running.pid, signal.SIGINT)
    assert running.wait(60) == 0
    # What asked whether mongod is ready is ended by the kernel, a moment later.
    wait_until(lambda: not [one for one in family if one.alive()], 60, "an end of all")


def test_only_plugins_that_are_not_there_stop_the_start(tmp_path):
    line = refusal(tmp_path, PLUGINS_ENABLED="dimensons")
    assert line == (
        "clustr: PLUGINS_ENABLED='dimensons': unknown plugin dimensons; did you mean dimensions?"
    )


def test_port_in_use_is_said_in_one_line(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = f"127.0.0.1:{listener.getsockname()[1]}"
        line = refusal(tmp_path, "--port", address.split(":")[1])
    assert line == f"clustr: {address} is already in use: choose another with PORT or --port"


def test_unwritable_folders_are_said_in_one_line(tmp_path):
    (tmp_path / "a file").touch()
    folder = tmp_path / "a file" / "below"  # root, too, cannot write there
    line = refusal(tmp_path, "--data", str(folder))
    assert line == f"clustr: DATA_FOLDER={folder} cannot be written: Not a directory"
    line = refusal(tmp_path, UPLOAD_FOLDER=str(folder))
    assert line == f"clustr: UPLOAD_FOLDER={folder} cannot be written: Not a directory"


def test_bad_setting_is_said_in_one_line(tmp_path):
    line = refusal(tmp_path, "--port", "seventy")
    assert line == "clustr: PORT='seventy': expected a whole number"


@pytest.mark.parametrize(
    ("queues", "expected"),
    [("default,fast", "there is no queue fast; there are default, http, gpu"), (",", "no queue")],
)
def test_unknown_queues_are_refused(tmp_path, queues, expected):
    environment = {"PATH": os.environ["PATH"]}
    arguments = ["-m", "clustr", "worker", "--queues", queues]
    ended = run_program(arguments, environment, tmp_path)
    assert ended.returncode == 2
    assert expected in ended.stderr
