"""Parts of results of analyzers: taking some of their fields, and leaving others out."""

from collections.abc import Iterable, Mapping
from typing import Any

Tree = dict[str, "Tree"]


def field_tree(paths: Iterable[str]) -> Tree:
    """The keys of paths with dots, each with those inside it; none for all that is inside it."""
    tree: Tree = {}
    for path in sorted(paths):
        node = tree
        *parents, last = path.split(".")
        for key in parents:
            if key in node and not node[key]:
                break  # A shorter path has it all.
            node = node.setdefault(key, {})
        else:
            node[last] = {}
    return tree


def only_fields(value: Any, tree: Tree) -> Any:
    """Take the fields of a result at these paths; all elements of a list are on the way."""
    if not tree:
        return value
    if isinstance(value, list | tuple):
        return [only_fields(each, tree) for each in value]
    if not isinstance(value, Mapping):
        return value
    return {key: only_fields(value[key], inner) for key, inner in tree.items() if key in value}


def without_fields(value: Any, tree: Tree) -> Any:
    """Leave out the fields of a result at these paths; all elements of a list are on the way."""
    if not tree:
        return value
    if isinstance(value, list | tuple):
        return [without_fields(each, tree) for each in value]
    if not isinstance(value, Mapping):
        return value
    return {
        key: without_fields(inner, tree.get(key, {}))
        for key, inner in value.items()
        if key not in tree or tree[key]
    }
