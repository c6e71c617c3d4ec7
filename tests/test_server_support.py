"""What is said of a MongoDB or a Redis that its makers do not support any more."""

from datetime import UTC, date, datetime

import pytest
from pymongo import MongoClient
from redis import Redis
from running import Servers, wait_until
from workshop import Workshop

from clustr.domain.supported_releases import why_unsupported
from clustr.supervisor import servers as programs

TODAY = date(2026, 11, 29)


@pytest.mark.parametrize(
    ("product", "version", "said"),
    [
        (
            "MongoDB",
            "6.0.5",
            "MongoDB 6.0.5 is not supported by its makers since July 31, 2025; supported are 7.0, "
            "8.0 and what is newer.",
        ),
        (
            "MongoDB",
            "7.1.0",
            "MongoDB 7.1.0 is not supported by its makers any more; supported are 7.0, 8.0 and "
            "what is newer.",
        ),
        (
            "Redis",
            "5.0.14",
            "Redis 5.0.14 is not supported by its makers any more; supported are 6.2, 7.2, 7.4, "
            "8.0, 8.2 and what is newer.",
        ),
        ("MongoDB", "7.0.31", None),
        ("MongoDB", "8.0.4-rc1", None),
        ("MongoDB", "9.0.1", None),
        ("Redis", "6.2.14", None),
        ("Redis", "8.2.3", None),
        ("Redis", "8.10.0", None),
        ("Redis", "unknown", None),
    ],
)
def test_what_is_not_supported_is_said_with_what_is(product, version, said):
    assert why_unsupported(product, version, TODAY) == said


def test_support_ends_with_its_last_day():
    assert why_unsupported("Redis", "8.0.1", date(2026, 12, 1)) is None
    assert "since December 1, 2026;" in why_unsupported("Redis", "8.0.1", date(2026, 12, 2))
    last = why_unsupported("MongoDB", "8.0.1", date(2031, 1, 1))
    assert last == "MongoDB 8.0.1 is not supported by its makers since October 31, 2029."


def expected(versions: dict[str, str]) -> dict[str, str]:
    """What is to be said of servers of these versions today, by their products."""
    today = datetime.now(UTC).date()
    said = {product: why_unsupported(product, one, today) for product, one in versions.items()}
    return {product: sentence for product, sentence in said.items() if sentence}


def test_a_worker_says_it_of_servers_that_it_is_given(tmp_path, servers: Servers):
    with MongoClient(servers.mongodb_url) as mongo, Redis.from_url(servers.redis_url) as redis:
        versions = {
            "MongoDB": mongo.server_info()["version"],
            "Redis": redis.info("server")["redis_version"],
        }
    settings = {"MongoDB": "MONGODB_URL", "Redis": "REDIS_URL"}
    with Workshop(tmp_path, servers) as workshop:
        worker = workshop.worker()
        wait_until(lambda: len(worker.children()) >= 3, 60, "the processes of the worker")
        lines = [line for line in worker.lines() if line["event"] == "server_unsupported"]
    assert [(line["level"], line["reason"]) for line in lines] == [
        ("warning", f"{settings[product]}: {said}") for product, said in expected(versions).items()
    ]


def test_clustr_up_says_it_of_its_own_in_its_greeting_alone(service):
    found = {"MongoDB": programs.MONGOD, "Redis": programs.REDIS}
    versions = {n: programs.version_of(programs.find_program(one)) for n, one in found.items()}
    assert all(versions.values())
    printed = service.output()
    greeting = printed.partition("is explained at")[2].partition("Things to try")[0]
    notes = [line for line in greeting.splitlines() if line.startswith("  note: ")]
    said = expected(versions)
    assert len(notes) == len(said)
    for note, (product, sentence) in zip(notes, said.items(), strict=True):
        assert sentence in note
        assert f"or set {found[product].setting}." in note
    assert "server_unsupported" not in printed
