"""Validation of the analyzers and filters that plugins declare."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

from marshmallow import RAISE, Schema, fields

from clustr.domain import failure_messages
from clustr.imaging.formats import CONTENT_TYPES
from clustr.plugins import Analyzer, Filter, HttpAnalyzer, Vector
from clustr.plugins.filters import CORE_PARAMETERS, OPERATORS
from clustr.plugins.http import MAX_CONCURRENCY
from clustr.plugins.vectors import KINDS, MAX_DIMENSIONS, METRICS

NAME = re.compile(r"[a-z][a-z0-9_]{0,31}")
OBJECT_KEY = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
QUEUES = ("default", "http", "gpu")
FIELDS = ("caption", "tags", "dimensions", "taken_at", "faces")
FORMATS = tuple(CONTENT_TYPES.values())
LONGEST_TIMEOUT_SECONDS = 24 * 3600
# Packages that take long to import: they belong in `Analyzer.setup`.
HEAVY_PACKAGES = ("cv2", "onnxruntime", "scipy", "sklearn", "tensorflow", "torch", "transformers")


def problem_with_analyzer(analyzer: object) -> str | None:
    """What is wrong with the declaration of an analyzer; None if nothing is."""
    if not isinstance(analyzer, Analyzer):
        kind = type(analyzer).__name__
        return f"clustr_register_analyzers() returned a {kind}, which is no Analyzer"
    name = getattr(analyzer, "name", None)
    if not isinstance(name, str) or not NAME.fullmatch(name):
        return f"the name of an analyzer must match {NAME.pattern}, not be {name!r}"
    checks = {
        "version must be a whole number from 1": _is_positive_integer(analyzer.version),
        "result_schema must be a marshmallow Schema": _is_schema_class(
            getattr(analyzer, "result_schema", None)
        ),
        "summary must be text": isinstance(analyzer.summary, str),
        f"queue must be one of {', '.join(QUEUES)}": analyzer.queue in QUEUES,
        f"formats must be a set of some of {', '.join(FORMATS)}": isinstance(
            analyzer.formats, set | frozenset
        )
        and all(format in FORMATS for format in analyzer.formats),
        'requires must be a tuple of names of other analyzers, such as ("dimensions",)': (
            _are_names(analyzer.requires) and name not in analyzer.requires
        ),
        f"timeout must be seconds above 0, at most {LONGEST_TIMEOUT_SECONDS}": isinstance(
            analyzer.timeout, int | float
        )
        and 0 < analyzer.timeout <= LONGEST_TIMEOUT_SECONDS,
        "max_attempts must be a whole number from 1": _is_positive_integer(analyzer.max_attempts),
        "memory_mb must be None or a whole number from 1": analyzer.memory_mb is None
        or _is_positive_integer(analyzer.memory_mb),
        "auto must be True or False": isinstance(analyzer.auto, bool),
        "keep_loaded must be True or False": isinstance(analyzer.keep_loaded, bool),
        "batch_size must be a whole number from 1": _is_positive_integer(analyzer.batch_size),
        "batch_size above 1 needs analyze_batch(), which it does not define": (
            analyzer.batch_size == 1 or type(analyzer).analyze_batch is not Analyzer.analyze_batch
        ),
        f"concurrency must be a whole number from 1 to {MAX_CONCURRENCY}": (
            not isinstance(analyzer, HttpAnalyzer)
            or (
                _is_positive_integer(analyzer.concurrency)
                and analyzer.concurrency <= MAX_CONCURRENCY
            )
        ),
        f"fields must map some of {', '.join(FIELDS)} to keys of the result": isinstance(
            analyzer.fields, Mapping
        )
        and set(analyzer.fields) <= set(FIELDS)
        and all(isinstance(key, str) for key in analyzer.fields.values()),
    }
    failed = next((problem for problem, fine in checks.items() if not fine), None)
    failed = failed or _problem_with_vectors(analyzer)
    return f"{name}: {failed}" if failed else None


def _problem_with_vectors(analyzer: Analyzer) -> str | None:
    if not isinstance(analyzer.vectors, tuple):
        return "vectors must be a tuple of Vector, such as (Vector(field=…, dimensions=…),)"
    declared = analyzer.result_schema().fields if analyzer.vectors else {}
    keys = {field.data_key or name for name, field in declared.items()}
    seen: set[str] = set()
    for vector in analyzer.vectors:
        if not isinstance(vector, Vector):
            return f"vectors has a {type(vector).__name__}, which is no Vector"
        if not isinstance(vector.field, str) or not NAME.fullmatch(vector.field):
            return f"the field of a vector must match {NAME.pattern}, not be {vector.field!r}"
        where = f"the vector {vector.field}"
        if vector.field in seen:
            return f"{where} is there twice"
        seen.add(vector.field)
        if not (_is_positive_integer(vector.dimensions) and vector.dimensions <= MAX_DIMENSIONS):
            return f"{where}: dimensions must be a whole number from 1 to {MAX_DIMENSIONS}"
        if vector.kind not in KINDS:
            return f"{where}: kind must be one of {', '.join(KINDS)}, not {vector.kind!r}"
        if vector.metric not in METRICS[vector.kind]:
            metrics = " or ".join(METRICS[vector.kind])
            return f"{where}: the metric of {vector.kind} is {metrics}, not {vector.metric!r}"
        if vector.field in analyzer.fields.values():
            return f"{where}: fields cannot take it, for it is not kept in the result"
        if vector.field in keys:
            schema = analyzer.result_schema.__name__
            return f"{where}: take it out of {schema}, for it is not kept in the result"
    return None


def warnings_about_analyzer(analyzer: Analyzer) -> list[str]:
    """What is declared of an analyzer without effect."""
    declared = type(analyzer).timeout
    is_without_effect = declared != Analyzer.timeout and analyzer.timeout != declared
    if not isinstance(analyzer, HttpAnalyzer) or not is_without_effect:
        return []
    return [
        f"{analyzer.name}: timeout = {declared} of its class is without effect; give the key "
        "timeout of its configuration that load_default"
    ]


def _is_positive_integer(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _is_schema_class(value: object) -> bool:
    return isinstance(value, type) and issubclass(value, Schema)


def _are_names(value: object) -> bool:
    return isinstance(value, tuple) and all(isinstance(name, str) for name in value)


def problem_with_filters(filters: Iterable[object], analyzers: Iterable[Analyzer]) -> str | None:
    """What is wrong with the filters of a plugin with these analyzers; None if nothing is."""
    own = {analyzer.name: analyzer for analyzer in analyzers}
    seen: set[tuple[str, str, str]] = set()
    names: set[str] = set()
    for filter in filters:
        if not isinstance(filter, Filter):
            return (
                f"clustr_register_filters() returned a {type(filter).__name__}, which is no Filter"
            )
        where = f"the filter {filter.analyzer}.{filter.field}"
        if filter.analyzer not in own:
            unknown = failure_messages.unknown_name("analyzer", str(filter.analyzer), own)
            return f"{where}: it must be on an analyzer of the plugin; {unknown}"
        if problem := _problem_with_filter(filter, own[filter.analyzer]):
            return f"{where}: {problem}"
        ways = {(filter.analyzer, filter.field, operator) for operator in filter.operators}
        if ways & seen:
            operator = next(iter(ways & seen))[2]
            return f"{where} is there twice with the operator {operator}"
        if filter.name in names:
            return f"two of its filters have the name {filter.name}"
        seen |= ways
        names |= {filter.name} - {""}
    return None


def _problem_with_filter(filter: Filter, analyzer: Analyzer) -> str | None:
    if not isinstance(filter.field, str):
        return "field must be a key of the result"
    if problem := problem_with_path(filter.field, analyzer.result_schema()):
        return problem
    if not isinstance(filter.operators, tuple | list) or not filter.operators:
        return f"operators must be a tuple of some of {', '.join(OPERATORS)}"
    for operator in filter.operators:
        if operator not in OPERATORS:
            return failure_messages.unknown_name("operator", str(operator), OPERATORS)
    texts = filter.name, filter.title, filter.summary
    if not all(isinstance(text, str) for text in texts):
        return "name, title and summary must be text"
    if not isinstance(filter.indexed, bool) or not isinstance(filter.internal, bool):
        return "indexed and internal must be True or False"
    if isinstance(filter.type, Mapping):
        return _problem_with_objects(filter, analyzer) or _problem_with_name(filter)
    if not isinstance(filter.type, fields.Field):
        return "type must be a marshmallow field, such as fields.Float(), or one for each key"
    return _problem_with_name(filter)


def _problem_with_name(filter: Filter) -> str | None:
    if not filter.name:
        return None
    if not NAME.fullmatch(filter.name) or "__" in filter.name:
        return f"its name must match {NAME.pattern}, without two underscores in a row"
    if filter.name in CORE_PARAMETERS:
        return f"Clustr itself has the parameter {filter.name}; give it another name"
    if len(filter.operators) > 1:
        return "a name is for one operator; declare one filter for each of them"
    return None


def _problem_with_objects(filter: Filter, analyzer: Analyzer) -> str | None:
    """What is wrong with a filter of a list of objects; None if nothing is."""
    assert isinstance(filter.type, Mapping)
    if not filter.type or tuple(filter.operators) != ("eq",):
        return "a filter with a type for each key needs one key at least, and takes no operators"
    declared, is_list = _declared_at(filter.field, analyzer.result_schema())
    if not is_list or not isinstance(declared, fields.Nested):
        return "a type for each key is for a field that is a list of objects: List(Nested(...))"
    keys = {field.data_key or name: field for name, field in declared.schema.fields.items()}
    for key, type in filter.type.items():
        if not isinstance(type, fields.Field):
            return f"the type of the key {key} must be a marshmallow field, such as fields.Float()"
        if not isinstance(key, str) or not OBJECT_KEY.fullmatch(key):
            return f"a key of objects must match {OBJECT_KEY.pattern}"
        if key not in keys:
            return failure_messages.unknown_name("key of its objects", key, keys)
        # MongoDB refuses to index two lists inside one object: writing results would fail.
        if isinstance(keys[key], fields.List | fields.Nested | fields.Mapping | fields.Raw):
            return f"the key {key} must be a text, a number, a boolean or a time"
    return None


def may_be_list(filter: Filter, analyzer: Analyzer) -> bool:
    """Whether a result may have several values where a filter looks."""
    declared, is_list = _declared_at(filter.field, analyzer.result_schema())
    return is_list or declared is None or isinstance(declared, fields.Raw)


def _declared_at(path: str, schema: Schema | None) -> tuple[fields.Field[Any] | None, bool]:
    """The field of a schema at a path, if it is declared, and whether there is a list on the way.

    Where anything goes, such as inside a `Dict`, there may be a list.
    """
    declared: fields.Field[Any] | None = None
    is_list = False
    for key in path.split("."):
        if schema is None:
            return None, True
        by_key = {field.data_key or name: field for name, field in schema.fields.items()}
        declared = by_key.get(key)
        while isinstance(declared, fields.List):
            is_list, declared = True, declared.inner
        if isinstance(declared, fields.Nested):
            is_list = is_list or bool(declared.many)
            schema = declared.schema
        else:
            schema = None
    return declared, is_list


def problem_with_path(path: str, schema: Schema | None) -> str | None:
    """Why a result cannot have a value at a path; None if it can.

    Lists on the path are skipped, as in a query of MongoDB.

    Args:
        schema: the schema of the result; None for one that takes anything.
    """
    for key in path.split("."):
        if not key or key.startswith("$") or "__" in key or any(each in key for each in "\0:,"):
            return (
                "the keys of field must not be empty, begin with $ or hold two underscores, "
                "a colon or a comma"
            )
        if schema is None:
            continue
        keys = {declared.data_key or name: declared for name, declared in schema.fields.items()}
        if key not in keys and schema.unknown == RAISE:
            return failure_messages.unknown_name("field", key, keys)
        below = _inner_schema(keys.get(key))
        if isinstance(below, str):
            return f"{key} is {below}, with nothing inside" if path.split(".")[-1] != key else None
        schema = below
    return None


def _inner_schema(declared: fields.Field[Any] | None) -> Schema | str | None:
    while isinstance(declared, fields.List):
        declared = declared.inner
    if isinstance(declared, fields.Nested):
        return declared.schema
    takes_anything = declared is None or isinstance(declared, fields.Dict | fields.Raw)
    return None if takes_anything else f"a {type(declared).__name__}"
