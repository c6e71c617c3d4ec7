"""Versions: what names another version of an upload changes nothing."""

import threading
from concurrent.futures import ThreadPoolExecutor

import photographs
import pytest
from editing import edit, get, words_of
from workshop import Workshop

from clustr.domain.edits import TagEdit


@pytest.fixture
def workshop(saying_workshop: Workshop) -> Workshop:
    return saying_workshop


def test_a_lost_update_is_refused(workshop):
    (upload_id,) = workshop.upload()
    first = edit(workshop, upload_id, {"caption": "first"})
    second = edit(workshop, upload_id, {"caption": "second"}, If_Match=first.headers["ETag"])
    assert second.status_code == 200
    assert second.headers["ETag"] != first.headers["ETag"]
    lost = edit(workshop, upload_id, {"caption": "lost"}, If_Match=first.headers["ETag"])
    assert lost.status_code == 412
    assert lost.json["type"] == "urn:clustr:problem:outdated"
    assert words_of(workshop, upload_id)[0] == "second"
    several = f'"other", {second.headers["ETag"]}'
    assert edit(workshop, upload_id, {"tags": None}, If_Match=several).status_code == 200
    assert edit(workshop, upload_id, {"caption": "any"}, If_Match="*").status_code == 200
    for wrong in ('"other"', '""', "", f'"{upload_id}-fffffffffffff"', "x, y"):
        assert edit(workshop, upload_id, {"caption": "x"}, If_Match=wrong).status_code == 412, wrong


def test_of_many_edits_of_one_version_exactly_one_is_made(workshop):
    (upload_id,) = workshop.upload()
    etag = edit(workshop, upload_id, {"caption": "read"}).headers["ETag"]
    statuses = []

    def write(number: int) -> None:
        body = {"caption": f"{number}"}
        statuses.append(edit(workshop, upload_id, body, If_Match=etag).status_code)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(statuses) == [200] + [412] * 7


def test_each_edit_gives_another_version(workshop):
    (upload_id,) = workshop.upload()
    etags = [edit(workshop, upload_id, {"caption": "same"}).headers["ETag"] for _ in range(20)]
    assert len(set(etags)) == 20
    assert etags == sorted(etags)


def test_a_person_saves_while_five_analyses_end(own_workshop):
    names = [f"says{number}" for number in range(5)]
    for number, name in enumerate(names):
        body = f'time.sleep({number} / 20); return {{"caption": "{name}"}}'
        own_workshop.analyzer(name, body, fields={"caption": "caption"})
    busy, quiet = own_workshop.upload(photographs.unique(number=1), photographs.unique(number=2))
    path = f"/api/uploads/{quiet}"
    read, tag = get(own_workshop, path), get(own_workshop, f"/api/uploads/{busy}").headers["ETag"]
    saved = 0
    horses = [own_workshop.horse(name, "run") for name in names]
    while not saved or any(horse.alive() for horse in horses):
        answer = edit(own_workshop, busy, {"caption": f"mine {saved}"}, If_Match=tag)
        assert answer.status_code == 200, answer.text
        tag, saved = answer.headers["ETag"], saved + 1
    assert [horse.process.wait(60) for horse in horses] == [0] * 5
    for name in names:
        own_workshop.analyze(name)  # what did not fit into the second that a process has
    assert words_of(own_workshop, busy)[0] == f"mine {saved - 1}"
    # Nobody edited this one: its version is as it was, and its answer another one.
    now = own_workshop.app.test_client().get(path, headers={"If-None-Match": read.headers["ETag"]})
    assert (now.status_code, now.json["status"]) == (200, "processed")
    assert now.json["caption"] == names[-1]  # Of several plugins the last one fills the field.
    assert now.json["version"] == read.json["version"]
    assert (
        edit(own_workshop, quiet, {"caption": "mine"}, If_Match=read.headers["ETag"]).status_code
        == 200
    )
    assert (
        edit(own_workshop, quiet, {"caption": "x"}, If_Match=now.headers["ETag"]).status_code == 412
    )


def test_the_version_of_a_body_is_one_for_if_match(workshop, upload_id):
    listed = get(workshop, "/api/uploads?fields=version").json["data"][0]["version"]
    assert get(workshop, f"/api/uploads/{upload_id}").json["version"] == listed
    first = edit(workshop, upload_id, {"caption": "first"}, If_Match=f'"{listed}"')
    assert first.headers["ETag"].startswith(f'"{first.json["version"]}.')
    assert edit(workshop, upload_id, {"caption": "x"}, If_Match=f'"{listed}"').status_code == 412
    # Not every generator of clients lets its user write the quotes.
    second = edit(workshop, upload_id, {"tags": {"set": []}}, If_Match=first.json["version"])
    assert second.status_code == 200
    client = workshop.app.test_client()
    assert client.delete(f"/api/uploads/{upload_id}").status_code == 204
    assert get(workshop, "/api/trash").json["data"][0]["version"] == second.json["version"]


def test_a_tag_of_many_uploads_is_an_edit_of_each(workshop, upload_id):
    before = get(workshop, f"/api/uploads/{upload_id}").json["version"]
    assert workshop.web.database.editing.edit_tags([upload_id], TagEdit(add=("new",))) == [
        upload_id
    ]
    assert edit(workshop, upload_id, {"caption": "x"}, If_Match=f'"{before}"').status_code == 412


def test_what_was_edited_before_there_were_versions_has_one(workshop, upload_id):
    edit(workshop, upload_id, {"caption": "old"})
    workshop.collection.update_one({}, {"$unset": {"edited_at": ""}})
    found = get(workshop, f"/api/uploads/{upload_id}")
    answer = edit(workshop, upload_id, {"caption": "new"}, If_Match=found.headers["ETag"])
    assert (answer.status_code, answer.json["caption"]) == (200, "new")


def test_what_is_no_version_is_not_told_as_somebody_elses_edit(workshop, upload_id):
    found = get(workshop, f"/api/uploads/{upload_id}")
    for wrong in ("x", f"W/{found.headers['ETag']}", f'"{"0" * 24}-0"'):
        answer = edit(workshop, upload_id, {"caption": "x"}, If_Match=wrong)
        assert answer.status_code == 412
        assert "names no version" in answer.json["detail"]


def test_whatever_names_another_version_changes_nothing(workshop, upload_id):
    path = f"/api/uploads/{upload_id}"
    client = workshop.app.test_client()
    old = edit(workshop, upload_id, {"caption": "first"}).headers["ETag"]
    edit(workshop, upload_id, {"caption": "second"})
    stored = workshop.collection.find_one()
    for wrong in (old, '"other"', "", f"W/{get(workshop, path).headers['ETag']}"):
        stale = {"headers": {"If-Match": wrong}}
        answers = [
            client.patch(path, json={"caption": "third"}, **stale),
            client.delete(path, **stale),
            client.delete(f"{path}?permanently=true", **stale),
            client.post(f"{path}/analyses/says", **stale),
        ]
        assert [answer.status_code for answer in answers] == [412] * 4, wrong
        assert {answer.json["type"] for answer in answers} == {"urn:clustr:problem:outdated"}
        assert workshop.collection.find_one() == stored


def test_what_shall_not_be_of_its_version_is_left_as_it_is(workshop, upload_id):
    """With `If-None-Match` (RFC 9110, 13.1.2), which a weak tag matches as well."""
    path = f"/api/uploads/{upload_id}"
    client = workshop.app.test_client()
    old = edit(workshop, upload_id, {"caption": "first"}).headers["ETag"]
    edited = edit(workshop, upload_id, {"caption": "second"})
    true, version = edited.headers["ETag"], f'"{edited.json["version"]}"'
    stored = workshop.collection.find_one()
    for named in (true, version, f"W/{true}", f"{old}, {true}", "*"):
        condition = {"headers": {"If-None-Match": named}}
        answers = [
            client.patch(path, json={"caption": "third"}, **condition),
            client.delete(path, **condition),
            client.delete(f"{path}?permanently=true", **condition),
            client.post(f"{path}/analyses/says", **condition),
        ]
        assert [answer.status_code for answer in answers] == [412] * 4, named
        assert {answer.json["type"] for answer in answers} == {"urn:clustr:problem:outdated"}
        assert all("If-None-Match" in answer.json["detail"] for answer in answers)
        assert workshop.collection.find_one() == stored
    both = {"If-Match": true, "If-None-Match": true}
    assert client.patch(path, json={"caption": "third"}, headers=both).status_code == 412
    other = {"headers": {"If-None-Match": f'{old}, "x"'}}
    assert client.post(f"{path}/analyses/says", **other).status_code == 202
    assert client.delete(path, **other).status_code == 204
    for method, below in ((client.post, "/restore"), (client.delete, "?permanently=true")):
        assert method(path + below, headers={"If-None-Match": true}).status_code == 412
        assert method(path + below, headers={"If-None-Match": "*"}).status_code == 412
    assert client.post(f"{path}/restore", **other).status_code == 200
    assert client.patch(path, json={"caption": "third"}, **other).status_code == 200
    assert (
        client.delete("/api/uploads/" + "0" * 24, headers={"If-None-Match": "*"}).status_code == 404
    )


def test_in_the_trash_a_version_counts_as_well(workshop, upload_id):
    path = f"/api/uploads/{upload_id}"
    client = workshop.app.test_client()
    old = edit(workshop, upload_id, {"caption": "first"}).headers["ETag"]
    true = edit(workshop, upload_id, {"caption": "second"}).headers["ETag"]
    assert client.delete(path, headers={"If-Match": true}).status_code == 204
    stale, named = {"headers": {"If-Match": old}}, {"headers": {"If-Match": f'"x", {true}'}}
    assert client.post(f"{path}/restore", **stale).status_code == 412
    assert client.delete(f"{path}?permanently=true", **stale).status_code == 412
    restored = client.post(f"{path}/restore", **named)
    assert (restored.status_code, restored.json["caption"]) == (200, "second")
    version = {"headers": {"If-Match": restored.headers["ETag"]}}
    assert client.post(f"{path}/analyses/says", **version).status_code == 202
    assert client.delete(path).status_code == 204
    assert client.delete(f"{path}?permanently=true", **stale).status_code == 412
    assert client.delete(f"{path}?permanently=true", headers={"If-Match": "*"}).status_code == 204
    assert client.post(f"{path}/restore", **named).status_code == 404
    assert client.delete(path, **stale).status_code == 404


@pytest.mark.parametrize("path", ["uploads/bulk", "analyses", "upload", f"jobs/{'0' * 24}/cancel"])
def test_where_nothing_has_a_version_none_is_ignored(workshop, upload_id, path):
    body = {"action": "delete", "ids": [upload_id]}
    asked = {"json": body, "headers": {"If-Match": "*"}}
    answer = workshop.app.test_client().post(f"/api/{path}", **asked)
    assert answer.status_code == 412, answer.text
    assert "If-Match" in answer.json["detail"]
    assert workshop.web.database.jobs.unfinished() == []


def test_of_an_edit_and_a_removal_of_one_version_exactly_one_is_made(workshop):
    """Either comes first: never is what somebody has just written removed unseen."""
    client = workshop.app.test_client
    outcomes = set()
    for number in range(10):
        (upload_id,) = workshop.upload(photographs.unique(number=number))
        path = f"/api/uploads/{upload_id}"
        version = {"If-Match": get(workshop, path).headers["ETag"]}
        acts = [
            lambda path=path, version=version: client().delete(path, headers=version),
            lambda upload_id=upload_id, version=version: edit(
                workshop, upload_id, {"caption": "written"}, If_Match=version["If-Match"]
            ),
        ]
        with ThreadPoolExecutor(2) as threads:
            removed, written = [one.result() for one in [threads.submit(act) for act in acts]]
        outcomes.add((removed.status_code, written.status_code))
        assert get(workshop, path).status_code == (200 if written.status_code == 200 else 404)
    assert outcomes <= {(412, 200), (204, 404)}
