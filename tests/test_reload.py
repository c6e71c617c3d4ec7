"""`RELOAD`: a change of the code has an effect at once."""

import shutil
from pathlib import Path

import requests
from running import wait_until

import clustr


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
            return requests.get(running.url, timeout=10).json()["status"] == "changed"
        except requests.ConnectionError:  # The process that was asked has just ended.
            return False

    wait_until(is_changed, 30, "an answer of the changed code")
