"""The service while the folder of originals is full, not mounted or made by several at once."""

import io
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import photographs
import pytest
import requests
import traces
from calling import get, part, upload, uploaded
from originals import NAME, keep, names, never_asked, not_in_use
from running import wait_until
from web_side import WebSide
from workshop import Workshop

from clustr.domain.errors import StorageFull
from clustr.domain.models import UNFINISHED
from clustr.storage import LocalStorage
from clustr.supervisor import servers as programs

PROBLEM = "application/problem+json"


def test_a_store_that_cannot_be_written_will_do(tmp_path, disk):
    (disk / "filler").touch()
    full = LocalStorage(disk / "store")
    full.prepare(not_in_use)
    keep(full)
    fill(disk / "filler", leave_bytes=0)
    LocalStorage(disk / "store").prepare(never_asked)
    (disk / "store" / ".incoming").rmdir()
    mount("-o", "remount,ro", str(disk))
    read_only = LocalStorage(disk / "store")
    read_only.prepare(never_asked)
    with read_only.open(NAME) as file:
        assert file.read() == b"content"
    for ask in (read_only.check, lambda: keep(read_only), lambda: read_only.quarantine(NAME, "x")):
        with pytest.raises(StorageFull):
            ask()


def mount(*arguments: str) -> None:
    ran = subprocess.run(["mount", *arguments], capture_output=True, text=True)
    if ran.returncode:
        pytest.skip(f"a file system of its own cannot be mounted here: {ran.stderr.strip()}")


@pytest.fixture
def disk(tmp_path) -> Iterator[Path]:
    """A file system of 8 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount("-t", "tmpfs", "-o", "size=8m", "tmpfs", str(folder))
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def total(service) -> int:
    return get(service, "/api/uploads").json()["total"]


def free_bytes(folder: Path) -> int:
    found = os.statvfs(folder)
    return found.f_bavail * found.f_frsize


def check_507(answer: requests.Response) -> None:
    assert answer.status_code == 507, answer.text
    assert answer.headers["Content-Type"] == PROBLEM
    assert answer.json()["type"] == "urn:clustr:problem:storage_full"
    assert "disk" not in answer.text


def fill(path: Path, leave_bytes: int) -> None:
    """Leave no more than so much space on a file system."""
    with path.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, free_bytes(path.parent) - leave_bytes)


def test_E1_a_full_disk_is_507_and_leaves_nothing(disk, web_with):
    folder, filler = disk / "uploads", disk / "filler"
    service = web_with(UPLOAD_FOLDER=str(folder))
    content = photographs.photograph("bmp", "coffee", None)
    stored = {one["stored_filename"]: content for one in uploaded(service, content, content)}
    fill(filler, leave_bytes=300_000)

    before = names(folder), free_bytes(disk)
    check_507(upload(service, part(content)))
    check_507(upload(service, part(photographs.photograph()), part(content)))
    assert (names(folder), free_bytes(disk)) == before
    assert total(service) == 2
    small = photographs.photograph()
    (one,) = uploaded(service, small)  # what still fits is taken
    stored[one["stored_filename"]] = small

    fill(filler, leave_bytes=0)
    check_507(upload(service, part(small)))
    wait_until(lambda: get(service, "/api/health/ready").status_code == 503, 60, "not ready")
    assert get(service, "/api/health/storage").json()["status"] == "unhealthy"
    for name, sent in stored.items():
        assert get(service, f"/uploads/{name}").content == sent
    assert total(service) == 3

    killed = service.workers()
    for process in killed:  # Others start all the same.
        process.kill()
    wait_until(
        lambda: len(now := service.workers()) == 2 and not {*now} & {*killed},
        60,
        "other processes",
    )
    assert get(service, f"/uploads/{one['stored_filename']}").content == small

    filler.unlink()
    assert get(service, "/api/health/ready").status_code == 200  # though there is little room
    storage = get(service, "/api/health/storage").json()
    assert (storage["status"], storage["error"]) == ("degraded", storage["detail"])
    assert storage["free_bytes"] == free_bytes(disk)
    uploaded(service, content)
    assert total(service) == 4
    assert not list((folder / ".incoming").iterdir())


@pytest.fixture(scope="module")
def one_process(web_with) -> WebSide:
    return web_with(processes=1)


@pytest.mark.parametrize("error", ["EIO", "ENOSPC", "EDQUOT", "EROFS"])
def test_E1_an_fsync_that_fails_is_507_and_leaves_nothing(one_process, tmp_path, strace, error):
    service, folder = one_process, one_process.folder
    (one,) = uploaded(service, photographs.photograph())
    before = names(folder), total(service)
    (web,) = service.workers()
    failing = ("-e", "trace=fsync", "-e", f"inject=fsync:error={error}")
    with traces.traced(web.pid, tmp_path / "trace", *failing):
        check_507(upload(service, part(photographs.photograph(name="coffee"))))
    assert {call.error for call in traces.read(tmp_path / "trace")} == {error}
    assert (names(folder), total(service)) == before
    assert get(service, f"/uploads/{one['stored_filename']}").ok
    uploaded(service, photographs.photograph(name="coffee"))


@pytest.fixture
def mountable(disk, tmp_path) -> Iterator[tuple[Path, Callable[[], None], Callable[[], None]]]:
    """A folder, how a file system is mounted there, and how it is taken away under its users."""
    folder = tmp_path / "store"
    folder.mkdir()

    def attach() -> None:
        mount("--bind", str(disk), str(folder))

    def detach() -> None:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)

    yield folder, attach, detach
    if folder.is_mount():
        detach()


def test_E2_nothing_is_written_below_a_mount_that_is_gone(mountable, web_with, up):
    folder, attach, detach = mountable
    attach()
    first = web_with(UPLOAD_FOLDER=str(folder))
    output = first.gunicorn.output
    wait_until(lambda: output().count("web_process_ready") == 2, 60, "that both serve")
    victim, _ = first.workers()
    (one,) = uploaded(first, photographs.photograph())
    url = f"/uploads/{one['stored_filename']}"
    detach()
    for _ in range(3):
        check_507(upload(first, part(photographs.photograph())))
        check_507(upload(first, part(photographs.photograph("bmp", "coffee", None))))
    assert get(first, "/api/health/ready").status_code == 503
    assert get(first, "/api/health").json()["services"]["storage"]["status"] == "unhealthy"
    answer = get(first, url)
    assert answer.status_code == 503
    assert answer.json()["type"] == "urn:clustr:problem:storage_unavailable"
    assert answer.headers["Retry-After"]
    assert total(first) == 1
    victim.kill()  # Another cannot start now, which is no reason to end the rest.
    wait_until(lambda: "clustr: UPLOAD_FOLDER=" in output(), 60, "that it says so")
    assert get(first, "/api/health/ready").status_code == 503
    assert total(first) == 1
    assert names(folder) == set()

    attach()  # It heals without a restart.
    assert get(first, "/api/health/ready").status_code == 200
    assert get(first, url).content == photographs.photograph()
    uploaded(first, photographs.photograph())
    assert first.gunicorn.stop() == 0

    detach()
    second = up(**first.workshop.environment)
    assert second.wait() == 2
    said = f"UPLOAD_FOLDER={folder} has no file .clustr-store, but the database has uploads"
    assert said in second.output().splitlines()[-1]
    assert names(folder) == set()

    attach()
    first.start()
    assert get(first, url).content == photographs.photograph()
    assert total(first) == 2


def test_E2_an_upload_under_way_when_the_mount_goes_leaves_nothing(mountable, web_with):
    folder, attach, detach = mountable
    attach()
    service = web_with(processes=1, UPLOAD_FOLDER=str(folder))
    content = photographs.photograph("bmp", "coffee", None)

    class Slow(io.BytesIO):
        """The mount goes in the middle of what is sent."""

        def read(self, size: int = -1) -> bytes:
            if self.tell() > len(content) // 2 and folder.is_mount():
                detach()
            return super().read(size)

    head = b'--b\r\nContent-Disposition: form-data; name="files"; filename="c.bmp"\r\n\r\n'
    body = Slow(head + content + b"\r\n--b--\r\n")
    answer = requests.post(
        f"{service.url}/api/upload",
        data=iter(lambda: body.read(50_000), b""),
        headers={"Content-Type": "multipart/form-data; boundary=b"},
        timeout=30,
    )
    check_507(answer)
    assert names(folder) == set()
    assert total(service) == 0


def test_E2_a_worker_waits_while_the_store_is_not_mounted(tmp_path, servers):
    with Workshop(tmp_path, servers) as workshop:
        workshop.analyzer("bright", "image.open(); return {}")
        folder, elsewhere = workshop.settings.upload_folder, tmp_path / "elsewhere"
        (upload_id,) = workshop.upload()
        folder.rename(elsewhere)
        refused = workshop.worker()
        assert refused.process.wait(60) == 2
        assert refused.output().splitlines() == [
            f"clustr: UPLOAD_FOLDER={folder} has no file .clustr-store, "
            "but the database has uploads: it looks as if it is not mounted"
        ]

        elsewhere.rename(folder)
        worker = workshop.worker()
        workshop.end_of(upload_id, "bright")
        (later,) = workshop.upload(photographs.unique(number=1))
        workshop.end_of(later, "bright")
        folder.rename(elsewhere)
        folder.mkdir()
        # What comes in elsewhere now waits, instead of failing because its file is not there.
        workshop.collection.update_many({}, {"$set": {"analyses.0.state": "queued"}})
        wait_until(lambda: "analyzer_put_off" in worker.output(), 60, "that it says so")
        worker.children()[0].kill()
        wait_until(lambda: "installation_not_checked" in worker.output(), 60, "that it says so")
        states = {workshop.state_of(each, "bright") for each in (upload_id, later)}
        assert states <= {*UNFINISHED}
        assert names(folder) == set()
        folder.rmdir()
        elsewhere.rename(folder)
        assert workshop.end_of(upload_id, "bright").state == "succeeded"
        assert workshop.end_of(later, "bright").state == "succeeded"


def test_two_processes_that_start_at_once_make_one_store(tmp_path, servers):
    with Workshop(tmp_path, servers, WEB_WORKERS="2") as workshop:
        port = str(programs.free_port())
        web = workshop.run(
            *(
                "-m",
                "gunicorn",
                "-c",
                "python:clustr.supervisor.gunicorn_settings",
                "clustr.app:create_app()",
            ),
            HOST="127.0.0.1",
            PORT=port,
        )
        worker = workshop.worker()
        url = f"http://127.0.0.1:{port}/api/health/ready"

        def serves() -> bool:
            assert web.alive(), web.output()
            try:
                return requests.get(url, timeout=60).ok
            except requests.RequestException:
                return False

        wait_until(serves, 60, "that it serves")
        assert workshop.settings.upload_folder.joinpath(".clustr-store").is_file()
        assert "clustr-store" not in web.output() + worker.output()
