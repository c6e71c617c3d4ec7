"""The public door for authors of plugins: everything they may import, and nothing else.

    from clustr.plugins import Analyzer, hookimpl

A plugin is a Python module that implements some of the hooks in `clustr.plugins.hooks`.
"""

from clustr.plugins.analyzer import Analyzer, Context, Health, Image
from clustr.plugins.hooks import hookimpl
from clustr.plugins.outcomes import ConfigError, Fail, Outcome, RetryLater, Skip

__all__ = [
    "Analyzer",
    "ConfigError",
    "Context",
    "Fail",
    "Health",
    "Image",
    "Outcome",
    "RetryLater",
    "Skip",
    "hookimpl",
]
