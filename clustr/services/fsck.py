"""The check of the store: whether every record has its file, and every file its record.

It can run while the service accepts uploads. A file exists a moment before its record, so only
files that are older than a grace period are checked. A repair deletes only temporary files, and
thumbnails, which can be made again. It moves other files into `UPLOAD_FOLDER/.quarantine`, and
records into the collection `<uploads>_quarantine`, after it has checked them once more. The memory
it takes depends on what is wrong, not on how much is stored.
"""

import hashlib
import os
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from itertools import islice
from typing import BinaryIO

from clustr.database import (
    Database,
    ForeignDocument,
    StoredRecord,
    TrashStep,
    UnfinishedAnalysis,
    now,
)
from clustr.domain.errors import (
    Empty,
    NotFound,
    StorageUnavailable,
    TooManyPixels,
    Undecodable,
    UnsupportedType,
)
from clustr.domain.models import State
from clustr.imaging import images
from clustr.imaging.formats import FORMATS, can_read
from clustr.storage import ID, TRASH, LocalStorage, StoredFile, writing

BATCH_SIZE = 1000
STUCK_AFTER = timedelta(minutes=10)
# A repair may remove so many uploads, whatever part of all they are.
ALWAYS_ALLOWED = 10


class FindingKind(StrEnum):
    """The kinds of findings."""

    MISSING = "missing"
    ORPHANED = "orphaned"
    CORRUPT = "corrupt"
    UNDECODABLE = "undecodable"
    STUCK = "stuck"
    MISPLACED = "misplaced"  # Only one of file and upload is in the trash.
    TEMPORARY = "temporary"
    THUMBNAILS = "thumbnails"  # Their upload does not exist.
    UNREADABLE = "unreadable"  # It may be readable later: it is not repaired.
    FOREIGN = "foreign"  # It is not Clustr's: no defect, and not repaired.


RECORD_KINDS = (
    FindingKind.MISSING,
    FindingKind.CORRUPT,
    FindingKind.UNDECODABLE,
    FindingKind.STUCK,
)


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong.

    Attributes:
        id: the id of the upload, if there is one.
        file: the file, if there is one, as its key below `UPLOAD_FOLDER`.
        detail: what exactly is wrong; findings are compared by it, too.
        analysis: the analysis that is stuck.
        removes: whether its repair removes an upload, an original or an analysis.
    """

    kind: FindingKind
    id: str | None
    file: str | None
    detail: str
    analysis: UnfinishedAnalysis | None = None
    removes: bool = False

    @property
    def upload_id(self) -> str:
        """The upload, of a finding that is about one."""
        assert self.id is not None
        return self.id

    @property
    def key(self) -> str:
        """The file, of a finding that is about one."""
        assert self.file is not None
        return self.file

    @property
    def repairable(self) -> bool:
        """Whether it can be repaired."""
        return self.kind not in (FindingKind.UNREADABLE, FindingKind.FOREIGN)


class RepairRefused(Exception):
    """The check or repair is refused; the message says why, in one sentence."""


class Fsck:
    """One check of the store.

    Args:
        analyzers: the names of the analyzers of the loaded plugins.
        grace: how old a file must be to be reported as orphaned or temporary.
        quick: whether to leave the content of files unread.

    Attributes:
        checked: how many `uploads` and `files` were checked so far.
    """

    def __init__(
        self,
        database: Database,
        storage: LocalStorage,
        analyzers: Collection[str],
        grace: timedelta,
        quick: bool,
    ):
        self._database = database
        self._storage = storage
        self._analyzers = analyzers
        self._grace = grace
        self._quick = quick
        self.checked: Counter[str] = Counter(uploads=0, files=0)

    def findings(self) -> Iterator[Finding]:
        """Check everything once, and yield what is wrong.

        Raises:
            RepairRefused: the store looks unmounted.
            DatabaseUnavailable, StorageUnavailable: the check cannot go on.
        """
        self._require_store()
        for record in self._database.integrity.records():
            self.checked["uploads"] += 1
            if isinstance(record, ForeignDocument):
                detail = f"the record is not one that Clustr has written: {record.reason}"
                yield Finding(FindingKind.FOREIGN, record.id, None, detail)
            elif self._check_record(record):  # The record may be outdated: check it as it is now.
                reread = self._database.integrity.record(record.id)
                yield from self._check_record(reread) if reread else ()
        yield from self._check_files()
        yield from self._check_trash()
        for entry in self._storage.temporary_files(now() - self._grace):
            detail = f"of an upload without an end, last written to at {_format_time(entry.since)}"
            yield Finding(FindingKind.TEMPORARY, None, entry.key, detail)
        yield from self._check_thumbnails()

    def _require_store(self) -> None:
        if not self._storage.is_there():
            raise RepairRefused(
                "UPLOAD_FOLDER looks as if it is not mounted: it has no .clustr-store"
            )

    def _check_record(self, record: StoredRecord) -> list[Finding]:
        """Find what is wrong with the file of an upload, or else with its analyses."""
        key = self._storage.key(record.filename)
        try:
            problem = self._check_file(record)
        except NotFound:
            problem = FindingKind.MISSING, "the file is not there"
            if self._storage.trash.has(record.filename):
                detail = "the file is in the trash, but its upload is not"
                return [Finding(FindingKind.MISPLACED, record.id, key, detail)]
        except (OSError, StorageUnavailable) as error:
            self._require_store()
            cause = error if isinstance(error, OSError) else error.__cause__
            problem = (
                FindingKind.UNREADABLE,
                f"the file cannot be read: {getattr(cause, 'strerror', '')}",
            )
        if problem is None:
            return [*self._find_stuck(record)]
        kind, detail = problem
        return [Finding(kind, record.id, key, detail, removes=kind is not FindingKind.UNREADABLE)]

    def _check_file(self, record: StoredRecord) -> tuple[FindingKind, str] | None:
        """Find what is wrong with the file of an upload: kind and detail, or None.

        Raises:
            NotFound: the file does not exist.
            StorageUnavailable, OSError: it cannot be read.
        """
        with self._storage.open(record.filename) as file:
            size = os.fstat(file.fileno()).st_size
            if size != record.size:
                return FindingKind.CORRUPT, f"it has {size} bytes, not {record.size}"
            if self._quick:
                return None
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
            if sha256 != record.sha256:
                return FindingKind.CORRUPT, f"its SHA-256 is {sha256}, not {record.sha256}"
            extension = record.filename.rpartition(".")[2]
            if not can_read(extension):
                return FindingKind.UNREADABLE, f"what reads {extension} is not installed here"
            return _check_decoding(file)

    def _find_stuck(self, record: StoredRecord) -> Iterator[Finding]:
        lost_before = now() - STUCK_AFTER
        for analysis in record.pending:
            if analysis.state is State.RUNNING and analysis.lease_until > lost_before:
                continue  # A worker runs it, which may have the plugin loaded.
            if analysis.name not in self._analyzers:
                detail = (
                    f"{analysis.name} is {analysis.state}, but no plugin that is loaded brings it"
                )
                yield Finding(FindingKind.STUCK, record.id, None, detail, analysis, removes=True)
            elif analysis.state is State.RUNNING:
                since = _format_time(analysis.lease_until)
                detail = f"{analysis.name} is running, but nobody has been at it since {since}"
                yield Finding(FindingKind.STUCK, record.id, None, detail, analysis)

    def _check_files(self) -> Iterator[Finding]:
        entries = self._storage.entries()
        while batch := list(islice(entries, BATCH_SIZE)):
            self.checked["files"] += len(batch)
            for entry in batch:
                if entry.upload_id is None:
                    yield Finding(
                        FindingKind.FOREIGN, None, entry.key, "it is not a file of Clustr's"
                    )
            for entry in self._files_without_record([e for e in batch if e.upload_id]):
                if finding := self._find_orphan(entry.key):
                    yield finding

    def _files_without_record(self, entries: Iterable[StoredFile]) -> list[StoredFile]:
        old = [entry for entry in entries if entry.since < now() - self._grace]
        ids = _ids(old)
        named_files = self._database.integrity.filenames(ids)
        named_files |= self._database.trash.filenames(ids)
        keys = {self._storage.key(filename) for filename in named_files}
        return [entry for entry in old if entry.key not in keys]

    def _find_orphan(self, key: str) -> Finding | None:
        """The finding that no record has this file; None when one has, or the file is gone."""
        entry = self._storage.entry(key)
        if entry is None or not self._files_without_record([entry]):
            return None
        detail = f"no upload has this file, which is here since {_format_time(entry.since)}"
        return Finding(FindingKind.ORPHANED, entry.upload_id, key, detail, removes=True)

    def _check_trash(self) -> Iterator[Finding]:
        for upload_id, filename in self._database.trash.stored_files():
            yield from self._check_trashed_upload(upload_id, filename)
        for filename, since in self._storage.trash.files():
            if since < now() - self._grace:
                yield from self._check_trash_file(filename)

    def _check_trashed_upload(self, upload_id: str, filename: str) -> list[Finding]:
        """Find what is wrong with an upload in the trash; one that is being moved is left out."""
        trash, key = self._storage.trash, self._storage.key(filename)
        if trash.has(filename):
            return []
        detail = "the upload is in the trash, but its file is not"
        finding = Finding(FindingKind.MISPLACED, upload_id, key, detail)
        if self._storage.entry(key) is None:
            detail = "the upload is in the trash, and its file is not there"
            finding = Finding(
                FindingKind.MISSING, upload_id, trash.key(filename), detail, removes=True
            )
        is_settled = self._database.trash.step_of(upload_id) is TrashStep.STORED
        return [finding] if is_settled and not trash.has(filename) else []

    def _check_trash_file(self, filename: str) -> list[Finding]:
        """Find what is wrong with a file in the trash that no record in the trash has."""
        trash, upload_id = self._storage.trash, filename.partition(".")[0]
        if not ID.fullmatch(upload_id):
            return [
                Finding(
                    FindingKind.FOREIGN, None, trash.key(filename), "it is not a file of Clustr's"
                )
            ]
        if self._database.trash.step_of(upload_id):
            return []
        named_files = self._database.integrity.filenames([upload_id])
        in_place = self._storage.entry(self._storage.key(filename)) is not None
        if (named_files and not in_place) or not trash.has(filename):
            return []  # In the first case the finding comes with the upload.
        detail = "no upload of the trash has this file"
        return [
            Finding(
                FindingKind.ORPHANED,
                upload_id,
                trash.key(filename),
                detail,
                removes=not named_files,
            )
        ]

    def _check_thumbnails(self) -> Iterator[Finding]:
        entries = self._storage.thumbnails.entries()
        while batch := list(islice(entries, BATCH_SIZE)):
            for entry in self._thumbnails_without_upload(batch):
                detail = (
                    f"no upload has these thumbnails, last changed at {_format_time(entry.since)}"
                )
                yield Finding(FindingKind.THUMBNAILS, entry.upload_id, entry.key, detail)

    def _thumbnails_without_upload(self, entries: Sequence[StoredFile]) -> list[StoredFile]:
        """Those of these thumbnails that are older than the grace period and have no upload."""
        old = [entry for entry in entries if entry.since < now() - self._grace]
        named_files = self._database.integrity.filenames(_ids(old))
        named_files |= self._database.trash.filenames(_ids(old))
        there = {filename.partition(".")[0] for filename in named_files}
        return [entry for entry in old if entry.upload_id not in there]

    def refusal_reason(self, findings: Sequence[Finding], percent: float) -> str | None:
        """The reason to refuse a repair that would remove too much; None if it may go ahead.

        With a wrong setting or a lost database nearly everything looks wrong.

        Args:
            percent: which part of all uploads and orphaned files a repair may remove.
        """
        affected = {finding.id for finding in findings if finding.removes}
        orphaned = sum(finding.kind is FindingKind.ORPHANED for finding in findings)
        everything = self.checked["uploads"] + orphaned
        if len(affected) <= max(ALWAYS_ALLOWED, everything * percent / 100):
            return None
        return (
            f"{len(affected)} of {everything} uploads would go, which is more than {percent:g} %: "
            "see whether the settings name the right database, folder and plugins; "
            "--limit allows more"
        )

    def repair(self, finding: Finding) -> bool:
        """Repair one finding.

        Returns:
            whether it was repaired; a finding that does not hold any more is left alone.

        Raises:
            RepairRefused: the store looks unmounted.
            DatabaseUnavailable, StorageFull, StorageUnavailable: the repair failed.
        """
        if not finding.repairable:
            return False
        self._require_store()
        if finding.file and finding.file.startswith(f"{TRASH}/"):
            return self._repair_in_trash(finding)
        if finding.kind is FindingKind.MISPLACED:
            return self._repair_misplaced(finding)
        if finding.kind in RECORD_KINDS:
            record = self._database.integrity.record(finding.upload_id)
            if record is None or finding not in self._check_record(record):
                return False
            return self._repair_record(finding, record)
        if finding.kind is FindingKind.ORPHANED:
            found_again = self._find_orphan(finding.key)
            return found_again == finding and self._storage.quarantine(finding.key, finding.kind)
        if finding.kind is FindingKind.THUMBNAILS:
            integrity, trash = self._database.integrity, self._database.trash
            ids = [finding.upload_id]
            if integrity.filenames(ids) or trash.filenames(ids):
                return False
            return self._storage.thumbnails.remove(finding.upload_id)
        return self._storage.discard(finding.key, now() - self._grace)

    def _repair_in_trash(self, finding: Finding) -> bool:
        filename = finding.key.rpartition("/")[2]
        if finding.kind is FindingKind.MISSING:
            found_again = self._check_trashed_upload(finding.upload_id, filename) == [finding]
            return found_again and self._database.trash.quarantine(
                finding.upload_id, finding.detail
            )
        found_again = self._check_trash_file(filename) == [finding]
        return found_again and self._storage.quarantine(finding.key, finding.kind)

    def _repair_misplaced(self, finding: Finding) -> bool:
        filename = finding.key.rpartition("/")[2]
        record = self._database.integrity.record(finding.upload_id)
        with writing():
            if record and finding in self._check_record(record):
                return self._storage.trash.put_back(filename)
            if finding in self._check_trashed_upload(finding.upload_id, filename):
                return self._storage.trash.put(filename)
        return False

    def _repair_record(self, finding: Finding, record: StoredRecord) -> bool:
        integrity = self._database.integrity
        if finding.kind is FindingKind.STUCK:
            assert finding.analysis is not None  # It is the one that is stuck.
            repair = integrity.cancel if finding.removes else integrity.requeue
            return repair(record.id, finding.analysis, finding.detail)
        # The record goes first: nobody sees a file without a record, and the next check finds it.
        if not integrity.quarantine(record, f"{finding.kind}: {finding.detail}"):
            return False
        is_gone = finding.kind is FindingKind.MISSING or self._storage.quarantine(
            finding.key, finding.kind
        )
        self._storage.thumbnails.remove(record.filename)
        return is_gone


def _check_decoding(file: BinaryIO) -> tuple[FindingKind, str] | None:
    """Find out why the image in a file cannot be decoded: kind and detail, or None."""
    try:
        images.inspect(file, FORMATS)
    except TooManyPixels:  # It was accepted, and the limit was lowered later.
        return None
    except (Undecodable, UnsupportedType, Empty) as error:
        if isinstance(error.__cause__, MemoryError):
            return FindingKind.UNREADABLE, "there is not enough memory to decode it"
        return FindingKind.UNDECODABLE, str(error)
    return None


def _ids(entries: Iterable[StoredFile]) -> list[str]:
    return [entry.upload_id for entry in entries if entry.upload_id is not None]


def _format_time(moment: datetime) -> str:
    return moment.isoformat().replace("+00:00", "Z")
