"""Child processes and their supervisor, with real processes and signals."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fork_server import fork_server
from running import child, descendants, wait_until

from clustr.supervisor.child import LARGEST_LOG_BYTES, old_log
from clustr.supervisor.readiness import Notification, notify_ready

# Says in a file what happens to it, in a line each: that it starts, and that it is asked to end. It
# ends when so many in all are asked to.
WITNESS = """
import signal, sys, time
name, diary, lives = sys.argv[1], open(sys.argv[2], "a"), float(sys.argv[3])
def note(what):
    diary.write(f"{what} {name}\\n")
    diary.flush()
def stop(*_):
    note("stop")
    time.sleep(0.1)
    while open(sys.argv[2]).read().count("stop") < int(sys.argv[4]):
        time.sleep(0.01)
    note("end")
    sys.exit()
signal.signal(signal.SIGTERM, stop)
note("start")
print(f"{name} says hello", flush=True)
time.sleep(lives)
print(f"{name} gives up", end="")
sys.exit(3)
"""

SUPERVISE = """
import os, signal, sys
from pathlib import Path
from clustr.domain.errors import StartUpError
from clustr.supervisor.child import Child
from clustr.supervisor.forking import command_starter, function_starter
from clustr.supervisor.readiness import ForkedCheck
from clustr.supervisor.supervisor import Supervisor
folder = Path(sys.argv[1])
def witness(name, lives=600.0, ends_with=1, **more):
    arguments = [name, str(folder / "diary"), str(lives), str(ends_with)]
    python = [sys.executable, "-c", os.environ["WITNESS"]]
    return Child(name, command_starter(python + arguments, os.environ), stop_seconds=60.0, **more)
def supervise(*children, **more):
    try:
        sys.exit(Supervisor(children, **more).run(lambda: print("all started", flush=True)))
    except StartUpError as error:
        sys.exit(f"clustr: {error}")
"""


class Supervising:
    """A process that supervises the children of a test."""

    def __init__(self, folder: Path, program: str):
        self.diary = folder / "diary"
        self.diary.touch()
        self._output = folder / "output"
        with self._output.open("w") as output, Path(os.devnull).open() as nothing:
            self.process = fork_server().start(
                ["-c", SUPERVISE + program, str(folder)],
                {"PATH": os.environ["PATH"], "WITNESS": WITNESS},
                folder,
                [nothing.fileno(), output.fileno(), output.fileno()],
            )
        self.pid = self.process.pid

    def output(self) -> str:
        return self._output.read_text()

    def wait_for(self, text: str, times: int = 1) -> None:
        def said() -> bool:
            return self.output().count(text) >= times

        wait_until(said, 60, f"{times} times {text!r}")

    def stop(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(60)


@pytest.fixture
def supervise(tmp_path: Path) -> Iterator[Callable[[str], Supervising]]:
    started: list[Supervising] = []

    def start(program: str) -> Supervising:
        started.append(Supervising(tmp_path, program))
        return started[-1]

    yield start
    for one in started:
        one.process.kill()
        one.process.wait()


def test_starts_in_order_and_stops_in_reverse_order(supervise):
    run = supervise('supervise(*(witness(name) for name in ("one", "two", "three")))')
    run.wait_for("three says hello")
    wait_until(lambda: run.diary.read_text().count("start") == 3, 60)
    assert run.stop() == 0
    whole = run.diary.read_text().splitlines()
    assert whole[3:] == ["stop three", "end three", "stop two", "end two", "stop one", "end one"]


def test_one_waits_until_the_one_before_is_ready(supervise, tmp_path):
    run = supervise(
        'supervise(witness("one", ready=(folder / "go").exists), witness("two"))',
    )
    run.wait_for("one says hello")
    time.sleep(0.3)  # for what must not happen there is nothing to wait for
    assert "two" not in run.output()
    (tmp_path / "go").touch()
    run.wait_for("two says hello")
    run.wait_for("all started")


def test_all_stop_at_the_same_time_when_none_needs_another(supervise):
    run = supervise("""
supervise(*(witness(name, ends_with=3) for name in ("one", "two", "three")), stop_together=True)
""")
    run.wait_for("says hello", times=3)
    assert run.stop() == 0
    assert {line.split()[0] for line in run.diary.read_text().splitlines()[3:6]} == {"stop"}


def test_lines_carry_aligned_names_and_the_last_one_needs_no_end(supervise):
    run = supervise('supervise(witness("one", lives=0.5), witness("longer-name"))')
    run.wait_for("one         | one gives up\n")
    assert "one         | one says hello\n" in run.output()
    assert "longer-name | longer-name says hello\n" in run.output()
    assert "\x1b" not in run.output()  # this is no terminal


def test_the_dead_start_again_each_time_a_little_later(supervise):
    run = supervise('supervise(witness("one", lives=0.5))')
    for seconds in ("0.5", "1", "2"):
        run.wait_for(f"one ended (exit code 3): one gives up; it starts again in {seconds} seconds")
    assert run.diary.read_text().count("start") >= 3
    assert run.stop() == 0


def test_one_for_which_there_is_no_room_starts_later(supervise):
    run = supervise("""
fork, forks = os.fork, []
def full_once():
    forks.append(1)
    if len(forks) == 3:
        raise BlockingIOError(11, "Resource temporarily unavailable")
    return fork()
os.fork = full_once
supervise(witness("one"), witness("two", lives=0.3))
""")
    run.wait_for("two ended (could not be started: Resource temporarily unavailable)")
    run.wait_for("two says hello", times=2)
    assert run.stop() == 0
    assert run.diary.read_text().count("start one") == 1


def test_lines_go_on_once_there_is_room_for_them(supervise):
    run = supervise("""
import resource
supervisor = Supervisor([])
unlimited = resource.getrlimit(resource.RLIMIT_FSIZE)
supervisor.print_line("one")
resource.setrlimit(resource.RLIMIT_FSIZE, (len("one\\n"), unlimited[1]))
supervisor.print_line("two")
resource.setrlimit(resource.RLIMIT_FSIZE, unlimited)
supervisor.print_line("three")
""")
    run.wait_for("three")


def test_a_killed_one_starts_again(supervise):
    run = supervise('supervise(witness("one"))')
    run.wait_for("one says hello")
    os.kill(child(run.pid, "one").pid, signal.SIGKILL)
    run.wait_for("one ended (killed by SIGKILL)")
    run.wait_for("one says hello", times=2)


STUBBORN = """
def ignore_everything():
    import signal, time
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    print("stubborn", flush=True)
    time.sleep(60)
"""


def test_one_that_does_not_end_is_killed_after_its_time(supervise):
    run = supervise(
        STUBBORN
        + 'two = Child("two", function_starter(ignore_everything), stop_seconds=0.5)\n'
        + 'supervise(witness("one"), two)'
    )
    run.wait_for("stubborn")
    began_at = time.monotonic()
    assert run.stop() == 0
    assert time.monotonic() - began_at >= 0.5
    assert "end one" in run.diary.read_text()


def test_a_second_interrupt_kills_at_once(supervise):
    run = supervise(
        STUBBORN + 'supervise(Child("one", function_starter(ignore_everything), stop_seconds=60))'
    )
    run.wait_for("stubborn")
    run.process.send_signal(signal.SIGINT)
    with pytest.raises(subprocess.TimeoutExpired):
        run.process.wait(0.3)
    assert run.stop(signal.SIGINT) == 1


def test_a_request_to_stop_while_starting_is_heard(supervise):
    run = supervise('supervise(witness("one", ready=lambda: False), witness("two"))')
    run.wait_for("one says hello")
    assert run.stop() == 0
    assert run.diary.read_text().split() == ["start", "one", "stop", "one", "end", "one"]


def test_a_death_while_starting_stops_all_and_is_one_sentence(supervise):
    run = supervise(
        'supervise(witness("one"), witness("two", 0.1, ready=lambda: False), witness("three"))'
    )
    assert run.process.wait(60) == 1
    assert run.output().splitlines()[-1] == (
        "clustr: two ended while starting (exit code 3): two gives up"
    )
    assert "end one" in run.diary.read_text()
    assert "three" not in run.diary.read_text()


def test_a_message_of_clustr_counts_more_than_the_last_line(supervise):
    run = supervise("""
says = "print('clustr: PORT is wrong'); print('Shutting down'); raise SystemExit(1)"
arguments = [sys.executable, "-c", says]
supervise(Child("one", command_starter(arguments, os.environ), ready=lambda: False))
""")
    assert run.process.wait(60) == 1
    last = run.output().splitlines()[-1]
    assert last == "clustr: one ended while starting (exit code 1): PORT is wrong"


def test_one_that_is_not_ready_in_time_is_said(supervise):
    run = supervise("""
supervise(witness("one", ready=lambda: False, ready_seconds=0.5, log_file=folder / "one.log"))
""")
    assert run.process.wait(60) == 1
    assert re.fullmatch(
        r"clustr: one did not answer within 0.5 seconds(: one says hello)? \(see .*/one.log\)\n",
        run.output(),
    )


def test_what_is_printed_is_copied_into_a_file_that_is_rotated(supervise, tmp_path):
    copy = tmp_path / "one.log"
    with copy.open("w") as file:
        file.truncate(LARGEST_LOG_BYTES)
    supervise('supervise(witness("one", copy_to=folder / "one.log"))')
    old = old_log(copy, 1)
    wait_until(old.exists, 60, "the rotation")

    def kept() -> bytes:
        return b"".join(file.read_bytes() for file in (old, copy) if file.exists()).strip(b"\0")

    wait_until(lambda: kept() == b"one says hello\n", 60, "what it prints")


def test_changed_code_is_loaded_by_those_who_can(supervise, tmp_path):
    run = supervise('''
caught = """
import signal, time
signal.signal(signal.SIGHUP, lambda *_: print("anew", flush=True))
print("caught", flush=True)
while True:
    time.sleep(1)
"""
changes = iter([True])
supervise(
    Child(
        "one",
        command_starter([sys.executable, "-c", caught], os.environ),
        reload_by=signal.Signals.SIGHUP,
    ),
    witness("two"),
    code_changed=lambda: (folder / "change").exists() and next(changes, False),
)
''')
    run.wait_for("caught")
    (tmp_path / "change").touch()
    run.wait_for("clustr | code has changed, and is loaded anew by one")
    run.wait_for("one    | anew")


def test_a_program_that_is_not_there_is_said(supervise):
    run = supervise(
        'supervise(Child("one", command_starter(["/no/program"], {}), ready=lambda: False))'
    )
    assert run.process.wait(60) == 1
    assert run.output().splitlines()[-1].endswith("/no/program: No such file or directory")


def test_attempts_are_repeated_until_one_ends_well(supervise, tmp_path):
    run = supervise("""
def attempt():
    with (folder / "attempts").open("a") as file:
        return int(file.write("x") + file.tell() < 4)
supervise(witness("one", ready=ForkedCheck(attempt)))
""")
    run.wait_for("all started")
    assert (tmp_path / "attempts").read_text() == "xxx"


def test_nothing_survives_a_supervisor_killed_with_9(supervise):
    run = supervise(
        STUBBORN + 'supervise(witness("one"), Child("two", function_starter(ignore_everything)))'
    )
    run.wait_for("stubborn")
    family = descendants(run.pid)
    assert len(family) == 2
    assert all(process.alive() for process in family)
    run.process.kill()
    wait_until(lambda: not any(process.alive() for process in family), 60)


def test_one_whose_parent_has_ended_already_ends_itself():
    program = """
import os, sys
from clustr.supervisor.forking import die_with_parent
die_with_parent(1 if os.getppid() != 1 else 2)
print("still here")
"""
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True)
    assert (ran.returncode, ran.stdout) == (1, b"")


@pytest.mark.parametrize(
    ("body", "code"),
    [("return 0", 0), ("return 7", 7), ("sys.exit(5)", 5), ("sys.exit('no')", 1), ("1 / 0", 1)],
)
def test_a_function_gives_the_exit_code(supervise, body, code):
    run = supervise(f"""
def give():
    {body}
supervise(Child("one", function_starter(give), ready=lambda: False))
""")
    assert run.process.wait(60) == 1
    last = run.output().splitlines()[-1]
    assert last == f"clustr: one ended while starting (exit code {code})"


def test_a_program_has_its_own_session_and_inherits_only_what_it_shall(supervise):
    run = supervise('''
kept, other = os.open("/dev/null", os.O_RDONLY), os.open("/dev/null", os.O_RDONLY)
says = """
import os, sys
kept, other = (os.path.exists(f"/proc/self/fd/{number}") for number in sys.argv[1:])
print(os.getsid(0) == os.getpid(), sys.stdin.read() == "", kept, other)
"""
arguments = [sys.executable, "-c", says, str(kept), str(other)]
supervise(Child("one", command_starter(arguments, os.environ, inherited=[kept])))
''')
    run.wait_for("one    | True True True False")


def test_notification_comes_through(monkeypatch):
    ready = Notification()
    assert not ready()
    monkeypatch.setenv("NOTIFY_SOCKET", ready.address)
    notify_ready()
    assert ready()
    monkeypatch.delenv("NOTIFY_SOCKET")
    notify_ready()  # nobody asked
