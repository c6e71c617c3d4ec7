"""Editing in tests: what humans say of an upload, and what an analyzer says."""

from typing import Any

from running import moment
from workshop import Workshop

from clustr.api.schemas.uploads import UploadSchema

SAYS = """
import json
return json.loads(Path({said!r}).read_text())
"""


def work(workshop: Workshop) -> None:
    """Do what is queued, in a process of its own."""
    assert workshop.horse("says", "run").process.wait(60) == 0


def say(workshop: Workshop, text: str) -> None:
    """Let the analyzer say something else of every upload."""
    (workshop.folder / "said").write_text(text)
    for upload in workshop.collection.find():
        assert run_again(workshop, str(upload["_id"])).status_code == 202
    work(workshop)


def edit(workshop: Workshop, upload_id: str, body: Any, **headers: str) -> Any:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    path = f"/api/uploads/{upload_id}"
    return workshop.app.test_client().patch(path, json=body, headers=named)


def edited(workshop: Workshop, upload_id: str, **words: Any) -> Any:
    answer = edit(workshop, upload_id, words)
    assert answer.status_code == 200, answer.text
    assert not UploadSchema().validate(answer.json)
    return answer.json


def get(workshop: Workshop, path: str) -> Any:
    return workshop.app.test_client().get(path)


def run_again(workshop: Workshop, upload_id: str, analyzer: str = "says") -> Any:
    return workshop.app.test_client().post(f"/api/uploads/{upload_id}/analyses/{analyzer}")


def taken_at(workshop: Workshop, upload_id: str) -> str | None:
    """The time that is answered, which the listing has as well."""
    found = get(workshop, f"/api/uploads/{upload_id}").json["taken_at"]
    listed = {one["id"]: one for one in get(workshop, "/api/uploads").json["data"]}
    assert listed[upload_id]["taken_at"] == found
    return found and moment(found).isoformat()


def words_of(workshop: Workshop, upload_id: str) -> tuple[Any, ...]:
    upload = workshop.get(upload_id)
    return upload.caption, list(upload.tags), upload.original_name
