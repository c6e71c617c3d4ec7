"""The memory of the web processes under large pictures: uploads of them, and thumbnails.

`python -m bench memory` measures both loads: 20 uploads by 16 clients, four of each kind of
picture; and 100 thumbnails, ten sizes of each of ten pictures in mixed order, 32 at once.
"""

import io
import random
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

import requests
from PIL import Image, ImageFilter

from bench.large import children
from bench.listing import proportional
from bench.rows import Figure
from bench.service import Contender
from clustr.services.thumbnails import SIZES

SIZE = (8640, 5754)  # 49.7 megapixels
KINDS = {
    "png": {"compress_level": 1},
    "webp": {"quality": 80, "method": 0},
    "tif": {"compression": "tiff_lzw"},
    "jpg": {"quality": 85},
    "progressive.jpg": {"quality": 85, "progressive": True},
}
CLIENTS = 16
AT_ONCE = 32
LOOK_SECONDS = 0.02
SECONDS = 120


@dataclass
class Peak:
    """The most memory of some processes together in bytes, without what they share twice (PSS)."""

    bytes: int = 0


def pictures() -> list[tuple[str, bytes]]:
    """One of each kind, with a name; as detailed as a photograph that is a little out of focus."""
    width, height = SIZE
    noise = Image.effect_noise((width // 4, height // 4), 60).filter(ImageFilter.GaussianBlur(1))
    channels = (noise, noise.rotate(180), noise.transpose(Image.Transpose.FLIP_LEFT_RIGHT))
    picture = Image.merge("RGB", channels).resize(SIZE)
    made = []
    for extension, options in KINDS.items():
        file = io.BytesIO()
        picture.save(file, Image.registered_extensions()[f".{extension.split('.')[-1]}"], **options)
        made.append((f"large.{extension}", file.getvalue()))
    return made


@contextmanager
def watched(processes: Sequence[int]) -> Iterator[Peak]:
    """Look at the memory of these processes all through the block."""
    peak, done = Peak(), threading.Event()

    def watch() -> None:
        while not done.wait(LOOK_SECONDS):
            peak.bytes = max(peak.bytes, proportional(processes))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield peak
    finally:
        done.set()
        watcher.join()


def send(url: str, name: str, content: bytes) -> str:
    """Upload a picture; its id."""
    answer = requests.post(f"{url}/api/upload", files=[("files", (name, content))], timeout=SECONDS)
    assert answer.status_code == 201, answer.text
    return answer.json()["data"][0]["id"]


def get(url: str) -> None:
    answer = requests.get(url, timeout=SECONDS)
    assert answer.status_code == 200, answer.text


def at_once(clients: int, call: Callable[..., object], each: Iterable[tuple]) -> list:
    """Call it with each of these arguments, so many at once."""
    with ThreadPoolExecutor(clients) as pool:
        return list(pool.map(lambda arguments: call(*arguments), each))


def large_pictures(contenders: Sequence[Contender], rounds: int) -> list[Figure]:
    """The two loads on our service, which starts each round with thumbnails of new uploads."""
    ours, _ = contenders
    processes = children(ours.pid)
    made = pictures()
    uploads, thumbnails, seconds = [], [], []
    for _ in range(rounds):
        sent = [(ours.url, name, content) for name, content in made * 4]
        with watched(processes) as peak:
            ids = at_once(CLIENTS, send, sent)
        uploads.append(peak.bytes / 1e6)
        addresses = [
            (f"{ours.url}/api/uploads/{each}/thumbnail?size={size}",)
            for each in ids[: 2 * len(made)]
            for size in SIZES
        ]
        random.Random(5).shuffle(addresses)
        with watched(processes) as peak:
            began = time.perf_counter()
            at_once(AT_ONCE, get, addresses)
            seconds.append(time.perf_counter() - began)
        thumbnails.append(peak.bytes / 1e6)
    work = "49.7 megapixels each; both web processes together"
    return [
        Figure(f"20 uploads by {CLIENTS} clients, {work}", "MB of PSS", uploads, most=600),
        Figure(f"100 thumbnails, {AT_ONCE} at once, {work}", "MB of PSS", thumbnails, most=600),
        Figure("  until all are answered", "seconds", seconds, most=15),
    ]
