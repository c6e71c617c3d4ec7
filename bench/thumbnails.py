"""Thumbnails: how long one takes to make, beside Pillow alone, and to get once it is made."""

import http.client
import io
import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from secrets import token_hex
from typing import Any
from urllib.parse import urlsplit

from PIL import Image, ImageFilter

from bench import load
from bench.rows import Figure
from bench.service import Contender

SIZE = (4000, 3000)  # 12 megapixels
THUMBNAIL = 300
UPLOADS = 15


def photograph() -> bytes:
    """A JPEG of 12 megapixels and about 4 MB, as phones take it."""
    noise = Image.effect_noise(SIZE, 60).filter(ImageFilter.GaussianBlur(1))
    picture = Image.merge("RGB", (noise, noise.rotate(180), noise.transpose(1)))
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=90)
    return file.getvalue() + bytes(8)


def make(original: Path) -> None:
    """What Pillow does by itself on one core: from a file, reduced as it decodes, into another."""
    with Image.open(original) as image:
        image.draft("RGB", (THUMBNAIL, THUMBNAIL))
        image.thumbnail((THUMBNAIL, THUMBNAIL))
        image.save(original.with_name(f"{token_hex(12)}.jpg"), "JPEG", quality=80)


def first_time(url: str, paths: Sequence[str], original: Path) -> tuple[float, float]:
    """How many a second are made when they are asked for, and by Pillow alone, in turns."""
    address = urlsplit(url)
    connection = http.client.HTTPConnection(address.hostname, address.port, timeout=60)

    def get(path: str) -> None:
        connection.request("GET", path)
        answer = connection.getresponse()
        answer.read()
        assert answer.status == 200, answer.status

    with closing(connection):
        pairs = [(_seconds(get, path), _seconds(make, original)) for path in paths]
    ours, alone = zip(*pairs, strict=True)
    return 1 / statistics.median(ours), 1 / statistics.median(alone)


def _seconds(act: Callable[[Any], None], argument: Any) -> float:
    began = time.perf_counter()
    act(argument)
    return time.perf_counter() - began


def thumbnails(contenders: Sequence[Contender], rounds: int) -> list[Figure]:
    """Thumbnails of new uploads, one after the other, and then the same ones again."""
    ours, floor = contenders
    photo = photograph()
    original = floor.folder / "original.jpg"
    original.write_bytes(photo)
    cold: list[float] = []
    alone: list[float] = []
    stored: list[float] = []
    p50: list[float] = []
    for _ in range(rounds):
        ids = load.ids(load.uploads(ours.url, photo, UPLOADS, 1))
        paths = [f"/api/uploads/{each}/thumbnail?size={THUMBNAIL}" for each in ids]
        made, by_pillow = first_time(ours.url, paths, original)
        cold.append(made)
        alone.append(by_pillow)
        seconds = load.gets(ours.url, paths, 1000, 1).percentile(0.5)
        stored.append(1 / seconds)
        p50.append(seconds * 1000)
    work = "thumbnail of a JPEG of 12 megapixels, one client"
    return [
        Figure(f"{work}; floor: Pillow alone", "per second", cold, alone, bound=0.9),
        Figure("  stored; floor: the same cold", "per second", stored, cold, bound=20),
        Figure("  stored", "p50 ms", p50, most=3),
    ]
