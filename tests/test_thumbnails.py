"""Thumbnails: what they look like, that each is made once, and what becomes of them."""

import functools
import io
import json
import os
import signal
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import odd_images
import photographs
import pytest
import requests
from bson import ObjectId
from calling import get, part, upload, uploaded
from PIL import Image, ImageChops, ImageCms, ImageStat
from running import wait_until
from workshop import Workshop

from clustr.components import build_fsck
from clustr.domain.errors import BeingMade, NotFound, Undecodable
from clustr.imaging.thumbnails import make_thumbnails
from clustr.services.fsck import FindingKind
from clustr.services.thumbnails import SIZES, VERSION
from clustr.storage import LocalStorage

PROBLEM = "application/problem+json"
UNKNOWN_ID = "0123456789abcdef01234567"
FORMATS = {"jpg": "JPEG", "webp": "WEBP", "avif": "AVIF"}
BROWSER = "image/avif,image/webp,image/apng,image/svg+xml,image/*,*/*;q=0.8"


@pytest.fixture(scope="module")
def photo(service) -> dict:
    """A photograph of 640 times 427 pixels, as it was answered."""
    [one] = uploaded(service, photographs.photograph("jpg", "rocket", 640))
    return one


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


# What they look like


@pytest.mark.parametrize("extension", FORMATS)
@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("stored", ["jpg", "png", "webp", "tif"])
def test_it_is_upright(tmp_path, orientation, stored, extension):
    content = photographs.oriented(orientation, stored)
    shown = made(content, 100, extension, tmp_path)
    expected = photographs.picture("cat", 160).resize(shown.size)
    assert shown.size == (100, 66)
    assert difference(shown, expected) < 8
    assert "exif" not in shown.info


def test_it_is_upright_when_that_is_said_behind_the_pixels(tmp_path):
    shown = made(photographs.oriented_behind_pixels(), 100, "jpg", tmp_path)
    assert difference(shown, photographs.picture("cat", 160).resize((100, 66))) < 8


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")  # which the service does not hear of, either
@pytest.mark.parametrize("extension", FORMATS)
@pytest.mark.parametrize(
    ("kind", "like"),
    [
        (photographs.cmyk, "coffee"),
        (photographs.grey_16_bit, "camera"),
        (lambda: photographs.grey_16_bit("tif"), "camera"),
        (photographs.grey_16_bit_big_endian, "camera"),
        (photographs.colour_16_bit, "coffee"),
        (photographs.floating_point, "camera"),
        (photographs.palette, "coffee"),
        (lambda: photographs.palette("tif"), "coffee"),
        (photographs.compressed_tiff, "cat"),
        (photographs.progressive_jpeg, "cat"),
        (photographs.mpo, "cat"),
        (photographs.broken_exif, "cat"),
    ],
)
def test_every_kind_of_image_has_one(tmp_path, kind, like, extension):
    shown = made(kind(), 90, extension, tmp_path)
    expected = photographs.picture(like, 160).resize(shown.size)
    assert max(shown.size) == 90
    assert difference(shown, expected) < 12


def test_black_and_white_becomes_grey(tmp_path):
    shown = made(photographs.bilevel(), 40, "jpg", tmp_path).convert("L")
    assert len(set(shown.get_flattened_data())) > 50


@pytest.mark.parametrize("extension", ["png", "webp"])
def test_of_an_animation_it_is_the_first_frame(tmp_path, extension):
    content = photographs.animated(extension)
    shown = made(content, 50, "webp", tmp_path)
    assert getattr(shown, "n_frames", 1) == 1
    assert difference(shown, Image.open(io.BytesIO(content)).convert("RGB").resize(shown.size)) < 12


@pytest.mark.parametrize("extension", FORMATS)
def test_one_pixel_stays_one(tmp_path, extension):
    shown = made(photographs.one_pixel(), 300, extension, tmp_path)
    assert shown.size == (1, 1)
    assert difference(shown, Image.new("RGB", (1, 1), "brown")) < 6


def test_an_image_is_never_enlarged_and_a_thin_one_keeps_a_pixel(tmp_path):
    content = photographs.photograph("png", "cat", 160)
    assert made(content, 1600, "jpg", tmp_path).size == opened(content).size
    thin = photographs.encode(Image.new("RGB", (4000, 3), "teal"), "png")
    assert made(thin, 50, "jpg", tmp_path).size == (50, 1)


@pytest.mark.parametrize("kind", ["png", "webp", "palette", "grey", "key"])
def test_what_is_clear_stays_clear_where_it_can_and_is_white_in_a_jpeg(tmp_path, kind):
    image = opened(photographs.transparent())
    if kind == "grey":
        content = photographs.encode(image.convert("LA"), "png")
    elif kind == "palette":
        content = photographs.encode(image.quantize(64), "png")
    elif kind == "key":  # One colour of a picture without alpha is said to be clear.
        image = Image.new("RGB", image.size, "teal")
        image.paste("magenta", (image.width // 2, 0, *image.size))
        content = photographs.encode(image, "png", transparency=(255, 0, 255))
    else:
        content = photographs.transparent(kind)
    for extension in FORMATS:
        shown = made(content, 100, extension, tmp_path)
        clear, opaque = (90, 30), (10, 30)
        if extension == "jpg":
            assert shown.mode in ("L", "RGB")
            assert all(channel > 245 for channel in shown.convert("RGB").getpixel(clear))
        else:
            assert shown.mode == "RGBA"
            assert shown.getpixel(clear)[3] < 10
            assert shown.getpixel(opaque)[3] > 245


# The primaries of Display P3 with sRGB's curve, as phones embed them; written by littleCMS.
def wide_gamut() -> bytes:
    """A profile in which pure red is redder than any of sRGB's."""
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    primaries = {
        b"rXYZ": (0.51512, 0.24120, -0.00105),
        b"gXYZ": (0.29198, 0.69225, 0.04189),
        b"bXYZ": (0.15710, 0.06657, 0.78407),
    }
    for number in range(int.from_bytes(profile[128:132], "big")):
        entry = 132 + 12 * number
        name = bytes(profile[entry : entry + 4])
        place = int.from_bytes(profile[entry + 4 : entry + 8], "big")
        for index, value in enumerate(primaries.get(name, ())):
            fixed = round(value * 65536).to_bytes(4, "big", signed=True)
            profile[place + 8 + 4 * index : place + 12 + 4 * index] = fixed
        if name == b"desc":  # Or it would say that it is sRGB.
            size = int.from_bytes(profile[entry + 8 : entry + 12], "big")
            profile[place : place + size] = profile[place : place + size].replace(
                "sRGB".encode("utf-16-be"), "wide".encode("utf-16-be")
            )
    return bytes(profile)


@pytest.mark.parametrize("extension", FORMATS)
@pytest.mark.parametrize("alpha", [False, True])
def test_colours_are_converted_by_the_embedded_profile(tmp_path, extension, alpha):
    mode, colour = ("RGBA", (140, 100, 100, 255)) if alpha else ("RGB", (140, 100, 100))
    image = Image.new(mode, (60, 40), colour)
    as_it_is = made(photographs.encode(image, "png"), 50, extension, tmp_path)
    content = photographs.encode(image, "png", icc_profile=wide_gamut())
    shown = made(content, 50, extension, tmp_path)
    assert "icc_profile" not in shown.info
    red, green, _ = shown.convert("RGB").getpixel((20, 20))
    assert red >= 143  # by the standard it is 147
    assert green <= 100
    assert difference(shown, as_it_is) > 1.5


@pytest.mark.parametrize(
    "profile",
    [b"", b"no profile", bytes(128), ImageCms.createProfile("LAB")],
    ids=["empty", "none", "zeros", "lab"],
)
def test_a_profile_that_cannot_be_used_costs_nothing(tmp_path, profile):
    if not isinstance(profile, bytes):
        profile = ImageCms.ImageCmsProfile(profile).tobytes()
    plain = made(photographs.photograph("png"), 80, "jpg", tmp_path)
    content = photographs.encode(photographs.picture(), "png", icc_profile=profile)
    assert difference(made(content, 80, "jpg", tmp_path), plain) == 0


@pytest.mark.parametrize("extension", FORMATS)
def test_nothing_that_was_said_of_the_image_is_carried_over(tmp_path, extension):
    exif = Image.Exif()
    exif[0x010F] = "SECRET maker"
    exif.get_ifd(0x8825)[1] = "N"
    content = photographs.encode(
        photographs.picture(),
        "jpg",
        exif=exif,
        comment=b"SECRET comment",
        xmp=b"<x:xmpmeta>SECRET</x:xmpmeta>",
        icc_profile=wide_gamut(),
        dpi=(123, 123),
    )
    assert content.count(b"SECRET") == 3
    path = tmp_path / "original"
    path.write_bytes(content)
    with path.open("rb") as file:
        [(_, small)] = make_thumbnails(file, lambda: [(100, extension)])
    assert b"SECRET" not in small
    assert not {"exif", "xmp", "comment", "icc_profile", "dpi"} & set(opened(small).info)


def test_what_is_broken_says_so(tmp_path):
    content = photographs.truncated(photographs.photograph("png"), 0.5)
    with pytest.raises(Undecodable):
        made(content, 100, "jpg", tmp_path)


# What is answered


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
    head = requests.head(path, timeout=10)
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["Content-Length"] == str(len(answer.content))


def test_every_upload_says_where_its_thumbnail_is(service, photo):
    url = get(service, f"/api/uploads/{photo['id']}").json()["thumbnail_url"]
    path = f"/api/uploads/{photo['id']}/thumbnail?size=300&v={VERSION}"
    assert url == service.url + path
    listed = get(service, "/api/uploads?limit=100").json()["data"]
    assert url in [one["thumbnail_url"] for one in listed]
    answer = requests.get(url, timeout=10)
    assert answer.headers["Cache-Control"] == "public, max-age=31536000, immutable"
    older = requests.get(url.replace(f"v={VERSION}", "v=0"), timeout=10)
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


def store_of(service) -> Path:
    return service.data / "uploads"


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


# One maker


def makings(service, one: dict) -> list[dict]:
    """What was logged of the thumbnails that were made of an upload."""
    lines = [line for line in service.output().splitlines() if "thumbnail_made" in line]
    made = [json.loads(line[line.index("{") :]) for line in lines]
    return [each for each in made if each["filename"] == one["stored_filename"]]


def test_exactly_one_makes_it_however_many_ask_at_once(web):
    content = photographs.encode(photographs.picture("coffee", None).resize((3000, 2000)), "png")
    [one] = uploaded(web, content)
    with ThreadPoolExecutor(24) as clients:
        asked = [clients.submit(thumbnail, web, one["id"]) for _ in range(48)]
        answers = [each.result() for each in asked]
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.content for answer in answers}) == 1
    assert len(makings(web, one)) == 1
    found = list((web.folder / ".thumbnails").rglob(f"{one['id']}/300-*"))
    assert [path.read_bytes() for path in found] == [answers[0].content]


def test_one_decode_makes_all_sizes_that_are_waited_for_in_all_processes(web):
    [one] = uploaded(web, large_png())
    storage = LocalStorage(web.folder)
    keys = {size: storage.thumbnails.key(one["id"], f"{size}-v{VERSION}.jpg") for size in SIZES}
    other = storage.thumbnails.key(one["id"], f"{SIZES[0]}-v{VERSION}.webp")
    with ThreadPoolExecutor(len(SIZES)) as clients:
        with storage.thumbnails.making(other, keys.values(), 10) as waited_for:
            asked = [clients.submit(thumbnail, web, one["id"], f"?size={size}") for size in SIZES]
            wait_until(lambda: len(waited_for()) == 1 + len(SIZES), 20, "all to wait")
        answers = [each.result() for each in asked]
    assert [max(opened(answer.content).size) for answer in answers] == list(SIZES)
    made = makings(web, one)
    assert sorted(each["size"] for each in made) == list(SIZES)
    assert len({each["decode"] for each in made}) == 1


def test_a_small_one_is_made_of_a_large_one_that_is_kept(web, tmp_path):
    """What is behind the half of the original is not needed for it."""
    content = photographs.photograph("png", "coffee", 1600)
    [one] = uploaded(web, content)
    assert thumbnail(web, one["id"], "?size=1600").status_code == 200
    path = web.folder / one["id"][:4] / one["stored_filename"]
    os.truncate(path, path.stat().st_size // 2)
    answer = thumbnail(web, one["id"], "?size=200")
    assert answer.status_code == 200
    assert difference(opened(answer.content), made(content, 200, "jpg", tmp_path)) < 3
    assert thumbnail(web, one["id"], "?size=800").status_code == 422  # not four times as large
    assert thumbnail(web, one["id"], "?size=100", "image/webp").status_code == 422
    kept_one = web.folder / ".thumbnails" / one["id"][:4] / one["id"]
    (kept_one / f"1600-v{VERSION}.jpg").write_bytes(b"broken")
    assert thumbnail(web, one["id"], "?size=400").status_code == 422


# Makes the thumbnails of an upload when it is told to, in a process of its own.
MAKER = """
import sys
from clustr.imaging import pillow_setup, thumbnails
from clustr import logs
from clustr.components import WEB_TIMEOUT_SECONDS, build_database
from clustr.settings import read_settings
from clustr.storage import LocalStorage
from clustr.services.thumbnails import Thumbnails
settings = read_settings()
pillow_setup.prepare(settings.max_image_pixels)
database = build_database(settings, WEB_TIMEOUT_SECONDS)
thumbnails = Thumbnails(database, LocalStorage(settings.upload_folder))
logs.configure("json", "error")
print("ready", flush=True)
thumbnails.get(sys.argv[1], 300, "jpg")
print("done", flush=True)
"""


@pytest.fixture
def workshop(tmp_path, servers):
    with Workshop(tmp_path, servers, PLUGINS_ENABLED="") as opened:
        yield opened


def kept(workshop: Workshop) -> list[Path]:
    folder = workshop.settings.upload_folder / ".thumbnails"
    return sorted(path for path in folder.rglob("*-v*") if path.is_file())


@functools.cache
def large_png() -> bytes:
    """A picture of 49 megapixels in few bytes, which takes a while all the same."""
    return photographs.encode(Image.new("RGB", (7000, 7000), "teal"), "png")


def test_a_maker_that_is_killed_leaves_nothing_half_and_holds_up_nobody(workshop):
    [upload_id] = workshop.upload(large_png())
    maker = workshop.run("-c", MAKER, upload_id)
    locks = workshop.settings.upload_folder / ".thumbnails"
    wait_until(lambda: list(locks.glob("lock-*")), 20, "a lock")
    maker.signal(signal.SIGKILL)
    maker.process.wait()
    assert "done" not in maker.output()
    assert kept(workshop) == []
    found = workshop.web.thumbnails.get(upload_id, 300, "jpg")
    with found.content:
        assert opened(found.content.read()).size == (300, 300)
    assert len(kept(workshop)) == 1


@pytest.mark.parametrize("call", ["write", "rename"])
def test_killed_at_the_worst_moment_it_leaves_nothing_half(workshop, strace, call):
    """While it writes, or when it is about to give it its name."""
    [upload_id] = workshop.upload(photographs.photograph("jpg", "rocket", 640))
    trace = workshop.folder / "trace"
    moment = "2" if call == "write" else "1"  # It has written before that it is ready.
    maker = workshop.run(
        *("-c", "import os, sys; os.execvp(sys.argv[1], sys.argv[1:])"),
        *("strace", "-f", "-qq", "-y", "-o", str(trace), "-e", f"trace={call}"),
        *("-e", f"inject={call}:signal=KILL:when={moment}"),
        *(sys.executable, "-c", MAKER, upload_id),
    )
    maker.process.wait(30)
    assert "/.incoming/" in trace.read_text()
    assert "done" not in maker.output()
    assert kept(workshop) == []
    found = workshop.web.thumbnails.get(upload_id, 300, "jpg")
    found.content.close()
    assert len(kept(workshop)) == 1


def take(storage: LocalStorage, key: str) -> bool:
    with storage.thumbnails.making(key, [key], 10):
        return True


def test_who_waits_too_long_is_told_so(workshop):
    storage = workshop.web.storage
    key = storage.thumbnails.key(UNKNOWN_ID, "300-v1.jpg")
    with ThreadPoolExecutor(1) as threads:
        with storage.thumbnails.making(key, [key], 1):
            with pytest.raises(BeingMade), storage.thumbnails.making(key, [key], 0.05):
                pass
            waiting = threads.submit(take, storage, key)
            assert not waiting.done()
        assert waiting.result()


# What becomes of them


def ask(workshop: Workshop, upload_id: str, accept: str = "*/*") -> tuple[int, bytes]:
    client = workshop.app.test_client()
    answer = client.get(f"/api/uploads/{upload_id}/thumbnail", headers={"Accept": accept})
    with answer:
        return answer.status_code, answer.data


def test_the_database_is_not_asked_while_the_original_is_in_its_place(workshop):
    [upload_id] = workshop.upload(photographs.photograph())
    workshop.collection.delete_one({"_id": ObjectId(upload_id)})
    status, content = ask(workshop, upload_id)
    assert ask(workshop, upload_id) == (status, content) == (200, content)
    workshop.web.storage.remove(f"{upload_id}.jpg")
    assert ask(workshop, upload_id, "image/webp")[0] == 404


def test_forgetting_removes_all_thumbnails_of_an_upload_and_no_others(workshop):
    one, other = workshop.upload(photographs.photograph(), photographs.photograph("png"))
    for upload_id in (one, other):
        for accept in ("*/*", "image/webp"):
            assert ask(workshop, upload_id, accept)[0] == 200
    storage = workshop.web.storage
    assert storage.thumbnails.remove(f"{one}.jpg")
    assert {path.parent.name for path in kept(workshop)} == {other}
    assert len(kept(workshop)) == 2
    assert not storage.thumbnails.remove(f"{one}.jpg")


def test_none_outlives_its_original_whatever_happens_at_once(workshop):
    """The original goes while thumbnails are made: what is kept in the end is nothing."""
    storage = workshop.web.storage
    outcomes: Counter[int] = Counter()
    for number in range(6):
        [upload_id] = workshop.upload(photographs.unique(number=number, width=900, height=700))
        with ThreadPoolExecutor(4) as threads:
            accepts = ("*/*", "image/webp", "image/avif", "*/*")
            asked = [threads.submit(ask, workshop, upload_id, accept) for accept in accepts]
            if number % 2:
                wait_until(lambda: kept(workshop), 10, "the first of them")
            storage.remove(f"{upload_id}.jpg")
            storage.thumbnails.remove(f"{upload_id}.jpg")
            outcomes.update(each.result()[0] for each in asked)
        assert kept(workshop) == []
        assert ask(workshop, upload_id)[0] == 404
    assert outcomes.keys() <= {200, 404}


def test_fsck_removes_those_of_no_upload(workshop):
    one, other = workshop.upload(photographs.photograph(), photographs.photograph("png"))
    for upload_id in (one, other):
        assert ask(workshop, upload_id)[0] == 200
    workshop.collection.delete_one({"_id": ObjectId(one)})
    workshop.web.storage.remove(f"{one}.jpg")
    with build_fsck(workshop.settings, timedelta(hours=1), quick=True) as check:
        assert list(check.findings()) == []
    with build_fsck(workshop.settings, timedelta(), quick=True) as check:
        [found] = check.findings()
        assert (found.kind, found.id) == (FindingKind.THUMBNAILS, one)
        assert check.repair(found)
        assert not check.repair(found)
        assert list(check.findings()) == []
    assert {path.parent.name for path in kept(workshop)} == {other}


def test_a_store_that_cannot_be_written_still_answers(workshop):
    """Files stand where its folders should be: nothing can be kept, whoever runs the test."""
    before, after = workshop.upload(photographs.photograph(), photographs.photograph("png"))
    status, content = ask(workshop, before)
    assert status == 200
    folder = workshop.settings.upload_folder
    aside = (folder / ".incoming").rename(folder.parent / "aside")
    assert ask(workshop, before) == (200, content)
    assert ask(workshop, before, "image/webp")[0] == 200
    assert ask(workshop, after)[0] == 200
    assert len(kept(workshop)) == 1
    aside.rename(folder / ".incoming")
    assert ask(workshop, after)[0] == 200
    assert len(kept(workshop)) == 2


def test_a_store_that_went_away_is_503_and_nothing_is_written_there(workshop):
    [upload_id] = workshop.upload(photographs.photograph())
    folder = workshop.settings.upload_folder
    assert workshop.app.test_client().get("/").status_code == 200
    aside = folder.rename(folder.with_name("unmounted"))
    folder.mkdir()
    assert ask(workshop, upload_id)[0] == 503
    assert list(folder.iterdir()) == []
    folder.rmdir()
    aside.rename(folder)
    assert ask(workshop, upload_id)[0] == 200


def test_what_is_not_there_is_not_found(workshop):
    with pytest.raises(NotFound):
        workshop.web.thumbnails.get(UNKNOWN_ID, 300, "jpg")
    assert kept(workshop) == []


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
