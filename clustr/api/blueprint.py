"""flask-smorest's blueprint, with unknown query parameters refused instead of ignored."""

from typing import ClassVar

import flask_smorest
from marshmallow import RAISE
from webargs.flaskparser import FlaskParser


class Parser(FlaskParser):
    DEFAULT_UNKNOWN_BY_LOCATION: ClassVar = {
        **FlaskParser.DEFAULT_UNKNOWN_BY_LOCATION,
        "query": RAISE,
    }


class Blueprint(flask_smorest.Blueprint):
    """A misspelt parameter is an error that says so: ignored, it would look as if it worked."""

    ARGUMENTS_PARSER = Parser()
