"""`clustr export`: gives originals back, with what is said of them in sidecars, over HTTP alone."""

import hashlib
import os
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta, timezone
from enum import StrEnum
from pathlib import Path
from typing import Any

from clustr.client.client import Client
from clustr.client.errors import ApiError
from clustr.client.importing.progress import Progress
from clustr.client.importing.words import Words
from clustr.client.importing.xmp import is_own, write_xmp
from clustr.client.types import Upload
from clustr.domain.file_names import safe_file_name

FIELDS = "original_name,filename,sha256,size,caption,tags,taken_at,taken_at_local,upload_time"
LIGHT_PAGE = 1000
# There is room for an id and the ending of a sidecar behind it.
LONGEST_NAME_BYTES = 220
SIDECAR = ".xmp"
# An import leaves files out that begin with a dot.
TEMPORARY = ".clustr-export-"
NOT_FOUND = ("not_found", "in_trash")
UNAUTHORIZED, FORBIDDEN = 401, 403


class Outcome(StrEnum):
    """What can come of an upload, in the words of the table."""

    WRITTEN = "written"
    MISSING = "would be written"
    PRESENT = "there already"
    VANISHED = "removed meanwhile"
    REFUSED = "not written"
    FOREIGN_SIDECAR = "sidecars of other programs, kept"


class NoClustr(Exception):
    """What answers is no Clustr."""

    def __init__(self) -> None:
        super().__init__("what answers there is no Clustr that this command can use")


# Is told of an upload that is not written, by its id and name, and why.
Note = Callable[[Outcome, str, str], None]


class Exporter:
    """Writes originals into a folder, one after the other.

    Nothing that somebody else has written there is changed.

    Args:
        note: is told of what needs attention.

    Attributes:
        counts: how many uploads came to each outcome.
    """

    def __init__(
        self, client: Client, folder: Path, progress: Progress, note: Note, is_dry_run: bool
    ):
        self._client = client
        self._folder = folder
        self._progress = progress
        self._note = note
        self._is_dry_run = is_dry_run
        self._month = folder
        # Names of the month in lower case; the listing goes from month to month.
        self._taken: set[str] = set()
        self.counts: Counter[Outcome] = Counter()

    def run(self, filters: Mapping[str, str]) -> None:
        """Export the uploads that meet the filters of `GET /api/uploads`.

        Raises:
            ApiError: the service refuses it.
            requests.RequestException: the service cannot be reached.
            OSError: the folder cannot be written to.
            NoClustr: what answers is something else.
        """
        try:
            formats = [format["extensions"] for format in self._client.limits()["formats"]]
        except (LookupError, TypeError) as error:
            raise NoClustr from error
        extensions = {extensions[0]: extensions for extensions in formats}
        light: dict[str, Any] = {"fields": "size", "limit": LIGHT_PAGE}
        for upload in self._client.uploads(**filters, **light):
            self._progress.expect(1, upload["size"])
        for upload in self._client.uploads(**filters, fields=FIELDS, sort="-date"):
            self.counts[self._export(upload, extensions)] += 1
            self._progress.add_files(1)
            self._progress.add_bytes(upload["size"])

    def _export(self, upload: Upload, extensions: Mapping[str, list[str]]) -> Outcome:
        path = self._place(upload, extensions)
        if path is None:
            return self._refuse(upload, "other files have its names")
        is_there = path.exists()
        if self._is_dry_run:
            return Outcome.PRESENT if is_there else Outcome.MISSING
        if not is_there:
            try:
                content = self._client.original(upload["id"])
            except ApiError as error:
                if error.code in NOT_FOUND and self._is_gone(upload["id"]):
                    return self._say(Outcome.VANISHED, upload, error.detail)
                if error.is_temporary or error.status in (UNAUTHORIZED, FORBIDDEN):
                    raise
                return self._refuse(upload, str(error))
            if hashlib.sha256(content).hexdigest() != upload["sha256"]:
                return self._refuse(
                    upload,
                    "what the service sends is not the original: where FILES_METADATA takes "
                    "metadata away, a key with the scope files:read gets all of it",
                )
            _write(path, content)
        self._write_sidecar(path.with_name(path.name + SIDECAR), words_of(upload))
        return Outcome.PRESENT if is_there else Outcome.WRITTEN

    def _is_gone(self, upload_id: str) -> bool:
        """Whether there is no such upload; of one that is there, the file may be missing."""
        try:
            self._client.get(upload_id)
        except ApiError as error:
            return error.code in NOT_FOUND
        return False

    def _place(self, upload: Upload, extensions: Mapping[str, list[str]]) -> Path | None:
        """Where an upload is, or is to be; None when other files have its names."""
        local = datetime.fromisoformat(upload["taken_at_local"] or upload["upload_time"])
        month = self._folder / f"{local.year:04}" / f"{local.month:02}"
        if month != self._month:
            self._month, self._taken = month, set()
        true = Path(upload["filename"]).suffix[1:]
        known = extensions.get(true, [true])
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

    def _write_sidecar(self, path: Path, words: Words) -> None:
        content = write_xmp(words)
        before = path.read_bytes() if path.exists() else None
        if before is not None and not is_own(before):
            self.counts[Outcome.FOREIGN_SIDECAR] += 1
        elif before != content:
            _write(path, content)

    def _refuse(self, upload: Upload, why: str) -> Outcome:
        return self._say(Outcome.REFUSED, upload, why)

    def _say(self, outcome: Outcome, upload: Upload, why: str) -> Outcome:
        self._note(outcome, f"{upload['id']} ({upload['original_name']})", why)
        return outcome


def words_of(upload: Upload) -> Words:
    """What is said of an upload, with the time of the clock where it was taken."""
    taken_at = ""
    if upload["taken_at"]:
        moment = datetime.fromisoformat(upload["taken_at"])
        local = datetime.fromisoformat(upload["taken_at_local"] or upload["taken_at"])
        local = local.replace(tzinfo=UTC)
        offset = local - moment
        # What is no offset of a time zone cannot be written as one.
        if abs(offset) < timedelta(days=1) and not offset % timedelta(minutes=1):
            moment = local.replace(tzinfo=timezone(offset))
        taken_at = moment.isoformat()
    return Words(upload["caption"] or "", tuple(upload["tags"]), taken_at)


def _is_original(path: Path, upload: Upload) -> bool:
    if not path.is_file() or path.stat().st_size != upload["size"]:
        return False
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() == upload["sha256"]


def _write(path: Path, content: bytes) -> None:
    """Write a file as a whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(prefix=TEMPORARY, dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
