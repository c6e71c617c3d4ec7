"""What `clustr plugins list` and `show` print of plugins, for people."""

import json
import shutil
import textwrap
from collections.abc import Iterable, Iterator
from typing import Any

from clustr.cli.plugin_description import describe_vector


def single_line(text: object) -> str:
    """Make foreign text safe for a terminal: one line, unprintable characters replaced."""
    return "".join(c if c.isprintable() else "?" for c in " ".join(str(text).split()))


def table_rows(plugins_found: Iterable[dict[str, Any]]) -> Iterator[str]:
    """Yield the lines of a table of all plugins, with its heading."""
    rows: list[tuple[str, ...]] = [
        ("NAME", "VERSION", "SOURCE", "STATE", "ANALYZERS", "LOAD", "REASON")
    ]
    for plugin in plugins_found:
        analyzers = ", ".join(
            f"{a['name']} v{a['version']} {a['queue']}" for a in plugin["analyzers"]
        )
        load_time = f"{plugin['load_ms']:.0f} ms"
        values = (
            plugin["version"],
            plugin["source"],
            plugin["state"],
            analyzers,
            load_time,
            plugin["reason"],
        )
        rows.append((single_line(plugin["name"]), *(single_line(value or "-") for value in values)))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        yield "  ".join(cells).rstrip()


def plugin_details(plugin: dict[str, Any]) -> Iterator[str]:
    """Yield the lines that describe one plugin."""
    yield f"{single_line(plugin['name'])} {single_line(plugin['version'] or '')}".rstrip()
    yield from detail_lines("state", f"{plugin['state']}, after {plugin['load_ms']:.0f} ms")
    yield from detail_lines("reason", plugin["reason"])
    yield from detail_lines("source", plugin["source"])
    yield from detail_lines("file", plugin["file"])
    yield from detail_lines("hooks", ", ".join(plugin["hooks"]))
    yield from detail_lines(
        "routes", f"{plugin['blueprints']} blueprints" if plugin["blueprints"] else None
    )
    for analyzer in plugin["analyzers"]:
        yield from analyzer_details(analyzer)
    for filter in plugin["filters"]:
        name = f"analyses.{filter['analyzer']}.{filter['field']}"
        yield f"\nfilter {single_line(name)}"
        yield from detail_lines("name", filter["name"])
        yield from detail_lines("title", filter["title"])
        yield from detail_lines("summary", filter["summary"])
        yield from detail_lines("type", filter["type"])
        yield from detail_lines("operators", ", ".join(filter["operators"]))
        yield from detail_lines("indexed", "yes" if filter["indexed"] else "no")
        yield from detail_lines("internal", "yes" if filter["internal"] else None)
    for key in plugin["config"]:
        yield f"\nkey {single_line(key['key'])}"
        yield from detail_lines("value", None if key["value"] is None else json.dumps(key["value"]))
        yield from detail_lines("meaning", key["description"])
        yield from detail_lines("type", key["type"] + ("; required" if key["required"] else ""))
        yield from detail_lines(
            "default", None if key["default"] is None else json.dumps(key["default"])
        )
        yield from detail_lines("variables", ", ".join(key["environment"]))
    if plugin["traceback"]:
        yield "\n" + "\n".join(code_line(text) for text in plugin["traceback"].splitlines())


def analyzer_details(analyzer: dict[str, Any]) -> Iterator[str]:
    yield f"\nanalyzer {analyzer['name']} v{analyzer['version']}"
    yield from detail_lines("summary", analyzer["summary"])
    yield from detail_lines("queue", analyzer["queue"])
    yield from detail_lines("formats", ", ".join(analyzer["formats"]) or "all")
    yield from detail_lines("requires", ", ".join(analyzer["requires"]))
    yield from detail_lines(
        "when", "at every upload" if analyzer["auto"] else "only when asked for"
    )
    yield from detail_lines("timeout", f"{analyzer['timeout']:g} seconds")
    yield from detail_lines("attempts", f"{analyzer['max_attempts']} at most")
    memory = analyzer["memory_mb"]
    yield from detail_lines("memory", f"{memory} megabytes more at most" if memory else "no limit")
    yield from detail_lines("batches", f"of {analyzer['batch_size']} images at most")
    yield from detail_lines(
        "process", "kept for ever" if analyzer["keep_loaded"] else "kept for a minute"
    )
    fills = (f"{name} from {key}" for name, key in analyzer["fields"].items())
    yield from detail_lines("fills", ", ".join(fills))
    result = (f"{name} ({type})" for name, type in analyzer["result"].items())
    yield from detail_lines("result", "; ".join(result))
    vectors = (f"{name} ({describe_vector(one)})" for name, one in analyzer["vectors"].items())
    yield from detail_lines("vectors", "; ".join(vectors))


def detail_lines(name: str, value: object) -> Iterator[str]:
    """Yield a name and its value as one wrapped text; nothing when there is no value."""
    if value:
        width = max(40, min(shutil.get_terminal_size().columns, 120))
        yield textwrap.fill(
            single_line(value),
            width,
            initial_indent=f"  {name:<10} ",
            subsequent_indent=" " * 13,
            break_on_hyphens=False,
            break_long_words=False,
        )


def code_line(text: str) -> str:
    return "  " + "".join(c if c.isprintable() else "?" for c in text.expandtabs())
