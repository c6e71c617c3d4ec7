"""An example of a plugin's configuration in TOML, with comments, from what describes it."""

import json
import textwrap
from collections.abc import Mapping
from typing import Any

from clustr.plugin_manager.configuration import ENV

WIDTH = 100
HINT = "# An environment variable wins over what is said here."


def example_configuration(plugin: str, keys: list[Mapping[str, Any]]) -> str:
    """The table of a plugin with every key that it has, each as a comment.

    Args:
        keys: the `config` of the plugin's description.
    """
    if not keys:
        return f"# The plugin {plugin} takes no configuration.\n"
    blocks = [f"{HINT}\n[{plugin}]", *("\n".join(_lines(plugin, key)) for key in keys)]
    return "\n\n".join(blocks) + "\n"


def _lines(plugin: str, key: Mapping[str, Any]) -> list[str]:
    facts = [key["type"], "required" if key["required"] else "", "secret" if key["secret"] else ""]
    lines = [
        *textwrap.wrap(key["description"], WIDTH - 2),
        *textwrap.wrap("; ".join(filter(None, facts)), WIDTH - 2),
        f"in the environment: {' or '.join(key['environment'])}",
    ]
    return [*(f"# {line}" for line in lines), f"# {_name(key['key'])} = {_value(plugin, key)}"]


def _value(plugin: str, key: Mapping[str, Any]) -> str:
    if key["secret"]:
        return f'{{ "{ENV}" = "{plugin.upper()}_{key["key"].upper()}" }}'
    return "…" if key["default"] is None else toml(key["default"])


def _name(key: str) -> str:
    bare = key.isascii() and key.replace("_", "").replace("-", "").isalnum()
    return key if bare else json.dumps(key)


def toml(value: Any) -> str:
    """A value as TOML writes it; None has no way to be written and is left out of tables."""
    match value:
        case bool():
            return "true" if value else "false"
        case int() | float():
            return repr(value)
        case list():
            return f"[{', '.join(map(toml, value))}]"
        case dict():
            members = (f"{_name(str(k))} = {toml(v)}" for k, v in value.items() if v is not None)
            return f"{{ {', '.join(members)} }}"
    return json.dumps(str(value), ensure_ascii=False)
