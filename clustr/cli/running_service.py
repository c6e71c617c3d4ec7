"""The settings of the service that a command looks after."""

import dataclasses

from clustr.settings import Settings, read_settings
from clustr.supervisor import servers


def read_settings_of_running_service() -> Settings:
    """The settings, with the addresses of servers that a `clustr up` on the same data has started.

    Raises:
        StartUpError: a setting cannot be used.
    """
    settings = read_settings()
    noted = servers.read_addresses(settings.data_folder)
    started = {name.lower(): url for name, url in noted.items() if name not in settings.given}
    return dataclasses.replace(settings, **started)
