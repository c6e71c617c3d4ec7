"""What is asked is written as what is stored: in NFC, and without spaces around it."""

import unicodedata
from collections.abc import Iterator
from typing import Any

import photographs
import pytest
from flask.testing import FlaskClient
from running import Servers
from workshop import Workshop

COMPOSED = "Café de Zürich"
DECOMPOSED = unicodedata.normalize("NFD", COMPOSED)

FILTERED = """
@hookimpl
def clustr_register_filters(config):
    return [Filter(analyzer="labels", field="label", type=fields.String())]
"""


@pytest.fixture(scope="module")
def workshop(servers: Servers, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workshop]:
    with Workshop(tmp_path_factory.mktemp("asked"), servers) as workshop:
        workshop.analyzer("labels", "return {'label': 'Café'}")
        path = workshop.folder / "plugins" / "labels.py"
        path.write_text(path.read_text() + FILTERED)
        workshop.upload(photographs.photograph())
        assert workshop.horse("labels", "run").process.wait(60) == 0
        yield workshop


@pytest.fixture(scope="module")
def client(workshop: Workshop) -> FlaskClient:
    client = workshop.app.test_client()
    upload_id = client.get("/api/uploads").get_json()["data"][0]["id"]
    said = {"tags": {"set": [f"  {DECOMPOSED} "]}, "caption": DECOMPOSED}
    assert client.patch(f"/api/uploads/{upload_id}", json=said).status_code == 200
    return client


@pytest.mark.parametrize("written", [COMPOSED, DECOMPOSED, f"  {DECOMPOSED}\n"])
def test_filters_find_what_is_asked_in_another_form(client, written):
    def found(**query: Any) -> int:
        answer = client.get("/api/uploads", query_string=query)
        assert answer.status_code == 200, answer.text
        return answer.get_json()["total"]

    label = written.split()[0]
    assert found(tag=written) == found(q=written) == found(q=f'"{written}"') == 1
    assert found(**{"analyses.labels.label": label}) == 1
    assert found(**{"analyses.labels.label": f" {label} "}) == 1
    assert found(**{"analyses.labels.label": label.lower()}) == 1
    assert found(**{"analyses.labels.label": "cafe"}) == 0
    assert found(analyzer=" labels ", analysis_status="succeeded") == 1
    body = {"action": "delete", "filter": {"tag": [written]}, "dry_run": True}
    assert client.post("/api/uploads/bulk", json=body).get_json() == {"matched": 1}


def test_hashes_are_asked_in_any_case(client):
    upload = client.get("/api/uploads").get_json()["data"][0]
    for written in (upload["sha256"], upload["sha256"].upper(), f" {upload['sha256']} "):
        answer = client.post("/api/uploads/exists", json={"sha256": [written]})
        assert answer.get_json() == {"data": {upload["sha256"]: upload["id"]}}


def test_what_is_nothing_but_spaces_is_refused(client):
    assert list(client.get("/api/uploads?tag=%20").get_json()["errors"]) == ["tag.0"]
    assert list(client.get("/api/uploads?q=%20%20").get_json()["errors"]) == ["q"]
