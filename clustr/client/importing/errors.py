"""What ends an import, and what keeps one file out of it."""


class ImportStopped(Exception):
    """The import cannot go on; the message says why and what to do."""


class QuotaSpent(Exception):
    """The key may bring no more for now; the message is that of the service.

    Args:
        pause_seconds: until it may bring what it was not allowed to.
    """

    def __init__(self, detail: str, pause_seconds: float):
        super().__init__(detail)
        self.pause_seconds = pause_seconds


class Interrupted(Exception):
    """The person at the terminal has ended the command."""


class UnreadableFile(Exception):
    """A file cannot be read, or changes while it is; the message says which."""
