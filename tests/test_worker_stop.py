"""SIGTERM ends a worker soon, whatever it does, and loses no work."""

import subprocess
import sys

import photographs
import pytest
from redis import Redis
from running import wait_until
from workshop import plugin

from clustr.worker.rq_worker import AnalysisWorker


@pytest.mark.parametrize("where", ["setup", "analyze"])
def test_C13_sigterm_puts_back_what_is_under_way_without_counting_it(workshop, where):
    slow = "Path('begun').touch(); time.sleep(0 if Path('go').exists() else 60)"
    setup, analyze = (slow, "pass") if where == "setup" else ("pass", slow)
    workshop.write(
        "slow",
        plugin(
            "slow",
            f"def setup(self, context):\n    {setup}",
            f"def analyze(self, image, context):\n    {analyze}\n    return {{}}",
        ),
    )
    ids = workshop.upload(*[photographs.photograph()] * 3)
    worker = workshop.worker()
    wait_until((workshop.folder / "begun").exists, 60, "the analysis")
    assert worker.stop() == 0
    for upload_id in ids:
        analysis = workshop.stored(upload_id, "slow")
        assert (analysis["state"], analysis["attempts"], analysis["crashes"]) == ("queued", 0, 0)
    (workshop.folder / "go").touch()
    workshop.worker()
    for upload_id in ids:
        assert workshop.end_of(upload_id, "slow").attempts == 1
    assert "Traceback" not in worker.output()


def test_C13_sigterm_ends_an_idle_worker_at_once(workshop):
    workshop.analyzer("quick", "return {}")
    [upload_id] = workshop.upload()
    worker = workshop.worker("--workers", "2")
    workshop.end_of(upload_id, "quick")
    assert worker.stop() == 0
    assert "Traceback" not in worker.output()


def test_C13_sigterm_just_after_the_end_of_a_work_horse_is_no_error(workshop):
    address = workshop.environment["REDIS_URL"]
    worker = AnalysisWorker(["default"], connection=Redis.from_url(address))
    with subprocess.Popen([sys.executable, "-c", ""]) as ended:
        worker._horse_pid = ended.pid
    worker.handle_warm_shutdown_request()


def test_C13_sigterm_ends_a_worker_whose_plugin_is_deaf_to_it(workshop):
    workshop.analyzer(
        "deaf", "import itertools; Path('begun').touch(); sum(itertools.repeat(1))", timeout=600
    )
    [upload_id] = workshop.upload()
    worker = workshop.worker()
    wait_until((workshop.folder / "begun").exists, 60, "the analysis")
    [horse] = worker.horses()
    assert worker.stop() == 0
    wait_until(lambda: not horse.alive(), 60, "the end of the plugin")
    workshop.end_leases()
    assert workshop.web.database.analyses.reclaim("deaf", 3, "the worker was lost") == 1
    assert workshop.state_of(upload_id, "deaf") == "queued"
