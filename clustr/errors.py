"""What can go wrong, in the words of the domain.

Every class here has one row in the table of `clustr.api.errors`, which turns it into a status and
a problem document. The message of an error is written for the person who called.
"""


class ClustrError(Exception):
    """Anything that Clustr itself reports; never raised as such."""


class InvalidInput(ClustrError):
    """What was sent cannot be used.

    Args:
        errors: for each field that is wrong, what is wrong with it and what is allowed.
    """

    def __init__(self, errors: dict[str, list[str]]):
        super().__init__("Some of what was sent cannot be used; `errors` says what and why.")
        self.errors = errors


class NotFound(ClustrError):
    """There is nothing under this name."""


class DatabaseUnavailable(ClustrError):
    """MongoDB did not answer in time; trying again later may help."""

    def __init__(self) -> None:
        super().__init__("The database cannot be reached at the moment; please try again.")


class QueueUnavailable(ClustrError):
    """Redis did not answer in time; trying again later may help."""

    def __init__(self) -> None:
        super().__init__("The queue cannot be reached at the moment; please try again.")


class StorageFull(ClustrError):
    """No space is left where files are kept."""

    def __init__(self) -> None:
        super().__init__("There is no space left to store files.")


class StorageUnavailable(ClustrError):
    """Files cannot be written or read for another reason than space."""

    def __init__(self) -> None:
        super().__init__("Files cannot be stored at the moment; please try again.")


class RefusedFile(ClustrError):
    """One file of a request was not accepted; its `code` is part of the HTTP contract."""

    code: str


class UnsupportedType(RefusedFile):
    code = "unsupported_type"


class TooLarge(RefusedFile):
    code = "too_large"


class TooManyPixels(RefusedFile):
    code = "too_many_pixels"


class Undecodable(RefusedFile):
    code = "undecodable"


class Empty(RefusedFile):
    code = "empty"


class NoFiles(RefusedFile):
    code = "no_files"


class StartUpError(ClustrError):
    """The service cannot start; the message is one sentence that names the setting to look at."""
