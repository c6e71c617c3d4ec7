"""The documents for authors and operators of plugins: what they say is so, and what they show runs.

In a block of `console` a `$` begins a command, and what follows is what it prints, where `…` stands
for anything. The first line of a block of Python may say which file it is.
"""

import ast
import dataclasses
import inspect
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import photographs
import PIL.Image
import pytest
from click.testing import CliRunner
from fork_server import run_program
from marshmallow import Schema, fields
from plugin_projects import ALONE, lay_down
from running import Servers, wait_until
from web_side import WebSide
from workshop import Program, Workshop

import clustr.plugins
import clustr.testing
from clustr.domain.models import State, Status
from clustr.plugin_manager import (
    EmptyLibrary,
    PluginManager,
    PluginState,
    commands_of,
    load_plugins,
)
from clustr.plugin_manager.configuration import ANALYZER_KEYS
from clustr.plugin_manager.registration import CLUSTR_API
from clustr.plugins import (
    Analysis,
    Analyzer,
    Context,
    HttpAnalyzer,
    HttpConfig,
    Image,
    Upload,
    hooks,
)
from clustr.plugins.filters import OPERATORS
from clustr.testing import KINDS, End, HttpStandIn, Part, Received, pytest_plugin

DOCS = Path(__file__).parent.parent / "docs/plugins"
PAGES = {str(page.relative_to(DOCS)): page.read_text() for page in sorted(DOCS.rglob("*.md"))}
HOOKS = [name for name in vars(hooks) if name.startswith("clustr_")]
DOCUMENTED_URL = "http://127.0.0.1:5000"
ADDED = ", at its end"
COMMAND = r"^\$ ((?:.*\\\n)*.*)\n((?:(?!\$ ).*\n)*)"


def blocks(page: str) -> list[tuple[str, str]]:
    """The blocks of code of a page: their language and their text."""
    return re.findall(r"^```(\w+)\n(.*?)^```$", PAGES[page], re.MULTILINE | re.DOTALL)


def code(page: str) -> set[str]:
    """What a page says in code, between backticks, with the blocks and without arguments."""
    text = re.sub(r"^```.*?^```$", "", PAGES[page], flags=re.MULTILINE | re.DOTALL)
    said = re.findall(r"`([^`]+)`", text) + [content for _, content in blocks(page)]
    return {word for one in said for word in re.findall(r"[A-Za-z_0-9.]+", one)}


# What has to be on the pages


def test_every_public_name_is_documented() -> None:
    said = set().union(*(code(page) for page in PAGES))
    for module in (clustr.plugins, clustr.testing):
        assert not set(module.__all__) - said, module.__name__
    fixtures = {name for name in vars(pytest_plugin) if name.startswith("clustr_")}
    assert len(fixtures) >= 2
    assert not fixtures - said
    values = (Image, Context, Upload, Analysis, End, Part, Received)
    attributes = {field.name for value in values for field in dataclasses.fields(value)}
    methods = {
        name
        for value in (Image, Context, HttpStandIn, HttpAnalyzer, clustr.plugins.Library)
        for name, member in vars(value).items()
        if inspect.isfunction(member) and not name.startswith("_")
    }
    assert (
        not (attributes | methods)
        - code("analyzer.md")
        - code("hooks/clustr_register_blueprints.md")
    )


def table(page: str, heading: str) -> dict[str, list[str]]:
    """The rows of the table under a heading, by what their first cell names."""
    section = re.search(rf"^## {heading}\n(.*?)(?=^## |\Z)", PAGES[page], re.MULTILINE | re.DOTALL)
    rows = re.findall(r"^\| `(\w+)[^|]*\| (.*) \|$", section[1], re.MULTILINE)
    assert rows
    return {name: cells.split(" | ") for name, cells in rows}


@pytest.mark.parametrize(
    ("class_", "heading", "others"),
    [
        (Analyzer, "Attributes", set()),
        (HttpAnalyzer, "Analyzers that call a service", {"queue"}),
    ],
)
def test_every_attribute_is_documented_with_its_default(class_, heading, others) -> None:
    rows = table("analyzer.md", heading)
    declared = set(class_.__annotations__)
    assert set(rows) == declared | (set(vars(class_)) & set(rows)) - others
    for name in declared:
        default = f"`{getattr(class_, name)!r}`" if hasattr(class_, name) else "none"
        assert rows[name][0] == default, name


def test_every_method_and_outcome_is_documented() -> None:
    methods = {
        name: list(inspect.signature(member).parameters)[1:]
        for name, member in vars(Analyzer).items()
        if inspect.isfunction(member) and not name.startswith("__")  # Python 3.14 adds some
    }
    rows = table("analyzer.md", "Methods")
    assert set(rows) == set(methods)
    for name, parameters in methods.items():
        assert f"`{name}({', '.join(parameters)})`" in PAGES["analyzer.md"]
    outcomes = {one.__name__ for one in clustr.plugins.Outcome.__subclasses__()}
    assert set(table("analyzer.md", "Outcomes")) == outcomes


def test_words_with_a_fixed_set_are_all_documented() -> None:
    assert set(KINDS) <= code("analyzer.md")
    assert set(OPERATORS) <= code("hooks/clustr_register_filters.md")
    assert set(ANALYZER_KEYS) <= code("configuration.md")
    assert {state.value for state in PluginState} == set(table("operating.md", "What is loaded"))
    assert {state.value for state in State} == set(table("operating.md", "How far analyses are"))
    assert f"now **{CLUSTR_API}**" in PAGES["compatibility.md"]
    assert f"CLUSTR_API = {CLUSTR_API}\n" in blocks("compatibility.md")[0][1]


def test_links_lead_somewhere() -> None:
    linked = set()
    for name, text in PAGES.items():
        for target in re.findall(r"\]\(([^)#]+)\)", text):
            path = (DOCS / name).parent / target
            assert path.exists(), f"{name}: {target}"
            linked.add(path.resolve())
    assert linked >= {DOCS / page for page in PAGES if page != "index.md"}


# The pages of the hooks


@pytest.mark.parametrize("name", HOOKS)
def test_page_of_a_hook_has_its_signature(name: str) -> None:
    page = f"hooks/{name}.md"
    (_, shown), *_ = blocks(page)
    [specified] = ast.parse(inspect.getsource(getattr(hooks, name))).body
    specified.decorator_list, specified.body = [], [ast.Pass()]
    [documented] = ast.parse(f"{shown.rstrip()}: pass").body
    assert ast.unparse(documented) == ast.unparse(specified)
    for heading in ("When it is called", "In which process", "When it fails", "Example"):
        assert f"\n## {heading}\n" in PAGES[page], heading
    assert f"](hooks/{name}.md)" in PAGES["index.md"]


def test_every_page_of_a_hook_is_of_a_hook() -> None:
    assert {page.stem for page in (DOCS / "hooks").iterdir()} == set(HOOKS)


def loaded(folder: Path, **sources: str) -> PluginManager:
    """A host with these plugins as drop-ins, and no others."""
    for name, source in sources.items():
        (folder / f"{name}.py").write_text(source)
    return load_plugins(folder, tuple(sources), (), folder / "plugins.toml", {})


UPLOAD = Upload(
    id="6b0320122fce94d44a44b78f",
    original_name="cat.jpg",
    filename="6b0320122fce94d44a44b78f.jpg",
    upload_time=datetime(2026, 1, 1, tzinfo=UTC),
    updated_at=datetime(2026, 1, 1, tzinfo=UTC),
    size=1,
    content_type="image/jpeg",
    sha256="0" * 64,
    width=320,
    height=200,
    status=Status.PENDING,
    analyses=(),
    request_id="request",
)
FAILED = Analysis("faces", 1, State.FAILED, error="no model")
# What the example of a hook that is told something logs when it is told this.
LOGGED = {
    "clustr_upload_stored": ({"upload": UPLOAD}, "cat.jpg came, 320 by 200 pixels"),
    "clustr_analysis_finished": (
        {"upload": UPLOAD, "analysis": FAILED},
        "faces failed on 6b0320122fce94d44a44b78f: no model",
    ),
    "clustr_upload_deleted": ({"upload": UPLOAD}, "6b0320122fce94d44a44b78f.jpg is gone"),
}


@pytest.mark.parametrize("name", HOOKS)
def test_example_of_a_hook_runs(name: str, tmp_path: Path, caplog, app_with) -> None:
    *_, (_, example) = blocks(f"hooks/{name}.md")
    plugin_manager = loaded(tmp_path, example=example)
    [plugin] = [one for one in plugin_manager.plugins if one.name == "example"]
    assert (plugin.state, plugin.reason) == ("loaded", None)
    assert name in plugin.hooks
    if name in LOGGED:
        arguments, message = LOGGED[name]
        plugin_manager.notify(name, **arguments)
        assert message in caplog.messages
        assert plugin.hook_errors == 0
    elif name == "clustr_config_schema":
        assert dict(plugin.config) == {"threshold": 0.5}
        assert dict(plugin.secrets) == {"token": ""}
    elif name == "clustr_register_blueprints":
        settings = {"PLUGINS_FOLDER": str(tmp_path), "PLUGINS_ENABLED": "example"}
        client = app_with(**settings).test_client()
        files = {"files": [(photographs.path("rocket").open("rb"), "rocket.jpg")]}
        upload_id = client.post("/api/upload", data=files).get_json()["data"][0]["id"]
        answer = client.get(f"/api/x/example/of/{upload_id}")
        assert answer.get_json() == {"shape": "wide"}
    elif name == "clustr_register_commands":
        [command] = commands_of(plugin, EmptyLibrary(plugin)).values()
        done = CliRunner().invoke(command, ["--json"])
        assert (done.exit_code, done.output) == (1, "Error: there is no such upload\n")
    else:
        assert len(plugin.analyzers) == 1
        for one in plugin.analyzers:
            clustr.testing.assert_analyzer_contract(one)
        assert bool(plugin.filters) == (name == "clustr_register_filters")


# The page about configuration

FACES = """
from marshmallow import Schema, fields
from clustr.plugins import Analyzer, hookimpl

class Config(Schema):
    token = fields.String(metadata={"secret": True})
    key = fields.String(metadata={"secret": True})

class Faces(Analyzer):
    name = "faces"
    result_schema = Schema

    def analyze(self, image, context):
        return {}

@hookimpl
def clustr_config_schema():
    return Config

@hookimpl
def clustr_register_analyzers(config):
    return [Faces()]
"""


def test_configuration_that_is_shown_is_one(tmp_path: Path) -> None:
    text = "\n".join(
        content for language, content in blocks("configuration.md") if language == "toml"
    )
    (tmp_path / "secret").write_text("sesame\n")
    text = text.replace("/run/secrets/faces", str(tmp_path / "secret"))
    assert set(tomllib.loads(text)) == {"blip", "faces", "analyzers", "fields"}
    (tmp_path / "plugins.toml").write_text(text)
    (tmp_path / "faces.py").write_text(FACES)
    environment = {"FACES_TOKEN": "t", "CLUSTR_PLUGIN__BLIP__TIMEOUT": "31"}
    names = ("blip", "faces")
    plugin_manager = load_plugins(tmp_path, names, (), tmp_path / "plugins.toml", environment)
    plugins = {plugin.name: plugin for plugin in plugin_manager.plugins if plugin.state == "loaded"}
    assert dict(plugins["faces"].secrets) == {"token": "t", "key": "sesame"}
    assert dict(plugins["faces"].config) == {}
    assert plugins["blip"].config["service_url"] == "http://captioner.internal:8001"
    assert plugins["blip"].config["timeout"] == 31
    faces = plugin_manager.analyzers["faces"]
    assert (faces.queue, faces.timeout, faces.auto) == ("gpu", 120, False)
    assert plugin_manager.warnings == ()


# What is to be typed


class Reader:
    """Somebody who does what a page says, in a folder, with a Clustr that can be started."""

    def __init__(self, workshop: Workshop):
        self.workshop = workshop
        self.folder = workshop.folder
        self._web: WebSide | None = None
        self._worker: Program | None = None
        (self.folder / "variables").touch()
        photographs.picture("cat", None).save(self.folder / "cat.jpg", quality=90)

    def follow(self, page: str) -> None:
        """Do all that the page says."""
        for language, content in blocks(page):
            if language == "console":
                self.type(content)
            elif language == "python":
                self.write(content)

    def write(self, content: str) -> None:
        """Write the file that a block is, by its first line."""
        first, rest = content.split("\n", 1)
        place = first.removeprefix("# ")
        path = self.folder / place.removesuffix(ADDED)
        before = path.read_text() + "\n\n" if place.endswith(ADDED) else ""
        path.write_text(before + rest)

    def type(self, content: str) -> None:
        """Type the commands of a block, and compare what they print."""
        for command, printed in re.findall(COMMAND, content, re.MULTILINE):
            match command.split():
                case ["clustr", "up"]:
                    self.start()
                case ["pip", "install", *_, project]:
                    source = lay_down(self.folder / project, project.rpartition("-")[2])
                    self.workshop.environment["PYTHONPATH"] = str(source)
                case ["pip", "uninstall", *_]:
                    del self.workshop.environment["PYTHONPATH"]
                case _:
                    self.compare(command, printed)

    def compare(self, command: str, expected: str) -> None:
        """Compare what a command prints with what is shown; an answer may take a moment."""
        lines = [f"{re.escape(line)}\n" for line in expected.splitlines()]
        lines = ["(?:.*\n)*?" if line == "…\n" else line.replace("…", ".*?") for line in lines]
        pattern = re.compile("".join(lines))
        printed: list[str] = []

        def as_shown() -> bool:
            printed.append(self.run(command))
            return bool(pattern.fullmatch(printed[-1]))

        asks = command.startswith("curl") and not re.search(r" -[FXd] ", command)
        try:
            wait_until(as_shown, 60 if asks else 0, command)
        except AssertionError:
            pytest.fail(f"{command}\nprinted\n{printed[-1]}\nand not\n{expected}")

    def run(self, command: str) -> str:
        """What a command prints; the variables that it sets are kept."""
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        environment = self.workshop.environment | {"PATH": path, "COLUMNS": "100"}
        environment["PYTEST_ADDOPTS"] = ALONE
        program = re.fullmatch(r"((?:\w+=\S+ )*)((?:clustr|pytest) [\w ./-]+)", command)
        if program:  # It needs no shell.
            environment |= dict(variable.split("=", 1) for variable in program[1].split())
            arguments = ["-m", *program[2].split()]
            printed = run_program(arguments, environment, self.folder, seconds=300).stdout
        else:
            printed = self._run_in_shell(command, environment)
        return "".join(f"{line.rstrip()}\n" for line in printed.strip().splitlines())

    def _run_in_shell(self, command: str, environment: dict[str, str]) -> str:
        if self._web:
            command = command.replace(DOCUMENTED_URL, self._web.url)
        script = f". ./variables; {command}\ndeclare -p ID JOB > variables 2> /dev/null"
        done = subprocess.run(
            ["bash", "-c", script],
            cwd=self.folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
            timeout=300,
        )
        return done.stdout

    def start(self) -> None:
        """Start Clustr, again if it runs."""
        if self._web and self._worker:
            assert self._worker.stop() == 0
            self._web.gunicorn.stop()
            self._web.start()
        else:
            self._web = WebSide(self.workshop)
        self._worker = self.workshop.worker()


@pytest.fixture
def reader(servers: Servers, tmp_path: Path) -> Iterator[Reader]:
    if shutil.which("curl") is None:
        pytest.skip("there is no curl to type its commands")
    with Workshop(tmp_path, servers) as workshop:
        yield Reader(workshop)


def test_first_five_minutes(reader: Reader) -> None:
    reader.follow("index.md")


def test_tutorial(reader: Reader) -> None:
    reader.follow("tutorial.md")


def test_operating(reader: Reader) -> None:
    """With an upload that came before the plugin."""
    reader.workshop.upload()
    reader.run("clustr plugins new light --drop-in")
    reader.start()
    reader.follow("operating.md")


# The tests that the pages show


class AnyLabels(Schema):
    """The result of the service in the tests."""

    labels = fields.List(fields.String(), required=True)


class Labels(HttpAnalyzer):
    """Asks the service in the tests."""

    name = "labels"
    service = "labeler"
    result_schema = AnyLabels


@pytest.mark.parametrize(
    "name", ["test_one_bad_answer_among_eight", "test_one_call_of_eight_hangs"]
)
def test_shown_test_of_a_service_passes(name: str, clustr_http: HttpStandIn) -> None:
    [shown] = [content for _, content in blocks("analyzer.md") if f"def {name}(" in content]
    functions: dict[str, Any] = {}
    exec(shown, functions)
    values = {"service_url": clustr_http.url, "timeout": 3, "concurrency": 8}
    assert all(f'"{key}"' in PAGES["analyzer.md"] for key in values)
    config = HttpConfig().load(values)
    functions[name](Labels(config), config, clustr_http)


def test_shown_test_of_a_command_passes(tmp_path: Path, clustr_app) -> None:
    *_, (_, shown), (_, example) = blocks("hooks/clustr_register_commands.md")
    (tmp_path / "widest.py").write_text(example)
    functions: dict[str, Any] = {"PIL": PIL}
    exec(shown, functions)
    functions["test_widest"](lambda name: clustr_app(name, PLUGINS_FOLDER=str(tmp_path)))
