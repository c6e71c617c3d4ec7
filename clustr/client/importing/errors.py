"""What ends an import, and what keeps one file out of it."""


class ImportStopped(Exception):
    """The import cannot go on; the message says why and what to do."""


class Interrupted(Exception):
    """The person at the terminal has ended the import."""


class UnreadableFile(Exception):
    """A file cannot be read, or changes while it is; the message says which."""
