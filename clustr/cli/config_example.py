"""Writes an example of a plugin's configuration in TOML, from the plugin's description."""

import json
import textwrap
from collections.abc import Mapping
from typing import Any

from clustr.plugin_manager.configuration import ENV

WIDTH = 100
HINT = "# An environment variable wins over what is said here."


def example_configuration(plugin: str, keys: list[Mapping[str, Any]]) -> str:
    """Write the TOML table of a plugin, with each key commented out and explained.

    Args:
        keys: the member `config` of what `describe_plugin` returns.
    """
    if not keys:
        return f"# The plugin {plugin} takes no configuration.\n"
    blocks = [f"{HINT}\n[{plugin}]", *("\n".join(_key_lines(plugin, key)) for key in keys)]
    return "\n\n".join(blocks) + "\n"


def _key_lines(plugin: str, key: Mapping[str, Any]) -> list[str]:
    facts = [key["type"], "required" if key["required"] else "", "secret" if key["secret"] else ""]
    lines = [
        *textwrap.wrap(key["description"], WIDTH - 2),
        *textwrap.wrap("; ".join(filter(None, facts)), WIDTH - 2),
        f"in the environment: {' or '.join(key['environment'])}",
    ]
    return [
        *(f"# {line}" for line in lines),
        f"# {_toml_key(key['key'])} = {_example_value(plugin, key)}",
    ]


def _example_value(plugin: str, key: Mapping[str, Any]) -> str:
    if key["secret"]:
        return f'{{ "{ENV}" = "{plugin.upper()}_{key["key"].upper()}" }}'
    return toml_value("…" if key["default"] is None else key["default"])


def _toml_key(key: str) -> str:
    bare = key.isascii() and key.replace("_", "").replace("-", "").isalnum()
    return key if bare else json.dumps(key)


def toml_value(value: Any) -> str:
    """Format a value as TOML (v1.0.0). TOML has no null: a None in a table is left out."""
    match value:
        case bool():
            return "true" if value else "false"
        case int() | float():
            return repr(value)
        case list():
            return f"[{', '.join(map(toml_value, value))}]"
        case dict():
            members = (
                f"{_toml_key(str(k))} = {toml_value(v)}" for k, v in value.items() if v is not None
            )
            return f"{{ {', '.join(members)} }}"
    return json.dumps(str(value), ensure_ascii=False)
