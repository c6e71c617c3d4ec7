"""What came of each file: counted, and written down where a person has to look."""

import csv
import os
from collections import Counter
from collections.abc import Callable
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import IO, Any

from clustr.client.importing.errors import ImportStopped

COLUMNS = ("path", "outcome", "code", "detail")


class Outcome(StrEnum):
    """What can come of a file or folder, in the words of the table."""

    UPLOADED = "uploaded"
    MISSING = "would be uploaded"
    PRESENT = "there already"
    REFUSED = "refused"
    OVER_QUOTA = "not sent, for the key may bring no more for now"
    UNREADABLE = "cannot be read"
    WORDS_LOST = "words that were lost"
    LINK_OUT = "links that lead out of the folder, not followed"
    HIDDEN = "hidden, left out"
    SYSTEM_FOLDER = "system folders, left out"
    UNUSED_SIDECAR = "sidecars (.xmp, .json) of no picture here"
    OTHER = "other files, left out"

    @property
    def needs_attention(self) -> bool:
        """Whether something should have come into the service, and did not."""
        return self in (
            Outcome.REFUSED,
            Outcome.OVER_QUOTA,
            Outcome.UNREADABLE,
            Outcome.WORDS_LOST,
        )


# Is told of a file or folder that is left out, and why.
Note = Callable[[Outcome, Path, str], None]


class Ledger:
    """Counts what came of files, and writes those that need attention into a report.

    Args:
        report: where to write it, as CSV; it is made with the first line that comes into it.

    Attributes:
        room_at: when the key may bring the first of what it may not for now; None: it may.
    """

    def __init__(self, report: Path):
        self.report = report
        self.counts: Counter[tuple[Outcome, str]] = Counter()
        self.sizes_bytes: Counter[tuple[Outcome, str]] = Counter()
        self.room_at: datetime | None = None
        self._file: IO[str] | None = None

    def __enter__(self) -> "Ledger":
        return self

    def __exit__(self, *_: object) -> None:
        if self._file:
            self._file.close()

    def note(self, outcome: Outcome, path: Path, detail: str = "") -> None:
        """Record what is said of a file or folder before anything is sent."""
        self.record(outcome, path, detail=detail)

    def record(
        self, outcome: Outcome, path: Path, size_bytes: int = 0, code: str = "", detail: str = ""
    ) -> None:
        """Record what came of a file.

        Args:
            code: the kind of refusal, such as `too_large`.
            detail: why, in a sentence.
        """
        self.counts[outcome, code] += 1
        self.sizes_bytes[outcome, code] += size_bytes
        if outcome.needs_attention:
            self._write(_printable(path), outcome, code, detail)

    def note_room(self, at: datetime) -> None:
        """Note that the key may bring one of the files at that time."""
        self.room_at = at if self.room_at is None else min(self.room_at, at)

    @property
    def is_clean(self) -> bool:
        """Whether all that should have come into the service is there."""
        return not any(outcome.needs_attention for outcome, _ in self.counts)

    def _write(self, *row: Any) -> None:
        if self._file is None:
            try:
                self._file = self.report.open("w", newline="", encoding="utf-8")
            except OSError as error:
                reason = f"the report {self.report} cannot be written: {error.strerror}"
                raise ImportStopped(f"{reason}; name another place with --report") from error
            self._writer = csv.writer(self._file)
            self._writer.writerow(COLUMNS)
        self._writer.writerow(row)
        self._file.flush()  # so that it is there also when the import is killed


def _printable(path: Path) -> str:
    """A path whose bytes may be no UTF-8, as text."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")
