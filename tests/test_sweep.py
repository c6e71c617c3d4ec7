"""A web process that is killed, or a call that fails, in the middle of an upload.

`make sweep` does so at every system call; these are the points where something changes.
"""

from collections.abc import Callable, Iterator

import pytest
from running import Servers, wait_until
from sweep import (
    ANSWERED,
    ARRIVING,
    CHECKED,
    PLACED,
    STORED,
    Point,
    Struck,
    Sweep,
    is_answer,
    sweeping,
)
from traces import Call

ANALYSED_WITHIN_SECONDS = 60


@pytest.fixture(scope="module")
def sweep(strace: None, tmp_path_factory, servers: Servers) -> Iterator[Sweep]:
    with sweeping(tmp_path_factory.mktemp("sweep"), servers) as opened:
        yield opened


def taking_in(sweep: Sweep) -> Callable[[Call], bool]:
    """Whether a call receives bytes from the client, or writes them."""
    client = next(filter(is_answer, sweep.baseline)).target
    return lambda call: is_write(call) or (call.name, call.target) == ("recvfrom", client)


def is_write(call: Call) -> bool:
    return call.name == "write" and "/.incoming/" in call.target


def is_fsync(call: Call) -> bool:
    return call.name == "fsync"


def is_rename(call: Call) -> bool:
    return call.name == "rename"


def strike(sweep: Sweep, point: Point) -> Struck:
    """Kill the process at a point of an upload.

    Once more, if the thread that rings for the upload before came to such a call first, so that the
    next process took the connection; and if the upload took fewer calls, or was not done with them.
    """
    for _ in range(5):
        struck = sweep.strike(point)
        if struck.killed and not (struck.acknowledged and struck.stage == ARRIVING):
            break
    return struck


@pytest.mark.parametrize("number", [1, -1])
def test_C1_killed_while_bytes_arrive(sweep, number):
    struck = strike(sweep, sweep.point(taking_in(sweep), number))
    assert (struck.killed, struck.stage, struck.visible) == (True, ARRIVING, 0)
    assert struck.orphaned == 0


@pytest.mark.parametrize(
    ("wanted", "number", "stage", "temporary", "orphaned"),
    [
        (is_fsync, 1, ARRIVING, 2, 0),
        (is_rename, 1, CHECKED, 2, 0),
        (is_rename, 2, PLACED, 1, 1),
        (is_fsync, -1, PLACED, 0, 2),
    ],
    ids=["before_fsync", "before_rename", "between_renames", "before_fsync_of_folder"],
)
def test_C2_killed_between_writing_and_the_folder(
    sweep, wanted, number, stage, temporary, orphaned
):
    struck = strike(sweep, sweep.point(wanted, number))
    assert (struck.killed, struck.stage, struck.visible) == (True, stage, 0)
    assert (struck.temporary, struck.orphaned) == (temporary, orphaned)


def test_C3_killed_before_the_insert_shows_nothing(sweep):
    struck = strike(sweep, sweep.point(sweep.is_insert))
    assert (struck.killed, struck.stage, struck.visible) == (True, PLACED, 0)
    assert (struck.temporary, struck.orphaned) == (0, 2)


def test_C4_killed_before_the_answer_is_stored_once(sweep):
    struck = strike(sweep, sweep.point(is_answer))
    assert (struck.killed, struck.stage, struck.acknowledged) == (True, STORED, False)
    assert (struck.visible, struck.temporary, struck.orphaned) == (2, 0, 0)


def test_C3_killed_before_a_single_upload_is_inserted_shows_nothing(sweep):
    with sweep.of(files=1):
        struck = strike(sweep, sweep.point(sweep.is_insert))
    assert (struck.killed, struck.stage, struck.visible) == (True, PLACED, 0)
    assert (struck.temporary, struck.orphaned) == (0, 1)


def test_C4_killed_before_the_answer_to_a_single_upload_is_stored_once(sweep):
    with sweep.of(files=1):
        struck = strike(sweep, sweep.point(is_answer))
    assert (struck.killed, struck.stage, struck.acknowledged) == (True, STORED, False)
    assert (struck.visible, struck.temporary, struck.orphaned) == (1, 0, 0)


def test_C5_killed_before_the_bell_is_analysed_all_the_same(sweep, servers):
    with servers.frozen_redis():
        assert sweep.ledger.upload(*sweep.next())
        (process,) = sweep.web.workers()
        process.kill()
        wait_until(lambda: not process.alive(), 60)
    wait_until(sweep.web.serves, 60)
    sweep.ledger.check(ANALYSED_WITHIN_SECONDS)


def test_C4_killed_after_the_answer_keeps_what_was_acknowledged(sweep):
    struck = strike(sweep, sweep.point(lambda call: call.name == "shutdown"))
    assert (struck.killed, struck.stage, struck.acknowledged) == (True, ANSWERED, True)
    assert (struck.visible, struck.temporary, struck.orphaned) == (2, 0, 0)


@pytest.mark.parametrize(
    ("wanted", "number", "error"),
    [
        (is_write, -1, "ENOSPC"),
        (is_fsync, 2, "ENOSPC"),
        (is_fsync, -1, "EIO"),
        (is_rename, 2, "EIO"),
    ],
    ids=lambda value: value.__name__ if callable(value) else None,
)
def test_E1_a_call_that_fails_is_507_and_leaves_nothing(sweep, wanted, number, error):
    name, ordinal = sweep.point(wanted, number)
    contents = sweep.next()
    before = sweep.web.files()
    fails = ("-e", f"trace={name}", "-e", f"inject={name}:error={error}:when={ordinal}")
    calls = sweep.trace(*contents, options=fails)
    assert error in {call.error for call in calls if call.name == name}
    assert sweep.ledger.answers.pop(507) == 1
    left = sweep.web.files() - before
    assert len(left) == 2  # those of the upload before it
    assert not [file for file in left if file.startswith(".incoming/")]
    assert sweep.ledger.known(*contents) == []
    assert sweep.ledger.upload(*contents)


def test_fsck_finds_what_kills_left_behind_and_nothing_else(sweep):
    struck = strike(sweep, sweep.point(is_rename, 2))
    assert (struck.temporary, struck.orphaned) == (1, 1)
    sweep.check(ANALYSED_WITHIN_SECONDS)
