"""Records in the audit log what a request does."""

from contextlib import AbstractContextManager

from flask import request

from clustr.api.http.access import current_access
from clustr.api.http.request_context import components, request_id
from clustr.domain.audit import Actor, AuditAction


def recording(
    action: AuditAction, upload_id: str | None = None
) -> AbstractContextManager[dict[str, str]]:
    """Record what the block does, by the current request (see `AuditLog.record`):

        with recording(AuditAction.TRASH_UPLOAD, upload_id):
            components.removal.remove(upload_id)

    Yields:
        the details of the entry, to which the block adds. They must hold nothing secret.

    Raises:
        DatabaseUnavailable: there is no entry, and the block was not run.
    """
    actor = Actor(current_access().name or None, request.remote_addr, request_id())
    return components.audit.record(action, actor, upload_id)
