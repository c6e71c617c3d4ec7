"""Running commands of Clustr in tests, each in a process of its own."""

import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path

from fork_server import run_program

COMMAND = "from clustr.__main__ import main; main(prog_name='clustr')"

RunPlugins = Callable[..., subprocess.CompletedProcess[str]]


class Commands:
    """Runs commands."""

    def run(
        self, folder: Path, environment: Mapping[str, str], *arguments: str, seconds: float = 60
    ) -> subprocess.CompletedProcess[str]:
        """Run `clustr` with these arguments in a folder, and with this environment alone."""
        return run_program(["-c", COMMAND, *arguments], environment, folder, seconds)
