"""Shows how far an import is: bars on a terminal, and now and then a line elsewhere."""

import time
from typing import IO, Protocol

from rich.console import Console
from rich.filesize import decimal
from rich.progress import (
    BarColumn,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as Bars
from rich.text import Text

FILES, BYTES = "files", "bytes"
LINE_EVERY_SECONDS = 10.0


class Progress(Protocol):
    """How far an import is; may be told by several threads."""

    def __enter__(self) -> "Progress": ...

    def __exit__(self, *_: object) -> None: ...

    def expect(self, files: int, size_bytes: int) -> None:
        """Say how much more there is to do."""

    def add_files(self, count: int) -> None:
        """Say that something came of so many files."""

    def add_bytes(self, count: int) -> None:
        """Say that so many bytes are done; fewer than none when they are sent once more."""


def make_progress(console: Console) -> Progress:
    """Make what fits the console."""
    return BarProgress(console) if console.is_terminal else LineProgress(console.file)


class BarProgress:
    """A bar for files and one for bytes, each with its rate and the time that is left."""

    def __init__(self, console: Console):
        columns = (AmountColumn(), RateColumn(), TimeRemainingColumn())
        self._bars = Bars(TextColumn("{task.description}"), BarColumn(), *columns, console=console)
        self._files = self._bars.add_task(FILES, total=0)
        self._bytes = self._bars.add_task(BYTES, total=0)

    def __enter__(self) -> "BarProgress":
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.stop()

    def expect(self, files: int, size_bytes: int) -> None:
        self._expect(self._files, files)
        self._expect(self._bytes, size_bytes)

    def add_files(self, count: int) -> None:
        self._bars.advance(self._files, count)

    def add_bytes(self, count: int) -> None:
        self._bars.advance(self._bytes, count)

    def _expect(self, task: TaskID, count: int) -> None:
        total = self._bars.tasks[task].total or 0
        self._bars.update(task, total=total + count)


class AmountColumn(ProgressColumn):
    """How much is done, of how much."""

    def render(self, task: Task) -> Text:
        return Text(f"{_amount(task, task.completed)} of {_amount(task, task.total or 0)}")


class RateColumn(ProgressColumn):
    """How much is done in a second."""

    def render(self, task: Task) -> Text:
        rate = task.finished_speed or task.speed
        return Text("" if rate is None else f"{_amount(task, rate)}/s")


def _amount(task: Task, count: float) -> str:
    return decimal(int(count)) if task.description == BYTES else f"{count:,.0f}"


class LineProgress:
    """A line every few seconds, for logs."""

    def __init__(self, output: IO[str]):
        self._output = output
        self._files = self._bytes = self._expected_files = self._expected_bytes = 0
        self._began = self._printed = time.monotonic()

    def __enter__(self) -> "LineProgress":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def expect(self, files: int, size_bytes: int) -> None:
        self._expected_files += files
        self._expected_bytes += size_bytes

    def add_files(self, count: int) -> None:
        self._files += count
        now = time.monotonic()
        if now - self._printed >= LINE_EVERY_SECONDS:
            self._printed = now
            print(self._line(now - self._began), file=self._output, flush=True)

    def add_bytes(self, count: int) -> None:
        self._bytes += count

    def _line(self, seconds: float) -> str:
        rate = self._bytes / seconds
        left = max(0, self._expected_bytes - self._bytes)
        return (
            f"{self._files:,} of {self._expected_files:,} files, "
            f"{decimal(self._bytes)} of {decimal(self._expected_bytes)}, {decimal(int(rate))}/s, "
            f"{left / rate if rate else 0:.0f} s left"
        )
