"""The gallery in a real browser, with more uploads than it could load at once."""

import base64
import io
import os
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlsplit

import photographs
from axe_playwright_python.sync_playwright import Axe
from browsing import HOST
from clustr_plugins.palette import thumbhash
from playwright.sync_api import Page, expect
from web_side import WebSide
from workshop import another

from clustr.database.documents import facets
from clustr.plugins import to_rgba

NEWEST = datetime(2024, 12, 30, 12, tzinfo=UTC)
# Of the one file that all of these uploads have, as it is to be shown; by these the rows are made.
SIZES = [(1600, 1200), (1200, 1600), (1600, 900), (1000, 1000), (3000, 700), (800, 1200)]
SETTINGS = {"ALLOWED_HOSTS": HOST, "AUTH": "off", "PLUGINS_DISABLED": "blip,openai"}


def placeholder() -> str:
    """That of the photograph of all uploads."""
    return base64.b64encode(thumbhash(to_rgba(photographs.picture(), 32))).decode()


def address_of(web: WebSide) -> str:
    """The gallery's address for the browser."""
    address = urlsplit(web.url)
    return address._replace(netloc=f"{HOST}:{address.port}", path="/gallery").geturl()


def add_uploads(
    web: WebSide, count: int, change: Callable[[int], dict[str, Any]], key: str = ""
) -> list[str]:
    """Store uploads as they are when they have been analyzed.

    Args:
        change: what tells the upload of a number from the others.
        key: with which one is uploaded, of which the others are copies.
    """
    workshop = web.workshop
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    data = {"files": (io.BytesIO(photographs.photograph()), "photograph.jpg")}
    answer = workshop.app.test_client().post("/api/upload", data=data, headers=headers)
    first = answer.json["data"][0]["id"]
    document = workshop.collection.find_one_and_delete({"filename": f"{first}.jpg"})
    assert document is not None
    for analysis in document["analyses"]:
        analysis.update(state="skipped")
        if analysis["name"] == "palette":
            result = {"colors": [], "luminance": 0.5, "thumbhash": placeholder()}
            analysis.update(state="succeeded", attempts=1, result=result)
    document |= {"status": "processed", "facets": facets("processed", "image/jpeg", False)}
    documents = [another(document, **change(number)) for number in range(count)]
    workshop.collection.insert_many(documents)
    folder = workshop.settings.upload_folder
    [original] = folder.rglob(f"{first}.jpg")
    for each in documents:
        place = folder / workshop.web.storage.key(each["filename"])
        place.parent.mkdir(parents=True, exist_ok=True)
        os.link(original, place)
    return [str(each["_id"]) for each in documents]


def over_years(number: int) -> dict[str, Any]:
    """Uploads of every size, the newest first, about one in two days."""
    width, height = SIZES[number % len(SIZES)]
    moment = NEWEST - timedelta(hours=37 * number)
    return {
        "original_name": f"image {number}.jpg",
        "caption": f"image number {number}",
        "dimensions": {"width": width, "height": height},
        **dict.fromkeys(("upload_time", "taken_at", "taken_at_local", "sort_date"), moment),
    }


def open_gallery(page: Page, address: str, fragment: str = "") -> None:
    """Load the page anew, and wait for its first image."""
    page.goto("about:blank")
    page.goto(f"{address}#{fragment}")
    expect(page.locator(".tile").first).to_be_visible()


def require_accessible(page: Page) -> None:
    """Have axe-core look at a page as it is shown now; it must find nothing."""
    found = Axe().run(page)
    assert found.violations_count == 0, found.generate_report()
