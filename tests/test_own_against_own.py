"""Two keys with `own` try everything against each other: every operation of the OpenAPI document.

What an operation says of an upload or a job of somebody else has to be what it says of one that
never existed, word for word, and whatever others do must change no answer.
"""

import hashlib
import io
import json
import re
from collections.abc import Iterator
from typing import Any

import photographs
import pytest
from bson import ObjectId
from flask.testing import FlaskClient
from running import Servers, wait_until
from sent_commands import listen, sent
from werkzeug.test import TestResponse
from workshop import FIRST_PARTY, Workshop

from clustr.api.schemas.uploads import UploadSchema
from clustr.domain.access import Scope

SCOPES = ("own", *(scope for scope in Scope if scope is not Scope.ADMIN))
PLUGINS = ("phash", "palette")
WORD, TAG, CAPTION = "zanzibar", "quokka", "wombat"
METHODS = ("get", "post", "put", "patch", "delete")
# What an operation needs besides what is in its path; `{…}` stands for something of the other key.
QUERIES = {
    "list_similar": {"by": "phash.bits"},
    "list_suggestions": {"q": WORD[:3]},
    "phash_find_similar": {"upload_id": "{upload_id}"},
}
BODIES: dict[str, Any] = {
    "edit_upload": {"caption": "mine"},
    "find_existing": {"sha256": ["{sha256}"]},
    "order_analyses": {"analyzer": "phash", "select": "all", "ids": ["{upload_id}"]},
    "share_upload": {"days": 1},
    "change_uploads": {"action": "tag", "ids": ["{upload_id}"], "tags": ["mine"]},
}
# Operations for which another test says what they do.
UNTRIED = {"upload_files", "log_in"}
VOLATILE = re.compile(
    r'"(?:request_id|timestamp|response_time|uptime_seconds|counted_at|created_at|updated_at'
    r'|started_at|finished_at|cancel_requested_at|oldest_waiting_at)": ?(?:"[^"]*"|[\d.]+|null)'
    r"|\d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC|\d+\.\d+ ms|seconds: [\d.]+"
)


class Key:
    """A key of a workshop, and the answers that it is given."""

    def __init__(self, workshop: Workshop, name: str, *scopes: str):
        text = workshop.web.key_making.create(name, scopes).text
        self.headers = {"Authorization": f"Bearer {text}"}
        self.client: FlaskClient = workshop.app.test_client()

    def ask(self, method: str, path: str, **options: Any) -> TestResponse:
        headers = {**self.headers, **options.pop("headers", {})}
        return self.client.open(path, method=method, headers=headers, buffered=True, **options)

    def get(self, path: str) -> TestResponse:
        return self.ask("GET", path)

    def upload(self, content: bytes, name: str, **headers: str) -> str:
        data = {"files": (io.BytesIO(content), name)}
        answer = self.ask("POST", "/api/upload", data=data, headers=headers)
        assert answer.status_code == 201, answer.text
        upload_id: str = answer.json["data"][0]["id"]
        wait_until(
            lambda: self.get(f"/api/uploads/{upload_id}").json["status"] == "processed",
            60,
            "the analyses",
        )
        return upload_id


class Scene:
    """What two keys have brought and ordered.

    Attributes:
        before: what Bob was told before Alice had anything, by the operation and its query.
        secrets: what Bob must not be told.
    """

    def __init__(self, workshop: Workshop):
        self.workshop = workshop
        self.alice, self.bob = (Key(workshop, name, *SCOPES) for name in ("alice", "bob"))
        self.everyone = Key(workshop, "everyone", *Scope)
        self.document = self.bob.get("/openapi.json").json
        self.of_bob = [self.bob.upload(photographs.unique("jpg", n), "beach.jpg") for n in (1, 2)]
        self.bob.ask("PATCH", f"/api/uploads/{self.of_bob[0]}", json={"tags": {"set": ["sea"]}})
        self.sha256 = hashlib.sha256(photographs.unique("jpg", 3)).hexdigest()
        self.before = dict(self.answers_without_ids())
        self.bring_as_alice()

    def bring_as_alice(self) -> None:
        content = photographs.unique("jpg", 3)
        same = photographs.unique("jpg", 1)  # as Bob has
        alice = self.alice
        self.of_alice = [alice.upload(content, f"{WORD} {n}.jpg") for n in range(2)]
        self.of_alice.append(alice.upload(same, f"{WORD}.jpg", **{"Idempotency-Key": "once"}))
        said = {"caption": CAPTION, "tags": {"set": [TAG, "sea"]}}
        for upload_id in self.of_alice:
            assert alice.ask("PATCH", f"/api/uploads/{upload_id}", json=said).status_code == 200
        shared = alice.ask("POST", f"/api/uploads/{self.of_alice[0]}/share", json={"days": 1})
        self.share = shared.json["id"]
        self.trashed = alice.upload(content, f"{WORD} in the trash.jpg")
        assert alice.ask("DELETE", f"/api/uploads/{self.trashed}").status_code == 204
        # Alice's first upload was taken over from the predecessor.
        old_id = str(ObjectId())
        self.old_filename = f"{old_id}.jpeg"
        database = self.workshop.web.database
        database.old_ids.add(old_id, self.old_filename, self.of_alice[0])
        order = {"action": "tag", "filter": {"tag": [TAG]}, "tags": [TAG]}
        self.job = alice.ask("POST", "/api/uploads/bulk", json=order).json["id"]
        wait_until(lambda: self.job_of(alice, self.job)["state"] == "succeeded", 60, "the job")

    @staticmethod
    def job_of(key: Key, job_id: str) -> Any:
        return key.get(f"/api/jobs/{job_id}").json

    @property
    def secrets(self) -> list[str]:
        ids = [*self.of_alice, self.trashed, self.job, self.share]
        return [*ids, self.sha256, WORD, TAG, CAPTION, "alice"]

    def operations(self) -> Iterator[tuple[str, str, dict[str, Any]]]:
        """Method, path and description of each operation that is there."""
        for path, item in self.document["paths"].items():
            for method in METHODS:
                if method in item and item[method]["operationId"] not in UNTRIED:
                    yield method, path, item[method]

    def answers_without_ids(self) -> Iterator[tuple[str, str]]:
        """What Bob is told by each operation that reads and has nothing in its path."""
        for method, path, operation in self.operations():
            if method != "get" or "{" in path or "phash" in path:
                continue
            name = operation["operationId"]
            for query in ({}, *self.filters(operation)):
                answer = self.bob.ask("GET", path, query_string=QUERIES.get(name, {}) | query)
                yield f"{name} {query}", told(answer)

    def filters(self, operation: dict[str, Any]) -> Iterator[dict[str, str]]:
        """Queries that look for what Alice has, one for each parameter that can."""
        values = {
            "q": [WORD, TAG, CAPTION, f"tag:{TAG}", f"name:{WORD}", "sea", "beach", "-sea"],
            "prefix": [TAG[:3], "se"] if operation["operationId"] == "list_tags" else [],
            "tag": [TAG, "sea"],
            "tag_not": ["sea"],
            "sha256": [self.sha256],
            "duplicate": ["true", "false"],
            "untagged": ["true", "false"],
            "status": ["processed", "pending"],
            "content_type": ["image/jpeg"],
            "min_width": ["1"],
            "uploaded_after": ["2020-01-01T00:00:00Z"],
            "sort": ["size", "name", "-taken_at"],
            "page": ["1", "2"],
        }
        for parameter in operation.get("parameters", ()):
            for value in values.get(parameter["name"], ()):
                yield {parameter["name"]: value}


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory, servers: Servers) -> Iterator[Scene]:
    disabled = ",".join(name for name in FIRST_PARTY if name not in PLUGINS)
    folder = tmp_path_factory.mktemp("keys")
    settings = {"AUTH": "keys", "PLUGINS_DISABLED": disabled, "DEBUG_ENDPOINTS": "on"}
    listen()
    with Workshop(folder, servers, **settings) as workshop:
        workshop.worker()
        yield Scene(workshop)


def told(answer: TestResponse, *asked: str) -> str:
    """All that an answer tells, without times and without what was asked for."""
    changing = ("X-Request-ID", "Link", "RateLimit")
    headers = {n: v for n, v in answer.headers.items() if n not in changing}
    body = answer.get_data().decode("utf-8", "replace")
    text = f"{answer.status_code} {json.dumps(headers)} {VOLATILE.sub('', body)}"
    for each in asked:
        text = text.replace(each, "…")
    return re.sub(r'"Content-Length": "\d+"', "", text)


def filled(pattern: Any, values: dict[str, str]) -> Any:
    """A query or body, with values in place of what stands for them."""
    text = json.dumps(pattern)
    for name, value in values.items():
        text = text.replace(f"{{{name}}}", value)
    return json.loads(text)


def state_of(scene: Scene) -> Any:
    """All that Alice has."""
    paths = ["/api/uploads?fields=analyses.result", "/api/trash", "/api/jobs", "/api/tags"]
    paths.append(f"/api/uploads/{scene.of_alice[0]}/shares")
    return [VOLATILE.sub("", scene.alice.get(path).text) for path in paths]


def test_operations_say_of_what_others_have_what_they_say_of_what_never_existed(
    scene: Scene,
) -> None:
    before, tried = state_of(scene), 0
    nothing = str(ObjectId())
    unknown = {
        "upload_id": nothing,
        "job_id": nothing,
        "share_id": nothing,
        "sha256": hashlib.sha256(b"nothing").hexdigest(),
    }
    jobs: list[tuple[str, str]] = []
    of_alice = (scene.of_alice[0], scene.of_alice[2], scene.trashed)
    for filename in (*(f"{upload_id}.jpg" for upload_id in of_alice), scene.old_filename):
        upload_id, _, extension = filename.partition(".")
        unknown["stored_filename"] = f"{nothing}.{extension}"
        theirs = {
            "upload_id": upload_id,
            "job_id": scene.job,
            "share_id": scene.share,
            "stored_filename": filename,
            "sha256": scene.sha256,
        }
        fixed = {"analyzer": "phash", "name": "phash", "service": "queue"}
        for method, path, operation in scene.operations():
            name = operation["operationId"]
            if "requestBody" in operation and name not in BODIES:
                refused = scene.bob.ask(method.upper(), path.format(**unknown | fixed))
                assert refused.status_code == 403, f"how is {name} called?"
                continue
            if not re.search(r"\{(upload_id|job_id|stored_filename)\}", path) and not (
                name in BODIES or "{upload_id}" in str(QUERIES.get(name))
            ):
                continue
            answers, questions = [], []
            for values in (theirs, unknown):
                options = {
                    "query_string": filled(QUERIES.get(name, {}), values),
                    **({"json": filled(BODIES[name], values)} if name in BODIES else {}),
                }
                with sent() as commands:
                    answers.append(
                        scene.bob.ask(method.upper(), path.format(**values | fixed), **options)
                    )
                # Bob's key is looked up once in a few seconds.
                questions.append([each for each in commands if each[1] != "keys"])
            if answers[0].status_code == 202:
                jobs.append((answers[0].json["id"], answers[1].json["id"]))
                asked = [*theirs.values(), *unknown.values(), *jobs[-1]]
            else:
                asked = [*theirs.values(), *unknown.values()]
            first, second = (told(answer, *asked) for answer in answers)
            assert first == second, name
            assert questions[0] == questions[1], name  # So both take the same time.
            assert not [secret for secret in scene.secrets if secret in first], name
            tried += 1
    assert tried > 50
    for of_theirs, of_nothing in jobs:
        pair = [ended(scene, job_id) for job_id in (of_theirs, of_nothing)]
        pair = [VOLATILE.sub("", re.sub("[0-9a-f]{24}", "…", text)) for text in pair]
        assert pair[0] == pair[1]
    assert state_of(scene) == before


def ended(scene: Scene, job_id: str) -> str:
    wait_until(lambda: Scene.job_of(scene.bob, job_id)["finished_at"], 60, "the end of a job")
    return scene.bob.get(f"/api/jobs/{job_id}").text


def test_no_answer_changes_by_what_others_do(scene: Scene) -> None:
    jobs = scene.bob.get("/api/jobs").json["data"]
    assert scene.job not in [job["id"] for job in jobs]
    after = dict(scene.answers_without_ids())
    assert after.keys() == scene.before.keys()
    assert len(after) > 40
    for name, answer in after.items():
        if not name.startswith("list_jobs"):  # Bob has ordered some meanwhile.
            assert answer == scene.before[name], name
        assert not [secret for secret in scene.secrets if secret in answer], name


def test_pictures_of_others_are_not_similar(scene: Scene) -> None:
    first, second = scene.of_bob
    for path in (
        f"/api/uploads/{first}/similar?by=phash.bits&limit=100",
        f"/api/x/phash/similar?upload_id={first}&distance=64&limit=100",
    ):
        found = [one["id"] for one in scene.bob.get(path).json["data"]]
        assert found in ([second], [first, second], [second, first])
        assert {*scene.of_alice} & {one["id"] for one in scene.everyone.get(path).json["data"]}


@pytest.mark.parametrize(
    ("path", "passes"), [("/api/tags", 1), ("/api/suggest?q=tag:", 1), ("/api/stats", 2)]
)
def test_counts_of_an_owner_take_few_passes_through_the_uploads(
    scene: Scene, path: str, passes: int
) -> None:
    scene.bob.get(path)  # Bob's key is known for some seconds.
    with sent() as commands:
        assert scene.bob.get(path).status_code == 200
    asked = [(name, collection) for name, collection, _ in commands if collection != "keys"]
    assert asked == [("aggregate", scene.workshop.collection.name)] * passes


def test_the_receipts_of_others_are_not_shown(scene: Scene) -> None:
    content = photographs.unique("jpg", 4)
    upload_id = scene.bob.upload(content, "other.jpg", **{"Idempotency-Key": "once"})
    assert upload_id not in scene.of_alice
    assert scene.bob.ask("DELETE", f"/api/uploads/{upload_id}?permanently=true").status_code == 204


def test_a_job_by_a_filter_changes_own_uploads_alone(scene: Scene) -> None:
    before = state_of(scene)
    order = {"action": "tag", "filter": {}, "tags": ["seen"]}
    matched = scene.bob.ask("POST", "/api/uploads/bulk", json=order | {"dry_run": True}).json
    assert matched == {"matched": len(scene.of_bob)}
    job_id = scene.bob.ask("POST", "/api/uploads/bulk", json=order).json["id"]
    assert json.loads(ended(scene, job_id))["counts"]["succeeded"] == len(scene.of_bob)
    assert state_of(scene) == before


def test_those_who_see_all_see_all(scene: Scene) -> None:
    uploads = scene.everyone.get("/api/uploads").json["data"]
    assert {one["id"] for one in uploads} >= {*scene.of_alice, *scene.of_bob}
    assert {one["uploaded_by"] for one in uploads} == {"alice", "bob"}
    assert "owner" not in UploadSchema().fields
    assert scene.job in [job["id"] for job in scene.everyone.get("/api/jobs").json["data"]]
