"""The OpenAPI document: valid, whole, and true of a service that runs."""

import json
import re
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import photographs
import pytest
import requests
from calling import get, part, upload, uploaded
from marshmallow import RAISE, Schema
from openapi_schema_validator import OAS30Validator
from openapi_spec_validator import validate
from running import wait_until

from clustr.api.http.problem_schema import ProblemSchema
from clustr.api.schemas import service as service_schemas
from clustr.api.schemas.accepted_files import UploadedSchema, UploadProblemSchema
from clustr.api.schemas.files import ComparedDimensionsSchema
from clustr.api.schemas.listing import UploadPageSchema
from clustr.api.schemas.uploads import UploadSchema

METHODS = ("get", "put", "post", "patch", "delete")
PROBLEM = "application/problem+json"
# Pages for people, and what they load; and the document itself.
NOT_DESCRIBED = (
    "/gallery",
    "/gallery/{digest}/{name}",
    "/docs",
    "/redoc",
    "/docs/assets/{name}",
    "/openapi.json",
    "/favicon.ico",
    "/robots.txt",
)


@pytest.fixture(scope="module")
def document(service) -> dict:
    answer = get(service, "/openapi.json")
    assert answer.headers["Content-Type"] == "application/json"
    return answer.json()


@pytest.fixture(scope="module")
def operations(document) -> dict[tuple[str, str], dict]:
    return operations_of(document)


def operations_of(document: dict) -> dict[tuple[str, str], dict]:
    return {
        (method, path): item[method]
        for path, item in document["paths"].items()
        for method in METHODS
        if method in item
    }


def followed(document: dict, node: dict) -> dict:
    """What a node refers to, or the node itself."""
    while "$ref" in node:
        found = document
        for name in node["$ref"].removeprefix("#/").split("/"):
            found = found[name]
        node = found
    return node


def misfits(document: dict, schema: dict, instance: object) -> list[str]:
    """What is wrong with an instance of a schema of the document."""
    whole = {"allOf": [schema], "components": document["components"]}
    validator = OAS30Validator(whole)
    return [f"{error.json_path}: {error.message}" for error in validator.iter_errors(instance)]


def test_many_who_ask_first_get_the_same_document(app_with) -> None:
    """Threads of a new process: it is made when it is asked for."""
    app, together = app_with(), threading.Barrier(8)

    def ask(_number: int) -> tuple[int, bytes]:
        together.wait()
        answer = app.test_client().get("/openapi.json")
        return answer.status_code, answer.data

    with ThreadPoolExecutor(8) as threads:
        answers = set(threads.map(ask, range(8)))
    [(status, body)] = answers
    assert status == 200
    validate(json.loads(body))


def test_answers_are_called_the_same_whichever_python_runs_the_service(document) -> None:
    """Some have other names in `http.HTTPStatus` since Python 3.13."""
    assert set(document["components"]["responses"]) == {
        "BAD_REQUEST",
        "CONFLICT",
        "DEFAULT_ERROR",
        "FORBIDDEN",
        "INSUFFICIENT_STORAGE",
        "NOT_FOUND",
        "PRECONDITION_FAILED",
        "REQUESTED_RANGE_NOT_SATISFIABLE",
        "REQUEST_ENTITY_TOO_LARGE",
        "SERVICE_UNAVAILABLE",
        "TOO_MANY_REQUESTS",
        "UNAUTHORIZED",
        "UNPROCESSABLE_ENTITY",
        "UNSUPPORTED_MEDIA_TYPE",
    }


def test_the_document_is_valid(document):
    validate(document)
    assert document["openapi"].startswith("3.")


def test_the_document_describes_every_route(app_with, operations):
    app = app_with(DEBUG_ENDPOINTS="true")
    routes = {
        (method.lower(), path)
        for rule in app.url_map.iter_rules()
        for method in rule.methods - {"HEAD", "OPTIONS"}
        if (path := re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", rule.rule)) not in NOT_DESCRIBED
    }
    assert set(operations) == routes


def members_of(document: dict, node: object) -> Iterator[tuple[str, dict]]:
    """The members of a schema at every depth, by their names."""
    if isinstance(node, dict):
        node = followed(document, node)
        for name, member in node.get("properties", {}).items():
            yield name, followed(document, member)
        node = [*node.values()]
    if isinstance(node, list):
        for inner in node:
            yield from members_of(document, inner)


def test_no_request_says_which_address_to_call(document, operations):
    """So nobody can have the service call another one for them."""
    sent = []
    for called, operation in operations.items():
        parameters = operation.get("parameters", []) + document["paths"][called[1]].get(
            "parameters", []
        )
        for parameter in (followed(document, each) for each in parameters):
            sent.append((called, parameter["name"], followed(document, parameter["schema"])))
        body = operation.get("requestBody", {})
        sent += [(called, *member) for member in members_of(document, body)]
    assert len(sent) > 100
    for called, name, schema in sent:
        assert not re.search("url|uri|host|callback|webhook", name, re.IGNORECASE), called
        assert schema.get("format") not in ("uri", "url", "hostname"), (called, name)


def test_every_operation_can_be_understood_by_itself(document, operations):
    tags = {tag["name"] for tag in document["tags"] if tag["description"]}
    for called, operation in operations.items():
        assert operation["summary"], called
        assert operation["operationId"], called
        assert operation["tags"], called
        assert set(operation["tags"]) <= tags, called
        parameters = operation.get("parameters", []) + document["paths"][called[1]].get(
            "parameters", []
        )
        for parameter in parameters:
            assert parameter["description"], (called, parameter)
        assert set(re.findall(r"{(\w+)}", called[1])) == {
            parameter["name"] for parameter in parameters if parameter["in"] == "path"
        }


def test_every_operation_shows_its_success(document, operations):
    for called, operation in operations.items():
        successes = [status for status in operation["responses"] if status.startswith("2")]
        assert successes, called
        for status in successes:
            answer = followed(document, operation["responses"][status])
            assert answer["description"], called
            assert status == "204" or answer["content"], called
            for content in answer.get("content", {}).values():
                assert content["schema"], called


def test_every_operation_shows_its_errors_as_problems(document, operations):
    for called, operation in operations.items():
        errors = [status for status in operation["responses"] if status[0] in "45d"]
        assert "default" in errors, called
        for status in errors:
            if (called[1], status) == ("/api/health/ready", "503"):
                continue  # what is not ready says so in the form of what is
            answer = followed(document, operation["responses"][status])
            assert answer["content"].keys() == {PROBLEM}, (called, status)
            shown = answer["content"][PROBLEM]
            properties = followed(document, shown["schema"])["properties"]
            assert properties.keys() >= {"type", "title", "status", "detail", "instance"}
            assert "request_id" in properties
            assert shown["example"]["status"] == (500 if status == "default" else int(status))


def test_the_errors_of_each_operation(operations):
    """Those that its caller can do something about, or should wait for."""
    found = {called: set(operation["responses"]) for called, operation in operations.items()}
    assert found[("post", "/api/upload")] >= {"201", "413", "415", "422", "503", "507"}
    assert found[("get", "/api/uploads")] >= {"200", "422", "503"}
    assert found[("get", "/api/uploads/{upload_id}")] >= {"200", "304", "404", "422", "503"}
    assert "422" not in found[("get", "/api/uploads/{upload_id}/analyses")]
    assert found[("get", "/uploads/{stored_filename}")] >= {"200", "206", "304", "404", "416"}
    assert found[("get", "/api/plugins/{name}")] >= {"200", "404"}
    assert found[("get", "/api/health/{service}")] >= {"200", "404"}
    assert found[("get", "/api/health/ready")] >= {"200", "503"}
    of_one = {called for called in found if called[1].startswith("/api/uploads/{upload_id}")}
    assert of_one == {called for called in found if "308" in found[called]} - {
        ("get", "/uploads/{stored_filename}")
    }


def test_several_files_can_be_uploaded_from_the_document(operations):
    body = operations[("post", "/api/upload")]["requestBody"]
    assert body["required"]
    files = body["content"]["multipart/form-data"]["schema"]["properties"]["files"]
    assert files["type"] == "array"
    assert files["items"] == {"type": "string", "format": "binary"}


def examples(document: dict, node: object) -> Iterator[tuple[dict, object]]:
    """Every example of the document with its schema."""
    if isinstance(node, dict):
        if "example" in node:
            yield node.get("schema", node), node["example"]
        for key, value in node.items():
            if key != "example":
                yield from examples(document, value)
    elif isinstance(node, list):
        for value in node:
            yield from examples(document, value)


def test_examples_are_what_they_are_examples_of(document):
    found = list(examples(document, document))
    assert len(found) > 50
    for schema, example in found:
        assert misfits(document, schema, example) == [], (schema, example)


def test_a_misfit_would_be_found(document):
    """Or the test above would prove nothing."""
    problem = {"$ref": "#/components/schemas/Problem"}
    page = {"$ref": "#/components/schemas/UploadPage"}
    assert misfits(document, problem, {"type": "about:blank"})
    assert misfits(document, page, {"data": [{}], "total": 0, "page": 1, "limit": 1})


def test_every_member_of_an_answer_is_explained(document):
    for name, schema in document["components"]["schemas"].items():
        if "enum" in schema:
            continue  # It is explained where it is used.
        assert schema["type"] == "object", name
        for member, property in schema["properties"].items():
            refers = "$ref" in property or "$ref" in property.get("items", {})
            assert refers or property.get("description"), f"{name}.{member}"


def nodes(node: object) -> Iterator[dict]:
    """Every object in a document, without those in examples."""
    if isinstance(node, list):
        for inner in node:
            yield from nodes(inner)
    elif isinstance(node, dict):
        yield node
        for name, inner in node.items():
            if name not in ("example", "examples"):
                yield from nodes(inner)


def test_the_document_says_things_as_generators_of_clients_understand_them(document):
    """What else there is to say to each of them is tried with themselves, by `make clients`."""
    upload_schemas = document["components"]["schemas"]
    for name, schema in upload_schemas.items():
        for node in nodes(schema.get("properties", {})):
            assert "anyOf" not in node, (name, node)
            assert len(node.get("enum", ())) < 2, (name, node)
    for node in nodes(document["paths"]):
        assert len(node.get("enum", ())) < 2, node
        content = [*node.get("content", {})]
        assert "image/*" not in content or content[0] == "application/octet-stream"
    assert upload_schemas["UploadStatus"]["enum"] == ["pending", "processed", "error"]
    assert set(upload_schemas["Upload"]["required"]) == set(upload_schemas["Upload"]["properties"])
    assert upload_schemas["ListedUpload"]["required"] == ["id"]
    assert "additionalProperties" not in upload_schemas["UploadAnalyses"]
    assert document["info"]["license"]["name"] == "MIT"
    assert [*document["tags"]] == sorted(document["tags"], key=lambda tag: "Plugin " in tag["name"])
    for called, operation in operations_of(document).items():
        assert operation["description"], called
        assert any(status[0] == "4" for status in operation["responses"]), called
        assert all(" " in tag or tag.istitle() for tag in operation["tags"]), operation["tags"]


def fits(answer: requests.Response, schema: type[Schema], status: int = 200) -> dict:
    """The answer's content, which must have all members of the schema and no others."""
    assert answer.status_code == status, answer.text
    unknown = schema.Meta.unknown if hasattr(schema.Meta, "unknown") else RAISE
    schema().load(answer.json(), unknown=unknown)
    return answer.json()


def test_answers_fit_their_schemas(service):
    fits(get(service, "/"), service_schemas.OnlineSchema)
    fits(get(service, "/api/health/live"), service_schemas.AliveSchema)
    fits(get(service, "/api/health/ready"), service_schemas.AliveSchema)
    health = fits(get(service, "/api/health"), service_schemas.HealthSchema)
    assert health["services"].keys() >= {"backend", "database", "queue", "storage", "captioner"}
    for name in health["services"]:
        fits(get(service, f"/api/health/{name}"), service_schemas.ServiceSchema)
    plugins = fits(get(service, "/api/plugins"), service_schemas.PluginListSchema)["data"]
    assert {plugin["name"] for plugin in plugins} >= {"blip", "dimensions"}
    for plugin in plugins:
        assert (
            fits(get(service, f"/api/plugins/{plugin['name']}"), service_schemas.PluginSchema)
            == plugin
        )


def test_uploads_fit_their_schema_from_acceptance_to_the_end(service):
    contents = [photographs.photograph(extension) for extension in photographs.EXTENSIONS]
    answer = upload(service, *map(part, [*contents, contents[0], photographs.text()]))
    body = fits(answer, UploadedSchema, 201)
    assert [one["duplicate_of"] for one in body["data"]][-1]

    def processed(upload_id: str) -> bool:
        found = fits(get(service, f"/api/uploads/{upload_id}"), UploadSchema)
        return found["status"] == "processed"

    for one in body["data"]:
        wait_until(lambda one=one: processed(one["id"]), 60, f"the analyses of {one}")
        query = f"?id={one['id']}"
        compared = get(service, f"/api/debug/dimensions{query}")
        assert fits(compared, ComparedDimensionsSchema)["match"]
    page = fits(get(service, "/api/uploads?limit=3"), UploadPageSchema)
    assert page["next_cursor"]
    fits(
        get(service, f"/api/uploads?limit=100&cursor={page['next_cursor']}"),
        UploadPageSchema,
    )


def test_errors_fit_their_schemas(service):
    unknown = "0123456789abcdef01234567"
    for path, status in [
        ("/nothing", 404),
        (f"/api/uploads/{unknown}", 404),
        ("/api/uploads/x", 404),
        ("/api/uploads?limit=0", 422),
        ("/api/debug/dimensions", 422),
        ("/api/plugins/nothing", 404),
        ("/api/health/nothing", 404),
        (f"/uploads/{unknown}.png", 404),
        ("/api/upload", 405),
    ]:
        fits(get(service, path), ProblemSchema, status)
    [one] = uploaded(service, photographs.one_pixel())
    beyond = requests.get(one["preview_url"], headers={"Range": "bytes=9999-"}, timeout=60)
    fits(beyond, ProblemSchema, 416)
    for content, status in [(b"", 422), (photographs.text(), 415), (photographs.png_bomb(), 413)]:
        fits(upload(service, part(content)), UploadProblemSchema, status)
    fits(upload(service, part(b"", field="image")), UploadProblemSchema, 422)
