"""The folder into which `clustr export` writes: where each original has its place in it."""

import hashlib
import os
import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import BinaryIO

from clustr.client.types import Upload
from clustr.domain.file_names import safe_file_name

# There is room for an id and the ending of a sidecar behind it.
LONGEST_NAME_BYTES = 220
# An import leaves files out that begin with a dot.
TEMPORARY = ".clustr-export-"


class ExportFolder:
    """The places of originals, in a folder for each month; no two have the same one.

    Args:
        extensions: those that files of a format may have, by the one of their `filename`.
    """

    def __init__(self, path: Path, extensions: Mapping[str, Sequence[str]]):
        self._path = path
        self._extensions = extensions
        self._month = path
        # Names of the month in lower case.
        self._taken: set[str] = set()

    def place_of(self, upload: Upload) -> Path | None:
        """Where an original is, or is to be; None when other files have its names.

        Uploads have to come month by month.
        """
        local = datetime.fromisoformat(upload["taken_at_local"] or upload["upload_time"])
        month = self._path / f"{local.year:04}" / f"{local.month:02}"
        if month != self._month:
            self._month, self._taken = month, set()
        true = Path(upload["filename"]).suffix[1:]
        known = self._extensions.get(true, [true])
        name = safe_file_name(upload["original_name"], true, known, LONGEST_NAME_BYTES)
        stem, _, extension = name.rpartition(".")
        with_id = safe_file_name(f"{stem}-{upload['id']}.{extension}", true, known)
        for path in (month / name, month / with_id):
            if path.name.lower() in self._taken:
                continue
            if not os.path.lexists(path) or _is_original(path, upload):
                self._taken.add(path.name.lower())
                return path
        return None


def _is_original(path: Path, upload: Upload) -> bool:
    if not path.is_file() or path.stat().st_size != upload["size"]:
        return False
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() == upload["sha256"]


@contextmanager
def writing_whole(path: Path) -> Iterator[BinaryIO]:
    """A file for the block to write, which gets its name when the block has ended well."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{TEMPORARY}{secrets.token_hex(8)}")
    try:
        with temporary.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
