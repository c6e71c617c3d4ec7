"""`clustr plugins`: which plugins there are, and what is wrong with them.

Everything here works when everything is broken: no server is asked for anything, and what belongs
to a plugin is done in a process of its own, which may hang or die.
"""

import json
import shutil
import sys
import textwrap
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NoReturn

import click

from clustr.cli import scaffold
from clustr.cli.config_example import example_configuration
from clustr.cli.inspect_plugins import InspectedPlugins, find_sources, import_alone, inspect_plugins
from clustr.cli.requirements import pinned_requirements, unmet_requirements
from clustr.cli.run import GOOD, FileRun, for_people, needed_for
from clustr.cli.subprocess_check import ChildResult
from clustr.domain import failure_messages
from clustr.plugin_manager import Candidate, PluginState, find_candidates, is_switched_off
from clustr.plugin_manager.configuration import RESERVED
from clustr.plugin_manager.declarations import NAME

FINE, PROBLEMS, REFUSED = 0, 1, 2
SLOW_SECONDS = 1.0


def limit_of(seconds: float) -> Callable[..., Any]:
    """The option that says how long the commands wait for a plugin."""
    return click.option(
        "--limit",
        default=seconds,
        show_default=True,
        metavar="SECONDS",
        type=click.FloatRange(0.1),
        help="How long a plugin may take to import, and then to load.",
    )


as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@click.group()
def plugins() -> None:
    """Say which plugins there are, what they bring, and what is wrong with them.

    No server is needed, and a plugin that hangs or crashes is told like any other. Exit code: 0, or
    1 when the settings or the file of configuration are broken, 2 when it could not be done.
    """


@plugins.command(name="list")
@as_json
@limit_of(10.0)
def list_plugins(as_json: bool, limit: float) -> None:
    """List all plugins, those that could not be loaded among them."""
    place = find_sources()
    seen = inspect_plugins(place.settings, limit)
    if as_json:
        print_json({"data": seen.plugins, "warnings": seen.warnings})
    else:
        for row in table(seen.plugins):
            click.echo(row)
        say_warnings(seen)
    sys.exit(PROBLEMS if place.problems else FINE)


@plugins.command()
@click.argument("name")
@as_json
@limit_of(10.0)
def show(name: str, as_json: bool, limit: float) -> None:
    """Show everything about one plugin, but its secrets."""
    place = find_sources()
    for one in chosen(inspect_plugins(place.settings, limit), name):
        if as_json:
            print_json(one)
        else:
            click.echo("\n".join(plugin_details(one)))
    sys.exit(PROBLEMS if place.problems else FINE)


@plugins.command()
@click.argument("name")
@limit_of(10.0)
def config(name: str, limit: float) -> None:
    """Print an example of a plugin's configuration, for the file PLUGINS_CONFIG."""
    place = find_sources()
    one = chosen(inspect_plugins(place.settings, limit), name)[0]
    if not one["hooks"]:
        refuse(f"it is not known what can be configured: {name} is {one['state']}: {one['reason']}")
    click.echo(example_configuration(name, one["config"]), nl=False)
    sys.exit(PROBLEMS if place.problems else FINE)


@plugins.command()
@click.argument("name", required=False)
@limit_of(30.0)
def check(name: str | None, limit: float) -> None:
    """Check one plugin, or all: whether it can be loaded, and how it behaves.

    Each is imported in a process of its own. Exit code: 0 when all is fine, 1 when something is
    wrong; a warning is not.
    """
    place = find_sources()
    settings = place.settings
    switches = settings.plugins_enabled, settings.plugins_disabled
    candidates = list(find_candidates(settings.plugins_folder))
    names = [candidate.name for candidate in candidates]
    if name and name not in names:
        refuse(failure_messages.unknown_name("plugin", name, names))
    trials = {
        number: import_alone(candidate, limit)
        for number, candidate in enumerate(candidates)
        if name in (None, candidate.name) and not is_switched_off(candidate.name, *switches)
    }
    lost = {names[n]: f"import: {trial.failure}" for n, trial in trials.items() if trial.failure}
    seen = inspect_plugins(settings, limit, lost)
    wrong = 0
    for number, one in enumerate(seen.plugins):
        if name in (None, one["name"]):
            wrong += report(one, *findings(candidates[number], one, trials.get(number)))
    say_warnings(seen)
    sys.exit(PROBLEMS if wrong or place.problems else FINE)


@plugins.command(name="run")
@click.argument("analyzer")
@click.argument(
    "files",
    metavar="FILE...",
    nargs=-1,
    required=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON, a line for each file.")
@limit_of(10.0)
def run_analyzer(analyzer: str, files: tuple[Path, ...], as_json: bool, limit: float) -> None:
    """Run ANALYZER on files and print what it says of each; nothing is stored.

    Analyzers that it requires run first. A plugin that is switched off can be tried, too. What the
    plugin logs or prints goes to standard error.

    Exit code: 0 when there is a result of every file or the analyzer has nothing to say about it, 1
    when a file is no image or an analysis failed or would have to wait, 2 when it could not be
    done.
    """
    place = find_sources()
    needed = needed_for(analyzer, place.settings, limit)
    ends = FileRun(analyzer, files, place.settings, needed).ends()
    for end in ends:
        if as_json:
            click.echo(json.dumps(end))
        else:
            heading, *rest = for_people(end)
            click.echo(line(heading))
            for text in rest:
                click.echo("\n".join(line_of_code(one) for one in text.splitlines()))
    fine = all(end["state"] in GOOD for end in ends)
    sys.exit(PROBLEMS if place.problems or not fine else FINE)


@plugins.command()
@click.argument("name")
@click.option("--http", is_flag=True, help="An analyzer that calls a service over HTTP.")
@click.option("--drop-in", is_flag=True, help="Not a project, but a package in PLUGINS_FOLDER.")
def new(name: str, http: bool, drop_in: bool) -> None:
    """Write a new plugin: a project that can be installed and passes its tests as it is."""
    if not NAME.fullmatch(name) or name in RESERVED:
        refuse(
            f"{name} cannot be the name of a plugin: it must match {NAME.pattern}, and "
            f"{' and '.join(RESERVED)} are kept for Clustr"
        )
    folder = find_sources().settings.plugins_folder
    if name in [candidate.name for candidate in find_candidates(folder)]:
        refuse(f"there is a plugin {name} already")
    target = folder / name if drop_in else Path(f"clustr-{name.replace('_', '-')}")
    contents = scaffold.drop_in(name, http) if drop_in else scaffold.project(name, http)
    try:
        scaffold.write_files(target, contents)
    except OSError as error:
        refuse(f"{target} cannot be made: {error.strerror}")
    click.echo(f"Wrote {target}; its README.md says how to go on.")


def findings(
    candidate: Candidate, one: dict[str, Any], trial: ChildResult | None
) -> tuple[list[str], list[str]]:
    """What is wrong with a plugin, and what is only worth a warning."""
    if one["state"] == PluginState.DISABLED:
        return [], []
    problems = [] if one["state"] == PluginState.LOADED else [f"{one['state']}: {one['reason']}"]
    warnings = list(behaviour(trial)) if trial else []
    if candidate.distribution and candidate.distribution.name != "clustr":
        problems += unmet_requirements(candidate.distribution)
        warnings += pinned_requirements(candidate.distribution)
    return problems, warnings


def behaviour(trial: ChildResult) -> Iterator[str]:
    """What a plugin does at its import that it should not."""
    if trial.printed:
        yield f"it prints when it is imported: {trial.printed.splitlines()[0]}"
    for sent in trial.sent:
        if sent["heavy"]:
            names = ", ".join(sent["heavy"])
            yield f"its import imports {names}; import what is heavy in setup()"
        if sent["seconds"] > SLOW_SECONDS:
            yield f"its import takes {sent['seconds']:.1f} seconds"
        if sent["threads"]:
            yield "its import begins a thread, which is lost in the processes that analyze"


def report(one: dict[str, Any], problems: list[str], warnings: list[str]) -> int:
    """Print what was found; how many problems there are."""
    state = "disabled" if one["state"] == PluginState.DISABLED else "fine"
    click.echo(f"{line(one['name'])}: {'' if problems else state}".rstrip())
    for problem in problems:
        click.echo(f"  problem: {line(problem)}")
    for warning in warnings:
        click.echo(f"  warning: {line(warning)}")
    return len(problems)


def chosen(seen: InspectedPlugins, name: str) -> list[dict[str, Any]]:
    """The plugins of this name: several, when they are in conflict."""
    found = [one for one in seen.plugins if one["name"] == name]
    if not found:
        refuse(failure_messages.unknown_name("plugin", name, [one["name"] for one in seen.plugins]))
    return found


def refuse(reason: str) -> NoReturn:
    click.echo(f"clustr: {line(reason)}", err=True)
    sys.exit(REFUSED)


def say_warnings(seen: InspectedPlugins) -> None:
    for warning in seen.warnings:
        click.echo(f"warning: {line(warning)}", err=True)


def print_json(value: Any) -> None:
    click.echo(json.dumps(value, indent=2))


def line(text: object) -> str:
    """A text of others in one line that a terminal can be given."""
    return "".join(c if c.isprintable() else "?" for c in " ".join(str(text).split()))


def table(found: Iterable[dict[str, Any]]) -> Iterator[str]:
    """The list for people, in columns."""
    rows = [("NAME", "VERSION", "SOURCE", "STATE", "ANALYZERS", "LOAD", "REASON")]
    for one in found:
        analyzers = ", ".join(f"{a['name']} v{a['version']} {a['queue']}" for a in one["analyzers"])
        took = f"{one['load_ms']:.0f} ms"
        shown = (one["version"], one["source"], one["state"], analyzers, took, one["reason"])
        rows.append((line(one["name"]), *(line(value or "-") for value in shown)))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        yield "  ".join(cells).rstrip()


def plugin_details(one: dict[str, Any]) -> Iterator[str]:
    """Everything about one plugin, for people."""
    yield f"{line(one['name'])} {line(one['version'] or '')}".rstrip()
    yield from fact("state", f"{one['state']}, after {one['load_ms']:.0f} ms")
    yield from fact("reason", one["reason"])
    yield from fact("source", one["source"])
    yield from fact("file", one["file"])
    yield from fact("hooks", ", ".join(one["hooks"]))
    yield from fact("routes", f"{one['blueprints']} blueprints" if one["blueprints"] else None)
    for analyzer in one["analyzers"]:
        yield from about_analyzer(analyzer)
    for filter in one["filters"]:
        name = f"analyses.{filter['analyzer']}.{filter['field']}"
        yield f"\nfilter {line(name)}"
        yield from fact("summary", filter["summary"])
        yield from fact("type", filter["type"])
        yield from fact("operators", ", ".join(filter["operators"]))
        yield from fact("indexed", "yes" if filter["indexed"] else "no")
    for key in one["config"]:
        yield f"\nkey {line(key['key'])}"
        yield from fact("value", None if key["value"] is None else json.dumps(key["value"]))
        yield from fact("meaning", key["description"])
        yield from fact("type", key["type"] + ("; required" if key["required"] else ""))
        yield from fact("default", None if key["default"] is None else json.dumps(key["default"]))
        yield from fact("variables", ", ".join(key["environment"]))
    if one["traceback"]:
        yield "\n" + "\n".join(line_of_code(text) for text in one["traceback"].splitlines())


def about_analyzer(analyzer: dict[str, Any]) -> Iterator[str]:
    yield f"\nanalyzer {analyzer['name']} v{analyzer['version']}"
    yield from fact("summary", analyzer["summary"])
    yield from fact("queue", analyzer["queue"])
    yield from fact("formats", ", ".join(analyzer["formats"]) or "all")
    yield from fact("requires", ", ".join(analyzer["requires"]))
    yield from fact("when", "at every upload" if analyzer["auto"] else "only when asked for")
    yield from fact("timeout", f"{analyzer['timeout']:g} seconds")
    yield from fact("attempts", f"{analyzer['max_attempts']} at most")
    memory = analyzer["memory_mb"]
    yield from fact("memory", f"{memory} megabytes more at most" if memory else "no limit")
    yield from fact("batches", f"of {analyzer['batch_size']} images at most")
    yield from fact("process", "kept for ever" if analyzer["keep_loaded"] else "kept for a minute")
    fills = (f"{name} from {key}" for name, key in analyzer["fields"].items())
    yield from fact("fills", ", ".join(fills))
    result = (f"{name} ({type})" for name, type in analyzer["result"].items())
    yield from fact("result", "; ".join(result))


def fact(name: str, value: object) -> Iterator[str]:
    """A line with a name and a value, which is wrapped; none when there is no value."""
    if value:
        width = max(40, min(shutil.get_terminal_size().columns, 120))
        yield textwrap.fill(
            line(value),
            width,
            initial_indent=f"  {name:<10} ",
            subsequent_indent=" " * 13,
            break_on_hyphens=False,
            break_long_words=False,
        )


def line_of_code(text: str) -> str:
    return "  " + "".join(c if c.isprintable() else "?" for c in text.expandtabs())
