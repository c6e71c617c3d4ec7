"""Objects: what a service sees in images, and where."""

from collections.abc import Iterable, Mapping
from typing import Any

from marshmallow import Schema, fields, validate

from clustr.plugins import Analyzer, Filter, HttpAnalyzer, HttpConfig, ServiceUrl, hookimpl

CLUSTR_API = 1


class ObjectsConfig(HttpConfig):
    """What an operator can configure; `clustr plugins config objects` shows how."""

    service_url = ServiceUrl(
        required=True, metadata={"description": "Where the service is that finds objects"}
    )


class FoundObject(Schema):
    """One thing in the image."""

    label = fields.String(required=True, metadata={"description": "What it is"})
    score = fields.Float(
        required=True,
        validate=validate.Range(0, 1),
        metadata={"description": "How sure the service is, from 0 to 1"},
    )
    box = fields.List(
        fields.Float(validate=validate.Range(0, 1)),
        required=True,
        validate=validate.Length(equal=4),
        metadata={"description": "Left, top, right and bottom, as fractions of width and height"},
    )


class ObjectsResult(Schema):
    """What is stored for each image: what the service answers, without what else it says."""

    objects = fields.List(fields.Nested(FoundObject), required=True)


class Objects(HttpAnalyzer):
    """Posts the image to `<service_url>/objects`. Raise `version` when results may be others."""

    name = "objects"
    version = 1
    result_schema = ObjectsResult
    summary = "Things in the image, and where they are"
    service = "object detector"
    path = "/objects"
    concurrency = 8  # Calls at a time: one that hangs does not hold back the others.


@hookimpl
def clustr_config_schema() -> type[Schema]:
    return ObjectsConfig


@hookimpl
def clustr_register_analyzers(config: Mapping[str, Any]) -> Iterable[Analyzer]:
    return [Objects(config)]


@hookimpl
def clustr_register_filters(config: Mapping[str, Any]) -> Iterable[Filter]:
    # GET /api/uploads?objects=dog,score>=0.9 asks for one object that meets both.
    return [
        Filter(
            name="objects",
            analyzer="objects",
            field="objects",
            type={"label": fields.String(), "score": fields.Float()},
            title="Things",
            summary="Things in the picture",
            indexed=True,
        )
    ]
