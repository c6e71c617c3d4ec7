"""The public door for authors of plugins: everything they may import, and nothing else.

    from clustr.plugins import Analyzer, hookimpl

A plugin is a Python module that implements some of the hooks in `clustr.plugins.hooks`.
"""

from clustr.domain.access import Scope, needs
from clustr.domain.errors import InvalidInput, NoResult, NotFound
from clustr.domain.models import Analysis, Upload
from clustr.plugins.analyzer import Analyzer, Context, Health, Image, ModelResult
from clustr.plugins.captions import (
    CaptionConfig,
    CaptionResult,
    clean_caption,
    clean_tags,
    clean_text,
)
from clustr.plugins.commands import as_json, print_json, show_progress
from clustr.plugins.filters import Filter
from clustr.plugins.hooks import hookimpl
from clustr.plugins.http import HttpAnalyzer, HttpConfig, ServiceUrl, said_in
from clustr.plugins.library import Library, SimilarUpload
from clustr.plugins.outcomes import ConfigError, Fail, Outcome, RetryLater, Skip
from clustr.plugins.pixel_formats import to_rgb, to_rgba
from clustr.plugins.sent_images import as_sent
from clustr.plugins.vectors import Vector

__all__ = [
    "Analysis",
    "Analyzer",
    "CaptionConfig",
    "CaptionResult",
    "ConfigError",
    "Context",
    "Fail",
    "Filter",
    "Health",
    "HttpAnalyzer",
    "HttpConfig",
    "Image",
    "InvalidInput",
    "Library",
    "ModelResult",
    "NoResult",
    "NotFound",
    "Outcome",
    "RetryLater",
    "Scope",
    "ServiceUrl",
    "SimilarUpload",
    "Skip",
    "Upload",
    "Vector",
    "as_json",
    "as_sent",
    "clean_caption",
    "clean_tags",
    "clean_text",
    "hookimpl",
    "needs",
    "print_json",
    "said_in",
    "show_progress",
    "to_rgb",
    "to_rgba",
]
