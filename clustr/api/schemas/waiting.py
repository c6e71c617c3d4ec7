"""Schemas of requests that can wait for analyses."""

from typing import Any

from marshmallow import Schema, ValidationError, fields, validate

from clustr.api.http.fields import strip_spaces
from clustr.api.http.request_context import components


class AnalyzerNames(fields.String):
    """A comma-separated list of analyzers."""

    def _deserialize(self, value: Any, *args: Any, **kwargs: Any) -> Any:
        text = super()._deserialize(value, *args, **kwargs)
        names = [strip_spaces(name) for name in text.split(",")]
        known = components.plugin_manager.analyzers
        for name in names:
            if name not in known:
                raise ValidationError(
                    f"There is no analyzer `{name[:100]}`. Give some of these, with commas between "
                    f"them: {', '.join(known) or 'none'}."
                )
        return names


def wait_for_field(default: str) -> AnalyzerNames:
    """Make the field for the analyzers to wait for.

    Args:
        default: for which analyses the request waits without it.
    """
    return AnalyzerNames(
        metadata={
            "description": "With `Prefer: wait=…`: the analyzers whose analyses to wait for, with "
            f"commas between them, such as `blip,exif`. By default {default}."
        }
    )


class WaitQuerySchema(Schema):
    """The query of a request for an upload."""

    wait_for = wait_for_field("all analyses of the upload")


class RunQuerySchema(Schema):
    """The query of a request to run an analysis."""

    if_ = fields.String(
        data_key="if",
        validate=validate.OneOf(["missing"]),
        metadata={
            "description": "`missing`: run it only if there is no result yet. A result that is "
            "there is the answer (200), and so is that the analyzer has skipped the upload; an "
            "analysis that is under way is not begun again, and no error.",
        },
    )
    wait_for = wait_for_field("this one")
