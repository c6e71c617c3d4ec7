"""The order of an upload, proven from what a web process asks of its system."""

from collections.abc import Callable, Iterator, Sequence

import photographs
import pytest
from running import Servers
from sweep import Sweep, is_answer, sweeping
from traces import Call

WRITING = ("write", "pwrite64", "writev", "pwritev", "sendfile", "copy_file_range", "splice")


@pytest.fixture(scope="module")
def sweep(strace: None, tmp_path_factory, servers: Servers) -> Iterator[Sweep]:
    with sweeping(tmp_path_factory.mktemp("order"), servers) as opened:
        yield opened


def positions(calls: Sequence[Call], wanted: Callable[[Call], bool]) -> list[int]:
    return [position for position, call in enumerate(calls) if wanted(call)]


def path_in(call: Call) -> str:
    """The path that a call is given by its name."""
    return call.arguments.split('"')[-2]


def created(calls: Sequence[Call]) -> list[str]:
    """The files that were made."""
    return [path_in(c) for c in calls if c.name == "openat" and "O_CREAT" in c.arguments]


def of_one_thread(calls: Sequence[Call]) -> list[Call]:
    """The calls of the thread that answered: they are in the order in which it made them."""
    (answer,) = (call for call in calls if is_answer(call))
    return [call for call in calls if call.thread == answer.thread]


def test_C2_the_order_is_provable(sweep):
    content = photographs.unique("bmp", 1001, 400, 250)
    traced = sweep.trace(content)
    calls = of_one_thread(traced)
    (path,) = created(calls)
    (rename,) = positions(calls, lambda c: c.name == "rename" and c.result == 0)
    place = path_in(calls[rename])
    folder = place.rpartition("/")[0]
    steps = [
        max(positions(calls, lambda c: c.name in WRITING and c.target == path)),
        *positions(calls, lambda c: c.name == "fsync" and c.target == path),
        rename,
        *positions(calls, lambda c: c.name == "fsync" and c.target == folder),
        *positions(calls, sweep.is_insert),
        *positions(calls, is_answer),
    ]
    assert len(steps) == 6
    assert steps == sorted(steps)
    results = [calls[step].result for step in steps]
    assert results[1:4] == [0, 0, 0]
    assert all(results[4:])
    # The bell is rung by another thread, so that the answer does not wait for Redis.
    # What goes to Redis before is of the connection, which may be made anew at any time.
    assert positions(traced, sweep.is_insert) < positions(traced, sweep.is_ring)[-1:]


def test_C2_bytes_are_written_once_and_no_process_is_made(sweep):
    content = photographs.unique("bmp", 1002, 400, 250)
    calls = sweep.trace(content)
    (path,) = created(calls)
    to_files = [
        call
        for call in calls
        if call.name in WRITING
        and call.target.startswith("/")
        and not call.arguments.startswith(("1<", "2<"))  # what it logs
    ]
    assert {call.target for call in to_files} == {path}
    assert sum(call.result for call in to_files) == len(content)
    assert not [call for call in calls if call.name in ("fork", "vfork", "execve", "execveat")]
    cloned = [call for call in calls if call.name.startswith("clone")]
    assert all("CLONE_THREAD" in call.arguments for call in cloned)


def test_C2_ten_files_take_two_round_trips_to_mongodb_and_two_to_redis(sweep, servers):
    contents = [photographs.unique("jpg", 100 + number) for number in range(10)]
    traced = sweep.trace(*contents)
    calls = of_one_thread(traced)
    assert len(created(calls)) == len(contents)
    assert len(positions(calls, lambda c: c.name == "fsync" and c.result == 0)) == 11
    assert len(positions(calls, sweep.is_insert)) == 1
    assert len(positions(calls, lambda c: c.sends_to(servers.mongodb_port))) == 2
    assert 1 <= len(positions(traced, sweep.is_ring)) <= 2
