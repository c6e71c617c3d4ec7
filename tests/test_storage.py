"""The folder of originals: when it is one, and what is kept in it."""

import os
import stat
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from failing import fail_once
from originals import NAME, keep, names, never_asked, not_in_use

from clustr.domain.errors import (
    DatabaseUnavailable,
    NotFound,
    StartUpError,
    StorageFull,
    StorageUnavailable,
)
from clustr.storage import LocalStorage, is_world_readable

PROBLEM = "application/problem+json"


def in_use() -> bool:
    return True


def nobody_answers() -> bool:
    raise DatabaseUnavailable


@pytest.fixture
def storage(tmp_path) -> LocalStorage:
    """A new store in the folder `store`."""
    made = LocalStorage(tmp_path / "store")
    made.prepare(not_in_use)
    return made


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
        assert storage.thumbnails.store(key, NAME, [b"thumbnail"])
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


def test_a_temporary_file_that_stays_keeps_no_other_from_being_removed(
    storage, tmp_path, monkeypatch
):
    incoming = tmp_path / "store" / ".incoming"
    for name in "abc":
        (incoming / name).touch()
        os.utime(incoming / name, (0, 0))
    fail_once(monkeypatch, Path, "unlink", PermissionError)
    assert storage.clean(datetime.now(UTC)) == 2
    assert len(names(incoming)) == 1


def test_the_folder_of_what_is_received_is_made_again(storage, tmp_path):
    incoming = tmp_path / "store" / ".incoming"
    incoming.rmdir()
    assert storage.clean(datetime.now(UTC)) == 0
    for use in (
        storage.check,
        lambda: keep(storage),
        lambda: storage.thumbnails.store(storage.thumbnails.key(NAME[:24], "s.webp"), NAME, []),
    ):
        use()
        assert incoming.is_dir()
        incoming.rmdir()
    assert storage.has(NAME)
