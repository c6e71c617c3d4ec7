"""Work with plugins in a process of its own, for it may hang, print, or end the process."""

import json
import os
import select
import signal
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from clustr.supervisor import processes

STANDARD_INPUT, STANDARD_OUTPUT, STANDARD_ERROR = 0, 1, 2
LOOK_SECONDS = 0.05
PRINTED = 2000
END = None  # The last message of a process that came to its end, for 0 is no proof of that.

Send = Callable[[Any], None]


@dataclass(frozen=True, slots=True)
class ChildResult:
    """What came of it.

    Attributes:
        sent: the messages of the process, as JSON carries them.
        printed: the beginning of what it printed.
        failure: why it did not come to its end, if it did not.
    """

    sent: list[Any]
    printed: str
    failure: str | None


def run_in_child(run: Callable[[Send], None], seconds: float) -> ChildResult:
    """Run a function in a fork of this process.

    Args:
        run: is given what sends a message to this process.
        seconds: how long it may take from one message to the next.
    """
    with tempfile.TemporaryFile() as output:
        reader, writer = os.pipe()
        pid = processes.function_starter(lambda: _be_child(run, writer, output.fileno()))().pid
        os.close(writer)
        with os.fdopen(reader, "rb", buffering=0) as pipe:
            lines, status = _listen(pipe.fileno(), pid, seconds)
        output.seek(0)
        printed = output.read(PRINTED).decode(errors="replace").strip()
    sent = [json.loads(line) for line in lines]
    ended = sent[-1:] == [END]
    return ChildResult(sent[:-1] if ended else sent, printed, _failure(status, ended, seconds))


def _be_child(run: Callable[[Send], None], writer: int, output: int) -> int:
    os.dup2(os.open(os.devnull, os.O_RDONLY), STANDARD_INPUT)
    os.dup2(output, STANDARD_OUTPUT)
    os.dup2(output, STANDARD_ERROR)

    def send(message: Any) -> None:
        # In ASCII, where everything can be said that may be in the text of a plugin.
        line = json.dumps(message, default=str, skipkeys=True).encode() + b"\n"
        while line:
            line = line[os.write(writer, line) :]

    run(send)
    send(END)
    return 0


def _listen(reader: int, pid: int, seconds: float) -> tuple[list[bytes], int | None]:
    """All that a process sends, and its wait status; None when it had to be ended."""
    received = b""
    limit = time.monotonic() + seconds
    status: int | None = None
    ended = False
    while not ended and time.monotonic() < limit:
        # What is in the pipe once the process has ended is all that there will be: its end may
        # never come, for a process that the plugin began can hold it.
        done, found = os.waitpid(pid, os.WNOHANG)
        status, ended = (found, True) if done else (None, False)
        while select.select([reader], [], [], 0 if ended else LOOK_SECONDS)[0]:
            chunk = os.read(reader, 65536)
            if not chunk:
                time.sleep(0.002)
                break
            received += chunk
            if b"\n" in chunk:
                limit = time.monotonic() + seconds
    with suppress(ProcessLookupError):  # It began a session: also what it began is ended.
        os.killpg(pid, signal.SIGKILL)
    if not ended:
        os.waitpid(pid, 0)
    return received.split(b"\n")[:-1], status


def _failure(status: int | None, ended: bool, seconds: float) -> str | None:
    if status is None:
        return f"it did not end within {seconds:g} seconds"
    code = os.waitstatus_to_exitcode(status)
    if code < 0:
        names = {number.value: number.name for number in signal.Signals}
        return f"it crashed its process, by {names.get(-code, f'signal {-code}')}"
    return None if ended else f"it ended its process, with exit code {code}"
