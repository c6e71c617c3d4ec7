"""Reads the settings of the service that a command works on."""

import contextlib
import dataclasses
import json
import os
from collections.abc import Iterator, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import click

from clustr.cli.inspect_plugins import inspect_plugins
from clustr.domain.errors import StartUpError
from clustr.settings import Settings, read_environment, read_settings
from clustr.supervisor import servers
from clustr.supervisor.forking import start_time

# Who sets one of these has said which service is meant.
CHOOSING = ("DATA_FOLDER", "MONGODB_URL", "MONGODB_DATABASE", "REDIS_URL", "REDIS_PREFIX")


def read_settings_of_running_service() -> Settings:
    """Read the settings, with the addresses of servers that `clustr up` started on the same data.

    When nothing says which service is meant, and none runs on the data of the working directory, it
    is the one that this account runs elsewhere; standard error says so.

    Raises:
        StartUpError: a setting cannot be used, or several services run elsewhere.
    """
    settings = read_settings()
    return with_started_servers(_service_elsewhere(settings) or settings)


def _service_elsewhere(settings: Settings) -> Settings | None:
    """The settings of the service that this account runs elsewhere; standard error names it.

    Returns:
        None when the settings say which is meant, when one runs on their data, or when none runs.

    Raises:
        StartUpError: several services run elsewhere.
    """
    is_chosen = settings.given.intersection(CHOOSING)
    if is_chosen or servers.read_addresses(settings.data_folder):
        return None
    running = list(_noted_services())
    if len(running) > 1:
        folders = ", ".join(str(service.data_folder) for service in running)
        raise StartUpError(f"several services run: say which is meant with DATA_FOLDER ({folders})")
    if not running:
        return None
    address = f"http://{running[0].host}:{running[0].port}"
    click.echo(f"clustr: using {address}, with DATA_FOLDER={running[0].data_folder}", err=True)
    return running[0]


def find_service_url(has_key: bool) -> str:
    """The address of the service that this account runs; standard error says which it is.

    Of several it is the one on the data of the settings.

    Args:
        has_key: whether a key is to be sent there, which is for no other service.

    Raises:
        StartUpError: a setting cannot be used, or it is not clear which service is meant.
    """
    settings, running = read_settings(), list(_noted_services())
    if len(running) > 1:
        here = [one for one in running if one.data_folder == settings.data_folder]
        addresses = ", ".join(map(url_of, running))
        if not here:
            raise StartUpError(f"several services run: say which is meant with --url ({addresses})")
        running = here
    if has_key and not running:
        raise StartUpError(
            "no service of this account runs, and the key is for no other that may answer here: "
            f"say with --url where the service is ({url_of(settings)}?)"
        )
    url = url_of(running[0] if running else settings)
    click.echo(f"clustr: using {url}", err=True)
    return url


def url_of(settings: Settings) -> str:
    """The address at which this host reaches the service with these settings."""
    host = reachable_host(settings.host)
    return f"http://{f'[{host}]' if ':' in host else host}:{settings.port}"


def reachable_host(host: str) -> str:
    """Return an address that reaches a server on `host`, which may mean every address."""
    return {"0.0.0.0": servers.LOOPBACK, "": servers.LOOPBACK, "::": "::1"}.get(host, host)  # noqa: S104


@contextlib.contextmanager
def note_running_service(settings: Settings) -> Iterator[None]:
    """Note for the block, for other commands of this account, where this `clustr up` runs."""
    note = {
        "pid": os.getpid(),
        "started_at": start_time(os.getpid()),
        "folder": str(Path.cwd()),
        # They may come from arguments.
        "settings": {
            "HOST": settings.host,
            "PORT": str(settings.port),
            "DATA_FOLDER": str(settings.data_folder),
        },
    }
    path = _notes_folder() / f"{os.getpid()}.json"
    with contextlib.suppress(OSError):  # Without a home, other commands have to be told.
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(note))
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)


def _notes_folder() -> Path:
    """The folder of notes: in the state folder of this account (XDG Base Directory)."""
    state = Path(os.environ.get("XDG_STATE_HOME") or "~/.local/state")
    try:
        return state.expanduser() / "clustr" / "running"
    except RuntimeError:  # It has no home.
        return Path(os.devnull) / "running"


def _noted_services() -> Iterator[Settings]:
    """The settings of each `clustr up` of this account that runs."""
    for path in sorted(_notes_folder().glob("*.json")):
        try:
            note = json.loads(path.read_text())
            if start_time(note["pid"]) != note["started_at"]:
                path.unlink()  # It was killed.
                continue
            variables = Path(f"/proc/{note['pid']}/environ").read_bytes().decode(errors="replace")
            own = dict(pair.split("=", 1) for pair in variables.split("\0") if "=" in pair)
            with contextlib.chdir(note["folder"]):
                yield read_settings(read_environment(own) | note["settings"])
        except (OSError, ValueError, KeyError, TypeError):  # It has just ended.
            continue


def with_started_servers(settings: Settings) -> Settings:
    """Add the addresses of servers that `clustr up` started on the same data."""
    noted = servers.read_addresses(settings.data_folder)
    started: dict[str, Any] = {
        name.lower(): url for name, url in noted.items() if name not in settings.given
    }
    return dataclasses.replace(settings, **started)


def why_outdated(settings: Settings, plugins: Sequence[dict[str, Any]], limit: float) -> list[str]:
    """Say which processes of the service run other code of plugins than there is now.

    Of a service that runs elsewhere the plugins are those that its own settings name.

    Args:
        plugins: what there is, as `describe_plugin` describes it.
        limit: how many seconds a plugin may take to load.

    Returns:
        a sentence for each, and what to do; nothing where no service runs or Redis is away.
    """
    try:
        elsewhere = _service_elsewhere(settings)
    except StartUpError as error:
        return [f"plugins are not compared with what runs: {error}"]
    if elsewhere:
        settings, plugins = elsewhere, inspect_plugins(elsewhere, limit).plugins
    found = with_started_servers(settings)
    if "REDIS_URL" not in settings.given and found.redis_url == settings.redis_url:
        return []
    # Its imports take as long as all the rest of a command that needs no server.
    return import_module("clustr.cli.outdated_processes").describe(found, plugins)  # type: ignore[no-any-return]
