"""Intake: what happens to the files of a request until they are safely stored.

The order is what makes the answer true. A file is received under a temporary name on its final file
system; checked; written to the disk; renamed; its folder written to the disk; then all uploads of
the request are inserted at once, with the analyses to do; then the workers are called. Whoever is
told that an upload exists can rely on it from then on, whatever loses power.
"""

import time
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from clustr import images, logs
from clustr.catalog import Catalog, new_id, now
from clustr.errors import QueueUnavailable, RefusedFile, TooLarge
from clustr.images import Format, Inspected
from clustr.plugins import Analyzer
from clustr.queue import Queue
from clustr.storage import Incoming, LocalStorage
from clustr.upload import Analysis, State, Upload, status_of

log = logs.logger(__name__)

LONGEST_NAME = 255
# Unicode's bidirectional formatting characters: they can make a name look like another.
DIRECTIONS = "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"


@dataclass(frozen=True, slots=True)
class Received:
    """A file that arrived, under the name that the client gave it."""

    name: str
    file: Incoming


@dataclass(frozen=True, slots=True)
class Refused:
    """A file that was not accepted, and why."""

    original_name: str
    error: RefusedFile


class Intake:
    """Takes files in.

    Args:
        analyzers: those that look at every new upload.
        formats: the image formats to accept.
        max_upload_size: bytes of one file at most.
    """

    def __init__(
        self,
        catalog: Catalog,
        storage: LocalStorage,
        queue: Queue,
        analyzers: Mapping[str, Analyzer],
        formats: tuple[Format, ...],
        max_upload_size: int,
    ):
        self._catalog = catalog
        self._storage = storage
        self._queue = queue
        self._analyzers = [a for a in analyzers.values() if a.auto]
        self._formats = formats
        self._max_upload_size = max_upload_size

    @contextmanager
    def receiving(self) -> Iterator["Reception"]:
        """Receive the files of one request; what is not accepted by the end is removed."""
        reception = Reception(self._storage, self._max_upload_size)
        try:
            yield reception
        finally:
            reception.close()

    def accept(
        self, received: Sequence[Received], request_id: str
    ) -> tuple[list[Upload], list[Refused]]:
        """Store those files that are images and refuse the others, each for its own reason.

        Raises:
            DatabaseUnavailable, StorageFull, StorageUnavailable: nothing was stored.
        """
        began = time.perf_counter()
        accepted: list[tuple[Received, Inspected]] = []
        refused: list[Refused] = []
        for item in received:
            try:
                accepted.append((item, self._check(item.file)))
            except RefusedFile as error:
                refused.append(Refused(clean_name(item.name), error))
                log.info("upload_refused", code=error.code, size=item.file.size)
        uploads = self._store(accepted, request_id) if accepted else []
        duration = round((time.perf_counter() - began) * 1000, 1)
        for upload in uploads:
            log.info("upload_stored", upload_id=upload.id, size=upload.size, duration_ms=duration)
        return uploads, refused

    def _check(self, file: Incoming) -> Inspected:
        if file.too_large:
            raise TooLarge(f"The file is larger than {self._max_upload_size} bytes.")
        return images.inspect(file.path, self._formats)

    def _store(self, accepted: list[tuple[Received, Inspected]], request_id: str) -> list[Upload]:
        firsts = self._catalog.uploads.first_with_bytes([r.file.sha256 for r, _ in accepted])
        uploads = []
        for received, inspected in accepted:
            upload = self._describe(received, inspected, firsts, request_id)
            firsts.setdefault(upload.sha256, upload.id)
            uploads.append(upload)
        self._storage.keep(
            [(r.file, u.filename) for (r, _), u in zip(accepted, uploads, strict=True)]
        )
        # When this fails, MongoDB may have stored them all the same, so the files stay.
        self._catalog.uploads.add(uploads)
        self._ring(uploads)
        return uploads

    def _describe(
        self,
        received: Received,
        inspected: Inspected,
        firsts: Mapping[str, str],
        request_id: str,
    ) -> Upload:
        upload_id, moment = new_id(), now()
        analyses = tuple(self._plan(inspected.format))
        return Upload(
            id=upload_id,
            original_name=clean_name(received.name),
            filename=f"{upload_id}.{inspected.format.extension}",
            upload_time=moment,
            updated_at=moment,
            size=received.file.size,
            content_type=inspected.format.content_type,
            sha256=received.file.sha256,
            width=inspected.width,
            height=inspected.height,
            status=status_of([analysis.state for analysis in analyses]),
            analyses=analyses,
            request_id=request_id,
            duplicate_of=firsts.get(received.file.sha256),
        )

    def _plan(self, format: Format) -> Iterator[Analysis]:
        for analyzer in self._analyzers:
            if analyzer.formats and format.content_type not in analyzer.formats:
                error = f"does not look at {format.content_type}"
                yield Analysis(analyzer.name, analyzer.version, State.SKIPPED, error=error)
            else:
                yield Analysis(analyzer.name, analyzer.version, State.QUEUED)

    def _ring(self, uploads: list[Upload]) -> None:
        waiting = {a.name for u in uploads for a in u.analyses if a.state is State.QUEUED}
        try:
            self._queue.ring([a for a in self._analyzers if a.name in waiting])
        except QueueUnavailable:
            log.warning("bell_not_rung", uploads=[upload.id for upload in uploads])


class Reception:
    """The files of one request while they arrive."""

    def __init__(self, storage: LocalStorage, max_bytes: int):
        self._storage = storage
        self._max_bytes = max_bytes
        self._files: list[Incoming] = []

    def open(self) -> Incoming:
        """Open the next file."""
        file = self._storage.receive(self._max_bytes)
        self._files.append(file)
        return file

    def close(self) -> None:
        for file in self._files:
            file.close()


def clean_name(name: str) -> str:
    """A client's file name as data: no folders, control or direction characters, 255 at most."""
    last = name.replace("\\", "/").rsplit("/", 1)[-1]
    kept = (c for c in last if unicodedata.category(c) not in ("Cc", "Cs") and c not in DIRECTIONS)
    return unicodedata.normalize("NFC", "".join(kept)).strip()[:LONGEST_NAME] or "unnamed"
