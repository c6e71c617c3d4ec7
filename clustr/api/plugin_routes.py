"""What the plugins of an installation add to the API: routes of their own, and typed results."""

import functools
import re
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

from flask import Flask
from flask_smorest import Blueprint
from marshmallow import Schema

from clustr.api.http.errors import ProblemApi
from clustr.api.http.json_schema import json_schema, query_parameters
from clustr.api.http.urls import url_of
from clustr.api.openapi import OBJECT_OR_NULL
from clustr.api.plugin_filters import PluginFilters
from clustr.database import Database
from clustr.plugin_manager import Plugin, PluginManager
from clustr.plugins import Analyzer, Upload

PREFIX = "/api/x"
METHODS = ("get", "put", "post", "patch", "delete", "head", "options", "trace")
REFERENCE = re.compile(r'"\$ref": *"#/components/(\w+)/([^"]*)"')
# What Flask and flask-smorest answer themselves.
NOT_ROUTES = ("HEAD", "OPTIONS")


class PluginLibrary:
    """The uploads for the routes of one plugin; its methods are those of `clustr.plugins.Library`.

    Args:
        database: where they are.
        plugin: whose filters decide by what it can find uploads.
    """

    def __init__(self, database: Database, plugin: Plugin):
        self._uploads = database.uploads
        self._plugin = plugin

    def get(self, upload_id: str) -> Upload:
        return self._uploads.get(upload_id)

    def find(self, analyzer: str, field: str, values: list[Any], limit: int = 1000) -> list[Upload]:
        indexed = [(one.analyzer, one.field) for one in self._plugin.filters if one.indexed]
        if (analyzer, field) not in indexed:
            declared = ", ".join(".".join(one) for one in indexed) or "none"
            raise ValueError(
                f"find() needs an indexed Filter of the plugin {self._plugin.name} on "
                f"{analyzer}.{field}; there are: {declared}"
            )
        return self._uploads.find(analyzer, field, values, limit)

    def url_of(self, upload: Upload) -> str:
        return url_of(upload.filename)


def problem_with_routes(plugin: Plugin, blueprints: list[Blueprint]) -> str | None:
    """Why these routes of a plugin cannot be mounted, if they cannot.

    They are mounted on an app of their own for it, since what was done to one cannot be undone.
    """
    trial = Flask("trial", static_folder=None)
    trial.config.update(API_TITLE="trial", API_VERSION="1", OPENAPI_VERSION="3.0.3")
    api = ProblemApi(trial)
    before = _of_whole_app(trial)
    for blueprint in blueprints:
        mount(trial, api, plugin, blueprint)
    document = api.spec.to_dict()
    for kind, name in REFERENCE.findall(trial.json.dumps(document)):
        if name not in document["components"].get(kind, {}):
            return f"its routes are described with {name}, which is no schema or answer"
    if _of_whole_app(trial) != before:
        return (
            "one of its blueprints changes the whole application, such as with before_app_request "
            "or app_errorhandler; use before_request or errorhandler"
        )
    called = Counter(
        (method, re.sub(r"<(?:(.+?):)?\w+>", r"<\1>", rule.rule))
        for rule in trial.url_map.iter_rules()
        for method in rule.methods.difference(NOT_ROUTES)
    )
    for (method, rule), times in called.items():
        if not rule.startswith(f"{PREFIX}/{plugin.name}/"):
            return f"it has the route {rule}, which is not below {PREFIX}/{plugin.name}/"
        if times > 1:
            return f"it has the route {method} {rule} twice"
    return None


def mount(app: Flask, api: ProblemApi, plugin: Plugin, blueprint: Blueprint) -> None:
    """Give an app the routes of a blueprint, below the plugin's own path."""
    before = set(app.view_functions)
    with api.named_for(plugin.name):
        api.register_blueprint(
            blueprint,
            # With hyphens, which no name of ours or of a plugin has, so that none is another's.
            name=f"x-{plugin.name}-{blueprint.name}",
            url_prefix=f"{PREFIX}/{plugin.name}{blueprint.url_prefix or ''}",
        )
    for endpoint in set(app.view_functions) - before:
        app.view_functions[endpoint] = _contained(app.view_functions[endpoint])


def _contained(view: Callable[..., Any]) -> Callable[..., Any]:
    """A view whose `sys.exit()` is a fault of this request and does not end the server."""

    @functools.wraps(view)
    def contained(*arguments: Any, **named: Any) -> Any:
        try:
            return view(*arguments, **named)
        except (Exception, KeyboardInterrupt):
            raise
        except BaseException as error:
            raise RuntimeError(f"a plugin's view raised {type(error).__name__}") from error

    return contained


def _of_whole_app(app: Flask) -> list[int]:
    """How much is registered for every request, whoever answers it."""
    registered = (
        app.before_request_funcs,
        app.after_request_funcs,
        app.teardown_request_funcs,
        app.url_value_preprocessors,
        app.url_default_functions,
        app.template_context_processors,
    )
    handlers = app.error_handler_spec[None].values()
    return [
        *(len(functions.get(None, ())) for functions in registered),
        sum(map(len, handlers)),
        len(app.teardown_appcontext_funcs),
        len(app.url_map.converters),
        len(app.jinja_env.globals) + len(app.jinja_env.filters) + len(app.jinja_env.tests),
    ]


def describe(
    document: dict[str, Any], plugin_manager: PluginManager, filters: PluginFilters
) -> dict[str, Any]:
    """Complete the OpenAPI document with what is different in each installation."""
    schemas = document["components"]["schemas"]
    for analyzer in plugin_manager.analyzers.values():
        schemas[f"AnalysisResult_{analyzer.name}"] = _described(analyzer)
        schemas[f"Analysis_{analyzer.name}"] = _analysis(schemas["Analysis"], analyzer)
    known = {name: _reference(f"Analysis_{name}") for name in plugin_manager.analyzers}
    # Others are there too, of which TypeScript cannot say that they differ from those with names.
    schemas["UploadAnalyses"] = {
        "type": "object",
        "description": "The state of each analysis, by the analyzer's name; those of analyzers "
        "that are not installed any more have the shape of `Analysis`.",
        "properties": known,
    }
    for name in ("Upload", "ListedUpload"):
        properties = schemas[name]["properties"]
        kept = {key: properties["analyses"][key] for key in ("description", "example")}
        properties["analyses"] = {"allOf": [_reference("UploadAnalyses")], **kept}
    if plugin_manager.analyzers:
        schemas["AnalysisOrder"]["properties"]["analyzer"]["enum"] = sorted(
            plugin_manager.analyzers
        )
    document["paths"]["/api/uploads"]["get"]["parameters"] = query_parameters(filters.schema)
    for plugin in plugin_manager.plugins:
        for method, path, operation in _operations(document, plugin):
            own = operation.get("operationId") or f"{method}_{path}"
            name = re.sub(r"\W+", "_", f"{plugin.name}_{own}").strip("_")
            operation["operationId"] = name
            operation.setdefault("summary", f"{method.upper()} {path}")
        for tag in document.get("tags", ()):
            if tag["name"].startswith(f"x-{plugin.name}-"):
                tag["description"] = tag["description"] or f"Of the plugin {plugin.name}"
    return document


def _operations(
    document: dict[str, Any], plugin: Plugin
) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """The operations of a plugin, with their method and their path below its own."""
    prefix = f"{PREFIX}/{plugin.name}/"
    for path, item in document["paths"].items():
        if path.startswith(prefix):
            for method in METHODS:
                if method in item:
                    yield method, path.removeprefix(prefix), item[method]


def _described(analyzer: Analyzer) -> dict[str, Any]:
    schema: type[Schema] = analyzer.result_schema
    told = {"properties": {}, "description": f"What `{analyzer.name}` finds: {analyzer.summary}."}
    return told | json_schema(schema)


def _analysis(analysis: dict[str, Any], analyzer: Analyzer) -> dict[str, Any]:
    """The schema of an analysis whose result has the shape that this analyzer gives it."""
    result = {
        "anyOf": [_reference(f"AnalysisResult_{analyzer.name}"), OBJECT_OR_NULL],
        "description": "What the analyzer found; left out of listings.",
    }
    return {**analysis, "properties": {**analysis["properties"], "result": result}}


def _reference(name: str) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{name}"}
