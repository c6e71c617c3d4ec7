"""Intake: what happens to the files of a request until they are safely stored.

The order is what makes the answer true. A file is received under a temporary name on its final file
system; checked; written to the disk; renamed; its folder written to the disk; then all uploads of
the request are inserted at once, with the analyses to do; then the workers are called. Whoever is
told that an upload exists can rely on it from then on, whatever loses power.
"""

import hashlib
import time
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

from clustr import logs
from clustr.database import Database, new_id, now
from clustr.domain import failure_messages
from clustr.domain.errors import (
    BeingAnswered,
    DatabaseRefused,
    InvalidInput,
    RefusedFile,
    StartUpError,
    StorageFull,
    TooLarge,
)
from clustr.domain.models import Analysis, Retry, State, Upload, status_of
from clustr.imaging import images
from clustr.imaging.images import Format, InspectedImage
from clustr.plugins import Analyzer
from clustr.queue import DoorbellRinger
from clustr.services.default_services import DefaultServices
from clustr.storage import IncomingFile, LocalStorage, writing

log = logs.logger(__name__)

LONGEST_NAME = 255
# Unicode's bidirectional formatting characters (UAX #9). Marks stand for a letter that is not seen,
# which texts with Hebrew or Arabic need; what embeds, overrides or isolates turns text around.
DIRECTION_MARKS = "\u061c\u200e\u200f"
DIRECTION_CHANGES = "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"


@dataclass(frozen=True, slots=True)
class ReceivedFile:
    """A file that arrived, under the name that the client gave it."""

    name: str
    file: IncomingFile


@dataclass(frozen=True, slots=True)
class AcceptedFile:
    """A file that was accepted.

    Attributes:
        index: which file of the request it is, from 0.
        upload: what is answered for it.
        reused: whether that was there already, and the file was not kept.
    """

    index: int
    upload: Upload
    reused: bool


@dataclass(frozen=True, slots=True)
class RejectedFile:
    """A file that was not accepted, and why; without index and name when there is no file.

    Attributes:
        index: which file of the request it is, from 0.
    """

    index: int | None
    original_name: str | None
    error: RefusedFile


@dataclass(frozen=True, slots=True)
class IntakeOptions:
    """What a client can ask for besides.

    Attributes:
        key: the `Idempotency-Key`, by which the request is known when it is sent again.
        reuse: whether an upload with the same bytes is to be answered instead of a new one.
    """

    key: str | None = None
    reuse: bool = False


Checked = tuple[ReceivedFile, InspectedImage]


class Intake:
    """Takes files in.

    Args:
        analyzers: those that there are, each after those that it requires.
        services: knows which of them are not configured, and make no analyses.
        formats: the image formats to accept.
        max_upload_size: bytes of one file at most.
        on_stored: called with every new upload once it is stored; it returns at once.
    """

    def __init__(
        self,
        database: Database,
        storage: LocalStorage,
        ringer: DoorbellRinger,
        analyzers: Mapping[str, Analyzer],
        formats: tuple[Format, ...],
        max_upload_size: int,
        on_stored: Callable[[Upload], None],
        services: DefaultServices,
    ):
        self._database = database
        self._storage = storage
        self._ringer = ringer
        self._analyzers = [a for a in analyzers.values() if a.auto]
        self._formats = formats
        self._services = services
        self._plans: dict[tuple[Format, frozenset[str]], tuple[Analysis, ...]] = {}
        self._max_upload_size = max_upload_size
        self._on_stored = on_stored

    @contextmanager
    def receiving(self) -> Iterator["UploadSession"]:
        """Receive the files of one request; what is not accepted by the end is removed."""
        reception = UploadSession(self._storage, self._max_upload_size)
        try:
            yield reception
        finally:
            reception.close()

    def accept(
        self,
        received: Sequence[ReceivedFile],
        request_id: str,
        options: IntakeOptions = IntakeOptions(),
    ) -> tuple[list[AcceptedFile], list[RejectedFile]]:
        """Store those files that are images and refuse the others, each for its own reason.

        Returns:
            the accepted in the order of their files, and the refused in theirs.

        Raises:
            DatabaseUnavailable, StorageFull: nothing was stored.
            InvalidInput: the key was given to a request with other files before.
            BeingAnswered: the same request is being answered at this moment.
        """
        began = time.perf_counter()
        checked: list[Checked] = []
        refused: list[RejectedFile] = []
        indices: list[int] = []
        for index, item in enumerate(received):
            try:
                checked.append((item, self._check(item.file)))
                indices.append(index)
            except RefusedFile as error:
                refused.append(RejectedFile(index, clean_name(item.name), error))
                cause = (
                    failure_messages.describe_exception(error.__cause__)
                    if error.__cause__
                    else None
                )
                log.info("upload_refused", code=error.code, size=item.file.size, cause=cause)
        retry = Retry(options.key, fingerprint(received), 0) if options.key else None
        stored = self._store(checked, request_id, retry, options.reuse) if checked else []
        duration = round((time.perf_counter() - began) * 1000, 1)
        for upload, reused in stored:
            event = "upload_reused" if reused else "upload_stored"
            log.info(event, upload_id=upload.id, size=upload.size, duration_ms=duration)
        return [AcceptedFile(i, *each) for i, each in zip(indices, stored, strict=True)], refused

    def _check(self, file: IncomingFile) -> InspectedImage:
        if file.too_large:
            most = failure_messages.size_text(self._max_upload_size)
            raise TooLarge(f"The file is larger than {most}, the most that one file may have.")
        with writing():  # It is being stored, and may be gone with the file system it was on.
            return images.inspect(file.content(), self._formats, limit_time=True)

    def _store(
        self, checked: list[Checked], request_id: str, retry: Retry | None, reuse: bool
    ) -> list[tuple[Upload, bool]]:
        """For each file the upload, and whether that was there and the file was not kept."""
        before = self._stored_before(retry) if retry else {}
        hashes = [received.file.sha256 for received, _ in checked]
        known = self._database.uploads.first_uploads_with_bytes(hashes) if reuse else {}
        chosen: list[tuple[Upload, bool]] = []
        new: list[tuple[ReceivedFile, Upload]] = []
        for position, (received, inspected) in enumerate(checked):
            upload = before.get(position) or known.get(received.file.sha256)
            reused = position not in before and upload is not None
            if upload is None:
                upload = self._describe(received, inspected, request_id)
                if retry:
                    upload = replace(upload, retry=replace(retry, position=position))
                new.append((received, upload))
            if reuse:
                known.setdefault(upload.sha256, upload)
            chosen.append((upload, reused))
        added = self._add(new, reuse) if new else {}
        stored = [(added.get(upload.id, upload), upload, reused) for upload, reused in chosen]
        return [(there, reused or there.id != upload.id) for there, upload, reused in stored]

    def _stored_before(self, retry: Retry) -> dict[int, Upload]:
        """What an earlier request with the same key stored, by position; a part of it at worst."""
        stored, trashed = self._database.uploads.of_request(retry.key)
        if any(upload.retry.fingerprint != retry.fingerprint for upload in stored):
            problem = "This key was given to a request with other files; take a new one."
            raise InvalidInput({"Idempotency-Key": [problem]})
        if trashed:  # From now on the key stands for what is stored instead.
            self._database.trash.release(trashed)
        return {upload.retry.position: upload for upload in stored}

    def _add(self, new: list[tuple[ReceivedFile, Upload]], reuse: bool) -> dict[str, Upload]:
        """Store files and uploads.

        Args:
            reuse: whether a file is not to be kept whose bytes another has stored meanwhile.

        Returns:
            by the ids that they have: the uploads as they are stored, or those of others instead.
        """
        uploads = self._database.uploads.ask([upload for _, upload in new])
        self._require_our_store()
        self._storage.keep([(received.file, upload.filename) for received, upload in new])
        try:
            stored = self._database.uploads.add(uploads, reuse)
        except DatabaseRefused:
            # Not when the database is away: it may have stored them all the same.
            self._remove_files(uploads)
            raise
        except BeingAnswered:
            there = self._database.integrity.filenames([upload.id for upload in uploads])
            self._remove_files([upload for upload in uploads if upload.filename not in there])
            raise
        added = {upload.id: there for upload, there in zip(uploads, stored, strict=True)}
        self._remove_files([upload for upload in uploads if added[upload.id].id != upload.id])
        mine = [there for upload_id, there in added.items() if there.id == upload_id]
        self._ring(mine)
        for upload in mine:
            self._on_stored(upload)
        return added

    def _require_our_store(self) -> None:
        """See that the store is this installation's, where MongoDB was away at the start.

        Raises:
            DatabaseUnavailable: MongoDB still does not answer.
            StorageFull: it is another's; the log says what to do about it.
        """
        try:
            self._storage.claim(self._database.installation)
        except StartUpError as error:
            log.error("upload_folder_not_ours", reason=str(error))
            raise StorageFull from error

    def _remove_files(self, uploads: Sequence[Upload]) -> None:
        for upload in uploads:
            self._storage.remove(upload.filename)

    def _describe(
        self, received: ReceivedFile, inspected: InspectedImage, request_id: str
    ) -> Upload:
        upload_id, moment = new_id(), now()
        analyses = self._planned(inspected.format)
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
        )

    def _planned(self, format: Format) -> tuple[Analysis, ...]:
        """The analyses of a new upload in this format."""
        without = self._services.not_configured
        if (format, without) not in self._plans:
            self._plans[format, without] = tuple(self._plan(format, without))
        return self._plans[format, without]

    def _plan(self, format: Format, without: frozenset[str]) -> Iterator[Analysis]:
        """Make its analyses, those that need no analyzer's run, too."""
        hopeful: set[str] = set()
        for analyzer in self._analyzers:
            if analyzer.name in without:
                continue
            state, error = State.WAITING if analyzer.requires else State.QUEUED, None
            missing = [name for name in analyzer.requires if name not in hopeful]
            if analyzer.formats and format.content_type not in analyzer.formats:
                state, error = State.SKIPPED, f"does not look at {format.content_type}"
            elif missing:  # It does not look at this format, either, or not at every upload.
                state, error = State.SKIPPED, f"requires {missing[0]}"
            else:
                hopeful.add(analyzer.name)
            requires = tuple(analyzer.requires)
            yield Analysis(analyzer.name, analyzer.version, state, error=error, requires=requires)

    def _ring(self, uploads: list[Upload]) -> None:
        waiting = {a.name for u in uploads for a in u.analyses if a.state is State.QUEUED}
        self._ringer.ring(a for a in self._analyzers if a.name in waiting)


class UploadSession:
    """The files of one request while they arrive."""

    def __init__(self, storage: LocalStorage, max_bytes: int):
        self._storage = storage
        self._max_bytes = max_bytes
        self._files: list[IncomingFile] = []

    def open(self) -> IncomingFile:
        """Open the next file."""
        file = self._storage.receive(self._max_bytes)
        self._files.append(file)
        return file

    def close(self) -> None:
        for file in self._files:
            file.close()


def fingerprint(received: Sequence[ReceivedFile]) -> str:
    """By what a request is known to have the same files as another, in the same order."""
    # Of a file that is too large not everything was hashed.
    lines = [
        f"{item.file.size} {'' if item.file.too_large else item.file.sha256} {item.name}"
        for item in received
    ]
    return hashlib.sha256("\n".join(lines).encode("utf-8", "surrogatepass")).hexdigest()


def clean_name(name: str) -> str:
    """A client's file name as data: no folders, control or direction characters, 255 at most.

    Direction marks go, too: they can make a name look like another.
    """
    last = name.replace("\\", "/").rsplit("/", 1)[-1]
    return _without(DIRECTION_MARKS + DIRECTION_CHANGES, last)[:LONGEST_NAME] or "unnamed"


def clean_text(text: str) -> str:
    """What a human wrote as data: one line, no control characters, nothing that turns text around.

    What is not seen itself, such as joiners and direction marks, stays beside what is.
    """
    cleaned = _without(DIRECTION_CHANGES, " ".join(text.split()))
    return "" if all(unicodedata.category(c) == "Cf" for c in cleaned) else cleaned


def _without(dropped: str, text: str) -> str:
    kept = (c for c in text if unicodedata.category(c) not in ("Cc", "Cs") and c not in dropped)
    return unicodedata.normalize("NFC", "".join(kept)).strip()
