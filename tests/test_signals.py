"""Signals to `clustr worker`, as process managers send them."""

import os
import pty
import signal

import photographs
from fork_server import fork_server
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
    wait_until(lambda: "worker_restarts" in worker.output(), 60, "the restart")
    wait_until(
        lambda: (
            len(now := {child.pid for child in worker.children()}) == len(before)
            and not now & before
        ),
        60,
        "other processes",
    )
    (upload_id,) = workshop.upload(photographs.one_pixel())
    assert workshop.end_of(upload_id, "it").state == "succeeded"
    assert worker.stop() == 0
    ended = [line for line in worker.lines() if line["event"] == "worker_ended"]
    assert [(line["signal"], line["exit_code"]) for line in ended] == [("SIGTERM", 0)]


def test_a_second_sighup_while_a_worker_starts_anew_does_not_kill_it(workshop):
    worker = workshop.worker()
    wait_until(lambda: len(worker.children()) == 3, 60, "the processes of the worker")
    worker.signal(signal.SIGHUP)
    wait_until(lambda: "worker_restarts" in worker.output(), 60, "the restart")
    worker.signal(signal.SIGHUP)
    wait_until(lambda: worker.output().count("worker_restarts") == 2, 60, "another restart")
    wait_until(lambda: len(worker.children()) == 3, 60, "the processes of the worker")
    assert worker.stop() == 0


def test_a_worker_ends_when_its_terminal_closes(workshop):
    """Its session has a terminal, whose other side goes away."""
    main, terminal = pty.openpty()
    program = (
        "import fcntl, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0);"
        "from clustr.__main__ import main; main(['worker'])"
    )
    environment = {"PATH": os.environ["PATH"], **workshop.environment}
    with (workshop.folder / "log").open("w") as log:
        streams = [terminal, log.fileno(), log.fileno()]
        worker = fork_server().start(["-c", program], environment, workshop.folder, streams)
    os.close(terminal)
    try:
        wait_until(lambda: workshop.redis.exists("rq:workers"), 60, "the worker")
        os.close(main)
        assert worker.wait(60) == 0
    finally:
        worker.kill()
        worker.wait()
    said = (workshop.folder / "log").read_text()
    assert "SIGHUP" in said
    assert "worker_restarts" not in said
