"""The row of `clustr import`: its rate, from its start on, beside that of the load."""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from bench import load
from bench.rows import PHOTO_BYTES, Figure
from bench.service import Contender

FILES = 1000
CONNECTIONS = 4
BOUND = 0.7


def imports(contenders: Sequence[Contender], rounds: int) -> list[Figure]:
    """A folder with 200 KB JPEGs, and as many from the load over as many connections."""
    ours = contenders[0]
    photo = load.photograph(PHOTO_BYTES)
    pairs = [
        (_import(ours, photo), load.uploads(ours.url, photo, FILES, CONNECTIONS).rate)
        for _ in range(rounds)
    ]
    imported, sent = zip(*pairs, strict=True)
    work = f"clustr import of 200 KB JPEGs, beside the load, {CONNECTIONS} clients"
    return [Figure(work, "files/s", imported, sent, bound=BOUND)]


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
