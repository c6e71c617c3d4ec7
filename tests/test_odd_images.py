"""Images that nobody's camera makes, over HTTP: each is accepted or refused, and nobody suffers."""

import functools
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import odd_images
import photographs
import pytest
import requests
from calling import get, part, upload, uploaded
from PIL import ExifTags, Image
from running import Process, descendants, wait_until

from clustr.imaging import pillow_setup

# Nothing here takes long; this is for what would hang.
SECONDS = 60
MEBIBYTE = 1024 * 1024


@pytest.fixture(scope="module")
def plain(web_with):
    """A web side whose one process gets every request."""
    return web_with(processes=1, DECODE_MEMORY="200MB")


def web_processes(service) -> list[Process]:
    """gunicorn's workers: those of its processes that have no children."""
    found = [each for each in descendants(service.pid) if "gunicorn" in each.command]
    parents = {each.parent_pid for each in found}
    return [each for each in found if each.pid not in parents]


@pytest.fixture
def unharmed(service):
    """The web processes are the same afterwards, and go on with their work."""
    pillow_setup.prepare(50_000_000)  # the captioner reads in this process what the service reads
    before = web_processes(service)
    assert len(before) == 2
    yield service
    assert web_processes(service) == before
    assert all(process.alive() for process in before)
    wait_until_processed(service, uploaded(service, photographs.photograph("jpg", "astronaut")))


def wait_until_processed(service, accepted: list[dict]) -> None:
    def processed(upload_id: str) -> bool:
        found = get(service, f"/api/uploads/{upload_id}").json()
        assert found["status"] != "error", found
        return found["status"] == "processed"

    for one in accepted:
        wait_until(lambda one=one: processed(one["id"]), SECONDS, f"the analyses of {one}")


def sent(service, *contents: bytes) -> requests.Response:
    began = time.monotonic()
    answer = upload(service, *map(part, contents))
    assert time.monotonic() - began < SECONDS
    return answer


def test_A6_what_is_odd_but_sound_is_accepted_in_little_memory(unharmed):
    processes = web_processes(unharmed)
    forget_peaks(processes)
    before = peaks(processes)
    accepted = []
    for name in odd_images.ACCEPTED:
        answer = sent(unharmed, odd_images.odd(name))
        assert answer.status_code == 201, (name, answer.text)
        accepted += answer.json()["data"]
    wait_until_processed(unharmed, accepted)
    assert max(peak - before[pid] for pid, peak in peaks(processes).items()) < 64 * MEBIBYTE


def test_A3_A4_A5_what_costs_too_much_is_refused_at_once_and_in_little_memory(unharmed):
    processes = web_processes(unharmed)
    forget_peaks(processes)
    before = peaks(processes)
    for name in odd_images.REFUSED | odd_images.TOO_DEAR:
        answer = sent(unharmed, odd_images.odd(name))
        assert answer.status_code in (413, 415, 422), (name, answer.text)
        assert [one["original_filename"] for one in answer.json()["errors"]] == ["photograph.jpg"]
    assert max(peak - before[pid] for pid, peak in peaks(processes).items()) < 128 * MEBIBYTE


def test_A2_what_may_be_an_image_gets_an_answer(unharmed):
    for name in odd_images.EITHER:
        assert sent(unharmed, odd_images.odd(name)).status_code in (201, 413, 415, 422), name


def test_A2_a_part_of_an_image_is_refused(unharmed):
    whole = [photographs.photograph(extension) for extension in photographs.EXTENSIONS]
    whole += [photographs.encode_as("GIF"), photographs.encode_as("AVIF"), odd_images.HEIC]
    for content in whole:
        answer = sent(unharmed, *odd_images.cuts(content))
        assert answer.status_code in (415, 422), answer.text
        errors = answer.json()["errors"]
        assert {one["code"] for one in errors} <= {"undecodable", "unsupported_type"}
        assert len(errors) == 15


def forget_peaks(processes: list[Process]) -> None:
    """Let the kernel measure the most memory of each process anew (proc(5), clear_refs)."""
    for process in processes:
        Path(f"/proc/{process.pid}/clear_refs").write_text("5")


def peaks(processes: list[Process]) -> dict[int, int]:
    """The most memory in bytes that each process has had, by its id."""
    found = {}
    for process in processes:
        status = Path(f"/proc/{process.pid}/status").read_text()
        [line] = [each for each in status.splitlines() if each.startswith("VmHWM:")]
        found[process.pid] = int(line.split()[1]) * 1024
    return found


@functools.cache
def large(extension: str) -> bytes:
    """A picture of 40 megapixels in a small file, in one color but for a corner."""
    options = {"webp": {"lossless": True, "method": 0}, "jpg": {"progressive": True}}
    picture = Image.new("RGB", (8000, 5000), "teal")
    picture.paste(Image.effect_noise((400, 400), 100), (0, 0))
    return photographs.encode(picture, extension, **options.get(extension, {}))


@functools.cache
def large_as_a_whole() -> bytes:
    """The same as a PNG whose orientation comes last, which is decoded as a whole."""
    content, end = large("png")[:-12], large("png")[-12:]
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 3
    data = b"eXIf" + exif.tobytes().removeprefix(b"Exif\0\0")
    checksum = zlib.crc32(data).to_bytes(4, "big")
    return content + (len(data) - 4).to_bytes(4, "big") + data + checksum + end


@pytest.mark.parametrize(
    ("contents", "least", "most"),
    [
        (lambda: [large_as_a_whole()] * 2, 4 * 40, 4 * 40 + 50),
        (lambda: [large(each) for each in ("webp", "jpg", "webp")], 80, 250),
        (lambda: [large("png")] * 4, 10, 120),
    ],
    ids=["PNG as a whole", "mixed", "PNG by rows"],
)
def test_E3_large_images_at_once_take_no_more_than_the_memory_for_decodes(
    plain, contents, least, most
):
    """It is 200 MB: room for one picture of 40 megapixels as a whole, or a lossless WebP."""
    sent = contents()
    [process] = plain.workers()
    forget_peaks([process])
    before = peaks([process])
    with ThreadPoolExecutor(len(sent)) as pool:
        answers = list(pool.map(lambda each: upload(plain, part(each)), sent))
    assert [answer.status_code for answer in answers] == [201] * len(sent)
    assert plain.workers() == [process]
    grown = (peaks([process])[process.pid] - before[process.pid]) / 1e6
    assert least < grown < most


def test_A5_a_small_upload_does_not_wait_for_the_request_of_another(plain):
    """Three others send four large pictures each, whose checks take seconds, in one process."""
    small = part(photographs.photograph())

    def accepted(*parts) -> bool:
        return upload(plain, *parts).status_code == 201

    with ThreadPoolExecutor(3) as others:
        sent = [others.submit(accepted, *[part(large("png"))] * 4) for _ in range(3)]
        meanwhile = []
        while not any(each.done() for each in sent):
            meanwhile.append(accepted(small))
        assert all(each.result() for each in sent)
    assert all(meanwhile)
    assert len(meanwhile) > 5  # Behind one of these requests it would be one.


def test_E4_nothing_is_left_open_after_many_requests(plain):
    processes = plain.workers()
    photograph, broken = photographs.photograph(), photographs.photograph()[:1000]
    with requests.Session() as session:

        def call(number: int) -> None:
            address = f"{plain.url}/api/upload"
            content = broken if number % 3 == 0 else photograph
            answer = session.post(address, files=[part(content)], timeout=SECONDS)
            assert answer.status_code == (422 if number % 3 == 0 else 201)
            if answer.status_code == 201:
                url = answer.json()["data"][0]["preview_url"]
                assert session.get(url, timeout=SECONDS).content == photograph
            assert session.get(f"{plain.url}/nothing", timeout=SECONDS).status_code == 404

        for number in range(12):  # what is opened once and kept is opened now
            call(number)
        before = {each.pid: open_files(each.pid) for each in processes}
        for number in range(30):  # that is 80 requests, 40 of them failures
            call(number)

    def closed() -> bool:
        return all(open_files(pid) <= count + 5 for pid, count in before.items())

    wait_until(closed, SECONDS, f"as few open files as {before}")
    assert plain.workers() == processes
    family = descendants(plain.pid)

    def no_zombies() -> bool:
        return all(each.alive() or not Path(f"/proc/{each.pid}").exists() for each in family)

    wait_until(no_zombies, SECONDS, "all that ended is waited for")


def open_files(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))
