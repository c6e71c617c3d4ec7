"""Thumbnails: what is answered, in which size and format."""

import io
import os
from pathlib import Path

import odd_images
import photographs
import pytest
import requests
from calling import PROBLEM, get, part, upload, uploaded
from thumbnail_checks import UNKNOWN_ID, opened, store_of, thumbnail

from clustr.services.thumbnails import SIZES, VERSION

BROWSER = "image/avif,image/webp,image/apng,image/svg+xml,image/*,*/*;q=0.8"


@pytest.fixture(scope="module")
def photo(service) -> dict:
    """A photograph of 640 times 427 pixels, as it was answered."""
    [one] = uploaded(service, photographs.photograph("jpg", "rocket", 640))
    return one


def test_it_is_answered(service, photo):
    answer = thumbnail(service, photo["id"])
    assert answer.status_code == 200
    assert answer.headers["Content-Type"] == "image/jpeg"
    assert answer.headers["Vary"] == "Accept, Origin"
    assert answer.headers["Cache-Control"] == "public, max-age=300"
    assert answer.headers["Cross-Origin-Resource-Policy"] == "cross-origin"
    assert opened(answer.content).size == (300, 200)
    again = thumbnail(service, photo["id"])
    assert again.content == answer.content
    assert again.headers["ETag"] == answer.headers["ETag"]
    known = get(
        service,
        f"/api/uploads/{photo['id']}/thumbnail",
        headers={"If-None-Match": answer.headers["ETag"]},
    )
    assert (known.status_code, known.content) == (304, b"")
    assert known.headers["Vary"] == "Accept, Origin"
    path = f"{service.url}/api/uploads/{photo['id']}/thumbnail"
    head = requests.head(path, timeout=60)
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["Content-Length"] == str(len(answer.content))


def test_every_upload_says_where_its_thumbnail_is(service, photo):
    url = get(service, f"/api/uploads/{photo['id']}").json()["thumbnail_url"]
    path = f"/api/uploads/{photo['id']}/thumbnail?size=300&v={VERSION}"
    assert url == service.url + path
    listed = get(service, "/api/uploads?limit=100").json()["data"]
    assert url in [one["thumbnail_url"] for one in listed]
    answer = requests.get(url, timeout=60)
    assert answer.headers["Cache-Control"] == "public, max-age=31536000, immutable"
    older = requests.get(url.replace(f"v={VERSION}", "v=0"), timeout=60)
    assert older.headers["Cache-Control"] == "public, max-age=300"
    assert older.content == answer.content


@pytest.mark.parametrize(
    ("asked", "longer"),
    [(50, 50), (51, 100), (120, 150), (200, 200), (301, 400), (601, 640), (801, 640), (1600, 640)],
)
def test_a_size_is_snapped_up_and_never_beyond_the_image(service, photo, asked, longer):
    answer = thumbnail(service, photo["id"], f"?size={asked}")
    assert max(opened(answer.content).size) == longer


def test_every_size_of_the_list_can_be_had(service, photo):
    for size in SIZES:
        answer = thumbnail(service, photo["id"], f"?size={size}")
        assert max(opened(answer.content).size) == min(size, 640)


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        ("*/*", "jpeg"),
        ("", "jpeg"),
        ("image/*", "jpeg"),
        ("image/webp", "webp"),
        ("image/avif", "avif"),
        (BROWSER, "avif"),
        ("image/webp,*/*;q=0.8", "webp"),
        ("image/avif;q=0.5,image/webp;q=0.9", "webp"),
        ("image/jpeg,image/webp;q=0.5", "jpeg"),
        ("image/jpeg;q=0,image/webp;q=0", "jpeg"),
        ("image/webp;q=0,*/*", "jpeg"),
        ("text/html", "jpeg"),
        ("IMAGE/WEBP", "webp"),
        ("image/webp;q=x, ;;,", "jpeg"),
    ],
)
def test_the_format_is_the_one_that_is_wanted(service, photo, accept, expected):
    answer = thumbnail(service, photo["id"], "?size=100", accept)
    assert answer.headers["Content-Type"] in (f"image/{expected}", "image/webp")
    assert opened(answer.content).format.lower() == answer.headers["Content-Type"][6:]
    if accept != "image/webp;q=x, ;;,":
        assert answer.headers["Content-Type"] == f"image/{expected}"


def test_formats_have_tags_of_their_own(service, photo):
    tags = {
        thumbnail(service, photo["id"], f"?size={size}", accept).headers["ETag"]
        for accept in ("*/*", "image/webp", "image/avif")
        for size in (100, 150)
    }
    assert len(tags) == 6


@pytest.mark.parametrize(
    ("path", "status", "field"),
    [
        (f"/api/uploads/{UNKNOWN_ID}/thumbnail", 404, None),
        ("/api/uploads/x/thumbnail", 404, None),
        ("/api/uploads/..%2f..%2f.clustr-store/thumbnail", 404, None),
        ("/api/uploads/{id}/thumbnail?size=49", 422, "size"),
        ("/api/uploads/{id}/thumbnail?size=1601", 422, "size"),
        ("/api/uploads/{id}/thumbnail?size=3_00", 422, "size"),
        ("/api/uploads/{id}/thumbnail?size=", 422, "size"),
        ("/api/uploads/{id}/thumbnail?width=300", 422, "width"),
        ("/api/uploads/{id}/thumbnail?v=one", 422, "v"),
    ],
)
def test_what_is_no_thumbnail_is_said(service, photo, path, status, field):
    answer = get(service, path.format(id=photo["id"]))
    assert (answer.status_code, answer.headers["Content-Type"]) == (status, PROBLEM)
    assert list(answer.json().get("errors", {})) == ([field] if field else [])


def test_an_original_that_is_broken_is_422_and_one_that_is_gone_404(service):
    broken, gone = uploaded(service, *(photographs.unique(number=n) for n in (7001, 7002)))
    for one, change in ((broken, lambda p: p.write_bytes(b"text")), (gone, Path.unlink)):
        change(store_of(service) / one["id"][:4] / one["stored_filename"])
    answer = thumbnail(service, broken["id"])
    assert (answer.status_code, answer.headers["Content-Type"]) == (415, PROBLEM)
    answer = thumbnail(service, gone["id"])
    assert (answer.status_code, answer.headers["Content-Type"]) == (404, PROBLEM)
    [half] = uploaded(service, photographs.photograph("png"))
    path = store_of(service) / half["id"][:4] / half["stored_filename"]
    os.truncate(path, path.stat().st_size // 2)
    answer = thumbnail(service, half["id"])
    assert (answer.status_code, answer.headers["Content-Type"]) == (422, PROBLEM)
    assert answer.json()["type"] == "urn:clustr:problem:undecodable"


def test_a_picture_of_a_phone_that_is_not_a_jpeg(web):
    animation = io.BytesIO()
    frames = [photographs.picture(name, 120).convert("P") for name in ("cat", "coffee")]
    frames[0].save(animation, "GIF", save_all=True, append_images=frames[1:])
    photo = io.BytesIO()
    photographs.picture("coffee", 200).save(photo, "AVIF")
    for content, size in (
        (odd_images.HEIC, (48, 32)),
        (animation.getvalue(), frames[0].size),
        (photo.getvalue(), (200, 133)),
    ):
        [one] = upload(web, part(content)).json()["data"]
        answer = thumbnail(web, one["id"])
        assert answer.status_code == 200, answer.text
        assert opened(answer.content).size == size
