"""Inspects all plugins from a shell, even when plugins or settings are broken."""

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
from clustr.domain.errors import InvalidSettings, StartUpError
from clustr.plugin_manager import Candidate, EmptyLibrary, check_enabled, load_plugins
from clustr.plugin_manager.configuration import read_tables
from clustr.plugin_manager.declarations import HEAVY_PACKAGES
from clustr.plugin_manager.service_addresses import note_without_captioner
from clustr.settings import Settings, read_environment, read_settings

PATH_SETTINGS = {"PLUGINS_FOLDER", "PLUGINS_CONFIG"}


@dataclasses.dataclass(frozen=True, slots=True)
class InspectedPlugins:
    """The descriptions of all plugins.

    Attributes:
        plugins: what `describe_plugin` returns for each, in the order of loading.
        warnings: about configuration that belongs to no plugin.
        note: how to have captions, as long as no captioner is configured.
        contested_fields: the analyzers that would fill the same field of uploads, by the field; the
            one that does is first.
    """

    plugins: list[dict[str, Any]]
    warnings: list[str]
    note: str | None
    contested_fields: dict[str, list[str]]


@dataclasses.dataclass(frozen=True, slots=True)
class PluginSources:
    """The settings that say where plugins are found and configured.

    Attributes:
        settings: invalid ones are replaced by their defaults.
        problems: what would keep Clustr from starting.
    """

    settings: Settings
    problems: Sequence[str]


def read_sources_and_print_problems() -> PluginSources:
    """Read the usable settings, and print the problems of the others to standard error."""
    sources = read_sources()
    for problem in sources.problems:
        click.echo(f"clustr: {problem}", err=True)
    return sources


def read_sources() -> PluginSources:
    """Read the settings; those that are invalid become problems and take their defaults."""
    environment = read_environment()
    problems: list[str] = []
    try:
        settings = read_settings(environment)
    except InvalidSettings as error:
        problems += error.problems.values()
        usable = {n: value for n, value in environment.items() if n not in error.problems}
        # A path that does not exist stays, because its default could name other plugins.
        unusable_paths: dict[str, Any] = {
            name.lower(): Path(environment[name]) for name in PATH_SETTINGS & error.problems.keys()
        }
        settings = dataclasses.replace(
            read_settings(usable), environment=environment, **unusable_paths
        )
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
    settings: Settings, seconds: float, excluded: Mapping[str, str] | None = None
) -> InspectedPlugins:
    """Load and describe all plugins in a child process; if one ends it, repeat without that one.

    Args:
        seconds: how long one plugin may take.
        excluded: by name, why a plugin is not loaded; such as that its import hangs.

    Raises:
        StartUpError: the child process ended while it was not at a new plugin.
    """
    excluded = dict(excluded or {})
    while True:
        result = run_in_child(lambda send: _load_and_describe(settings, excluded, send), seconds)
        if not result.failure:
            return InspectedPlugins(**result.sent[-1])
        culprit = result.sent[-1]["at"] if result.sent else None
        if culprit is None or culprit in excluded:
            raise StartUpError(f"plugins cannot be loaded: {result.failure}\n{result.printed}")
        excluded[culprit] = f"loading it: {result.failure}"


def _load_and_describe(settings: Settings, excluded: Mapping[str, str], send: Send) -> None:
    def announce(name: str) -> None:
        send({"at": name})

    logs.configure("console", "critical")
    plugin_manager = load_plugins(
        settings.plugins_folder,
        settings.plugins_enabled,
        settings.plugins_disabled,
        settings.plugins_config,
        settings.environment,
        excluded,
        announce,
    )
    # Clashes of routes are not checked here: only web processes mount the routes.
    blueprints = plugin_manager.blueprints(EmptyLibrary, lambda _plugin, _blueprints: None)
    routes = Counter(plugin.name for plugin, _ in blueprints)
    descriptions = []
    for plugin in plugin_manager.plugins:
        announce(plugin.name)
        try:
            descriptions.append(
                describe_plugin(plugin, routes[plugin.name], plugin_manager.plugins)
            )
        except BaseException as error:
            descriptions.append(describe_broken_plugin(plugin, error))
    note = note_without_captioner(plugin_manager.plugins)
    send(
        {
            "plugins": descriptions,
            "warnings": plugin_manager.warnings,
            "note": note,
            "contested_fields": plugin_manager.contested_fields(),
        }
    )


def import_in_child(candidate: Candidate, seconds: float) -> ChildResult:
    """Import one plugin in a child process, and measure the side effects of its import.

    Returns:
        Its message has the duration in `seconds`, the names of `heavy` modules that were imported,
        and the number of `threads` that were started.
    """

    def run(send: Send) -> None:
        logs.configure("console", "critical")
        modules, threads = set(sys.modules), threading.active_count()
        began_at = time.perf_counter()
        with contextlib.suppress(BaseException):  # `inspect_plugins` reports the error.
            candidate.load()
        send(
            {
                "seconds": time.perf_counter() - began_at,
                "heavy": sorted((set(sys.modules) - modules) & set(HEAVY_PACKAGES)),
                "threads": threading.active_count() - threads,
            }
        )

    return run_in_child(run, seconds)
