"""The check of the store: does every record have its file, and every file its record.

It can run while the service takes uploads in. A file is there a moment before its record: only
those that are older than a grace are looked at. Nothing is deleted but temporary files, and
thumbnails, which can be made again: files go into `UPLOAD_FOLDER/.quarantine`, records into the
collection `<uploads>_quarantine`; and only after another look at that moment. How much memory it
takes depends on what is wrong, not on how much is stored.
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
from clustr.storage import ID, TRASH, LocalStorage, StoredFile, writing

FILES_AT_A_TIME = 1000
STUCK_AFTER = timedelta(minutes=10)
# So many uploads may go whatever part of all they are.
ALWAYS_ALLOWED = 10


class FindingKind(StrEnum):
    """What can be wrong."""

    MISSING = "missing"
    ORPHANED = "orphaned"
    CORRUPT = "corrupt"
    UNDECODABLE = "undecodable"
    STUCK = "stuck"
    MISPLACED = "misplaced"  # It is in the trash and its upload is not, or the other way round.
    TEMPORARY = "temporary"
    THUMBNAILS = "thumbnails"  # Those of an upload that is not there.
    UNREADABLE = "unreadable"  # It may be readable tomorrow: nothing is done about it.
    FOREIGN = "foreign"  # It is not Clustr's, which is no defect, and is left alone.


OF_A_RECORD = (FindingKind.MISSING, FindingKind.CORRUPT, FindingKind.UNDECODABLE, FindingKind.STUCK)


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong.

    Attributes:
        id: the upload that it is about, if any.
        file: the file that it is about, if any, as its key below `UPLOAD_FOLDER`.
        detail: what exactly is wrong; two findings with the same words are the same.
        analysis: the one that is stuck.
        removes: whether repairing it takes an upload, an original or the work on one away.
    """

    kind: FindingKind
    id: str | None
    file: str | None
    detail: str
    analysis: UnfinishedAnalysis | None = None
    removes: bool = False

    @property
    def repairable(self) -> bool:
        """Whether anything can be done about it."""
        return self.kind not in (FindingKind.UNREADABLE, FindingKind.FOREIGN)


class RepairRefused(Exception):
    """Why nothing is looked at or changed, in one sentence."""


class Fsck:
    """One check.

    Args:
        analyzers: the names of those that the loaded plugins bring.
        grace: how old a file without a record must be to count as one, and a temporary file.
        quick: do not read the files.
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
        """Look at everything once.

        Raises:
            Refused: the store looks unmounted.
            DatabaseUnavailable, StorageUnavailable: it cannot be looked at.
        """
        self._require_store()
        for record in self._database.integrity.records():
            self.checked["uploads"] += 1
            if isinstance(record, ForeignDocument):
                detail = f"the record is not one that Clustr has written: {record.reason}"
                yield Finding(FindingKind.FOREIGN, record.id, None, detail)
            elif self._look_at(record):  # It may have been read a while ago: what is it now?
                fresh = self._database.integrity.record(record.id)
                yield from self._look_at(fresh) if fresh else ()
        yield from self._look_at_files()
        yield from self._look_at_trash()
        for entry in self._storage.left_behind(now() - self._grace):
            detail = f"of an upload without an end, last written to at {_said(entry.since)}"
            yield Finding(FindingKind.TEMPORARY, None, entry.key, detail)
        yield from self._look_at_thumbnails()

    def _require_store(self) -> None:
        if not self._storage.is_there():
            raise RepairRefused(
                "UPLOAD_FOLDER looks as if it is not mounted: it has no .clustr-store"
            )

    def _look_at(self, record: StoredRecord) -> list[Finding]:
        """What is wrong with an upload: its file, or else its analyses."""
        key = self._storage.key(record.filename)
        try:
            problem = self._problem_with(record)
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
            return [*self._stuck(record)]
        kind, detail = problem
        return [Finding(kind, record.id, key, detail, removes=kind is not FindingKind.UNREADABLE)]

    def _problem_with(self, record: StoredRecord) -> tuple[FindingKind, str] | None:
        """What is wrong with the file of an upload.

        Raises:
            NotFound: it is not there.
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
            if not images.can_read(extension):
                return FindingKind.UNREADABLE, f"what reads {extension} is not installed here"
            return _undecodable(file)

    def _stuck(self, record: StoredRecord) -> Iterator[Finding]:
        lost_before = now() - STUCK_AFTER
        for one in record.pending:
            if one.state is State.RUNNING and one.lease_until > lost_before:
                continue  # Somebody is at it: elsewhere the plugin may be loaded.
            if one.name not in self._analyzers:
                detail = f"{one.name} is {one.state}, but no plugin that is loaded brings it"
                yield Finding(FindingKind.STUCK, record.id, None, detail, one, removes=True)
            elif one.state is State.RUNNING:
                since = _said(one.lease_until)
                detail = f"{one.name} is running, but nobody has been at it since {since}"
                yield Finding(FindingKind.STUCK, record.id, None, detail, one)

    def _look_at_files(self) -> Iterator[Finding]:
        entries = self._storage.entries()
        while batch := list(islice(entries, FILES_AT_A_TIME)):
            self.checked["files"] += len(batch)
            for entry in batch:
                if entry.upload_id is None:
                    yield Finding(
                        FindingKind.FOREIGN, None, entry.key, "it is not a file of Clustr's"
                    )
            for entry in self._without_record([e for e in batch if e.upload_id]):
                if found := self._orphan(entry.key):
                    yield found

    def _without_record(self, entries: Iterable[StoredFile]) -> list[StoredFile]:
        old = [entry for entry in entries if entry.since < now() - self._grace]
        named = self._database.integrity.filenames([entry.upload_id for entry in old])
        named |= self._database.trash.filenames([entry.upload_id for entry in old])
        keys = {self._storage.key(filename) for filename in named}
        return [entry for entry in old if entry.key not in keys]

    def _orphan(self, key: str) -> Finding | None:
        """The finding that no record names this file, if that is so now."""
        entry = self._storage.entry(key)
        if entry is None or not self._without_record([entry]):
            return None
        detail = f"no upload has this file, which is here since {_said(entry.since)}"
        return Finding(FindingKind.ORPHANED, entry.upload_id, key, detail, removes=True)

    def _look_at_trash(self) -> Iterator[Finding]:
        for upload_id, filename in self._database.trash.settled():
            yield from self._look_at_trashed(upload_id, filename)
        for filename, since in self._storage.trash.files():
            if since < now() - self._grace:
                yield from self._look_at_trash_file(filename)

    def _look_at_trashed(self, upload_id: str, filename: str) -> list[Finding]:
        """What is wrong with an upload that is in the trash; what is under way is left alone."""
        trash, key = self._storage.trash, self._storage.key(filename)
        if trash.has(filename):
            return []
        detail = "the upload is in the trash, but its file is not"
        found = Finding(FindingKind.MISPLACED, upload_id, key, detail)
        if self._storage.entry(key) is None:
            detail = "the upload is in the trash, and its file is not there"
            found = Finding(
                FindingKind.MISSING, upload_id, trash.key(filename), detail, removes=True
            )
        there = self._database.trash.step_of(upload_id) is TrashStep.THERE
        return [found] if there and not trash.has(filename) else []

    def _look_at_trash_file(self, filename: str) -> list[Finding]:
        """What is wrong with a file that is in the trash; of a record nobody has seen its place."""
        trash, upload_id = self._storage.trash, filename.partition(".")[0]
        if not ID.fullmatch(upload_id):
            return [
                Finding(
                    FindingKind.FOREIGN, None, trash.key(filename), "it is not a file of Clustr's"
                )
            ]
        if self._database.trash.step_of(upload_id):
            return []
        named = self._database.integrity.filenames([upload_id])
        in_place = self._storage.entry(self._storage.key(filename)) is not None
        if (named and not in_place) or not trash.has(filename):
            return []  # The former was found with its upload.
        detail = "no upload of the trash has this file"
        return [
            Finding(FindingKind.ORPHANED, upload_id, trash.key(filename), detail, removes=not named)
        ]

    def _look_at_thumbnails(self) -> Iterator[Finding]:
        entries = self._storage.thumbnails()
        while batch := list(islice(entries, FILES_AT_A_TIME)):
            for entry in self._without_upload(batch):
                detail = f"no upload has these thumbnails, last changed at {_said(entry.since)}"
                yield Finding(FindingKind.THUMBNAILS, entry.upload_id, entry.key, detail)

    def _without_upload(self, entries: Sequence[StoredFile]) -> list[StoredFile]:
        """Those of these thumbnails whose upload is not there, and was not a while ago."""
        old = [entry for entry in entries if entry.since < now() - self._grace]
        named = self._database.integrity.filenames([entry.upload_id for entry in old])
        named |= self._database.trash.filenames([entry.upload_id for entry in old])
        ids = {filename.partition(".")[0] for filename in named}
        return [entry for entry in old if entry.upload_id not in ids]

    def too_much(self, findings: Sequence[Finding], percent: float) -> str | None:
        """Why so much may not be repaired, if it may not.

        A wrong setting or a lost database looks as if nearly everything were wrong.

        Args:
            percent: of all uploads and files without one, how many may go.
        """
        going = {finding.id for finding in findings if finding.removes}
        orphaned = sum(finding.kind is FindingKind.ORPHANED for finding in findings)
        everything = self.checked["uploads"] + orphaned
        if len(going) <= max(ALWAYS_ALLOWED, everything * percent / 100):
            return None
        return (
            f"{len(going)} of {everything} uploads would go, which is more than {percent:g} %: see "
            "whether the settings name the right database, folder and plugins; --limit allows more"
        )

    def repair(self, finding: Finding) -> bool:
        """Put one thing right.

        Returns:
            whether it was done; what is not as it was found any more is left alone.

        Raises:
            Refused: the store looks unmounted.
            DatabaseUnavailable, StorageFull, StorageUnavailable: it cannot be done.
        """
        if not finding.repairable:
            return False
        self._require_store()
        if finding.file and finding.file.startswith(f"{TRASH}/"):
            return self._put_right_in_trash(finding)
        if finding.kind is FindingKind.MISPLACED:
            return self._put_in_place(finding)
        if finding.kind in OF_A_RECORD:
            record = self._database.integrity.record(finding.id)
            if record is None or finding not in self._look_at(record):
                return False
            return self._put_right(finding, record)
        if finding.kind is FindingKind.ORPHANED:
            again = self._orphan(finding.file)
            return again == finding and self._storage.quarantine(finding.file, finding.kind)
        if finding.kind is FindingKind.THUMBNAILS:
            inspection, trash = self._database.integrity, self._database.trash
            if inspection.filenames([finding.id]) or trash.filenames([finding.id]):
                return False
            return self._storage.forget_thumbnails(finding.id)
        return self._storage.discard(finding.file, now() - self._grace)

    def _put_right_in_trash(self, finding: Finding) -> bool:
        filename = finding.file.rpartition("/")[2]
        if finding.kind is FindingKind.MISSING:
            again = self._look_at_trashed(finding.id, filename) == [finding]
            return again and self._database.trash.quarantine(finding.id, finding.detail)
        again = self._look_at_trash_file(filename) == [finding]
        return again and self._storage.quarantine(finding.file, finding.kind)

    def _put_in_place(self, finding: Finding) -> bool:
        filename = finding.file.rpartition("/")[2]
        record = self._database.integrity.record(finding.id)
        with writing():
            if record and finding in self._look_at(record):
                return self._storage.trash.put_back(filename)
            if finding in self._look_at_trashed(finding.id, filename):
                return self._storage.trash.put(filename)
        return False

    def _put_right(self, finding: Finding, record: StoredRecord) -> bool:
        inspection = self._database.integrity
        if finding.kind is FindingKind.STUCK:
            act = inspection.cancel if finding.removes else inspection.queue_again
            return act(record.id, finding.analysis, finding.detail)
        # The record goes first: a file without one is seen by nobody, and found the next time.
        if not inspection.quarantine(record, f"{finding.kind}: {finding.detail}"):
            return False
        gone = finding.kind is FindingKind.MISSING or self._storage.quarantine(
            finding.file, finding.kind
        )
        self._storage.forget_thumbnails(record.filename)
        return gone


def _undecodable(file: BinaryIO) -> tuple[FindingKind, str] | None:
    """Why the picture in a file cannot be seen, if it cannot."""
    try:
        images.inspect(file, images.FORMATS)
    except TooManyPixels:  # It was accepted: the limit has been lowered since.
        return None
    except (Undecodable, UnsupportedType, Empty) as error:
        if isinstance(error.__cause__, MemoryError):
            return FindingKind.UNREADABLE, "there is not enough memory to decode it"
        return FindingKind.UNDECODABLE, str(error)
    return None


def _said(moment: datetime) -> str:
    return moment.isoformat().replace("+00:00", "Z")
