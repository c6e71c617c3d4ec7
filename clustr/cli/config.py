"""`clustr config`: shows the settings and where they come from, and checks them."""

import os
import sys
from collections.abc import Iterator
from typing import Any

import click

from clustr.cli.inspect_plugins import (
    InspectedPlugins,
    PluginSources,
    inspect_plugins,
    read_sources,
    read_sources_and_print_problems,
)
from clustr.cli.plugin_details import single_line
from clustr.cli.plugins import FINE, PROBLEMS, limit_option
from clustr.domain import failure_messages
from clustr.domain.errors import InvalidSettings
from clustr.domain.secrets import HIDDEN
from clustr.imaging.formats import formats_for
from clustr.plugin_manager import PluginState
from clustr.settings import (
    Settings,
    declared_settings,
    describe_unknown_variables,
    require_auth_choice,
)


@click.group()
def config() -> None:
    """Say what the settings are, and what is wrong with them, without starting anything."""


@config.command()
@limit_option(30.0)
def check(limit: float) -> None:
    """Check all settings and the configuration of plugins.

    Exit code: 0 when all is fine, 1 when something would keep Clustr or a plugin from starting, or
    is set and has no effect.
    """
    sources = read_sources()
    inspected = inspect_plugins(sources.settings, limit)
    problems = [
        *sources.problems,
        *find_problems_in_use(sources.settings),
        *find_problems_of_plugins(inspected),
    ]
    ignored = [
        *describe_unknown_variables(sources.settings.environment, plugin_variables(inspected)),
        *inspected.warnings,
    ]
    for problem in problems:
        click.echo(f"problem: {single_line(problem)}")
    for sentence in ignored:
        click.echo(f"without effect: {single_line(sentence)}")
    if problems or ignored:
        sys.exit(PROBLEMS)
    click.echo("Nothing is wrong with the settings.")


def find_problems_in_use(settings: Settings) -> Iterator[str]:
    """Yield what keeps a web process from starting, beyond what reading the settings finds."""
    try:
        require_auth_choice(settings, [settings.host])
    except InvalidSettings as error:
        yield str(error)
    formats_are_default = "ALLOWED_EXTENSIONS" not in settings.given
    try:
        formats_for(settings.allowed_extensions, leave_out=formats_are_default)
    except ValueError as error:
        yield f"ALLOWED_EXTENSIONS: {error}"


def find_problems_of_plugins(inspected: InspectedPlugins) -> Iterator[str]:
    """Yield why each plugin that should work does not."""
    for plugin in inspected.plugins:
        if plugin["state"] not in (PluginState.LOADED, PluginState.DISABLED):
            yield f"the plugin {plugin['name']} is {plugin['state']}: {plugin['reason']}"


def plugin_variables(inspected: InspectedPlugins) -> set[str]:
    """Return the environment variables that configure plugins."""
    return {
        name
        for plugin in inspected.plugins
        for key in plugin["config"]
        for name in key["environment"]
    }


@config.command()
@click.option("--web", is_flag=True, help="Check also what keeps a web process from starting.")
def show(web: bool) -> None:
    """Show each setting, where it comes from, and its value; of addresses no user and password.

    What plugins are configured with is shown by `clustr plugins show NAME`. Exit code: 0, or 1 when
    a setting cannot be used.
    """
    sources = read_sources_and_print_problems()
    problems = sources.problems
    if web and not problems:
        problems = [*find_problems_in_use(sources.settings)]
        for problem in problems:
            click.echo(f"clustr: {problem}", err=True)
    rows = list(setting_rows(sources))
    widths = [max(len(row[column]) for row in rows) for column in (0, 1)]
    for name, source, value in rows:
        click.echo(f"{name.ljust(widths[0])}  {source.ljust(widths[1])}  {value}".rstrip())
    sys.exit(PROBLEMS if problems else FINE)


def setting_rows(sources: PluginSources) -> Iterator[tuple[str, str, str]]:
    """Yield the name, source and printable value of each setting, without credentials."""
    for field in declared_settings():
        name, value = field.name.upper(), getattr(sources.settings, field.name)
        source = "default"
        if name in sources.settings.given:
            source = "environment" if name in os.environ else ".env"
        text = format_value(value)
        if name == "URL_SIGNING_KEYS" and not value:
            text = "made at the first start"
        elif field.metadata["secret"]:
            text = failure_messages.without_credentials(text) or HIDDEN
        yield name, source, single_line(text)


def format_value(value: Any) -> str:
    """Format a value as it would be in the environment."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return ",".join(value)
    return "" if value is None else str(value)
