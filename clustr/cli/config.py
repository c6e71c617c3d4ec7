"""`clustr config`: what is set, where that comes from, and what is wrong with it."""

import os
import sys
from collections.abc import Iterator
from typing import Any

import click

from clustr.cli.inspect_plugins import (
    InspectedPlugins,
    PluginSources,
    find_sources,
    inspect_plugins,
    read_sources,
)
from clustr.cli.plugins import FINE, PROBLEMS, limit_of, line
from clustr.domain import failure_messages
from clustr.domain.secrets import HIDDEN
from clustr.imaging import images
from clustr.plugin_manager import PluginState
from clustr.settings import Settings, declared_settings, describe_unknown_variables


@click.group()
def config() -> None:
    """Say what the settings are, and what is wrong with them, without starting anything."""


@config.command()
@limit_of(30.0)
def check(limit: float) -> None:
    """Check all settings and the configuration of plugins.

    Exit code: 0 when all is fine, 1 when something would keep Clustr or a plugin from starting, or
    is set and has no effect.
    """
    place = read_sources()
    seen = inspect_plugins(place.settings, limit)
    problems = [*place.problems, *more_problems(place.settings, seen)]
    ignored = [
        *describe_unknown_variables(place.settings.environment, variables(seen)),
        *seen.warnings,
    ]
    for problem in problems:
        click.echo(f"problem: {line(problem)}")
    for sentence in ignored:
        click.echo(f"without effect: {line(sentence)}")
    if problems or ignored:
        sys.exit(PROBLEMS)
    click.echo("Nothing is wrong with the settings.")


def more_problems(settings: Settings, seen: InspectedPlugins) -> Iterator[str]:
    """What is found wrong only where a setting is used."""
    by_default = "ALLOWED_EXTENSIONS" not in settings.given
    try:
        images.formats_for(settings.allowed_extensions, leave_out=by_default)
    except ValueError as error:
        yield f"ALLOWED_EXTENSIONS: {error}"
    for one in seen.plugins:
        if one["state"] not in (PluginState.LOADED, PluginState.DISABLED):
            yield f"the plugin {one['name']} is {one['state']}: {one['reason']}"


def variables(seen: InspectedPlugins) -> set[str]:
    """The environment variables that plugins take configuration from."""
    return {name for one in seen.plugins for key in one["config"] for name in key["environment"]}


@config.command()
def show() -> None:
    """Show each setting, where it comes from, and its value; of addresses no user and password.

    What plugins are configured with is shown by `clustr plugins show NAME`. Exit code: 0, or 1 when
    a setting cannot be used.
    """
    place = find_sources()
    rows = list(rows_of(place))
    widths = [max(len(row[column]) for row in rows) for column in (0, 1)]
    for name, source, value in rows:
        click.echo(f"{name.ljust(widths[0])}  {source.ljust(widths[1])}  {value}".rstrip())
    sys.exit(PROBLEMS if place.problems else FINE)


def rows_of(place: PluginSources) -> Iterator[tuple[str, str, str]]:
    """Name, origin and value of each setting."""
    for field in declared_settings():
        name, value = field.name.upper(), getattr(place.settings, field.name)
        source = "default"
        if name in place.settings.given:
            source = "environment" if name in os.environ else ".env"
        text = written(value)
        if field.metadata["secret"]:
            text = failure_messages.without_credentials(text) or HIDDEN
        yield name, source, line(text)


def written(value: Any) -> str:
    """A value as it would be set."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return ",".join(value)
    return "" if value is None else str(value)
