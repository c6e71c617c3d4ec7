"""The errors of the domain.

Every class that a request can raise has one row in the table of `clustr.api.http.errors`, which
maps it to an HTTP status and a problem document. The messages are written for clients.
"""

from collections.abc import Iterable, Mapping
from datetime import datetime
from math import ceil

from clustr.domain.quotas import BYTES, REQUESTS, WRONG_KEYS, Standing

# A message names at most this many invalid fields.
MAX_LISTED_ERRORS = 3


class ClustrError(Exception):
    """The base of all errors that Clustr raises; not raised itself."""


class InvalidInput(ClustrError):
    """The input is invalid.

    Args:
        errors: for each invalid field, what is wrong with it and what is allowed.
    """

    def __init__(self, errors: dict[str, list[str]]):
        said = [f"{name[:100]}: {' '.join(messages)}" for name, messages in errors.items()]
        more = (
            f" And {len(said) - MAX_LISTED_ERRORS} more, in `errors`."
            if len(said) > MAX_LISTED_ERRORS
            else ""
        )
        super().__init__(f"This cannot be used: {' '.join(said[:MAX_LISTED_ERRORS])}{more}")
        self.errors = errors


class NotFound(ClustrError):
    """Nothing with this name or id exists."""


class InTrash(NotFound):
    """The upload is in the trash, from which it can be restored.

    Args:
        trashed_at: when it was moved there, in UTC.
    """

    def __init__(self, upload_id: str, trashed_at: datetime):
        since = f"{trashed_at:%Y-%m-%d %H:%M:%S} UTC"
        how = f"POST /api/uploads/{upload_id}/restore brings it back"
        super().__init__(f"The upload {upload_id} is in the trash since {since}; {how}.")
        self.upload_id = upload_id
        self.trashed_at = trashed_at


class ForeignRecord(NotFound):
    """A record exists that Clustr has not written; its content is not sent to clients."""

    def __init__(self, record_id: object):
        super().__init__(
            f"The record {record_id} is not one that Clustr has written; clustr fsck names it."
        )


class MalformedHost(ClustrError):
    """The Host header of the request is not a valid host name."""

    def __init__(self) -> None:
        super().__init__("The header Host has to be the name of a host, and perhaps its port.")


class HostNotAllowed(ClustrError):
    """The Host header of the request names a host that is not allowed."""

    def __init__(self) -> None:
        super().__init__(
            "This service does not answer to the name by which it was called (the header Host). "
            "If that is its name, set ALLOWED_HOSTS to it, or BASE_URL."
        )


class OriginNotAllowed(ClustrError):
    """A page of an origin that is not allowed has sent a request that changes something."""

    def __init__(self) -> None:
        super().__init__(
            "Pages of this origin may not change anything here. Those that may are of the "
            "service's own origin and of the origins in CORS_ORIGINS."
        )


class AddressAltered(ClustrError):
    """The signature of an address is not that of this address."""

    def __init__(self) -> None:
        super().__init__(
            "This address is not as it was given: something in it was altered, left out or added, "
            "or the key that signed it is not used any more. Take it anew from an answer."
        )


class AddressExpired(ClustrError):
    """A signed address is used after its time."""

    def __init__(self) -> None:
        super().__init__("The time of this address is over. Take it anew from an answer.")


class AddressRevoked(ClustrError):
    """A signed address belongs to a share that was revoked."""

    def __init__(self) -> None:
        super().__init__("This address was revoked by those who gave it.")


class TooManyShares(ClustrError):
    """An upload has as many shares as it may have.

    Args:
        most: the limit.
    """

    def __init__(self, most: int):
        super().__init__(
            f"This upload has {most} shares, as many as it may have at once. DELETE "
            "/api/uploads/{upload_id}/shares/{share_id} revokes one, without {share_id} all."
        )


class KeyRequired(ClustrError):
    """The request has to come with a key, and has none."""

    def __init__(self) -> None:
        super().__init__(
            "This needs a key: send it as `Authorization: Bearer clustr_…` or `X-API-Key: "
            "clustr_…`. `clustr keys create` makes one, or whoever runs this service has one made."
        )


class KeyMistyped(ClustrError):
    """What the request sent as a key cannot be one: its checksum is wrong."""

    def __init__(self) -> None:
        super().__init__(
            "This key is mistyped or cut off: its checksum is wrong. A key is clustr_ and 49 "
            "letters and digits."
        )


class KeyRefused(ClustrError):
    """There is no such key, or it was revoked."""

    def __init__(self) -> None:
        super().__init__("This service has no such key, or it was revoked.")


class KeyExpired(ClustrError):
    """The key was valid until some time, which has passed."""

    def __init__(self) -> None:
        super().__init__("This key has expired; `clustr keys rotate` gives it another text.")


class SessionEnded(ClustrError):
    """The cookie of the request is of no session that goes on."""

    def __init__(self) -> None:
        super().__init__(
            "This session has ended, or its key is not valid any more. Log in again with `POST "
            "/api/session`."
        )


class CsrfTokenRequired(ClustrError):
    """A request with the cookie of a session changes something, and lacks the session's token."""

    def __init__(self) -> None:
        super().__init__(
            "This changes something and came with the cookie of a session, so it needs the header "
            "X-CSRF-Token with the `csrf_token` of this session, which `GET /api/session` says."
        )


class TwoKeys(ClustrError):
    """The request came with two different keys."""

    def __init__(self) -> None:
        super().__init__("Authorization and X-API-Key have two different keys; send one of them.")


class MissingScope(ClustrError):
    """The key of the request lacks the scope that is needed.

    Args:
        scopes: those of which one is needed.
    """

    def __init__(self, scopes: Iterable[str]):
        self.scopes = sorted(scopes)
        super().__init__(f"This needs a key with the scope {' or '.join(self.scopes)}.")


class QuotaExceeded(ClustrError):
    """More of something came from one side than its limit allows.

    Args:
        standing: what it is, and when there is enough again.
        by_key: whether the limit is that of a key; else it is that of an address.
    """

    def __init__(self, standing: Standing, by_key: bool = False):
        self.standing = standing
        quota = standing.quota
        whence = "with this key" if by_key else "from where this one does"
        what = {
            REQUESTS: f"More than {quota.amount} requests within {quota.seconds} seconds came "
            f"{whence}",
            BYTES: f"With this key {quota.amount} bytes may be uploaded in a day, of which "
            f"{standing.remaining} are left, and the request is larger",
            WRONG_KEYS: f"More than {quota.amount} wrong keys within {quota.seconds} seconds came "
            "from your address, from where only a right one is answered now",
        }[quota.name]
        super().__init__(f"{what}. Try again in {ceil(standing.seconds)} seconds.")


class LargerThanQuota(ClustrError):
    """The request has more bytes than its key may ever bring in a day."""

    def __init__(self, size_bytes: int, bytes_per_day: int):
        super().__init__(
            f"With this key {bytes_per_day} bytes may be uploaded in a day, and the request alone "
            f"has {size_bytes}. Send fewer files at once, smaller ones, or use another key."
        )


class TooManyAtOnce(ClustrError):
    """Too many requests with the same key are being answered."""

    def __init__(self) -> None:
        super().__init__(
            "Too many requests with this key are being answered at the moment; send fewer of them "
            "at once."
        )


class NameTaken(ClustrError):
    """A key of this name exists already."""

    def __init__(self, name: str) -> None:
        super().__init__(
            f"There is a key with the name {name} already; rotate it, revoke it, or choose another "
            "name."
        )


class NoResult(ClustrError):
    """The upload exists, but lacks the requested result of an analyzer, at least for now."""


class NotJson(ClustrError):
    """The body of the request is not declared as JSON.

    Args:
        sent: its `Content-Type`; empty when the request has none.
    """

    def __init__(self, sent: str = ""):
        said = f"is of the type {sent[:100]}" if sent else "has no Content-Type"
        super().__init__(f"The body {said}; send JSON with `Content-Type: application/json`.")


class BeingAnswered(ClustrError):
    """Another request with the same `Idempotency-Key` is being answered at this moment."""

    def __init__(self) -> None:
        super().__init__("A request with this Idempotency-Key is being answered; try again.")


class Outdated(ClustrError):
    """The upload to change has another version than the client named."""

    def __init__(
        self,
        said: str = "It was changed since you read it; read it again and see what to change.",
    ) -> None:
        super().__init__(said)


class UnderWay(ClustrError):
    """The requested work is in progress already."""


class NotConfigured(ClustrError):
    """The request needs a service that is not configured and was never found."""


class PluginNotLoaded(ClustrError):
    """The request needs a plugin that is there and could not be loaded, or is switched off."""


class DatabaseUnavailable(ClustrError):
    """MongoDB did not answer in time; trying again later may help."""

    def __init__(self) -> None:
        super().__init__("The database cannot be reached at the moment; please try again.")


class KeyNotChecked(DatabaseUnavailable):
    """MongoDB did not answer in time, and the key of the request is not known without it."""

    def __str__(self) -> str:
        return (
            "The key cannot be checked, because the database cannot be reached at the moment; "
            "please try again."
        )


class DatabaseRefused(DatabaseUnavailable):
    """MongoDB refused our credentials; the operator has to correct the settings.

    Args:
        said: MongoDB's message, for the operator alone: clients get that of `DatabaseUnavailable`.
    """

    def __init__(self, said: str = ""):
        super().__init__()
        self.said = said

    @property
    def for_operator(self) -> str:
        """The message for the operator."""
        return f"MONGODB_URL: MongoDB does not accept its user and password: {self.said}"


class TooSlow(ClustrError):
    """A search exceeded its time limit."""

    def __init__(self) -> None:
        super().__init__("The search took too long and was ended; narrow it down, or try again.")


class MalformedBody(ClustrError):
    """The body of a request is cut off, or its chunked encoding is invalid."""

    def __init__(self) -> None:
        super().__init__("The body of the request is cut off, or its chunks are malformed.")


class TooBusy(ClustrError):
    """Too many bodies of requests are being received; trying again later may help."""

    def __init__(self) -> None:
        super().__init__("Too many clients are sending at the moment; please try again.")


class TooManyJobs(ClustrError):
    """The limit of unfinished jobs is reached.

    Args:
        most: the limit.
    """

    def __init__(self, most: int):
        super().__init__(
            f"{most} jobs wait or run, which is as many as may at once. Try again when one of them "
            "has ended; GET /api/jobs lists them, and POST /api/jobs/{job_id}/cancel ends one."
        )


class QueueUnavailable(ClustrError):
    """Redis did not answer in time; trying again later may help."""

    def __init__(self) -> None:
        super().__init__("The queue cannot be reached at the moment; please try again.")


class StorageFull(ClustrError):
    """No file can be written: the disk is full, or the folder is missing."""

    def __init__(self) -> None:
        super().__init__("There is no room to store files at the moment; please try again later.")


class StorageUnavailable(ClustrError):
    """Files cannot be read; trying again later may help."""

    def __init__(self) -> None:
        super().__init__("Files cannot be read at the moment; please try again.")


class BeingPrepared(ClustrError):
    """Uploads of an older version have not been given their local dates yet."""

    def __init__(self) -> None:
        super().__init__(
            "After an update a worker notes the local dates of all uploads once; by then their "
            "order is known. Please try again, or take another `sort`."
        )


class BeingMade(ClustrError):
    """Another process is still making the requested thumbnail; trying again later may help."""

    def __init__(self) -> None:
        super().__init__("The thumbnail is still being made; please try again.")


class MetadataNotRemovable(ClustrError):
    """The metadata of an original may not be sent, and cannot be told from its picture."""

    def __init__(self) -> None:
        super().__init__(
            "The metadata of this image may not be sent, and cannot be told from its picture in "
            "this file. Its thumbnail can be had; saved anew by another program, the image could "
            "be had as well."
        )


class BeingRead(ClustrError):
    """This host is still reading the vectors that a search needs; trying again later may help.

    Args:
        read, total: how many of them it has read, if that is known.
    """

    def __init__(self, read: int | None = None, total: int | None = None):
        progress = f" ({read} of {total})" if read is not None else ""
        super().__init__(
            f"The vectors are still being read from the database{progress}; please try again."
        )


class RefusedFile(ClustrError):
    """One file of a request was not accepted; its `code` is part of the HTTP contract."""

    code: str


class UnsupportedType(RefusedFile):
    """The content is not of an accepted image format."""

    code = "unsupported_type"


class TooLarge(RefusedFile):
    """The file has more bytes than are allowed."""

    code = "too_large"


class TooManyPixels(RefusedFile):
    """The image has more pixels than are allowed."""

    code = "too_many_pixels"


class Undecodable(RefusedFile):
    """It looks like an image, but its pixels cannot be read."""

    code = "undecodable"


class Empty(RefusedFile):
    """The file has no bytes."""

    code = "empty"


class NoFiles(RefusedFile):
    """The request has no file."""

    code = "no_files"


class StartUpError(ClustrError):
    """The service cannot start; the message is one sentence that names the setting to look at."""


class InvalidSettings(StartUpError):
    """Settings that cannot be used.

    Attributes:
        problems: what is wrong with each, by its name.
    """

    def __init__(self, problems: Mapping[str, str]):
        super().__init__("; ".join(problems.values()))
        self.problems = problems
