"""Clocks that are wrong or jump: nobody takes the work of another away, and all work ends."""

import os
import time
from datetime import UTC, datetime, timedelta
from importlib.resources import files
from pathlib import Path

import pytest
from photographs import photograph
from pymongo.hello import Hello
from pymongo.monitoring import ServerHeartbeatSucceededEvent
from running import wait_until
from workshop import Program, Workshop

from clustr.database.analyses import Analyses
from clustr.database.clock import Clock
from clustr.database.tag_keys import TagKeys
from clustr.domain.models import State

FAKE = str(files("libfaketime") / "vendor/libfaketime/src/libfaketime.so.1")

# Goes on once it may, so that there is work under way for as long as the test wants it.
HELD = """
with open("began", "a") as began:
    began.write("one more\\n")
while not os.path.exists("go"):
    time.sleep(0.02)
return {}
"""
COUNT = 4


@pytest.fixture
def workshop(workshop: Workshop) -> Workshop:
    workshop.analyzer("held", HELD, queue="default", max_attempts=1)
    return workshop


def clock(folder: Path, name: str, offset: str) -> dict[str, str]:
    """What a program is started with whose clock is off by as much; `set_clock` makes it jump.

    The monotonic clock of a system never jumps, so it is left as it is.
    """
    file = folder / name
    set_clock(file, offset)
    return {
        "LD_PRELOAD": FAKE,
        "FAKETIME_TIMESTAMP_FILE": str(file),
        "FAKETIME_CACHE_DURATION": "1",  # seconds until a jump is noticed
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        "NO_FAKE_STAT": "1",  # the kernel dates files by its own clock
    }


def set_clock(file: Path, offset: str) -> None:
    new = file.with_suffix(".new")
    new.write_text(offset)
    new.replace(file)


def reconciler(workshop: Workshop, offset: str) -> Program:
    """A worker that has nothing to analyze, but is the one that takes back what was lost."""
    settings = clock(workshop.folder, "reconciler", offset)
    program = workshop.run("-m", "clustr", "worker", "--queues", "gpu", **settings)
    wait_until(lambda: lease(workshop), 60, "a lease")
    return program


def lease(workshop: Workshop) -> dict | None:
    return workshop.collection.database["leases"].find_one({"_id": "reconciler"})


def wait_for_rounds(workshop: Workshop, rounds: int) -> None:
    """Wait until whoever takes back what was lost has looked as often."""
    database = workshop.collection.database

    def looked() -> int:
        """How often the leases were read, as each of two reconcilers does once in a round."""
        totals = database.client.admin.command("top")["totals"]
        return totals[f"{database.name}.leases"]["queries"]["count"]

    before = looked()
    wait_until(lambda: looked() >= before + 2 * rounds + 2, 20 * rounds, "the rounds")


def hold(workshop: Workshop) -> list[str]:
    """Upload some, and wait until the first is being analyzed."""
    ids = [workshop.upload(photograph(width=40 + n))[0] for n in range(COUNT)]
    wait_until((workshop.folder / "began").exists, 60, "a beginning")
    return ids


def check_all_end_at_the_first_attempt(workshop: Workshop, ids: list[str], *programs) -> None:
    (workshop.folder / "go").touch()
    for upload_id in ids:
        analysis = workshop.end_of(upload_id, "held", 60)
        assert (analysis.state, analysis.attempts, analysis.error) == ("succeeded", 1, None)
        assert analysis.started_at <= analysis.finished_at
    assert (workshop.folder / "began").read_text().count("\n") == COUNT
    for program in programs:
        assert not [line for line in program.lines() if "taken_back" in line["event"]]
        durations = [line["duration_ms"] for line in program.lines() if "duration_ms" in line]
        assert all(0 <= duration < 60_000 for duration in durations)


@pytest.mark.parametrize(("of_worker", "of_reconciler"), [("+1d", "-1d"), ("-1d", "+1d")])
def test_D9_clocks_a_day_apart_take_no_work_away(workshop, of_worker, of_reconciler):
    looking = reconciler(workshop, of_reconciler)
    settings = clock(workshop.folder, "worker", of_worker)
    working = workshop.run("-m", "clustr", "worker", "--queues", "default", **settings)
    ids = hold(workshop)
    wait_for_rounds(workshop, 4)
    check_all_end_at_the_first_attempt(workshop, ids, looking, working)


def test_D9_a_clock_that_jumps_takes_no_work_away(workshop):
    looking = reconciler(workshop, "+0")
    settings = clock(workshop.folder, "worker", "+0")
    working = workshop.run("-m", "clustr", "worker", "--queues", "default", **settings)
    ids = hold(workshop)
    for offset in ("+1d", "-1d"):
        for name in ("reconciler", "worker"):
            set_clock(workshop.folder / name, offset)
        wait_for_rounds(workshop, 3)
    check_all_end_at_the_first_attempt(workshop, ids, looking, working)


def test_D9_a_clock_two_days_ahead_removes_no_file_that_is_being_received(workshop):
    incoming = workshop.settings.upload_folder / ".incoming"
    workshop.upload(photograph())  # by which the folder is there
    received = incoming / "received"
    received.touch()
    left = incoming / "left"
    left.touch()
    two_days_ago = time.time() - 48 * 3600
    os.utime(left, (two_days_ago, two_days_ago))
    reconciler(workshop, "+2d")
    wait_until(lambda: not left.exists(), 60, "a look at temporary files")
    assert received.exists()


def heartbeat(
    moment: datetime, seconds: float = 0.0, primary: bool = True
) -> ServerHeartbeatSucceededEvent:
    """What a client hears from a MongoDB by whose clock it is this time."""
    role = {"isWritablePrimary": primary, "secondary": not primary, "setName": "clustr"}
    said = {"ok": 1, "localTime": moment.replace(tzinfo=None), **role}
    return ServerHeartbeatSucceededEvent(seconds, Hello(said), ("mongodb", 27017))


def off_by(clock: Clock) -> float:
    return (clock.now() - datetime.now(UTC)).total_seconds()


@pytest.mark.parametrize("days", [1, -1])
def test_the_time_is_that_of_the_primary(days):
    clock, day = Clock(), timedelta(days=days)
    clock.succeeded(heartbeat(datetime.now(UTC) + day, primary=False))
    assert off_by(clock) == pytest.approx(0, abs=60)
    clock.succeeded(heartbeat(datetime.now(UTC) + day))
    assert off_by(clock) == pytest.approx(day.total_seconds(), abs=60)
    assert clock.settled()  # It was this host that was wrong.


def test_an_answer_that_was_long_on_its_way_tells_no_other_time():
    """It may have been given at any time of its way, as to a process that was stopped."""
    clock = Clock()
    clock.succeeded(heartbeat(datetime.now(UTC) - timedelta(seconds=60), seconds=120))
    assert off_by(clock) == pytest.approx(0, abs=30)


@pytest.mark.parametrize("days", [1, -1])
def test_D9_nothing_is_taken_back_while_not_all_know_the_time(workshop, days):
    """When MongoDB's own clock has jumped, holders of leases know it a moment later."""
    clock, jump = Clock(), timedelta(days=days)
    analyses = Analyses(
        workshop.collection,
        clock,
        TagKeys(workshop.collection),
        workshop.web.database.search_terms,
    )
    workshop.upload(photograph())
    ended = timedelta(seconds=-1)
    assert len(analyses.claim("held", 1, "run", 1, ended, State.QUEUED)) == 1
    clock.succeeded(heartbeat(datetime.now(UTC)))
    assert clock.settled()
    clock.succeeded(heartbeat(datetime.now(UTC) + jump))
    assert off_by(clock) == pytest.approx(jump.total_seconds(), abs=60)
    assert not clock.settled()
    assert analyses.reclaim("held", 3, "lost") == 0
    assert analyses.reclaim("held", 3, "it was killed", "run") == 1
