"""The floor of the worker: one plain loop that makes the same calls and updates."""

import os
from datetime import UTC, datetime
from pathlib import Path

import PIL.Image
import pymongo
import requests
from PIL import ImageOps

uploads = pymongo.MongoClient(os.environ["MONGODB_URL"], w="majority", journal=True)["floor"][
    "uploads"
]
FOLDER = Path(os.environ["UPLOAD_FOLDER"])
CAPTIONER = f"{os.environ['BLIP_SERVICE_URL']}/caption"


def store(key: object, name: str, result: object) -> None:
    """Write down what one analyzer found."""
    uploads.update_one(
        {"_id": key, "analyses": {"$elemMatch": {"name": name, "state": "queued"}}},
        {
            "$set": {
                "analyses.$.state": "succeeded",
                "analyses.$.result": result,
                "analyses.$.finished_at": datetime.now(UTC),
            }
        },
    )


def analyze(key: object, path: Path, session: requests.Session) -> None:
    """Dimensions, EXIF and caption of one upload."""
    with PIL.Image.open(path) as image:
        turned = ImageOps.exif_transpose(image)
        store(key, "dimensions", {"width": turned.width, "height": turned.height})
    with PIL.Image.open(path) as image:
        store(key, "exif", {"tags": len(image.getexif())})
    with path.open("rb") as file:
        answer = session.post(CAPTIONER, files={"image": (path.name, file, "image/jpeg")}).json()
    store(key, "blip", answer)


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
