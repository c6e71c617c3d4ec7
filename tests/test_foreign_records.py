"""Records that nobody here has written, between the uploads and in the trash: all goes on.

There is one for each field that is read and each kind of thing that can be in its place, with the
SHA-256 of an upload, in each state of an analysis.
"""

import io
import itertools
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import photographs
import pytest
from bson import ObjectId
from bson.codec_options import CodecOptions, DatetimeConversion
from bson.datetime_ms import DatetimeMS
from fuzzing import sampled
from jobs import run_until
from pymongo.collection import Collection
from pymongo.errors import BulkWriteError
from workshop import Workshop

from clustr import components
from clustr.analysis.limits import Interruption
from clustr.components import WorkerComponents, build_fsck
from clustr.database.documents import (
    ANALYSIS,
    IS_UPLOAD,
    LOOKS_LIKE_UPLOAD,
    SCHEMA,
    reason_why_foreign,
)
from clustr.services.fsck import FindingKind

PARALLEL_ARRAYS = 171  # MongoDB's code of the error.

NOTHING = object()
LONG_AGO = datetime(2024, 5, 1, tzinfo=UTC)
ODD: dict[str, Any] = {
    "nothing": NOTHING,
    "null": None,
    "a number": 7,
    "a text": "x",
    "a list": [5],
    "an object": {"a": 5},
    "a time": LONG_AGO,
    "a far time": DatetimeMS(10**15),
    "a boolean": True,
}
# Of what is deep inside, and in the trash, these have to do.
SOME = ("nothing", "a text", "a list", "a far time")
STATES: dict[str, dict[str, Any]] = {
    "queued": {"due_at": LONG_AGO},
    "running": {"run": "gone", "lease_until": LONG_AGO, "started_at": LONG_AGO},
    "deferred": {"deferred_at": LONG_AGO, "due_at": LONG_AGO, "error": "away"},
    "waiting": {"requires": ["gone"]},
    "succeeded": {"result": {"n": 1}, "started_at": LONG_AGO, "finished_at": LONG_AGO},
    "failed": {"error": "x", "started_at": LONG_AGO, "finished_at": LONG_AGO},
}
PLACES = [
    *((name,) for name in SCHEMA["properties"]),
    ("dimensions", "width"),
    ("tags", 0),
    ("human", "tags"),
    ("human", "tags", "added"),
    ("found", "tags"),
    ("human", "tags", "set_keys"),
    ("retry", "key"),
    ("analyses", 0),
    *(("analyses", 0, name) for name in ANALYSIS["properties"]),
]


def with_in_its_place(value: Any, place: tuple[Any, ...], odd: Any) -> Any:
    """A copy of a value with something else at a place in it."""
    if not place:
        return odd
    if isinstance(place[0], int):
        return [with_in_its_place((value or [None])[0], place[1:], odd)]
    inner = with_in_its_place((value or {}).get(place[0]), place[1:], odd)
    rest = {name: kept for name, kept in (value or {}).items() if name != place[0]}
    return rest if inner is NOTHING else {**rest, place[0]: inner}


def foreign_records(whole: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Records like this one of an upload, each with something in it that no upload has."""
    states = itertools.cycle(STATES.items())
    for place, (name, odd) in itertools.product(PLACES, ODD.items()):
        if name not in (ODD if len(place) == 1 else SOME):
            continue
        key, (state, more) = ObjectId(), next(states)
        analysis = {**whole["analyses"][0], "state": state, **more}
        own = {"_id": key, "filename": f"{key}.jpg", "analyses": [analysis]}
        if place[-1] == 0 and odd is NOTHING:
            continue
        record = with_in_its_place({**whole, **own}, place, odd)
        # No `_id` can be a list.
        if reason_why_foreign(record) and not isinstance(record.get("_id"), list):
            yield record


def foreign_records_of_trash(whole: dict[str, Any]) -> Iterator[dict[str, Any]]:
    there = {"at": LONG_AGO, "step": "there"}
    begun = {"at": LONG_AGO, "step": "moving", "claim": ObjectId(), "claimed_at": LONG_AGO}
    for record, trash in zip(foreign_records(whole), itertools.cycle((there, begun)), strict=False):
        yield {**record, "trash": trash}
    places = [("trash",), ("trash", "at"), ("trash", "step")]
    for place, odd in itertools.product(places, ODD.values()):
        if place[-1] == "at" and odd is LONG_AGO:
            continue
        for step in ("there", "moving", "restoring", "removing"):
            key = ObjectId()
            claim = {"step": step, "claim": ObjectId(), "claimed_at": LONG_AGO, "at": LONG_AGO}
            record = {**whole, "_id": key, "filename": f"{key}.jpg", "trash": claim}
            yield with_in_its_place(record, place, odd)


def everything(collection: Collection[dict[str, Any]]) -> list[dict[str, Any]]:
    """All records as they are."""
    auto = CodecOptions(tz_aware=True, datetime_conversion=DatetimeConversion.DATETIME_AUTO)
    return [*collection.with_options(codec_options=auto).find()]


def plant(collection: Collection[dict[str, Any]], records: Iterable[dict[str, Any]]) -> None:
    """Insert all records that MongoDB takes: it refuses two lists in the keys of an index."""
    try:
        collection.insert_many(records, ordered=False)
    except BulkWriteError as error:
        assert {one["code"] for one in error.details["writeErrors"]} == {PARALLEL_ARRAYS}


class Among:
    """Uploads of ours among records of others.

    Attributes:
        ids: of our uploads; the first two have the same bytes.
        trashed: of ours in the trash, with the bytes of the first two.
        planted: the records of others, and those in the trash.
    """

    def __init__(self, workshop: Workshop):
        self.workshop = workshop
        workshop.analyzer("it", "return {'n': image.width}")
        same = photographs.unique(number=0)
        self.ids = [workshop.upload(same)[0] for _ in range(3)]
        self.ids += workshop.upload(photographs.unique(number=1))
        self.trashed = self.ids.pop(0)  # The original.
        self.client = workshop.app.test_client()
        assert self.client.delete(f"/api/uploads/{self.trashed}").status_code == 204
        self.trash = workshop.collection.database["uploads_trash"]
        whole = workshop.collection.find_one({"_id": ObjectId(self.ids[0])})
        del whole["original_sha256"]
        plant(workshop.collection, foreign_records(whole))
        plant(self.trash, foreign_records_of_trash(whole))
        self.planted = self.records_of_others()
        self.planted_strangers = self.strangers()

    def records_of_others(self) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        ours = {*self.ids, self.trashed}
        found = (everything(each) for each in (self.workshop.collection, self.trash))
        live, trashed = ([one for one in each if str(one["_id"]) not in ours] for each in found)
        return live, trashed

    def strangers(self) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        """Those of the records of others that nobody has to look into to see what they are."""
        like = {
            str(one["_id"]) for one in self.workshop.collection.find(LOOKS_LIKE_UPLOAD, {"_id": 1})
        }
        live, trashed = self.records_of_others()
        return [one for one in live if str(one["_id"]) not in like], trashed

    def foreign_ids(self) -> list[str]:
        """Ids of theirs that look like ours."""
        ids = {one["_id"] for each in self.planted for one in each if type(one["_id"]) is ObjectId}
        return sorted(map(str, ids))


@pytest.fixture(autouse=True, scope="module")
def patient_web_side() -> Iterator[None]:
    """Requests wait for MongoDB as long as workers do: on a loaded machine it may stall for 2 s."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(components, "WEB_TIMEOUT_SECONDS", components.WORKER_TIMEOUT_SECONDS)
        yield


@pytest.fixture
def among(workshop: Workshop) -> Among:
    return Among(workshop)


@pytest.fixture
def worker(among: Among) -> Iterator[WorkerComponents]:
    """What a worker works with, in this process."""
    settings = among.workshop.settings
    built = components.build_worker(settings, components.build_plugin_manager(settings))
    try:
        yield built
    finally:
        built.engine.close()
        built.database.close()


def test_mongodb_and_python_agree_on_what_is_an_upload(among):
    """In what is left out by a query, and in what is left out when it is read."""
    collection = among.workshop.collection
    found = [str(one["_id"]) for one in collection.find(IS_UPLOAD, {"_id": 1})]
    assert sorted(found) == sorted(among.ids)
    readable = [one for one in everything(collection) if reason_why_foreign(one) is None]
    assert sorted(str(one["_id"]) for one in readable) == sorted(among.ids)
    assert len(among.planted[0]) > 200
    assert len(among.planted_strangers[0]) > 100


QUERIES = (
    *("", "?limit=100", "?page=2", "?q=photograph", "?status=pending", "?duplicate=true", "?tag=x"),
    *("?min_width=1", "?analyzer=it&analysis_status=queued", "?fields=id,tags,analyses.results"),
    *(
        f"?sort={minus}{by}"
        for by in ("upload_time", "taken_at", "size", "name")
        for minus in ("", "-")
    ),
)
OF_ALL = (
    *("/", "/api/health", "/api/health/page", "/api/health/ready", "/api/stats", "/api/tags"),
    *(
        "/api/tags?prefix=x",
        "/api/suggest?q=x",
        "/api/analyses",
        "/api/jobs",
        "/api/plugins",
        "/api/trash?limit=100",
    ),
    *(f"/api/uploads{query}" for query in QUERIES),
)
OF_ONE = ("", "/file", "/thumbnail", "/analyses", "/analyses/it")


def requests_about(upload_id: str) -> Iterator[tuple[str, str, Any]]:
    """All that is asked about one upload, which is where it was afterwards."""
    path = f"/api/uploads/{upload_id}"
    for below in OF_ONE:
        yield "GET", f"{path}{below}", None
    for below in OF_ONE[:3]:
        yield "GET", f"/api/trash/{upload_id}{below}", None
    yield "PATCH", path, {"tags": {"add": ["x"]}}
    yield "PATCH", path, {"caption": "x", "taken_at": None}
    yield "POST", f"{path}/analyses/it", None
    yield "DELETE", path, None
    yield "POST", f"{path}/restore", None


def requests_about_foreign(ids: Iterable[str]) -> Iterator[tuple[str, str, Any]]:
    for one in ids:
        yield from requests_about(one)
        yield "DELETE", f"/api/uploads/{one}?permanently=true", None


def test_no_answer_is_a_fault(workshop, capsys):
    among = Among(workshop)  # here, so that `capsys` has what is logged
    theirs = [*sampled(among.foreign_ids(), 5)]
    client, ours = among.client, [*among.ids, among.trashed]
    ids = [*theirs, *ours]
    hashes = sorted({str(one.get("sha256")) for one in among.planted[0]})
    requests: list[tuple[str, str, Any]] = [("GET", path, None) for path in OF_ALL]
    # So many of each field, of each kind of thing in it, and of each request.
    requests += sampled(requests_about_foreign(theirs), 5)
    requests += [request for one in ours for request in requests_about(one)]
    orders = {"ids": ids[-100:]}, {"filter": {}}, {"filter": {"duplicate": True}}
    for order in orders:
        requests += [
            (
                "POST",
                "/api/uploads/bulk",
                {"action": "tag", "tags": ["x"], "dry_run": True, **order},
            ),
            (
                "POST",
                "/api/analyses",
                {"analyzer": "it", "select": "all", "dry_run": True, **order},
            ),
        ]
    requests += [("POST", "/api/uploads/exists", {"sha256": [h for h in hashes if len(h) == 64]})]
    wrong = []
    for method, path, body in requests:
        answer = client.open(path, method=method, json=body, buffered=True)
        if answer.status_code >= 500 or (
            method == "GET" and path in OF_ALL and answer.status_code != 200
        ):
            wrong.append((method, path, answer.status_code, answer.text[:300]))
        answer.close()
    assert wrong == []
    assert "Traceback" not in capsys.readouterr().err
    assert among.strangers() == among.planted_strangers
    assert all(client.get(f"/api/uploads/{one}").status_code == 200 for one in ours)


def test_the_bytes_of_a_record_of_others_can_be_uploaded(among):
    client, same = among.client, photographs.unique(number=0)

    def sent(*contents: bytes, duplicates: str) -> list[dict[str, Any]]:
        files = [(io.BytesIO(content), "photograph.jpg") for content in contents]
        path = f"/api/upload?duplicates={duplicates}"
        answer = client.post(path, data={"files": files})
        assert answer.status_code == 201, answer.text
        return answer.get_json()["data"]

    first = among.ids[0]
    again = sent(same, duplicates="keep") + sent(same, same, duplicates="keep")
    assert {one["duplicate_of"] for one in again} == {first}
    reused = sent(same, duplicates="reuse") + sent(same, same, duplicates="reuse")
    assert {one["id"] for one in reused} == {first}
    [known] = (
        client.post(
            "/api/uploads/exists",
            json={"sha256": [client.get(f"/api/uploads/{first}").json["sha256"]]},
        )
        .json["data"]
        .values()
    )
    assert known == first


@pytest.mark.parametrize(("duplicates", "count"), [("keep", 1), ("reuse", 2)])
def test_an_original_that_others_have_altered_is_in_nobodys_way(among, worker, duplicates, count):
    """Only one record can have the mark of an original, and the one that has it is no upload."""
    workshop, client = among.workshop, among.client
    altered = among.ids[-1]
    workshop.collection.update_one({"_id": ObjectId(altered)}, {"$set": {"upload_time": 7}})
    files = [(io.BytesIO(photographs.unique(number=1)), "photograph.jpg") for _ in range(count)]
    answer = client.post(f"/api/upload?duplicates={duplicates}", data={"files": files})
    assert answer.status_code == 201, answer.text
    ids = [one["id"] for one in answer.get_json()["data"]]
    assert altered not in ids
    first = client.get(f"/api/uploads/{ids[0]}").json
    assert first["duplicate_of"] is None
    worker.reconciler.run_once()
    [*worker.database.duplicates.repair_all()]
    assert client.get(f"/api/uploads/{ids[0]}").json["duplicate_of"] is None
    assert client.delete(f"/api/uploads/{ids[0]}").status_code == 204
    assert client.post(f"/api/uploads/{ids[0]}/restore").status_code == 200
    answer = client.post(
        "/api/upload", data={"files": [(io.BytesIO(photographs.unique(number=1)), "x.jpg")]}
    )
    assert answer.json["data"][0]["duplicate_of"] == ids[0]


def test_all_that_is_done_in_the_background_goes_on(among, worker):
    workshop, database = among.workshop, worker.database
    before = among.planted_strangers
    worker.reconciler.run_once()
    worker.reconciler._complete_old_records()
    [*database.duplicates.repair_all()]
    assert database.analyses.settle_waiting(["it"], timedelta(0)) == 0
    worker.engine.run("it", "run", Interruption())
    assert all(workshop.state_of(one, "it") == "succeeded" for one in among.ids)
    assert database.analyses.defer_queued("it", "x") == database.analyses.withdraw("it") == 0
    assert database.analyses.requeue_deferred("it", include_not_due=True) == 0
    assert not database.analyses.has_work("it", only_due=False)
    assert database.analyses.deferred_summary("it") is None
    database.statistics.count(workshop.web.plugin_manager.analyzers["it"])
    while not database.counters.step():
        pass
    like = workshop.collection.count_documents(LOOKS_LIKE_UPLOAD)
    assert database.counters.totals().uploads == like
    assert database.counters.totals().statuses["processed"] == len(among.ids)
    worker.reconciler.run_once()
    assert among.strangers() == before
    assert among.client.post(f"/api/uploads/{among.trashed}/restore").status_code == 200
    assert among.client.get(f"/api/uploads/{among.ids[0]}").json["duplicate_of"] == among.trashed
    among.ids.append(among.trashed)
    assert among.strangers() == before


@pytest.mark.parametrize("by", ["filter", "ids"])
def test_jobs_are_done_to_uploads_alone(among, worker, by):
    client, before = among.client, among.planted_strangers
    ids = [*sampled(among.foreign_ids(), 3), *among.ids]
    chosen = {"filter": {}} if by == "filter" else {"ids": ids}

    def ended(path: str, **body: Any) -> dict[str, int]:
        job_id = client.post(path, json=body | chosen).json["id"]
        run_until(
            worker.job_runner, lambda: client.get(f"/api/jobs/{job_id}").json["state"] != "queued"
        )
        run_until(worker.job_runner, lambda: client.get(f"/api/jobs/{job_id}").json["finished_at"])
        job = client.get(f"/api/jobs/{job_id}").json
        assert job["error"] is None
        return job["counts"]

    worker.database.make_indexes()
    ours = len(among.ids)
    for order in ({"action": "tag", "tags": ["x"]}, {"action": "delete"}, {"action": "restore"}):
        counts = ended("/api/uploads/bulk", **order)
        assert counts["succeeded"] >= ours, order
        assert counts["failed"] == (0 if by == "filter" else len(ids) - counts["succeeded"])
    worker.engine.run("it", "run", Interruption())
    job_id = client.post("/api/analyses", json={"analyzer": "it", "select": "all"} | chosen).json[
        "id"
    ]
    run_until(
        worker.job_runner, lambda: client.get(f"/api/jobs/{job_id}").json["total"] is not None
    )
    worker.engine.run("it", "again", Interruption())
    run_until(worker.job_runner, lambda: client.get(f"/api/jobs/{job_id}").json["finished_at"])
    among.ids = [*among.ids, among.trashed]
    assert among.strangers() == before
    worker.job_runner.stop()


def test_fsck_names_each_and_leaves_it_alone(among):
    before = among.planted
    with build_fsck(among.workshop.settings, timedelta(0), quick=False) as check:
        findings = [*check.findings()]
        assert not any(map(check.repair, findings))
    assert {one.kind for one in findings} == {FindingKind.FOREIGN}
    assert sorted(one.id for one in findings) == sorted(str(one["_id"]) for one in before[0])
    assert among.records_of_others() == before
