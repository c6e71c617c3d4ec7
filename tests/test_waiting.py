"""Requests that wait for analyses (`Prefer: wait=10`), and that have only what is missing made."""

import itertools
import json
import socket
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlsplit

import photographs
import pytest
import requests
from calling import get, part, upload, uploaded
from pymongo.errors import OperationFailure
from running import Servers, moment, wait_until
from web_side import WebSide
from workshop import Workshop

from clustr.api.http.preferences import preferred_wait
from clustr.api.schemas.accepted_files import UploadedSchema
from clustr.api.schemas.analyses import AnalysisSchema
from clustr.api.schemas.uploads import UploadSchema
from clustr.database.bulk_selection import PRIORITY
from clustr.domain.models import Analysis, State, are_under_way
from clustr.services.waiting import SHORTEST_PAUSE_SECONDS
from clustr.supervisor import gunicorn_settings

# MongoDB's code for an error of a reader whose place in a capped collection was written over.
CAPPED_POSITION_LOST = 136

# How many requests of one process wait at a time.
PLACES = gunicorn_settings.threads // 5
LONG = {"Prefer": "wait=50"}  # longer than a test waits for anything


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory, servers: Servers) -> Iterator[Workshop]:
    """Each upload is analyzed by `one` and `two`, when a test lets them; other analyzers are asked.

    MongoDB notes all that is read of the uploads.
    """
    with Workshop(tmp_path_factory.mktemp("waiting"), servers) as made:
        made.analyzer("one", 'return {"n": 1}')
        made.analyzer("two", 'return {"n": 2}')
        made.analyzer("away", 'raise RetryLater("the service is away", after=600)', auto=False)
        made.analyzer("behind", 'return {"n": 4}', auto=False, requires=("away",))
        runs = str(made.folder / "runs")
        made.analyzer(
            "asked",
            f'with Path({runs!r}).open("a") as file:\n    file.write(image.id + "\\n")\n'
            'return {"n": 5}',
            auto=False,
        )
        failing = str(made.folder / "failing")
        made.analyzer(
            "fickle",
            f'if Path({failing!r}).exists():\n    raise Fail("not today")\nreturn {{"n": 6}}',
            auto=False,
        )
        made.collection.database.command("profile", 2, filter={"command.find": "uploads"})
        yield made


@pytest.fixture(scope="module")
def web(workshop: Workshop) -> WebSide:
    return WebSide(workshop, processes=1)


@pytest.fixture(scope="module")
def clients() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(2 * PLACES) as threads:
        yield threads


def new_uploads(web: WebSide, count: int = 1) -> list[str]:
    contents = [photographs.photograph(width=40 + number) for number in range(count)]
    return [one["id"] for one in uploaded(web, *contents)]


def analyze(workshop: Workshop, *analyzers: str) -> None:
    """Let these analyzers do all that is queued for them."""
    for name in analyzers:
        workshop.analyze(name)


def looks(workshop: Workshop) -> list[dict[str, Any]]:
    """What MongoDB noted of the looks at states of analyses, the newest last."""
    noted = workshop.collection.database["system.profile"]
    while True:
        try:
            found = [*noted.find().sort("$natural", 1)]
            break
        except OperationFailure as error:
            assert error.code == CAPPED_POSITION_LOST
    return [one for one in found if "analyses.requires" in one["command"].get("projection", {})]


def ids_of(look: dict[str, Any]) -> set[str]:
    return {str(one) for one in look["command"]["filter"]["_id"]["$in"]}


def wait_until_watched(workshop: Workshop, upload_ids: list[str]) -> None:
    """Wait until requests wait for these uploads: the thread has looked for them twice in a row."""

    def is_watched() -> bool:
        newest = [ids_of(look) for look in looks(workshop)[-2:]]
        return len(newest) == 2 and newest[0] == newest[1] >= {*upload_ids}

    wait_until(is_watched, 40, f"requests that wait for {upload_ids}")


Ask = Callable[..., "Future[requests.Response]"]


@pytest.fixture
def ask(web: WebSide, workshop: Workshop, clients: ThreadPoolExecutor) -> Ask:
    """Begins a request for an upload that waits, and returns its answer once it has come."""

    def ask(upload_id: str, query: str = "") -> "Future[requests.Response]":
        path = f"/api/uploads/{upload_id}{query}"
        answer = clients.submit(get, web, path, headers=LONG)
        wait_until_watched(workshop, [upload_id])
        assert not answer.done()
        return answer

    return ask


def post(web: WebSide, upload_id: str, analyzer: str, query: str = "?if=missing", **headers: str):
    url = f"{web.url}/api/uploads/{upload_id}/analyses/{analyzer}{query}"
    return requests.post(url, headers=headers, timeout=60)


def applied(answer: requests.Response) -> str | None:
    return answer.headers.get("Preference-Applied")


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("wait=10", 10),
        ("wait=0", 0),
        ("wait=0060", 60),
        ("wait=61", 60),
        ("wait=" + "9" * 5000, 60),
        ("WAIT = 7", 7),
        ('wait="7"', 7),
        ("respond-async, wait=7; of=it", 7),
        ("wait=7, wait=8", 7),
        ('return="a, wait=3", wait=8', 8),
        *((header, None) for header in ("", "wait", "wait=", "wait=abc", "wait=-1", "wait=1.5")),
        *((header, None) for header in ("waits=1", "wait=abc, wait=8", "wait=٣", ";", "=", '"')),
    ],
)
def test_the_seconds_that_a_preference_asks_for(header: str, seconds: int | None) -> None:
    assert preferred_wait(header) == seconds


def of_state(name: str, state: str, *requires: str) -> Analysis:
    return Analysis(name, 1, State(state), requires=requires)


@pytest.mark.parametrize(
    ("analyses", "under_way"),
    [
        ([], False),
        ([of_state("a", "queued")], True),
        ([of_state("a", "running")], True),
        ([of_state("other", "queued")], False),
        *(([of_state("a", state)], False) for state in ("deferred", "succeeded", "failed")),
        ([of_state("b", "running"), of_state("a", "waiting", "b")], True),
        ([of_state("b", "deferred"), of_state("a", "waiting", "b")], False),
        (
            [of_state("c", "queued"), of_state("b", "waiting", "c"), of_state("a", "waiting", "b")],
            True,
        ),
        ([of_state("a", "waiting", "gone")], False),
    ],
)
def test_what_is_under_way_is_what_will_end(analyses: list[Analysis], under_way: bool) -> None:
    assert are_under_way(analyses, ["a"]) is under_way


def test_an_upload_is_answered_when_all_of_its_analyses_have_ended(web, workshop, ask):
    [upload_id] = new_uploads(web)
    answer = ask(upload_id)
    analyze(workshop, "one")
    assert not answer.done()
    analyze(workshop, "two")
    came, answered_at = answer.result(), datetime.now(UTC)
    assert (came.status_code, applied(came)) == (200, "wait=50")
    body = came.json()
    assert not UploadSchema().validate(body)
    assert body["status"] == "processed"
    ends = [moment(analysis["finished_at"]) for analysis in body["analyses"].values()]
    # It came with the end and not with the end of its time, however busy the machine is.
    assert max(ends) < answered_at < max(ends) + timedelta(seconds=20)
    again = get(web, f"/api/uploads/{upload_id}", headers=LONG)
    assert (applied(again), again.json()) == ("wait=50", body)


def test_only_the_analyses_that_are_named_are_waited_for(web, workshop, ask):
    [upload_id] = new_uploads(web)
    answer = ask(upload_id, "?wait_for=two,asked")
    analyze(workshop, "two")
    came = answer.result()
    assert applied(came) == "wait=50"
    states = {name: one["status"] for name, one in came.json()["analyses"].items()}
    assert states == {"one": "queued", "two": "succeeded"}


def test_an_upload_request_is_answered_when_the_analyses_have_ended(web, workshop, clients):
    parts = [part(photographs.photograph(width=30 + n)) for n in range(2)]
    before = {str(one["_id"]) for one in workshop.collection.find({}, {"_id": 1})}
    answer = clients.submit(upload, web, *parts, part(b"%PDF-", "a.pdf"), headers=LONG)
    wait_until(lambda: len(list(workshop.collection.find())) == len(before) + 2, 40, "the uploads")
    new = {str(one["_id"]) for one in workshop.collection.find({}, {"_id": 1})} - before
    wait_until_watched(workshop, [*new])
    analyze(workshop, "one", "two")
    came = answer.result()
    assert (came.status_code, applied(came)) == (201, "wait=50")
    assert not UploadedSchema().validate(came.json())
    assert {one["id"]: one["status"] for one in came.json()["data"]} == dict.fromkeys(
        new, "processed"
    )
    assert len(came.json()["errors"]) == 1


def test_when_the_time_is_up_the_answer_is_what_is_there(web, workshop):
    [upload_id] = new_uploads(web)
    expected = {"wait=1": "wait=1", "wait=0": "wait=0", "wait=soon": None, "": None}
    for prefer, said in expected.items():
        answer = get(web, f"/api/uploads/{upload_id}", headers={"Prefer": prefer})
        assert (answer.json()["status"], applied(answer)) == ("pending", said), prefer
    analyze(workshop, "one", "two")
    answer = get(web, f"/api/uploads/{upload_id}", headers={"Prefer": "wait=100"})
    assert (answer.json()["status"], applied(answer)) == ("processed", "wait=60")


@pytest.mark.parametrize("names", ["nosuch", "one,nosuch", "", "one,"])
def test_an_unknown_analyzer_is_refused_with_the_names_that_there_are(web, workshop, names):
    [upload_id] = new_uploads(web)
    count = workshop.collection.count_documents({})
    asked = [
        get(web, f"/api/uploads/{upload_id}?wait_for={names}", headers=LONG),
        post(web, upload_id, "one", f"?wait_for={names}", **LONG),
        requests.post(
            f"{web.url}/api/upload?wait_for={names}",
            files=[part(photographs.photograph())],
            headers=LONG,
            timeout=60,
        ),
    ]
    for answer in asked:
        assert answer.status_code == 422, answer.text
        [message] = answer.json()["errors"]["wait_for"]
        assert "one, " in message
        assert "two" in message
    assert workshop.collection.count_documents({}) == count


def test_a_deferred_analysis_is_not_waited_for_nor_what_requires_it(web, workshop, clients):
    [upload_id] = new_uploads(web)
    assert post(web, upload_id, "away").status_code == 202
    assert post(web, upload_id, "behind").status_code == 202
    answers = [
        clients.submit(post, web, upload_id, "away", **LONG),
        clients.submit(get, web, f"/api/uploads/{upload_id}?wait_for=behind", headers=LONG),
    ]
    wait_until_watched(workshop, [upload_id])
    analyze(workshop, "away")
    away, behind = (answer.result() for answer in answers)
    assert (away.status_code, applied(away)) == (202, "wait=50")
    assert (away.json()["status"], away.json()["error"]) == ("deferred", "the service is away")
    assert (behind.status_code, applied(behind)) == (200, "wait=50")
    assert behind.json()["analyses"]["behind"]["status"] == "waiting"
    analyze(workshop, "one", "two")


def test_an_upload_that_is_removed_meanwhile_is_answered_as_one_that_was(web, ask):
    [upload_id] = new_uploads(web)
    answer = ask(upload_id)
    assert requests.delete(f"{web.url}/api/uploads/{upload_id}", timeout=60).status_code == 204
    came = answer.result()
    assert (came.status_code, came.json()["type"]) == (404, "urn:clustr:problem:in_trash")


def test_an_upload_that_never_was_is_not_waited_for(web):
    for unknown in ("0" * 24, "none"):
        assert get(web, f"/api/uploads/{unknown}", headers=LONG).status_code == 404
        assert post(web, unknown, "one", **LONG).status_code == 404


def test_however_many_wait_one_query_at_a_time_looks_for_all_and_others_are_answered(
    web, workshop, clients
):
    ids = new_uploads(web, PLACES)
    paths = [f"/api/uploads/{upload_id}" for upload_id in ids]
    answers = [clients.submit(get, web, path, headers=LONG) for path in paths]
    wait_until_watched(workshop, ids)
    began_at = looks(workshop)[-1]["ts"]  # MongoDB keeps a limited number of them.

    def new_looks() -> list[dict[str, Any]]:
        return [look for look in looks(workshop) if look["ts"] > began_at]

    # All places are taken: one more is answered at once, and says that it did not wait.
    refused = get(web, paths[0], headers=LONG)
    assert (refused.status_code, refused.json()["status"]) == (200, "pending")
    assert applied(refused) is None
    assert upload(web, part(photographs.one_pixel())).status_code == 201
    assert get(web, "/api/uploads").status_code == 200
    wait_until(lambda: len(new_looks()) > 10, 40, "more looks")
    seen = new_looks()
    own = [look for look in seen if ids_of(look) != {*ids}]
    assert len(own) == 1  # of the request that was refused
    ends = [look["ts"] for look in seen if look not in own]
    gaps = [(later - earlier).total_seconds() for earlier, later in itertools.pairwise(ends)]
    assert sum(gaps) >= 0.9 * SHORTEST_PAUSE_SECONDS * len(gaps)
    assert not any(answer.done() for answer in answers)
    analyze(workshop, "one", "two")
    for answer in answers:
        assert (answer.result().json()["status"], applied(answer.result())) == (
            "processed",
            "wait=50",
        )


def test_a_client_that_goes_away_gives_its_place_to_others(web, workshop):
    ids = new_uploads(web, PLACES)
    address = urlsplit(web.url)
    with ExitStack() as opened:
        for upload_id in ids:
            client = socket.create_connection((address.hostname, address.port), timeout=60)
            opened.enter_context(client)
            lines = f"GET /api/uploads/{upload_id} HTTP/1.1\r\nHost: 127.0.0.1\r\nPrefer: wait=60"
            client.sendall(f"{lines}\r\n\r\n".encode())
        wait_until_watched(workshop, ids)

    def has_waited() -> bool:
        path = f"/api/uploads/{ids[0]}"
        return applied(get(web, path, headers={"Prefer": "wait=1"})) == "wait=1"

    wait_until(has_waited, 40, "a place")
    analyze(workshop, "one", "two")


@pytest.mark.parametrize("signal", ["SIGTERM", "SIGHUP"])
def test_a_process_that_is_to_end_answers_at_once_all_that_wait(
    workshop, clients, signal_numbers, signal
):
    own = WebSide(workshop, processes=1)
    [worker] = own.workers()
    [upload_id] = new_uploads(own)
    answers = [
        clients.submit(get, own, f"/api/uploads/{upload_id}", headers=LONG),
        clients.submit(post, own, upload_id, "one", **LONG),
    ]
    wait_until_watched(workshop, [upload_id])
    own.gunicorn.signal(signal_numbers[signal])
    got, posted = (answer.result() for answer in answers)
    assert (got.status_code, got.json()["status"], applied(got)) == (200, "pending", None)
    assert (posted.status_code, posted.json()["status"], applied(posted)) == (202, "queued", None)
    wait_until(lambda: not worker.alive(), 40, "the end of the process")
    assert "SIGKILL" not in own.output()
    assert "Traceback" not in own.output()
    own.gunicorn.stop()


@pytest.fixture
def signal_numbers() -> dict[str, int]:
    return {"SIGTERM": 15, "SIGHUP": 1}


def test_while_mongodb_does_not_answer_nobody_waits_for_it(web, workshop, servers, clients, ask):
    [upload_id] = new_uploads(web)
    waiting = ask(upload_id)
    count = workshop.collection.count_documents({})
    content = photographs.photograph(width=77)
    storing = clients.submit(upload, web, part(content), headers=LONG)
    wait_until(lambda: workshop.collection.count_documents({}) > count, 40, "the upload")
    new = str(workshop.collection.find_one(sort=[("_id", -1)])["_id"])
    ordering = clients.submit(post, web, upload_id, "asked", **LONG)
    wait_until_watched(workshop, [upload_id, new])
    wait_until(lambda: workshop.state_of(upload_id, "asked") == "queued", 40, "the order")
    with servers.frozen_mongod():
        got, stored, ordered = waiting.result(), storing.result(), ordering.result()
    assert (got.status_code, got.json()["type"]) == (503, "urn:clustr:problem:database_unavailable")
    assert (stored.status_code, applied(stored)) == (201, None)
    assert (ordered.status_code, applied(ordered)) == (202, None)
    assert [one["id"] for one in stored.json()["data"]] == [new]
    analyze(workshop, "one", "two")


def test_what_is_missing_is_made_and_what_is_there_is_answered(web, workshop, clients):
    [upload_id] = new_uploads(web)
    ordered = post(web, upload_id, "asked")
    assert (ordered.status_code, ordered.json()["status"]) == (202, "queued")
    joined = post(web, upload_id, "asked")
    assert (joined.status_code, joined.json()["status"]) == (202, "queued")
    assert post(web, upload_id, "asked", "").status_code == 409  # without `if=missing`
    waiting = [clients.submit(post, web, upload_id, "asked", **LONG) for _ in range(5)]
    wait_until_watched(workshop, [upload_id])
    analyze(workshop, "asked")
    for answer in waiting:
        came = answer.result()
        assert (came.status_code, applied(came)) == (200, "wait=50")
        assert not AnalysisSchema().validate(came.json())
        assert (came.json()["status"], came.json()["result"]) == ("succeeded", {"n": 5})
        assert came.headers["Location"] == f"/api/uploads/{upload_id}/analyses/asked"
    there = post(web, upload_id, "asked")
    assert (there.status_code, there.json()) == (200, came.json())
    runs = (workshop.folder / "runs").read_text().split()
    assert runs.count(upload_id) == 1


def test_what_a_job_has_queued_comes_first_when_it_is_asked_for(web, workshop):
    ids = new_uploads(web, 2)
    for upload_id in ids:
        assert post(web, upload_id, "asked").status_code == 202
    of_job = {"analyses": {"$elemMatch": {"name": "asked", "state": "queued"}}}
    workshop.collection.update_many(of_job, {"$set": {"analyses.$.priority": PRIORITY}})
    assert post(web, ids[1], "asked").status_code == 202
    assert [workshop.stored(one, "asked")["priority"] for one in ids] == [PRIORITY, 0]
    analyze(workshop, "asked")
    runs = (workshop.folder / "runs").read_text().split()
    assert runs.index(ids[1]) < runs.index(ids[0])


def test_several_who_ask_for_what_is_missing_have_it_made_once(web, workshop, clients):
    [upload_id] = new_uploads(web)
    answers = [clients.submit(post, web, upload_id, "asked", **LONG) for _ in range(10)]
    wait_until_watched(workshop, [upload_id])
    analyze(workshop, "asked")
    assert {answer.result().json()["result"]["n"] for answer in answers} == {5}
    assert (workshop.folder / "runs").read_text().split().count(upload_id) == 1


def test_a_result_is_answered_also_while_a_newer_one_is_made(web, workshop):
    [upload_id] = new_uploads(web)
    analyze(workshop, "one", "two")
    assert post(web, upload_id, "one", "").status_code == 202
    there = post(web, upload_id, "one", **LONG)
    assert (there.status_code, there.json()["result"]) == (200, {"n": 1})
    assert there.json()["status"] == "queued"
    again = post(web, upload_id, "one", "", **LONG)
    assert again.status_code == 409
    analyze(workshop, "one")


def test_what_has_failed_is_tried_again_and_its_end_is_the_answer(web, workshop, clients):
    [upload_id] = new_uploads(web)
    failing = workshop.folder / "failing"
    failing.touch()
    for expected in ("failed", "succeeded"):
        answer = clients.submit(post, web, upload_id, "fickle", **LONG)
        wait_until_watched(workshop, [upload_id])
        analyze(workshop, "fickle")
        came = answer.result()
        assert (came.status_code, came.json()["status"]) == (200, expected)
        failing.unlink(missing_ok=True)


def test_an_analysis_that_is_run_again_is_waited_for(web, workshop, clients):
    [upload_id] = new_uploads(web)
    analyze(workshop, "one", "two")
    before = get(web, f"/api/uploads/{upload_id}/analyses/one").json()
    answer = clients.submit(post, web, upload_id, "one", "", **LONG)
    wait_until_watched(workshop, [upload_id])
    analyze(workshop, "one")
    came = answer.result()
    assert (came.status_code, applied(came)) == (200, "wait=50")
    assert moment(came.json()["started_at"]) > moment(before["finished_at"])


@pytest.mark.parametrize("value", ["", "absent", "missing,failed"])
def test_another_condition_is_refused_and_named(web, value):
    [upload_id] = new_uploads(web)
    answer = post(web, upload_id, "one", f"?if={value}")
    assert answer.status_code == 422
    assert json.dumps(answer.json()["errors"]["if"]).count("missing") == 1


def test_a_condition_of_the_version_holds_for_what_is_missing(web, workshop):
    [upload_id] = new_uploads(web)
    refused = post(web, upload_id, "asked", **{"If-Match": f'"{upload_id}-1"'})
    assert refused.status_code == 412
    assert "asked" not in get(web, f"/api/uploads/{upload_id}").json()["analyses"]
