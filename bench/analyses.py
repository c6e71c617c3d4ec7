"""The rows of the five analyzers that come with Clustr: what they cost, and until when all is done.

`python -m bench processed pictures` measures them, with an instant captioner.
"""

import io
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pymongo
from PIL import Image, ImageFilter
from pymongo.collection import Collection

from bench import load
from bench.large import family
from bench.memory import at_once, send
from bench.rows import PHOTO_BYTES, Figure, alternate
from bench.service import Contender, process
from clustr.cli.start import UP_WORKERS

UPLOADS, CLIENTS, WARM_UPS = 500, 16, 8
TWELVE_MEGAPIXELS = (4000, 3000)
PICTURES = {"jpg": {"quality": 90}, "png": {"compress_level": 6}}
TIMES = 10
# Pixels of the longer side that `palette` looks at, the fewest of all analyzers.
LEAST_SIDE = 64
WORKERS = {
    "clustr": ("-m", "clustr", "worker", "--workers", str(UP_WORKERS)),
    "floor": ("-m", "bench.floor_worker"),
}


def processed(contenders: Sequence[Contender], rounds: int) -> list[Figure]:
    """500 uploads from the first byte to the last `processed`, and what they take of workers.

    The floor is a bare loop that makes the same five analyses.
    """
    photo = load.photograph(PHOTO_BYTES)

    def measure(contender: Contender) -> tuple[float, float]:
        with working(contender) as (uploads, pid):
            load.uploads(contender.url, photo, WARM_UPS, WARM_UPS)
            wait_until_processed(uploads)
            before, began = processor_seconds(pid), time.perf_counter()
            load.uploads(contender.url, photo, UPLOADS, CLIENTS)
            wait_until_processed(uploads)
            seconds = time.perf_counter() - began
            return seconds, (processor_seconds(pid) - before) / UPLOADS * 1000

    seconds, milliseconds = alternate(measure, contenders, rounds)
    work = f"{UPLOADS} x 200 KB, {CLIENTS} clients, five analyses each: until all are processed"
    return [
        Figure(work, "seconds", seconds[0], most=8),
        Figure("  beside the bare loop", "seconds", *seconds, bound=1.5, less_is_better=True),
        Figure("  workers, for each upload", "ms of processor", milliseconds[0], most=18),
    ]


def pictures(contenders: Sequence[Contender], rounds: int) -> list[Figure]:
    """All five analyses of a large picture; the floor is the least decode that one of them needs.

    Several are uploaded at once, or the calls for the analyzers would count more than their work.
    """
    ours, _ = contenders
    figures = []
    for extension, content in large_pictures():
        analyses, decodes = [], []
        for _ in range(rounds):
            with working(ours) as (uploads, pid):
                for _warm_up in (True, False):  # By then all processes have started.
                    before = processor_seconds(pid)
                    files = [(ours.url, f"{n}.{extension}", content) for n in range(TIMES)]
                    at_once(TIMES, send, files)
                    wait_until_processed(uploads)
                analyses.append((processor_seconds(pid) - before) / TIMES * 1000)
            decodes.append(processor_milliseconds(partial(least_decode, content)))
        work = f"five analyses of a {extension.upper()} of 12 megapixels; floor: the least decode"
        unit = "ms of processor"
        figures.append(Figure(work, unit, analyses, decodes, bound=2.5, less_is_better=True))
    return figures


def large_pictures() -> Iterator[tuple[str, bytes]]:
    """A JPEG and a PNG, as detailed as photographs."""
    noise = Image.effect_noise(TWELVE_MEGAPIXELS, 60).filter(ImageFilter.GaussianBlur(1))
    channels = (noise, noise.rotate(180), noise.transpose(Image.Transpose.FLIP_LEFT_RIGHT))
    picture = Image.merge("RGB", channels)
    for extension, options in PICTURES.items():
        file = io.BytesIO()
        picture.save(file, Image.registered_extensions()[f".{extension}"], **options)
        yield extension, file.getvalue()


def least_decode(content: bytes) -> None:
    """Decode all of a picture, reduced where its format can do that."""
    with Image.open(io.BytesIO(content)) as picture:
        picture.draft("RGB", (LEAST_SIDE, LEAST_SIDE))
        picture.load()


def processor_milliseconds(call: Callable[[], None]) -> float:
    """The processor time that a call takes in this process."""
    call()
    began = time.process_time()
    for _ in range(TIMES):
        call()
    return (time.process_time() - began) / TIMES * 1000


@contextmanager
def working(contender: Contender) -> Iterator[tuple[Collection, int]]:
    """Workers for the block, and no uploads at first; gives these and the workers' process id."""
    with (
        pymongo.MongoClient(contender.settings["MONGODB_URL"]) as client,
        process(sys.executable, *WORKERS[contender.name], **contender.settings) as worker,
    ):
        uploads = client[contender.settings["MONGODB_DATABASE"]]["uploads"]
        uploads.delete_many({})
        yield uploads, worker.pid


def wait_until_processed(uploads: Collection) -> None:
    """Wait until all analyses have ended, and see that none failed."""
    unfinished = {"analyses.state": {"$in": ["waiting", "queued", "running", "deferred"]}}
    while uploads.find_one(unfinished, {"_id": 1}):
        time.sleep(0.02)
    assert not uploads.find_one({"analyses.state": "failed"})


def processor_seconds(pid: int) -> float:
    """What a process, those that it made and those that ended have taken of the processor."""
    lines = (Path(f"/proc/{each}/stat").read_text() for each in family(pid))
    figures = (line.rpartition(")")[2].split()[11:15] for line in lines)
    return sum(sum(map(int, four)) for four in figures) / os.sysconf("SC_CLK_TCK")
