"""Removal: uploads go into the trash, come back, and are removed for good.

The record is changed first, and decides; then the file is moved. A process that is killed between
the two leaves a claim in the record, and the reconciler repeats the step, which is idempotent.
"""

import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import timedelta
from typing import Any

from clustr import logs
from clustr.database import ANY_VERSION, DatabaseView, RemovalClaim, TrashStep, Versions, now
from clustr.domain.errors import DatabaseUnavailable, ForeignRecord, NotFound, StorageFull, UnderWay
from clustr.domain.models import Upload
from clustr.storage import LocalStorage, writing

log = logs.logger(__name__)

# How many uploads, and for how long, a round of the reconciler handles at most.
BATCH_SIZE = 100
ROUND_SECONDS = 1.0
WAIT_SECONDS = 2.0


class Removal:
    """Removes uploads and brings them back.

    Args:
        on_deleted: called with every upload that was removed for good.
        trash_days: how long uploads stay in the trash; 0 when there is none.
    """

    def __init__(
        self,
        database: DatabaseView,
        storage: LocalStorage,
        on_deleted: Callable[[Upload], None],
        trash_days: int,
    ):
        self._trash = database.trash
        self._uploads = database.uploads
        self._vectors = database.vectors
        self._shares = database.shares
        self._storage = storage
        self._on_deleted = on_deleted
        self.trash_days = trash_days

    def seen_by(self, database: DatabaseView) -> "Removal":
        """The same for the uploads that there are in another view."""
        return Removal(database, self._storage, self._on_deleted, self.trash_days)

    def remove(
        self,
        upload_id: str,
        permanently: bool = False,
        job: str | None = None,
        versions: Versions = ANY_VERSION,
        filter: Mapping[str, Any] | None = None,
    ) -> bool:
        """Put an upload into the trash, or remove it for good, also from the trash.

        Args:
            permanently: whether to remove it for good even if there is a trash.
            job: the id of the bulk job that removes it, if any.
            versions: the versions that the upload may have (`If-Match`).
            filter: what the upload has to match at the moment of its removal; see `Trash.add`.

        Returns:
            False when it does not match the filter, and is left where it is.

        Raises:
            NotFound: there is no such upload.
            Outdated: it has none of these versions.
            StorageFull: its file cannot be moved or removed now; the reconciler does so later.
        """
        for_good = permanently or self.trash_days == 0
        self.require_store()
        try:
            step = TrashStep.REMOVING if for_good else TrashStep.MOVING
            claim = self._trash.add(upload_id, step, job, versions, filter)
        except NotFound as error:
            if not permanently or isinstance(error, ForeignRecord):
                raise
            claim = self._trash.claim(upload_id, TrashStep.REMOVING, versions)
        if claim is None:
            return False
        try:
            self._finish(claim)
        except DatabaseUnavailable:  # The record is moved; the reconciler does the rest.
            log.warning("removal_not_noted", upload_id=upload_id)
        return True

    def restore(
        self, upload_id: str, job: str | None = None, versions: Versions = ANY_VERSION
    ) -> Upload:
        """Bring an upload back from the trash.

        Args:
            job: the id of the bulk job that restores it, if any.
            versions: the versions that the upload may have (`If-Match`).

        Raises:
            NotFound: it is not in the trash.
            Outdated: it has none of these versions.
            UnderWay: it is being moved to the trash, and that takes longer than `WAIT_SECONDS`.
            StorageFull: its file cannot be moved now; the reconciler does so later.
        """
        self.require_store()
        until = time.monotonic() + WAIT_SECONDS
        while True:
            try:
                claim = self._trash.claim(upload_id, TrashStep.RESTORING, versions)
                break
            except UnderWay:
                if time.monotonic() > until:
                    raise
                time.sleep(0.02)
        return self._restore_file(claim, job) or self._uploads.get(upload_id)

    def require_store(self) -> None:
        """Check that the store is mounted; in one that is not, all files look as if missing.

        Raises:
            StorageFull: it is not mounted.
            StorageUnavailable: its file system does not answer.
        """
        if not self._storage.is_there():
            raise StorageFull

    def _finish(self, claim: RemovalClaim) -> None:
        """Do the step that the claim in the record names."""
        steps: dict[TrashStep, Callable[[RemovalClaim], object]] = {
            TrashStep.MOVING: self._move_to_trash,
            TrashStep.RESTORING: self._restore_file,
            TrashStep.REMOVING: self._remove_for_good,
        }
        steps[claim.step](claim)

    def _move_to_trash(self, claim: RemovalClaim) -> None:
        filename = claim.upload.filename
        with writing():
            self._storage.trash.put(filename)
        self._storage.thumbnails.remove(filename)
        if self._trash.mark_moved(claim):
            log.info("upload_trashed", upload_id=claim.upload.id)
        else:
            self._follow_record(claim)

    def _restore_file(self, claim: RemovalClaim, job: str | None = None) -> Upload | None:
        """Restore an upload; None when another process has taken the claim over."""
        with writing():
            self._storage.trash.put_back(claim.upload.filename)
        upload = self._trash.restore(claim, job)
        if upload:
            log.info("upload_restored", upload_id=upload.id)
        else:
            self._follow_record(claim)
        return upload

    def _remove_for_good(self, claim: RemovalClaim) -> None:
        filename = claim.upload.filename
        with writing():
            self._storage.trash.remove(filename)
        self._storage.thumbnails.remove(filename)
        if self._trash.delete(claim):
            log.info("upload_deleted", upload_id=claim.upload.id)
            self._on_deleted(claim.upload)
            self._remove_vectors(claim.upload)
            with suppress(DatabaseUnavailable):  # They lead nowhere, and go when they expire.
                self._shares.remove_all(claim.upload.id)

    def _remove_vectors(self, upload: Upload) -> None:
        try:
            self._vectors.remove(i for a in upload.analyses for i in a.vectors.values())
        except DatabaseUnavailable:  # The reconciler finds those that belong to no upload.
            log.warning("vectors_left", upload_id=upload.id)

    def _follow_record(self, claim: RemovalClaim) -> None:
        """Move the file to where its record says by now, after another process took the claim."""
        log.warning("claim_lost", upload_id=claim.upload.id, step=claim.step)
        step = self._trash.step_of(claim.upload.id)
        with writing():
            if step is TrashStep.STORED:
                self._storage.trash.put(claim.upload.filename)
            elif step is None:
                try:
                    self._uploads.get(claim.upload.id)
                except NotFound:
                    self._storage.trash.remove(claim.upload.filename)
                else:
                    self._storage.trash.put_back(claim.upload.filename)

    def resume(self) -> None:
        """Finish some abandoned steps, and remove some uploads whose time in the trash is over.

        Raises:
            DatabaseUnavailable: MongoDB does not answer.
            StorageFull: the store is not mounted.
        """
        self.require_store()
        until = time.monotonic() + ROUND_SECONDS
        for claim in self._trash.take_over_stale_claims(BATCH_SIZE):
            log.warning("removal_taken_over", upload_id=claim.upload.id, step=claim.step)
            with suppress(StorageFull):  # It is logged, and must not hold up the others.
                self._finish(claim)
        expired_before = now() - timedelta(days=self.trash_days)
        for upload_id in self._trash.ids_trashed_before(expired_before, BATCH_SIZE):
            if time.monotonic() > until:
                return
            # Another process may have restored or removed it meanwhile.
            with suppress(NotFound, StorageFull):
                self._finish(self._trash.claim(upload_id, TrashStep.REMOVING))
