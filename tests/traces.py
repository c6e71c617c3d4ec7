"""What a process asks of its system, by strace: to prove in which order, and to let it go wrong.

A call is written down when it begins; one that is killed has no result. Calls of one thread are in
the order in which they were made.
"""

import re
import shutil
import signal
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

SHOWN_BYTES = 400  # of what is sent and received

LINE = re.compile(r"(?P<thread>\d+) (?P<time>\d+\.\d+) (?P<rest>.*)")
CALL = re.compile(r"(?P<name>\w+)\((?P<arguments>.*)\) += (?P<result>-?\w+)?(?P<more>.*)")
CUT = re.compile(r"(?P<name>\w+)\((?P<arguments>.*?),? *(?:<unfinished \.\.\.>)?$")
RESUMED = re.compile(r"<\.\.\. (?P<name>\w+) resumed>,?(?P<rest>.*)")
DESCRIPTOR = re.compile(r"\d+<(?P<what>[^>]*(?:->[^>]*)?)>")


class Call(NamedTuple):
    """One system call.

    Attributes:
        began_at: in seconds since 1970.
        arguments: as strace shows them, a descriptor with what it stands for.
        result: what it returned; None when it did not return.
    """

    thread: int
    began_at: float
    name: str
    arguments: str
    result: int | None

    @property
    def target(self) -> str:
        """What its first argument stands for: the path of a file, or `TCP:[from->to]`."""
        found = DESCRIPTOR.match(self.arguments)
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
        if not found or found["rest"].startswith(("---", "+++")):
            continue
        thread, text = int(found["thread"]), found["rest"]
        if resumed := RESUMED.fullmatch(text):
            if (position := unfinished.pop(thread, None)) is None:
                continue  # It began before there was a trace.
            whole = f"{calls[position].name}({calls[position].arguments}{resumed['rest']}"
            if ended := CALL.fullmatch(whole):
                calls[position] = calls[position]._replace(
                    arguments=ended["arguments"], result=_number(ended["result"])
                )
        elif ended := CALL.fullmatch(text):
            result = _number(ended["result"])
            calls.append(
                Call(thread, float(found["time"]), ended["name"], ended["arguments"], result)
            )
        elif begun := CUT.fullmatch(text):
            unfinished[thread] = len(calls)
            calls.append(Call(thread, float(found["time"]), begun["name"], begun["arguments"], None))
    return calls


def _number(text: str | None) -> int | None:
    try:
        return int(text or "", 0)
    except ValueError:  # strace writes a question mark when the call did not return.
        return None


@contextmanager
def traced(pid: int, log: Path, *options: str) -> Iterator[None]:
    """Trace a process with all its threads; `read` the log when it is over.

    Args:
        options: of strace, such as `-e inject=…`.
    """
    arguments = ["-f", "-ttt", "-yy", "-s", str(SHOWN_BYTES), "-o", str(log), "-p", str(pid)]
    tracer = subprocess.Popen(["strace", *arguments, *options], stderr=subprocess.PIPE, text=True)
    try:
        said = tracer.stderr.readline()
        # From this line on no thread runs without being traced.
        assert "attached" in said, said
        yield
    finally:
        if tracer.poll() is None:
            tracer.send_signal(signal.SIGINT)
        tracer.communicate(timeout=10)


def inject(name: str, what: str, ordinal: int | None = None) -> Sequence[str]:
    """Options for `traced` that let something happen when a thread begins a call.

    Args:
        name: of the call.
        what: such as `signal=KILL`, instead of the call, or `error=EIO`.
        ordinal: at which of these calls of a thread, from 1; by default at each.
    """
    when = f":when={ordinal}" if ordinal else ""
    return ["-e", f"trace={name}", "-e", f"inject={name}:{what}{when}"]


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
