"""The gallery as it is served; `test_gallery_*.py` look at it in a real browser."""

import gzip
import re
from pathlib import Path

import pytest

import clustr.web

STATIC = Path(clustr.web.__path__[0]) / "static"
FIREFOX = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"
LARGEST_BYTES = 150_000
IMPORT = re.compile(r'^(?:import|export) .*?from "\./([^"]+)";$', re.MULTILINE)


@pytest.fixture
def client(app_with):
    return app_with().test_client()


def folder_of(page):
    """Where the page has its modules and styles from."""
    (folder,) = re.findall(r'href="(gallery/\w+)/gallery\.css"', page.text)
    return folder


@pytest.mark.parametrize("address", ["/", "/gallery"])
def test_a_browser_gets_the_page(client, address):
    page = client.get(address, headers={"Accept": FIREFOX})
    assert page.status_code == 200
    assert page.content_type.startswith("text/html")
    with client.get(f"/{folder_of(page)}/gallery.js") as answer:
        assert answer.status_code == 200


@pytest.mark.parametrize("accept", [None, "*/*", "application/json", "application/json, text/html"])
def test_everybody_else_gets_json_at_the_root(client, accept):
    answer = client.get("/", headers={"Accept": accept} if accept else {})
    assert answer.json["status"] == "online"
    assert "Accept" in answer.vary


def test_the_page_has_no_code_and_no_style_in_itself(client):
    page = client.get("/gallery")
    assert "unsafe" not in page.headers["Content-Security-Policy"]
    assert re.findall(r"<script(?! type=\"module\" src=)|<style|\sstyle=|\son\w+=", page.text) == []


def test_files_are_compressed_for_who_takes_that(client):
    address = f"/{folder_of(client.get('/gallery'))}/grid.js"
    with client.get(address) as plain:
        content = plain.data
    with client.get(address, headers={"Accept-Encoding": "gzip"}) as compressed:
        assert compressed.content_encoding == "gzip"
        assert gzip.decompress(compressed.data) == content == (STATIC / "grid.js").read_bytes()
        assert "Accept-Encoding" in compressed.vary
        assert compressed.last_modified
        assert "immutable" in compressed.headers["Cache-Control"]


def test_files_are_kept_for_a_year_until_another_version_is_there(client):
    folder = folder_of(client.get("/gallery"))
    for name, content_type in (("gallery.js", "text/javascript"), ("gallery.css", "text/css")):
        with client.get(f"/{folder}/{name}") as answer:
            assert answer.content_type.startswith(content_type)
            assert "immutable" in answer.headers["Cache-Control"]
    with client.get("/gallery/0123456789abcdef/gallery.js") as old:
        assert old.status_code == 200
        assert old.headers["Cache-Control"] == "no-store"
    for name in ("ASSETS.toml", "nothing.js", "lit-html.LICENSE.txt"):
        assert client.get(f"/{folder}/{name}").status_code == 404


def test_all_modules_are_asked_for_at_once(client):
    """Else each would be found only when another one that imports it is there."""
    page = client.get("/gallery")
    named = re.findall(r'<link rel="modulepreload" href="gallery/\w+/([^"]+)">', page.text)
    assert {*named} == {path.name for path in STATIC.glob("*.js")}


def test_every_module_that_is_imported_is_there():
    for path in STATIC.glob("*.js"):
        for name in IMPORT.findall(path.read_text()):
            assert (STATIC / name).is_file(), f"{path.name} imports {name}"


def test_all_of_the_page_is_small():
    paths = [path for path in STATIC.iterdir() if path.suffix in (".js", ".css")]
    assert sum(len(gzip.compress(path.read_bytes())) for path in paths) < LARGEST_BYTES
