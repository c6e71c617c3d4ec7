"""Query parameters of plugins' routes: those that are not declared are refused."""

from collections.abc import Iterator

import pytest
from flask.testing import FlaskClient
from running import Servers
from workshop import Workshop

ROUTES = '''
from flask import request
from flask.views import MethodView
from flask_smorest import Blueprint
from marshmallow import INCLUDE, Schema, fields
from clustr.plugins import hookimpl

class Query(Schema):
    distance = fields.Integer(load_default=3)
    like_this = fields.String(data_key="like")

class More(Schema):
    limit = fields.Integer()

class Anything(Schema):
    limit = fields.Integer()
    class Meta:
        unknown = INCLUDE

@hookimpl
def clustr_register_blueprints(config, library):
    blueprint = Blueprint("asked", __name__)

    @blueprint.route("/one")
    @blueprint.arguments(Query, location="query")
    @blueprint.response(200)
    def one(query):
        """Say what was asked"""
        return query

    @blueprint.route("/two")
    @blueprint.arguments(Query, location="query")
    @blueprint.arguments(More, location="query")
    @blueprint.response(200)
    def two(query, more):
        """Say what was asked by two schemas"""
        return {**query, **more}

    @blueprint.route("/class")
    class View(MethodView):
        @blueprint.arguments(More, location="query")
        @blueprint.response(200)
        def get(self, query):
            """Say what was asked of a class"""
            return query

        @blueprint.response(200)
        def post(self):
            """Declare nothing"""
            return {"any": len(request.args)}

    @blueprint.route("/anything")
    @blueprint.arguments(Anything, location="query", unknown=INCLUDE)
    @blueprint.response(200)
    def anything(query):
        """Say all that was asked"""
        return query

    return [blueprint]
'''


@pytest.fixture(scope="module")
def client(servers: Servers, tmp_path_factory: pytest.TempPathFactory) -> Iterator[FlaskClient]:
    with Workshop(tmp_path_factory.mktemp("asked"), servers) as workshop:
        workshop.write("asked", ROUTES)
        yield workshop.app.test_client()


@pytest.mark.parametrize(
    ("asked", "answered"),
    [
        ("one?like=x", {"distance": 3, "like_this": "x"}),
        ("two?distance=1&limit=2", {"distance": 1, "limit": 2}),
        ("class?limit=4", {"limit": 4}),
        ("anything?limit=4&other=5", {"limit": 4, "other": "5"}),
    ],
)
def test_declared_parameters_are_read(client, asked, answered):
    answer = client.get(f"/api/x/asked/{asked}")
    assert (answer.status_code, answer.get_json()) == (200, answered)


@pytest.mark.parametrize(
    ("asked", "name", "says"),
    [
        ("one?distanze=4", "distanze", "unknown parameter distanze; did you mean distance?"),
        ("one?like_this=x", "like_this", "did you mean like?"),
        ("two?limits=4&distance=1", "limits", "did you mean limit?"),
        ("class?q=4", "q", "there are limit"),
    ],
)
def test_other_parameters_are_refused(client, asked, name, says):
    answer = client.get(f"/api/x/asked/{asked}")
    assert answer.status_code == 422
    errors = answer.get_json()["errors"]
    assert list(errors) == [name]
    assert says in errors[name][0]


def test_a_route_that_declares_none_gets_all(client):
    assert client.post("/api/x/asked/class?a=1&b=2").get_json() == {"any": 2}
