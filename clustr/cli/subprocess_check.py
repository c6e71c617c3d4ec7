"""Runs code of plugins in a child process, because it may hang, print, or end the process."""

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

from clustr.supervisor.forking import function_starter

STANDARD_INPUT, STANDARD_OUTPUT, STANDARD_ERROR = 0, 1, 2
POLL_SECONDS = 0.05
MAX_PRINTED_BYTES = 2000
END_MESSAGE = None  # Sent last: exit code 0 does not prove that the function returned.

Send = Callable[[Any], None]


@dataclass(frozen=True, slots=True)
class ChildResult:
    """The messages and the outcome of a child process.

    Attributes:
        sent: the messages, after a round trip through JSON.
        printed: the first `MAX_PRINTED_BYTES` of its standard output and standard error.
        failure: why the function did not return; None when it did.
    """

    sent: list[Any]
    printed: str
    failure: str | None


def run_in_child(run: Callable[[Send], None], seconds: float) -> ChildResult:
    """Run a function in a fork of this process.

    Args:
        run: the function; its argument sends a message to this process.
        seconds: how long it may take from one message to the next, before it is killed.
    """
    with tempfile.TemporaryFile() as output:
        reader, writer = os.pipe()
        pid = function_starter(lambda: _run_child(run, writer, output.fileno()))().pid
        os.close(writer)
        with os.fdopen(reader, "rb", buffering=0) as pipe:
            lines, status = _receive_messages(pipe.fileno(), pid, seconds)
        output.seek(0)
        printed = output.read(MAX_PRINTED_BYTES).decode(errors="replace").strip()
    sent = [json.loads(line) for line in lines]
    ended = sent[-1:] == [END_MESSAGE]
    return ChildResult(
        sent[:-1] if ended else sent, printed, _failure_message(status, ended, seconds)
    )


def _run_child(run: Callable[[Send], None], writer: int, output: int) -> int:
    os.dup2(os.open(os.devnull, os.O_RDONLY), STANDARD_INPUT)
    os.dup2(output, STANDARD_OUTPUT)
    os.dup2(output, STANDARD_ERROR)

    def send(message: Any) -> None:
        # In ASCII, because `json` escapes lone surrogates, which UTF-8 cannot encode.
        line = json.dumps(message, default=str, skipkeys=True).encode() + b"\n"
        while line:
            line = line[os.write(writer, line) :]

    run(send)
    send(END_MESSAGE)
    return 0


def _receive_messages(reader: int, pid: int, seconds: float) -> tuple[list[bytes], int | None]:
    """Return the messages of a process, a line each, and its wait status; None if killed."""
    received = b""
    deadline = time.monotonic() + seconds
    status: int | None = None
    ended = False
    while not ended and time.monotonic() < deadline:
        # Once the process has ended, its messages are all in the pipe. Do not wait for the end of
        # the pipe: a process that the plugin started can hold it open.
        ended_pid, child_status = os.waitpid(pid, os.WNOHANG)
        status, ended = (child_status, True) if ended_pid else (None, False)
        while select.select([reader], [], [], 0 if ended else POLL_SECONDS)[0]:
            chunk = os.read(reader, 65536)
            if not chunk:
                time.sleep(0.002)
                break
            received += chunk
            if b"\n" in chunk:
                deadline = time.monotonic() + seconds
    with suppress(ProcessLookupError):  # It leads a session: its own children are killed, too.
        os.killpg(pid, signal.SIGKILL)
    if not ended:
        os.waitpid(pid, 0)
    return received.split(b"\n")[:-1], status


def _failure_message(status: int | None, ended: bool, seconds: float) -> str | None:
    if status is None:
        return f"it did not end within {seconds:g} seconds"
    code = os.waitstatus_to_exitcode(status)
    if code < 0:
        names = {number.value: number.name for number in signal.Signals}
        return f"it crashed its process, by {names.get(-code, f'signal {-code}')}"
    return None if ended else f"it ended its process, with exit code {code}"
