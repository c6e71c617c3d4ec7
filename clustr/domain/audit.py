"""What the audit log says: who did what, and what came of it."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum


class AuditAction(StrEnum):
    """What is recorded."""

    TRASH_UPLOAD = "trash_upload"
    PURGE_UPLOAD = "purge_upload"
    RESTORE_UPLOAD = "restore_upload"
    ORDER_JOB = "order_job"
    CANCEL_JOB = "cancel_job"
    CREATE_KEY = "create_key"
    ROTATE_KEY = "rotate_key"
    REVOKE_KEY = "revoke_key"
    SHARE_UPLOAD = "share_upload"
    REVOKE_SHARE = "revoke_share"
    LOG_IN = "log_in"
    LOG_OUT = "log_out"


class AuditOutcome(StrEnum):
    """What came of it; `begun` when nobody came to write that down, such as a killed process."""

    BEGUN = "begun"
    DONE = "done"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Actor:
    """Who does something; None where it is not known or there is none.

    Attributes:
        key: the name of the key of the request.
        address: from where the request comes.
        request_id: the id of the request, which the logs have, too.
    """

    key: str | None
    address: str | None
    request_id: str | None


# Somebody with an account on the host of the service.
COMMAND_LINE = Actor(None, None, None)


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """One entry of the audit log.

    Attributes:
        action: an `AuditAction` of the release that wrote it.
        upload_id: what it was done to, if that is an upload.
        details: plain values, which depend on the action, such as the id of a job.
    """

    id: str
    at: datetime
    action: str
    outcome: str
    actor: Actor
    upload_id: str | None
    details: Mapping[str, str]
