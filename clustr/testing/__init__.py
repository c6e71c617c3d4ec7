"""What the tests of a plugin need: beside `clustr.plugins` the other public door for its author.

    from clustr.testing import assert_analyzer_contract, run_analyzer, sample_image

No server is needed, but for `clustr_app`. The fixtures `clustr_samples`, `clustr_http` and
`clustr_app` come with it: pytest finds them by itself where Clustr is installed.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from clustr.analysis.ends import End
    from clustr.testing.application import PluginApplication
    from clustr.testing.contract import assert_analyzer_contract
    from clustr.testing.run import run_analyzer, run_batch
    from clustr.testing.samples import BROKEN, KINDS, sample_image
    from clustr.testing.stand_in import Answer, HttpStandIn, Part, Received

__all__ = [
    "BROKEN",
    "KINDS",
    "Answer",
    "End",
    "HttpStandIn",
    "Part",
    "PluginApplication",
    "Received",
    "assert_analyzer_contract",
    "run_analyzer",
    "run_batch",
    "sample_image",
]

# pytest imports this package in every run, for the fixtures; the rest is imported when it is used.
MODULES = {
    "Answer": "clustr.testing.stand_in",
    "BROKEN": "clustr.testing.samples",
    "End": "clustr.analysis.ends",
    "HttpStandIn": "clustr.testing.stand_in",
    "KINDS": "clustr.testing.samples",
    "Part": "clustr.testing.stand_in",
    "PluginApplication": "clustr.testing.application",
    "Received": "clustr.testing.stand_in",
    "assert_analyzer_contract": "clustr.testing.contract",
    "run_analyzer": "clustr.testing.run",
    "run_batch": "clustr.testing.run",
    "sample_image": "clustr.testing.samples",
}


def __getattr__(name: str) -> Any:
    """Import what is asked for."""
    if name not in MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(MODULES[name]), name)
