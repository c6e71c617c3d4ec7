"""Batches whose results are stored as they come, with real workers."""

import photographs
from workshop import plugin

SLOW = photographs.photograph("jpg", "rocket")
QUICK = [photographs.photograph("jpg", "cat", width=40 + n) for n in range(7)]
IS_SLOW = f"image.size == {len(SLOW)}"


def yielding(*body: str, timeout: float) -> str:
    """The source of a plugin whose batches yield, as this body says for each image."""
    return plugin(
        "yielding",
        "batch_size = 8",
        f"timeout = {timeout}",
        "def analyze_batch(self, images, context):",
        f"    for image in sorted(images, key=lambda image: {IS_SLOW}):",
        *(f"        {line}" for line in body),
    )


def test_one_that_hangs_does_not_hold_back_the_others(workshop):
    gate = workshop.folder / "gate"
    body = (
        f"while {IS_SLOW} and not os.path.exists({str(gate)!r}): time.sleep(0.05)",
        "yield image, {'together': len(images)}",
    )
    workshop.write("yielding", yielding(*body, timeout=60))
    slow, *others = workshop.upload(SLOW, *QUICK)
    horse = workshop.horse("yielding", "run")
    for upload_id in others:
        assert workshop.end_of(upload_id, "yielding").result == {"together": 8}
    assert workshop.state_of(slow, "yielding") == "running"
    gate.write_text("open")
    assert horse.process.wait(60) == 0
    assert workshop.analysis(slow, "yielding").result == {"together": 8}


def test_one_that_takes_too_long_fails_and_the_others_are_looked_at_once(workshop):
    body = (f"if {IS_SLOW}: time.sleep(60)", "yield image, {'together': len(images)}")
    workshop.write("yielding", yielding(*body, timeout=1))
    slow, *others = workshop.upload(SLOW, *QUICK)
    assert workshop.horse("yielding", "run").process.wait(60) == 0
    assert {workshop.analysis(key, "yielding").result["together"] for key in others} == {8}
    failed = workshop.analysis(slow, "yielding")
    assert (failed.state, failed.error) == ("failed", "took longer than 1 seconds")


def test_those_without_a_result_yet_are_tried_alone(workshop):
    body = (f"if {IS_SLOW} and len(images) > 1: 1 / 0", "yield image, {'n': len(images)}")
    source = yielding(*body, timeout=30).replace(f"image: {IS_SLOW}", f"image: not {IS_SLOW}")
    workshop.write("yielding", source)
    ids = workshop.upload(SLOW, *QUICK)
    assert workshop.horse("yielding", "run").process.wait(60) == 0
    ends = [workshop.analysis(key, "yielding") for key in ids]
    assert {end.state for end in ends} == {"succeeded"}
    assert ends[0].result == {"n": 1}


def test_a_service_that_is_away_for_some_does_not_stop_the_others(workshop):
    body = (f"yield image, RetryLater('the shelf is away') if {IS_SLOW} else {{}}",)
    workshop.write("yielding", yielding(*body, timeout=30))
    slow, *others = workshop.upload(SLOW, *QUICK)
    assert workshop.horse("yielding", "run").process.wait(60) == 0
    assert {workshop.state_of(key, "yielding") for key in others} == {"succeeded"}
    assert workshop.state_of(slow, "yielding") == "deferred"
    assert workshop.web.database.circuit_breakers.get("yielding") is None
