"""Adds the routes of plugins to the app, and the schemas of their results to the document."""

import functools
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any, NoReturn

from flask import Flask
from flask_smorest import Blueprint
from marshmallow import Schema

from clustr.api.http.errors import ProblemApi
from clustr.api.http.json_schema import json_schema, query_parameters
from clustr.api.openapi import OBJECT_OR_NULL
from clustr.api.plugin_filters import PluginFilters
from clustr.api.plugin_guards import guard_blueprint, guard_view
from clustr.api.plugin_parameters import refuse_unknown_parameters
from clustr.api.schemas.filters import MAX_PLUGIN_FILTERS
from clustr.domain.errors import PluginNotLoaded
from clustr.plugin_manager import (
    Plugin,
    PluginManager,
    PluginState,
    private_names,
)
from clustr.plugin_manager.declarations import NAME
from clustr.plugins import Analyzer

PREFIX = "/api/x"
# What schemas of analyses in lists begin with, where `fields` can ask for a part of a result.
LISTED = "Listed"
HTTP_METHODS = ("get", "put", "post", "patch", "delete", "head", "options", "trace")
REFERENCE = re.compile(r'"\$ref": *"#/components/(\w+)/([^"]*)"')
# Flask and flask-smorest add these to every rule.
AUTOMATIC_METHODS = ("HEAD", "OPTIONS")


def problem_with_routes(plugin: Plugin, blueprints: list[Blueprint]) -> str | None:
    """Return why the routes of a plugin cannot be mounted, or None.

    This mounts them on an app of its own, because Flask cannot remove a blueprint again.
    """
    trial_app = Flask("trial", static_folder=None)
    trial_app.config.update(API_TITLE="trial", API_VERSION="1", OPENAPI_VERSION="3.0.3")
    api = ProblemApi(trial_app)
    before = _count_app_wide_registrations(trial_app)
    for blueprint in blueprints:
        mount(trial_app, api, plugin, blueprint)
    document = api.describe()
    for kind, name in REFERENCE.findall(trial_app.json.dumps(document)):
        if name not in document["components"].get(kind, {}):
            return f"its routes are described with {name}, which is no schema or answer"
    if _count_app_wide_registrations(trial_app) != before:
        return (
            "one of its blueprints changes the whole application, such as with before_app_request "
            "or app_errorhandler; use before_request or errorhandler"
        )
    route_counts = Counter(
        (method, re.sub(r"<(?:(.+?):)?\w+>", r"<\1>", rule.rule))
        for rule in trial_app.url_map.iter_rules()
        for method in (rule.methods or set()).difference(AUTOMATIC_METHODS)
    )
    for (method, rule), count in route_counts.items():
        if not rule.startswith(f"{PREFIX}/{plugin.name}/"):
            return f"it has the route {rule}, which is not below {PREFIX}/{plugin.name}/"
        if count > 1:
            return f"it has the route {method} {rule} twice"
    return None


def mount(app: Flask, api: ProblemApi, plugin: Plugin, blueprint: Blueprint) -> None:
    """Register a plugin's blueprint with an app, below `/api/x/<plugin>`."""
    views, blueprints = set(app.view_functions), set(app.blueprints)
    with api.prefix_schema_names(plugin.name):
        api.register_blueprint(
            blueprint,
            # Names of ours and of plugins have no hyphens, so this name cannot be taken.
            name=f"x-{plugin.name}-{blueprint.name}",
            url_prefix=f"{PREFIX}/{plugin.name}{blueprint.url_prefix or ''}",
        )
    for endpoint in set(app.view_functions) - views:
        view = refuse_unknown_parameters(app.view_functions[endpoint])
        app.view_functions[endpoint] = guard_view(plugin, view)
    for name in set(app.blueprints) - blueprints:
        guard_blueprint(app, plugin, name)


def explain_missing_routes(app: Flask, plugin_manager: PluginManager) -> None:
    """Answer requests for routes of plugins that are not loaded with the reason."""
    loaded = {p.name for p in plugin_manager.plugins if p.state is PluginState.LOADED}
    for plugin in plugin_manager.plugins:
        if plugin.name in loaded or not NAME.fullmatch(plugin.name):
            continue
        for rule in (f"{PREFIX}/{plugin.name}", f"{PREFIX}/{plugin.name}/<path:_path>"):
            app.add_url_rule(
                rule,
                f"x-{plugin.name}{rule}".replace(".", "-"),
                functools.partial(_refuse_not_loaded, plugin),
                methods=[method.upper() for method in HTTP_METHODS],
            )


def _refuse_not_loaded(plugin: Plugin, **_path: str) -> NoReturn:
    raise PluginNotLoaded(f"The plugin {plugin.name} is not loaded: {plugin.reason}.")


def _count_app_wide_registrations(app: Flask) -> list[int]:
    """Count the hooks, handlers and converters that apply to the whole app."""
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


def describe_plugins(
    document: dict[str, Any], plugin_manager: PluginManager, filters: PluginFilters
) -> dict[str, Any]:
    """Add the analyzers, filters and routes of this installation to the OpenAPI document."""
    schemas = document["components"]["schemas"]
    for analyzer in plugin_manager.analyzers.values():
        result = _result_schema(analyzer)
        for prefix, part in (("", result), (LISTED, _without_required(result))):
            name = f"{prefix}AnalysisResult_{analyzer.name}"
            schemas[name] = part
            schemas[f"{prefix}Analysis_{analyzer.name}"] = _analysis_schema(
                schemas[f"{prefix}Analysis"], name
            )
    schemas["UploadAnalyses"] = _analyses_schema(plugin_manager, "")
    schemas["ListedAnalyses"] = _analyses_schema(plugin_manager, LISTED)
    for name in ("Upload", "ListedUpload", "SimilarUpload"):
        properties = schemas[name]["properties"]
        annotations = {key: properties["analyses"][key] for key in ("description", "example")}
        analyses = "UploadAnalyses" if name == "Upload" else "ListedAnalyses"
        properties["analyses"] = {"allOf": [_schema_reference(analyses)], **annotations}
    if plugin_manager.analyzers:
        schemas["AnalysisOrder"]["properties"]["analyzer"]["enum"] = sorted(
            plugin_manager.analyzers
        )
    parameters = _filter_parameters(filters.schema, filters)
    document["paths"]["/api/uploads"]["get"]["parameters"] = parameters
    similar = document["paths"]["/api/uploads/{upload_id}/similar"]["get"]
    similar["parameters"] = _filter_parameters(filters.similar_schema, filters)
    timeline = document["paths"]["/api/timeline"]["get"]
    timeline["parameters"] = _filter_parameters(filters.timeline_schema, filters)
    if names := _vector_names(plugin_manager):
        next(p for p in similar["parameters"] if p["name"] == "by")["schema"]["enum"] = names
    _describe_filters_of_jobs(schemas["Filter"], parameters, filters)
    for plugin in plugin_manager.plugins:
        for method, path, operation in _operations(document, plugin):
            operation_id = operation.get("operationId") or f"{method}_{path}"
            name = re.sub(r"\W+", "_", f"{plugin.name}_{operation_id}").strip("_")
            operation["operationId"] = name
            operation.setdefault("summary", f"{method.upper()} {path}")
        for tag in document.get("tags", ()):
            if tag["name"].startswith(f"x-{plugin.name}-"):
                tag["description"] = tag["description"] or f"Of the plugin {plugin.name}"
    return document


def _vector_names(plugin_manager: PluginManager) -> list[str]:
    """What `by` can name: each vector, and an analyzer that has just one."""
    found: list[str] = []
    for analyzer in plugin_manager.analyzers.values():
        found += [f"{analyzer.name}.{vector.field}" for vector in analyzer.vectors]
        found += [analyzer.name] if len(analyzer.vectors) == 1 else []
    return sorted(found)


def _filter_parameters(schema: Schema, filters: PluginFilters) -> list[dict[str, Any]]:
    """Describe the parameters of a query with filters of plugins."""
    parameters = query_parameters(schema)
    for parameter in parameters:
        if parameter["name"] in filters.parameters:
            parameter.update(filters.parameters[parameter["name"]].extensions())
    return parameters


def _describe_filters_of_jobs(
    schema: dict[str, Any], parameters: Iterable[dict[str, Any]], filters: PluginFilters
) -> None:
    """Add the filters of plugins, which are parameters of the listing, to those of a job."""
    schema["additionalProperties"] = False
    properties = schema["properties"]
    description = properties.pop("analyses")["description"]
    values = {}
    for parameter in parameters:
        name = parameter["name"]
        if name not in filters.parameters:
            continue
        described = {"description": parameter["description"]}
        if parameter["schema"].get("type") == "array":
            described["oneOf"] = [parameter["schema"]["items"], parameter["schema"]]
        else:
            described |= parameter["schema"]
        if filters.parameters[name].is_short:
            properties[name] = described
        else:
            values[name.removeprefix("analyses.")] = described
    if values:
        properties["analyses"] = {
            "type": "object",
            "description": description,
            "properties": values,
            "additionalProperties": False,
            "minProperties": 1,
            "maxProperties": MAX_PLUGIN_FILTERS,
        }


def _operations(
    document: dict[str, Any], plugin: Plugin
) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Yield method, path below the plugin's prefix, and operation of a plugin's routes."""
    prefix = f"{PREFIX}/{plugin.name}/"
    for path, item in document["paths"].items():
        if path.startswith(prefix):
            for method in HTTP_METHODS:
                if method in item:
                    yield method, path.removeprefix(prefix), item[method]


def _result_schema(analyzer: Analyzer) -> dict[str, Any]:
    schema: type[Schema] = analyzer.result_schema
    defaults = {
        "properties": {},
        "description": f"What `{analyzer.name}` finds: {analyzer.summary}.",
    }
    return defaults | json_schema(schema, private_names(schema))


def _without_required(schema: Any) -> Any:
    """Copy a schema, with no key required at any depth: in a list there may be a part of it."""
    if isinstance(schema, list):
        return [_without_required(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    return {
        key: _without_required(inner)
        for key, inner in schema.items()
        if key != "required" or isinstance(inner, dict)  # That is a property of this name.
    }


def _analyses_schema(plugin_manager: PluginManager, prefix: str) -> dict[str, Any]:
    # There is no `additionalProperties`: TypeScript has no type for all members but the named ones.
    return {
        "type": "object",
        "description": "The state of each analysis, by the analyzer's name; those of analyzers "
        f"that are not installed any more have the shape of `{prefix}Analysis`.",
        "properties": {
            name: _schema_reference(f"{prefix}Analysis_{name}") for name in plugin_manager.analyzers
        },
    }


def _analysis_schema(analysis: dict[str, Any], result_name: str) -> dict[str, Any]:
    """Return the schema of an analysis whose result has the schema of this name."""
    result = {
        "anyOf": [_schema_reference(result_name), OBJECT_OR_NULL],
        "description": "What the analyzer found; lists have as much of it as `fields` names.",
    }
    return {**analysis, "properties": {**analysis["properties"], "result": result}}


def _schema_reference(name: str) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{name}"}
