"""The audit log: keeps who did what."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

from clustr import logs
from clustr.database import Database
from clustr.domain.audit import Actor, AuditAction, AuditOutcome
from clustr.domain.errors import DatabaseUnavailable

log = logs.logger(__name__)


class AuditLog:
    """Records acts.

    Args:
        days: how long an entry is kept.
    """

    def __init__(self, database: Database, days: int):
        self._audit = database.audit
        self._kept = timedelta(days=days)

    @contextmanager
    def record(
        self, action: AuditAction, actor: Actor, upload_id: str | None = None
    ) -> Iterator[dict[str, str]]:
        """Record what the block does:

            with audit.record(AuditAction.CREATE_KEY, COMMAND_LINE) as details:
                details["name"] = make_key().name

        The entry is written before the block, so that nothing is done without one: while the
        database does not answer, the block is not run. After the block it says whether it failed.
        Views call `clustr.api.http.audit.recording` instead, which knows who makes the request.

        Yields:
            the details of the entry, to which the block adds. They must hold nothing secret.

        Raises:
            DatabaseUnavailable: there is no entry, and the block was not run.
        """
        details: dict[str, str] = {}
        entry_id = self._audit.add(action, actor, upload_id, self._kept)
        try:
            yield details
        except BaseException:
            self._finish(entry_id, AuditOutcome.FAILED, details)
            raise
        self._finish(entry_id, AuditOutcome.DONE, details)

    def _finish(self, entry_id: str, outcome: AuditOutcome, details: dict[str, str]) -> None:
        try:
            self._audit.finish(entry_id, outcome, details)
        except DatabaseUnavailable as error:  # It is done; the entry goes on saying that it began.
            log.warning("audit_not_finished", entry=entry_id, outcome=outcome, reason=str(error))
