"""How thumbnails are made: each once, and whole or not at all."""

import functools
import json
import os
import signal
from concurrent.futures import ThreadPoolExecutor

import photographs
import pytest
from calling import uploaded
from PIL import Image
from running import wait_until
from thumbnail_checks import UNKNOWN_ID, difference, kept, made, opened, thumbnail
from workshop import Workshop

from clustr.domain.errors import BeingMade
from clustr.services.thumbnails import SIZES, VERSION
from clustr.storage import LocalStorage


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
            wait_until(lambda: len(waited_for()) == 1 + len(SIZES), 60, "all to wait")
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


@functools.cache
def large_png() -> bytes:
    """A picture of 49 megapixels in few bytes, which takes a while all the same."""
    return photographs.encode(Image.new("RGB", (7000, 7000), "teal"), "png")


KILLED = """
import os, signal, sys

def kill(event, arguments):
    if {condition}:
        os.kill(os.getpid(), signal.SIGKILL)

sys.addaudithook(kill)
"""
# What comes before it, so that it is killed at this moment.
MOMENTS = {
    "it has the lock": KILLED.format(
        condition="event == 'open' and str(arguments[0]).endswith('.png')"
    ),
    "it has written some bytes": """
import resource, signal
signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
""",
    "it gives it its name": KILLED.format(condition="event == 'os.rename'"),
}


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_maker_that_is_killed_leaves_nothing_half_and_holds_up_nobody(workshop, moment):
    [upload_id] = workshop.upload(photographs.photograph("png", "rocket", 640))
    maker = workshop.run("-c", MOMENTS[moment] + MAKER, upload_id)
    assert maker.process.wait(60) in (-signal.SIGKILL, -signal.SIGXFSZ), maker.output()
    assert "ready" in maker.output()
    store = workshop.settings.upload_folder
    assert list((store / ".thumbnails").glob("lock-*"))
    written = [path.stat().st_size for path in (store / ".incoming").iterdir()]
    assert [min(size, 1000) for size in written] == ([] if "lock" in moment else [1000])
    assert kept(workshop) == []
    found = workshop.web.thumbnails.get(upload_id, 300, "jpg")
    with found.content:
        assert opened(found.content.read()).size == (300, 200)
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
