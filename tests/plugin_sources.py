"""Sources of plugins that more than one file of tests uses, and what is loaded of them."""

from collections.abc import Callable

from workshop import analyzer

from clustr.plugin_manager import Plugin, PluginManager

Load = Callable[..., PluginManager]

GOOD = analyzer("good", "return {}")

CONFIGURED = (
    GOOD
    + """
class Config(Schema):
    colour = fields.String(load_default="grey", metadata={"env": "FAVOURITE_COLOUR"})
    size = fields.Integer(required=True)
    password = fields.String(load_default="", metadata={"secret": True})

@hookimpl
def clustr_config_schema():
    return Config
"""
)

# From DESIGN.md, section 5, word for word.
BRIGHTNESS = """
from PIL import ImageStat
from marshmallow import Schema, fields
from clustr.plugins import Analyzer, hookimpl

class BrightnessResult(Schema):
    mean = fields.Float(required=True)

class Brightness(Analyzer):
    name = "brightness"              # unique, [a-z][a-z0-9_]*; the key of its results
    version = 1                      # raise it when the same image may now give another result
    result_schema = BrightnessResult
    summary = "Mean luminance of the image"

    def analyze(self, image, context):
        gray = image.open().convert("L")          # a PIL image, oriented, within the pixel limit
        return {"mean": ImageStat.Stat(gray).mean[0]}

@hookimpl
def clustr_register_analyzers(config):
    return [Brightness()]
"""


def top(code: str) -> str:
    """A plugin that does this when it is imported."""
    return f"import ctypes, os, sys, time\n{code}\n{GOOD}"


SECRETIVE = (
    GOOD
    + """
from marshmallow import ValidationError, validate, validates_schema

class Login(Schema):
    user = fields.String()
    word = fields.String(validate=validate.Length(min=12, error="{input} is short"),
                         metadata={"secret": True})

class Config(Schema):
    token = fields.Integer(metadata={"secret": True})
    pin = fields.String(validate=validate.OneOf(["x"], error="{input} is none of {choices}"),
                        metadata={"secret": True, "env": "THE_PIN"})
    login = fields.Nested(Login)
    names = fields.List(fields.String())
    colour = fields.String()

    @validates_schema
    def check(self, data, **more):
        if data.get("colour") == "odd":
            raise ValidationError(f"odd, with {data}")
        if data.get("colour") == "worse":
            raise RuntimeError(f"worse, with {data}")

@hookimpl
def clustr_config_schema():
    return Config
"""
)


FILTERED = """
class Box(Schema):
    width = fields.Float()
    corners = fields.List(fields.Float())

class Result(Schema):
    mean = fields.Float(data_key="average")
    label = fields.String()
    boxes = fields.List(fields.Nested(Box))
    more = fields.Dict()

class It(Analyzer):
    name = "shades"
    result_schema = Result
    def analyze(self, image, context):
        return {{}}

@hookimpl
def clustr_register_filters(config):
    return [{filters}]
"""


def filtered(*filters: str) -> str:
    return GOOD + FILTERED.format(filters=", ".join(filters))


ROUTES = """
from flask_smorest import Blueprint

@hookimpl
def clustr_register_blueprints(config, library):
    {body}
"""


# A hook that is told something.
HEAD = "import time\nfrom clustr.plugins import hookimpl\n"
EVENT = """
@hookimpl
def clustr_upload_stored(upload):
    {body}
"""


def requiring(name: str, *required: str) -> str:
    return analyzer(name, "return {}", requires=required)


def named(plugin_manager: PluginManager, name: str) -> Plugin:
    [found] = [plugin for plugin in plugin_manager.plugins if plugin.name == name]
    return found
