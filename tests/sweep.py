"""The sweep: a web process is killed at every system call of an upload, and nothing is lost.

    python tests/sweep.py

The calls of one upload are traced first. Then, for each, another upload is sent, and the process is
killed when it begins that call. gunicorn starts another, the client sends the upload again with its
key, and in the end the ledger is compared with what is there. Calls that touch nothing outside of
the process are left out. `test_sweep.py` does so for a few calls only.
"""

import platform
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import traces
from ledger import Ledger, pictures
from running import Servers, wait_until
from traces import Call
from web_side import WebSide
from workshop import Workshop

from clustr.database.uploads import ANSWERED_SECONDS
from clustr.queue import RINGER_PAUSE_SECONDS

REPORT = Path(__file__).parent.parent / "docs" / "sweep.md"

# Memory, locks between threads, clocks and process ids: what is there is the same before and after.
INSIDE = "%memory,futex,clock_nanosleep,restart_syscall,rt_sigprocmask,getpid,getppid,gettid"
TRACE = ("-e", f"trace=!{INSIDE}")

MOST_FILES = 2

# How long after another upload the traced one comes: sooner, MongoDB would not be asked whether it
# answers, and the bell of the other might be rung in the trace.
APART_SECONDS = ANSWERED_SECONDS + 2 * RINGER_PAUSE_SECONDS

# How far an upload can have come.
ARRIVING, CHECKED, PLACED, STORED, ANSWERED = STAGES = (
    "while its files arrived and were looked at",
    "after the first fsync, before the first rename",
    "after the first rename, before the insert",
    "after the insert, before the answer",
    "after the answer",
)


class Point(NamedTuple):
    """Where to kill: when a thread begins its n-th call of this name, counted from 1."""

    name: str
    ordinal: int


@dataclass(frozen=True, slots=True)
class Struck:
    """What came of an upload whose process was to be killed.

    Attributes:
        point: where that was to be.
        stage: how far the upload had come by then, one of `STAGES`.
        killed: whether it was killed; a call may be made less often than the time before.
        acknowledged: whether the client was told that it is stored.
        visible: how many of its files the service has, before it is sent again.
        temporary: how many files without a name were left behind.
        orphaned: how many originals without a record were left behind.
    """

    point: Point
    stage: str
    killed: bool
    acknowledged: bool
    visible: int
    temporary: int
    orphaned: int


class Sweep:
    """Uploads to a web side of one process, which is killed and comes back.

    Attributes:
        struck: what came of all of them so far.
    """

    def __init__(self, web: WebSide, folder: Path, servers: Servers):
        self.web = web
        self._files = MOST_FILES
        self.ledger = Ledger(web.url)
        self.struck: list[Struck] = []
        self._servers = servers
        self._log = folder / "trace"
        self._requests = 0

    @contextmanager
    def of(self, files: int) -> Iterator[None]:
        """Send so many files in each upload of the block: they are stored in other ways."""
        vars(self).pop("baseline", None)
        self._files = files
        try:
            yield
        finally:
            vars(self).pop("baseline", None)
            self._files = MOST_FILES

    def next(self) -> tuple[bytes, ...]:
        """The files of the next request: no two are the same."""
        self._requests += 1
        return pictures(self._requests)[: self._files]

    def trace(
        self, *contents: bytes, key: str | None = None, options: Sequence[str] = TRACE
    ) -> list[Call]:
        """Upload something, by a process that has done so before, and give what it did for that."""
        assert self.ledger.upload(*self.next())
        (process,) = self.web.workers()
        time.sleep(APART_SECONDS)
        with traces.traced(process.pid, self._log, *options):
            acknowledged = self.ledger.upload(*contents, key=key)
            assert self.web.serves()  # By now the process is done with it, but for the bell.
            if acknowledged:
                wait_until(lambda: any(map(self.is_ring, traces.read(self._log))), 60, "the bell")
        return traces.read(self._log)

    @cached_property
    def baseline(self) -> list[Call]:
        """What an upload does when nothing goes wrong."""
        return self.trace(*self.next(), key=f"baseline-{self._requests}")

    def point(self, wanted: Callable[[Call], bool], number: int = 1) -> Point:
        """The point before the n-th call of an upload that is wanted, from 1; -1 is the last."""
        found = [call for call in self.baseline if wanted(call)]
        call = found[number - 1 if number > 0 else number]
        before = self.baseline[: next(i for i, c in enumerate(self.baseline) if c is call)]
        same = [c for c in before if (c.thread, c.name) == (call.thread, call.name)]
        return Point(call.name, len(same) + 1)

    def points(self) -> list[Point]:
        """Every point of an upload; those of its threads count as one where they have the name."""
        most: Counter[str] = Counter()
        for (_, name), count in Counter((c.thread, c.name) for c in self.baseline).items():
            most[name] = max(most[name], count)
        return [Point(name, n) for name in sorted(most) for n in range(1, most[name] + 1)]

    def strike(self, point: Point) -> Struck:
        """Upload something, kill the process at this point, and send it again."""
        contents, key = self.next(), f"strike-{len(self.struck)}"
        before = self.web.files()
        (process,) = wait_until(self.web.workers, 60, "a web process")
        kill = ("-e", f"inject={point.name}:signal=KILL:when={point.ordinal}")
        time.sleep(APART_SECONDS)
        with traces.traced(process.pid, self._log, *TRACE, *kill):
            ids = self.ledger.upload(*contents, key=key)
            self.web.serves()  # It may be killed a moment after its answer.
        killed = not process.alive()
        wait_until(self.web.serves, 60, "another web process")
        visible = self.ledger.known(*contents)
        left = self.web.files() - before
        again = self.ledger.upload(*contents, key=key)
        assert again, "sent again after the crash it was refused"
        assert visible in ([], again)
        assert ids in (None, visible)
        originals = [Path(file).stem for file in left if not file.startswith(".incoming/")]
        self.struck.append(
            Struck(
                point,
                self.stage(traces.read(self._log)),
                killed,
                ids is not None,
                len(visible),
                len(left) - len(originals),
                len(set(originals) - set(visible)),
            )
        )
        return self.struck[-1]

    def stage(self, calls: Sequence[Call]) -> str:
        """How far an upload had come."""
        if any(is_answer(call) and call.result for call in calls):
            return ANSWERED
        if any(self.is_insert(call) and call.result for call in calls):
            return STORED
        if any(call.name == "rename" and call.result == 0 for call in calls):
            return PLACED
        if any(call.name == "fsync" and call.result == 0 for call in calls):
            return CHECKED
        return ARRIVING

    def is_insert(self, call: Call) -> bool:
        # The command for several uploads, and that for one, with the length of the name after it.
        commands = (rf"\2{name}\0\10\0\0\0uploads\0" for name in ("insert", "findAndModify"))
        sent = call.sends_to(self._servers.mongodb_port)
        return sent and any(command in call.arguments for command in commands)

    def is_ring(self, call: Call) -> bool:
        return call.sends_to(self._servers.redis_port)

    def check(self, seconds_to_end: float) -> None:
        """See that nothing was lost or stored twice, and that what was left behind is found."""
        found = self.ledger.check(seconds_to_end)
        assert sorted(found) == sorted(self.ledger.sent)  # Each exactly once.
        code, report = self.web.fsck()
        assert (code, report["findings"]) == (0, [])  # Nothing is old enough to be a defect.
        _, report = self.web.fsck("--grace", "0")
        left = Counter(
            temporary=sum(one.temporary for one in self.struck),
            orphaned=sum(one.orphaned for one in self.struck),
        )
        assert Counter(one["kind"] for one in report["findings"]) == +left
        self.web.fsck("--grace", "0", "--limit", "100", "--repair", "--yes")
        code, report = self.web.fsck("--grace", "0")
        assert (code, report["findings"]) == (0, [])
        assert not self.web.temporary_files()


def is_answer(call: Call) -> bool:
    return call.name == "sendto" and "HTTP/1.1 201" in call.arguments


@contextmanager
def sweeping(folder: Path, servers: Servers) -> Iterator[Sweep]:
    """A web side and a worker for a sweep."""
    with Workshop(folder, servers, PLUGINS_DISABLED="blip,exif,palette,phash") as workshop:
        web = WebSide(workshop)
        workshop.worker("--workers", "1")
        yield Sweep(web, folder, servers)


def report(sweep: Sweep, seconds: float) -> str:
    """What came of a whole sweep, as Markdown."""
    struck = sweep.struck
    by_stage = {stage: lambda one, stage=stage: one.stage == stage for stage in STAGES}
    names = sorted({one.point.name for one in struck})
    by_name = {f"`{name}`": lambda one, name=name: one.point.name == name for name in names}
    killed = sum(one.killed for one in struck)
    return f"""# A web process killed at every system call of an upload

Written by `make sweep`, with Python {platform.python_version()} and gunicorn {version("gunicorn")}.

For each system call of an upload of one file, and of one of two (the first of its name, the second,
and so on), such an upload was sent, and the web process was killed with SIGKILL when it began that
call. Then gunicorn had started another, and the client sent the same again with the same
`Idempotency-Key`.

- {len(struck)} points, {killed} of which killed; {seconds:.0f} seconds. A point that does not kill
  is a call that was made less often than the first time.
- {len(sweep.ledger.acknowledged)} uploads were acknowledged, with those that were sent again.
  **0 are lost**: each was read back with equal bytes, and analysed to its end. 0 are stored twice.
- `clustr fsck` found nothing, as nothing was older than its grace. Without a grace it found exactly
  the files that are counted below as left behind, and nothing missing, corrupt or stuck; its repair
  took them away.

Calls that touch nothing outside of the process are left out: memory, locks, clocks, process ids
(`{INSIDE.replace(",", "`, `")}`).

{_table("How far the upload was", struck, by_stage)}

{_table("Killed at", struck, by_name)}

A file without a name is one in `.incoming`, which the reconciler removes after a day. A file
without a record is one in its place that no upload names, which `clustr fsck --repair` takes away.
Nobody sees either. What was acknowledged although the process was killed before the answer was
killed before it had taken the connection: it waited, and the next process took it.
"""


def _table(title: str, struck: Sequence[Struck], rows: dict[str, Callable[[Struck], bool]]) -> str:
    lines = [
        f"| {title} | points | killed | acknowledged | stored, not acknowledged | lost "
        "| files without a name | files without a record |",
        "|---" + "|---:" * 7 + "|",
    ]
    for name, belongs in {**rows, "**all**": lambda _: True}.items():
        ones = [one for one in struck if belongs(one)]
        figures = (
            len(ones),
            sum(one.killed for one in ones),
            sum(one.acknowledged for one in ones),
            sum(one.visible > 0 and not one.acknowledged for one in ones),
            sum(one.acknowledged and not one.visible for one in ones),
            sum(one.temporary for one in ones),
            sum(one.orphaned for one in ones),
        )
        lines.append(f"| {name} | {' | '.join(map(str, figures))} |")
    return "\n".join(lines)


def main() -> int:
    """Sweep everything and write the report."""
    if reason := traces.impossible():
        print(f"sweep: {reason}", file=sys.stderr)
        return 1
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        servers = Servers(folder / "servers")
        try:
            servers.start()
            with sweeping(folder, servers) as sweep:
                began = time.monotonic()
                for files in range(1, MOST_FILES + 1):
                    with sweep.of(files):
                        for point in sweep.points():
                            struck = sweep.strike(point)
                            print(f"{point.name} {point.ordinal}: {struck.stage}", flush=True)
                sweep.check(120)
                text = report(sweep, time.monotonic() - began)
        finally:
            servers.end()
    REPORT.write_text(text)
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
