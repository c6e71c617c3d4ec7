"""What the tests of a plugin need: beside `clustr.plugins` the other public door for its author.

    from clustr.testing import assert_analyzer_contract, run_analyzer, sample_image

No server is needed. The fixtures `clustr_samples` and `clustr_http` come with it: pytest finds them
by itself where Clustr is installed.
"""

from clustr.runner import End
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
