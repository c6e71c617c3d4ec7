"""Asking for thumbnails in tests, and looking at them."""

import io
from pathlib import Path

import requests
from calling import get
from PIL import Image, ImageChops, ImageStat
from workshop import Workshop

from clustr.imaging.thumbnails import make_thumbnails

UNKNOWN_ID = "0123456789abcdef01234567"
FORMATS = {"jpg": "JPEG", "webp": "WEBP", "avif": "AVIF"}


def thumbnail(service, upload_id: str, query: str = "", accept: str = "*/*") -> requests.Response:
    headers = {"Accept": accept}
    return get(service, f"/api/uploads/{upload_id}/thumbnail{query}", headers=headers)


def opened(content: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(content))
    image.load()
    return image


def made(content: bytes, size: int, extension: str, folder: Path) -> Image.Image:
    """The thumbnail of a file, made in this process."""
    path = folder / "original"
    path.write_bytes(content)
    with path.open("rb") as file:
        [(_, content)] = make_thumbnails(file, lambda: [(size, extension)])
    image = opened(content)
    assert image.format == FORMATS[extension]
    return image


def difference(one: Image.Image, other: Image.Image) -> float:
    """How far apart two pictures are, as the mean over their pixels, of 255."""
    assert one.size == other.size
    apart = ImageChops.difference(one.convert("RGB"), other.convert("RGB"))
    return sum(ImageStat.Stat(apart).mean) / 3


def store_of(service) -> Path:
    return service.data / "uploads"


def kept(workshop: Workshop) -> list[Path]:
    folder = workshop.settings.upload_folder / ".thumbnails"
    return sorted(path for path in folder.rglob("*-v*") if path.is_file())
