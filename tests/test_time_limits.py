"""The limits of time for a plugin's code, and the thread that ends a process that hangs."""

from fork_server import run_program

WAITS_FOR_CALLS = """
import time
from clustr.analysis import limits

limits.GRACE_SECONDS = 0.5
limits.TimeLimits.UNWATCH_SECONDS = 0.3
with limits.TimeLimits() as watched:
    with watched.limit(0.5):
        pass
    for _ in range(15):  # as who waits for calls, for longer than the watchdog does
        watched.stop_watching()
        time.sleep(0.1)
print("still there")
"""


def test_waiting_for_calls_is_no_hang_of_the_code_before(tmp_path):
    done = run_program(["-c", WAITS_FOR_CALLS], {}, tmp_path)
    assert (done.returncode, done.stdout) == (0, "still there\n"), done.stderr
