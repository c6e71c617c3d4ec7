"""The fixtures that pytest finds where Clustr is installed.

Every run of pytest in that environment imports this module, so it imports nothing: what a fixture
needs is imported when a test asks for it.
"""

# ruff: noqa: PLC0415

import itertools
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from clustr.testing import HttpStandIn, PluginApplication
    from clustr.testing.application import OwnServers


@pytest.fixture
def clustr_samples(tmp_path: Path) -> "Callable[[str], Path]":
    """Copies a sample into the folder of the test: `clustr_samples("cmyk")`.

    The kinds are those of `clustr.testing.sample_image`.
    """
    from clustr.testing import sample_image

    return lambda kind: Path(shutil.copy(sample_image(kind), tmp_path))


@pytest.fixture(scope="session")
def clustr_servers(tmp_path_factory: pytest.TempPathFactory) -> "Iterator[OwnServers]":
    """A MongoDB and a Redis for all tests, which `clustr install-servers` installs."""
    from clustr.testing.application import OwnServers

    running = OwnServers(tmp_path_factory.mktemp("servers"))
    try:
        yield running
    finally:
        running.stop()


@pytest.fixture
def clustr_app(
    clustr_servers: "OwnServers", tmp_path: Path
) -> "Iterator[Callable[..., PluginApplication]]":
    """Builds the web application with one plugin: `clustr_app("light")`; keywords are settings.

    They may be those of the plugin, such as `CLUSTR_PLUGIN__LIGHT__DARK_BELOW="0.3"`. It has no
    uploads but those of its `make_upload`; see `clustr.testing.PluginApplication`.
    """
    from clustr.testing import PluginApplication

    built: list[PluginApplication] = []
    numbers = itertools.count()

    def build(plugin: str, **settings: str) -> PluginApplication:
        folder = tmp_path / f"application{next(numbers)}"
        built.append(PluginApplication(clustr_servers, folder, plugin, settings))
        return built[-1]

    yield build
    for application in built:
        application.close()


@pytest.fixture
def clustr_http() -> "Iterator[HttpStandIn]":
    """A stand-in for the service that an analyzer calls; see `clustr.testing.HttpStandIn`."""
    from clustr.testing import HttpStandIn

    with HttpStandIn() as running:
        yield running
