"""What a plugin's blueprint does around its views, and after them, harms nobody else."""

import io
from collections import Counter

import photographs
import pytest
from plugin_sources import HEAD
from test_keys import bearer

from clustr.api.http.request_context import EXTENSION
from clustr.supervisor import web_process

SOURCE = """
import sys
from flask import Response, abort, request
from flask_smorest import Blueprint

@hookimpl
def clustr_register_blueprints(config, library):
    blueprint = Blueprint("routes", "routes")

    @blueprint.before_request
    def before():
        if request.path.endswith("exit"):
            sys.exit()

    @blueprint.after_request
    def after(response):
        response.headers["X-Count"] = str(len(response.get_json()["data"]))
        if request.path.endswith("nothing"):
            return None
        return response

    @blueprint.teardown_request
    def teardown(error):
        raise KeyError("teardown")

    @blueprint.errorhandler(418)
    def refused(error):
        sys.exit()

    @blueprint.route("/data/<how>")
    def data(how):
        if how == "refused":
            abort(418)
        return {"data": [1, 2], "how": how} if how != "wrong" else {}

    @blueprint.route("/names")
    def names():
        return Response((upload.original_name for upload in library.walk()), mimetype="text/plain")

    return [blueprint]
"""


@pytest.fixture
def app(app_with, tmp_path):
    (tmp_path / "plugins").mkdir()
    (tmp_path / "plugins" / "looks.py").write_text(HEAD + SOURCE)
    return app_with(AUTH="keys", LOG_FORMAT="json")


@pytest.fixture
def headers_of(app):
    """Makes the headers with a key of this name."""

    def headers_of(name: str, *scopes: str) -> dict[str, str]:
        return bearer(app.extensions[EXTENSION].key_making.create(name, scopes).text)

    return headers_of


def test_functions_around_views_fail_their_request_at_most(app, headers_of, caplog):
    client, headers = app.test_client(), headers_of("looker", "uploads:read")
    web_process.set_threads(2)  # so that a key has one place in this process
    try:
        for how, status, count in (
            ("fine", 200, "2"),
            ("wrong", 200, None),  # what fails after a request leaves the response
            ("nothing", 200, "2"),
            ("refused", 500, None),
            ("exit", 500, None),
        ):
            answer = client.get(f"/api/x/looks/data/{how}", headers=headers)
            assert (answer.status_code, answer.headers.get("X-Count")) == (status, count), how
            assert "X-Request-ID" in answer.headers
            assert client.get("/api/limits", headers=headers).status_code == 200
    finally:
        web_process.set_threads(web_process.DEFAULT_THREADS)
    logged = [record.msg for record in caplog.records if isinstance(record.msg, dict)]
    raised = [line for line in logged if line["event"] == "view_raised"]
    assert {line["plugin"] for line in raised} == {"looks"}
    reasons = Counter(line["reason"].partition(" (looks.py")[0] for line in raised)
    assert reasons["KeyError: 'teardown'"] == 5
    assert reasons["KeyError: 'data'"] == 3  # of "wrong" and of both problem documents
    assert reasons["TypeError: after returned no response"] == 1
    assert reasons["SystemExit"] == 2


def test_what_is_streamed_has_the_uploads_of_the_key_alone(app, headers_of):
    client = app.test_client()
    for name in ("alice", "bob"):
        headers = headers_of(name, "own", "uploads:read", "uploads:write")
        files = {"files": (io.BytesIO(photographs.photograph()), f"{name}.jpg")}
        assert client.post("/api/upload", data=files, headers=headers).status_code == 201
    assert client.get("/api/x/looks/names", headers=headers).text == "bob.jpg"
    everybody = headers_of("reader", "uploads:read")
    assert client.get("/api/x/looks/names", headers=everybody).text == "alice.jpgbob.jpg"
