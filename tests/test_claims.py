"""Claims of analyses on a real MongoDB: who gets which, and how they come back."""

import itertools
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from threading import Barrier

from stored_analyses import LEASE, add, claim, finish, set_analysis, stored

from clustr.database import now
from clustr.domain.models import State, Status


def test_C6_concurrent_claims_never_share_an_analysis(database):
    ids = add(database, State.QUEUED, count=120)
    runs = [f"run-{number}" for number in range(8)]

    all_have_some = Barrier(len(runs))

    def take_all(run: str) -> list[str]:
        taken: list[str] = []
        while not taken:  # Others may just have taken all those that one wanted.
            taken = claim(database, run)
        all_have_some.wait(60)
        for size in itertools.cycle((1, 5, 3)):
            if not (claimed := claim(database, run, size)) and not database.analyses.has_work("a"):
                return taken
            taken += claimed
        raise AssertionError

    with ThreadPoolExecutor(len(runs)) as threads:
        taken = list(threads.map(take_all, runs))
    assert sorted(itertools.chain(*taken)) == sorted(ids)
    assert all(taken)


def test_claim_takes_the_most_urgent_first(database, collection):
    later, backfill, urgent, sooner = add(database, State.QUEUED, count=4)
    set_analysis(collection, later, due_at=now() + timedelta(seconds=5))
    set_analysis(collection, backfill, priority=1)
    set_analysis(collection, urgent, priority=-1)
    assert claim(database, size=2) == [urgent, sooner]
    assert claim(database, size=9) == [later, backfill]


def test_claim_is_of_one_analyzer_in_one_state(database):
    add(database, State.RUNNING, State.QUEUED)
    add(database, State.DEFERRED, State.QUEUED)
    assert claim(database, size=9) == []
    assert len(claim(database, state=State.DEFERRED)) == 1


def test_claim_says_what_it_is_and_counts_the_attempt(database, collection):
    [upload_id] = add(database, State.QUEUED, State.QUEUED)
    before = now()
    [claimed] = database.analyses.claim("a", 7, "run", 1, LEASE, State.QUEUED)
    assert (claimed.upload.id, claimed.attempts) == (upload_id, 1)
    analysis = stored(collection, upload_id)
    assert (analysis["state"], analysis["version"], analysis["run"]) == ("running", 7, "run")
    assert before + LEASE <= analysis["lease_until"] <= now() + LEASE
    assert before <= analysis["started_at"] <= now()
    assert stored(collection, upload_id, "b")["state"] == "queued"


def test_C7_one_that_crashed_is_claimed_alone_and_after_the_others(database, collection):
    crashed, fine, also_fine, crashed_too = add(database, State.QUEUED, count=4)
    set_analysis(collection, crashed, crashes=1)
    set_analysis(collection, crashed_too, crashes=2)
    assert claim(database, size=9) == [fine, also_fine]
    assert claim(database, size=9) == [crashed]
    assert claim(database, size=9) == [crashed_too]


def test_C13_what_is_put_back_has_had_no_attempt(database, collection):
    held, other_run = add(database, State.QUEUED, count=2)
    claim(database, "run")
    claim(database, "other")
    assert database.analyses.release("a", "run") == 1
    analysis = stored(collection, held)
    assert (analysis["state"], analysis["attempts"], analysis["crashes"]) == ("queued", 0, 0)
    assert "run" not in analysis
    assert stored(collection, other_run)["state"] == "running"


def test_C7_taken_back_from_one_run_that_died(database, collection):
    held, other_run = add(database, State.QUEUED, count=2)
    claim(database, "run")
    claim(database, "other")
    assert database.analyses.reclaim("a", 3, "it was killed", "run") == 1
    analysis = stored(collection, held)
    assert (analysis["state"], analysis["crashes"], analysis["attempts"]) == ("queued", 1, 1)
    assert stored(collection, other_run)["state"] == "running"


def test_C7_taken_back_when_the_lease_has_ended_and_not_before(database, collection):
    ended, held = add(database, State.QUEUED, count=2)
    claim(database, "run", lease=timedelta(seconds=-1))
    claim(database, "other")
    assert database.analyses.reclaim("a", 3, "lost") == 1
    assert stored(collection, ended)["state"] == "queued"
    assert stored(collection, held)["state"] == "running"


def test_renewed_lease_is_kept(database, collection):
    [upload_id] = add(database, State.QUEUED)
    claim(database, lease=timedelta(seconds=-1))
    database.analyses.renew("a", "run", LEASE)
    assert database.analyses.reclaim("a", 3, "lost") == 0
    assert stored(collection, upload_id)["state"] == "running"


def test_C7_after_its_last_attempt_it_fails_with_the_reason(database, collection):
    [upload_id] = add(database, State.QUEUED)
    for crashes in (1, 2):
        claim(database)
        database.analyses.reclaim("a", 3, "killed by SIGSEGV", "run")
        assert stored(collection, upload_id)["crashes"] == crashes
    claim(database)
    assert database.analyses.reclaim("a", 3, "killed by SIGSEGV", "run") == 1
    upload = database.uploads.get(upload_id)
    assert upload.status == Status.ERROR
    [analysis] = upload.analyses
    assert (analysis.state, analysis.attempts) == (State.FAILED, 3)
    assert analysis.error == "killed by SIGSEGV"
    assert analysis.finished_at


def test_success_leaves_no_error_of_earlier_attempts(database):
    [upload_id] = add(database, State.QUEUED)
    claim(database)
    database.analyses.reclaim("a", 3, "killed", "run")
    claim(database)
    finish(database, upload_id, result={})
    assert database.uploads.get(upload_id).analyses[0].error is None
