"""The unit files for systemd."""

import configparser
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from clustr.settings import read_settings
from clustr.supervisor import gunicorn_settings

CONFIG = Path(__file__).parent.parent / "config"
UNITS = sorted(CONFIG.glob("*.service"))
MOST_EXPOSED = 2.5


def test_there_are_units():
    names = [unit.name for unit in UNITS]
    assert names == ["clustr-mongod.service", "clustr-web.service", "clustr-worker.service"]


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)
def test_units_take_away_what_the_service_does_not_need(unit):
    if not shutil.which("systemd-analyze"):
        pytest.skip("systemd-analyze says it")
    ran = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--no-pager", unit],
        capture_output=True,
        text=True,
    )
    [level] = re.findall(r"Overall exposure level for \S+: ([0-9.]+)", ran.stdout)
    assert float(level) <= MOST_EXPOSED, ran.stdout


def test_the_web_side_may_open_all_files_that_it_may_receive_at_once():
    read = configparser.ConfigParser(strict=False, interpolation=None)
    read.read(CONFIG / "clustr-web.service")
    files = gunicorn_settings.threads * read_settings({}).max_files_per_request
    assert int(read["Service"]["LimitNOFILE"]) > files


@pytest.mark.parametrize("unit", UNITS[1:], ids=lambda unit: unit.stem)
def test_units_wait_for_the_network_and_can_be_reloaded(unit):
    read = configparser.ConfigParser(strict=False, interpolation=None)
    read.optionxform = str
    read.read(unit)
    assert read["Unit"]["Wants"] == "network-online.target"
    after = {"network-online.target", "clustr-mongod.service", "redis-server.service"}
    assert set(read["Unit"]["After"].split()) == after
    web = " --web" if unit.stem == "clustr-web" else ""
    check = f"/opt/clustr/bin/clustr config show{web} > /dev/null"
    assert read["Service"]["ExecReload"] == f"/bin/sh -c '{check} && kill -HUP $MAINPID'"
    # Everything else of the file system can only be read.
    assert read["Service"]["ProtectSystem"] == "strict"
    assert read["Service"]["ReadWritePaths"] == "/srv/clustr/uploads"
