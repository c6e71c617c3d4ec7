"""What every error says: to somebody who has to put it right, and in words of ours."""

import io
from collections.abc import Iterator
from typing import Any

import photographs
import pytest
import werkzeug.exceptions
from flask import abort
from flask.testing import FlaskClient
from fuzzing import FUZZ, sampled
from running import Servers
from workshop import Workshop

from clustr.api.http.problem_schema import ProblemSchema

PROBLEM = "application/problem+json"
# Words of Flask, werkzeug and marshmallow that say nothing to somebody who calls the API.
STOCK = {error.description for error in werkzeug.exceptions.default_exceptions.values()}
INSIDE = ("_schema", "Invalid input type", "manually", "URL", "Unknown field", "None")
# What stands in the place of a value in turn; of each at least one is wrong.
VALUES = (None, "", "x", 1, -1, 1.5, True, [], ["x"], [None], [1], {}, {"x": 1}, "a" * 2000)
METHODS = ("get", "post", "patch", "delete")


@pytest.fixture(scope="module")
def shared_workshop(
    tmp_path_factory: pytest.TempPathFactory, servers: Servers
) -> Iterator[Workshop]:
    folder = tmp_path_factory.mktemp("workshop")
    with Workshop(folder, servers, PLUGINS_DISABLED="blip") as workshop:
        yield workshop


@pytest.fixture
def client(workshop: Workshop) -> FlaskClient:
    return workshop.app.test_client()


def check(answer: Any) -> None:
    """See that an answer, if it is an error, can be used by whoever reads it."""
    if answer.status_code < 400 or answer.request.method == "HEAD":
        return
    assert answer.status_code < 500, answer.text
    assert answer.mimetype == PROBLEM, answer.text
    problem = answer.json
    named = problem.get("errors", {})
    if isinstance(named, dict):
        ProblemSchema().load(problem)
        texts = [text for said in named.values() for text in said]
        assert all(text in problem["detail"] for text in texts[:3]), problem
    else:
        named, texts = {}, [refused["detail"] for refused in named]
    for text in (problem["detail"], problem["title"], *named, *texts):
        assert text, problem
        assert text not in STOCK, problem
        assert not any(inside in text for inside in INSIDE), problem


def bodies(document: dict[str, Any], schema: dict[str, Any]) -> Iterator[Any]:
    """Bodies with something wrong in each place of a schema of the document."""
    while "$ref" in schema:
        schema = document["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    for part in schema.get("allOf", ()):
        yield from bodies(document, part)
    for name, inner in schema.get("properties", {}).items():
        yield from ({name: value} for value in VALUES)
        yield from ({name: value} for value in bodies(document, inner))


def test_every_error_can_be_read(workshop, client):
    """Every operation of the document, with every kind of thing that can be wrong in a request."""
    there, trashed = workshop.upload(photographs.unique(number=1), photographs.unique(number=2))
    client.delete(f"/api/uploads/{trashed}")
    document = client.get("/openapi.json").json
    for path, item in document["paths"].items():
        for method in {*METHODS} - {*item}:
            check(client.open(path.replace("{upload_id}", there), method=method.upper()))
    asked = 0
    for path, method, options in sampled(requests_of_all(document, ["0" * 24, trashed, there]), 5):
        with client.open(path, method=method.upper(), **options) as answer:
            check(answer)
        asked += 1
    assert asked > (1500 if FUZZ else 300)
    assert client.get(f"/api/uploads/{there}").status_code == 200


def requests_of_all(
    document: dict[str, Any], ids: list[str]
) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Paths, methods and options of requests for all operations, about uploads of these ids."""
    for path, item in document["paths"].items():
        for method, operation in item.items():
            if method not in METHODS:
                continue
            for name in ids if "{" in path else ids[:1]:
                filled = path.replace("{stored_filename}", f"{name}.png")
                filled = filled.replace("{analyzer}", "dimensions")
                filled = filled.replace("{upload_id}", name).replace("{job_id}", name)
                for options in requests_of(document, item, operation, method):
                    yield filled, method, options


def requests_of(
    document: dict[str, Any], item: dict[str, Any], operation: dict[str, Any], method: str
) -> Iterator[dict[str, Any]]:
    """Options of requests for an operation, none of which removes an upload."""
    yield {"query_string": {"colour": "red"}, "headers": {"If-Match": '"x"'}}
    for parameter in (*item.get("parameters", ()), *operation.get("parameters", ())):
        name, place = parameter.get("name"), parameter.get("in")
        for value in ("", "x", "-1", "1.5", "9" * 20, "a" * 2000):
            if place == "query" and method != "delete":
                yield {"query_string": {name: value}}
            if place == "header":
                yield {"headers": {name: value.encode().decode("latin-1")[:300] + "\xe9"}}
    if method in ("post", "patch"):
        for content_type in (None, "text/plain", "application/json"):
            for body in (b"", b"{", b"[]", b"null", b"1", b'{"colour": 1}', b"\xff"):
                yield {"data": body, "content_type": content_type}
        yield {"data": b" " * 1_100_000, "content_type": "application/json"}
        described = operation.get("requestBody", {}).get("content", {}).get("application/json")
        for body in bodies(document, described["schema"]) if described else ():
            yield {"json": body}


@pytest.mark.parametrize(
    "form",
    [
        {},
        {"files": "text"},
        {"other": (io.BytesIO(b"a"), "a.png")},
        {"files": [(io.BytesIO(b"a"), "a.png") for _ in range(101)]},
        {"other": "a" * 70_000, "files": (io.BytesIO(b"a"), "a.png")},
    ],
    ids=["nothing", "no name", "another part", "too many", "too much beside"],
)
def test_every_refused_form_can_be_read(client, form):
    answer = client.post("/api/upload", data=form, content_type="multipart/form-data")
    assert answer.status_code in (413, 422)
    check(answer)


def test_no_error_of_flask_or_werkzeug_speaks_for_itself(own_workshop):
    app = own_workshop.app

    @app.get("/abort/<int:status>")
    def give_up(status: int) -> None:
        abort(status)

    client = app.test_client()
    for status, error in werkzeug.exceptions.default_exceptions.items():
        answer = client.get(f"/abort/{status}")
        assert answer.status_code == status
        assert answer.json["detail"] not in ("", error.description)
        assert "manually" not in answer.json["detail"]
    assert client.get("/nothing").json["detail"] == "There is nothing at this path."


def test_the_body_of_another_type_is_not_taken_for_none(workshop, client):
    """Also not that of `curl -d`, which says it is a form."""
    (upload_id,) = workshop.upload()
    orders = {
        f"/api/uploads/{upload_id}": '{"caption": "a"}',
        "/api/uploads/exists": '{"sha256": []}',
        "/api/uploads/bulk": '{"action": "delete", "filter": {}}',
        "/api/analyses": '{"analyzer": "dimensions", "select": "all"}',
    }
    for path, body in orders.items():
        method = "PATCH" if upload_id in path else "POST"
        for content_type in (None, "text/plain", "application/x-www-form-urlencoded"):
            answer = client.open(path, method=method, data=body, content_type=content_type)
            assert answer.status_code == 415, answer.text
            assert answer.json["type"] == "urn:clustr:problem:not_json"
            assert (content_type or "no Content-Type") in answer.json["detail"]
            assert "application/json" in answer.json["detail"]
    merge = {"data": '{"caption": "a"}', "content_type": "application/merge-patch+json"}
    assert client.patch(f"/api/uploads/{upload_id}", **merge).status_code == 200


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ([], "body"),
        ("a", "body"),
        ({"tags": ["cat"]}, "tags"),
        ({"tags": {"add": "cat"}}, "tags.add"),
    ],
)
def test_what_is_no_object_is_called_by_its_name(workshop, client, body, field):
    (upload_id,) = workshop.upload()
    answer = client.patch(f"/api/uploads/{upload_id}", json=body)
    assert answer.status_code == 422
    assert [*answer.json["errors"]] == [field]
    assert f"{field}: Expected" in answer.json["detail"] or "Expected a list" in answer.text


def test_sizes_are_told_in_megabytes_and_bytes(client):
    answer = client.patch(f"/api/uploads/{'0' * 24}", data=b" " * 2_000_000)
    assert answer.status_code == 413
    assert "976.6 KB (1000000 bytes)" in answer.json["detail"]
    asked = {"headers": {"Content-Type": "multipart/form-data; boundary=b"}}
    environment = {"CONTENT_LENGTH": str(2**40)}
    large = client.post("/api/upload", environ_overrides=environment, **asked)
    assert large.status_code == 413
    assert "1000 MB (1048576000 bytes)" in large.json["detail"]


def test_no_hash_yet_is_another_problem_than_no_upload(workshop, client):
    (upload_id,) = workshop.upload()
    path = "/api/x/phash/similar?upload_id="
    unknown, waits = client.get(path + "0" * 24), client.get(path + upload_id)
    assert (unknown.status_code, waits.status_code) == (404, 404)
    assert unknown.json["type"] == "urn:clustr:problem:not_found"
    assert waits.json["type"] == "urn:clustr:problem:no_result"
    assert waits.json["detail"].endswith("yet; its analysis phash is queued.")
