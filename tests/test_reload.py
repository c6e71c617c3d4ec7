"""`RELOAD`: a change of the code has an effect at once."""

import shutil
from pathlib import Path

import requests
from running import wait_until
from workshop import FIRST_PARTY, analyzer

import clustr
from clustr.queue import Queue
from clustr.services.running_processes import read_processes


def test_with_reload_a_change_of_the_code_has_an_effect(up, servers, tmp_path):
    """So what was imported before the fork must not be what a new web process runs."""
    copied = tmp_path / "clustr"  # which comes before the installed package, as the working folder
    shutil.copytree(Path(clustr.__file__).parent, copied)
    addresses = {"MONGODB_URL": servers.mongodb_url, "REDIS_URL": servers.redis_url}
    settings = {"MONGODB_DATABASE": "reload", "WEB_WORKERS": "1", "RELOAD": "true"}
    running = up(own_python=True, **addresses, **settings).wait_until_started()
    resource = copied / "api/resources/root.py"
    changed = resource.read_text().replace('"online"', '"changed"')
    resource.write_text(changed)

    def is_changed() -> bool:
        try:
            return requests.get(running.url, timeout=60).json()["status"] == "changed"
        except requests.RequestException:  # The process that was asked has just ended.
            return False

    wait_until(is_changed, 60, "an answer of the changed code")


def test_with_reload_a_change_of_a_plugin_reaches_web_and_workers(up, servers, tmp_path):
    folder = tmp_path / "plugins"
    folder.mkdir()
    (folder / "it.py").write_text(analyzer("it", "return {}", version=1))
    addresses = {"MONGODB_URL": servers.mongodb_url, "REDIS_URL": servers.redis_url}
    settings = {"MONGODB_DATABASE": "reload_plugins", "PLUGINS_DISABLED": ",".join(FIRST_PARTY)}
    arguments = ("--reload", "--workers", "1")
    up(*arguments, WEB_WORKERS="1", **addresses, **settings).wait_until_started()
    queue = Queue(servers.redis_url, "clustr:reload_plugins")

    def loaded() -> dict[str, dict[str, int]]:
        """The analyzers of each kind of process, with their versions."""
        return {
            process.kind: {
                name: version
                for plugin in process.plugins.values()
                for name, version in plugin.analyzers.items()
            }
            for process in read_processes(queue)
        }

    def are_loaded(**versions: int) -> bool:
        return loaded() == {"web": versions, "worker": versions}

    wait_until(lambda: are_loaded(it=1), 60, "version 1")
    (folder / "it.py").write_text(analyzer("it", "return {}  # otherwise", version=2))
    wait_until(lambda: are_loaded(it=2), 60, "version 2")
    (folder / "it.py").write_text("def (")
    wait_until(lambda: are_loaded(), 60, "a mistake")
    (folder / "new.py").write_text(analyzer("new", "return {}"))
    (folder / "it.py").write_text(analyzer("it", "return {}  # corrected", version=3))
    wait_until(lambda: are_loaded(it=3, new=1), 60, "its correction")
