"""Shares: addresses of uploads for others, what they give, and how they end."""

import io
import re
from datetime import datetime, timedelta
from urllib.parse import urlsplit

import photographs
import places
import pytest
from bson import ObjectId
from closed import FILES, READ, WRITE, Closed, kind
from PIL import Image
from werkzeug.test import TestResponse

from clustr.database import now
from clustr.database.shares import MAX_SHARES
from clustr.domain.access import OWN, Scope
from clustr.services.url_signing import UrlSigner

DAY = timedelta(days=1)


def share(closed: Closed, upload_id: str, *more: str, **order: object) -> TestResponse:
    """Share an upload; `more` are scopes of the key besides that of writing."""
    order = {"days": 2} | order
    headers = closed.key(WRITE, *more)
    return closed.ask(f"/api/uploads/{upload_id}/share", "POST", json=order, headers=headers)


def shared(closed: Closed, upload_id: str, *more: str, **order: object) -> dict[str, str]:
    answer = share(closed, upload_id, *more, **order)
    assert answer.status_code == 201, answer.text
    return answer.json


def listed(closed: Closed, upload_id: str) -> list[dict[str, str]]:
    path = f"/api/uploads/{upload_id}/shares"
    return closed.ask(path, headers=closed.key(WRITE)).json["data"]


def revoke(closed: Closed, upload_id: str, share_id: str) -> TestResponse:
    path = f"/api/uploads/{upload_id}/shares/{share_id}"
    return closed.ask(path, "DELETE", headers=closed.key(WRITE))


@pytest.fixture
def upload_id(closed: Closed) -> str:
    return closed.upload(photographs.photograph())["id"]


def test_a_share_is_an_address_of_a_copy_without_metadata(closed):
    upload_id = closed.upload(places.jpeg())["id"]
    before = now()
    made = shared(closed, upload_id)
    assert (made["metadata"], made["size"]) == (False, None)
    assert made["created_by"] == "uploads-write"
    ends = datetime.fromisoformat(made["expires_at"])
    assert before + 2 * DAY <= ends <= now() + 3 * DAY
    answer = closed.ask(made["url"])
    assert answer.status_code == 200
    assert not places.says_place(answer.data)
    assert answer.headers["Cache-Control"] == "private, no-cache"


def test_with_metadata_it_needs_the_scope_for_originals(closed):
    content = places.jpeg()
    upload_id = closed.upload(content)["id"]
    assert kind(share(closed, upload_id, metadata=True)) == (403, "missing_scope")
    made = shared(closed, upload_id, FILES, metadata=True)
    assert made["metadata"] is True
    assert closed.ask(made["url"]).data == content


def test_a_thumbnail_is_shared_in_its_size(closed, upload_id):
    made = shared(closed, upload_id, size=90)
    assert made["size"] == 100
    with Image.open(io.BytesIO(closed.ask(made["url"]).data)) as thumbnail:
        assert max(thumbnail.size) == 100
    larger = made["url"].replace("size=100", "size=1600")
    assert kind(closed.ask(larger)) == (403, "address_altered")


@pytest.mark.parametrize(
    "order", [{"days": 0}, {"days": "2"}, {"size": 1}, {"size": 100, "metadata": True}, {"day": 3}]
)
def test_what_cannot_be_shared_is_refused(closed, upload_id, order):
    assert kind(share(closed, upload_id, FILES, **order)) == (422, "invalid_input")
    assert listed(closed, upload_id) == []


def test_shares_are_listed_without_their_addresses(closed, upload_id):
    made = [shared(closed, upload_id, days=days) for days in (1, 2)]
    signatures = [each.pop("url").rpartition("=")[2] for each in made]
    path = f"/api/uploads/{upload_id}/shares"
    answer = closed.ask(path, headers=closed.key(WRITE))
    assert answer.json == {"data": made}
    assert not [each for each in signatures if each in answer.text]
    assert kind(closed.ask(path, headers=closed.key(READ))) == (403, "missing_scope")


def test_a_revoked_share_gives_nothing_any_more(closed, upload_id):
    one, other = (shared(closed, upload_id, size=size) for size in (100, 200))
    original = shared(closed, upload_id)
    for each in (one, original):
        assert revoke(closed, upload_id, each["id"]).status_code == 204
        assert kind(closed.ask(each["url"])) == (403, "address_revoked")
        assert kind(revoke(closed, upload_id, each["id"])) == (404, "not_found")
    assert closed.ask(other["url"]).status_code == 200
    assert [each["id"] for each in listed(closed, upload_id)] == [other["id"]]


def test_all_shares_of_an_upload_are_revoked_at_once(closed, upload_id):
    other = shared(closed, closed.upload(photographs.unique(number=2))["id"])
    made = [shared(closed, upload_id), shared(closed, upload_id, FILES, size=100)]
    path = f"/api/uploads/{upload_id}/shares"
    assert kind(closed.ask(path, "DELETE", headers=closed.key(READ))) == (403, "missing_scope")
    for revoked in (2, 0):
        answer = closed.ask(path, "DELETE", headers=closed.key(WRITE))
        assert (answer.status_code, answer.json) == (200, {"revoked": revoked})
    for each in made:
        assert kind(closed.ask(each["url"])) == (403, "address_revoked")
    assert closed.ask(other["url"]).status_code == 200


def test_all_shares_of_a_key_are_revoked_at_once_also_when_it_is(closed, upload_id):
    leaver = {"X-API-Key": closed.web.key_making.create("leaver", [WRITE]).text}
    path = f"/api/uploads/{upload_id}/share"
    made = [closed.ask(path, "POST", json={"days": 1}, headers=leaver).json for _ in range(2)]
    other = shared(closed, upload_id)
    closed.web.database.keys.revoke("leaver")
    assert closed.ask(made[0]["url"]).status_code == 200
    admin = closed.key(Scope.ADMIN)
    answer = closed.ask("/api/keys/leaver/shares", "DELETE", headers=admin)
    assert (answer.status_code, answer.json) == (200, {"revoked": 2})
    for each in made:
        assert kind(closed.ask(each["url"])) == (403, "address_revoked")
    assert closed.ask(other["url"]).status_code == 200
    [entry] = closed.ask("/api/audit?action=revoke_share&limit=1", headers=admin).json["data"]
    assert entry["details"] == {"name": "leaver", "revoked": "2"}


def test_a_key_is_revoked_with_its_shares_and_makes_no_others(closed, upload_id):
    leaked = {"X-API-Key": closed.web.key_making.create("leaked", [WRITE]).text}
    path = f"/api/uploads/{upload_id}/share"
    made = closed.ask(path, "POST", json={"days": 1}, headers=leaked).json
    other, admin = shared(closed, upload_id), closed.key(Scope.ADMIN)
    answer = closed.ask("/api/keys/leaked?shares=yes,please", "DELETE", headers=admin)
    assert kind(answer) == (422, "invalid_input")
    assert closed.ask(made["url"]).status_code == 200
    answer = closed.ask("/api/keys/leaked?shares=true", "DELETE", headers=admin)
    assert answer.json["revoked_at"]
    assert kind(closed.ask(made["url"])) == (403, "address_revoked")
    # The process has remembered the key for some seconds, and would take it still.
    answer = closed.ask(path, "POST", json={"days": 1}, headers=leaked)
    assert kind(answer) == (401, "key_refused")
    assert [each["id"] for each in listed(closed, upload_id)] == [other["id"]]
    [entry] = closed.ask("/api/audit?action=revoke_key&limit=1", headers=admin).json["data"]
    assert entry["details"] == {"name": "leaked", "revoked_shares": "1"}


def test_a_share_is_of_one_upload(closed, upload_id):
    other = closed.upload(photographs.unique(number=1))["id"]
    made = shared(closed, upload_id)
    assert kind(revoke(closed, other, made["id"])) == (404, "not_found")
    assert kind(revoke(closed, upload_id, "nonsense")) == (404, "not_found")
    assert closed.ask(made["url"]).status_code == 200
    moved = made["url"].replace(upload_id, other)
    assert kind(closed.ask(moved)) == (403, "address_altered")


def test_a_share_ends_with_its_upload(closed, upload_id):
    made = shared(closed, upload_id)
    thumbnail = shared(closed, upload_id, size=100)
    closed.web.removal.remove(upload_id)
    for each in (made, thumbnail):
        answer = closed.ask(each["url"])
        assert kind(answer) == (404, "not_found")
        assert "trash" not in answer.text
    assert kind(share(closed, upload_id)) == (404, "in_trash")
    closed.web.removal.restore(upload_id)
    assert closed.ask(made["url"]).status_code == 200
    closed.web.removal.remove(upload_id, permanently=True)
    assert kind(closed.ask(made["url"])) == (403, "address_revoked")
    assert not closed.web.database.shares.has(made["id"])


def test_a_share_expires(closed, upload_id):
    made = shared(closed, upload_id, days=1)
    long_ago = UrlSigner(lambda: [closed.web.database.url_signing_key()], 7, clock=lambda: 0)
    parts = urlsplit(made["url"])
    query = re.sub(r"expires=\d+", "expires=86400", parts.query).partition("&signature=")[0]
    assert kind(closed.ask(long_ago.sign(f"{parts.path}?{query}"))) == (403, "address_expired")
    shares = closed.web.database.shares.collection
    shares.update_one({"_id": ObjectId(made["id"])}, {"$set": {"expires_at": now() - DAY}})
    assert listed(closed, upload_id) == []
    assert shares.index_information()["expired"]["expireAfterSeconds"] == 0


def test_an_upload_has_so_many_shares_at_most(closed, upload_id):
    shares = closed.web.database.shares.collection
    made = shared(closed, upload_id)
    document = shares.find_one({"_id": ObjectId(made["id"])})
    more = [document | {"_id": ObjectId()} for _ in range(MAX_SHARES - 1)]
    shares.insert_many(more)
    assert kind(share(closed, upload_id)) == (409, "too_many_shares")
    revoke(closed, upload_id, made["id"])
    assert share(closed, upload_id).status_code == 201


def test_a_share_is_good_without_keys_too(workshop):
    """A proxy in front may check who comes, and let those pass who have a signed address."""
    content = places.jpeg()
    [upload_id] = workshop.upload(content)
    client = workshop.app.test_client()
    made = client.post(f"/api/uploads/{upload_id}/share", json={"days": 1}).json
    address = urlsplit(made["url"])
    copy = client.get(f"{address.path}?{address.query}", buffered=True)
    assert copy.status_code == 200
    assert not places.says_place(copy.data)
    altered = client.get(f"{address.path}?{address.query}0", buffered=True)
    assert kind(altered) == (403, "address_altered")


def test_what_others_brought_cannot_be_shared_or_revoked(closed, upload_id):
    made = shared(closed, upload_id)
    own = closed.key(WRITE, OWN)
    path = f"/api/uploads/{upload_id}"
    asked = [
        closed.ask(f"{path}/share", "POST", json={"days": 1}, headers=own),
        closed.ask(f"{path}/shares", headers=own),
        closed.ask(f"{path}/shares/{made['id']}", "DELETE", headers=own),
        closed.ask(f"{path}/shares", "DELETE", headers=own),
    ]
    assert [kind(answer) for answer in asked] == [(404, "not_found")] * 4
    assert [each["id"] for each in listed(closed, upload_id)] == [made["id"]]
