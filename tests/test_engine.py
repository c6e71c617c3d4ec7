"""The engine of analyses with real workers: batches, kept processes, requirements, limits, notices.

The worker of most tests runs all the analyzers below on the same two uploads, one after the other.
"""

import json
import os
import re
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import photographs
import pytest
import running
from failing import fail_once
from running import Servers, wait_until
from workshop import HANG_IN_C, Program, Workshop, analyzer, plugin

from clustr.analysis.limits import GRACE_SECONDS, SCHEDULING, Interruption
from clustr.components import build_worker
from clustr.database.analyses import Analyses
from clustr.domain.errors import DatabaseUnavailable

POISON = photographs.photograph("jpg", "rocket")


GOOD = photographs.photograph("jpg", "cat")


IS_POISON = f"image.size == {len(POISON)}"


def batch(name: str, *body: str, **attributes: Any) -> str:
    """The source of a plugin with one analyzer of batches, which has this body."""
    lines = (f"{attribute} = {value!r}" for attribute, value in attributes.items())
    return plugin(
        name,
        *("batch_size = 4", *lines),
        "def analyze_batch(self, images, context):",
        *(f"    {line}" for line in body),
    )


PLUGINS = {
    # What a process has around it
    "mess": analyzer(
        "mess",
        """
        import locale, threading, warnings
        before = [os.getcwd(), signal.getsignal(signal.SIGTERM) is signal.SIG_IGN,
                  locale.setlocale(locale.LC_ALL), warnings.filters[0][0], sys.stdout is None,
                  signal.SIGALRM in signal.pthread_sigmask(signal.SIG_BLOCK, ())]
        print("noise" * 3, end=""); os.write(1, b"more noise")
        ctypes.CDLL(None).puts(b"noise of C"); ctypes.CDLL(None).fflush(None)
        os.chdir("/"); signal.signal(signal.SIGTERM, signal.SIG_IGN)
        locale.setlocale(locale.LC_ALL, "C.UTF-8"); warnings.simplefilter("error")
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGALRM})
        threading.Thread(target=time.sleep, args=(600,)).start()
        sys.stdout = sys.stderr = None
        os.close(1)
        return {"before": before, "process": os.getpid()}
        """,
        keep_loaded=True,
    ),
    # Memory
    "hungry": analyzer("hungry", "return {'x': len(bytearray(10**9))}", memory_mb=200),
    "hungry_inside": analyzer(
        "hungry_inside",
        "try: bytearray(10**9)\nexcept MemoryError as error: raise Fail('broken') from error",
        memory_mb=200,
    ),
    "modest": analyzer("modest", "return {'x': len(bytearray(10**8))}", memory_mb=200),
    "arrays": analyzer(
        "arrays",
        "threads = set(os.listdir('/proc/self/task'))\n"
        "import numpy\n"
        "product = numpy.ones((300, 300)) @ numpy.ones((300, 300))\n"
        "more_threads = set(os.listdir('/proc/self/task')) - threads\n"
        "return {'sum': float(product.sum()), 'more_threads': len(more_threads)}",
        memory_mb=100,
    ),
    # Kept processes
    "kept": plugin(
        "kept",
        "keep_loaded = True",
        "def setup(self, context):\n    self.count = 0",
        "def analyze(self, image, context):\n    self.count += 1",
        "    return {'process': os.getpid(), 'parent': os.getppid(), 'count': self.count,",
        "            'folder': context.tmpdir.is_dir()}",
    ),
    "kept_crash": analyzer(
        "kept_crash",
        f"if {IS_POISON}: ctypes.string_at(0)\nreturn {{'process': os.getpid()}}",
        keep_loaded=True,
        max_attempts=2,
    ),
    "kept_hang": analyzer(
        "kept_hang",
        f"if {IS_POISON}: {HANG_IN_C}\nreturn {{'process': os.getpid()}}",
        keep_loaded=True,
        max_attempts=1,
        timeout=0.5,
    ),
    "kept_slow": analyzer(
        "kept_slow",
        f"while {IS_POISON}:\n    try: time.sleep(60)\n    except Exception: pass\nreturn {{}}",
        keep_loaded=True,
        timeout=0.5,
    ),
    "kept_exit": analyzer("kept_exit", "os._exit(0)", keep_loaded=True, max_attempts=1),
    "kept_deaf": analyzer(
        "kept_deaf", "os.closerange(3, 200); time.sleep(0.1); return {}", keep_loaded=True
    ),
    # Requirements
    "first": analyzer("first", f"if {IS_POISON}: raise Fail('no')\nreturn {{'x': 1}}"),
    "second": analyzer(
        "second", "return {'got': dict(image.results)}", requires=("first",), keep_loaded=True
    ),
    "third": analyzer("third", "return {'got': dict(image.results)}", requires=("first", "second")),
    "of_png": analyzer("of_png", "return {}", formats=frozenset({"image/png"})),
    "after_png": analyzer("after_png", "return {}", requires=("of_png",)),
    "after_after": analyzer("after_after", "return {}", requires=("first", "after_png")),
    # Batches
    "batch": batch(
        "batch", "return [{'together': len(images), 'id': image.id} for image in images]"
    ),
    "batch_poison": batch(
        "batch_poison",
        f"if any({IS_POISON} for image in images): 1 / 0",
        "return [{} for _ in images]",
    ),
    "batch_slow": batch(
        "batch_slow",
        f"if any({IS_POISON} for image in images): time.sleep(60)",
        "return ({},) * len(images)",
        timeout=0.3,
    ),
    "batch_short": batch("batch_short", "return [{}] * 7"),
    "batch_none": batch("batch_none", "return None"),
    "batch_generator": batch("batch_generator", "return ({} for _ in images)"),
    "batch_yields": batch(
        "batch_yields", f"for image in images: yield image, {{'n': 1 / (not {IS_POISON})}}"
    ),
    "batch_stops": batch("batch_stops", "return iter(())"),
    "batch_strange": batch("batch_strange", "yield 'no image', {}"),
    "batch_mixed": batch(
        "batch_mixed",
        f"return [Skip('a rocket') if {IS_POISON} else [] for image in images]",
    ),
    # Provenance
    "model": plugin(
        "model",
        "version = 3",
        "def model_info(self, context):\n    return {'name': 'm', 'version': 7}",
        "def analyze(self, image, context):\n    return {}",
    ),
    "model_raises": plugin(
        "model_raises",
        "def model_info(self, context):\n    sys.exit(3)",
        "def analyze(self, image, context):\n    return {}",
    ),
    "model_too_large": plugin(
        "model_too_large",
        "def model_info(self, context):\n    return {'x': 'x' * 20_000}",
        "def analyze(self, image, context):\n    return {}",
    ),
}


OF_JPEG = "    formats = frozenset({'image/jpeg'})\n"


@pytest.fixture(scope="module")
def engine(tmp_path_factory, servers: Servers) -> Iterator[Workshop]:
    with Workshop(tmp_path_factory.mktemp("engine"), servers) as workshop:
        for name, source in PLUGINS.items():
            # A PNG is for these two, and not one more round of all that hangs and crashes.
            of_jpeg = "" if name in ("batch", "of_png") else OF_JPEG
            workshop.write(name, source.replace("    result_schema", f"{of_jpeg}    result_schema"))
        assert {
            p.name: p.reason for p in workshop.web.plugin_manager.plugins if p.state == "failed"
        } == {}
        yield workshop


@pytest.fixture(scope="module")
def poison_and_good(engine: Workshop) -> list[str]:
    return engine.upload(POISON, GOOD)


@pytest.fixture(scope="module")
def worker(engine: Workshop, poison_and_good: list[str]) -> Program:
    return engine.worker("--workers", "2")


@pytest.fixture(scope="module")
def ends(engine, poison_and_good, worker) -> Any:
    """Waits for the ends of one analyzer on both uploads."""
    return lambda name: [engine.end_of(one, name, seconds=120) for one in poison_and_good]


@pytest.fixture(scope="module")
def later(engine, poison_and_good, worker) -> Any:
    """The ends on an upload that came once the others were done."""
    wait_until(
        lambda: not engine.collection.count_documents({"status": "pending"}), 120, "the first ends"
    )
    [upload_id] = engine.upload(GOOD)
    return lambda name: engine.end_of(upload_id, name, seconds=120)


@pytest.mark.parametrize(
    ("name", "poison", "good"),
    [
        ("hungry", "needed more memory than its limit of 200 MB", "limit of 200 MB"),
        ("hungry_inside", "needed more memory than its limit of 200 MB", "limit of 200 MB"),
        ("modest", None, None),
        ("kept_crash", "its process was killed by SIGSEGV", None),
        ("kept_hang", "its process hung beyond its time limit", None),
        ("kept_slow", "took longer than 0.5 seconds", None),
        ("kept_exit", "its process ended with exit code 0", "exit code 0"),
        ("batch_poison", "ZeroDivisionError: division by zero", None),
        ("batch_slow", "took longer than 0.3 seconds", None),
        ("batch_short", r"analyze_batch\(\) returned 7 results for [12] image", "7 results"),
        ("batch_none", "returned NoneType instead of a list", "NoneType"),
        ("batch_generator", r"yielded dict instead of \(image, result\)", "yielded dict"),
        ("batch_yields", "ZeroDivisionError: division by zero", None),
        ("batch_stops", "ended without a result for this image", "ended without"),
        ("batch_strange", "yielded a result for no image that is left", "no image"),
        ("batch_mixed", "a rocket", "returned list instead of a dict"),
    ],
)
def test_F8c_each_analysis_ends_for_its_own_reason(ends, name, poison, good):
    for found, error in zip(ends(name), (poison, good), strict=True):
        if error is None:
            assert found.state == "succeeded", found.error
        else:
            assert found.state == ("skipped" if error == "a rocket" else "failed")
            assert re.search(error, found.error), found.error


def test_numpy_is_imported_within_a_memory_limit_and_starts_no_threads(ends):
    expected = {"sum": 300.0**3, "more_threads": 0}
    assert [end.result for end in ends("arrays")] == [expected, expected]


def test_F8c_what_a_plugin_does_to_its_process_does_no_harm(engine, worker, ends, later):
    *first, last = [*ends("mess"), later("mess")]
    assert all(end.state == "succeeded" for end in (*first, last)), last.error
    befores = [end.result["before"] for end in (*first, last)]
    assert befores[0] == befores[1] == befores[2]
    assert befores[0][0] == str(engine.folder)
    # What it printed is told by the log, and is not between its lines.
    text = "".join(line["text"] for line in worker.lines() if line["event"] == "plugin_printed")
    assert "noisenoisenoise" in text
    assert "more noise" in text
    assert "noise of C" in text
    strays = [line for line in worker.output().splitlines() if not line.startswith("{")]
    assert not [line for line in strays if "noise" in line]


def test_kept_process_is_set_up_once_and_belongs_to_the_worker(worker, ends, later):
    results = [end.result for end in (*ends("kept"), later("kept"))]
    assert {result["parent"] for result in results} <= {child.pid for child in worker.children()}
    assert all(result["folder"] for result in results)
    for process in {result["process"] for result in results}:
        counts = [result["count"] for result in results if result["process"] == process]
        assert counts == list(range(1, len(counts) + 1))


def test_kept_process_that_died_is_replaced(ends, later):
    for name in ("kept_crash", "kept_hang"):
        poison, good = ends(name)
        assert later(name).state == good.state == "succeeded"
        assert poison.attempts == (2 if name == "kept_crash" else 1)


def test_kept_process_that_closes_everything_harms_no_other(ends):
    assert {end.state for end in ends("kept_deaf")} <= {"succeeded", "failed"}


def test_results_of_the_required_are_handed_over(ends):
    _, second = ends("second")
    assert second.result == {"got": {"first": {"x": 1}}}
    _, third = ends("third")
    assert third.result == {"got": {"first": {"x": 1}, "second": second.result}}


def test_requirement_that_did_not_succeed_is_named(engine, poison_and_good, ends):
    for name in ("second", "third"):
        poison, _ = ends(name)
        assert (poison.state, poison.error) == ("skipped", "requires first")
        assert poison.attempts == 0
    for name, required in (("after_png", "of_png"), ("after_after", "after_png")):
        assert [(e.state, e.error) for e in ends(name)] == [("skipped", f"requires {required}")] * 2


def test_batch_is_analyzed_together(engine, ends, worker):
    ids = engine.upload(*[photographs.photograph("png")] * 9)
    results = [engine.end_of(upload_id, "batch").result for upload_id in ids]
    assert [result["id"] for result in results] == ids
    assert max(result["together"] for result in results) == 4


def test_provenance_is_kept_beside_the_result(engine, ends):
    for found in ends("model"):
        assert found.version == 3
        assert found.provenance == {
            "plugin": "model",
            "plugin_version": None,
            "model": {"name": "m", "version": 7},
            "config_hash": engine.web.plugin_manager.plugin_of(
                engine.web.plugin_manager.analyzers["model"]
            ).config_hash,
        }
    for name in ("model_raises", "model_too_large"):
        for found in ends(name):
            assert (found.state, found.provenance["model"]) == ("succeeded", {})


def test_F8c_workers_live_on(worker, ends, later):
    later("kept_exit")
    assert worker.alive()
    assert "child_ended" not in worker.output()


# One thing at a time


def test_last_good_result_stays_until_a_newer_one(workshop):
    source = analyzer("moody", "if Path('bad').exists(): raise Fail('bad')\nreturn {'version': 1}")
    workshop.write("moody", source)
    [upload_id] = workshop.upload()

    def run_again() -> Any:
        workshop.collection.update_many({}, {"$set": {"analyses.0.state": "queued"}})
        assert workshop.horse("moody", os.urandom(4).hex()).process.wait(60) == 0
        return workshop.analysis(upload_id, "moody")

    good = run_again()
    newer = source.replace("class It(Analyzer):", "class It(Analyzer):\n    version = 2")
    workshop.write("moody", newer.replace("{'version': 1}", "{'version': 2}"))
    (workshop.folder / "bad").touch()
    bad = run_again()
    assert (bad.state, bad.error) == ("failed", "bad")
    assert (bad.version, bad.result, bad.provenance) == (1, {"version": 1}, good.provenance)


LISTENER = """
import json, os, time
from pathlib import Path
from clustr.plugins import hookimpl

def note(**said):
    with Path("notices").open("a") as file:
        file.write(json.dumps(said) + "\\n")

@hookimpl
def clustr_analysis_finished(upload, analysis):
    note(id=upload.id, name=analysis.name, state=analysis.state, result=analysis.result,
         error=analysis.error, process=os.getpid(), attempts=analysis.attempts,
         ended=analysis.finished_at is not None)
    if analysis.name == "first": raise RuntimeError
    if analysis.name == "second": time.sleep(60)

@hookimpl
def clustr_upload_stored(upload):
    note(id=upload.id, name=None, states=[analysis.state for analysis in upload.analyses])
"""


def test_plugins_are_told_of_what_happened(workshop, monkeypatch):
    workshop.write("listener", LISTENER)
    workshop.analyzer("first", "return {'process': os.getpid()}")
    workshop.analyzer("second", "raise Skip('no')")
    workshop.analyzer("third", "raise Fail('no')")
    workshop.analyzer("away", "raise RetryLater('away', 600)")
    # The web side of this test is in this process, whose folder is another.
    monkeypatch.chdir(workshop.folder)
    [upload_id] = workshop.upload()
    notices = workshop.folder / "notices"
    wait_until(notices.exists, 60, "the notice of the upload")
    worker = workshop.worker("--workers", "2")

    def told() -> dict[str, Any]:
        lines = map(json.loads, notices.read_text().splitlines())
        return {line["name"]: line for line in lines}

    wait_until(lambda: len(told()) == 4, 60, "all notices")
    workshop.wait_for_state(upload_id, "away", "deferred")
    assert {line["id"] for line in told().values()} == {upload_id}
    assert told()[None]["states"] == ["queued"] * 4
    first = told()["first"]
    assert (first["state"], first["result"]) == ("succeeded", {"process": first["process"]})
    assert (first["attempts"], first["ended"]) == (1, True)
    assert [told()[name]["state"] for name in ("second", "third")] == ["skipped", "failed"]

    # The one that raised and the one that hung are in the log, and what follows goes on.
    def raising() -> set[str]:
        return {line["plugin"] for line in worker.lines() if line["event"] == "hook_raised"}

    assert wait_until(raising, 60, "a word on the hook") == {"listener"}
    [another] = workshop.upload()
    assert workshop.end_of(another, "second").state == "skipped"
    assert "away" not in told()


def test_workers_have_a_lower_priority_than_what_people_wait_for(workshop):
    workshop.analyzer("kind", "return {'nice': os.nice(0), 'pid': os.getpid()}")
    worker = workshop.worker(WORKER_NICE="7")
    [upload_id] = workshop.upload(GOOD)
    before = os.getpriority(os.PRIO_PROCESS, 0)
    result = workshop.end_of(upload_id, "kind").result
    assert result["nice"] == before + 7
    expected = [before, before + 7, before + 7]  # the reconciler, jobs, and what runs analyzers
    pids = [child.pid for child in worker.children()]
    wait_until(lambda: sorted(map(priority_of, pids)) == expected, 60, "their priorities")
    # Linux may look at the priority of sessions first, and then only at that of processes.
    if not Path("/proc/self/autogroup").exists():
        return
    for pid in (*pids, result["pid"]):
        session = Path(f"/proc/{pid}/autogroup")
        expected_end = f" nice {priority_of(pid)}\n"
        wait_until(lambda s=session, e=expected_end: s.read_text().endswith(e), 60, str(session))


def priority_of(pid: int) -> int:
    return os.getpriority(os.PRIO_PROCESS, pid)


def test_time_in_which_others_have_the_processor_is_not_that_of_an_analysis(workshop):
    if not SCHEDULING.exists():
        pytest.skip("this kernel does not count how long processes wait for a processor")
    core = min(os.sched_getaffinity(0))
    busy = plugin(
        "busy",
        "timeout = 0.4",
        "def setup(self, context):",
        "    Path('ready').touch()",
        "    while not Path('shared').exists(): time.sleep(0.02)",
        "def analyze(self, image, context):",
        "    cores = os.sched_getaffinity(0)",
        f"    os.sched_setaffinity(0, {{{core}}})",
        "    began, before = time.monotonic(), time.thread_time()",
        "    while time.thread_time() < before + 0.15: pass",
        "    os.sched_setaffinity(0, cores)",
        "    return {'seconds': time.monotonic() - began}",
    )
    workshop.write("busy", busy)
    workshop.worker(WORKER_NICE="10")
    [upload_id] = workshop.upload(GOOD)
    wait_until((workshop.folder / "ready").exists, 60, "the analyzer")
    program = f"import os; os.sched_setaffinity(0, {{{core}}}); open('shared', 'w')\nwhile 1: pass"
    hog = running.start([sys.executable, "-c", program], cwd=workshop.folder)
    try:
        analysis = workshop.end_of(upload_id, "busy")
    finally:
        hog.kill()
        hog.wait()
    assert analysis.state == "succeeded", analysis.error
    assert analysis.result["seconds"] > 0.4  # It shared one core with one ten times as important.


def test_E2_store_that_goes_away_during_a_slice_defers(workshop):
    workshop.analyzer(
        "reader",
        "Path('begun').touch()\nwhile not Path('go').exists(): time.sleep(0.01)\n"
        "return {'size': len(image.path.read_bytes())}",
    )
    ids = workshop.upload(GOOD, GOOD)
    horse = workshop.horse("reader", "run")
    wait_until((workshop.folder / "begun").exists, 60, "the analysis")
    store = workshop.settings.upload_folder
    store.rename(store.with_name("elsewhere"))
    store.mkdir()
    (workshop.folder / "go").touch()
    assert horse.process.wait(60) == 0
    states = [workshop.state_of(upload_id, "reader") for upload_id in ids]
    assert sorted(states) == ["deferred", "queued"]
    store.rmdir()
    store.with_name("elsewhere").rename(store)
    workshop.worker()
    for upload_id in ids:
        assert workshop.end_of(upload_id, "reader").result == {"size": len(GOOD)}


def test_claim_whose_answer_is_lost_is_released(workshop, monkeypatch):
    workshop.analyzer("once", "return {}", max_attempts=1)
    [upload_id] = workshop.upload()
    claim = Analyses.claim

    def lose_answer(*arguments: Any) -> None:
        claim(*arguments)
        raise DatabaseUnavailable

    monkeypatch.setattr(Analyses, "claim", lose_answer)
    fail_once(monkeypatch, Analyses, "release", DatabaseUnavailable)
    handler = signal.getsignal(signal.SIGTERM)
    components = build_worker(workshop.settings, workshop.web.plugin_manager)
    try:
        with pytest.raises(DatabaseUnavailable):
            components.engine.run("once", "run", Interruption())
        assert workshop.state_of(upload_id, "once") == "running"
        components.engine.release_held(Interruption())
    finally:
        signal.signal(signal.SIGTERM, handler)
        components.database.close()
    found = workshop.analysis(upload_id, "once")
    assert (found.state, found.attempts) == ("queued", 0)


def test_end_that_takes_long_to_be_written_is_no_hang_of_the_plugin(workshop, servers):
    mongod = servers.mongod_pid
    freeze = f"os.kill({mongod}, signal.SIGSTOP); return {{}}"
    workshop.analyzer("quick", freeze, timeout=0.5)
    [upload_id] = workshop.upload()
    horse = workshop.horse("quick", "run")
    stat = Path(f"/proc/{mongod}/stat")
    try:
        wait_until(lambda: stat.read_text().rsplit(") ")[-1][0] == "T", 60, "the analysis")
        time.sleep(0.5 + GRACE_SECONDS + 1)  # When a plugin that hangs would be ended.
    finally:
        os.kill(mongod, signal.SIGCONT)
    assert horse.process.wait(60) == 0
    found = workshop.analysis(upload_id, "quick")
    assert (found.state, found.attempts, found.error) == ("succeeded", 1, None)
