"""`clustr plugins`: lists, checks and runs plugins, and writes new ones.

The commands also work when servers are down and plugins are broken: they need no server, and
code of plugins runs in child processes, which may hang or crash.
"""

import importlib.util
import json
import keyword
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn

import click

from clustr.cli import scaffold
from clustr.cli.config_example import example_configuration
from clustr.cli.inspect_plugins import (
    InspectedPlugins,
    import_in_child,
    inspect_plugins,
    read_sources_and_print_problems,
)
from clustr.cli.plugin_details import code_line, plugin_details, single_line, table_rows
from clustr.cli.requirements import clashing_requirements, pinned_requirements, unmet_requirements
from clustr.cli.run import GOOD_STATES, FileRun, find_needed_plugins, format_result
from clustr.cli.running_service import why_outdated
from clustr.cli.subprocess_check import ChildResult
from clustr.domain import failure_messages
from clustr.plugin_manager import (
    Candidate,
    PluginState,
    Unloadable,
    find_candidates,
    require_importable,
)
from clustr.plugin_manager.configuration import RESERVED
from clustr.plugin_manager.declarations import NAME
from clustr.settings import Settings

# Exit codes.
FINE, PROBLEMS, REFUSED = 0, 1, 2
SLOW_SECONDS = 1.0
NO_ANALYZER = "as it is configured, it has no analyzer that could look at a file"


def limit_option(seconds: float) -> Callable[..., Any]:
    """Make the option `--limit`: how many seconds a command waits for a plugin."""
    return click.option(
        "--limit",
        default=seconds,
        show_default=True,
        metavar="SECONDS",
        type=click.FloatRange(0.1),
        help="How long a plugin may take to import, and then to load.",
    )


EXISTING_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)

as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@click.group()
def plugins() -> None:
    """Say which plugins there are, what they bring, and what is wrong with them.

    No server is needed, and a plugin that hangs or crashes is told like any other. Exit code: 0, or
    1 when the settings or the file of configuration are broken, 2 when it could not be done.
    """


@plugins.command(name="list")
@as_json
@limit_option(10.0)
def list_plugins(as_json: bool, limit: float) -> None:
    """List all plugins, those that could not be loaded among them."""
    sources = read_sources_and_print_problems()
    inspected = inspect_plugins(sources.settings, limit)
    inspected.warnings.extend(why_outdated(sources.settings, inspected.plugins, limit))
    if as_json:
        print_json({"data": inspected.plugins, "warnings": inspected.warnings})
    else:
        for row in table_rows(inspected.plugins):
            click.echo(row)
        if inspected.note:
            click.echo(f"note: {single_line(inspected.note)}", err=True)
        print_warnings(inspected)
    sys.exit(PROBLEMS if sources.problems else FINE)


@plugins.command()
@click.argument("name")
@as_json
@limit_option(10.0)
def show(name: str, as_json: bool, limit: float) -> None:
    """Show everything about one plugin, but its secrets."""
    sources = read_sources_and_print_problems()
    for plugin in select_plugins(inspect_plugins(sources.settings, limit), name):
        if as_json:
            print_json(plugin)
        else:
            click.echo("\n".join(plugin_details(plugin)))
    sys.exit(PROBLEMS if sources.problems else FINE)


@plugins.command()
@click.argument("name")
@limit_option(10.0)
def config(name: str, limit: float) -> None:
    """Print an example of a plugin's configuration, for the file PLUGINS_CONFIG."""
    sources = read_sources_and_print_problems()
    plugin = select_plugins(inspect_plugins(sources.settings, limit), name)[0]
    if not plugin["hooks"]:
        refuse(
            f"it is not known what can be configured: {name} is {plugin['state']}: "
            f"{plugin['reason']}"
        )
    click.echo(example_configuration(name, plugin["config"]), nl=False)
    sys.exit(PROBLEMS if sources.problems else FINE)


@plugins.command()
@click.argument("name", required=False)
@click.argument("files", metavar="[FILE]...", nargs=-1, type=EXISTING_FILE)
@limit_option(30.0)
def check(name: str | None, files: tuple[Path, ...], limit: float) -> None:
    """Check one plugin, or all: whether it can be loaded, and how it behaves.

    Each is imported in a process of its own. With a FILE the plugin's analyzers look at it, and
    what is sent to a service is kept: look at both, for a model that cannot see answers, too.

    Exit code: 0 when all is fine, 1 when something is wrong; a warning is not.
    """
    sources = read_sources_and_print_problems()
    settings = sources.settings
    candidates = list(find_candidates(settings.plugins_folder))
    names = [candidate.name for candidate in candidates]
    if name and name not in names:
        refuse(failure_messages.unknown_name("plugin", name, names))
    import_results = {
        number: import_in_child(candidate, limit)
        for number, candidate in enumerate(candidates)
        if name in (None, candidate.name) and is_importable(candidate, names[:number], settings)
    }
    excluded = {
        names[n]: f"import: {result.failure}"
        for n, result in import_results.items()
        if result.failure
    }
    inspected = inspect_plugins(settings, limit, excluded)
    problem_count = 0
    for number, plugin in enumerate(inspected.plugins):
        if name not in (None, plugin["name"]):
            continue
        problems, warnings = check_plugin(candidates[number], plugin, import_results.get(number))
        warnings += contest_warnings(plugin, inspected.contested_fields)
        if files and not problems and not plugin["analyzers"]:
            problems.append(NO_ANALYZER)
        tried = [] if problems else plugin["analyzers"]
        trials = [try_analyzer(each, files, settings, limit) for each in tried] if files else []
        problem_count += print_findings(plugin, problems, warnings, trials)
        if name and not problems:
            click.echo(f"  tried: {single_line(describe_trial(plugin, files))}")
        print_trials(plugin, trials)
    print_warnings(inspected)
    sys.exit(PROBLEMS if problem_count or sources.problems else FINE)


def is_importable(candidate: Candidate, earlier: Sequence[str], settings: Settings) -> bool:
    """Whether the service would import a plugin, behind those with these names."""
    try:
        require_importable(candidate, earlier, settings.plugins_enabled, settings.plugins_disabled)
    except Unloadable:  # `inspect_plugins` says why.
        return False
    return True


def try_analyzer(
    analyzer: dict[str, Any], files: tuple[Path, ...], settings: Settings, limit: float
) -> list[dict[str, Any]]:
    """Run an analyzer on files, keep what it sends to a service, and return the results."""
    needed = find_needed_plugins(analyzer["name"], settings, limit)
    folder = Path(tempfile.mkdtemp(prefix="clustr-sent-"))
    results = FileRun(analyzer["name"], files, settings, needed, folder).results()
    if not any(folder.iterdir()):
        folder.rmdir()
    return results


def print_trials(plugin: dict[str, Any], trials: Sequence[list[dict[str, Any]]]) -> None:
    """Print the results of each analyzer that was tried, and what they do not show."""
    for analyzer, results in zip(plugin["analyzers"], trials, strict=False):
        for result in results:
            print_result(result)
        for warning in missing_key_warnings(analyzer, results):
            click.echo(f"  warning: {single_line(warning)}")


def print_result(result: dict[str, Any]) -> None:
    heading, *rest = format_result(result)
    click.echo(single_line(heading))
    for text in rest:
        click.echo("\n".join(code_line(code) for code in text.splitlines()))


@plugins.command(name="run")
@click.argument("analyzer")
@click.argument("files", metavar="FILE...", nargs=-1, required=True, type=EXISTING_FILE)
@click.option("--json", "as_json", is_flag=True, help="Print JSON, a line for each file.")
@limit_option(10.0)
def run_analyzer(analyzer: str, files: tuple[Path, ...], as_json: bool, limit: float) -> None:
    """Run ANALYZER on files and print what it says of each; nothing is stored.

    Analyzers that it requires run first. A plugin that is switched off can be tried, too. What the
    plugin logs or prints goes to standard error.

    Exit code: 0 when there is a result of every file or the analyzer has nothing to say about it, 1
    when a file is no image or an analysis failed or would have to wait, 2 when it could not be
    done.
    """
    sources = read_sources_and_print_problems()
    needed = find_needed_plugins(analyzer, sources.settings, limit)
    results = FileRun(analyzer, files, sources.settings, needed).results()
    for result in results:
        if as_json:
            click.echo(json.dumps(result))
        else:
            print_result(result)
    all_good = all(result["state"] in GOOD_STATES for result in results)
    sys.exit(PROBLEMS if sources.problems or not all_good else FINE)


@plugins.command()
@click.argument("name")
@click.option("--http", is_flag=True, help="An analyzer that calls a service over HTTP.")
@click.option("--drop-in", is_flag=True, help="Not a project, but a package in PLUGINS_FOLDER.")
def new(name: str, http: bool, drop_in: bool) -> None:
    """Write a new plugin: a project that can be installed and passes its tests as it is."""
    is_split_well = "__" not in name and not name.endswith("_")
    if not NAME.fullmatch(name) or not is_split_well or name in RESERVED:
        refuse(
            f"{name} cannot be the name of a new plugin: it must match {NAME.pattern}, without two "
            f"underscores in a row or one at its end, and {', '.join(RESERVED)} are kept for Clustr"
        )
    folder = read_sources_and_print_problems().settings.plugins_folder
    if name in [candidate.name for candidate in find_candidates(folder)]:
        refuse(f"there is a plugin {name} already")
    if drop_in and (keyword.iskeyword(name) or importlib.util.find_spec(name)):
        refuse(f"{name} cannot be the name of a new drop-in: Python uses it")
    target = folder / name if drop_in else Path(f"clustr-{name.replace('_', '-')}")
    contents = scaffold.drop_in_files(name, http) if drop_in else scaffold.project_files(name, http)
    try:
        scaffold.write_files(target, contents)
    except OSError as error:
        refuse(f"{target} cannot be made: {error.strerror}")
    click.echo(f"Wrote {target}; its README.md says how to go on.")


def check_plugin(
    candidate: Candidate, plugin: dict[str, Any], import_result: ChildResult | None
) -> tuple[list[str], list[str]]:
    """Return the problems of a plugin, and its warnings."""
    if plugin["state"] == PluginState.DISABLED:
        return [], []
    problems = (
        [] if plugin["state"] == PluginState.LOADED else [f"{plugin['state']}: {plugin['reason']}"]
    )
    warnings = list(import_warnings(import_result)) if import_result else []
    warnings += [text for analyzer in plugin["analyzers"] for text in analyzer["warnings"]]
    if candidate.distribution and candidate.distribution.name != "clustr":
        problems += unmet_requirements(candidate.distribution)
        warnings += pinned_requirements(candidate.distribution)
        warnings += clashing_requirements(candidate.distribution)
    return problems, warnings


def describe_trial(plugin: dict[str, Any], files: Sequence[Path]) -> str:
    """Say what was tried of a plugin, and what was not."""
    if plugin["state"] == PluginState.DISABLED:
        return "nothing, because the settings switch it off"
    counts = {
        "analyzer": len(plugin["analyzers"]),
        "filter": len(plugin["filters"]),
        "blueprint": plugin["blueprints"],
    }
    brings = [
        f"{count} {kind}{'s' if count > 1 else ''}" for kind, count in counts.items() if count
    ]
    registers = f"what it registers ({', '.join(brings) or 'nothing'})"
    images = f"{len(files)} of your files" if files else "no image, because no FILE was given"
    return f"its import, its configuration, {registers}; {images}"


def contest_warnings(plugin: dict[str, Any], contested: Mapping[str, list[str]]) -> list[str]:
    """Warn of each field of uploads that an analyzer of the plugin and another would fill."""
    own = {analyzer["name"] for analyzer in plugin["analyzers"]}
    return [
        f"{' and '.join(names)} would fill {field} of uploads, and {names[0]} does; "
        "[fields] in plugins.toml says which"
        for field, names in contested.items()
        if own.intersection(names)
    ]


def missing_key_warnings(
    analyzer: dict[str, Any], results: Iterable[dict[str, Any]]
) -> Iterator[str]:
    """Warn when no result had every key of the schema: then nobody has seen what is in the rest."""
    keys, found = set(analyzer["result"]), [one["result"] for one in results if one["result"]]
    fewest: set[str] = min((keys - result.keys() for result in found), key=len, default=set())
    if fewest:
        missing = ", ".join(sorted(fewest))
        yield f"no result that was tried has every key of its schema; the best lacks {missing}"


def import_warnings(import_result: ChildResult) -> Iterator[str]:
    """Yield a warning for each side effect of a plugin's import."""
    if import_result.printed:
        yield f"it prints when it is imported: {import_result.printed.splitlines()[0]}"
    for message in import_result.sent:
        if message["heavy"]:
            names = ", ".join(message["heavy"])
            yield f"its import imports {names}; import what is heavy in setup()"
        if message["seconds"] > SLOW_SECONDS:
            yield f"its import takes {message['seconds']:.1f} seconds"
        if message["threads"]:
            yield "its import begins a thread, which is lost in the processes that analyze"


def print_findings(
    plugin: dict[str, Any],
    problems: list[str],
    warnings: list[str],
    trials: Sequence[list[dict[str, Any]]],
) -> int:
    """Print the problems and warnings of a plugin, and return how many problems and bad files."""
    bad = {r["file"]: r["state"] for each in trials for r in each if r["state"] not in GOOD_STATES}
    state = "disabled" if plugin["state"] == PluginState.DISABLED else "fine"
    if bad:
        state = f"{len(bad)} of {len(trials[0])} files {' or '.join(sorted({*bad.values()}))}"
    click.echo(f"{single_line(plugin['name'])}: {'' if problems else state}".rstrip())
    for problem in problems:
        click.echo(f"  problem: {single_line(problem)}")
    for warning in warnings:
        click.echo(f"  warning: {single_line(warning)}")
    return len(problems) + len(bad)


def select_plugins(inspected: InspectedPlugins, name: str) -> list[dict[str, Any]]:
    """Return the plugins of this name: several when they are in conflict."""
    selected = [plugin for plugin in inspected.plugins if plugin["name"] == name]
    if not selected:
        refuse(
            failure_messages.unknown_name(
                "plugin", name, [plugin["name"] for plugin in inspected.plugins]
            )
        )
    return selected


def refuse(reason: str) -> NoReturn:
    click.echo(f"clustr: {single_line(reason)}", err=True)
    sys.exit(REFUSED)


def print_warnings(inspected: InspectedPlugins) -> None:
    for warning in inspected.warnings:
        click.echo(f"warning: {single_line(warning)}", err=True)


@plugins.command()
@click.argument("analyzer", metavar="ANALYZER")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--dry-run", is_flag=True, help="Only say what there is.")
def forget(analyzer: str, yes: bool, dry_run: bool) -> None:
    """Remove what is left of an analyzer that no plugin brings any more.

    That is its analyses with their results, their vectors, and indexes that no other plugin
    declares, by a job that the workers do. Captions, tags and other fields of uploads that it
    filled stay. Exit code: 0 when all is removed, 1 when the job did not come to its end, 2 when it
    was refused, 130 after Ctrl-C.
    """
    # Unlike the other commands here it needs the servers, and what connects to them.
    import_module("clustr.cli.forget").forget(analyzer, yes, dry_run)


def print_json(value: Any) -> None:
    click.echo(json.dumps(value, indent=2))
