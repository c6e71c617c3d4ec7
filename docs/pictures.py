"""Makes the pictures of the gallery in README.md; `make pictures` runs it.

    python docs/pictures.py http://127.0.0.1:5000

It uploads the free photographs that come with scikit-image, and parts of them, to the service at
that address, with dates, captions and tags, and takes the pictures in Chromium. The service has to
be empty.
"""

import io
import json
import random
import sys
import time
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

import requests
from PIL import Image

FOLDER = Path(__file__).parent / "pictures"
sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import browsing  # noqa: E402
import photographs  # noqa: E402

COUNT = 71
LAST_DAY = datetime(2026, 9, 20, 18, 30)
# In the public domain, or given to it: photographs of NASA and ESA, and with CC0 by their makers.
CAPTIONS = {
    "astronaut": "an astronaut in an orange suit before a flag",
    "cat": "a cat that looks into the camera",
    "coffee": "a cup of coffee on a wooden table",
    "rocket": "a rocket before its start at dusk",
    "galaxies": "thousands of galaxies in the deep field",
}
VIEWS = {
    "gallery": {"viewport": {"width": 1280, "height": 800}, "color_scheme": "light"},
    "gallery-small": {"viewport": {"width": 390, "height": 800}, "color_scheme": "light"},
}


def pictures() -> Iterator[tuple[str, bytes, dict[str, object]]]:
    """A name, a JPEG and what is said of it, for each upload; always the same."""
    chance = random.Random(5)  # noqa: S311  It chooses parts of pictures.
    sources = {
        name: Image.open(photographs.folder() / photographs.FILES[name]).convert("RGB")
        for name in CAPTIONS
    }
    taken_at = LAST_DAY
    for number in range(COUNT):
        name = chance.choice(list(sources))
        width, height = sources[name].size
        share = chance.uniform(0.55, 1)
        shape = chance.choice([(1, 1), (1, 0.7), (0.7, 1), (1, 0.5)])
        size = int(width * share * shape[0]), int(height * share * shape[1])
        left, top = chance.randint(0, width - size[0]), chance.randint(0, height - size[1])
        part = sources[name].crop((left, top, left + size[0], top + size[1]))
        file = io.BytesIO()
        part.save(file, "JPEG", quality=90)
        words = [word for word in CAPTIONS[name].split() if len(word) > 3]
        yield (
            f"{name}-{number}.jpg",
            file.getvalue(),
            {
                "caption": CAPTIONS[name],
                "tags": {"add": words},
                "taken_at": f"{taken_at.isoformat()}Z",
            },
        )
        taken_at -= timedelta(hours=chance.choice([1, 3, 20, 24 * 30]))


def main(address: str) -> None:
    """Fill the service at this address and write the pictures."""
    names, contents, said = zip(*pictures(), strict=True)
    files = [("files", file) for file in zip(names, contents, strict=True)]
    data = {"metadata": json.dumps(said)}
    answer = requests.post(f"{address}/api/upload", data=data, files=files, timeout=300)
    answer.raise_for_status()
    shown = answer.json()["data"][-1]["id"]
    waiting = {"status": "pending", "limit": 1}
    while requests.get(f"{address}/api/uploads", waiting, timeout=30).json()["data"]:
        time.sleep(1)
    FOLDER.mkdir(exist_ok=True)
    path = browsing.installed() or sys.exit("Chromium is not installed.")
    with browsing.running(path) as browser:
        for name, options in VIEWS.items():
            page = browser.new_page(**options)
            page.goto(f"{address}/gallery")
            page.wait_for_load_state("networkidle")
            write(page.screenshot(), name)
        page = browser.new_page(viewport={"width": 1280, "height": 800})
        page.goto(f"{address}/gallery#upload={shown}")
        page.wait_for_load_state("networkidle")
        write(page.screenshot(), "gallery-viewer")


def write(png: bytes, name: str) -> None:
    """Store a picture in a form that is small enough for a repository."""
    Image.open(io.BytesIO(png)).save(FOLDER / f"{name}.webp", quality=70)


if __name__ == "__main__":
    main(sys.argv[1])
