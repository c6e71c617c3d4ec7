"""Uploading: what is accepted, what is refused and why, and what is stored."""

import hashlib
import io
import itertools
import re

import odd_images
import photographs
import pytest
import requests
from calling import (
    get,
    part,
    problem,
    stored_files,
    total,
    upload,
    uploaded,
)
from PIL import Image
from running import wait_until

ACCEPTED = {
    "id",
    "stored_filename",
    "preview_url",
    "index",
    "original_filename",
    "file_size",
    "content_type",
    "status",
    "duplicate_of",
    "reused",
}


@pytest.mark.parametrize("count", [1, 3])
def test_what_is_said_of_files_that_are_accepted(service, count):
    contents = [photographs.unique("png", 1000 * count + number) for number in range(count)]
    parts = [part(content, f"photo {n}.png") for n, content in enumerate(contents)]
    answer = upload(service, *parts)
    assert answer.status_code == 201
    body = answer.json()
    assert body.keys() == {"message", "data", "errors"}
    assert body["message"] == f"Successfully uploaded {count} file{'s' if count > 1 else ''}"
    assert body["errors"] == []
    assert len(body["data"]) == count
    for number, (one, content) in enumerate(zip(body["data"], contents, strict=True)):
        assert one.keys() == ACCEPTED
        assert re.fullmatch(r"[0-9a-f]{24}", one["id"])
        assert one["stored_filename"] == f"{one['id']}.png"
        assert one["preview_url"] == f"{service.url}/uploads/{one['stored_filename']}"
        assert one["original_filename"] == f"photo {number}.png"
        assert one["file_size"] == len(content)
        assert one["content_type"] == "image/png"
        assert one["status"] == "pending"
        assert one["duplicate_of"] is None


def test_what_is_stored_is_what_was_sent(service):
    content = photographs.path("rocket").read_bytes()
    [one] = uploaded(service, content)
    stored = get(service, f"/api/uploads/{one['id']}").json()
    assert requests.get(one["preview_url"], timeout=60).content == content
    assert requests.get(stored["url"], timeout=60).content == content
    assert stored["sha256"] == hashlib.sha256(content).hexdigest()
    assert stored["size"] == len(content)
    assert stored["dimensions"] == {"width": 640, "height": 427}
    assert not stored["file_path"].startswith("/")
    assert (service.data / "uploads" / stored["file_path"]).read_bytes() == content


def test_a_bad_file_never_spoils_the_good_ones(service):
    """A photograph among a text, a truncated image, nothing, and what would fill the memory."""
    before, uploads_before = stored_files(service), total(service)
    photograph = photographs.path("rocket").read_bytes()
    bomb = photographs.png_bomb(60_000, 60_000)
    assert len(bomb) < 1000
    answer = upload(
        service,
        part(photographs.text(), "text.png", "image/png"),
        part(photographs.truncated(photograph, 0.5), "truncated.jpg"),
        part(photograph, "rocket.jpg"),
        part(photographs.empty(), "empty.jpg"),
        part(bomb, "bomb.png", "image/png"),
    )
    assert answer.status_code == 201, answer.text
    body = answer.json()
    assert body["message"] == "Successfully uploaded 1 file"
    assert [one["original_filename"] for one in body["data"]] == ["rocket.jpg"]
    assert [(one["original_filename"], one["code"]) for one in body["errors"]] == [
        ("text.png", "unsupported_type"),
        ("truncated.jpg", "undecodable"),
        ("empty.jpg", "empty"),
        ("bomb.png", "too_many_pixels"),
    ]
    for one in body["errors"]:
        assert one.keys() == {"index", "original_filename", "code", "detail"}
        assert one["detail"]
    [file] = stored_files(service) - before
    assert file.name == body["data"][0]["stored_filename"]
    assert file.read_bytes() == photograph
    assert total(service) == uploads_before + 1


NAMES = ("photo.jpg", "photo.PNG", "photo.webp", "photo.gif", "photo.txt", "photo")
TYPES = (
    "image/jpeg",
    "image/png",
    "image/svg+xml",
    "text/html",
    "application/octet-stream",
    "no type",
)


@pytest.mark.parametrize("extension", photographs.EXTENSIONS)
def test_A1_the_bytes_decide_whatever_name_and_type_say(web, extension):
    content = photographs.photograph(extension)
    parts = [part(content, *said) for said in itertools.product(NAMES, TYPES)]
    answer = upload(web, *parts)
    assert answer.status_code == 201, answer.text
    assert len(answer.json()["data"]) == len(parts)
    for one in answer.json()["data"]:
        assert one["stored_filename"] == f"{one['id']}.{extension}"
        assert one["content_type"] == photographs.CONTENT_TYPES[extension]
        served = requests.head(one["preview_url"], timeout=60)
        assert served.headers["Content-Type"] == photographs.CONTENT_TYPES[extension]


@pytest.mark.parametrize("number", range(6))
def test_A1_what_is_no_accepted_format_is_refused(service, number):
    content = [
        photographs.encode_as("TGA"),
        photographs.encode_as("PPM"),
        photographs.encode_as("ICO"),
        photographs.encode_as("PDF"),
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EOF\n",
        b"<svg xmlns='http://www.w3.org/2000/svg' width='9' height='9'/>",
    ][number]
    problem(upload(service, part(content, "photo.jpg")), 415, "unsupported_type")


@pytest.mark.parametrize(
    ("content", "extension", "size"),
    [
        (odd_images.HEIC_WITH_EXIF, "heic", (48, 32)),
        (photographs.encode_as("AVIF"), "avif", (64, 43)),
        (photographs.encode_as("GIF"), "gif", (64, 43)),
    ],
    ids=["heic", "avif", "gif"],
)
def test_what_phones_send_is_accepted_by_default(service, content, extension, size):
    [one] = uploaded(service, content)
    assert one["stored_filename"] == f"{one['id']}.{extension}"
    assert one["content_type"] == f"image/{extension}"
    assert requests.get(one["preview_url"], timeout=60).content == content
    small = get(service, f"/api/uploads/{one['id']}/thumbnail")
    assert Image.open(io.BytesIO(small.content)).size == size
    path = f"/api/uploads/{one['id']}"
    wait_until(lambda: get(service, path).json()["status"] == "processed", 60)
    found = get(service, path).json()
    assert found["dimensions"] == {"width": size[0], "height": size[1]}
    taken_at = "2024-07-01T08:00:00.250000Z" if extension == "heic" else None
    assert found["taken_at"] == taken_at


def test_A10_dimensions_are_as_displayed(web):
    contents = [
        photographs.oriented(orientation, extension)
        for extension in ("jpg", "png", "webp", "tif")
        for orientation in range(1, 9)
    ]
    width, height = photographs.picture().size
    assert width != height
    for one in uploaded(web, *contents):
        found = get(web, f"/api/uploads/{one['id']}").json()["dimensions"]
        assert found == {"width": width, "height": height}


def test_A1_a_jpeg_with_two_pictures_inside_is_a_jpeg(service):
    [one] = uploaded(service, photographs.mpo())
    assert one["stored_filename"].endswith(".jpg")
    assert one["content_type"] == "image/jpeg"
    assert requests.get(one["preview_url"], timeout=60).content == photographs.mpo()


def test_a_file_that_was_there_before_is_named(service):
    """A hint only: each upload has a file of its own."""
    content, other = photographs.unique("jpg", 71_001), photographs.unique("jpg", 71_002)
    first, second, different = uploaded(service, content, content, other)
    assert first["duplicate_of"] is None
    assert second["duplicate_of"] == first["id"]
    assert different["duplicate_of"] is None
    [third] = uploaded(service, content)
    assert third["duplicate_of"] == first["id"]
    assert get(service, f"/api/uploads/{third['id']}").json()["duplicate_of"] == first["id"]
    assert len({one["stored_filename"] for one in (first, second, third)}) == 3
    for one in (first, second, third):
        assert requests.get(one["preview_url"], timeout=60).content == content
