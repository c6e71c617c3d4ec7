"""Secrets: whatever is said, by commands, logs, answers and files, none of them is in it."""

import copy
import json
import logging
import os
import pickle
import re
from pathlib import Path
from typing import Any

import photographs
import pytest
import requests
import structlog
from fork_server import run_program
from running import Servers, Up, wait_until
from web_side import WebSide
from workshop import FIRST_PARTY, Workshop

from clustr import logs
from clustr.domain import failure_messages
from clustr.domain.errors import StartUpError
from clustr.domain.secrets import Secret, Secrets, credentials_in, without_secrets, wrap_secrets
from clustr.settings import read_settings
from clustr.supervisor.servers import free_port

PHOTOGRAPH = photographs.encode(photographs.picture(), "jpg")

LEAKY = """
import requests
from marshmallow import Schema, fields
from clustr.plugins import Analyzer, Health, hookimpl

class Login(Schema):
    user = fields.String()
    word = fields.String(metadata={"secret": True})

class Config(Schema):
    token = fields.String(metadata={"secret": True, "env": "LEAKY_TOKEN"})
    key = fields.String(metadata={"secret": True})
    pin = fields.Integer(metadata={"secret": True})
    words = fields.List(fields.String(metadata={"secret": True}))
    login = fields.Nested(Login)
    service_url = fields.String()

class Result(Schema):
    ok = fields.Boolean()

class Leaky(Analyzer):
    result_schema = Result

    def __init__(self, name, step):
        self.name, self.step = name, step

    def setup(self, context):
        if self.step == "setup":
            raise RuntimeError(f"no setup with {dict(context.secrets)} {context}")

    def analyze(self, image, context):
        secrets = context.secrets
        token, word = secrets["token"], secrets["login"]["word"]
        context.log.info(f"with {token}", token=token, all=secrets, more=[dict(secrets)])
        context.log.info("went_on", header=f"Bearer {token}", word=word, pin=secrets["pin"])
        print(repr(token), secrets, context)
        if self.step == "address":
            requests.get("http://127.0.0.1:1/", params={"key": secrets["key"]}, timeout=1)
        if self.step == "setup":
            return {}
        raise ValueError(f"{word} was refused, {secrets['pin']}, {secrets['words'][0]}")

    def health(self, context):
        if self.step == "address":
            raise ValueError(f"not well: {context.secrets['key']}")
        detail = f"no {context.secrets['token']}"
        return Health(self.name, False, detail, context.config["service_url"])

@hookimpl
def clustr_config_schema():
    return Config

@hookimpl
def clustr_register_analyzers(config):
    return [Leaky(f"leaky_{step}", step) for step in ("setup", "address", "message")]
"""
ANALYZERS = ("leaky_setup", "leaky_address", "leaky_message")
PLANTED = {
    "token": "planted-of-a-variable",
    "key": "planted/of a prefix",
    "pin": "773311994",
    "words": "planted-of-a-list",
    "word": "planted-of-a-table",
    "service": "planted-of-a-service",
    "blip": "planted-of-blip",
    "mongodb": "planted-of-mongodb",
    "redis": "planted-of-redis",
}
FRAGMENTS = re.compile(r"planted[-/%]?|773311994")


def planted_environment(folder: Path) -> dict[str, str]:
    """The settings with a secret in every place that can have one, but for the two servers."""
    (folder / "plugins").mkdir()
    (folder / "plugins" / "leaky.py").write_text(LEAKY)
    (folder / "word").write_text(f"{PLANTED['word']}\n")
    (folder / "plugins.toml").write_text(
        f"[leaky]\npin = {PLANTED['pin']}\nwords = ['{PLANTED['words']}']\n"
        f"login = {{ user = 'somebody', word = {{ '$file' = '{folder / 'word'}' }} }}\n"
        f"service_url = 'http://me:{PLANTED['service']}@127.0.0.1:1/x?key={PLANTED['service']}'\n"
    )
    return {
        "PLUGINS_FOLDER": str(folder / "plugins"),
        "PLUGINS_CONFIG": str(folder / "plugins.toml"),
        "LEAKY_TOKEN": PLANTED["token"],
        "CLUSTR_PLUGIN__LEAKY__KEY": PLANTED["key"],
        "BLIP_SERVICE_URL": f"http://me:{PLANTED['blip']}@127.0.0.1:1",
    }


def run(folder: Path, environment: dict[str, str], *arguments: str) -> str:
    """All that a command prints."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    done = run_program(["-m", "clustr", *arguments], kept | environment, folder)
    return done.stdout + done.stderr


def assert_none_in(text: str, *passwords: str) -> None:
    fragments = re.compile("|".join([FRAGMENTS.pattern, *map(re.escape, passwords)]))
    found = fragments.search(text)
    assert not found, text[max(0, found.start() - 300) : found.end() + 100]


def written_files(folder: Path) -> list[Path]:
    """What was written in a folder, but for what the test itself put there."""
    return [p for p in folder.rglob("*") if p.is_file() and not p.is_symlink()]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    folder = tmp_path_factory.mktemp("place")
    environment = planted_environment(folder)
    (folder / "a.jpg").write_bytes(PHOTOGRAPH)
    return folder, environment


@pytest.mark.parametrize("name", ANALYZERS)
def test_running_an_analyzer_by_hand_shows_no_secret(place, name: str) -> None:
    folder, environment = place
    said = run(folder, environment, "plugins", "run", name, "a.jpg")
    assert "failed" in said or "deferred" in said
    assert_none_in(said)


def test_commands_about_plugins_show_no_secret(place) -> None:
    folder, environment = place
    commands = [
        ("list",), ("list", "--json"), ("show", "leaky"), ("show", "leaky", "--json"),
        ("show", "blip"), ("config", "leaky"), ("check",),
    ]  # fmt: skip
    for arguments in commands:
        said = run(folder, environment, "plugins", *arguments)
        assert "leaky" in said or "service_url" in said
        assert_none_in(said)


def test_what_cannot_be_loaded_shows_no_secret(place) -> None:
    folder, environment = place
    wrong = {**environment, "CLUSTR_PLUGIN__LEAKY__PIN": "planted-and-no-number"}
    said = run(folder, wrong, "plugins", "show", "leaky")
    assert "pin: it cannot be used" in said
    assert_none_in(said)


def use(url: str) -> dict[str, Any]:
    """Upload a picture, and wait for what the analyzers say of it; the upload."""
    files = {"files": ("a.jpg", PHOTOGRAPH)}
    id = requests.post(f"{url}/api/upload", files=files, timeout=60).json()["data"][0]["id"]

    def analyses() -> Any:
        found = requests.get(f"{url}/api/uploads/{id}", timeout=60).json()
        states = [found["analyses"][name]["status"] for name in ANALYZERS]
        return found if set(states) <= {"failed", "deferred"} else None

    return wait_until(analyses, 60, "the analyses")


def use_and_check_answers(url: str) -> None:
    """Upload a picture that all analyze, and look at all answers."""
    found = use(url)
    id = found["id"]
    assert "***" in found["analyses"]["leaky_message"]["error"]
    paths = ("/", "/api/health", "/api/plugins", "/api/plugins/leaky", "/api/uploads",
             f"/api/uploads/{id}/analyses", "/openapi.json", "/api/stats",
             f"/api/uploads/{id}", "/api/nothing")  # fmt: skip
    for path in paths:
        answer = requests.get(url + path, timeout=60)
        assert_none_in(answer.text + str(answer.headers))


def test_a_running_service_shows_no_secret(tmp_path: Path, servers: Servers) -> None:
    """Neither in what it prints nor in an answer or a file, whatever its analyzers do."""
    environment = planted_environment(tmp_path)
    service = tmp_path / "service"
    service.mkdir()
    up = Up(
        service,
        {
            **environment,
            "LOG_FORMAT": "json",
            "LOG_LEVEL": "debug",
            "WEB_WORKERS": "1",
            "MONGODB_URL": servers.mongodb_url,
            "MONGODB_DATABASE": "of_secrets",
            "REDIS_URL": servers.redis_url,
        },
        (),
    )
    try:
        use_and_check_answers(up.wait_until_started().url)
        wait_until(lambda: "analyzer_raised" in up.output(), 60, "the log")
        assert up.stop() == 0
    finally:
        up.end()
    assert "leaky.py" in up.output()
    assert_none_in(up.output(), *servers.passwords)
    for file in written_files(service):
        assert_none_in(file.read_bytes().decode("latin-1"), *servers.passwords)


def test_lines_for_people_show_no_secret(tmp_path: Path, servers: Servers) -> None:
    """What web and worker print has another form at a terminal."""
    environment = planted_environment(tmp_path)
    service = tmp_path / "service"
    service.mkdir()
    settings = {"LOG_FORMAT": "console", "LOG_LEVEL": "debug"}
    settings["PLUGINS_DISABLED"] = "dimensions,exif,palette,phash"  # which have no secret
    with Workshop(service, servers, **settings, **environment) as workshop:
        worker, web = workshop.worker(), WebSide(workshop)
        use(web.url)
        wait_until(lambda: "analyzer_raised" in worker.output(), 60, "the log")
        assert worker.stop() == 0
        assert "leaky.py" in worker.output()
        assert_none_in(web.gunicorn.output() + worker.output(), *servers.passwords)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("REDIS_URL", "redis://:planted:et/@x"),
        ("REDIS_URL", "redis://planted/et@x"),
        ("REDIS_URL", "redis://:planted#et@x"),
        ("REDIS_URL", "redis://:planted?et@x"),
        ("REDIS_URL", "redis://x:planted"),
        ("REDIS_URL", "redis://:planted]@x"),
        ("REDIS_URL", "redis://[planted@x"),
        ("REDIS_URL", ":planted@x"),
        ("REDIS_URL", "redis://x?password=planted&db=y"),
        ("MONGODB_URL", "mongodb://bob:planted:et/@x"),
        ("MONGODB_URL", "mongodb://bob:planted:et@x"),
        ("MONGODB_URL", "mongodb://bob:planted/et@x:1/a"),
        ("MONGODB_URL", "mongodb://bob:planted%zz@x"),
        ("MONGODB_URL", "mongo://bob:planted@x"),
        ("MONGODB_URL", "bob:planted@x"),
    ],
)
def test_an_address_that_cannot_be_used_is_not_shown(tmp_path: Path, name: str, value: str) -> None:
    (tmp_path / "plugins").mkdir()
    said = run(tmp_path, {name: value}, "worker" if name == "REDIS_URL" else "fsck")
    assert_refused(said, name)


def assert_refused(said: str, name: str) -> None:
    """See that a setting was refused, in one line without its value."""
    assert re.search(rf"^clustr: .*{name}", said, re.MULTILINE), said
    assert "Traceback" not in said
    assert_none_in(said)


@pytest.mark.parametrize("address", ["redis://:planted:et/@x", "redis://x:planted"])
def test_clustr_up_does_not_show_an_address_that_it_or_its_worker_refuses(
    tmp_path: Path, servers: Servers, address: str
) -> None:
    settings = {"MONGODB_URL": servers.mongodb_url, "PORT": str(free_port()), "HOST": "127.0.0.1"}
    assert_refused(run(tmp_path, settings | {"REDIS_URL": address}, "up"), "REDIS_URL")


def test_servers_that_are_away_or_refuse_show_no_password(tmp_path: Path, servers: Servers) -> None:
    """Neither `clustr fsck` nor an app, and nothing that the drivers say."""
    host = servers.redis_url.rpartition("@")[2]
    environment = {
        "MONGODB_URL": f"mongodb://bob:{PLANTED['mongodb']}@127.0.0.1:1/?serverSelectionTimeoutMS=9",
        "REDIS_URL": f"redis://bob:{PLANTED['redis']}@{host}",
    }
    (tmp_path / "plugins").mkdir()
    said = run(tmp_path, environment, "fsck") + run(
        tmp_path, environment, "analyze", "blip", "--missing"
    )
    assert "MongoDB" in said
    assert_none_in(said)
    assert_none_in(repr(read_settings(environment)))


def test_a_secret_is_used_as_a_text_and_not_shown_by_its_representation() -> None:
    secret = Secret("s3cr:et/ value")
    assert f"Bearer {secret}" == "Bearer s3cr:et/ value"
    assert secret == "s3cr:et/ value"
    assert json.dumps({"token": secret}) == '{"token": "s3cr:et/ value"}'
    request = requests.Request("GET", "http://x", headers={"X-Key": secret}).prepare()
    assert request.headers["X-Key"] == "s3cr:et/ value"
    for same in (copy.deepcopy(secret), pickle.loads(pickle.dumps(secret))):
        assert (same, repr(same)) == (secret, "***")
    assert f"{secret!r} {[secret]} { ({'token': secret}) }" == "*** [***] {'token': ***}"
    for form in (secret, "s3cr%3Aet%2F%20value", "s3cr%3Aet%2F+value"):
        assert without_secrets(f"?key={form}!") == "?key=***!"
    assert failure_messages.describe_exception(ValueError(f"no {secret}")) == "ValueError: no ***"


def test_secret_values_are_a_mapping_that_shows_names_alone() -> None:
    secrets = wrap_secrets({"login": {"user": "me", "pins": ["12345", 678901]}, "on": True})
    assert isinstance(secrets, Secrets)
    assert secrets["login"]["pins"] == ["12345", 678901]
    assert repr(secrets) == "{'login': ***, 'on': ***}"
    assert repr(secrets["login"]) == "{'user': ***, 'pins': ***}"
    assert without_secrets("with 678901") == "with ***"


@pytest.mark.parametrize(
    ("url", "found"),
    [
        ("redis://localhost:6379/0", set()),
        ("redis://:s3cr:et/@x", {"s3cr:et/"}),
        ("mongodb://u:p%40ss@a,b:2/?x=1", {"p%40ss", "p@ss"}),
        ("redis://x?password=a%20b", {"a b"}),
        ("http://[::1", set()),
        ("unix:///tmp/x.sock", set()),
    ],
)
def test_credentials_in_an_address(url: str, found: set[str]) -> None:
    assert credentials_in(url) == found


class _Unspeakable:
    def __repr__(self) -> str:
        raise RuntimeError("no")


ODD = "\x1b[31mred\x1b]0;title\x07 \u202eright to left\u2066 \ud800 \x00 \x9b31m\rover\nforged"


@pytest.mark.parametrize("log_format", ["console", "json"])
def test_a_log_line_gives_a_terminal_no_orders_and_cannot_fail(capfd, log_format) -> None:
    before = structlog.get_config()
    handlers, level = logging.root.handlers[:], logging.root.level
    try:
        logs.configure(log_format, "info")
        log = logs.logger("test")
        values = {"path": ODD, ODD: 1, "inner": {ODD: [ODD, _Unspeakable()]}, "it": _Unspeakable()}
        log.info(ODD, **values, huge=10**5000, deep=[[[[[[[ODD]]]]]]])
        logging.getLogger("another").info("said %s", ODD)
        try:
            raise ValueError(ODD)
        except ValueError:
            log.exception("raised")
    finally:
        structlog.configure(**before)
        logging.root.handlers[:] = handlers
        logging.root.setLevel(level)
    said = capfd.readouterr().err
    lines = said.splitlines()
    assert "Logging error" not in said
    assert [c for c in said if not c.isprintable() and c != "\n"] == []
    assert r"\x1b[31mred" in said
    assert r"\u202e" in said
    starts = [line for line in lines if not line.startswith("  ")]
    assert len(starts) == 3, said
    assert "forged" not in [line[:6] for line in lines]


def test_a_traceback_is_short_and_has_no_variables(capfd) -> None:
    def deeper(left: int, hidden: str) -> None:
        if not left:
            raise ValueError("at the bottom")
        deeper(left - 1, hidden)

    try:
        deeper(50, "planted-variable")
    except ValueError as error:
        text = logs.short_traceback((type(error), error, error.__traceback__))
    assert text.endswith("ValueError: at the bottom")
    assert len(text.splitlines()) < 30
    assert_none_in(text.replace('deeper(50, "planted-variable")', ""))


def test_a_start_that_fails_carries_no_cause_with_the_value() -> None:
    with pytest.raises(StartUpError) as caught:
        read_settings({"REDIS_URL": "redis://:planted:et/@x"})
    assert caught.value.__cause__ is None
    assert_none_in(str(caught.value))


def test_first_party_plugins_are_there_beside_the_planted_one(place) -> None:
    """Or the tests above would prove less than they seem to."""
    folder, environment = place
    found = json.loads(run(folder, environment, "plugins", "list", "--json"))
    states = {one["name"]: one["state"] for one in found["data"]}
    assert states == dict.fromkeys([*FIRST_PARTY, "leaky"], "loaded")
