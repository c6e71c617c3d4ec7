"""Signals to `clustr worker`, as process managers send them."""

import os
import pty
import signal
import subprocess
import sys

import photographs
from running import wait_until


def test_sighup_starts_a_worker_anew_and_sigusr1_does_not_end_it(workshop):
    """Under the same process id, as a daemon does; what waits then is done afterwards."""
    workshop.analyzer("it", "return {'n': 1}")
    worker = workshop.worker()
    (upload_id,) = workshop.upload()
    assert workshop.end_of(upload_id, "it").state == "succeeded"
    before = {child.pid for child in worker.children()}
    worker.signal(signal.SIGUSR1)
    worker.signal(signal.SIGHUP)
    wait_until(lambda: "worker_restarts" in worker.output(), 20, "the restart")
    wait_until(
        lambda: (
            len(now := {child.pid for child in worker.children()}) == len(before)
            and not now & before
        ),
        20,
        "other processes",
    )
    (upload_id,) = workshop.upload(photographs.one_pixel())
    assert workshop.end_of(upload_id, "it").state == "succeeded"
    assert worker.stop() == 0
    ended = [line for line in worker.lines() if line["event"] == "worker_ended"]
    assert [(line["signal"], line["exit_code"]) for line in ended] == [("SIGTERM", 0)]


def test_a_second_sighup_while_a_worker_starts_anew_does_not_kill_it(workshop):
    worker = workshop.worker()
    wait_until(lambda: len(worker.children()) == 3, 20, "the processes of the worker")
    worker.signal(signal.SIGHUP)
    wait_until(lambda: "worker_restarts" in worker.output(), 20, "the restart")
    worker.signal(signal.SIGHUP)
    wait_until(lambda: worker.output().count("worker_restarts") == 2, 20, "another restart")
    wait_until(lambda: len(worker.children()) == 3, 20, "the processes of the worker")
    assert worker.stop() == 0


def test_a_worker_ends_when_its_terminal_closes(workshop):
    """Its session has a terminal, whose other side goes away."""
    main, terminal = pty.openpty()
    log = (workshop.folder / "log").open("w")
    program = (
        "import fcntl, os, signal, sys, termios; os.setsid(); fcntl.ioctl(0, termios.TIOCSCTTY, 0);"
        "signal.signal(signal.SIGHUP, signal.SIG_DFL);"
        "os.execv(sys.executable, [sys.executable, '-m', 'clustr', 'worker'])"
    )
    environment = {**os.environ, **workshop.environment}
    with log:
        worker = subprocess.Popen(
            [sys.executable, "-c", program],
            stdin=terminal,
            stdout=log,
            stderr=log,
            env=environment,
            cwd=workshop.folder,
        )
    os.close(terminal)
    try:
        wait_until(lambda: workshop.redis.exists("rq:workers"), 20, "the worker")
        os.close(main)
        assert worker.wait(20) == 0
    finally:
        worker.kill()
        worker.wait()
    said = (workshop.folder / "log").read_text()
    assert "SIGHUP" in said
    assert "worker_restarts" not in said
