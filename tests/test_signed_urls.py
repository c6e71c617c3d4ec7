"""Signed addresses of files: what they are good for, for how long, and what they do not give."""

import hmac
import re
from hashlib import sha256
from urllib.parse import urlsplit

import photographs
import places
import pytest
from closed import FILES, READ, Closed, kind

from clustr.domain.errors import AddressAltered, AddressExpired, InvalidSettings
from clustr.services.url_signing import DAY_SECONDS, UrlSigner
from clustr.settings import read_settings

NOON = 20_000 * DAY_SECONDS + DAY_SECONDS // 2
PATH = "/uploads/692192f4e13f5a0c4d1b7a90.jpg"


class Time:
    """A clock that stands still until it is set."""

    def __init__(self, now: float = NOON):
        self.now = now

    def __call__(self) -> float:
        return self.now


def signer(*keys: str, days: int = 7, clock: Time | None = None) -> UrlSigner:
    return UrlSigner(lambda: keys or ("key",), days, clock or Time())


def checked(by: UrlSigner, address: str) -> dict[str, str]:
    return by.check(*address.split("?", 1))


def test_a_signature_is_the_hmac_of_all_before_it():
    for key in ("short", "k" * 64, "k" * 65):
        signed = signer(key).sign(f"{PATH}?expires=1")
        address, _, signature = signed.rpartition("&signature=")
        assert address == f"{PATH}?expires=1"
        assert signature == hmac.digest(key.encode(), address.encode(), sha256).hex()


def test_what_was_signed_is_given_back():
    one = signer()
    signed = one.sign(f"{PATH}?metadata=keep&expires={one.expiry()}")
    assert checked(one, signed) == {"metadata": "keep", "expires": str(one.expiry())}


def test_each_part_of_an_address_is_signed():
    one = signer()
    signed = one.sign(f"{PATH}?metadata=strip&size=300&expires={one.expiry()}")
    for place in range(len(signed)):
        if signed[place] != "?":
            altered = signed[:place] + ("0" if signed[place] != "0" else "1") + signed[place + 1 :]
            with pytest.raises(AddressAltered):
                checked(one, altered)
    others = [signed.replace("metadata=strip&", ""), signed + "&size=1600", signed + "0"]
    others += [signed[:-1], signed.partition("&signature")[0], signed.replace("?", "?size=1600&")]
    others += [signed.replace("&signature=", "&signature=&signature="), signed + "\u00e9"]
    others += [signed.replace("metadata=strip&size=300", "size=300&metadata=strip")]
    for altered in others:
        with pytest.raises(AddressAltered):
            checked(one, altered)


def test_an_address_is_the_same_all_day_and_expires_at_midnight():
    clock = Time()
    one = signer(days=7, clock=clock)
    signed = one.sign(f"{PATH}?expires={one.expiry()}")
    midnight = NOON + DAY_SECONDS // 2
    for now in (NOON - DAY_SECONDS // 2, midnight - 1):
        clock.now = now
        assert one.sign(f"{PATH}?expires={one.expiry()}") == signed
    clock.now = midnight
    assert one.sign(f"{PATH}?expires={one.expiry()}") != signed
    clock.now = midnight + 7 * DAY_SECONDS - 1
    assert checked(one, signed)
    clock.now = midnight + 7 * DAY_SECONDS
    with pytest.raises(AddressExpired):
        checked(one, signed)


def test_an_altered_address_that_is_expired_is_said_to_be_altered():
    clock = Time()
    one = signer(clock=clock)
    signed = one.sign(f"{PATH}?expires={one.expiry()}")
    clock.now += 100 * DAY_SECONDS
    with pytest.raises(AddressAltered):
        checked(one, signed.replace("692192", "692193"))


def test_keys_are_rotated():
    old, new = signer("old"), signer("new", "old")
    signed = old.sign(f"{PATH}?expires={old.expiry()}")
    assert checked(new, signed)
    assert new.sign(f"{PATH}?expires=1") == signer("new").sign(f"{PATH}?expires=1")
    with pytest.raises(AddressAltered):
        checked(signer("new"), signed)


def test_secrets_that_are_too_short_are_refused_and_not_shown():
    with pytest.raises(InvalidSettings) as refused:
        read_settings({"URL_SIGNING_KEYS": f"{'a' * 32},guessable"})
    assert "32 characters" in str(refused.value)
    assert "guessable" not in str(refused.value)
    settings = read_settings({"URL_SIGNING_KEYS": f"{'a' * 32}, {'b' * 32}"})
    assert settings.url_signing_keys == ("a" * 32, "b" * 32)
    assert "a" * 32 not in repr(settings)


def test_files_want_a_key_or_a_signed_address(closed):
    upload_id = closed.upload(photographs.photograph())["id"]
    one = closed.read(upload_id, READ)
    for name in ("url", "thumbnail_url"):
        path = urlsplit(one[name]).path
        assert kind(closed.ask(path)) == (401, "key_required")
        assert closed.ask(path, headers=closed.key(READ)).status_code == 200
        assert closed.ask(one[name]).status_code == 200
        assert closed.ask(one[name], "HEAD").status_code == 200


def test_the_addresses_of_every_answer_are_signed_and_the_same(closed):
    accepted = closed.upload(photographs.unique(number=1))
    one = closed.read(accepted["id"], READ)
    listed = closed.ask("/api/uploads?limit=1", headers=closed.key(READ)).json["data"][0]
    assert accepted["preview_url"] == one["url"] == listed["url"]
    assert one["thumbnail_url"] == listed["thumbnail_url"]
    assert closed.ask(listed["url"]).data == photographs.unique(number=1)


def test_an_altered_or_expired_address_is_refused_and_told_apart(closed):
    accepted = closed.upload(photographs.unique(number=2))
    one = closed.read(accepted["id"], READ)
    for name in ("url", "thumbnail_url"):
        signed = one[name]
        assert kind(closed.ask(signed[:-1] + ("0" if signed[-1] != "0" else "1"))) == (
            403,
            "address_altered",
        )
        later = re.sub(r"expires=(\d)", r"expires=9\1", signed)
        assert kind(closed.ask(later)) == (403, "address_altered")
        other = signed.replace(accepted["id"], "0" * 24)
        assert kind(closed.ask(other)) == (403, "address_altered")
        past = UrlSigner(lambda: [closed.web.database.url_signing_key()], 7, Time())
        parts = urlsplit(signed)
        query = re.sub(r"expires=\d+", f"expires={past.expiry()}", parts.query)
        expired = past.sign(f"{parts.path}?{query.partition('&signature=')[0]}")
        assert kind(closed.ask(expired)) == (403, "address_expired")
    larger = one["thumbnail_url"].replace("size=300", "size=1600")
    assert kind(closed.ask(larger)) == (403, "address_altered")


def test_a_signature_is_good_for_nothing_else(closed):
    accepted = closed.upload(photographs.unique(number=3))
    query = urlsplit(accepted["preview_url"]).query
    for path in (f"/api/uploads/{accepted['id']}", f"/api/uploads/{accepted['id']}/file"):
        assert kind(closed.ask(f"{path}?{query}")) == (401, "key_required")
    assert closed.ask(accepted["preview_url"], "DELETE").status_code in (401, 405)


def test_an_address_gives_the_metadata_that_its_key_may_have(closed):
    content = places.jpeg()
    upload_id = closed.upload(content)["id"]
    plain, full = closed.read(upload_id, READ), closed.read(upload_id, READ, FILES)
    assert plain["url"] != full["url"]
    assert closed.ask(full["url"]).data == content
    copy = closed.ask(plain["url"]).data
    assert not places.says_place(copy)
    for path in (urlsplit(plain["url"]).path, f"/api/uploads/{upload_id}/file"):
        assert closed.ask(path, headers=closed.key(READ)).data == copy
        assert closed.ask(path, headers=closed.key(READ, FILES)).data == content
    wanted = plain["url"].replace("?", "?metadata=keep&")
    assert kind(closed.ask(wanted)) == (403, "address_altered")
    unsigned = f"{urlsplit(plain['url']).path}?metadata=keep"
    assert closed.ask(unsigned, headers=closed.key(READ)).data == copy


def test_what_is_removed_is_not_served_whatever_the_signature_says(closed):
    upload_id = closed.upload(photographs.unique(number=4))["id"]
    one = closed.read(upload_id, READ)
    addresses = [one["url"], one["thumbnail_url"]]
    assert [closed.ask(each).status_code for each in addresses] == [200, 200]
    closed.web.removal.remove(upload_id)
    assert [closed.ask(each).status_code for each in addresses] == [404, 404]
    closed.web.removal.restore(upload_id)
    assert [closed.ask(each).status_code for each in addresses] == [200, 200]
    closed.web.removal.remove(upload_id, permanently=True)
    assert [closed.ask(each).status_code for each in addresses] == [404, 404]


def test_only_a_client_keeps_what_is_sent_and_no_longer_than_the_address_is_valid(closed):
    one = closed.read(closed.upload(photographs.unique(number=5))["id"], READ, FILES)
    for name in ("url", "thumbnail_url"):
        caching = closed.ask(one[name]).headers["Cache-Control"]
        private, age, *_ = caching.split(", ")
        assert private == "private"
        assert 0 < int(age.removeprefix("max-age=")) <= 8 * DAY_SECONDS
        path = urlsplit(one[name]).path
        by_key = closed.ask(path, headers=closed.key(READ)).headers["Cache-Control"]
        assert by_key == "private, no-cache"


def test_all_web_hosts_have_the_same_key_and_it_stays(closed):
    key = closed.web.database.url_signing_key()
    assert re.fullmatch("[0-9a-f]{64}", key)
    assert closed.web.database.url_signing_key() == key


def test_nginx_sends_what_a_signed_address_names(app_with):
    nginx = Closed(app_with(AUTH="keys", ACCEL_REDIRECT="/clustr-files"))
    accepted = nginx.upload(photographs.unique(number=6))
    one = nginx.read(accepted["id"], READ)
    sent = nginx.ask(one["url"]).headers["X-Accel-Redirect"]
    assert sent == f"/clustr-files/{accepted['id'][:4]}/{accepted['stored_filename']}"
    assert nginx.ask(one["thumbnail_url"]).headers["X-Accel-Redirect"].endswith(".jpg")
    assert kind(nginx.ask(one["url"] + "0")) == (403, "address_altered")


def test_without_keys_addresses_are_not_signed(workshop):
    [upload_id] = workshop.upload()
    one = workshop.app.test_client().get(f"/api/uploads/{upload_id}").json
    assert urlsplit(one["url"]).query == ""
    assert urlsplit(one["thumbnail_url"]).query == "size=300&v=2"
