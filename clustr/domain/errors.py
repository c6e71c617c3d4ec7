"""What can go wrong, in the words of the domain.

Every class here has one row in the table of `clustr.api.http.errors`, which turns it into a status
and a problem document. The message of an error is written for the person who called.
"""

from collections.abc import Mapping
from datetime import datetime

# So many fields that are wrong are named in one sentence.
MOST_SAID = 3


class ClustrError(Exception):
    """Anything that Clustr itself reports; never raised as such."""


class InvalidInput(ClustrError):
    """What was sent cannot be used.

    Args:
        errors: for each field that is wrong, what is wrong with it and what is allowed.
    """

    def __init__(self, errors: dict[str, list[str]]):
        said = [f"{name[:100]}: {' '.join(messages)}" for name, messages in errors.items()]
        more = f" And {len(said) - MOST_SAID} more, in `errors`." if len(said) > MOST_SAID else ""
        super().__init__(f"This cannot be used: {' '.join(said[:MOST_SAID])}{more}")
        self.errors = errors


class NotFound(ClustrError):
    """There is nothing under this name."""


class InTrash(NotFound):
    """The upload is in the trash, from which it can be restored.

    Args:
        trashed_at: since when it is there, in UTC.
    """

    def __init__(self, upload_id: str, trashed_at: datetime):
        since = f"{trashed_at:%Y-%m-%d %H:%M:%S} UTC"
        how = f"POST /api/uploads/{upload_id}/restore brings it back"
        super().__init__(f"The upload {upload_id} is in the trash since {since}; {how}.")
        self.trashed_at = trashed_at


class ForeignRecord(NotFound):
    """A record is there, but not as Clustr writes one: nobody is answered by its word."""

    def __init__(self, record_id: object):
        super().__init__(
            f"The record {record_id} is not one that Clustr has written; clustr fsck names it."
        )


class MalformedHost(ClustrError):
    """The name by which the service was called is none that a host can have."""

    def __init__(self) -> None:
        super().__init__("The header Host has to be the name of a host, and perhaps its port.")


class HostNotAllowed(ClustrError):
    """The service was called by a name that it was not told is its own."""

    def __init__(self) -> None:
        super().__init__(
            "This service does not answer to the name by which it was called (the header Host). "
            "If that is its name, set ALLOWED_HOSTS to it, or BASE_URL."
        )


class OriginNotAllowed(ClustrError):
    """A page of an origin that may not call the API asks for something to be changed."""

    def __init__(self) -> None:
        super().__init__(
            "Pages of this origin may not change anything here. Those that may are of the "
            "service's own origin and of the origins in CORS_ORIGINS."
        )


class NoResult(ClustrError):
    """The upload is there, and an analyzer has not said of it what was asked for, or not yet."""


class NotJson(ClustrError):
    """The body is of another type than JSON.

    Args:
        sent: its `Content-Type`; empty when the request has none.
    """

    def __init__(self, sent: str = ""):
        said = f"is of the type {sent[:100]}" if sent else "has no Content-Type"
        super().__init__(f"The body {said}; send JSON with `Content-Type: application/json`.")


class BeingAnswered(ClustrError):
    """The same request, by its key, is being answered at this moment."""

    def __init__(self) -> None:
        super().__init__("A request with this Idempotency-Key is being answered; try again.")


class Outdated(ClustrError):
    """What was to be changed is of another version than the client named."""

    def __init__(
        self,
        said: str = "It was changed since you read it; read it again and see what to change.",
    ) -> None:
        super().__init__(said)


class UnderWay(ClustrError):
    """What was asked for is being done already."""


class NotConfigured(ClustrError):
    """What was asked for needs a service that nobody has named and that was never found."""


class DatabaseUnavailable(ClustrError):
    """MongoDB did not answer in time; trying again later may help."""

    def __init__(self) -> None:
        super().__init__("The database cannot be reached at the moment; please try again.")


class DatabaseRefused(DatabaseUnavailable):
    """MongoDB answered, and did not let us in; the operator has to put that right.

    Args:
        said: what it said, for the operator alone: clients read the same as when it is away.
    """

    def __init__(self, said: str = ""):
        super().__init__()
        self.said = said

    @property
    def for_operator(self) -> str:
        """What is wrong with the settings."""
        return f"MONGODB_URL: MongoDB does not accept its user and password: {self.said}"


class TooSlow(ClustrError):
    """A search took longer than it may."""

    def __init__(self) -> None:
        super().__init__("The search took too long and was ended; narrow it down, or try again.")


class MalformedBody(ClustrError):
    """The body of a request ends too early, or its chunks are none."""

    def __init__(self) -> None:
        super().__init__("The body of the request is cut off, or its chunks are malformed.")


class TooBusy(ClustrError):
    """There is no room to receive the body of a request; trying again later may help."""

    def __init__(self) -> None:
        super().__init__("Too many clients are sending at the moment; please try again.")


class TooManyJobs(ClustrError):
    """As many jobs wait or run as may; there is room once one of them has ended.

    Args:
        most: how many may.
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
    """No file can be written: no space is left where files are kept, or the place is not there."""

    def __init__(self) -> None:
        super().__init__("There is no room to store files at the moment; please try again later.")


class StorageUnavailable(ClustrError):
    """Files cannot be read; trying again later may help."""

    def __init__(self) -> None:
        super().__init__("Files cannot be read at the moment; please try again.")


class BeingMade(ClustrError):
    """Somebody else makes what was asked for, and takes long; trying again later may help."""

    def __init__(self) -> None:
        super().__init__("The thumbnail is still being made; please try again.")


class RefusedFile(ClustrError):
    """One file of a request was not accepted; its `code` is part of the HTTP contract."""

    code: str


class UnsupportedType(RefusedFile):
    """The content is none of the accepted image formats."""

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
