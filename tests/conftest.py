"""Fixtures that more than one file of tests uses."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from running import Servers, Up


@pytest.fixture(scope="session")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    """A real MongoDB and a real Redis; one pair for each process of pytest-xdist."""
    running = Servers(tmp_path_factory.mktemp("servers"))
    try:
        running.start()
        yield running
    finally:
        running.end()


@pytest.fixture
def up(tmp_path: Path) -> Iterator[Callable[..., Up]]:
    """Runs `clustr up` in the folder of the test; keywords are settings."""
    started: list[Up] = []

    def run(*arguments: str, **environment: str) -> Up:
        started.append(Up(tmp_path, environment, arguments))
        return started[-1]

    yield run
    for one in reversed(started):
        one.end()
