"""What the tests of a plugin need: beside `clustr.plugins` the other public door for its author.

    from clustr.testing import assert_analyzer_contract, run_analyzer, sample_image

No server is needed. The fixtures `clustr_samples` and `clustr_http` come with it: pytest finds them
by itself where Clustr is installed.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from clustr.analysis.runner import End
    from clustr.testing.contract import assert_analyzer_contract
    from clustr.testing.run import run_analyzer
    from clustr.testing.samples import BROKEN, KINDS, sample_image
    from clustr.testing.stand_in import HttpStandIn, Part, Received

__all__ = [
    "BROKEN",
    "KINDS",
    "End",
    "HttpStandIn",
    "Part",
    "Received",
    "assert_analyzer_contract",
    "run_analyzer",
    "sample_image",
]

# pytest imports this package in every run, for the fixtures; the rest is imported when it is used.
MODULES = {
    "BROKEN": "clustr.testing.samples",
    "End": "clustr.analysis.runner",
    "HttpStandIn": "clustr.testing.stand_in",
    "KINDS": "clustr.testing.samples",
    "Part": "clustr.testing.stand_in",
    "Received": "clustr.testing.stand_in",
    "assert_analyzer_contract": "clustr.testing.contract",
    "run_analyzer": "clustr.testing.run",
    "sample_image": "clustr.testing.samples",
}


def __getattr__(name: str) -> Any:
    """Import what is asked for."""
    if name not in MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(MODULES[name]), name)
