"""The hashes of files that `clustr import` remembers."""

import os
from contextlib import closing
from hashlib import sha256
from pathlib import Path

import pytest

from clustr.client.importing import KnownHashes, Picture, walk

LONG_AGO = (1_700_000_000, 1_700_000_000)


@pytest.fixture
def pictures(tmp_path: Path) -> list[Picture]:
    """Two files that nobody changes any more."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for name in ("one.jpg", "other.jpg"):
        (folder / name).write_text(name)
        os.utime(folder / name, LONG_AGO)
    return [*walk(folder, frozenset(["jpg"]), lambda *_: None)]


def test_imports_beside_each_other_keep_their_hashes(pictures, tmp_path):
    """Without waiting for each other: one that watches a folder goes on for weeks."""
    kept = tmp_path / "hashes.sqlite"
    beside = [KnownHashes(kept) for _ in pictures]
    hashes = [known.hash_of(picture) for known, picture in zip(beside, pictures, strict=True)]
    for known in beside:
        known.close()
    for picture in pictures:
        picture.path.unlink()
    with closing(KnownHashes(kept)) as known:
        assert [known.hash_of(picture) for picture in pictures] == hashes


def test_hashes_that_cannot_be_kept_end_no_import(pictures, tmp_path):
    kept = tmp_path / "hashes.sqlite"
    known = KnownHashes(kept)
    assert known.hash_of(pictures[0]) == sha256(b"one.jpg").hexdigest()
    kept.with_name(f"{kept.name}-journal").mkdir()
    kept.unlink()
    known.close()
    assert not kept.exists()
