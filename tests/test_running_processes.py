"""A change of a plugin without a restart is noticed: every process says what it has loaded."""

import json
import os
import signal

import pytest
from running import wait_until
from workshop import FIRST_PARTY, Workshop, analyzer

from clustr.queue import Queue
from clustr.services.running_processes import RunningProcess, read_processes


def processes(workshop: Workshop) -> list[RunningProcess]:
    settings = workshop.settings
    return read_processes(Queue(settings.redis_url, settings.redis_prefix))


def kinds(workshop: Workshop) -> list[str]:
    return sorted(process.kind for process in processes(workshop))


def plugins_of_api(workshop: Workshop) -> dict:
    answer = workshop.app.test_client().get("/api/plugins").get_json()
    return {plugin["name"]: plugin for plugin in answer["data"]}


@pytest.fixture
def raised(workshop: Workshop) -> Workshop:
    """Its worker and its web side run version 2 of an analyzer, and its file has version 3."""
    workshop.analyzer("it", "return {}", version=2)
    workshop.upload()
    workshop.worker()
    wait_until(lambda: kinds(workshop) == ["web", "worker"], 60, "both processes")
    # Python takes a file of the same second and size for the one that it has compiled.
    longer = analyzer("it", "return {}  # by another model", version=3)
    (workshop.plugins / "it.py").write_text(longer)
    return workshop


def test_processes_say_what_they_have_loaded(raised: Workshop) -> None:
    web, worker = processes(raised)
    assert web.pid == os.getpid()
    assert web.plugins["it"].analyzers == {"it": 2}
    assert worker.plugins == web.plugins
    assert set(web.plugins) == {"it", *FIRST_PARTY}
    names = raised.redis.smembers(raised.key("processes"))
    for name in names:
        assert 0 < raised.redis.ttl(raised.key(f"process:{name.decode()}")) <= 60


def test_stale_is_refused_while_the_workers_run_an_older_version(raised: Workshop) -> None:
    done = raised.command("analyze", "it", "--stale")
    assert (done.returncode, done.stdout) == (2, "")
    worker = processes(raised)[1]
    assert done.stderr.startswith(
        f"clustr: worker {worker.pid} on {worker.host} runs other code of the plugin it (it v2) "
        "than its files have (it v3). Restart it: "
    )
    os.kill(worker.pid, signal.SIGHUP)  # It loads its plugins anew.
    wait_until(lambda: processes(raised)[-1].plugins["it"].analyzers == {"it": 3}, 60, "v3")
    done = raised.command("analyze", "it", "--stale")
    assert (done.returncode, done.stderr) == (0, "")
    assert "1 succeeded" in done.stdout


def test_list_and_api_name_the_processes_that_run_something_else(raised: Workshop) -> None:
    done = raised.command("plugins", "list", "--json")
    warnings = json.loads(done.stdout)["warnings"]
    assert [warning.split(" on ")[0] for warning in warnings[:-1]] == [
        f"web {os.getpid()}",
        str(processes(raised)[1]),
    ]
    assert "clustr up" in warnings[-1]
    assert f"warning: {warnings[1]}\n" in raised.command("plugins", "list").stderr
    outdated = [f"web {os.getpid()}", str(processes(raised)[1])]
    assert plugins_of_api(raised)["it"]["outdated_processes"] == outdated
    assert plugins_of_api(raised)["blip"]["outdated_processes"] == []
    (raised.plugins / "it.py").unlink()
    (raised.plugins / "new.py").write_text(analyzer("new", "return {}"))
    warnings = raised.command("plugins", "list").stderr.splitlines()
    assert warnings[0].endswith(" has the plugin it, which is not there any more.")
    assert warnings[1].endswith(" does not have the plugin new, which is new.")


def test_process_that_was_killed_is_not_counted(raised: Workshop) -> None:
    worker = processes(raised)[1]
    os.kill(worker.pid, signal.SIGKILL)
    wait_until(lambda: kinds(raised) == ["web"], 30, "the end of the worker")


def test_without_redis_it_is_not_known_who_runs(own_workshop: Workshop) -> None:
    own_workshop.analyzer("it", "return {}")
    own_workshop.environment["REDIS_URL"] = "redis://127.0.0.1:1/0"
    assert plugins_of_api(own_workshop)["it"]["outdated_processes"] is None
    assert own_workshop.command("plugins", "list").stderr == ""


def test_record_of_another_release_is_left_out(own_workshop: Workshop) -> None:
    settings = own_workshop.settings
    queue = Queue(settings.redis_url, settings.redis_prefix)
    queue.keep_process("web:elsewhere:1", '{"kind": "web", "of": "a later release"}', 60)
    assert processes(own_workshop) == []
    own_workshop.redis.delete(own_workshop.key("process:web:elsewhere:1"))
    assert queue.processes() == []
    assert not own_workshop.redis.exists(own_workshop.key("processes"))
