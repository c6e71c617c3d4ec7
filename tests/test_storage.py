"""The folder of originals: when it is one, and what happens while it is full or not mounted."""

import io
import os
import stat
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path

import photographs
import pytest
import requests
import traces
from calling import get, part, upload, uploaded
from running import Servers, wait_until
from web_side import WebSide
from workshop import Workshop

from clustr.domain.errors import (
    DatabaseUnavailable,
    NotFound,
    StartUpError,
    StorageFull,
    StorageUnavailable,
)
from clustr.storage import LocalStorage, is_world_readable
from clustr.supervisor import servers as programs

PROBLEM = "application/problem+json"
NAME = "692192f4e13f5a0c4d1b7a90.jpg"


def in_use() -> bool:
    return True


def not_in_use() -> bool:
    return False


def nobody_answers() -> bool:
    raise DatabaseUnavailable


def never_asked() -> bool:
    raise AssertionError


@pytest.fixture
def storage(tmp_path) -> LocalStorage:
    """A new store in the folder `store`."""
    made = LocalStorage(tmp_path / "store")
    made.prepare(not_in_use)
    return made


def keep(storage: LocalStorage, content: bytes = b"content", filename: str = NAME) -> None:
    incoming = storage.receive(max_bytes=1000)
    try:
        incoming.write(content)
        storage.keep([(incoming, filename)])
    finally:
        incoming.close()


def names(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


# The marker


def test_a_new_store_is_made(tmp_path):
    folder = tmp_path / "some" / "folder"
    storage = LocalStorage(folder)
    storage.prepare(not_in_use)
    assert storage.is_there()
    assert names(folder) == {".clustr-store", ".incoming"}
    assert "leave it where it is" in (folder / ".clustr-store").read_text()


def test_a_folder_with_files_becomes_a_store_too(tmp_path):
    (tmp_path / "notes.txt").touch()
    LocalStorage(tmp_path).prepare(not_in_use)
    assert names(tmp_path) == {".clustr-store", ".incoming", "notes.txt"}


def test_with_the_marker_no_database_is_needed(storage, tmp_path):
    (tmp_path / "store" / ".incoming").rmdir()  # as after a copy without empty folders
    LocalStorage(tmp_path / "store").prepare(never_asked)
    keep(storage)


@pytest.mark.parametrize(
    ("ask", "said"),
    [
        (in_use, "but the database has uploads: it looks as if it is not mounted"),
        (nobody_answers, "while MongoDB does not answer it cannot be told whether it is new"),
    ],
)
@pytest.mark.parametrize("exists", [True, False])
def test_without_the_marker_nothing_is_written_unless_the_store_is_new(tmp_path, ask, said, exists):
    folder = tmp_path / "store"
    if exists:
        folder.mkdir()
    with pytest.raises(StartUpError) as caught:
        LocalStorage(folder).prepare(ask)
    assert str(caught.value).startswith(f"UPLOAD_FOLDER={folder} has no file .clustr-store")
    assert said in str(caught.value)
    assert names(tmp_path) == ({"store"} if exists else set())


def test_a_store_that_another_process_makes_meanwhile_is_one(tmp_path):
    """It may have taken uploads in before this process has asked whether there are any."""

    def made_meanwhile() -> bool:
        LocalStorage(tmp_path).prepare(not_in_use)
        return True

    LocalStorage(tmp_path).prepare(made_meanwhile)


def test_a_folder_that_cannot_be_made_is_said(tmp_path):
    (tmp_path / "a file").touch()
    folder = tmp_path / "a file" / "below"
    with pytest.raises(StartUpError, match=r"UPLOAD_FOLDER: cannot write to .*: Not a directory"):
        LocalStorage(folder).prepare(not_in_use)


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


# A store that goes away


@pytest.fixture
def lost(storage, tmp_path) -> LocalStorage:
    """A store with one file, whose folder is another one by now."""
    keep(storage)
    (tmp_path / "store").rename(tmp_path / "elsewhere")
    (tmp_path / "store").mkdir()
    return storage


def test_nothing_is_written_into_a_store_that_went_away(storage, tmp_path):
    incoming = storage.receive(max_bytes=1000)
    incoming.write(b"content")
    (tmp_path / "store").rename(tmp_path / "elsewhere")
    (tmp_path / "store" / ".incoming").mkdir(parents=True)  # even if it looks so for a moment
    (tmp_path / "store" / ".incoming" / incoming.path.name).write_bytes(b"content")
    with pytest.raises(StorageFull):
        storage.keep([(incoming, NAME)])
    incoming.close()
    assert names(tmp_path / "store") == {".incoming"}


def test_a_store_that_went_away_says_so_to_everybody(lost, tmp_path):
    for ask in (lambda: lost.receive(1000), lost.check, lambda: lost.quarantine(NAME, "corrupt")):
        with pytest.raises(StorageFull):
            ask()
    # The file is there, only not here: that is no reason to say that there is none.
    for read in (lambda: lost.open(NAME), lambda: lost.clean(datetime.now(UTC))):
        with pytest.raises(StorageUnavailable):
            read()
    assert not lost.is_there()
    assert names(tmp_path / "store") == set()


def test_a_file_that_is_not_there_is_not_found(storage):
    with pytest.raises(NotFound):
        storage.open(NAME)


@pytest.mark.parametrize("umask", [0o000, 0o077])
def test_a_store_that_is_made_is_for_its_owner_and_group_whatever_the_umask_is(tmp_path, umask):
    before = os.umask(umask)
    try:
        storage = LocalStorage(tmp_path / "store")
        storage.prepare(not_in_use)
        assert modes_of_all(storage, tmp_path / "store") == ({0o750}, {0o640})
    finally:
        os.umask(before)


@pytest.mark.parametrize(
    ("mode", "folders", "files"),
    [(0o700, 0o700, 0o600), (0o755, 0o755, 0o644), (0o777, 0o755, 0o644), (0o2770, 0o750, 0o640)],
)
def test_in_a_folder_that_was_there_everything_is_as_readable_as_that(
    tmp_path, mode, folders, files
):
    (tmp_path / "store").mkdir()
    (tmp_path / "store").chmod(mode)
    storage = LocalStorage(tmp_path / "store")
    storage.prepare(not_in_use)
    assert stat.S_IMODE((tmp_path / "store").stat().st_mode) == mode
    found, of_files = modes_of_all(storage, tmp_path / "store")
    assert found - {mode} == {folders} - {mode}
    assert of_files == {files}


def modes_of_all(storage: LocalStorage, folder: Path) -> tuple[set[int], set[int]]:
    """The modes of the folders and of the files in a store in which everything has happened."""
    other = f"{NAME[:4]}{'0' * 20}.jpg"
    for filename in (NAME, other, f"{'1' * 24}.jpg"):
        keep(storage, filename=filename)
    key = storage.thumbnails.key(NAME[:24], "64-v1.jpg")
    with storage.thumbnails.making(key, [key], seconds=1):
        assert storage.thumbnails.store(key, NAME, b"thumbnail")
    storage.trash.put(other)
    assert storage.quarantine(storage.key(f"{'1' * 24}.jpg"), "corrupt")
    everything = [folder, *folder.rglob("*")]
    assert len(everything) > 15
    kept = [path for path in everything if not path.name.startswith("lock-")]
    folders = {stat.S_IMODE(path.stat().st_mode) for path in kept if path.is_dir()}
    return folders, {stat.S_IMODE(path.stat().st_mode) for path in kept if path.is_file()}


def test_what_every_account_can_read_is_told_from_what_is_behind_a_closed_door(tmp_path):
    closed, open_ = tmp_path / "closed", tmp_path / "open"
    for folder, mode in ((closed, 0o700), (open_, 0o755)):
        (folder / "store").mkdir(parents=True)
        (folder / "store").chmod(0o755)
        folder.chmod(mode)
    above = {path: path.stat().st_mode for path in (tmp_path, *tmp_path.parents)}
    try:
        for path, mode in above.items():
            if not mode & 0o001:
                path.chmod(mode | 0o001)
        assert is_world_readable(open_ / "store")
        assert not is_world_readable(closed / "store")
        (open_ / "store").chmod(0o750)
        assert not is_world_readable(open_ / "store")
    finally:
        for path, mode in above.items():
            if path.stat().st_mode != mode:
                path.chmod(mode)


def test_clean_removes_what_is_old_and_nothing_else(storage, tmp_path):
    incoming = tmp_path / "store" / ".incoming"
    for name, hours in {"old": 2, "young": 0.5}.items():
        (incoming / name).touch()
        then = time.time() - hours * 3600
        os.utime(incoming / name, (then, then))
    (incoming / "folder").mkdir()
    os.utime(incoming / "folder", (0, 0))
    assert storage.clean(datetime.now(UTC) - timedelta(hours=1)) == 1
    assert names(incoming) == {"young", "folder"}


# The service


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


@pytest.fixture
def web_with(tmp_path: Path, servers: Servers) -> Iterator[Callable[..., WebSide]]:
    """Starts a web side that keeps originals in a folder."""
    with ExitStack() as started:

        def start(folder: Path, processes: int) -> WebSide:
            workshop = Workshop(tmp_path, servers, UPLOAD_FOLDER=str(folder))
            return WebSide(started.enter_context(workshop), processes)

        yield start


def test_E1_a_full_disk_is_507_and_leaves_nothing(disk, web_with):
    folder, filler = disk / "uploads", disk / "filler"
    service = web_with(folder, processes=2)
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
    wait_until(lambda: get(service, "/api/health/ready").status_code == 503, 10, "not ready")
    assert get(service, "/api/health/storage").json()["status"] == "unhealthy"
    for name, sent in stored.items():
        assert get(service, f"/uploads/{name}").content == sent
    assert total(service) == 3

    for process in service.workers():  # Others start all the same.
        process.kill()
    wait_until(lambda: len(service.workers()) == 2, 20, "other processes")
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
def one_process(tmp_path_factory, servers) -> Iterator[WebSide]:
    """A service with one web process."""
    with Workshop(tmp_path_factory.mktemp("one"), servers) as workshop:
        yield WebSide(workshop)


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
    first = web_with(folder, processes=2)
    output = first.gunicorn.output
    wait_until(lambda: output().count("web_process_ready") == 2, 20, "that both serve")
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
    wait_until(lambda: "clustr: UPLOAD_FOLDER=" in output(), 20, "that it says so")
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
    service = web_with(folder, processes=1)
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
        assert refused.process.wait(20) == 2
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
        wait_until(lambda: "analyzer_put_off" in worker.output(), 20, "that it says so")
        worker.children()[0].kill()
        wait_until(lambda: "installation_not_checked" in worker.output(), 20, "that it says so")
        states = {workshop.state_of(each, "bright") for each in (upload_id, later)}
        assert states <= {"queued", "deferred"}
        assert names(folder) == set()
        folder.rmdir()
        elsewhere.rename(folder)
        assert workshop.end_of(upload_id, "bright", seconds=40).state == "succeeded"
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
                return requests.get(url, timeout=5).ok
            except requests.RequestException:
                return False

        wait_until(serves, 60, "that it serves")
        assert workshop.settings.upload_folder.joinpath(".clustr-store").is_file()
        assert "clustr-store" not in web.output() + worker.output()
