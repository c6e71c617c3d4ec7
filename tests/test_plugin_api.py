"""What plugins add to the API: filters of the listing, routes of their own, typed results."""

from collections.abc import Iterator
from typing import Any

import photographs
import PIL.Image
import pytest
from api_plugins import BRIGHTNESS, ROUTES, SIZE
from flask.testing import FlaskClient
from jobs import end_of
from openapi_schema_validator import OAS30Validator
from openapi_spec_validator import validate
from running import Servers
from workshop import Workshop, another

from clustr.api.http.request_context import EXTENSION
from clustr.app import create_app
from clustr.database import Condition, UploadFilter
from clustr.domain.errors import TooSlow
from clustr.settings import read_settings

PROBLEM = "application/problem+json"
UNKNOWN_ID = "0123456789abcdef01234567"


def grey(value: int, width: int = 20) -> bytes:
    return photographs.encode(PIL.Image.new("L", (width, 20), value), "png")


@pytest.fixture(scope="module")
def workshop(servers: Servers, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workshop]:
    """An installation with plugins, and uploads whose analyses have all ended."""
    with Workshop(tmp_path_factory.mktemp("reach"), servers) as workshop:
        workshop.write("brightness", BRIGHTNESS)
        workshop.write("size", SIZE)
        workshop.write("looks", ROUTES)
        ids = workshop.upload(grey(0), grey(50, 30), grey(150), grey(250, 40), grey(90, 13))
        workshop.ids = dict(zip((0, 50, 150, 250, "skipped"), ids, strict=True))
        workshop.worker()
        for upload_id in ids:
            workshop.end_of(upload_id, "brightness")
            workshop.end_of(upload_id, "size")
        yield workshop


@pytest.fixture
def client(workshop: Workshop) -> FlaskClient:
    return workshop.app.test_client()


@pytest.fixture(scope="module")
def document(workshop: Workshop) -> dict[str, Any]:
    return workshop.app.test_client().get("/openapi.json").get_json()


def test_answers_of_plugins_have_the_names_of_ours_whichever_python_names_them(document):
    """Python calls 422 `UNPROCESSABLE_CONTENT` since 3.13, and flask-smorest then does so, too."""
    answers = document["paths"]["/api/x/looks/looks/wrong/{how}"]["get"]["responses"]
    assert answers["422"] == {"$ref": "#/components/responses/UNPROCESSABLE_ENTITY"}


@pytest.fixture
def listed(workshop: Workshop, client: FlaskClient):
    """What a query lists, by how bright the uploads are."""
    names = {upload_id: name for name, upload_id in workshop.ids.items()}

    def listed(query: str) -> list[Any]:
        answer = client.get(f"/api/uploads?{query}")
        assert answer.status_code == 200, answer.text
        return [names[upload["id"]] for upload in answer.get_json()["data"]]

    return listed


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("analyses.brightness.mean=150", [150]),
        ("analyses.brightness.mean=150.0", [150]),
        ("analyses.brightness.mean=151", []),
        ("analyses.brightness.mean__ne=150", [250, 50, 0]),
        ("analyses.brightness.mean__gt=50", [250, 150]),
        ("analyses.brightness.mean__gte=50", [250, 150, 50]),
        ("analyses.brightness.mean__lt=50", [0]),
        ("analyses.brightness.mean__lte=5e1", [50, 0]),
        ("analyses.brightness.mean__gt=0&analyses.brightness.mean__lt=200", [150, 50]),
        ("analyses.brightness.mean__gt=0&analyses.brightness.dark=true", [50]),
        ("analyses.brightness.dark=false", [250, 150]),
        ("analyses.brightness.marks=high", [250, 150]),
        ("analyses.brightness.marks__ne=very", [150, 50, 0]),
        ("analyses.brightness.marks=$where", []),
        ("analyses.size.mean=20", [150, 0]),
        ("analyses.size.mean=20&analyses.brightness.mean=0", [0]),
        ("analyses.size.mean__gt=20&analyses.brightness.mean__gt=100", [250]),
        ("analyses.size.mean=0", []),
    ],
)
def test_filters(listed, query, found):
    assert listed(query) == found


def test_filters_go_with_pages_and_cursors(listed, client):
    query = "analyses.brightness.mean__gte=0"
    assert listed(f"{query}&limit=3") == [250, 150, 50]
    assert listed(f"{query}&limit=3&page=2") == [0]
    assert listed(f"{query}&limit=3&page=3") == []
    walked, address = [], f"/api/uploads?{query}&limit=1"
    cursor = ""
    while cursor is not None:
        page = client.get(address + cursor).get_json()
        assert page["total"] == 4
        walked += [upload["id"] for upload in page["data"]]
        cursor = page["next_cursor"] and f"&cursor={page['next_cursor']}"
    assert len(walked) == len(set(walked)) == 4
    assert client.get(f"{address}&page=2").get_json()["total"] == 4
    assert client.get(f"{address}&page=9").get_json()["total"] == 4
    for cursor in ("", "nonsense", "A" * 3000):
        wrong = client.get(f"{address}&cursor={cursor}")
        assert list(wrong.get_json()["errors"]) == ["cursor"]


@pytest.mark.parametrize(
    ("parameter", "value", "says"),
    [
        ("analyses.brightness.mean", "bright", ["valid number"]),
        ("analyses.brightness.mean", "", ["valid number"]),
        ("analyses.brightness.mean", "nan", ["numeric"]),
        ("analyses.brightness.dark", "maybe", ["valid boolean"]),
        ("analyses.size.mean", "9" * 30, ["63 bits"]),
        ("analyses.brightnes.mean", "1", ["brightnes`", "did you mean `brightness`?", "`size`"]),
        ("analyses.palette.mean", "1", ["palette", "`brightness`, `size`"]),
        ("analyses.brightness.maen", "1", ["maen", "did you mean `mean`?", "`dark`"]),
        ("analyses.brightness.mean__gtee", "1", ["gtee", "did you mean `gte`?", "`lt`"]),
        ("analyses.brightness.mean__where", "1", ["where", "`eq`, `ne`, `gt`"]),
        ("analyses.brightness.dark__gt", "1", ["operator", "`gt`", "`eq`"]),
        ("analyses.brightness.mean[$gt]", "1", ["mean[$gt]", "did you mean `mean`?"]),
        ("analyses.brightness.$where", "1", ["$where", "`mean`"]),
        ("analyses", "1", ["parameter `analyses`"]),
        ("limmit", "1", ["parameter `limmit`", "did you mean `limit`?"]),
    ],
)
def test_what_is_wrong_with_a_filter_is_named(client, parameter, value, says):
    answer = client.get("/api/uploads", query_string={parameter: value, "limit": "1"})
    assert answer.status_code == 422
    assert answer.content_type == PROBLEM
    errors = answer.get_json()["errors"]
    assert list(errors) == [parameter]
    for part in says:
        assert part in errors[parameter][0]


def test_all_that_is_wrong_is_named_at_once_and_nothing_twice(client):
    query = "limit=0&analyses.size.mean=x&analyses.sise.mean=1"
    errors = client.get(f"/api/uploads?{query}").get_json()["errors"]
    assert errors.keys() == {"limit", "analyses.size.mean", "analyses.sise.mean"}
    twice = client.get("/api/uploads?analyses.size.mean=1&analyses.size.mean=2")
    assert twice.get_json()["errors"] == {"analyses.size.mean": ["Give it once."]}


FILTERS_OF_JOBS: list[tuple[dict[str, Any], list[int]]] = [
    ({"brightness.mean": 150}, [150]),
    ({"brightness.mean__gt": 0, "brightness.mean__lt": 200.5}, [50, 150]),
    ({"brightness.dark": False}, [150, 250]),
    ({"brightness.marks__ne": "very"}, [0, 50, 150]),
    ({"size.mean": 20, "brightness.mean__gte": 100}, [150]),
    ({"size.mean": 0}, []),
]


def test_jobs_take_the_filters_of_plugins(workshop, client):
    jobs = []
    for number, (analyses, found) in enumerate(FILTERS_OF_JOBS):
        given = {"analyses": analyses, "status": "processed"}
        body = {"action": "tag", "tags": [f"found{number}"], "filter": given}
        dry = client.post("/api/uploads/bulk", json={**body, "dry_run": True})
        assert (dry.status_code, dry.get_json()) == (200, {"matched": len(found)})
        again = {"analyzer": "size", "select": "all", "filter": given, "dry_run": True}
        assert client.post("/api/analyses", json=again).get_json()["matched"] == len(found)
        job = client.post("/api/uploads/bulk", json=body).get_json()
        assert job["parameters"]["filter"] == given
        jobs.append(job)
    for number, (job, (_, found)) in enumerate(zip(jobs, FILTERS_OF_JOBS, strict=True)):
        end_of(workshop, job["id"])
        shown = client.get(f"/api/jobs/{job['id']}").get_json()
        assert shown["parameters"] == job["parameters"]
        tagged = client.get(f"/api/uploads?tag=found{number}").get_json()["data"]
        assert {one["id"] for one in tagged} == {workshop.ids[each] for each in found}
    tags = [f"found{number}" for number in range(len(jobs))]
    untag = {"action": "untag", "tags": tags, "ids": list(workshop.ids.values())}
    end_of(workshop, client.post("/api/uploads/bulk", json=untag).get_json()["id"])


@pytest.mark.parametrize("path", ["/api/uploads/bulk", "/api/analyses"])
@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("brightness.mean", "bright", ["valid number"]),
        ("brightness.mean", {"$gt": 1}, ["valid number"]),
        ("brightness.mean", [1], ["valid number"]),
        ("brightness.mean", "150", ["valid number"]),
        ("brightness.mean", True, ["valid number"]),
        ("brightness.dark", "true", ["valid boolean"]),
        ("size.mean", 2.6e-42, ["valid integer"]),
        ("size.mean", 2**63, ["63 bits"]),
        ("brightnes.mean", 1, ["brightnes`", "did you mean `brightness`?"]),
        ("brightness.mean__where", 1, ["where", "`gte`"]),
        ("brightness.$where", 1, ["$where", "`mean`"]),
        ("mean", 1, ["did you mean `analyses.size.mean`?"]),
    ],
)
def test_what_is_wrong_with_a_filter_of_a_job_is_named(client, path, name, value, says):
    order = {"action": "delete"} if path.endswith("bulk") else {"analyzer": "size", "select": "all"}
    analyses = {"brightness.marks": "very", name: value}
    answer = client.post(path, json={**order, "filter": {"analyses": analyses}})
    assert answer.status_code == 422, answer.text
    errors = answer.get_json()["errors"]
    assert list(errors) == [f"filter.analyses.{name}"]
    for part in says:
        assert part in errors[f"filter.analyses.{name}"][0]


def test_the_document_describes_the_filters_of_jobs(document):
    described = document["components"]["schemas"]["Filter"]["properties"]["analyses"]
    assert described["additionalProperties"] is False
    assert described["properties"]["size.mean__gt"]["type"] == "integer"
    listed = document["paths"]["/api/uploads"]["get"]["parameters"]
    names = {each["name"] for each in listed if each["name"].startswith("analyses.")}
    assert {f"analyses.{name}" for name in described["properties"]} == names


def test_the_filters_of_a_job_are_an_object_with_some_members(client):
    for analyses in ({}, [], 1, {"x" * 301: 1}, {f"size.mean{n}": n for n in range(21)}):
        order = {"action": "delete", "filter": {"analyses": analyses}}
        assert client.post("/api/uploads/bulk", json=order).status_code == 422


def test_an_old_result_is_found_while_the_analysis_runs_again(workshop, listed):
    here = {"analyses.result.mean": 0}
    assert listed("analyses.brightness.mean=0") == [0]
    states = {"analyses.$[a].state": "failed"}
    named = [{"a.name": "brightness"}]
    workshop.collection.update_one(here, {"$set": states}, array_filters=named)
    assert listed("analyses.brightness.mean=0") == [0]
    states = {"analyses.$[a].state": "succeeded"}
    workshop.collection.update_one(here, {"$set": states}, array_filters=named)


def test_the_indexes_that_were_asked_for_are_there_and_used(workshop):
    made = workshop.collection.index_information()
    assert "results.mean" in made
    assert not {"results.dark", "results.marks"} & set(made)
    assert workshop.web.database.unused_indexes() == []
    workshop.collection.create_index([("analyses.result.gone", 1)], name="results.gone")
    workshop.web.database.make_result_indexes()
    assert workshop.web.database.unused_indexes() == ["results.gone"]
    workshop.collection.drop_index("results.gone")


@pytest.fixture
def crowd(workshop: Workshop) -> Iterator[int]:
    """So many uploads that looking at each of them takes a while."""
    pattern = workshop.collection.find_one({})
    count = 20_000
    pattern |= {"request_id": "crowd"}
    words = [{"name": "brightness", "state": "succeeded", "version": 1, "attempts": 1}]
    for start in range(0, count, 5000):
        workshop.collection.insert_many(
            another(
                pattern,
                analyses=[words[0] | {"result": {"mean": n / 100, "dark": n % 2 == 0}}],
            )
            for n in range(start, start + 5000)
        )
    yield count
    workshop.collection.delete_many({"request_id": "crowd"})


def test_the_cost_of_a_search(workshop, client, crowd, monkeypatch):
    """By an index only what matches is looked at; without one a slow search is ended and named."""
    workshop.collection.database.command("profile", 2)
    try:
        narrow = "analyses.brightness.mean__gte=100.0&analyses.brightness.mean__lt=100.5"
        found = client.get(f"/api/uploads?{narrow}&limit=100").get_json()
        assert found["total"] == len(found["data"]) == 50
    finally:
        workshop.collection.database.command("profile", 0)
    entry = workshop.collection.database["system.profile"].find_one(
        {"op": "query"}, sort=[("ts", -1)]
    )
    workshop.collection.database["system.profile"].drop()
    assert entry["docsExamined"] <= 60
    many = client.get("/api/uploads?analyses.brightness.dark=true&limit=1").get_json()
    assert many["total"] is None
    assert many["next_cursor"]
    monkeypatch.setattr("clustr.database.listing.SEARCH_SECONDS", 0.005)
    assert client.get("/api/uploads?analyses.brightness.marks=none").get_json()["total"] == 0
    monkeypatch.setattr("clustr.database.listing.MAX_EXAMINED", 10_000)
    slow = client.get("/api/uploads?analyses.brightness.marks=none")
    assert slow.status_code == 422
    assert list(slow.get_json()["errors"]) == ["analyses.brightness.marks"]
    assert "no index" in slow.get_json()["errors"]["analyses.brightness.marks"][0]
    with pytest.raises(TooSlow):
        never = Condition("brightness", "marks", "eq", "none")
        workshop.web.database.listing.page(1, upload_filter=UploadFilter(conditions=(never,)))


def test_routes_are_mounted_below_their_plugin(workshop, client):
    upload_id = workshop.ids[150]
    answer = client.get(f"/api/x/looks/looks/{upload_id}", headers={"X-Request-ID": "mine"})
    assert answer.get_json() == {"name": "photograph.jpg"}
    assert answer.headers["X-Request-ID"] == "mine"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Vary"] == "Origin"
    assert client.get("/looks/x").status_code == 404


@pytest.mark.parametrize(
    ("method", "path", "status", "said"),
    [
        ("GET", UNKNOWN_ID, 404, UNKNOWN_ID),
        ("GET", "x", 404, "There is no upload with the id x; an id is 24 hexadecimal digits"),
        ("DELETE", "x", 404, "There is no look at x"),
        ("PUT", "x", 405, "not allowed"),
        ("GET", "wrong/abort", 404, "There is nothing at this path."),
        ("GET", "wrong/message", 409, "It is being looked at."),
        ("GET", "wrong/input", 422, "This cannot be used: how: Not like this."),
        ("GET", "wrong/raise", 500, "on our side"),
        ("GET", "wrong/exit", 500, "on our side"),
        ("GET", "wrong/find", 500, "on our side"),
        ("GET", "nothing/at/all", 404, "There is nothing at this path."),
    ],
)
def test_errors_of_routes_are_problems(client, method, path, status, said):
    answer = client.open(f"/api/x/looks/looks/{path}", method=method)
    assert answer.status_code == status
    assert answer.content_type == PROBLEM
    problem = answer.get_json()
    assert problem["request_id"] == answer.headers["X-Request-ID"]
    assert said in problem["detail"]
    assert "secret" not in answer.text


def test_the_document_is_valid_and_names_what_is_installed(document):
    validate(document)
    schemas = document["components"]["schemas"]
    assert schemas["AnalysisResult_brightness"]["properties"]["mean"]["type"] == "number"
    assert schemas["AnalysisResult_size"]["properties"]["mean"]["type"] == "integer"
    parameters = {p["name"]: p for p in document["paths"]["/api/uploads"]["get"]["parameters"]}
    assert parameters.keys() >= {"page", "limit", "cursor"}
    mean = parameters["analyses.brightness.mean__gte"]
    assert (mean["in"], mean["schema"]["type"]) == ("query", "number")
    assert mean["description"] == "Mean luminance: `mean` of `brightness` is at least this."
    assert parameters["analyses.brightness.dark"]["schema"]["type"] == "boolean"
    assert "without an index" in parameters["analyses.brightness.dark"]["description"]
    assert document["servers"] == [{"url": "/"}]


def test_routes_of_plugins_are_in_the_document(document):
    item = document["paths"]["/api/x/looks/looks/{upload_id}"]
    assert item["get"]["summary"] == "Get the name of an upload"
    assert "default" in item["get"]["responses"]
    reference = item["get"]["responses"]["200"]["content"]["application/json"]["schema"]
    assert reference == {"$ref": "#/components/schemas/looks_Upload"}
    assert "original_name" in document["components"]["schemas"]["Upload"]["properties"]
    operations = [
        operation["operationId"]
        for path in document["paths"].values()
        for operation in path.values()
        if isinstance(operation, dict)
    ]
    assert len(operations) == len(set(operations))
    assert {"looks_get_looks_upload_id", "looks_delete_looks_upload_id"} <= set(operations)


def test_uploads_fit_the_typed_schema(workshop, client, document):
    upload = client.get(f"/api/uploads/{workshop.ids[150]}").get_json()
    assert misfits(document, upload) == []
    assert upload["analyses"]["brightness"]["provenance"]["plugin"] == "brightness"
    assert upload["analyses"]["brightness"]["stale"] is False
    upload["analyses"]["brightness"]["result"]["mean"] = "bright"
    assert misfits(document, upload) != []


def misfits(document: dict[str, Any], upload: dict[str, Any]) -> list[str]:
    """What is wrong with an upload by the schema that the document has for it."""
    schema = {"$ref": "#/components/schemas/Upload"}
    whole = {"allOf": [schema], "components": document["components"]}
    return [error.message for error in OAS30Validator(whole).iter_errors(upload)]


def test_the_document_knows_the_prefix_of_a_proxy(workshop):
    prefixed = workshop.app.test_client().get(
        "/openapi.json", environ_overrides={"SCRIPT_NAME": "/images"}
    )
    assert prefixed.get_json()["servers"] == [{"url": "/images"}]


def test_results_outlive_their_analyzer(workshop):
    """Without the plugin its results are still served, and the document stays true of them."""
    without = {"PLUGINS_ENABLED": "size", "PLUGINS_DISABLED": ""}
    app = create_app(read_settings({**workshop.environment, **without}))
    client = app.test_client()
    try:
        upload = client.get(f"/api/uploads/{workshop.ids[150]}").get_json()
        assert upload["analyses"]["brightness"]["result"]["mean"] == 150
        assert upload["analyses"]["brightness"]["provenance"]["plugin"] == "brightness"
        document = client.get("/openapi.json").get_json()
        assert "AnalysisResult_brightness" not in document["components"]["schemas"]
        assert misfits(document, upload) == []
        assert client.get("/api/uploads?analyses.brightness.mean=1").status_code == 422
        database = app.extensions[EXTENSION].database
        assert database.unused_indexes() == ["results.mean"]
    finally:
        app.extensions[EXTENSION].database.close()
