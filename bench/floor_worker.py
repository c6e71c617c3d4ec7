"""The floor of the worker: one plain loop that makes the same five analyses of each upload."""

import os
from datetime import UTC, datetime
from pathlib import Path

import PIL.Image
import pymongo
import requests
from PIL import ImageOps

from clustr.plugins import to_rgb, to_rgba
from plugins import palette, phash

uploads = pymongo.MongoClient(os.environ["MONGODB_URL"], w="majority", journal=True)["floor"][
    "uploads"
]
FOLDER = Path(os.environ["UPLOAD_FOLDER"])
HASHED_SIDE = 8 * phash.SIDE
CAPTIONER = f"{os.environ['BLIP_SERVICE_URL']}/caption"


def analyze(key: object, path: Path, session: requests.Session) -> None:
    """The five analyses of one upload, and one write for all."""
    with PIL.Image.open(path) as image:
        turned = ImageOps.exif_transpose(image)
        dimensions = {"width": turned.width, "height": turned.height}
        exif = {"tags": len(image.getexif())}
    small = to_rgba(reduced(path, palette.SIDE), palette.SIDE)
    colors = {
        "colors": palette.dominant(small),
        "thumbhash": palette.thumbhash(to_rgba(small, palette.PLACEHOLDER_SIDE)),
    }
    bits = phash.perceptual_hash(to_rgb(reduced(path, HASHED_SIDE), HASHED_SIDE))
    with path.open("rb") as file:
        answer = session.post(CAPTIONER, files={"image": (path.name, file, "image/jpeg")}).json()
    results = {
        "dimensions": dimensions,
        "blip": answer,
        "exif": exif,
        "palette": colors,
        "phash": {"hash": f"{bits:016x}"},
    }
    ended = {"state": "succeeded", "finished_at": datetime.now(UTC)}
    analyses = [{"name": name, "result": result, **ended} for name, result in results.items()]
    uploads.update_one({"_id": key}, {"$set": {"analyses": analyses, "facets": ["processed"]}})


def reduced(path: Path, side: int) -> PIL.Image.Image:
    """A JPEG as small as its decoder makes it, but no smaller than `side` pixels."""
    image = PIL.Image.open(path)
    image.draft("RGB", (side, side))
    return image


def main() -> None:
    """Analyze what waits, for ever."""
    session = requests.Session()
    waiting = {"analyses": {"$elemMatch": {"name": "blip", "state": "queued"}}}
    uploads.create_index([("analyses.name", 1), ("analyses.state", 1)])
    while True:
        for document in uploads.find(waiting, {"_id": 1}):
            analyze(document["_id"], FOLDER / f"{document['_id']}.jpg", session)


if __name__ == "__main__":
    main()
