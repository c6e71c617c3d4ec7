"""Completes the OpenAPI document for the tools that read it: generators of clients, and linters.

Each step is here because a common generator of clients failed without it; `make clients` generates
and compiles them again. OpenAPI 3.0 allows several forms for some things of which tools understand
one.
"""

from collections.abc import Iterator
from copy import deepcopy
from typing import Any

from clustr.api.schemas.accepted_files import REFUSAL_CODES
from clustr.api.schemas.listing import SORT_VALUES
from clustr.database import AnalysisSelection, JobState
from clustr.domain.access import Scope
from clustr.domain.audit import AuditAction, AuditOutcome
from clustr.domain.models import State, Status
from clustr.imaging.formats import CONTENT_TYPES
from clustr.plugin_manager import PluginState
from clustr.search.terms import FIELDS
from clustr.services.suggestions import KINDS

Node = dict[str, Any]

# What apispec writes beside a reference that can be null.
OBJECT_OR_NULL = {"type": "object", "nullable": True}

LICENSE = {"name": "MIT", "url": "https://spdx.org/licenses/MIT.html"}
CONTACT = {"name": "Clustr"}

# The heading under which the operations of each blueprint stand.
HEADINGS = {
    "upload": "Uploads",
    "uploads": "Uploads",
    "one_upload": "Uploads",
    "bulk_uploads": "Uploads",
    "similar": "Uploads",
    "timeline": "Uploads",
    "limits": "Uploads",
    "files_of_upload": "Files",
    "files": "Files",
    "shares": "Files",
    "trash": "Trash",
    "analyses": "Analyses",
    "jobs": "Jobs",
    "tags": "Tags",
    "suggest": "Suggestions",
    "stats": "Statistics",
    "audit": "Audit log",
    "plugins": "Plugins",
    "status": "Health",
    "health": "Health",
    "debug": "Debugging",
    "keys": "Keys",
    "session": "Session",
    "log_in": "Session",
}
HEADING_DESCRIPTIONS = {
    "Uploads": "Send images in; list, search, read, change and remove what has been sent",
    "Files": "The bytes of originals, thumbnails of them, and addresses of both for others",
    "Trash": "What was removed and can be restored",
    "Analyses": "What analyzers do with all uploads together",
    "Jobs": "What is being done to many uploads, and how far it is",
    "Tags": "The words for what is to be seen",
    "Suggestions": "Completions of a search while it is typed",
    "Statistics": "How many uploads there are",
    "Audit log": "Who did what",
    "Plugins": "What says what is in the images",
    "Health": "How the service is, and everything that it needs",
    "Keys": "With what requests have to come",
    "Session": "Who asks, and what pages have instead of a key",
    "Debugging": "For people who look for a fault",
}

# Names for enumerations; without them generators number them.
ENUM_NAMES: dict[tuple[str, ...], str] = {
    tuple(Status): "UploadStatus",
    tuple(State): "AnalysisStatus",
    tuple(Scope): "Scope",
    tuple(AuditAction): "AuditAction",
    tuple(AuditOutcome): "AuditOutcome",
    tuple(sorted(CONTENT_TYPES.values())): "ContentType",
    tuple(SORT_VALUES): "UploadSort",
    tuple(FIELDS): "SearchedField",
    ("score", "newest"): "SearchOrder",
    tuple(KINDS): "SuggestionKind",
    ("keep", "reuse"): "Duplicates",
    ("delete", "restore", "tag", "untag"): "BulkAction",
    ("analyze", "delete", "restore", "tag", "untag"): "JobKind",
    tuple(JobState): "JobState",
    tuple(AnalysisSelection): "AnalysisSelection",
    tuple(PluginState): "PluginState",
    ("package", "folder"): "PluginSource",
    ("connected", "disconnected"): "DatabaseStatus",
    ("healthy", "degraded", "critical"): "HealthStatus",
    ("healthy", "busy", "degraded", "unhealthy", "not_configured", "disabled"): "ServiceStatus",
    ("alive", "ready", "not ready"): "ProbeStatus",
    tuple(REFUSAL_CODES): "RefusalCode",
}


def complete(document: Node) -> Node:
    """Change the document in place into the form that most tools understand, and return it.

    - A member that has the shape of a schema or is null has a copy of that, which is `nullable`:
      beside a reference that means nothing in OpenAPI 3.0, and each other way of saying it is
      refused, misunderstood or taken for every object by one tool or another.
    - A set of values that stands in several places is a schema of its own, with a name.
    - Bytes of images are `application/octet-stream` first: a type with a star is unknown to most.
    - Operations stand under headings for readers, not under the names of modules.
    """
    _copy_nullable_references(document)
    _remove_unused_schemas(document)
    _name_enums(document)
    _put_octet_stream_first(document)
    _group_operations(document)
    document["info"] |= {"license": LICENSE, "contact": CONTACT}
    return document


def _nodes(node: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Node]]:
    """Yield every object of the document with the names that lead to it, but for examples."""
    if isinstance(node, list):
        for inner in node:
            yield from _nodes(inner, path)
    elif isinstance(node, dict):
        for name in [name for name in node if name not in ("example", "examples")]:
            yield from _nodes(node[name], (*path, name))
        yield path, node


def _copy_nullable_references(document: Node) -> None:
    """Replace apispec's `anyOf` for nullable references, which would accept any object."""
    schemas = document["components"]["schemas"]
    for _, node in _nodes(document):
        if OBJECT_OR_NULL in node.get("anyOf", ()):
            [name] = [choice["$ref"] for choice in node.pop("anyOf") if "$ref" in choice]
            more = dict(node)
            node |= deepcopy(schemas[name.rpartition("/")[2]]) | more | {"nullable": True}


def _remove_unused_schemas(document: Node) -> None:
    """Remove the schemas that nothing refers to any more, but for those of results.

    Authors of analyzers look the schema of their results up by its name.
    """
    schemas = document["components"]["schemas"]
    used = {node["$ref"].rpartition("/")[2] for _, node in _nodes(document) if "$ref" in node}
    for name in schemas.keys() - used:
        if not name.startswith("AnalysisResult_"):
            del schemas[name]


def _name_enums(document: Node) -> None:
    """Move each enumeration into a schema of its own, and refer to that."""
    schemas = document["components"]["schemas"]
    names: dict[tuple[str, ...], str] = {}
    for path, node in list(_nodes(document)):
        values = tuple(node.get("enum", ()))
        if len(values) < 2 or not all(isinstance(value, str) for value in values):
            continue
        if values not in names:
            name = ENUM_NAMES.get(values) or _name_from_path(path)
            taken = sum(each.rstrip("0123456789") == name for each in names.values())
            names[values] = f"{name}{taken + 1}" if taken else name
        name = names[values]
        schemas[name] = {"type": "string", "enum": list(values)}
        if any(value.startswith("-") for value in values):
            # Generators drop the minus sign, so that two values would have the same name.
            varnames = [f"{v[1:]}_descending" if v.startswith("-") else v for v in values]
            schemas[name]["x-enum-varnames"] = varnames
        reference = {"$ref": f"#/components/schemas/{name}"}
        if "default" in node:  # Beside a reference, generators lose the type.
            schemas[name]["default"] = node["default"]
        siblings = {key: node[key] for key in node if key not in ("type", "enum", "default")}
        node.clear()
        node |= {"allOf": [reference], **siblings} if siblings else reference


def _name_from_path(path: tuple[str, ...]) -> str:
    """Make a name for an enumeration from the schema and the members that contain it."""
    inner = [name for name in path if name not in ("components", "schemas", "properties", "items")]
    return "".join(name[:1].upper() + name[1:] for name in inner if name.isidentifier())


def _put_octet_stream_first(document: Node) -> None:
    for _, node in _nodes(document["paths"]):
        content = node.get("content", {})
        if "image/*" in content:
            node["content"] = {"application/octet-stream": content["image/*"], **content}


def _group_operations(document: Node) -> None:
    headings: Node = {}
    renamed: dict[str, str] = {}
    for tag in document.get("tags", ()):
        heading = renamed[tag["name"]] = _heading(tag["name"])
        headings.setdefault(
            heading, HEADING_DESCRIPTIONS.get(heading) or tag.get("description", "")
        )
    document["tags"] = [{"name": n, "description": headings[n]} for n in headings]
    for item in document["paths"].values():
        for operation in item.values():
            if isinstance(operation, dict) and "tags" in operation:
                operation["tags"] = [*dict.fromkeys(renamed[tag] for tag in operation["tags"])]


def _heading(tag: str) -> str:
    """Return the heading for the tag of a blueprint; a plugin's is `x-<plugin>-<blueprint>`."""
    if tag.startswith("x-"):
        return f"Plugin {tag.split('-')[1]}"
    return HEADINGS[tag]
