"""The analyses of one upload, which can be run again."""

import pytest
from editing import get, run_again, work
from running import wait_until
from workshop import Workshop

from clustr.api.schemas.analyses import AnalysisSchema
from clustr.domain.models import UNFINISHED


@pytest.fixture
def workshop(saying_workshop: Workshop) -> Workshop:
    return saying_workshop


def test_the_analyses_of_one_upload(workshop, upload_id):
    listed = get(workshop, f"/api/uploads/{upload_id}/analyses").json["data"]
    one = get(workshop, f"/api/uploads/{upload_id}/analyses/says").json
    assert listed == {"says": one}
    assert not AnalysisSchema().validate(one)
    assert one["result"] == {"caption": "a cat", "tags": ["cat", "sofa"]}
    assert get(workshop, f"/api/uploads/{upload_id}/analyses/other").status_code == 404
    assert get(workshop, f"/api/uploads/{'0' * 24}/analyses").status_code == 404
    assert get(workshop, f"/api/uploads/{'0' * 24}/analyses/says").status_code == 404
    assert get(workshop, "/api/uploads/none/analyses").status_code == 404


def test_an_analysis_is_run_again(workshop, upload_id):
    (workshop.folder / "said").write_text('{"caption": "a dog", "tags": []}')
    answer = run_again(workshop, upload_id)
    assert answer.status_code == 202, answer.text
    assert answer.headers["Location"] == f"/api/uploads/{upload_id}/analyses/says"
    assert answer.json["status"] == "queued"
    assert answer.json["result"]["caption"] == "a cat"  # until there is a newer one
    stored = workshop.stored(upload_id, "says")
    assert (stored["priority"], stored.get("job")) == (0, None)
    assert run_again(workshop, upload_id).status_code == 409
    wait_until(lambda: workshop.redis.exists(workshop.key("bell:says")), 60, "the bell")
    work(workshop)
    one = get(workshop, answer.headers["Location"]).json
    assert (one["status"], one["result"]["caption"]) == ("succeeded", "a dog")
    assert workshop.get(upload_id).caption == "a dog"


def test_it_is_refused_where_nothing_can_be_run(workshop, upload_id):
    unknown = run_again(workshop, upload_id, "sayss")
    assert unknown.status_code == 404
    assert unknown.json["detail"] == "Unknown analyzer sayss; did you mean says?"
    assert run_again(workshop, "0" * 24).status_code == 404
    assert run_again(workshop, "none").status_code == 404


def test_an_analyzer_that_came_later_looks_at_one_upload(own_workshop):
    (upload_id,) = own_workshop.upload()
    own_workshop.analyzer("late", 'return {"n": 1}')
    own_workshop.renew()
    assert run_again(own_workshop, upload_id, "late").status_code == 202
    assert own_workshop.state_of(upload_id, "late") in UNFINISHED
    assert own_workshop.horse("late", "run").process.wait(60) == 0
    assert own_workshop.end_of(upload_id, "late").result == {"n": 1}
