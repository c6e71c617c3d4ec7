"""Which parts of results clients get: what `fields` asks for, and nothing that is private."""

import json
from collections.abc import Iterator
from typing import Any

import photographs
import pytest
from flask.testing import FlaskClient
from marshmallow import Schema, fields
from running import Servers
from workshop import Workshop

from clustr.api.schemas.listing import UploadPageSchema
from clustr.app import create_app
from clustr.plugin_manager import private_fields

PEOPLE = """
from marshmallow import Schema, fields
from clustr.plugins import Analyzer, Filter, hookimpl

PRIVATE = {"private": True}

class Person(Schema):
    age = fields.Integer(required=True)
    name = fields.String(required=True, metadata=PRIVATE)

class Room(Schema):
    size = fields.Integer()
    owner = fields.String(metadata=PRIVATE)
    rooms = fields.List(fields.Nested(lambda: Room()))

class People(Schema):
    persons = fields.List(fields.Nested(Person), required=True)
    count = fields.Integer(required=True)
    secret = fields.Dict(metadata=PRIVATE)
    house = fields.Nested(Room)
    guests = fields.Dict(values=fields.Nested(Person))

class PeopleAnalyzer(Analyzer):
    name = "people"
    result_schema = People

    def analyze(self, image, context):
        persons = [{"age": 30, "name": "hidden Ann"}, {"age": 40, "name": "hidden Bob"}]
        rooms = [{"size": 1, "owner": "hidden Cid", "rooms": [{"owner": "hidden Dan"}]}]
        return {
            "persons": persons,
            "count": 2,
            "secret": {"key": "hidden"},
            "house": {"size": 3, "owner": "hidden Eve", "rooms": rooms},
            "guests": {"first": persons[0]},
        }

class Guests(Schema):
    names = fields.String()

class GuestsAnalyzer(Analyzer):
    name = "guests"
    result_schema = Guests
    requires = ("people",)

    def analyze(self, image, context):
        return {"names": " and ".join(p["name"][7:] for p in image.results["people"]["persons"])}

class Host(Schema):
    age = fields.Integer()
    name = fields.String(data_key="hostName", metadata=PRIVATE)

class Hosts(Schema):
    hosts = fields.List(fields.Nested(Host), data_key="allHosts")

class HostsAnalyzer(Analyzer):
    name = "hosts"
    result_schema = Hosts

    def analyze(self, image, context):
        return {"allHosts": []}

@hookimpl
def clustr_register_analyzers(config):
    return [PeopleAnalyzer(), GuestsAnalyzer(), HostsAnalyzer()]

@hookimpl
def clustr_register_filters(config):
    return [Filter(analyzer="people", field="persons.name", type=fields.String(), name="person")]
"""
SHOWN = {"persons": [{"age": 30}, {"age": 40}], "count": 2, "house": {"size": 3}}
ABOUT = {
    "status",
    "version",
    "attempts",
    "started_at",
    "finished_at",
    "stale",
    "provenance",
    "error",
}


@pytest.fixture(scope="module")
def workshop(servers: Servers, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workshop]:
    """An installation with one upload and its results."""
    with Workshop(tmp_path_factory.mktemp("fields"), servers) as workshop:
        workshop.write("people", PEOPLE)
        (workshop.upload_id,) = workshop.upload(photographs.photograph())
        for name in ("people", "guests"):
            assert workshop.horse(name, f"run-{name}").process.wait(60) == 0
            assert workshop.state_of(workshop.upload_id, name) == "succeeded"
        yield workshop


@pytest.fixture
def client(workshop: Workshop) -> FlaskClient:
    return workshop.app.test_client()


def listed(client: FlaskClient, names: str, **more: str) -> dict[str, Any]:
    answer = client.get("/api/uploads", query_string={"fields": names, **more})
    assert answer.status_code == 200, answer.text
    (upload,) = answer.get_json()["data"]
    return upload


def test_the_result_of_one_analyzer_is_asked_for(workshop, client):
    upload = listed(client, "original_name,analyses.people")
    assert upload.keys() == {"id", "original_name", "analyses"}
    assert upload["analyses"].keys() == {"people"}
    assert upload["analyses"]["people"].keys() == {*ABOUT, "result"}
    assert upload["analyses"]["people"]["result"] == SHOWN
    both = listed(client, "analyses.people,analyses.guests")["analyses"]
    assert both["guests"]["result"] == {"names": "Ann and Bob"}


@pytest.mark.parametrize(
    ("asked", "result"),
    [
        ("analyses.people.count", {"count": 2}),
        ("analyses.people.persons", {"persons": [{"age": 30}, {"age": 40}]}),
        ("analyses.people.persons.age", {"persons": [{"age": 30}, {"age": 40}]}),
        (
            "analyses.people.persons.age,analyses.people.persons,analyses.people.count",
            {"persons": [{"age": 30}, {"age": 40}], "count": 2},
        ),
        ("analyses.people.house", {"house": {"size": 3}}),
        ("analyses.people,analyses.people.count", SHOWN),
    ],
)
def test_parts_of_a_result_are_asked_for_at_any_depth(client, asked, result):
    for more in ({}, {"q": "photograph"}, {"sort": "size"}):
        people = listed(client, asked, **more)["analyses"]["people"]
        assert people["result"] == result
        is_whole = "analyses.people" in asked.split(",")
        assert people.keys() == ({"result", *ABOUT} if is_whole else {"result"})


def test_a_placeholder_takes_little_of_an_answer(client):
    """Of a hundred, which differ in ids and numbers, a page has some 25 kB."""
    names = "dimensions,thumbnail_url,analyses.people.count"
    answer = client.get("/api/uploads", query_string={"fields": names})
    (upload,) = answer.get_json()["data"]
    assert not UploadPageSchema().validate(answer.get_json())
    assert len(json.dumps(upload, separators=(",", ":"))) < 250


def test_the_schema_of_lists_requires_no_key_of_a_result(client):
    schemas = client.get("/openapi.json").get_json()["components"]["schemas"]
    assert schemas["AnalysisResult_people"]["required"] == ["count", "persons"]
    listed_result = schemas["ListedAnalysis_people"]["properties"]["result"]
    assert "required" not in json.dumps(listed_result)
    assert listed_result["properties"].keys() == {"count", "persons", "house"}
    for upload, analyses in (("Upload", "UploadAnalyses"), ("ListedUpload", "ListedAnalyses")):
        reference = {"$ref": f"#/components/schemas/{analyses}"}
        assert schemas[upload]["properties"]["analyses"]["allOf"] == [reference]


def test_all_analyses_and_the_result_of_one(client):
    analyses = listed(client, "analyses,analyses.people.count")["analyses"]
    assert analyses["people"]["result"] == {"count": 2}
    assert analyses["guests"].keys() == ABOUT
    with_all = listed(client, "analyses.results,analyses.people.count")["analyses"]
    assert with_all["people"]["result"] == SHOWN
    assert with_all["guests"]["result"] == {"names": "Ann and Bob"}


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ("analyses.peopel", ["There is no analyzer `peopel`", "`analyses.people`"]),
        ("analyses.people.coutn", ["Of the results of `people`", "did you mean count"]),
        ("analyses.people.count.x", ["count is a Integer, with nothing inside"]),
        ("analyses.people.persons.name", ["unknown field name"]),
        ("analyses.people.secret", ["unknown field secret"]),
        ("analyses.people.house.rooms.owner", ["unknown field rooms"]),
        ("analyses.people.guests", ["unknown field guests"]),
        ("analyses.hosts.allHosts.hostName", ["unknown field hostName"]),
        ("analyses.", ["There is no analyzer ``"]),
        ("analysis", ["There is no field `analysis`"]),
    ],
)
def test_what_is_wrong_with_fields_is_named(client, asked, says):
    answer = client.get("/api/uploads", query_string={"fields": f"id,{asked}"})
    assert answer.status_code == 422, answer.text
    for part in says:
        assert part in answer.get_json()["errors"]["fields"][0]


def paths(upload_id: str) -> list[str]:
    return [
        f"/api/uploads/{upload_id}",
        f"/api/uploads/{upload_id}/analyses",
        f"/api/uploads/{upload_id}/analyses/people",
        "/api/uploads?fields=analyses.results",
        "/api/uploads?fields=analyses.people",
        "/api/uploads?q=photograph&fields=analyses.people.persons",
    ]


def test_private_fields_are_kept_and_not_shown(workshop, client):
    stored = workshop.stored(workshop.upload_id, "people")
    assert stored["result"]["secret"] == {"key": "hidden"}
    private = ["persons.name", "secret", "house.owner", "house.rooms", "guests"]
    assert stored["private"] == private
    assert "private" not in workshop.stored(workshop.upload_id, "guests")
    for path in paths(workshop.upload_id):
        answer = client.get(path)
        assert answer.status_code == 200
        assert "hidden" not in answer.text, path
        assert '"age":30' in answer.text, path
    changed = client.patch(f"/api/uploads/{workshop.upload_id}", json={"caption": "A photograph"})
    assert changed.status_code == 200
    assert "hidden" not in changed.text
    assert '"age":30' in changed.text


class Named(Schema):
    age = fields.Integer()
    name = fields.String(metadata={"private": True})


class Family(Schema):
    """One that leads to another, which leads back."""

    parent = fields.Nested(Named)
    branches = fields.List(fields.Nested(lambda: Branch()))


class Branch(Schema):
    families = fields.Nested(Family, many=True)


class Folder(Schema):
    """One that contains itself, and has nothing private."""

    label = fields.String()
    folders = fields.List(fields.Nested(lambda: Folder()))


class Slim(Schema):
    """One that contains itself without what is private."""

    name = fields.String(metadata={"private": True})
    next = fields.Nested(lambda: Slim(only=("all",)))
    all = fields.Nested(lambda: Slim())


SECRET = fields.String(metadata={"private": True})


@pytest.mark.parametrize(
    ("field", "private"),
    [
        (fields.List(fields.List(fields.Nested(Named))), ["it.name"]),
        (fields.List(SECRET), ["it"]),
        (fields.Nested(Family), ["it.parent.name", "it.branches.families"]),
        (fields.Nested(Folder), []),
        (fields.Nested(Slim), ["it.name", "it.next", "it.all"]),
        (fields.Dict(values=SECRET), ["it"]),
        (fields.Dict(keys=SECRET), ["it"]),
        (fields.Dict(values=fields.Integer()), []),
        (fields.Dict(), []),
        (fields.List(fields.Dict(values=fields.List(fields.Nested(Named)))), ["it"]),
        (fields.Dict(values=fields.Nested(Family)), ["it"]),
        (fields.Dict(values=fields.Nested(Folder)), []),
        (fields.Tuple((fields.Integer(), fields.Nested(Named))), ["it"]),
        (fields.Tuple((fields.Integer(), fields.Nested(Folder))), []),
        (fields.Pluck(Named, "name"), ["it"]),
    ],
)
def test_what_has_private_fields_without_paths_of_their_own_is_private(field, private):
    assert [*private_fields(Schema.from_dict({"it": field}))] == private


def test_private_fields_are_in_no_description(client):
    schema = client.get("/openapi.json").get_json()["components"]["schemas"]
    shown = schema["AnalysisResult_people"]["properties"]
    assert shown.keys() == {"persons", "count", "house"}
    assert shown["persons"]["items"]["properties"].keys() == {"age"}
    assert shown["house"]["properties"].keys() == {"size"}
    plugins = client.get("/api/plugins/people").get_json()
    assert "secret" not in json.dumps(plugins["analyzers"][0]["result_schema"])


def test_private_fields_may_have_other_keys_than_names(client):
    answer = client.get("/api/uploads?fields=analyses.hosts.allHosts.age")
    assert answer.status_code == 200, answer.text
    (hosts,) = [
        analyzer["result_schema"]
        for analyzer in client.get("/api/plugins/people").get_json()["analyzers"]
        if analyzer["name"] == "hosts"
    ]
    described = client.get("/openapi.json").get_json()["components"]["schemas"]
    for schema in (hosts, described["AnalysisResult_hosts"]):
        assert schema["properties"]["allHosts"]["items"]["properties"].keys() == {"age"}


def test_a_filter_of_the_plugin_may_use_a_private_field(client):
    found = client.get("/api/uploads?person=HIDDEN ann").get_json()
    assert found["total"] == 1
    assert "hidden" not in json.dumps(found)


def test_private_fields_stay_so_in_the_trash_and_without_their_plugin(workshop, client):
    path = workshop.folder / "plugins" / "people.py"
    source = path.read_text()
    path.unlink()
    try:
        without_plugin = create_app(workshop.settings).test_client()
        for asked in paths(workshop.upload_id)[:4]:
            answer = without_plugin.get(asked)
            assert answer.status_code == 200
            assert "hidden" not in answer.text
            assert '"age":30' in answer.text
    finally:
        path.write_text(source)
    assert client.delete(f"/api/uploads/{workshop.upload_id}").status_code in (200, 204)
    for asked in (
        f"/api/trash/{workshop.upload_id}",
        "/api/trash?fields=analyses.results",
    ):
        answer = client.get(asked)
        assert answer.status_code == 200
        assert "hidden" not in answer.text
        assert '"age":30' in answer.text
