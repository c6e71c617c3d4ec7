"""Where the services of analyzers are, and where plugins fail: the scope `admin` is told."""

from collections.abc import Callable, Iterator

import pytest
from flask.testing import FlaskClient
from jobs import engine, job_of, queue_all, run_until
from test_keys import bearer
from workshop import Workshop, plugin

from clustr.api.http.request_context import EXTENSION
from clustr.app import create_app
from clustr.settings import read_settings

ADDRESS = "http://captions.internal:8001"
ANALYZE = f"""def analyze(self, image, context):
    raise ValueError("nothing at {ADDRESS}/caption (CAPTIONS_URL)")"""
HEALTH = f"""def health(self, context):
    return Health("captions", False, "Nothing at {ADDRESS}.", url="{ADDRESS}")"""


@pytest.fixture
def client_with(workshop: Workshop) -> Iterator[Callable[..., FlaskClient]]:
    """Makes a client with a key of these scopes."""
    app = create_app(read_settings({**workshop.environment, "AUTH": "keys"}))

    def client_with(*scopes: str) -> FlaskClient:
        name = scopes[0].replace(":", "-")
        client = app.test_client()
        key = app.extensions[EXTENSION].key_making.create(name, scopes)
        client.environ_base["HTTP_AUTHORIZATION"] = bearer(key.text)["Authorization"]
        return client

    yield client_with
    app.extensions[EXTENSION].database.close()


@pytest.fixture
def failed_upload(workshop: Workshop) -> str:
    """An upload whose analysis `it` has failed."""
    workshop.write("it", plugin("it", ANALYZE, HEALTH, "max_attempts = 1"))
    workshop.renew()
    [one] = workshop.upload()
    workshop.analyze("it")
    return one


def test_only_the_scope_admin_is_told_where_services_are(failed_upload, client_with):
    operator, other = client_with("admin", "uploads:read"), client_with("uploads:read")
    analysis = f"/api/uploads/{failed_upload}/analyses/it"
    uploads = "/api/uploads", f"/api/uploads?ids={failed_upload}", f"/api/uploads/{failed_upload}"
    for path in ("/api/health", "/api/health/captions", "/api/health/page", analysis, *uploads):
        assert ADDRESS in operator.get(path).text, path
        shown = other.get(path)
        assert shown.status_code == 200
        assert "captions.internal" not in shown.text, path
    assert "at [hidden] (CAPTIONS_URL)" in other.get(analysis).json["error"]
    trace = operator.get(f"{analysis}/traceback").json["traceback"]
    assert "raise ValueError" in trace
    assert other.get(f"{analysis}/traceback").status_code == 403
    unfinished = operator.get(f"/api/uploads/{failed_upload}/analyses/none/traceback")
    assert unfinished.status_code == 404


@pytest.fixture
def broken_plugin(workshop: Workshop) -> None:
    workshop.write("broken", f"raise ValueError('nothing at {ADDRESS}')")


def test_jobs_and_errors_tell_no_others(failed_upload, broken_plugin, workshop, client_with):
    operator = client_with("admin", "uploads:read", "analyses:run")
    other = client_with("uploads:read")
    with engine(workshop) as runner:
        order = {"analyzer": "it", "select": "failed"}
        job = operator.post("/api/analyses", json=order).json["id"]
        queue_all(workshop, runner, job)
        workshop.analyze("it")
        run_until(runner, lambda: job_of(workshop, job).ended)
    for path in (f"/api/jobs/{job}", "/api/x/broken/any", "/api/uploads?analyses.broken.any=1"):
        assert ADDRESS in operator.get(path).text, path
        assert "captions.internal" not in other.get(path).text, path
