"""The fixtures that pytest finds where Clustr is installed.

Every run of pytest in that environment imports this module, so it imports nothing: what a fixture
needs is imported when a test asks for it.
"""

# ruff: noqa: PLC0415

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from clustr.testing import HttpStandIn


@pytest.fixture
def clustr_samples(tmp_path: Path) -> "Callable[[str], Path]":
    """Copies a sample into the folder of the test: `clustr_samples("cmyk")`.

    The kinds are those of `clustr.testing.sample_image`.
    """
    from clustr.testing import sample_image

    return lambda kind: Path(shutil.copy(sample_image(kind), tmp_path))


@pytest.fixture
def clustr_http() -> "Iterator[HttpStandIn]":
    """A stand-in for the service that an analyzer calls; see `clustr.testing.HttpStandIn`."""
    from clustr.testing import HttpStandIn

    with HttpStandIn() as running:
        yield running
