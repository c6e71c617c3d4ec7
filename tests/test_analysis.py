"""Analyses by real workers: every plugin's code comes to an end with a reason, and harms no other.

The worker of most tests runs all the analyzers below on one upload; each test looks at one of them.
"""

import re
import signal
from collections.abc import Callable, Iterator
from typing import Any

import photographs
import pytest
from plugin_sources import BRIGHTNESS
from running import Servers, wait_until
from workshop import HANG_IN_C, Program, Workshop, plugin

# What each analyzer does, and how that has to end: the state, and what the error says.
ENDS: dict[str, tuple[str, dict[str, Any], str, str]] = {
    "result": ("return {'x': [1, 2.5, None, 'ä', {'y': True}]}", {}, "succeeded", ""),
    "skip": ("raise Skip('nothing to see')", {}, "skipped", "^nothing to see$"),
    "fail": ("raise Fail('no good')", {}, "failed", "^no good$"),
    "fail_without_words": ("raise Fail(None)", {}, "failed", ""),
    "exception": (
        "1 / 0",
        {},
        "failed",
        r"^ZeroDivisionError: division by zero \(exception.py, line \d+, in analyze\)$",
    ),
    "library": (
        "import json; json.loads('{')",
        {},
        "failed",
        r"^JSONDecodeError: .* \(library.py, line \d+, in analyze\)$",
    ),
    "path": ("open('/no/such/folder/file')", {}, "failed", "No such file or directory: 'file'"),
    "own_exception": (
        "class Odd(Exception):\n    def __str__(self): raise OSError\nraise Odd",
        {},
        "failed",
        "^Odd",
    ),
    "half_character": (r"raise ValueError('\ud800')", {}, "failed", "^ValueError"),
    "long_words": (
        "raise ValueError('x' * 10**6)",
        {},
        "failed",
        r"^ValueError: x{900,1100} \(long_words.py, line \d+, in analyze\)$",
    ),
    "sys_exit": ("sys.exit(0)", {}, "failed", "^SystemExit"),
    "interrupt": ("raise KeyboardInterrupt", {}, "failed", "^KeyboardInterrupt"),
    "not_defined": ("return super().analyze(image, context)", {}, "failed", "NotImplemented"),
    "nothing": ("pass", {}, "failed", "returned NoneType instead of a dict"),
    "list": ("return [1]", {}, "failed", "returned list instead of a dict"),
    "no_json": ("return {'x': object()}", {}, "failed", "cannot be written as JSON at x: Object"),
    "no_number": (
        "return {'x': [{'y': 1}, {'y': float('nan')}]}",
        {},
        "failed",
        r"cannot be written as JSON at x\[1\]\.y: ",
    ),
    "numpy": (
        "import numpy as np; return {'a': np.float32(0.5), 'b': np.arange(3), 'c': [np.int64(7)]}",
        {},
        "succeeded",
        "",
    ),
    "large_numpy": (
        "import numpy; return {'x': numpy.zeros((100, 101))}",
        {},
        "failed",
        "at x: an array of 10100 elements; at most 10000 are allowed",
    ),
    "huge_integer": ("return {'x': 2**70}", {}, "failed", "cannot be written as JSON"),
    "gigantic_integer": ("return {'x': 10**5000}", {}, "failed", "cannot be written as JSON"),
    "half_a_character": (r"return {'x': '\ud800'}", {}, "failed", "cannot be written as JSON"),
    "nul": (r"return {'x': 'a\0b'}", {}, "failed", "NUL"),
    "endless": ("x = {}; x['x'] = x; return x", {}, "failed", "cannot be written as JSON"),
    "too_deep": (
        "x = {}\nfor _ in range(60): x = {'x': x}\nreturn x",
        {},
        "failed",
        "nested too deeply",
    ),
    "just_deep_enough": (
        "x = {}\nfor _ in range(49): x = {'x': x}\nreturn x",
        {},
        "succeeded",
        "",
    ),
    "abyss": (
        "x = {}\nfor _ in range(10**5): x = {'x': x}\nreturn x",
        {},
        "failed",
        "cannot be written as JSON",
    ),
    "two_megabytes": ("return {'x': 'x' * 2**21}", {}, "failed", "2097\\d+ bytes of JSON"),
    "fields_that_fit": (
        "day = '2024-05-01T10:00'; size = {'width': 160, 'height': 9}\n"
        "return {'c': 'a cat', 't': ['cat'], 'd': size, 'w': day}",
        {"fields": {"caption": "c", "tags": "t", "dimensions": "d", "taken_at": "w", "faces": "f"}},
        "succeeded",
        "",
    ),
    "noise": ("print('x' * 10**5, flush=True); os.close(0); return {}", {}, "succeeded", ""),
    "other_folder": ("os.chdir('/'); image.open(); return {}", {}, "succeeded", ""),
    "no_standard_error": ("sys.stderr = sys.stdout = None; return {}", {}, "succeeded", ""),
    "too_slow": ("time.sleep(60)", {"timeout": 0.5}, "failed", "^took longer than 0.5 seconds$"),
    "swallows_exceptions": (
        "while True:\n    try: time.sleep(60)\n    except Exception: pass",
        {"timeout": 0.5},
        "failed",
        "^took longer than 0.5 seconds$",
    ),
    "swallows_all_once": (
        "try: time.sleep(60)\nexcept: time.sleep(60)",
        {"timeout": 0.5},
        "failed",
        "^took longer than 0.5 seconds$",
    ),
    "swallows_all_and_returns": (
        "try: time.sleep(60)\nexcept: return {}",
        {"timeout": 0.5},
        "failed",
        "^took longer than 0.5 seconds$",
    ),
    "deaf_to_alarms": (
        "signal.signal(signal.SIGALRM, signal.SIG_IGN); time.sleep(60)",
        {"timeout": 0.5, "max_attempts": 1},
        "failed",
        "time limit",
    ),
    "endless_words": (
        "class Odd(Exception):\n    def __str__(self):\n        while True: time.sleep(1)\n"
        "raise Odd",
        {"timeout": 0.5, "max_attempts": 1},
        "failed",
        "time limit",
    ),
    "hangs_in_c": (
        HANG_IN_C,
        {"timeout": 0.5, "max_attempts": 2},
        "failed",
        "time limit",
    ),
    "endless_expression": (
        "re.match('(a+)+$', 'a' * 40 + 'b')",
        {"timeout": 0.5},
        "failed",
        "^took longer than 0.5 seconds$",
    ),
    "segfault": ("ctypes.string_at(0)", {}, "failed", "killed by SIGSEGV"),
    "exits": ("os._exit(7)", {"max_attempts": 2}, "failed", "exit code 7"),
    "exits_well": ("os._exit(0)", {}, "failed", "exit code 0"),
    "kills_itself": ("os.kill(os.getpid(), signal.SIGKILL)", {}, "failed", "killed by SIGKILL"),
    "real_time_signal": ("os.kill(os.getpid(), 41)", {}, "failed", "killed by signal 41"),
    "aborts": ("os.abort()", {}, "failed", "killed by SIGABRT"),
}

# More than one member: what is around `analyze`.
PLUGINS = {
    "with_tools": plugin(
        "with_tools",
        "def setup(self, context):",
        "    self.prepared = context.tmpdir.is_dir() and context.seconds_left() > 5",
        "def analyze(self, image, context):",
        "    (context.tmpdir / 'file').write_text('x')",
        "    context.log.warning('a_word_of_the_plugin')",
        "    facts = [image.id, image.sha256, image.content_type, image.size, image.width]",
        "    return {'facts': facts, 'prepared': self.prepared, 'mode': image.open().mode,",
        "            'bytes': len(image.path.read_bytes()), 'left': context.seconds_left()}",
    ),
    "only_png": plugin(
        "only_png",
        "formats = frozenset({'image/png'})",
        "def analyze(self, image, context):\n    return {}",
    ),
    "by_hand": plugin(
        "by_hand", "auto = False", "def analyze(self, image, context):\n    return {}"
    ),
    "bad_teardown": plugin(
        "bad_teardown",
        "def analyze(self, image, context):\n    return {}",
        "def teardown(self):\n    sys.exit(9)",
    ),
    "strict": plugin(
        "strict", "def analyze(self, image, context):\n    return {'mean': 'much'}"
    ).replace("unknown = INCLUDE", "pass\n    mean = fields.Float(required=True)"),
    "brightness": BRIGHTNESS,
}


@pytest.fixture(scope="module")
def naughty(tmp_path_factory, servers: Servers) -> Iterator[Workshop]:
    """A workshop in which workers run all analyzers of this page on one upload."""
    with Workshop(tmp_path_factory.mktemp("naughty"), servers) as workshop:
        for name, (analyze, attributes, _, _) in ENDS.items():
            # So that the next upload, a PNG, is not one more round of all that hangs and crashes.
            formats = {"image/jpeg", "image/png"} if name == "result" else {"image/jpeg"}
            workshop.analyzer(name, analyze, formats=frozenset(formats), **attributes)
        for name, source in PLUGINS.items():
            workshop.write(name, source)
        assert not [p.reason for p in workshop.web.plugin_manager.plugins if p.state == "failed"]
        yield workshop


@pytest.fixture(scope="module")
def upload_id(naughty: Workshop) -> str:
    [upload_id] = naughty.upload(photographs.photograph(), request_id="the-request")
    return upload_id


@pytest.fixture(scope="module")
def worker(naughty: Workshop, upload_id: str) -> Program:
    return naughty.worker("--workers", "3")


@pytest.fixture
def end_of(naughty: Workshop, upload_id: str, worker: Program) -> Callable[[str], Any]:
    """Waits for the end of one analyzer."""
    return lambda name: naughty.end_of(upload_id, name, seconds=120)


@pytest.mark.parametrize("name", ENDS)
def test_F8c_every_analysis_ends_with_a_reason(end_of, name):
    _, attributes, state, error = ENDS[name]
    found = end_of(name)
    assert found.state == state, found.error
    assert re.search(error, found.error or "")
    assert bool(found.error) == (state != "succeeded")
    assert found.attempts <= attributes.get("max_attempts", 3)
    assert (found.result is not None) == (state == "succeeded")


def test_result_is_stored_as_it_is(end_of):
    assert end_of("result").result == {"x": [1, 2.5, None, "ä", {"y": True}]}
    assert end_of("numpy").result == {"a": 0.5, "b": [0, 1, 2], "c": [7]}


def test_fields_are_filled_from_the_result(naughty, upload_id, end_of):
    end_of("fields_that_fit")
    upload = naughty.get(upload_id)
    assert (upload.caption, upload.tags, upload.faces) == ("a cat", ("cat",), ())
    assert (upload.width, upload.height) == (160, 9)
    assert upload.taken_at.isoformat() == "2024-05-01T10:00:00+00:00"


def test_analyzer_has_its_image_and_its_tools(naughty, upload_id, end_of):
    upload = naughty.get(upload_id)
    facts = [upload_id, upload.sha256, "image/jpeg", upload.size, 160]
    result = end_of("with_tools").result
    assert 0 < result.pop("left") <= 60
    assert result == {"facts": facts, "prepared": True, "mode": "RGB", "bytes": upload.size}


def test_brightness_of_the_design_has_its_result(end_of):
    mean = sum(photographs.picture().convert("L").tobytes()) / 160 / 107
    assert end_of("brightness").result["mean"] == pytest.approx(mean, abs=2)


def test_other_formats_are_skipped_at_once(naughty, upload_id, end_of):
    assert end_of("only_png").state == "skipped"
    assert end_of("only_png").error == "does not look at image/jpeg"
    assert end_of("only_png").attempts == 0


def test_analyzers_that_are_not_automatic_are_left_out(naughty, upload_id):
    assert "by_hand" in naughty.web.plugin_manager.analyzers
    assert "by_hand" not in [analysis.name for analysis in naughty.get(upload_id).analyses]


def test_teardown_that_exits_changes_nothing(end_of):
    assert end_of("bad_teardown").state == "succeeded"


def test_result_that_does_not_fit_its_schema_says_where(end_of):
    found = end_of("strict")
    assert found.state == "failed"
    assert found.error == ('the result does not fit its schema: {"mean": ["Not a valid number."]}')


def test_crashes_are_tried_as_often_as_declared(end_of):
    assert end_of("segfault").attempts == 3
    assert end_of("exits").attempts == 2
    assert end_of("hangs_in_c").attempts == 2
    assert end_of("exception").attempts == 1


def test_upload_has_an_end_when_all_have_one_and_the_workers_live(naughty, upload_id, worker):
    wait_until(lambda: naughty.get(upload_id).status == "error", 120, "the end of all")
    assert worker.alive()
    assert "child_ended" not in worker.output()
    [another] = naughty.upload(photographs.photograph("png"))
    assert naughty.end_of(another, "result").state == "succeeded"
    assert naughty.end_of(another, "only_png").state == "succeeded"


def test_logs_say_which_request_upload_and_analyzer(naughty, upload_id, end_of, worker):
    end_of("exception")
    end_of("with_tools")
    about = {"request_id": "the-request", "upload_id": upload_id}

    def lines(event: str, analyzer: str) -> list[dict[str, Any]]:
        expected = {**about, "event": event, "analyzer": analyzer}
        return [line for line in worker.lines() if expected.items() <= line.items()]

    wait_until(lambda: lines("analysis_succeeded", "with_tools"), 60, "the line of the end")
    [line] = wait_until(lambda: lines("analysis_failed", "exception"), 60, "that of the other")
    assert line["level"] == "error"
    assert line["duration_ms"] >= 0
    place = r"\(exception.py, line \d+, in analyze\)"
    assert re.fullmatch(rf"ZeroDivisionError: division by zero {place}", line["error"])
    [raised] = lines("analyzer_raised", "exception")
    assert "1 / 0" in raised["exception"]
    [own] = lines("a_word_of_the_plugin", "with_tools")
    assert own["logger"] == "clustr.plugin.with_tools"


# One thing at a time


def test_C7_those_claimed_with_a_poisonous_one_are_not_failed_with_it(workshop):
    poison = photographs.photograph("jpg", "rocket")
    workshop.analyzer(
        "touchy",
        f"if image.size == {len(poison)}: os._exit(1)\nreturn {{}}",
        max_attempts=1,
    )
    workshop.analyzer("patient", f"if image.size == {len(poison)}: os._exit(1)\nreturn {{}}")
    good = [photographs.photograph("jpg", "cat")] * 6
    ids = workshop.upload(*good, poison, *good)
    workshop.worker()
    for name, attempts in (("touchy", 1), ("patient", 3)):
        ends = [workshop.end_of(upload_id, name) for upload_id in ids]
        assert [end.state for end in ends].count("succeeded") == 12
        assert ends[6].state == "failed"
        assert ends[6].attempts == attempts


def test_retry_later_is_deferred_and_ends_when_it_can(workshop):
    gate = workshop.folder / "gate"
    workshop.analyzer(
        "gated", f"if not Path({str(gate)!r}).exists(): raise RetryLater('shut', 0)\nreturn {{}}"
    )
    [upload_id] = workshop.upload()
    workshop.worker()
    assert workshop.wait_for_state(upload_id, "gated", "deferred").error == "shut"
    assert workshop.get(upload_id).status == "pending"
    gate.touch()
    found = workshop.end_of(upload_id, "gated")
    assert (found.state, found.error) == ("succeeded", None)
    assert workshop.get(upload_id).status == "processed"


def test_deferral_is_one_whatever_it_says(workshop):
    outcomes = {
        "soon": "RetryLater('away', 'soon')",
        "no_reason": "RetryLater(None, float('nan'))",
        "no_address": "ConfigError('no address')",
    }
    for name, outcome in outcomes.items():
        workshop.analyzer(name, f"raise {outcome}")
    [upload_id] = workshop.upload()
    for name in outcomes:
        assert workshop.horse(name, "run").process.wait(60) == 0
        assert workshop.state_of(upload_id, name) == "deferred"


def test_D4_deferral_has_an_end_after_thousands_of_attempts(workshop):
    workshop.analyzer("away", "raise RetryLater('away')")
    [upload_id] = workshop.upload()
    workshop.collection.update_one({}, {"$set": {"analyses.0.attempts": 5000}})
    assert workshop.horse("away", "run").process.wait(60) == 0
    assert workshop.state_of(upload_id, "away") == "deferred"


def test_setup_that_raises_defers_and_heals(workshop):
    gate = workshop.folder / "gate"
    workshop.write(
        "model",
        plugin(
            "model",
            "def setup(self, context):",
            f"    if not Path({str(gate)!r}).exists(): sys.exit('no model')",
            "def analyze(self, image, context):\n    return {}",
        ),
    )
    ids = workshop.upload(*[photographs.photograph()] * 3)
    workshop.worker()
    for upload_id in ids:
        deferred = workshop.wait_for_state(upload_id, "model", "deferred")
        assert "setup() raised SystemExit: no model" in deferred.error
    gate.touch()
    for upload_id in ids:
        found = workshop.end_of(upload_id, "model")
        assert (found.state, found.error) == ("succeeded", None)


def test_unknown_analyzer_is_no_fault(workshop):
    workshop.analyzer("known", "return {}")
    horse = workshop.horse("unknown", "run")
    assert horse.process.wait(60) == 0
    assert "analyzer_unknown" in horse.output()


def test_C9_late_result_of_a_stopped_process_changes_nothing(workshop):
    workshop.analyzer(
        "slow",
        """
        Path("begun").touch()
        while not Path("go").exists(): time.sleep(0.01)
        return {"process": os.getpid()}
        """,
    )
    [upload_id] = workshop.upload()
    first = workshop.horse("slow", "first")
    wait_until((workshop.folder / "begun").exists, 60, "the first run")
    first.signal(signal.SIGSTOP)
    workshop.end_leases()
    assert workshop.web.database.analyses.reclaim("slow", 3, "the worker was lost") == 1
    (workshop.folder / "go").touch()
    second = workshop.horse("slow", "second")
    assert second.process.wait(60) == 0
    before = workshop.collection.find_one({})
    assert workshop.analysis(upload_id, "slow").result == {"process": second.pid}
    first.signal(signal.SIGCONT)
    assert first.process.wait(60) == 0
    assert workshop.collection.find_one({}) == before
    assert "late_results_dropped" in first.output()


def test_F4c_upload_that_is_deleted_while_it_is_analyzed_stays_away(workshop):
    workshop.analyzer(
        "slow", "Path('begun').touch()\nwhile not Path('go').exists(): time.sleep(0.01)\nreturn {}"
    )
    workshop.upload()
    horse = workshop.horse("slow", "run")
    wait_until((workshop.folder / "begun").exists, 60, "the analysis")
    workshop.collection.delete_many({})
    (workshop.folder / "go").touch()
    assert horse.process.wait(60) == 0
    assert workshop.collection.count_documents({}) == 0


def test_a_hundred_uploads_at_once_all_end(workshop):
    workshop.analyzer("quick", "return {}")
    workshop.analyzer("picky", "raise Skip('no')")
    ids = workshop.upload(*[photographs.photograph(width=40)] * 100)
    workshop.worker()

    def ended() -> bool:
        return workshop.collection.count_documents({"status": "processed"}) == len(ids)

    wait_until(ended, 60, "the end of all")
