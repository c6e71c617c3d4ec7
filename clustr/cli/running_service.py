"""Reads the settings of the service that a command works on."""

import dataclasses
from collections.abc import Sequence
from importlib import import_module
from typing import Any

from clustr.settings import Settings, read_settings
from clustr.supervisor import servers


def read_settings_of_running_service() -> Settings:
    """Read the settings, with the addresses of servers that `clustr up` started on the same data.

    Raises:
        StartUpError: a setting cannot be used.
    """
    return with_started_servers(read_settings())


def with_started_servers(settings: Settings) -> Settings:
    """Add the addresses of servers that `clustr up` started on the same data."""
    noted = servers.read_addresses(settings.data_folder)
    started: dict[str, Any] = {
        name.lower(): url for name, url in noted.items() if name not in settings.given
    }
    return dataclasses.replace(settings, **started)


def why_outdated(settings: Settings, plugins: Sequence[dict[str, Any]]) -> list[str]:
    """Say which processes of the service run other code of plugins than there is now.

    Args:
        plugins: what there is, as `describe_plugin` describes it.

    Returns:
        a sentence for each, and what to do; nothing where no service runs or Redis is away.
    """
    found = with_started_servers(settings)
    if "REDIS_URL" not in settings.given and found.redis_url == settings.redis_url:
        return []
    # Its imports take as long as all the rest of a command that needs no server.
    return import_module("clustr.cli.outdated_processes").describe(found, plugins)  # type: ignore[no-any-return]
