"""Sharpness: how sharp an image is, as one number by which uploads are found."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy
from marshmallow import Schema, fields

from clustr.plugins import Analyzer, Context, Filter, Image, hookimpl, to_rgb

CLUSTR_API = 1

LONGEST_SIDE = 512  # Numbers of pictures of different sizes can be compared.


class SharpnessResult(Schema):
    """What is stored for each image."""

    score = fields.Float(
        required=True,
        metadata={
            "description": "The standard deviation of the second differences of the lightness, "
            "which is from 0 to 1: 0 for a plain image, above 0.05 for a sharp one"
        },
    )


class Sharpness(Analyzer):
    """Raise `version` when the same image may now give another result."""

    name = "sharpness"
    version = 1
    result_schema = SharpnessResult
    summary = "How sharp the image is"

    def analyze(self, image: Image, context: Context) -> dict[str, Any]:
        picture = image.open(at_least=LONGEST_SIDE, color_managed=False)
        gray = to_rgb(picture, LONGEST_SIDE).convert("L")
        lightness = numpy.pad(numpy.asarray(gray, numpy.float32) / 255, 1, mode="edge")
        beside = (
            lightness[:-2, 1:-1] + lightness[2:, 1:-1] + lightness[1:-1, :-2] + lightness[1:-1, 2:]
        )
        return {"score": round(float((beside - 4 * lightness[1:-1, 1:-1]).std()), 4)}


@hookimpl
def clustr_register_analyzers(config: Mapping[str, Any]) -> Iterable[Analyzer]:
    return [Sharpness()]


@hookimpl
def clustr_register_filters(config: Mapping[str, Any]) -> Iterable[Filter]:
    return [
        Filter(
            name=name,
            analyzer="sharpness",
            field="score",
            type=fields.Float(),
            operators=(operator,),
            title=title,
            indexed=True,
        )
        for name, operator, title in (
            ("min_sharpness", "gte", "At least so sharp"),
            ("max_sharpness", "lte", "At most so sharp"),
        )
    ]
