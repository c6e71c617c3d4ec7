"""Looking at all plugins from a shell, whatever they do and however broken the settings are."""

import contextlib
import dataclasses
import os
import sys
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from clustr import logs
from clustr.cli.plugin_description import describe_broken_plugin, describe_plugin
from clustr.cli.subprocess_check import ChildResult, Send, run_in_child
from clustr.domain.errors import InvalidSettings, NotFound, StartUpError
from clustr.domain.models import Upload
from clustr.plugin_manager import Candidate, check_enabled, load_plugins
from clustr.plugin_manager.configuration import read_tables
from clustr.plugin_manager.declarations import HEAVY
from clustr.settings import Settings, read_environment, read_settings

PLACES = {"PLUGINS_FOLDER", "PLUGINS_CONFIG"}


class NoUploads:
    """The library of a process without a database: there is nothing in it."""

    def get(self, upload_id: str) -> Upload:
        raise NotFound(f"There is no upload {upload_id}.")

    def find(
        self, analyzer: str, field: str, values: Sequence[Any], limit: int = 1000
    ) -> Sequence[Upload]:
        return ()

    def url_of(self, upload: Upload) -> str:
        return upload.filename


@dataclasses.dataclass(frozen=True, slots=True)
class InspectedPlugins:
    """All plugins, as plain values in the order in which they are loaded, and what to say besides.

    Attributes:
        warnings: what is configured but belongs to nothing.
    """

    plugins: list[dict[str, Any]]
    warnings: list[str]


@dataclasses.dataclass(frozen=True, slots=True)
class PluginSources:
    """Where plugins are found and configured.

    Attributes:
        problems: what would keep Clustr from starting.
    """

    settings: Settings
    problems: Sequence[str]


def find_sources() -> PluginSources:
    """Read the settings, or as much of them as can be used; what is wrong is said at once."""
    place = read_sources()
    for problem in place.problems:
        click.echo(f"clustr: {problem}", err=True)
    return place


def read_sources() -> PluginSources:
    """Read the settings, or as much of them as can be used."""
    environment = read_environment()
    problems: list[str] = []
    try:
        settings = read_settings(environment)
    except InvalidSettings as error:
        problems += error.problems.values()
        usable = {n: value for n, value in environment.items() if n not in error.problems}
        # What is not there is not replaced by a default that is.
        lost = {name.lower(): Path(environment[name]) for name in PLACES & error.problems.keys()}
        settings = dataclasses.replace(read_settings(usable), environment=environment, **lost)
    try:
        check_enabled(settings.plugins_folder, settings.plugins_enabled)
    except StartUpError as error:
        problems.append(str(error))
    try:
        read_tables(settings.plugins_config)
    except StartUpError as error:
        problems.append(str(error))
        settings = dataclasses.replace(settings, plugins_config=Path(os.devnull))
    return PluginSources(settings, problems)


def inspect_plugins(
    settings: Settings, seconds: float, lost: Mapping[str, str] | None = None
) -> InspectedPlugins:
    """Load all plugins in a process of their own, again without each that ends it.

    Args:
        seconds: how long one may take.
        lost: those that are known not to come to an end, with the reason.
    """
    lost = dict(lost or {})
    while True:
        trial = run_in_child(lambda send: _load_and_describe(settings, lost, send), seconds)
        if not trial.failure:
            return InspectedPlugins(**trial.sent[-1])
        culprit = trial.sent[-1]["at"] if trial.sent else None
        if culprit is None or culprit in lost:
            raise StartUpError(f"plugins cannot be loaded: {trial.failure}\n{trial.printed}")
        lost[culprit] = f"loading it: {trial.failure}"


def _load_and_describe(settings: Settings, lost: Mapping[str, str], send: Send) -> None:
    def at(name: str) -> None:
        send({"at": name})

    logs.configure("console", "critical")
    plugin_manager = load_plugins(
        settings.plugins_folder,
        settings.plugins_enabled,
        settings.plugins_disabled,
        settings.plugins_config,
        settings.environment,
        lost,
        at,
    )
    # Whether routes clash is seen where they are mounted: in the web processes.
    blueprints = plugin_manager.blueprints(
        lambda _plugin: NoUploads(), lambda _plugin, _blueprints: None
    )
    routes = Counter(plugin.name for plugin, _ in blueprints)
    told = []
    for plugin in plugin_manager.plugins:
        at(plugin.name)
        try:
            told.append(describe_plugin(plugin, routes[plugin.name]))
        except BaseException as error:
            told.append(describe_broken_plugin(plugin, error))
    send({"plugins": told, "warnings": plugin_manager.warnings})


def import_alone(candidate: Candidate, seconds: float) -> ChildResult:
    """Import one plugin in a process of its own, and see what else it does by that.

    What is sent: how long it took in seconds, which heavy modules came with it, and how many
    threads it began.
    """

    def run(send: Send) -> None:
        logs.configure("console", "critical")
        modules, threads = set(sys.modules), threading.active_count()
        began = time.perf_counter()
        with contextlib.suppress(BaseException):  # It is told when all are loaded together.
            candidate.load()
        send(
            {
                "seconds": time.perf_counter() - began,
                "heavy": sorted((set(sys.modules) - modules) & set(HEAVY)),
                "threads": threading.active_count() - threads,
            }
        )

    return run_in_child(run, seconds)
