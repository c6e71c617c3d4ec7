"""Intake: what happens to the files of a request until they are safely stored.

The order guarantees that an upload in an answer survives a loss of power. A file is received under
a temporary name on its final file system, checked, synced and renamed, and its folder is synced.
Then all uploads of the request are inserted at once, with their queued analyses. Then workers are
notified.
"""

import hashlib
import time
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from clustr import logs
from clustr.database import DatabaseView, new_id, now
from clustr.domain import failure_messages
from clustr.domain.edits import Edit
from clustr.domain.errors import (
    BeingAnswered,
    DatabaseRefused,
    InvalidInput,
    RefusedFile,
    StartUpError,
    StorageFull,
    TooLarge,
)
from clustr.domain.models import Analysis, NewUpload, Retry, State, Upload, status_of
from clustr.imaging import images
from clustr.imaging.formats import Format
from clustr.imaging.images import InspectedImage
from clustr.plugins import Analyzer
from clustr.queue import DoorbellRinger
from clustr.services.default_services import DefaultServices
from clustr.services.earlier_uploads import EarlierUploads
from clustr.storage import IncomingFile, LocalStorage, writing

log = logs.logger(__name__)

LONGEST_NAME = 255
# Unicode's bidirectional formatting characters (UAX #9). Marks stand for a letter that is not seen,
# which texts with Hebrew or Arabic need; what embeds, overrides or isolates turns text around.
DIRECTION_MARKS = "\u061c\u200e\u200f"
DIRECTION_CHANGES = "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"


@dataclass(frozen=True, slots=True)
class ReceivedFile:
    """A file that arrived, under the name that the client gave it, and what it says of it."""

    name: str
    file: IncomingFile
    edit: Edit = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class AcceptedFile:
    """A file that was accepted.

    Attributes:
        index: which file of the request it is, from 0.
        upload: the upload that the answer shows for it.
        reused: whether that upload was there before, so that the file was not kept.
    """

    index: int
    upload: Upload
    reused: bool


@dataclass(frozen=True, slots=True)
class RejectedFile:
    """A file that was not accepted.

    Attributes:
        index: which file of the request it is, from 0; None when there is no file.
        original_name: its cleaned name; None when there is no file.
        error: why it was not accepted.
    """

    index: int | None
    original_name: str | None
    error: RefusedFile


@dataclass(frozen=True, slots=True)
class IntakeOptions:
    """The options of an upload request.

    Attributes:
        key: the `Idempotency-Key`, which identifies the request when it is sent again.
        reuse: whether to return an upload with the same bytes instead of storing a new one.
        uploaded_by: the name of the key with which the request came, if it came with one.
        amend: changes each new upload before it is stored.
    """

    key: str | None = None
    reuse: bool = False
    uploaded_by: str | None = None
    amend: Callable[[NewUpload], NewUpload] | None = None

    def retry_keys(self, is_of_owner: bool) -> list[str]:
        """What identifies the request among those of all keys; names of keys have no line ends.

        A key with `own` does not see what another one of its name brought without it, so theirs
        differ.

        Returns:
            what it is stored with, and then what it may have been stored with before.
        """
        if self.key is None:
            return []
        if self.uploaded_by is None:
            return [self.key]
        of_name = f"{self.uploaded_by}\n{self.key}"
        return [f"{self.uploaded_by}\nown\n{self.key}", of_name] if is_of_owner else [of_name]


CheckedFile = tuple[int, ReceivedFile, InspectedImage]  # the first is its index in the request


class Intake:
    """Checks and stores the files of upload requests.

    Args:
        analyzers: all analyzers by name, each after those that it requires.
        services: knows which analyzers are not configured; new uploads get no analyses of these.
        max_upload_size: bytes of one file at most.
        on_stored: called with every new upload once it is stored; it returns at once.

    Attributes:
        formats: the image formats that are accepted.
    """

    def __init__(
        self,
        database: DatabaseView,
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
        self.formats = formats
        self._services = services
        self._plans: dict[tuple[Format, frozenset[str]], tuple[Analysis, ...]] = {}
        self._max_upload_size = max_upload_size
        self._on_stored = on_stored

    @contextmanager
    def receiving(self) -> Iterator["UploadSession"]:
        """Receive the files of one request; at the end, remove those that were not accepted."""
        session = UploadSession(self._storage, self._max_upload_size)
        try:
            yield session
        finally:
            session.close()

    def accept(
        self,
        received: Sequence[ReceivedFile],
        request_id: str,
        options: IntakeOptions = IntakeOptions(),
    ) -> tuple[list[AcceptedFile], list[RejectedFile]]:
        """Store those files that are images, and refuse the others, each with its own error.

        Args:
            received: the files of the request, in its order.

        Returns:
            the accepted and the refused files, both in the order of the request.

        Raises:
            DatabaseUnavailable, StorageFull: nothing was stored.
            InvalidInput: an earlier request with the same key had other files.
            BeingAnswered: another process answers the same request at this moment.
        """
        began = time.perf_counter()
        checked: list[CheckedFile] = []
        refused: list[RejectedFile] = []
        for index, item in enumerate(received):
            try:
                checked.append((index, item, self._inspect(item.file)))
            except RefusedFile as error:
                refused.append(RejectedFile(index, clean_name(item.name), error))
                cause = (
                    failure_messages.describe_exception(error.__cause__)
                    if error.__cause__
                    else None
                )
                log.info("upload_refused", code=error.code, size=item.file.size, cause=cause)
        stored = self._store_files(checked, received, request_id, options) if checked else []
        duration = round((time.perf_counter() - began) * 1000, 1)
        for file in stored:
            event, upload = "upload_reused" if file.reused else "upload_stored", file.upload
            log.info(event, upload_id=upload.id, size=upload.size, duration_ms=duration)
        return stored, refused

    def _inspect(self, file: IncomingFile) -> InspectedImage:
        if file.too_large:
            limit = failure_messages.format_size(self._max_upload_size)
            raise TooLarge(f"The file is larger than {limit}, the most that one file may have.")
        with writing():  # The file system of the temporary file may have been unmounted.
            return images.inspect(file.content(), self.formats, limit_time=True)

    def _store_files(
        self,
        checked: list[CheckedFile],
        received: Sequence[ReceivedFile],
        request_id: str,
        options: IntakeOptions,
    ) -> list[AcceptedFile]:
        reuse = options.reuse
        keys = options.retry_keys(is_of_owner=self._database.owner is not None)
        retry = Retry(keys[0], fingerprint(received), 0) if keys else None
        stored_before = self._find_stored_before(keys, retry) if retry else []
        files = [(file.file.sha256, clean_name(file.name)) for _, file, _ in checked]
        earlier = EarlierUploads(stored_before, files)
        hashes = [sha256 for sha256, _ in files]
        reusable = self._database.uploads.first_uploads_by_hash(hashes) if reuse else {}
        chosen: list[tuple[int, Upload, bool]] = []
        new: list[tuple[ReceivedFile, Upload]] = []
        for number, (index, file, inspected) in enumerate(checked):
            again = earlier.of_file(number)
            upload = again or reusable.get(file.file.sha256)
            reused = upload is not again
            if upload is None:
                upload = self._build_upload(file, inspected, request_id, options.uploaded_by)
                upload = options.amend(upload) if options.amend else upload
                if retry:
                    position = earlier.free_position(number)
                    upload = replace(upload, retry=replace(retry, position=position))
                new.append((file, upload))
            if reuse:
                reusable.setdefault(upload.sha256, upload)
            chosen.append((index, upload, reused))
        added = self._add_uploads(new, reuse) if new else {}
        stored = [(i, added.get(upload.id, upload), upload, reused) for i, upload, reused in chosen]
        return [
            AcceptedFile(i, result, reused or result.id != upload.id)
            for i, result, upload, reused in stored
        ]

    def _find_stored_before(self, keys: list[str], retry: Retry) -> list[Upload]:
        """The uploads that an earlier request with one of these keys stored."""
        stored, trashed = self._database.uploads.find_by_request(keys)
        if any(each.retry and each.retry.fingerprint != retry.fingerprint for each in stored):
            problem = "This key was given to a request with other files; take a new one."
            raise InvalidInput({"Idempotency-Key": [problem]})
        if trashed:  # The key is then free for the new uploads.
            self._database.trash.release_idempotency_keys(trashed)
        return stored

    def _add_uploads(
        self, new: list[tuple[ReceivedFile, Upload]], reuse: bool
    ) -> dict[str, Upload]:
        """Store files and uploads, and notify workers and plugins.

        Args:
            reuse: whether to drop a file when another request has stored the same bytes meanwhile.

        Returns:
            by the ids of the new uploads: the stored uploads, or those to reuse instead.
        """
        uploads = self._database.uploads.mark_known_duplicates([upload for _, upload in new])
        self._require_our_store()
        self._storage.keep([(received.file, upload.filename) for received, upload in new])
        try:
            stored = self._database.uploads.add(uploads, reuse)
        except DatabaseRefused:
            # When the database is unavailable the files stay: it may have stored the uploads.
            self._remove_files(uploads)
            raise
        except BeingAnswered:
            stored_names = self._database.integrity.filenames([upload.id for upload in uploads])
            self._remove_files(
                [upload for upload in uploads if upload.filename not in stored_names]
            )
            raise
        added = {upload.id: result for upload, result in zip(uploads, stored, strict=True)}
        self._remove_files([upload for upload in uploads if added[upload.id].id != upload.id])
        own_uploads = [result for upload_id, result in added.items() if result.id == upload_id]
        self._notify_workers(own_uploads)
        for upload in own_uploads:
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

    def _build_upload(
        self,
        received: ReceivedFile,
        inspected: InspectedImage,
        request_id: str,
        uploaded_by: str | None,
    ) -> NewUpload:
        upload_id, moment = new_id(), now()
        analyses = self._planned_analyses(inspected.format)
        return NewUpload(
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
            uploaded_by=uploaded_by,
            edit=received.edit,
            owner=self._database.owner,
        )

    def _planned_analyses(self, format: Format) -> tuple[Analysis, ...]:
        """The analyses of a new upload in this format, from a cache."""
        not_configured = self._services.not_configured
        if (format, not_configured) not in self._plans:
            self._plans[format, not_configured] = tuple(self._plan_analyses(format, not_configured))
        return self._plans[format, not_configured]

    def _plan_analyses(self, format: Format, not_configured: frozenset[str]) -> Iterator[Analysis]:
        """Make the analyses of a new upload, also those that are skipped from the start."""
        possible: set[str] = set()
        for analyzer in self._analyzers:
            if analyzer.name in not_configured:
                continue
            state, error = State.WAITING if analyzer.requires else State.QUEUED, None
            missing = [name for name in analyzer.requires if name not in possible]
            if analyzer.formats and format.content_type not in analyzer.formats:
                state, error = State.SKIPPED, f"does not look at {format.content_type}"
            elif missing:  # The required analyzer skips this format, or does not run by itself.
                state, error = State.SKIPPED, f"requires {missing[0]}"
            else:
                possible.add(analyzer.name)
            requires = tuple(analyzer.requires)
            yield Analysis(analyzer.name, analyzer.version, state, error=error, requires=requires)

    def _notify_workers(self, uploads: list[Upload]) -> None:
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

    @property
    def received_bytes(self) -> int:
        """How many bytes have arrived, those of files that are not accepted included."""
        return sum(file.size for file in self._files)

    def close(self) -> None:
        for file in self._files:
            file.close()


def fingerprint(received: Sequence[ReceivedFile]) -> str:
    """A hash of the files of a request, of their order and words, to compare two requests."""
    # A file that is too large was not hashed to its end.
    lines = [
        f"{item.file.size} {'' if item.file.too_large else item.file.sha256} {item.name}"
        f"{sorted(item.edit.items()) if item.edit else ''}"
        for item in received
    ]
    return hashlib.sha256("\n".join(lines).encode("utf-8", "surrogatepass")).hexdigest()


def clean_name(name: str) -> str:
    """Clean a client's file name: no folders, control or direction characters, 255 at most.

    Direction marks go, too: they can make a name look like another.
    """
    last = name.replace("\\", "/").rsplit("/", 1)[-1]
    return _remove_characters(DIRECTION_MARKS + DIRECTION_CHANGES, last)[:LONGEST_NAME] or "unnamed"


def clean_text(text: str) -> str:
    """Clean text that a human wrote: one line, no control characters, nothing that turns text.

    Joiners and direction marks, which are not visible themselves, stay beside visible characters.
    """
    cleaned = _remove_characters(DIRECTION_CHANGES, " ".join(text.split()))
    return "" if all(unicodedata.category(c) == "Cf" for c in cleaned) else cleaned


def _remove_characters(dropped: str, text: str) -> str:
    kept = (c for c in text if unicodedata.category(c) not in ("Cc", "Cs") and c not in dropped)
    return unicodedata.normalize("NFC", "".join(kept)).strip()
