"""The rows of `clustr import`: its rate, from its start on, beside that of the load."""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from bench import load
from bench.rows import PHOTO_BYTES, Figure
from bench.service import Contender

FILES = 1000
CONNECTIONS = 4
BOUND = 0.7


def imports(contenders: Sequence[Contender], rounds: int) -> Iterator[Figure]:
    """A folder with 200 KB JPEGs, and as many from the load over as many connections."""
    ours = contenders[0]
    photo = load.photograph(PHOTO_BYTES)
    imported: list[float] = []
    loads: dict[int, list[float]] = {1: [], 10: []}
    for _ in range(rounds):
        imported.append(_import(ours, photo))
        for files, rates in loads.items():
            measured = load.uploads(ours.url, photo, FILES // files, CONNECTIONS, files)
            rates.append(measured.rate * files)
    for files, rates in loads.items():
        work = f"clustr import of 200 KB JPEGs, beside {files} in a request, {CONNECTIONS} clients"
        yield Figure(work, "files/s", imported, rates, BOUND)


def _import(ours: Contender, photo: bytes) -> float:
    """The files a second of an import that knows no hash."""
    with tempfile.TemporaryDirectory(prefix="clustr-bench-") as name:
        pictures = Path(name) / "pictures"
        pictures.mkdir()
        for number in range(FILES):
            (pictures / f"{number}.jpg").write_bytes(load.another(photo))
        where = ("--url", ours.url, "--connections", str(CONNECTIONS))
        command = (sys.executable, "-m", "clustr", "import", str(pictures), *where)
        environment = {**os.environ, "XDG_CACHE_HOME": name}
        began = time.perf_counter()
        subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL)
        return FILES / (time.perf_counter() - began)
