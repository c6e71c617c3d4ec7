"""Removal: uploads go into the trash, come back, and are removed for good.

First the record is moved, which decides; then the file is. Whoever is killed between the two has
left a claim in the record: by that the reconciler does the rest, which is the same done once more.
"""

import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import timedelta
from typing import Any

from clustr import logs
from clustr.database import ANY_VERSION, Database, RemovalClaim, TrashStep, Versions, now
from clustr.domain.errors import ForeignRecord, NotFound, StorageFull, UnderWay
from clustr.domain.models import Upload
from clustr.storage import LocalStorage, writing

log = logs.logger(__name__)

# What a round of the reconciler does at most; the rest is for the next ones.
AT_A_TIME = 100
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
        database: Database,
        storage: LocalStorage,
        on_deleted: Callable[[Upload], None],
        trash_days: int,
    ):
        self._trash = database.trash
        self._uploads = database.uploads
        self._storage = storage
        self._on_deleted = on_deleted
        self.trash_days = trash_days

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
            job: the one that it is for, if any.
            versions: of which it may be.
            filter: what it has to be like at the moment of its removal; see `Trash.throw`.

        Returns:
            False when it does not meet the filter, and is left where it is.

        Raises:
            NotFound: there is no such upload.
            Outdated: it is of none of these versions.
            StorageFull: its file cannot be moved or removed now; that is done as soon as it can be.
        """
        for_good = permanently or self.trash_days == 0
        self._require_store()
        try:
            step = TrashStep.REMOVING if for_good else TrashStep.MOVING
            claim = self._trash.throw(upload_id, step, job, versions, filter)
        except NotFound as error:
            if not permanently or isinstance(error, ForeignRecord):
                raise
            claim = self._trash.claim(upload_id, TrashStep.REMOVING, versions)
        if claim is None:
            return False
        self._finish(claim)
        return True

    def restore(
        self, upload_id: str, job: str | None = None, versions: Versions = ANY_VERSION
    ) -> Upload:
        """Bring an upload back from the trash.

        Args:
            versions: of which it may be.

        Raises:
            NotFound: it is not in the trash.
            Outdated: it is of none of these versions.
            UnderWay: it is being put into the trash, and that takes its time.
            StorageFull: its file cannot be moved now; that is done as soon as it can be.
        """
        self._require_store()
        until = time.monotonic() + WAIT_SECONDS
        while True:
            try:
                claim = self._trash.claim(upload_id, TrashStep.RESTORING, versions)
                break
            except UnderWay:
                if time.monotonic() > until:
                    raise
                time.sleep(0.02)
        return self._put_back(claim, job) or self._uploads.get(upload_id)

    def _require_store(self) -> None:
        """See that the store is there: no file is in one that is not mounted.

        Raises:
            StorageFull: it is not.
        """
        if not self._storage.is_there():
            raise StorageFull

    def _finish(self, claim: RemovalClaim) -> None:
        """Do with the file what its record says."""
        steps: dict[TrashStep, Callable[[RemovalClaim], object]] = {
            TrashStep.MOVING: self._move_to_trash,
            TrashStep.RESTORING: self._put_back,
            TrashStep.REMOVING: self._remove,
        }
        steps[claim.step](claim)

    def _move_to_trash(self, claim: RemovalClaim) -> None:
        filename = claim.upload.filename
        with writing():
            self._storage.trash.put(filename)
        self._storage.forget_thumbnails(filename)
        if self._trash.settle(claim):
            log.info("upload_trashed", upload_id=claim.upload.id)
        else:
            self._follow(claim)

    def _put_back(self, claim: RemovalClaim, job: str | None = None) -> Upload | None:
        """Restore it; None when somebody else has taken that over."""
        with writing():
            self._storage.trash.put_back(claim.upload.filename)
        upload = self._trash.restore(claim, job)
        if upload:
            log.info("upload_restored", upload_id=upload.id)
        else:
            self._follow(claim)
        return upload

    def _remove(self, claim: RemovalClaim) -> None:
        filename = claim.upload.filename
        with writing():
            self._storage.trash.remove(filename)
        self._storage.forget_thumbnails(filename)
        if self._trash.forget(claim):
            log.info("upload_deleted", upload_id=claim.upload.id)
            self._on_deleted(claim.upload)

    def _follow(self, claim: RemovalClaim) -> None:
        """Having come late, let the file be where its record says by now."""
        log.warning("claim_lost", upload_id=claim.upload.id, step=claim.step)
        step = self._trash.step_of(claim.upload.id)
        with writing():
            if step is TrashStep.THERE:
                self._storage.trash.put(claim.upload.filename)
            elif step is None:
                try:
                    self._uploads.get(claim.upload.id)
                except NotFound:
                    self._storage.trash.remove(claim.upload.filename)
                else:
                    self._storage.trash.put_back(claim.upload.filename)

    def resume(self) -> None:
        """Finish some of what was begun and left, and remove some whose time in the trash is over.

        Raises:
            DatabaseUnavailable: it cannot be done now.
            StorageFull: the store is not there.
        """
        self._require_store()
        until = time.monotonic() + ROUND_SECONDS
        for claim in self._trash.begun(AT_A_TIME):
            log.warning("removal_taken_over", upload_id=claim.upload.id, step=claim.step)
            with suppress(StorageFull):  # That is logged; others shall not wait for it.
                self._finish(claim)
        over = now() - timedelta(days=self.trash_days)
        for upload_id in self._trash.removed_before(over, AT_A_TIME):
            if time.monotonic() > until:
                return
            # Somebody may be faster, to restore it or to remove it.
            with suppress(NotFound, StorageFull):
                self._finish(self._trash.claim(upload_id, TrashStep.REMOVING))
