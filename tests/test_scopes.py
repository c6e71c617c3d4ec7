"""Scopes: every operation of the OpenAPI document is tried with every scope."""

import re
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from clustr.api.http.access import needs_of, require_keys
from clustr.api.http.quotas import RequestQuotas
from clustr.api.http.request_context import EXTENSION
from clustr.domain.access import Scope, needs

PLUGIN = """
from flask.views import MethodView
from flask_smorest import Blueprint
from clustr.plugins import Scope, hookimpl, needs

@hookimpl
def clustr_register_blueprints(config, library):
    blueprint = Blueprint("gate", __name__, description="Gates")

    @blueprint.route("/silent", methods=["GET", "POST"])
    @blueprint.response(200)
    def silent():
        return {}

    @blueprint.route("/said", methods=["POST"])
    @needs("plugins:read")
    @blueprint.response(200)
    def said():
        return {}

    @blueprint.route("/open")
    @needs()
    @blueprint.response(200)
    def open_to_all():
        return {}

    @blueprint.route("/class")
    class OfClass(MethodView):
        @needs(Scope.ADMIN)
        @blueprint.response(200)
        def get(self):
            return {}

        @blueprint.response(200)
        def delete(self):
            return {}

        def options(self):
            return {}

    return [blueprint]
"""

OPEN = {"/", "/api/health/live", "/api/health/ready", "/api/x/gate/open"}
METHODS = ("get", "post", "put", "patch", "delete")


@pytest.fixture
def app(app_with: Callable[..., Flask], drop_in: Callable[..., Path]) -> Flask:
    folder = drop_in("") / "plugins"
    (folder / "gate.py").write_text(PLUGIN)
    return app_with(AUTH="keys", DEBUG_ENDPOINTS="true", PLUGINS_FOLDER=str(folder))


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    return app.test_client()


@pytest.fixture
def key_with(app: Flask) -> Callable[[Collection[str]], str]:
    """Makes a key with just these scopes, one for each set of them."""
    made: dict[str, str] = {}

    def key_with(scopes: Collection[str]) -> str:
        name = "-".join(sorted(scopes)).replace(":", "_")
        if name not in made:
            making = app.extensions[EXTENSION].key_making
            made[name] = making.create(f"key{len(made)}", scopes).text
        return made[name]

    return key_with


@pytest.fixture
def operations(client: FlaskClient) -> list[tuple[str, str, dict[str, Any]]]:
    paths = client.get("/openapi.json").json["paths"]
    return [
        (method, path, item[method])
        for path, item in paths.items()
        for method in METHODS
        if method in item
    ]


def call(client: FlaskClient, method: str, path: str, key: str | None) -> TestResponse:
    """Send a request that gets past the scopes, and no further than the first check of its body."""
    address = re.sub(r"{\w+}", "692192f4e13f5a0c4d1b7a90", path)
    return client.open(address, method=method, headers={"X-API-Key": key} if key else {})


def test_every_operation_is_for_the_scopes_that_the_document_says_and_for_no_other(
    client, operations, key_with
):
    assert len(operations) > 35
    for method, path, operation in operations:
        needed = operation["x-scopes"]
        for scope in Scope:
            answer = call(client, method, path, key_with([scope]))
            if scope in needed or not needed:
                assert answer.status_code not in (401, 403), (method, path, scope, answer.json)
            else:
                assert answer.status_code == 403, (method, path, scope)
                assert answer.json["missing_scopes"] == needed, (method, path)
        others = {*Scope} - {*needed}
        if needed and others:
            answer = call(client, method, path, key_with(others))
            assert answer.status_code == 403, (method, path)
            assert answer.json["missing_scopes"] == needed
            assert all(scope in answer.json["detail"] for scope in needed)


def test_only_what_says_nothing_of_uploads_is_there_without_a_key(client, operations):
    open_to_all = {path for _, path, operation in operations if not operation["x-scopes"]}
    assert open_to_all == {*OPEN, "/api/session"}  # Who logs in has no session yet.
    for method, path, operation in operations:
        answer = call(client, method, path, None)
        assert (answer.status_code == 401) == bool(operation["x-scopes"]), (method, path)


def test_the_document_says_how_a_key_is_sent_and_what_it_needs(client, operations):
    document = client.get("/openapi.json").json
    schemes = document["components"]["securitySchemes"]
    assert set(schemes) == {"bearer", "api_key", "session", "csrf_token"}
    for method, path, operation in operations:
        scopes = operation["x-scopes"]
        session = {"session": []} if method == "get" else {"session": [], "csrf_token": []}
        ways = [{"bearer": []}, {"api_key": []}, session]
        assert operation["security"] == (ways if scopes else []), (method, path)
        is_refused = bool(scopes) or operation["operationId"] == "log_in"
        assert ("401" in operation["responses"]) == is_refused, (method, path)
        assert ("403" in operation["responses"]) == is_refused, (method, path)
        if set(scopes) == set(Scope):
            assert "whichever scope" in operation["description"]
        else:
            assert all(f"`{scope}`" in operation["description"] for scope in scopes)


def test_a_document_without_keys_asks_for_none(app_with):
    document = app_with().test_client().get("/openapi.json").json
    for item in document["paths"].values():
        assert not any("security" in item.get(method, {}) for method in METHODS)
    assert document["paths"]["/api/upload"]["post"]["x-scopes"] == ["uploads:write"]


def test_what_changes_uploads_is_not_for_those_who_read(operations):
    asks_only = {"/api/uploads/exists", "/api/session"}
    for method, path, operation in operations:
        if method != "get" and path not in asks_only:
            assert "uploads:read" not in operation["x-scopes"], (method, path)
        if method == "delete" and path.startswith("/api/uploads"):
            removes_upload = "/shares" not in path  # Whoever may share may take that back.
            scope = "uploads:delete" if removes_upload else "uploads:write"
            assert operation["x-scopes"] == [scope]


def test_routes_of_plugins_say_theirs_or_have_that_of_their_method(operations):
    found = {(m, p.removeprefix("/api/x/gate/")): o["x-scopes"] for m, p, o in operations}
    assert found["get", "silent"] == ["uploads:read"]
    assert found["post", "silent"] == ["uploads:write"]
    assert found["post", "said"] == ["plugins:read"]
    assert found["get", "class"] == ["admin"]
    assert found["delete", "class"] == ["uploads:write"]


def test_head_is_for_whom_get_is_for(app, client, key_with):
    reader = {"X-API-Key": key_with(["uploads:read"])}
    assert client.head("/api/uploads", headers=reader).status_code == 200
    assert client.head("/api/x/gate/class", headers=reader).status_code == 403
    for rule in app.url_map.iter_rules():
        if {"GET", "HEAD"} <= rule.methods:
            assert needs_of(app, rule, "HEAD") == needs_of(app, rule, "GET"), rule


def test_a_plugin_that_answers_options_itself_is_not_open_by_that(client):
    assert client.options("/api/x/gate/class").status_code == 401
    assert client.options("/api/x/gate/silent").status_code == 200


def test_the_readme_says_what_each_scope_is_for():
    readme = (Path(__file__).parent.parent / "README.md").read_text()
    for scope in Scope:
        assert f"| `{scope}` | {scope.meaning} |" in readme


def test_a_scope_that_is_none_is_refused_by_its_name():
    with pytest.raises(ValueError, match=r"no scope uploads:raed; there are uploads:read, "):
        needs("uploads:raed")


def routes(app: Flask) -> Iterator[tuple[Any, str]]:
    for rule in app.url_map.iter_rules():
        for method in rule.methods or ():
            yield rule, method


def test_every_route_says_beside_it_which_scope_it_needs(app_with):
    app = app_with(DEBUG_ENDPOINTS="true")
    for rule, method in routes(app):
        needs_of(app, rule, method)
    app.add_url_rule("/bare", view_func=lambda: "")
    found = app.extensions[EXTENSION]
    with pytest.raises(LookupError, match="/bare does not say which scope it needs"):
        require_keys(app, found.authentication, RequestQuotas(found.quotas, None), "")
