"""Reads the settings of the service that a command works on."""

import dataclasses
from typing import Any

from clustr.settings import Settings, read_settings
from clustr.supervisor import servers


def read_settings_of_running_service() -> Settings:
    """Read the settings, with the addresses of servers that `clustr up` started on the same data.

    Raises:
        StartUpError: a setting cannot be used.
    """
    settings = read_settings()
    noted = servers.read_addresses(settings.data_folder)
    started: dict[str, Any] = {
        name.lower(): url for name, url in noted.items() if name not in settings.given
    }
    return dataclasses.replace(settings, **started)
