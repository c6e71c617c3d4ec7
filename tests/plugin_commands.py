"""Running `clustr plugins` in tests."""

import os
from pathlib import Path
from subprocess import CompletedProcess

from fork_server import run_program
from workshop import FIRST_PARTY

NOWHERE = {"MONGODB_URL": "mongodb://127.0.0.1:1", "REDIS_URL": "redis://127.0.0.1:1"}


def run_plugins(place: Path, *arguments: str, **settings: str) -> CompletedProcess[str]:
    """Run `clustr plugins` where no server is; keywords are settings."""
    (place / "plugins").mkdir(exist_ok=True)
    (place / "plugins.toml").touch()
    environment = {
        "PATH": os.environ["PATH"],
        "PLUGINS_FOLDER": "plugins",
        "PLUGINS_CONFIG": "plugins.toml",
        "PLUGINS_DISABLED": ",".join(FIRST_PARTY),
        **NOWHERE,
        **settings,
    }
    return run_program(["-m", "clustr", "plugins", *arguments], environment, place)
