"""`clustr export`: gives originals back, with what is said of them in sidecars, over HTTP alone."""

import hashlib
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from enum import StrEnum
from pathlib import Path
from typing import Any

from clustr.client.client import Client
from clustr.client.errors import ApiError
from clustr.client.export_folder import ExportFolder, writing_whole
from clustr.client.importing.errors import Interrupted
from clustr.client.importing.progress import Progress
from clustr.client.importing.pulling import done_by
from clustr.client.importing.words import Words
from clustr.client.importing.xmp import is_own, write_xmp
from clustr.client.types import Upload

FIELDS = "original_name,filename,sha256,size,caption,tags,taken_at,taken_at_local,upload_time"
LIGHT_PAGE = 1000
SIDECAR = ".xmp"
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


class NoOriginal(Exception):
    """The service sends something else than the original."""

    def __init__(self) -> None:
        super().__init__(
            "what the service sends is not the original: where FILES_METADATA takes metadata away, "
            "a key with the scope files:read gets all of it"
        )


@dataclass(frozen=True, slots=True)
class Result:
    """What came of an upload.

    Attributes:
        why: what needs attention; empty when nothing does.
        kept_sidecar: whether a sidecar of another program is there, and was left as it is.
    """

    upload: Upload
    outcome: Outcome
    why: str = ""
    kept_sidecar: bool = False


# Is told of an upload that is not written, by its id and name, and why.
Note = Callable[[Outcome, str, str], None]


class Exporter:
    """Writes originals into a folder, several at once.

    Nothing that somebody else has written there is changed.

    Args:
        connect: makes a client of the service; each thread has its own.
        note: is told of what needs attention.
        connections: how many originals are fetched at once.
        is_dry_run: whether to write nothing, and only to say what would be.

    Attributes:
        counts: how many uploads came to each outcome.
    """

    def __init__(
        self,
        connect: Callable[[], Client],
        folder: Path,
        progress: Progress,
        note: Note,
        connections: int,
        is_dry_run: bool,
    ):
        self._connect = connect
        self._folder = folder
        self._progress = progress
        self._note = note
        self._connections = connections
        self._is_dry_run = is_dry_run
        self._stopping = threading.Event()
        self._clients = ExitStack()
        self._client = self._clients.enter_context(connect())
        self._own = threading.local()
        self._fetching = ThreadPoolExecutor(connections, "fetch", self._connect_thread)
        self.counts: Counter[Outcome] = Counter()

    def _connect_thread(self) -> None:
        self._own.client = self._clients.enter_context(self._connect())

    def __enter__(self) -> "Exporter":
        return self

    def __exit__(self, *_: object) -> None:
        """End; what is being fetched is broken off if something went wrong."""
        self._stopping.set()
        self._fetching.shutdown(cancel_futures=True)
        self._clients.close()

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
        folder = ExportFolder(self._folder, {extensions[0]: extensions for extensions in formats})
        light: dict[str, Any] = {"fields": "size", "limit": LIGHT_PAGE}
        for upload in self._client.uploads(**filters, **light):
            self._progress.expect(1, upload["size"])
        uploads = self._client.uploads(**filters, fields=FIELDS, sort="-date")
        placed = ((upload, folder.place_of(upload)) for upload in uploads)
        for result in done_by(self._fetching, self._export, placed, self._connections):
            self._record(result)

    def _record(self, result: Result) -> None:
        upload = result.upload
        self.counts[result.outcome] += 1
        if result.kept_sidecar:
            self.counts[Outcome.FOREIGN_SIDECAR] += 1
        if result.why:
            name = f"{upload['id']} ({upload['original_name']})"
            self._note(result.outcome, name, result.why)
        self._progress.add_files(1)
        self._progress.add_bytes(upload["size"])

    def _export(self, placed: tuple[Upload, Path | None]) -> Result:
        upload, path = placed
        if path is None:
            return Result(upload, Outcome.REFUSED, "other files have its names")
        is_there = path.exists()
        if self._is_dry_run:
            return Result(upload, Outcome.PRESENT if is_there else Outcome.MISSING)
        if not is_there:
            try:
                self._fetch(upload, path)
            except ApiError as error:
                if error.code in NOT_FOUND and self._is_gone(upload["id"]):
                    return Result(upload, Outcome.VANISHED, error.detail)
                if error.is_temporary or error.status in (UNAUTHORIZED, FORBIDDEN):
                    raise
                return Result(upload, Outcome.REFUSED, str(error))
            except NoOriginal as error:
                return Result(upload, Outcome.REFUSED, str(error))
        is_kept = not write_sidecar(path.with_name(path.name + SIDECAR), words_of(upload))
        return Result(
            upload, Outcome.PRESENT if is_there else Outcome.WRITTEN, kept_sidecar=is_kept
        )

    def _fetch(self, upload: Upload, path: Path) -> None:
        def write(pieces: Iterator[bytes]) -> None:
            digest = hashlib.sha256()
            with writing_whole(path) as file:
                for piece in pieces:
                    if self._stopping.is_set():
                        raise Interrupted
                    digest.update(piece)
                    file.write(piece)
                if digest.hexdigest() != upload["sha256"]:
                    raise NoOriginal

        self._own.client.read_original(upload["id"], write)

    def _is_gone(self, upload_id: str) -> bool:
        """Whether there is no such upload; of one that is there, the file may be missing."""
        try:
            self._own.client.get(upload_id)
        except ApiError as error:
            return error.code in NOT_FOUND
        return False


def write_sidecar(path: Path, words: Words) -> bool:
    """Write a sidecar, unless it is there; False when one is that another program has written."""
    content = write_xmp(words)
    before = path.read_bytes() if path.exists() else None
    if before is not None and not is_own(before):
        return False
    if before != content:
        with writing_whole(path) as file:
            file.write(content)
    return True


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
