"""Width and height of an image, as it is displayed: the smallest analyzer there is."""

from collections.abc import Iterable, Mapping
from typing import Any

from marshmallow import Schema, fields

from clustr.plugins import Analyzer, Context, Image, hookimpl


class DimensionsResult(Schema):
    """In pixels, after the EXIF orientation is applied."""

    width = fields.Integer(required=True, metadata={"description": "Pixels"})
    height = fields.Integer(required=True, metadata={"description": "Pixels"})


class Dimensions(Analyzer):
    """Reads the header. The pixels were read when the upload was accepted.

    An upload has its dimensions from the start, so this fills none of the upload's fields.
    """

    name = "dimensions"
    version = 1
    result_schema = DimensionsResult
    summary = "Width and height in pixels, as displayed"

    def analyze(self, image: Image, context: Context) -> dict[str, Any]:
        width, height = image.displayed_size()
        return {"width": width, "height": height}


@hookimpl
def clustr_register_analyzers(config: Mapping[str, Any]) -> Iterable[Analyzer]:
    return [Dimensions()]
