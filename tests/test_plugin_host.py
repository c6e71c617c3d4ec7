"""Finding, loading and configuring plugins: a broken one is listed, and touches no other."""

import re
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from workshop import FIRST_PARTY, analyzer, plugin

from clustr.errors import StartUpError
from clustr.parts import build_host
from clustr.plugin_host import Plugin, PluginHost, load_plugins
from clustr.settings import read_settings

REPOSITORY = Path(__file__).parents[1]

GOOD = analyzer("good", "return {}")

CONFIGURED = (
    GOOD
    + """
class Config(Schema):
    colour = fields.String(load_default="grey", metadata={"env": "FAVOURITE_COLOUR"})
    size = fields.Integer(required=True)
    password = fields.String(load_default="", metadata={"secret": True})

@hookimpl
def clustr_config_schema():
    return Config
"""
)

# From DESIGN.md, section 5, word for word.
BRIGHTNESS = """
from PIL import ImageStat
from marshmallow import Schema, fields
from clustr.plugins import Analyzer, hookimpl

class BrightnessResult(Schema):
    mean = fields.Float(required=True)

class Brightness(Analyzer):
    name = "brightness"              # unique, [a-z][a-z0-9_]*; the key of its results
    version = 1                      # raise it when the same image may now give another result
    result_schema = BrightnessResult
    summary = "Mean luminance of the image"

    def analyze(self, image, context):
        gray = image.open().convert("L")          # a PIL image, oriented, within the pixel limit
        return {"mean": ImageStat.Stat(gray).mean[0]}

@hookimpl
def clustr_register_analyzers(config):
    return [Brightness()]
"""

Load = Callable[..., PluginHost]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "plugins"
    folder.mkdir()
    return folder


@pytest.fixture
def load(tmp_path: Path, folder: Path) -> Load:
    """Loads the plugins of the folder, with this configuration."""

    def load(
        enabled: tuple[str, ...] | None = None,
        disabled: tuple[str, ...] = (),
        toml: str = "",
        environment: Mapping[str, str] | None = None,
    ) -> PluginHost:
        config = tmp_path / "plugins.toml"
        config.write_text(toml)
        return load_plugins(folder, enabled, disabled, config, environment or {})

    return load


def named(host: PluginHost, name: str) -> Plugin:
    [found] = [plugin for plugin in host.plugins if plugin.name == name]
    return found


def with_hook(returned: str) -> str:
    return f"{GOOD}\n@hookimpl\ndef clustr_config_schema():\n    {returned}\n"


def declaring(*members: str) -> str:
    return plugin("bad", *members)


BROKEN = {
    "syntax error": ("def broken(:\n", r"import raised SyntaxError: .*broken\.py, line 1"),
    "no Python at all": ("\0\x01\x02", "import raised SyntaxError"),
    "module that is not there": ("import no_such_module", "No module named 'no_such_module'"),
    "name that is not there": (
        "from clustr.plugins import NoSuchName",
        r"ImportError: cannot import name 'NoSuchName'.*__init__\.py",
    ),
    "sys.exit at import": ("import sys; sys.exit(3)", "import raised SystemExit: 3"),
    "file that is not there": ("open('/no/such/file.txt')", "No such file or directory: 'file.txt"),
    "exception that cannot be said": (
        "class Odd(Exception):\n    def __str__(self): raise ValueError\nraise Odd",
        "import raised Odd",
    ),
    "exception with half a character": (r"raise ValueError('\ud800')", "import raised ValueError"),
    "hook that raises": (
        GOOD.replace("return [It()]", "raise RuntimeError('so what')"),
        r"^clustr_register_analyzers\(\) raised RuntimeError: so what$",
    ),
    "hook that calls sys.exit": (
        GOOD.replace("return [It()]", "sys.exit()"),
        r"^clustr_register_analyzers\(\) raised SystemExit",
    ),
    "hook that raises while it yields": (
        GOOD.replace("return [It()]", "yield It(); raise OSError('later')"),
        r"clustr_register_analyzers\(\) raised OSError: later",
    ),
    "hook that returns no list": (GOOD.replace("[It()]", "7"), "raised TypeError"),
    "marker of another project": (
        GOOD.replace("@hookimpl", "import pluggy\n@pluggy.HookimplMarker('other')"),
        "implements no hook.*@hookimpl",
    ),
    "no hook": ("x = 1", "implements no hook.*@hookimpl"),
    "unknown hook": (
        GOOD + "\n@hookimpl\ndef clustr_no_such_hook():\n    pass\n",
        "clustr_no_such_hook",
    ),
    "unknown argument": (
        GOOD.replace("analyzers(config)", "analyzers(config, colour)"),
        "colour",
    ),
    "another API level": (GOOD + "\nCLUSTR_API = 2\n", "level 2; this Clustr has level 1"),
    "class instead of an analyzer": (GOOD.replace("[It()]", "[It]"), "which is no Analyzer"),
    "text instead of an analyzer": (GOOD.replace("[It()]", "['good']"), "which is no Analyzer"),
    "no name": (GOOD.replace('name = "good"', ""), "name of an analyzer.*None"),
    "bad name": (GOOD.replace('"good"', '"Good!"'), "name of an analyzer.*'Good!'"),
    "name that is no text": (GOOD.replace('"good"', "7"), "name of an analyzer"),
    "name that raises": (
        GOOD.replace('name = "good"', "name = property(lambda self: 1 / 0)"),
        "ZeroDivisionError",
    ),
    "no result schema": (GOOD.replace("result_schema = Result", ""), "result_schema must be"),
    "result schema that is none": (
        GOOD.replace("result_schema = Result", "result_schema = dict"),
        "result_schema must be",
    ),
    "version 0": (declaring("version = 0"), "version must be"),
    "version that is text": (declaring("version = '1'"), "version must be"),
    "unknown queue": (declaring("queue = 'fast'"), "queue must be one of default, http, gpu"),
    "formats in one text": (declaring("formats = 'image/jpeg'"), "formats must be a set"),
    "timeout 0": (declaring("timeout = 0"), "timeout must be"),
    "timeout that is text": (declaring("timeout = '60'"), "timeout must be"),
    "timeout without an end": (declaring("timeout = float('inf')"), "timeout must be"),
    "timeout that is no number": (declaring("timeout = float('nan')"), "timeout must be"),
    "no attempts": (declaring("max_attempts = 0"), "max_attempts must be"),
    "attempts that are none": (declaring("max_attempts = None"), "max_attempts must be"),
    "unknown field": (declaring("fields = {'sha256': 'x'}"), "fields must map some of caption"),
    "fields that are no mapping": (declaring("fields = 5"), "fields must map"),
    "two analyzers of one name": (
        GOOD.replace("[It()]", "[It(), It()]"),
        "two of its analyzers have the same name",
    ),
    "configuration schema that is none": (with_hook("return 7"), "no marshmallow Schema"),
    "configuration schema that is an object": (with_hook("return Schema()"), "return the class"),
    "configuration schema that raises": (
        with_hook("raise KeyError('x')"),
        r"clustr_config_schema\(\) raised KeyError",
    ),
    "configuration schema that cannot be made": (
        with_hook("return type('Odd', (Schema,), {'__init__': lambda self: 1 / 0})"),
        "ZeroDivisionError",
    ),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_F8c_broken_plugin_is_listed_with_its_reason_beside_the_good_ones(load, folder, kind):
    source, reason = BROKEN[kind]
    (folder / "broken.py").write_text(source)
    (folder / "a_good_one.py").write_text(analyzer("first", "return {}"))
    (folder / "the_good_one.py").write_text(analyzer("last", "return {}"))
    host = load()
    assert named(host, "broken").state == "failed"
    assert re.search(reason, named(host, "broken").reason)
    assert named(host, "broken").analyzers == ()
    for name in ("a_good_one", "the_good_one", *FIRST_PARTY):
        assert (named(host, name).state, named(host, name).reason) == ("loaded", None)
    assert set(host.analyzers) == {"first", "last", *FIRST_PARTY}


@pytest.mark.parametrize("kind", BROKEN)
def test_reasons_are_one_storable_text_without_absolute_paths(load, folder, kind):
    (folder / "broken.py").write_text(BROKEN[kind][0])
    reason = named(load(), "broken").reason
    reason.encode()
    assert str(folder) not in reason
    assert str(REPOSITORY) not in reason
    assert not re.search(r"(^|[\s'\"(])/\w", reason)


def test_brightness_of_the_design_is_loaded(load, folder):
    (folder / "brightness.py").write_text(BRIGHTNESS)
    found = named(load(), "brightness")
    assert (found.state, found.source) == ("loaded", "folder")
    [brightness] = found.analyzers
    assert brightness.summary == "Mean luminance of the image"


def test_bad_file_names_are_listed_with_what_is_allowed(load, folder):
    (folder / "Not-A-Name.py").write_text(GOOD)
    assert named(load(), "Not-A-Name").state == "failed"
    assert "rename it" in named(load(), "Not-A-Name").reason


def test_analyzer_of_another_plugin_is_a_conflict(load, folder):
    (folder / "one.py").write_text(GOOD)
    (folder / "two.py").write_text(GOOD + "\n# another one\n")
    host = load()
    assert named(host, "one").state == "loaded"
    assert named(host, "two").state == "conflict"
    assert named(host, "two").reason == "the plugin one has the analyzer good too"
    assert host.plugin_of(host.analyzers["good"]).name == "one"


def test_plugin_of_an_installed_ones_name_is_a_conflict(load, folder):
    (folder / "blip.py").write_text(GOOD)
    host = load()
    both = [plugin for plugin in host.plugins if plugin.name == "blip"]
    assert [(p.source, p.state) for p in both] == [("package", "loaded"), ("folder", "conflict")]
    assert both[1].reason == "another plugin has the same name"
    assert "good" not in host.analyzers


def test_same_file_is_loaded_once(load, folder):
    for name in (*FIRST_PARTY, "__init__"):
        shutil.copy(REPOSITORY / "plugins" / f"{name}.py", folder)
    host = load()
    assert sorted(plugin.name for plugin in host.plugins) == FIRST_PARTY
    assert {plugin.state for plugin in host.plugins} == {"loaded"}


def test_packages_are_plugins_too(load, folder):
    package = folder / "whole"
    package.mkdir()
    (package / "words.py").write_text("NAME = 'good'\n")
    source = GOOD.replace('name = "good"', "name = NAME")
    (package / "__init__.py").write_text("from .words import NAME\n" + source)
    host = load()
    assert named(host, "whole").state == "loaded"
    assert "good" in host.analyzers


def test_what_is_no_plugin_is_left_alone(load, folder):
    (folder / "_private.py").write_text("raise SystemExit")
    (folder / ".hidden.py").write_text("raise SystemExit")
    (folder / "notes.txt").write_text("raise SystemExit")
    (folder / "data").mkdir()
    (folder / "__pycache__").mkdir()
    (folder / "gone.py").symlink_to(folder / "nowhere.py")
    assert sorted(plugin.name for plugin in load().plugins) == FIRST_PARTY


def test_folder_need_not_exist(load, folder):
    folder.rmdir()
    assert set(load().analyzers) == set(FIRST_PARTY)


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
    """Installs a distribution with one plugin, as pip does it: a module and its metadata."""

    def install(name: str, source: str) -> None:
        site = tmp_path / "site"
        metadata = site / f"{name}-2.5.dist-info"
        metadata.mkdir(parents=True)
        (site / f"{name}_module.py").write_text(source)
        (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 2.5\n")
        (metadata / "entry_points.txt").write_text(f"[clustr.plugins]\n{name} = {name}_module\n")
        monkeypatch.syspath_prepend(site)

    return install


def test_installed_plugin_is_found_by_its_entry_point(load, install):
    install("elsewhere", GOOD)
    found = named(load(), "elsewhere")
    assert (found.state, found.source, found.version) == ("loaded", "package", "2.5")
    assert [a.name for a in found.analyzers] == ["good"]


@pytest.mark.parametrize(
    "source", ["import sys; sys.exit()", "def broken(:", "import nothing_here"]
)
def test_F8c_installed_plugin_that_is_broken_is_listed(load, install, source):
    install(f"broken_{len(source)}", source)
    host = load()
    found = named(host, f"broken_{len(source)}")
    assert (found.state, found.version) == ("failed", "2.5")
    assert found.reason.startswith("import raised")
    assert set(host.analyzers) == set(FIRST_PARTY)


def test_disabled_plugins_are_listed_but_not_imported(load, folder):
    (folder / "noisy.py").write_text("raise RuntimeError")
    host = load(disabled=("noisy", "blip"))
    for name in ("noisy", "blip"):
        assert named(host, name).state == "disabled"
        assert named(host, name).reason == "switched off by the settings"
    assert set(host.analyzers) == set(FIRST_PARTY) - {"blip"}


def test_only_enabled_plugins_are_loaded(load, folder):
    (folder / "good.py").write_text(GOOD)
    host = load(enabled=("good",))
    assert set(host.analyzers) == {"good"}
    assert {named(host, name).state for name in FIRST_PARTY} == {"disabled"}
    assert set(load(enabled=()).analyzers) == set()
    assert set(load(enabled=("good", "blip"), disabled=("good",)).analyzers) == {"blip"}


@pytest.mark.parametrize(
    ("variables", "toml", "colour"),
    [
        ({}, "", "grey"),
        ({}, "colour = 'red'", "red"),
        ({"CLUSTR_PLUGIN__GOOD__COLOUR": "blue"}, "colour = 'red'", "blue"),
        ({"CLUSTR_PLUGIN__GOOD__COLOUR": "blue", "FAVOURITE_COLOUR": "teal"}, "", "teal"),
        ({"FAVOURITE_COLOUR": ""}, "colour = 'red'", "red"),
        ({"X_CLUSTR_PLUGIN__GOOD__COLOUR": "blue"}, "", "grey"),
    ],
)
def test_configuration_comes_from_the_first_that_has_it(load, folder, variables, toml, colour):
    (folder / "good.py").write_text(CONFIGURED)
    found = named(load(toml=f"[good]\nsize = 3\n{toml}", environment=variables), "good")
    assert found.reason is None
    assert found.config == {"colour": colour, "size": 3}


def test_secrets_are_apart(load, folder):
    (folder / "good.py").write_text(CONFIGURED)
    found = named(load(toml="[good]\nsize = 3\npassword = 'sesame'"), "good")
    assert found.secrets == {"password": "sesame"}
    assert "password" not in found.config


def test_hook_is_given_the_configuration(load, folder):
    source = CONFIGURED.replace("return [It()]", "assert config['size'] == 3; return [It()]")
    (folder / "good.py").write_text(source)
    assert named(load(toml="[good]\nsize = 3"), "good").state == "loaded"


@pytest.mark.parametrize(
    ("toml", "variables", "reason"),
    [
        ("", {}, r"size: Missing data"),
        ("[good]\nsize = 'large'", {}, r"size: Not a valid integer"),
        ("[good]\nsize = 3\nshape = 'round'", {}, r"shape: Unknown field"),
        ("[good]\nsize = 3", {"CLUSTR_PLUGIN__GOOD__SHAPE": "round"}, r"shape: Unknown field"),
        ("good = 3", {}, r"good is no table"),
    ],
)
def test_bad_configuration_is_that_plugins_alone(load, folder, toml, variables, reason):
    (folder / "good.py").write_text(CONFIGURED)
    (folder / "other.py").write_text(analyzer("other", "return {}"))
    host = load(toml=toml, environment=variables)
    assert named(host, "good").state == "misconfigured"
    assert re.search(reason, named(host, "good").reason)
    assert named(host, "other").state == "loaded"


def test_configuration_for_a_plugin_that_takes_none_is_refused(load, folder):
    (folder / "good.py").write_text(GOOD)
    found = named(load(toml="[good]\nsize = 3"), "good")
    assert found.state == "misconfigured"
    assert found.reason == "it takes no configuration, but is given size"


@pytest.mark.parametrize("content", [b"[good]\nsize = = 3\n", b"\xff\xfe", None])
def test_unreadable_file_of_configuration_stops_the_start(tmp_path, folder, content):
    file = tmp_path / "plugins.toml"
    if content is None:
        file.mkdir()
    else:
        file.write_bytes(content)
    with pytest.raises(StartUpError) as caught:
        load_plugins(folder, None, (), file, {})
    assert str(caught.value).startswith(f"PLUGINS_CONFIG={file} cannot be read: ")
    assert content != b"[good]\nsize = = 3\n" or "line 2" in str(caught.value)


def test_file_of_configuration_need_not_exist(tmp_path, folder):
    host = load_plugins(folder, None, (), tmp_path / "nothing.toml", {})
    assert set(host.analyzers) == set(FIRST_PARTY)


def test_env_file_configures_plugins_too(tmp_path, monkeypatch):
    (tmp_path / ".env").write_text("BLIP_SERVICE_URL=http://captioner:9000  # a comment\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("BLIP_SERVICE_URL", raising=False)
    assert named(build_host(read_settings()), "blip").config["service_url"] == (
        "http://captioner:9000"
    )
    monkeypatch.setenv("BLIP_SERVICE_URL", "http://elsewhere:9000")
    assert named(build_host(read_settings()), "blip").config["service_url"] == (
        "http://elsewhere:9000"
    )
