"""`clustr up`: runs web, worker, MongoDB and Redis on one machine, in the foreground."""

import functools
import http.client
import json
import os
import shlex
import signal
import sys
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from PIL import Image

from clustr import __version__, storage
from clustr.cli.code_watch import CodeWatch
from clustr.cli.first_key import KeyOfExamples, key_of_examples
from clustr.cli.plugin_details import single_line
from clustr.cli.running_service import note_running_service, reachable_host, url_of
from clustr.database.replica_set import ensure_primary
from clustr.domain.errors import DatabaseUnavailable, StartUpError
from clustr.domain.supported_releases import why_unsupported
from clustr.plugin_manager import (
    LoadLimit,
    check_enabled,
    find_candidates,
    ignored_names,
    ignored_variables,
    notes_folder,
)
from clustr.settings import Settings, describe_unknown_variables, require_auth_choice
from clustr.supervisor import servers
from clustr.supervisor.child import Child
from clustr.supervisor.forking import command_starter
from clustr.supervisor.readiness import ForkedCheck, Notification
from clustr.supervisor.supervisor import Supervisor

# How long each process may take to stop. Together they take less than ten seconds.
STOP_SECONDS = {"web": 4.0, "worker": 3.0, "redis": 0.5, "mongod": 2.0}

READY_SECONDS = 30.0


def up(settings: Settings, workers: int, captioner: bool = False) -> int:
    """Run the service until a signal ends it.

    Args:
        settings: MongoDB and Redis are started unless their addresses are among `given`.
        workers: how many RQ workers to run.
        captioner: whether to run `clustr captioner`, too, for the plugin `blip`.

    Returns:
        The exit code.

    Raises:
        StartUpError: a program or folder is missing or in use, or a process does not start.
    """
    require_auth_choice(settings, [settings.host])
    data = settings.data_folder
    check_enabled(settings.plugins_folder, settings.plugins_enabled)
    servers.check_port(settings.host, settings.port)
    servers.make_folder(data, "DATA_FOLDER")
    lock = servers.lock_folder(data)
    passwords = servers.make_passwords(data)
    servers.make_folder(settings.upload_folder, "UPLOAD_FOLDER", storage.FOLDER_MODE)
    children: list[Child] = []
    started: dict[str, str] = {}
    if "MONGODB_URL" not in settings.given:
        child, started["MONGODB_URL"] = _mongod_child(data, lock, passwords)
        children.append(child)
    if "REDIS_URL" not in settings.given:
        child, started["REDIS_URL"] = _redis_child(data, passwords)
        children.append(child)
    servers.write_addresses(data, started)
    if captioner:
        child, started["BLIP_SERVICE_URL"] = _captioner_child()
        children.append(child)
    environment = _child_environment(settings) | started
    children += [_worker_child(settings, environment, workers), _web_child(settings, environment)]
    code_changed = CodeWatch(settings) if settings.reload else None
    supervisor = Supervisor(children, code_changed=code_changed)
    if storage.is_world_readable(data):
        supervisor.print_line(
            f"DATA_FOLDER={data} can be read by every account of this machine; "
            f"chmod 700 {shlex.quote(str(data))} keeps it to its owner"
        )
    with note_running_service(settings):
        return supervisor.run(
            lambda: supervisor.print_line(_welcome_text(settings, workers, environment))
        )


def _child_environment(settings: Settings) -> dict[str, str]:
    environment = dict(os.environ, PYTHONUNBUFFERED="1")
    # The service manager (sd_notify(3)) waits for us, not for gunicorn.
    environment.pop("NOTIFY_SOCKET", None)
    if settings.log_format == "auto" and sys.stdout.isatty():
        environment["LOG_FORMAT"] = "console"  # for the children standard output is a pipe
    return environment


def _mongod_child(data: Path, lock: int, passwords: servers.Passwords) -> tuple[Child, str]:
    program = servers.find_program(servers.MONGOD)
    for folder in ("mongodb", "log"):
        servers.make_folder(data / folder, "DATA_FOLDER")
    port = servers.free_port()
    arguments = servers.mongod_arguments(program, port, data)
    child = Child(
        "mongod",
        # mongod inherits the lock on its data, so that the lock lasts until mongod has ended.
        command_starter(arguments, os.environ, inherited=[lock]),
        # In a process of its own, because a client of MongoDB has threads, which forks lose.
        ready=ForkedCheck(functools.partial(_become_primary, port, passwords)),
        ready_seconds=60,  # after a crash it reads its journal first
        stop_seconds=STOP_SECONDS["mongod"],
        log_file=servers.mongod_log(data),
        reopen_log=signal.SIGUSR1,
    )
    return child, servers.mongodb_url(port, passwords)


def _become_primary(port: int, passwords: servers.Passwords) -> int:
    """Make mongod the primary of its replica set; return 0 as exit code when it is."""
    try:
        ensure_primary(
            servers.LOOPBACK,
            port,
            servers.REPLICA_SET,
            passwords.mongodb_key,
            servers.MONGODB_USER,
            passwords.mongodb,
            seconds=30,
        )
    except DatabaseUnavailable:
        return 1
    return 0


def _redis_child(data: Path, passwords: servers.Passwords) -> tuple[Child, str]:
    program = servers.find_program(servers.REDIS)
    for folder in ("redis", "log"):
        servers.make_folder(data / folder, "DATA_FOLDER")
    port = servers.free_port()
    child = Child(
        "redis",
        command_starter(servers.redis_arguments(program, port, data), os.environ),
        ready=lambda: servers.redis_answers(port, passwords),
        stop_seconds=STOP_SECONDS["redis"],
        log_file=servers.redis_log(data),
    )
    return child, servers.redis_url(port, passwords)


def _captioner_child() -> tuple[Child, str]:
    """The captioner, which nothing waits for: it may have to download its model first."""
    if find_spec("torch") is None or find_spec("transformers") is None:
        raise StartUpError("--captioner needs more packages: pip install 'clustr[captioner]'")
    port = servers.free_port()
    arguments = [sys.executable, "-m", "clustr", "captioner", "--port", str(port)]
    starter = command_starter(arguments, {**os.environ, "PYTHONUNBUFFERED": "1"})
    return Child("captioner", starter), f"http://{servers.LOOPBACK}:{port}"


class PluginNotes:
    """Tells whether a plugin has ended its process since the last call.

    Then the start is to be made again, without that plugin.
    """

    def __init__(self, settings: Settings):
        self._limit = LoadLimit(folder=notes_folder(settings.environment))
        self._seen = set(self._limit.notes())

    def __call__(self) -> bool:
        new = set(self._limit.notes()) - self._seen
        self._seen |= new
        return bool(new)


def _ready_seconds(settings: Settings) -> float:
    """How long a process that loads plugins may take to start, if every plugin hangs."""
    candidates = len(list(find_candidates(settings.plugins_folder)))
    return READY_SECONDS + settings.plugins_load_seconds * candidates


def _worker_child(settings: Settings, environment: dict[str, str], workers: int) -> Child:
    arguments = [sys.executable, "-m", "clustr", "worker", "--workers", str(workers)]
    servers.make_folder(settings.data_folder / "log", "DATA_FOLDER")
    ready = Notification()
    return Child(
        "worker",
        command_starter(arguments, {**environment, "NOTIFY_SOCKET": ready.address}),
        ready=ready,
        ready_seconds=_ready_seconds(settings),
        starts_again=PluginNotes(settings),
        copy_to=servers.worker_log(settings.data_folder),
        reload_by=signal.SIGHUP,
        stop_seconds=STOP_SECONDS["worker"],
    )


def _web_child(settings: Settings, environment: dict[str, str]) -> Child:
    arguments = [
        sys.executable,
        "-m",
        "gunicorn",
        "-c",
        "python:clustr.supervisor.gunicorn_settings",
    ]
    if settings.reload:
        arguments.append("--reload")
    return Child(
        "web",
        command_starter([*arguments, "clustr.app:create_app()"], environment),
        ready=ForkedCheck(lambda: _check_web(reachable_host(settings.host), settings.port)),
        ready_seconds=_ready_seconds(settings),
        reload_by=signal.SIGHUP,
        stop_seconds=STOP_SECONDS["web"],
    )


def _check_web(host: str, port: int) -> int:
    """Request `/api/health/live`; return 0 as exit code when the web process answers."""
    connection = http.client.HTTPConnection(host, port, timeout=5)
    try:
        connection.request("GET", "/api/health/live")
        return int(connection.getresponse().status != http.HTTPStatus.OK)
    except (OSError, http.client.HTTPException):
        return 1


def _ignored_settings_lines(settings: Settings) -> str:
    """List the settings without effect, as far as they are known without loading plugins."""
    plugins = [candidate.name for candidate in find_candidates(settings.plugins_folder)]
    sentences = [
        *describe_unknown_variables(settings.environment),
        *ignored_names(settings.plugins_enabled, settings.plugins_disabled, plugins),
        *ignored_variables(settings.environment, plugins),
    ]
    return "".join(f"  without effect: {sentence}\n" for sentence in sentences)


def _welcome_text(settings: Settings, workers: int, environment: dict[str, str]) -> str:
    """Say what was started, where the data is, and three commands to try."""
    data = settings.data_folder
    host, url = reachable_host(settings.host), url_of(settings)
    key = key_of_examples(settings) if settings.auth == "keys" else None

    def server_location(setting: str, folder: Path) -> str:
        if setting in settings.given:
            return f"the one of {setting}"
        address = urlsplit(environment[setting]).netloc.rpartition("@")[2]
        return f"{folder}, at {address}, with the password in {data / servers.ADDRESSES}"

    notes = key.note if key else ""
    notes += _captions_line(host, settings.port, key)
    notes += _plugins_lines(host, settings.port, key)
    notes += _ignored_settings_lines(settings) + _unsupported_servers_lines(settings)
    curl = f"curl -H {key.header}" if key else "curl"
    return f"""
Clustr {__version__} shows its images in a browser at {url}, its API is explained at {url}/docs

  web      {settings.web_workers} processes
  workers  {workers}
  MongoDB  {server_location("MONGODB_URL", data / "mongodb")}
  Redis    {server_location("REDIS_URL", data / "redis")}
  uploads  {settings.upload_folder}
  logs     {data / "log"}
{notes}
Things to try:

  {curl} -F {shlex.quote(f"files=@{_sample_image(data)}")} {url}/api/upload
  {curl} {url}/api/uploads
  {curl} {url}/api/health

Ctrl-C ends all of it.
"""


def _captions_line(host: str, port: int, key: KeyOfExamples | None) -> str:
    """Say how to have captions, as long as no captioner is configured."""
    captioner = _read_health(host, port, "captioner", key)
    is_missing = captioner.get("status") in ("not_configured", "disabled")
    return f"  captions {captioner['detail']}\n" if is_missing else ""


def _plugins_lines(host: str, port: int, key: KeyOfExamples | None) -> str:
    """Say which plugins the web side could not load, and why."""
    reasons = _read_health(host, port, "plugins", key).get("not_loaded", {})
    return "".join(
        f"  plugin   {name} is not loaded: {single_line(reason)}\n"
        for name, reason in reasons.items()
    )


def _read_health(host: str, port: int, service: str, key: KeyOfExamples | None) -> dict[str, Any]:
    """Read how a service is; empty where that cannot be read, which health itself says later."""
    connection = http.client.HTTPConnection(host, port, timeout=5)
    headers = {"X-API-Key": key.text} if key and key.text else {}
    try:
        connection.request("GET", f"/api/health/{service}", headers=headers)
        response = connection.getresponse()
        body = json.loads(response.read())
    except (OSError, http.client.HTTPException, ValueError):
        return {}
    return body if response.status == http.HTTPStatus.OK else {}


def _unsupported_servers_lines(settings: Settings) -> str:
    """Warn of servers started here whose version is no longer supported by its vendor.

    For other servers the workers log the warning.
    """
    today = datetime.now(UTC).date()
    lines = []
    for product, program in (("MongoDB", servers.MONGOD), ("Redis", servers.REDIS)):
        if program.setting in settings.given:
            continue
        version = servers.version_of(servers.find_program(program))
        if warning := version and why_unsupported(product, version, today):
            lines.append(
                f"  note: {warning} For a trial that is fine: it is reached from this machine "
                f"alone, with its password. For more, install another {program.name} on PATH, or "
                f"set {program.setting}.\n"
            )
    return "".join(lines)


def _sample_image(data: Path) -> Path:
    """Return the path of a small image to upload; the first start creates it."""
    path = data / "sample.jpg"
    if not path.exists():
        rising = Image.linear_gradient("L").resize((640, 480))
        falling = rising.transpose(Image.Transpose.ROTATE_180)
        Image.merge("RGB", (rising, Image.radial_gradient("L").resize((640, 480)), falling)).save(
            path, quality=85
        )
    return path
