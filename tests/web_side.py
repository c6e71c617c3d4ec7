"""The web side alone, as deployers run it: gunicorn with its workers, on a workshop's servers."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import requests
from running import Process, wait_until
from workshop import Program, Workshop

from clustr.supervisor.servers import free_port


class WebSide:
    """A gunicorn that serves until the workshop is closed.

    Attributes:
        gunicorn: the process that starts the workers, and starts those again that died.
        program: how Python is told to run it.
    """

    gunicorn: Program
    program: Sequence[str] = ("-m", "gunicorn")

    def __init__(self, workshop: Workshop, processes: int = 1):
        self.workshop = workshop
        self.processes = processes
        port = str(free_port())
        self.url = f"http://127.0.0.1:{port}"
        self._settings = {"PORT": port, "WEB_WORKERS": str(processes)}
        self.start()

    def start(self) -> None:
        """Start it, and wait until it serves."""
        settings = "python:clustr.supervisor.gunicorn_settings"
        arguments = [*self.program, "-c", settings, "clustr.app:create_app()"]
        self.gunicorn = self.workshop.run(*arguments, **self._settings)
        wait_until(self.serves, 60, "gunicorn")

    def serves(self) -> bool:
        alone = {"Connection": "close"}
        try:
            return requests.get(f"{self.url}/api/health/live", headers=alone, timeout=10).ok
        except requests.RequestException:
            return False

    def workers(self) -> list[Process]:
        return self.gunicorn.children()

    @property
    def pid(self) -> int:
        return self.gunicorn.pid

    def output(self) -> str:
        """What it and its processes have printed since it was started."""
        return self.gunicorn.output()

    @property
    def data(self) -> Path:
        return self.workshop.folder / "data"

    @property
    def folder(self) -> Path:
        """Where it keeps the originals."""
        return self.workshop.settings.upload_folder

    def files(self) -> set[str]:
        """What is there of originals, and of files that are being received."""
        found = (path for path in self.folder.rglob("*") if path.is_file())
        return {str(p.relative_to(self.folder)) for p in found if p.name != ".clustr-store"}

    def temporary_files(self) -> list[Path]:
        return list((self.folder / ".incoming").iterdir())

    def fsck(self, *arguments: str) -> tuple[int, dict[str, Any]]:
        """Run `clustr fsck --json`; its exit code, and what it found."""
        ran = self.workshop.command("fsck", "--json", *arguments)
        assert ran.stdout, ran.stderr
        return ran.returncode, json.loads(ran.stdout)
