"""Sources of plugins that add to the API: filters, routes and typed results."""

# The analyzer of the documentation, with filters.
BRIGHTNESS = """
from PIL import ImageStat
from marshmallow import Schema, fields
from clustr.plugins import Analyzer, Filter, Skip, hookimpl

class BrightnessResult(Schema):
    mean = fields.Float(required=True, metadata={"description": "From 0 to 255"})
    dark = fields.Boolean(required=True, metadata={"description": "Whether it is below 128"})
    marks = fields.List(fields.String(), required=True, metadata={"description": "Some words"})

class Brightness(Analyzer):
    name = "brightness"
    version = 1
    result_schema = BrightnessResult
    summary = "Mean luminance of the image"

    def analyze(self, image, context):
        if image.width == 13:
            raise Skip("nothing to say of it")
        gray = image.open().convert("L")
        mean = ImageStat.Stat(gray).mean[0]
        marks = ["low"] if mean < 100 else ["high", "very"] if mean > 200 else ["high"]
        return {"mean": mean, "dark": mean < 128, "marks": marks}

@hookimpl
def clustr_register_analyzers(config):
    return [Brightness()]

@hookimpl
def clustr_register_filters(config):
    every = ("eq", "ne", "gt", "gte", "lt", "lte")
    return [
        Filter(analyzer="brightness", field="mean", type=fields.Float(), operators=every,
               summary="Mean luminance", indexed=True),
        Filter(analyzer="brightness", field="dark", type=fields.Boolean()),
        Filter(analyzer="brightness", field="marks", type=fields.String(), operators=("eq", "ne")),
    ]
"""

SIZE = """
from marshmallow import Schema, fields
from clustr.plugins import Analyzer, Filter, hookimpl

class Result(Schema):
    mean = fields.Integer(required=True, metadata={"description": "A number of the same name"})

class Size(Analyzer):
    name = "size"
    result_schema = Result

    def analyze(self, image, context):
        return {"mean": image.width}

@hookimpl
def clustr_register_analyzers(config):
    return [Size()]

@hookimpl
def clustr_register_filters(config):
    return [Filter(analyzer="size", field="mean", type=fields.Integer(), operators=("eq", "gt"))]
"""

ROUTES = '''
import sys
from flask import abort
from flask_smorest import Blueprint
from flask_smorest import abort as abort_with
from marshmallow import Schema, fields
from clustr.plugins import InvalidInput, NotFound, hookimpl

class Upload(Schema):
    name = fields.String(metadata={"description": "Of the same name as one of Clustr's schemas"})

@hookimpl
def clustr_register_blueprints(config, library):
    blueprint = Blueprint("uploads", __name__, url_prefix="/looks")

    @blueprint.route("/<upload_id>")
    @blueprint.response(200, Upload)
    def get_upload(upload_id):
        """Get the name of an upload"""
        return {"name": library.get(upload_id).original_name}

    @blueprint.route("/<upload_id>", methods=["DELETE"])
    def refuse(upload_id):
        raise NotFound("There is no look at " + upload_id)

    @blueprint.route("/wrong/<how>")
    @blueprint.alt_response(422, "UNPROCESSABLE_CONTENT")
    def wrong(how):
        if how == "abort":
            abort(404)
        if how == "message":
            abort_with(409, message="It is being looked at.")
        if how == "input":
            raise InvalidInput({"how": ["Not like this."]})
        if how == "exit":
            sys.exit(3)
        if how == "find":
            return library.find("brightness", "mean", [1])
        raise ValueError("a secret of the plugin")

    return [blueprint]
'''
