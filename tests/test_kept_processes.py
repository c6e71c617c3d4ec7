"""Processes that are kept for the next uploads: when they end, whom they serve, what they take."""

import os
import signal
import socket
from datetime import datetime
from pathlib import Path

import photographs
from running import wait_until
from workshop import Workshop, another, plugin

from clustr.analysis.engine import LARGEST_CLAIM
from clustr.analysis.persistent_process import PersistentProcesses
from clustr.database import now

GOOD = photographs.photograph("jpg", "cat")


def test_C13_kept_process_puts_back_what_it_holds(workshop):
    workshop.analyzer(
        "slow",
        "Path('begun').touch(); time.sleep(0 if Path('go').exists() else 60); return {}",
        keep_loaded=True,
    )
    [upload_id] = workshop.upload()
    worker = workshop.worker()
    wait_until((workshop.folder / "begun").exists, 60, "the analysis")
    [process] = worker.horses()
    assert worker.stop() == 0
    wait_until(lambda: not process.alive(), 60, "the end of the kept process")
    analysis = workshop.stored(upload_id, "slow")
    assert (analysis["state"], analysis["attempts"], analysis["crashes"]) == ("queued", 0, 0)
    (workshop.folder / "go").touch()
    again = workshop.worker()
    assert workshop.end_of(upload_id, "slow").attempts == 1
    [idle] = again.horses()
    os.kill(idle.pid, signal.SIGKILL)  # Nobody needs it at the moment.
    [another] = workshop.upload()
    assert workshop.end_of(another, "slow").attempts == 1
    assert again.stop() == 0
    assert "Traceback" not in worker.output() + again.output()


def test_kept_process_that_grew_is_replaced(workshop):
    workshop.write(
        "leaky",
        plugin(
            "leaky",
            "keep_loaded = True",
            "memory_mb = 100",
            "def setup(self, context):\n    self.leak = []",
            "def analyze(self, image, context):",
            "    self.leak.append(b'x' * 60 * 2**20)",
            "    return {'leaks': len(self.leak)}",
        ),
    )
    workshop.worker()
    found = []
    for _ in range(4):
        [upload_id] = workshop.upload(GOOD)
        found.append(workshop.end_of(upload_id, "leaky").result)
        # The next one is not to come into the same call, in which memory has one limit.
        wait_for_the_end_of_calls(workshop)
    assert [result["leaks"] for result in found] == [1, 2, 1, 2]


def wait_for_the_end_of_calls(workshop: Workshop) -> None:
    wait_until(lambda: not workshop.redis.keys("rq:job:*"), 60, "the end of the calls")


def connections_of(pid: int, port: int) -> set[str]:
    """The inodes of a process's sockets that are connected to a port (proc_pid_net(5))."""
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    connected = {row[9] for row in rows if row[2].endswith(f":{port:04X}") and row[3] == "01"}
    links = [descriptor.readlink().name for descriptor in Path(f"/proc/{pid}/fd").iterdir()]
    return connected & {name.removeprefix("socket:[").rstrip("]") for name in links}


def test_a_process_is_kept_for_the_next_uploads_and_keeps_its_connections(workshop, servers):
    """Without `keep_loaded`, too."""
    workshop.analyzer("light", "return {'process': os.getpid()}")
    workshop.worker()
    processes = set()

    def analyze(count: int) -> None:
        """Analyze so many uploads that come one after the other."""
        for _ in range(count):
            [upload_id] = workshop.upload(GOOD)
            processes.add(workshop.end_of(upload_id, "light").result["process"])
            wait_for_the_end_of_calls(workshop)

    analyze(2)
    [process] = processes
    before = connections_of(process, servers.mongodb_port)
    analyze(5)
    assert processes == {process}
    assert before
    assert connections_of(process, servers.mongodb_port) >= before


def test_a_process_shares_the_memory_of_what_its_worker_has_loaded(workshop):
    """A collection of garbage writes to each object that is not frozen, and so copies it."""
    workshop.analyzer(
        "shares",
        "import gc; return {'frozen': gc.get_freeze_count(), 'own': len(gc.get_objects())}",
    )
    workshop.worker()
    [upload_id] = workshop.upload()
    found = workshop.end_of(upload_id, "shares").result
    assert found["frozen"] > 3 * found["own"]


def test_a_process_that_has_taken_much_is_kept_only_where_that_is_asked_for(workshop):
    for name, keep_loaded in (("heavy", False), ("model", True)):
        source = plugin(
            name,
            f"keep_loaded = {keep_loaded}",
            "def setup(self, context):\n    self.held = b'x' * 150 * 2**20",
            "def analyze(self, image, context):\n    return {'process': os.getpid()}",
        )
        workshop.write(name, source)
    workshop.worker()
    found = []
    for _ in range(2):
        [upload_id] = workshop.upload(GOOD)
        found.append([workshop.end_of(upload_id, n).result["process"] for n in ("heavy", "model")])
        wait_for_the_end_of_calls(workshop)
    (heavy, model), (another_heavy, same_model) = found
    assert (heavy != another_heavy, model == same_model) == (True, True)


def test_a_process_that_nobody_calls_is_let_go():
    def serve(_analyzer: str, line: socket.socket) -> int:
        while line.recv(100):
            line.send(b"again")
        return 0

    kept = PersistentProcesses(serve)
    try:
        pids = {}
        for name, idle_seconds in {"soon": 0.0, "later": 600.0, "never": None}.items():
            pids[name] = kept.call(name, "call", idle_seconds)
            assert kept.wait() == 0
            kept.release_idle()  # It is not idle while nobody has taken its answer.
            assert kept.take_answer()
        kept.release_idle()

        def gone(name: str) -> bool:
            kept.release_idle()
            return not Path(f"/proc/{pids[name]}").exists()

        wait_until(lambda: gone("soon"), 60, "its end")
        assert not gone("later")
        assert not gone("never")
        assert kept.call("later", "call", 600.0) == pids["later"]
        assert kept.wait() == 0
    finally:
        kept.stop()


def test_kept_process_that_cannot_be_set_up_defers_and_heals(workshop):
    workshop.write(
        "model",
        plugin(
            "model",
            "keep_loaded = True",
            "def setup(self, context):\n    if not Path('gate').exists(): 1 / 0",
            "def analyze(self, image, context):\n    return {}",
        ),
    )
    [upload_id] = workshop.upload()
    workshop.worker()
    workshop.wait_for_state(upload_id, "model", "deferred")
    (workshop.folder / "gate").touch()
    assert workshop.end_of(upload_id, "model").state == "succeeded"


def add_many(workshop: Workshop, count: int, priority: int = 0) -> None:
    """Multiply the one upload that there is."""
    document = workshop.collection.find_one({})
    analyses = [{**analysis, "priority": priority} for analysis in document["analyses"]]
    workshop.collection.insert_many([another(document, analyses=analyses) for _ in range(count)])


# Its process waits for `go` in the analysis of this number, so that a backfill goes on when a test
# has done what it wants to do meanwhile.
HELD = 150
HOLDS = f"""
self.count = getattr(self, "count", 0) + 1
if self.count == {HELD}:
    Path("held").touch()
    while not Path("go").exists(): time.sleep(0.01)
time.sleep({{seconds}})
return {{{{}}}}
"""


def began_since(workshop: Workshop, moment: datetime, upload_id: str, name: str) -> int:
    """How many analyses of the backfill began after a moment, and before that of the upload."""
    started_at = workshop.stored(upload_id, name)["started_at"]
    meanwhile = {"$elemMatch": {"started_at": {"$gt": moment, "$lt": started_at}}}
    return workshop.collection.count_documents({"analyses": meanwhile})


def test_upload_is_analyzed_before_a_backfill(workshop):
    workshop.analyzer("empty", HOLDS.format(seconds=0), keep_loaded=True)
    workshop.upload(GOOD)
    add_many(workshop, 1_000, priority=10)
    workshop.worker()
    wait_until((workshop.folder / "held").exists, 60, "the backfill")
    [upload_id] = workshop.upload(GOOD)
    moment = now()
    (workshop.folder / "go").touch()
    workshop.end_of(upload_id, "empty")
    # What was being claimed at that moment may come first.
    assert began_since(workshop, moment, upload_id, "empty") <= LARGEST_CLAIM


def test_process_goes_on_until_another_analyzer_waits(workshop):
    workshop.analyzer("long", HOLDS.format(seconds=0.01))
    workshop.analyzer("other", "return {}")
    workshop.upload(GOOD)
    workshop.collection.update_many({}, {"$pull": {"analyses": {"name": "other"}}})
    add_many(workshop, 1_000, priority=10)
    workshop.worker()
    wait_until((workshop.folder / "held").exists, 60, "the backfill")
    [upload_id] = workshop.upload(GOOD)
    wait_until(lambda: workshop.redis.exists(workshop.key("bell:other")), 60, "its bell")
    moment = now()
    (workshop.folder / "go").touch()
    workshop.end_of(upload_id, "other")
    # The rest of what a second has room for, and what was claimed by then; not all that there is.
    assert began_since(workshop, moment, upload_id, "other") <= 2 * LARGEST_CLAIM


def resident_megabytes(pid: int) -> float:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096 / 2**20


def test_memory_of_worker_and_kept_process_stays_flat(workshop):
    workshop.analyzer("empty", "return {}", keep_loaded=True)
    workshop.upload(GOOD)
    worker = workshop.worker()
    [first] = workshop.collection.distinct("_id")
    workshop.end_of(str(first), "empty")

    def megabytes_after(count: int) -> list[float]:
        workshop.collection.update_many({}, {"$set": {"analyses.0.state": "queued"}})
        [process] = worker.horses()
        waiting = {"analyses.state": {"$ne": "succeeded"}}
        wait_until(lambda: not workshop.collection.find_one(waiting), 180, f"the end of {count}")
        [same] = worker.horses()
        assert same == process
        return [resident_megabytes(one.pid) for one in (*worker.children()[2:], process)]

    add_many(workshop, 300)
    before = megabytes_after(300)
    add_many(workshop, 700)
    after = megabytes_after(1_000)
    assert max(b - a for a, b in zip(before, after, strict=True)) < 3
