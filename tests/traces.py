"""What a process asks of its system, by strace: to prove in which order, and to let it go wrong.

A call is written down when it begins; one that is killed has no result. Calls of one thread are in
the order in which they were made.
"""

import re
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

SHOWN_BYTES = 400  # of what is sent and received

LINE = re.compile(r"(?P<thread>\d+) +(?P<text>[<\w].*)")  # what is no signal and no end
ENDED = re.compile(
    r"(?P<name>\w+)\((?P<arguments>.*)\) += (?:\?|(?P<result>-?\w+))(?: (?P<error>E\w+))?.*"
)
BEGUN = re.compile(r"(?P<name>\w+)\((?P<arguments>.*?) ?(?:<unfinished \.\.\.>)?")
RESUMED = re.compile(r"<\.\.\. \w+ resumed>(?P<rest>.*)")
DESCRIPTOR = re.compile(r"\d+<(?P<what>.*?)>(?:\(deleted\))?(?:, .*)?")


class Call(NamedTuple):
    """One system call.

    Attributes:
        arguments: as strace shows them, a descriptor with what it stands for.
        result: what it returned; None when it did not return.
        error: the name of the error that it returned, if it did.
    """

    thread: int
    name: str
    arguments: str
    result: int | None = None
    error: str | None = None

    @property
    def target(self) -> str:
        """What its first argument stands for: the path of a file, or `TCP:[from->to]`."""
        found = DESCRIPTOR.fullmatch(self.arguments)
        return found["what"] if found else ""

    def sends_to(self, port: int) -> bool:
        """Whether it sends something to a server on this port."""
        return self.name in ("sendto", "sendmsg") and f"->127.0.0.1:{port}]" in self.target


def read(log: Path) -> list[Call]:
    """The calls in a log of strace, in the order in which they began."""
    calls: list[Call] = []
    unfinished: dict[int, int] = {}
    for line in log.read_text(errors="replace").splitlines():
        found = LINE.fullmatch(line)
        if not found:
            continue
        thread, text = int(found["thread"]), found["text"]
        if resumed := RESUMED.fullmatch(text):
            if thread in unfinished:  # Else it began before it was traced.
                position = unfinished.pop(thread)
                begun = calls[position]
                calls[position] = _call(thread, f"{begun.name}({begun.arguments}{resumed['rest']}")
        else:
            if "<unfinished" in text:
                unfinished[thread] = len(calls)
            calls.append(_call(thread, text))
    return calls


def _call(thread: int, text: str) -> Call:
    if ended := ENDED.fullmatch(text):
        # It is a question mark where the call did not return, and some are hexadecimal.
        result = int(ended["result"], 0) if ended["result"] else None
        return Call(thread, ended["name"], ended["arguments"], result, ended["error"])
    begun = BEGUN.fullmatch(text)
    return Call(thread, begun["name"], begun["arguments"])


@contextmanager
def traced(pid: int, log: Path, *options: str) -> Iterator[None]:
    """Trace a process with all its threads; `read` the log when it is over.

    Args:
        options: of strace, such as `-e inject=…`.
    """
    arguments = ["-f", "-yy", "-s", str(SHOWN_BYTES), "-o", str(log), "-p", str(pid)]
    tracer = subprocess.Popen(["strace", *arguments, *options], stderr=subprocess.PIPE, text=True)
    try:
        said = tracer.stderr.readline()
        # From this line on no thread runs without being traced.
        assert "attached" in said, said
        yield
    finally:
        if tracer.poll() is None:
            tracer.send_signal(signal.SIGINT)
        try:
            tracer.communicate(timeout=5)
        except subprocess.TimeoutExpired:  # It hangs when the process is killed at that moment.
            tracer.kill()
            tracer.communicate()


def impossible() -> str | None:
    """Why processes cannot be traced here, if that is so."""
    if not shutil.which("strace"):
        return "strace is not installed"
    with subprocess.Popen(["sleep", "60"]) as process:
        try:
            with traced(process.pid, Path("/dev/null")):
                return None
        except AssertionError as error:
            return f"strace cannot trace here: {error}"
        finally:
            process.kill()
