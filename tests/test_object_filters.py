"""Filters of plugins with names, of lists and of lists of objects."""

import json
import re
from collections.abc import Iterator
from typing import Any

import photographs
import pytest
from flask.testing import FlaskClient
from jobs import end_of
from openapi_spec_validator import validate
from running import Servers
from workshop import Workshop, another

from clustr.api.schemas.filters import FilterSchema
from clustr.api.schemas.listing import UploadQuerySchema
from clustr.api.schemas.similar import PARAMETERS as SIMILAR_PARAMETERS
from clustr.api.schemas.timeline import PARAMETERS as TIMELINE_PARAMETERS
from clustr.database.case_folding import spellings
from clustr.plugins.filters import CORE_PARAMETERS

OBJECTS = """
from marshmallow import Schema, fields, validate
from clustr.plugins import Analyzer, Filter, hookimpl

class Thing(Schema):
    label = fields.String(required=True)
    score = fields.Float(required=True)
    moving = fields.Boolean()

class ObjectsResult(Schema):
    things = fields.List(fields.Nested(Thing), required=True)
    place = fields.String()
    colors = fields.List(fields.String())

class Objects(Analyzer):
    name = "objects"
    result_schema = ObjectsResult

    def analyze(self, image, context):
        return {"things": [], "place": "Garden", "colors": []}

@hookimpl
def clustr_register_analyzers(config):
    return [Objects()]

@hookimpl
def clustr_register_filters(config):
    kinds = {"label": fields.String(), "score": fields.Float(), "moving": fields.Boolean()}
    color = fields.String(validate=validate.OneOf(["Red", "Blue", "Green"]))
    return [
        Filter(analyzer="objects", field="things", type=kinds, name="objects", indexed=True,
               title="Things", summary="Things in the picture"),
        Filter(analyzer="objects", field="things.score", type=fields.Float(), operators=("gte",),
               name="min_score", title="At least so sure", indexed=True),
        Filter(analyzer="objects", field="place", type=fields.String(), operators=("eq", "ne"),
               indexed=True),
        Filter(analyzer="objects", field="place", type=fields.String(), operators=("in",),
               name="places", internal=True),
        Filter(analyzer="objects", field="colors", type=color, name="color"),
        Filter(analyzer="objects", field="colors", type=color, operators=("in", "ne")),
    ]
"""
CROWD = 5000
# Results by the name of the upload.
RESULTS: dict[str, dict[str, Any]] = {
    "car beside dog": {
        "things": [{"label": "car", "score": 0.967}, {"label": "dog", "score": 0.74}],
        "place": "STRASSE",
        "colors": ["Red"],
    },
    "surely a dog": {
        "things": [{"label": "Dog", "score": 0.98, "moving": True}],
        "place": "Straße",
        "colors": ["Red", "Blue"],
    },
    "two": {
        "things": [
            {"label": "person", "score": 0.9, "moving": False},
            {"label": "traffic light, red", "score": 0.5},
        ],
        "place": "Ölberg",
        "colors": ["Green"],
    },
    "nothing": {"things": [], "place": "strass", "colors": []},
}


@pytest.fixture(scope="module")
def workshop(servers: Servers, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workshop]:
    """An installation whose uploads have the results above."""
    with Workshop(tmp_path_factory.mktemp("objects"), servers) as workshop:
        workshop.write("objects", OBJECTS)
        (upload_id,) = workshop.upload(photographs.photograph())
        assert workshop.horse("objects", "run").process.wait(60) == 0
        assert workshop.state_of(upload_id, "objects") == "succeeded"
        pattern = workshop.collection.find_one_and_delete({})
        workshop.collection.insert_many(
            another(
                pattern,
                original_name=name,
                analyses=[pattern["analyses"][0] | {"result": result}],
            )
            for name, result in RESULTS.items()
        )
        yield workshop


@pytest.fixture
def client(workshop: Workshop) -> FlaskClient:
    return workshop.app.test_client()


def names(client: FlaskClient, *parameters: tuple[str, str]) -> set[str]:
    answer = client.get("/api/uploads", query_string=[*parameters])
    assert answer.status_code == 200, answer.text
    return {upload["original_name"] for upload in answer.get_json()["data"]}


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ("dog", {"car beside dog", "surely a dog"}),
        ("dog,score>=0.9", {"surely a dog"}),
        ("label=DOG,score>=0.9", {"surely a dog"}),
        ("score>0.7,score<0.8", {"car beside dog"}),
        ("score=0.967", {"car beside dog"}),
        ("dog|person,score>=0.9", {"surely a dog", "two"}),
        ("label!=dog|car", {"two"}),
        ("label!=dog,score>=0.95", {"car beside dog"}),
        ("moving=true", {"surely a dog"}),
        ("person , moving=false", {"two"}),
        ('"Traffic light, red"', {"two"}),
        ('label="traffic light, red"|dog,score<=0.74', {"two", "car beside dog"}),
        ("label!=dog,label!=car", {"two"}),
        ("score>=0,label=9", set()),
        ("cat", set()),
    ],
)
def test_one_object_meets_all_conditions(client, asked, found):
    assert names(client, ("objects", asked)) == found
    assert names(client, ("analyses.objects.things", asked)) == found
    order = {"action": "delete", "dry_run": True}
    for filter in ({"objects": asked}, {"analyses": {"objects.things": [asked]}}):
        answer = client.post("/api/uploads/bulk", json={**order, "filter": filter})
        assert answer.get_json() == {"matched": len(found)}


def test_what_is_given_several_times_is_met_by_all(client):
    assert names(client, ("objects", "dog"), ("objects", "car")) == {"car beside dog"}
    assert names(client, ("objects", "dog"), ("objects", "car,score<0.9")) == set()
    assert names(client, ("color", "Red"), ("color", "Blue")) == {"surely a dog"}
    ne = "analyses.objects.colors__ne"
    assert names(client, (ne, "red"), (ne, "green")) == {"nothing"}
    assert names(client, ("objects", "dog"), ("color", "blue"), ("min_score", "0.9")) == {
        "surely a dog"
    }


def test_one_of_several_values_will_do(client):
    colors = "analyses.objects.colors__in"
    assert names(client, (colors, "blue,GREEN")) == {"surely a dog", "two"}
    assert names(client, ("places", "strasse,nowhere")) == {"car beside dog", "surely a dog"}
    assert names(client, ("places", "nowhere")) == set()


@pytest.mark.parametrize("place", ["strasse", "STRASSE", "Straße", " straSSe "])
def test_texts_are_compared_whatever_the_case_of_letters(client, place):
    found = {"car beside dog", "surely a dog"}
    assert names(client, ("analyses.objects.place", place)) == found
    assert names(client, ("analyses.objects.place__ne", place)) == {"two", "nothing"}


@pytest.mark.parametrize(
    ("asked", "stored"),
    [
        ("iphone", "iPhone"),
        ("traffic light", "Traffic Light"),
        ("traffic light", "TRAFFIC light"),
        ("ΟΔΟΣ", "οδος"),
        ("straße", "STRASSE"),
        ("POWERSHOT CAMERA of mine", "Powershot camera of Mine"),
        ("PowerShotCamera", "PowerShotCamera"),
        ("Ärger", "ärger"),
    ],
)
def test_spellings_of_a_text(asked, stored):
    assert stored in spellings(asked)
    assert len(spellings(asked)) <= 200


def test_marks_on_letters_count(client):
    assert names(client, ("analyses.objects.place", "öLBERG")) == {"two"}
    assert names(client, ("analyses.objects.place", "olberg")) == set()
    assert names(client, ("analyses.objects.place", "strasse.*")) == set()


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        (
            "objects",
            "dgo,scoer>=0.9",
            ["There is no key `scoer`; there are `label`, `score`, `moving`."],
        ),
        ("objects", "color=red", ["There is no key `color`"]),
        (
            "objects",
            "dog,score>=much",
            ["score: Not a valid number. Expected a number, such as 0.5."],
        ),
        (
            "objects",
            "dog,car",
            ["`label` is asked twice of one object", "Write `dog|car` for either"],
        ),
        ("objects", "dog|cat,score>0.5,label=car", ["Write `dog|cat|car` for either"]),
        ("objects", "score=0.5,score=0.6", ["`score` is asked twice of one object"]),
        (
            "objects",
            "dog,score>=0,9",
            ["Write `score>=0.9` for `score>=0,9`", "Or write `label=9`."],
        ),
        ("objects", "score < 0,95", ["Write `score < 0.95` for `score < 0,95`"]),
        ("objects", "dog,,score>=1", ["Cannot read `,score>=1`", "`label=…,score>=0.9`"]),
        ("objects", "dog,", ["missing at the end"]),
        ("objects", "", ["missing at the end", "`label`, `score`, `moving`"]),
        ("objects", "dog score==1", ["Cannot read"]),
        ("objects", 'label="dog', ["Cannot read", "double quotes"]),
        ("objects", "label>=dog", ["`label` can be compared with =, !=."]),
        ("objects", "score>=1|2", ["Give one value for `score>=`."]),
        ("objects", "|".join("abcdefghijklmnopqrstuvw"), ["at most 20"]),
        ("min_score", "sure", ["Not a valid number."]),
        ("color", "pink", ["Must be one of: Red, Blue, Green."]),
        ("analyses.objects.colors__in", "red,pink", ["Must be one of: Red, Blue, Green."]),
        ("objekts", "dog", ["did you mean `objects`?"]),
        ("analyses.objects.place__gt", "a", ["`eq`, `ne`, `in`"]),
    ],
)
def test_errors_name_what_is_wrong_and_what_is_allowed(client, name, value, says):
    answer = client.get("/api/uploads", query_string={name: value})
    assert answer.status_code == 422, answer.text
    errors = answer.get_json()["errors"]
    assert list(errors) == [name]
    for part in says:
        assert part in errors[name][0]


@pytest.mark.parametrize(
    ("filter", "path", "says"),
    [
        ({"objects": "dog,score>=much"}, "objects", "score: Not a valid number."),
        ({"objects": ["dog", "dog,car"]}, "objects", "`label` is asked twice of one object"),
        ({"objects": 7}, "objects", "Not a valid string."),
        ({"min_score": "0.5"}, "min_score", "Not a valid number."),
        ({"color": ["Red"] * 21}, "color", "Length must be between 1 and 20."),
        ({"min_skore": 1}, "min_skore", "unknown field min_skore; did you mean min_score?"),
        ({"analyses": {"min_score": 1}}, "analyses.min_score", "There is no parameter"),
        ({"analyses.objects.place": "x"}, "analyses.objects.place", "unknown field"),
    ],
)
def test_what_is_wrong_with_a_filter_of_a_job_is_named(client, filter, path, says):
    body = {"action": "delete", "filter": filter, "dry_run": True}
    answer = client.post("/api/uploads/bulk", json=body)
    assert answer.status_code == 422, answer.text
    errors = answer.get_json()["errors"]
    assert list(errors) == [f"filter.{path}"]
    assert says in errors[f"filter.{path}"][0]


def test_a_job_shows_its_filters_as_they_were_given(workshop, client):
    filter = {
        "objects": ["dog", "car"],
        "color": "red",
        "analyses": {"objects.place__in": ["strasse", "elsewhere"]},
    }
    body = {"action": "tag", "tags": ["found"], "filter": filter}
    job = client.post("/api/uploads/bulk", json=body).get_json()
    assert job["parameters"]["filter"] == filter
    worker = workshop.worker()
    ended = end_of(workshop, job["id"])
    worker.stop()
    assert ended.counts["succeeded"] == 1
    shown = client.get(f"/api/jobs/{job['id']}").get_json()
    assert shown["parameters"]["filter"] == filter
    assert names(client, ("tag", "found")) == {"car beside dog"}


def test_the_document_describes_names_titles_and_what_is_internal(client):
    document = client.get("/openapi.json").get_json()
    validate(document)
    listed = document["paths"]["/api/uploads"]["get"]["parameters"]
    parameters = {each["name"]: each for each in listed}
    about = {"analyzer": "objects", "field": "things"}
    named = parameters["objects"]
    assert named["schema"]["type"] == "array"
    assert named["schema"]["title"] == "Things"
    assert named["explode"] is True
    assert named["x-clustr-filter"] == {**about, "operator": "element"}
    assert "`label`, `score`, `moving`" in named["description"]
    assert parameters["min_score"]["schema"]["title"] == "At least so sure"
    assert parameters["min_score"]["schema"]["type"] == "number"
    assert parameters["places"]["x-internal"] is True
    assert parameters["places"]["explode"] is False
    assert "x-internal" not in parameters["color"]
    colors = parameters["color"]["schema"]["items"]["$ref"].rpartition("/")[2]
    assert document["components"]["schemas"][colors]["enum"] == ["Red", "Blue", "Green"]
    of_jobs = document["components"]["schemas"]["Filter"]
    assert of_jobs["additionalProperties"] is False
    assert of_jobs["properties"]["min_score"]["type"] == "number"
    assert of_jobs["properties"]["color"]["oneOf"][1]["type"] == "array"


def test_no_filter_can_have_the_name_of_a_parameter_of_the_core():
    queries = {field.data_key or name for name, field in UploadQuerySchema().fields.items()}
    others = {*FilterSchema().fields, *SIMILAR_PARAMETERS, *TIMELINE_PARAMETERS}
    assert queries | others == CORE_PARAMETERS


def test_the_pattern_of_the_document_is_what_is_understood(client):
    document = client.get("/openapi.json").get_json()
    (described,) = (
        each
        for each in document["paths"]["/api/uploads"]["get"]["parameters"]
        if each["name"] == "objects"
    )
    pattern = re.compile(described["schema"]["items"]["pattern"])
    for fine in ("dog", "dog,score>=0.9", 'label="a, b"|dog,score<1', "label!=dog|car"):
        assert pattern.match(fine), fine
    for wrong in ("dog,", "", "scoer>=1", "score==1", 'label="dog', "|dog"):
        assert not pattern.match(wrong), wrong


@pytest.fixture(scope="module")
def crowd(workshop: Workshop) -> Iterator[None]:
    """So many uploads with dogs and cars that looking at each of them takes a while."""
    pattern = workshop.collection.find_one({})
    of = {"name": "objects", "state": "succeeded", "version": 1, "attempts": 1}

    def result(n: int) -> dict[str, Any]:
        things = [{"label": "dog", "score": n / CROWD}, {"label": "car", "score": 1 - n / CROWD}]
        place = "Botanical garden" if n % 2 else f"Place {n}"
        return {"things": things, "place": place, "colors": []}

    workshop.collection.insert_many(
        another(pattern, request_id="crowd", analyses=[of | {"result": result(n)}])
        for n in range(CROWD)
    )
    yield
    workshop.collection.delete_many({"request_id": "crowd"})


def test_a_page_of_many_that_match_is_read_in_the_order_of_the_index(workshop, client, crowd):
    workshop.collection.database.command("profile", 2)
    try:
        asked = {"analyses.objects.place": "botanical GARDEN", "limit": 20}
        answer = client.get("/api/uploads", query_string=asked).get_json()
        assert len(answer["data"]) == 20
    finally:
        workshop.collection.database.command("profile", 0)
    profile = workshop.collection.database["system.profile"]
    entry = profile.find_one({"op": "query", "command.limit": 21})
    profile.drop()
    assert entry["docsExamined"] <= 30
    assert not entry.get("hasSortStage")


@pytest.mark.parametrize(
    ("query", "found"),
    [({"objects": "Dog,score>=0.998"}, 10), ({"analyses.objects.place": "PLACE 1234"}, 1)],
)
def test_only_what_matches_is_looked_at(workshop, client, crowd, query, found):
    workshop.collection.database.command("profile", 2)
    try:
        answer = client.get("/api/uploads", query_string={**query, "limit": 100}).get_json()
        assert answer["total"] == len(answer["data"]) == found
    finally:
        workshop.collection.database.command("profile", 0)
    profile = workshop.collection.database["system.profile"]
    entry = profile.find_one({"op": "query"}, sort=[("ts", -1)])
    profile.drop()
    assert entry["docsExamined"] <= found + 10, json.dumps(entry, default=str)
    assert entry["keysExamined"] <= 3 * found + 100


@pytest.mark.parametrize(
    ("asked", "most"),
    [
        ({"objects": "dog"}, 21),
        ({"objects": "dog,score>=0.5"}, 21),
        ({"objects": ["dog,score>=0.5", "car,score<0.1"]}, 21),
        ({"objects": "dog,score<0.01"}, 50),  # The oldest, all of which match.
        ({"objects": "label!=dog|car"}, 2),
    ],
)
def test_a_page_of_objects_looks_at_few_uploads_however_many_there_are(
    workshop, client, crowd, asked, most
):
    workshop.collection.database.command("profile", 2)
    try:
        answer = client.get("/api/uploads", query_string={**asked, "limit": 20})
        assert answer.status_code == 200
    finally:
        workshop.collection.database.command("profile", 0)
    profile = workshop.collection.database["system.profile"]
    entry = profile.find_one({"op": "query", "command.limit": 21})
    profile.drop()
    assert entry["docsExamined"] <= most


def test_many_that_are_not_among_the_newest_are_refused(workshop, client, crowd, monkeypatch):
    """A search that takes too long looks at a number of uploads, by each of two indexes."""
    monkeypatch.setattr("clustr.database.listing.SEARCH_SECONDS", 1e-6)
    monkeypatch.setattr("clustr.database.listing.MAX_EXAMINED", 1000)
    few = client.get("/api/uploads", query_string={"objects": "dog,score<0.01"})
    assert few.get_json()["total"] == 50
    newest = client.get("/api/uploads", query_string={"objects": "dog,score>=0.5"})
    assert len(newest.get_json()["data"]) == 20
    assert newest.get_json()["total"] is None
    refused = client.get("/api/uploads", query_string={"objects": "dog,score<0.5"})
    assert refused.status_code == 422
    errors = refused.get_json()["errors"]
    assert list(errors) == ["objects"]
    assert "narrow it down with a range" in errors["objects"][0]
    narrowed = {"objects": "dog,score<0.5", "uploaded_before": "2001-01-01T00:00:00Z"}
    assert client.get("/api/uploads", query_string=narrowed).get_json()["total"] == 0
