"""How many requests, bytes and wrong keys are let in, from whom, and what is said to the others."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from math import ceil

import photographs
import pytest
from flask import Flask
from flask.testing import FlaskClient
from running import wait_until
from test_keys import bearer, kind
from werkzeug.test import TestResponse
from workshop import Workshop

from clustr.api.http.request_context import EXTENSION
from clustr.domain.access import Rate
from clustr.domain.key_text import new_key
from clustr.domain.quotas import REQUESTS, Quota, Standing, Use
from clustr.queue.quotas import QuotaStore
from clustr.supervisor import web_process
from clustr.supervisor.servers import free_port


@pytest.fixture
def store(workshop: Workshop) -> QuotaStore:
    workshop.forget_keys()
    return QuotaStore(workshop.environment["REDIS_URL"], workshop.settings.redis_prefix)


@pytest.fixture
def app(app_with: Callable[..., Flask]) -> Flask:
    return app_with(AUTH="keys")


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    return app.test_client()


@pytest.fixture
def create(app: Flask) -> Callable[..., str]:
    """Makes a key with all scopes, and returns its text."""

    def create(name: str = "someone", **limits: object) -> str:
        making = app.extensions[EXTENSION].key_making
        text: str = making.create(name, ("uploads:read", "uploads:write"), **limits).text
        return text

    return create


def limits_in(answer: TestResponse) -> tuple[str | None, str | None]:
    return answer.headers.get("RateLimit-Policy"), answer.headers.get("RateLimit")


def pass_time(workshop: Workshop, quota: Quota, milliseconds: int) -> None:
    """Let time pass for a quota: its clock is how long its keys in Redis live."""
    key = workshop.key(f"quota:{quota.name}:{quota.holder}")
    for each in (key, f"{key}:previous"):
        if (left := workshop.redis.pttl(each)) > 0:
            workshop.redis.pexpire(each, left - milliseconds)


def test_what_was_used_lately_counts_less_and_less(store, workshop):
    quota = Quota(REQUESTS, "somebody", 4, 1_000)
    stood = [store.use([Use(quota)])[0] for _ in range(5)]
    assert [one.remaining for one in stood] == [3, 2, 1, 0, 0]
    assert [one.is_exceeded for one in stood] == [False] * 4 + [True]
    assert 1_000 <= stood[-1].seconds <= 1_250
    pass_time(workshop, quota, int(stood[-1].seconds * 1_000))
    [after] = store.use([Use(quota)])
    assert not after.is_exceeded
    assert after.remaining < 3  # Not all is forgotten at once, as it is where a window ends.


@pytest.mark.parametrize("used", [1_000, 700, 301, 1_900])
@pytest.mark.parametrize("elapsed_ms", [0, 40_000_000, 86_000_000])
def test_the_wait_that_is_told_is_the_shortest_that_helps(store, workshop, used, elapsed_ms):
    quota, day_ms = Quota("bytes", "somebody", 1_000, 86_400), 86_400_000
    key = workshop.key("quota:bytes:somebody")

    def ask() -> Standing:
        [standing] = store.use([Use(quota, 700, is_counted=False)])
        return standing

    workshop.redis.set(key, used, px=2 * day_ms - elapsed_ms)
    refused = ask()
    assert refused.is_exceeded
    # What was used counts in full to the end of its window, and fades during the next one.
    assert refused.seconds <= ceil((day_ms - elapsed_ms) / 1_000) + 86_400
    pass_time(workshop, quota, int(refused.seconds * 1_000) - 400_000)
    assert ask().is_exceeded
    pass_time(workshop, quota, 400_000)
    assert not ask().is_exceeded


def test_several_quotas_are_one_exchange_and_take_little_of_redis(store, workshop):
    uses = [Use(Quota(f"q{number}", "somebody", 10**9, 86_400)) for number in range(3)]
    store.use(uses)  # At the first time it connects, and says who it is.

    def reads() -> int:
        return int(workshop.redis.info("stats")["total_reads_processed"])

    def taken() -> int:
        """How often Redis was asked something during ten uses, by whomever."""
        before = reads()
        for _ in range(10):
            store.use(uses)
        return reads() - before

    assert min(taken() for _ in range(3)) == 10 + 1  # and the question itself
    keys = workshop.redis.keys(workshop.key("quota:*"))
    assert sum(workshop.redis.memory_usage(key) for key in keys) < 1_000
    assert all(workshop.redis.ttl(key) > 0 for key in keys)


def test_bytes_are_counted_also_beyond_what_was_left(store):
    quota = Quota("bytes", "somebody", 1_000, 86_400)
    store.count_later(quota, 900)
    store.count_later(quota, 900)
    wait_until(lambda: store.use([Use(quota, 1, False)])[0].is_exceeded, 60, "the count")
    [stood] = store.use([Use(quota, 1, False)])
    assert stood.remaining == 0
    assert 0 < stood.seconds <= 2 * 86_400


def test_one_request_waits_for_a_frozen_redis_and_the_others_go_on(
    capsys, store, servers, monkeypatch
):
    monkeypatch.setattr("clustr.queue.quotas.PAUSE_SECONDS", 2.0)
    use = [Use(Quota(REQUESTS, "somebody", 1, 60))]
    assert len(store.use(use)) == 1
    with servers.frozen_redis():
        assert [store.use(use) for _ in range(100)] == [[]] * 100
    # It is said by each that has waited; after two seconds another one does.
    assert 1 <= capsys.readouterr().err.count("quotas_not_kept") < 50
    wait_until(lambda: store.use(use), 60, "it asks again")


def test_whoever_has_no_key_may_ask_so_often_from_one_address(app_with):
    client = app_with(AUTH="off", RATE_LIMIT="3/min", PROXY_HOPS="1").test_client()

    def ask(path: str, address: str) -> TestResponse:
        return client.get(path, headers={"X-Forwarded-For": address})

    answers = [ask("/api/limits", "192.0.2.1") for _ in range(4)]
    assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
    assert limits_in(answers[0])[0] == '"requests";q=3;w=60'
    assert limits_in(answers[0])[1].startswith('"requests";r=2;t=')
    assert kind(answers[3]) == (429, "quota_exceeded")
    seconds = answers[3].headers["Retry-After"]
    assert limits_in(answers[3])[1] == f'"requests";r=0;t={seconds}'
    said = f"came from where this one does. Try again in {seconds} seconds"
    assert said in answers[3].json["detail"]
    # Probes are always answered, and others are not concerned.
    assert ask("/api/health/live", "192.0.2.1").status_code == 200
    assert ask("/api/limits", "192.0.2.2").status_code == 200
    # An IPv6 network of 64 bits is one client.
    three = [ask("/api/limits", f"2001:db8::{host}") for host in range(3)]
    assert [answer.status_code for answer in three] == [200] * 3
    assert ask("/api/limits", "2001:db8::9").status_code == 429
    assert ask("/api/limits", "2001:db8:0:1::9").status_code == 200


def test_without_a_limit_redis_is_not_asked(app_with, app_workshop, create, client):
    open_client = app_with().test_client()
    headers = bearer(create())
    client.get("/api/limits", headers=headers)  # The key is known from now on.

    def asked() -> int:
        """How often Redis was asked something during ten requests, by whomever."""
        before = app_workshop.redis.info("stats")["total_reads_processed"]
        for _ in range(5):
            assert limits_in(open_client.get("/api/limits")) == (None, None)
            assert limits_in(client.get("/api/limits", headers=headers)) == (None, None)
        return app_workshop.redis.info("stats")["total_reads_processed"] - before

    assert min(asked() for _ in range(3)) == 1  # the question itself


def test_a_key_may_ask_so_often(client, create):
    headers = bearer(create(rate=Rate(2, "min")))
    answers = [client.get("/api/limits", headers=headers) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200, 200, 429]
    assert "within 60 seconds came with this key." in answers[2].json["detail"]
    assert client.get("/api/limits", headers=bearer(create("another"))).status_code == 200
    # What it may not do counts, too.
    headers = bearer(create("curious", rate=Rate(1, "min")))
    statuses = [client.get("/api/plugins", headers=headers).status_code for _ in range(2)]
    assert statuses == [403, 429]


def test_a_key_may_bring_so_many_bytes_in_a_day(client, create):
    photograph = photographs.photograph()
    headers = bearer(create(bytes_per_day=len(photograph) + 100))

    def send(body: bytes) -> TestResponse:
        as_image = {**headers, "Content-Type": "image/jpeg"}
        return client.post("/api/upload", data=body, headers=as_image)

    assert send(photograph).status_code == 201
    left = wait_until(
        lambda: ";r=100;" in (limits_in(client.post("/api/upload", headers=headers))[1] or ""),
        60,
        "the count",
    )
    assert left
    refused = send(photograph)
    assert kind(refused) == (429, "quota_exceeded")
    assert f"{len(photograph) + 100} bytes" in refused.json["detail"]
    assert limits_in(refused)[0].endswith(';w=86400;qu="content-bytes"')
    assert int(refused.headers["Retry-After"]) > 3600
    assert client.get("/api/uploads", headers=headers).status_code == 200


def test_what_a_key_may_bring_on_no_day_is_not_told_to_come_later(client, create):
    headers = {**bearer(create(bytes_per_day=1_000)), "Content-Type": "image/jpeg"}
    refused = client.post("/api/upload", data=bytes(1_001), headers=headers)
    assert kind(refused) == (413, "larger_than_quota")
    assert "1000 bytes may be uploaded in a day" in refused.json["detail"]
    assert "1001" in refused.json["detail"]
    assert "Retry-After" not in refused.headers


def test_ten_wrong_keys_close_an_address_to_all_but_the_right_ones(client, create):
    right = bearer(create())
    wrong = [client.get("/api/limits", headers=bearer(new_key())) for _ in range(11)]
    assert [answer.status_code for answer in wrong] == [401] * 10 + [429]
    assert "wrong keys" in wrong[10].json["detail"]
    assert kind(client.get("/api/limits")) == (429, "quota_exceeded")
    assert client.get("/api/limits", headers=right).status_code == 200
    elsewhere = {"REMOTE_ADDR": "192.0.2.7"}
    assert client.get("/api/limits", environ_base=elsewhere).status_code == 401


def test_without_redis_uploads_go_on_and_health_says_what_is_not_limited(app_with):
    app = app_with(AUTH="keys", REDIS_URL=f"redis://127.0.0.1:{free_port()}/0")
    making = app.extensions[EXTENSION].key_making
    key = making.create("hasty", ("uploads:write", "admin"), rate=Rate(1, "d"), bytes_per_day=1)
    client, headers = app.test_client(), bearer(key.text) | {"Content-Type": "image/jpeg"}
    for _ in range(2):
        answer = client.post("/api/upload", data=photographs.photograph(), headers=headers)
        assert answer.status_code == 201
        assert limits_in(answer) == (None, None)
    queue = client.get("/api/health/queue", headers=headers).json
    assert queue["status"] == "unhealthy"
    assert "nobody's requests and bytes are limited" in queue["detail"]


def test_one_key_cannot_take_all_threads(app, client, create):
    headers = bearer(create())
    second = bearer(create("another"))
    answers = []

    @app.before_request
    def ask_meanwhile() -> None:
        """Stands for requests that are being answered while another one comes."""
        if len(answers) < 1:
            answers.append(None)
            with ThreadPoolExecutor(1) as thread:
                for key in (headers, second):
                    asked = thread.submit(app.test_client().get, "/api/limits", headers=key)
                    answers.append(asked.result())

    web_process.set_threads(2)
    try:
        first = client.get("/api/limits", headers=headers)
    finally:
        web_process.set_threads(web_process.DEFAULT_THREADS)
    assert first.status_code == answers[2].status_code == 200
    assert kind(answers[1]) == (429, "too_many_at_once")
    assert answers[1].headers["Retry-After"] == "1"
    assert client.get("/api/limits", headers=headers).status_code == 200


def test_signed_addresses_are_not_limited(app_with):
    app = app_with(AUTH="keys", RATE_LIMIT="1/d")
    client = app.test_client()
    key = app.extensions[EXTENSION].key_making.create("page", ("uploads:read", "uploads:write"))
    headers = bearer(key.text) | {"Content-Type": "image/jpeg"}
    sent = client.post("/api/upload", data=photographs.photograph(), headers=headers)
    address = sent.json["data"][0]["preview_url"]
    answers = [client.get(address, buffered=True) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200] * 3
    assert limits_in(answers[0]) == (None, None)
