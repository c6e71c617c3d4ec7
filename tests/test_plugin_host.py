"""Finding, loading and configuring plugins: a broken one is listed, and touches no other."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from plugin_sources import (
    BRIGHTNESS,
    CONFIGURED,
    EVENT,
    GOOD,
    HEAD,
    ROUTES,
    SECRETIVE,
    filtered,
)
from workshop import FIRST_PARTY, analyzer, plugin

from clustr.components import build_plugin_manager
from clustr.domain.errors import StartUpError
from clustr.plugin_manager import Plugin, PluginManager, load_plugins
from clustr.plugin_manager.registration import problem_with_level
from clustr.settings import read_settings

REPOSITORY = Path(__file__).parents[1]

Load = Callable[..., PluginManager]


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
    ) -> PluginManager:
        config = tmp_path / "plugins.toml"
        config.write_text(toml)
        return load_plugins(folder, enabled, disabled, config, environment or {})

    return load


def named(plugin_manager: PluginManager, name: str) -> Plugin:
    [found] = [plugin for plugin in plugin_manager.plugins if plugin.name == name]
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
        r"^clustr_register_analyzers\(\) is not marked with @hookimpl of clustr.plugins$",
    ),
    "no hook": ("x = 1", "implements no hook.*@hookimpl"),
    "unknown hook": (
        GOOD + "\n@hookimpl\ndef clustr_no_such_hook():\n    pass\n",
        "^unknown hook clustr_no_such_hook; ",
    ),
    "misspelt hook": (
        GOOD.replace("clustr_register_analyzers", "clustr_register_analyser"),
        "unknown hook clustr_register_analyser; did you mean clustr_register_analyzers",
    ),
    "function without a mark": (
        GOOD + "\ndef clustr_upload_stord(upload):\n    pass\n",
        r"clustr_upload_stord\(\) is not marked .*unknown hook.*did you mean clustr_upload_stored",
    ),
    "unknown argument": (
        GOOD.replace("analyzers(config)", "analyzers(config, confg)"),
        r"clustr_register_analyzers\(\): unknown argument confg; did you mean config",
    ),
    "argument with a default": (
        GOOD.replace("analyzers(config)", "analyzers(config=None)"),
        r"clustr_register_analyzers\(\): the argument config must have no default",
    ),
    "arguments of any name": (
        GOOD.replace("analyzers(config)", "analyzers(**config)"),
        r"has the argument \*\*config; take arguments by their plain names",
    ),
    "hook that is asynchronous": (
        GOOD.replace("def clustr_reg", "async def clustr_reg"),
        "asynchronous",
    ),
    "hook around hooks": (
        GOOD.replace("@hookimpl", "@hookimpl(wrapper=True)").replace("return [", "yield; return ["),
        "is a wrapper of hooks",
    ),
    "hook that returns nothing": (
        GOOD.replace("return [It()]", "pass"),
        r"^clustr_register_analyzers\(\) returned nothing; return a list$",
    ),
    "another API level": (GOOD + "\nCLUSTR_API = 2\n", "level 2; this Clustr has level 1"),
    "API level that is none": (GOOD + "\nCLUSTR_API = '1'\n", "whole number such as 1, not '1'"),
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
    "unknown format": (declaring("formats = {'image/jpg'}"), "set of some of image/jpeg, "),
    "requires in one text": (declaring("requires = ('dimensions')"), "requires must be a tuple"),
    "requires itself": (declaring("requires = ('bad',)"), "of other analyzers"),
    "requires what is not there": (
        GOOD.replace('name = "good"', 'name = "good"; requires = ("faces",)'),
        "^good requires faces, which is not loaded$",
    ),
    "megabytes that are none": (declaring("memory_mb = 0"), "memory_mb must be"),
    "version that is true": (declaring("version = True"), "version must be"),
    "auto that is text": (declaring("auto = 'no'"), "auto must be True or False"),
    "keep_loaded that is a number": (declaring("keep_loaded = 1"), "keep_loaded must be"),
    "batches of none": (declaring("batch_size = 0"), "batch_size must be"),
    "batches without their method": (
        GOOD.replace('name = "good"', 'name = "good"; batch_size = 4'),
        r"^good: batch_size above 1 needs analyze_batch\(\), which it does not define$",
    ),
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
    "configuration schema that loads no dict": (
        with_hook("return type('Odd', (Schema,), {'load': lambda *_, **__: 3})"),
        "its configuration schema loads a int; it must load a dict",
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
    plugin_manager = load()
    assert named(plugin_manager, "broken").state == "failed"
    assert re.search(reason, named(plugin_manager, "broken").reason)
    assert named(plugin_manager, "broken").analyzers == ()
    for name in ("a_good_one", "the_good_one", *FIRST_PARTY):
        assert (named(plugin_manager, name).state, named(plugin_manager, name).reason) == (
            "loaded",
            None,
        )
    assert set(plugin_manager.analyzers) == {"first", "last", *FIRST_PARTY}


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
    plugin_manager = load()
    assert named(plugin_manager, "one").state == "loaded"
    assert named(plugin_manager, "two").state == "conflict"
    assert named(plugin_manager, "two").reason == "the plugin one has the analyzer good too"
    assert plugin_manager.plugin_of(plugin_manager.analyzers["good"]).name == "one"


def test_plugin_of_an_installed_ones_name_is_a_conflict(load, folder):
    (folder / "blip.py").write_text(GOOD)
    plugin_manager = load()
    both = [plugin for plugin in plugin_manager.plugins if plugin.name == "blip"]
    assert [(p.source, p.state) for p in both] == [("package", "loaded"), ("folder", "conflict")]
    assert both[1].reason == "another plugin has the same name"
    assert "good" not in plugin_manager.analyzers


def test_same_file_is_loaded_once(load, folder):
    for name in (*FIRST_PARTY, "__init__"):
        shutil.copy(REPOSITORY / "plugins" / f"{name}.py", folder)
    plugin_manager = load()
    assert sorted(plugin.name for plugin in plugin_manager.plugins) == FIRST_PARTY
    assert {plugin.state for plugin in plugin_manager.plugins} == {"loaded"}


def test_packages_are_plugins_too(load, folder):
    package = folder / "whole"
    package.mkdir()
    (package / "words.py").write_text("NAME = 'good'\n")
    source = GOOD.replace('name = "good"', "name = NAME")
    (package / "__init__.py").write_text("from .words import NAME\n" + source)
    plugin_manager = load()
    assert named(plugin_manager, "whole").state == "loaded"
    assert "good" in plugin_manager.analyzers


def test_what_is_no_plugin_is_left_alone(load, folder):
    (folder / "_private.py").write_text("raise SystemExit")
    (folder / ".hidden.py").write_text("raise SystemExit")
    (folder / "notes.txt").write_text("raise SystemExit")
    (folder / "data").mkdir()
    (folder / "__pycache__").mkdir()
    (folder / "gone.py").symlink_to(folder / "nowhere.py")
    assert sorted(plugin.name for plugin in load().plugins) == FIRST_PARTY


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a file to another account")
@pytest.mark.parametrize("where", ["good.py", "good/__init__.py", "good/more.py"])
@pytest.mark.parametrize(
    ("mode", "owner", "state"),
    [
        (0o777, 65534, "failed"),
        (0o1777, 65534, "failed"),
        (0o775, 65534, "failed"),
        (0o755, 65534, "loaded"),  # Nobody else can have put it there.
        (0o777, 0, "loaded"),
    ],
)
def test_what_another_account_may_have_put_there_is_not_run(
    load, folder, where, mode, owner, state
):
    if "/" in where:
        (folder / "good").mkdir()
        (folder / "good" / "__init__.py").write_text(GOOD)
        (folder / "good" / "more.py").touch()
    else:
        (folder / where).write_text(GOOD)
    os.chown(folder / where, owner, owner)
    folder.chmod(mode)
    good = named(load(), "good")
    assert good.state == state
    if state == "failed":
        assert good.reason.startswith(f"{Path(where).name} belongs to another account, and others")


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
    plugin_manager = load()
    found = named(plugin_manager, f"broken_{len(source)}")
    assert (found.state, found.version) == ("failed", "2.5")
    assert found.reason.startswith("import raised")
    assert set(plugin_manager.analyzers) == set(FIRST_PARTY)


def test_disabled_plugins_are_listed_but_not_imported(load, folder):
    (folder / "noisy.py").write_text("raise RuntimeError")
    plugin_manager = load(disabled=("noisy", "blip"))
    for name in ("noisy", "blip"):
        assert named(plugin_manager, name).state == "disabled"
        assert named(plugin_manager, name).reason == "switched off by the settings"
    assert set(plugin_manager.analyzers) == set(FIRST_PARTY) - {"blip"}


def test_only_enabled_plugins_are_loaded(load, folder):
    (folder / "good.py").write_text(GOOD)
    plugin_manager = load(enabled=("good",))
    assert set(plugin_manager.analyzers) == {"good"}
    assert {named(plugin_manager, name).state for name in FIRST_PARTY} == {"disabled"}
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
        (
            "[good]\nsize = 3\nshape = 'round'",
            {},
            "unknown key shape; there are colour, password, size",
        ),
        (
            "[good]\nsize = 3",
            {"CLUSTR_PLUGIN__GOOD__SHAPE": "round"},
            "unknown key shape; there are colour, password, size",
        ),
        ("[good]\nsize = 3\ncolor = 'red'", {}, "unknown key color; did you mean colour?"),
        ("[good]\nsize = 3", {"CLUSTR_PLUGIN__GOOD__SIZ": "3"}, r"unknown key siz; .* size\?"),
        ("good = 3", {}, r"good is no table"),
    ],
)
def test_bad_configuration_is_that_plugins_alone(load, folder, toml, variables, reason):
    (folder / "good.py").write_text(CONFIGURED)
    (folder / "other.py").write_text(analyzer("other", "return {}"))
    plugin_manager = load(toml=toml, environment=variables)
    assert named(plugin_manager, "good").state == "misconfigured"
    assert re.search(reason, named(plugin_manager, "good").reason)
    assert named(plugin_manager, "other").state == "loaded"


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


def test_only_plugins_that_are_not_there_stop_the_start_of_every_process(folder):
    """Those of a host take a part of the settings each; all build their plugins in one way."""
    given = {"PLUGINS_FOLDER": str(folder)}
    with pytest.raises(StartUpError) as caught:
        build_plugin_manager(read_settings(given | {"PLUGINS_ENABLED": "dimensons,fase"}))
    assert str(caught.value).startswith(
        "PLUGINS_ENABLED='dimensons,fase': unknown plugin dimensons; did you mean dimensions?; "
        "unknown plugin fase; there are blip, "
    )
    assert not build_plugin_manager(read_settings(given | {"PLUGINS_ENABLED": ""})).analyzers
    plugin_manager = build_plugin_manager(read_settings(given | {"PLUGINS_ENABLED": "exif,fase"}))
    assert set(plugin_manager.analyzers) == {"exif"}
    assert [said.partition(";")[0] for said in plugin_manager.warnings] == [
        "PLUGINS_ENABLED: unknown plugin fase"
    ]


def test_file_of_configuration_need_not_exist(tmp_path, folder):
    plugin_manager = load_plugins(folder, None, (), tmp_path / "nothing.toml", {})
    assert set(plugin_manager.analyzers) == set(FIRST_PARTY)


def test_env_file_configures_plugins_too(tmp_path, monkeypatch):
    (tmp_path / ".env").write_text("BLIP_SERVICE_URL=http://captioner:9000  # a comment\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("BLIP_SERVICE_URL", raising=False)
    assert named(build_plugin_manager(read_settings()), "blip").config["service_url"] == (
        "http://captioner:9000"
    )
    monkeypatch.setenv("BLIP_SERVICE_URL", "http://elsewhere:9000")
    assert named(build_plugin_manager(read_settings()), "blip").config["service_url"] == (
        "http://elsewhere:9000"
    )


def test_reserved_names_are_no_plugins(load, folder):
    (folder / "analyzers.py").write_text(GOOD)
    found = named(load(), "analyzers")
    assert found.state == "failed"
    assert "no plugin can have the name analyzers" in found.reason


@pytest.mark.parametrize(
    ("level", "current", "problem"),
    [
        (1, 1, None),
        (1, 2, None),
        (2, 2, None),
        (2, 3, None),
        (0, 1, "level 0; this Clustr has level 1"),
        (3, 2, "level 3; this Clustr has levels 1 and 2"),
        (1, 3, "level 1; this Clustr has levels 2 and 3"),
        (True, 1, "whole number"),
    ],
)
def test_the_current_level_and_the_one_before_are_supported(level, current, problem):
    said = problem_with_level(level, current)
    assert said is None if problem is None else problem in said


def requiring(name: str, *required: str) -> str:
    return analyzer(name, "return {}", requires=required)


def test_analyzers_come_after_those_that_they_require(load, folder):
    (folder / "a.py").write_text(requiring("a", "b", "dimensions"))
    (folder / "b.py").write_text(requiring("b", "c"))
    (folder / "c.py").write_text(requiring("c"))
    order = list(load().analyzers)
    assert order.index("c") < order.index("b") < order.index("a")
    assert order.index("dimensions") < order.index("a")


def test_who_requires_one_that_is_not_loaded_is_not_loaded_either(load, folder):
    (folder / "a.py").write_text(requiring("a", "b"))
    (folder / "b.py").write_text(requiring("b", "c"))
    (folder / "c.py").write_text(requiring("c") + "\n1 / 0")
    (folder / "d.py").write_text(requiring("d", "dimensions"))
    plugin_manager = load(disabled=("exif",))
    assert named(plugin_manager, "a").reason == "a requires b, which is not loaded"
    assert named(plugin_manager, "b").reason == "b requires c, which is not loaded"
    assert [named(plugin_manager, name).state for name in "abcd"] == ["failed"] * 3 + ["loaded"]
    assert "a" not in plugin_manager.analyzers
    assert named(load(disabled=("dimensions",)), "d").state == "failed"


def test_circle_of_requirements_is_a_conflict_of_its_plugins_alone(load, folder):
    (folder / "a.py").write_text(requiring("a", "b"))
    (folder / "b.py").write_text(requiring("b", "a"))
    (folder / "c.py").write_text(requiring("c", "a"))
    (folder / "d.py").write_text(requiring("d"))
    plugin_manager = load()
    for name in "ab":
        assert named(plugin_manager, name).state == "conflict"
        assert re.search(
            "a requires b requires a|b requires a requires b", named(plugin_manager, name).reason
        )
    assert named(plugin_manager, "c").reason == "c requires a, which is not loaded"
    assert set(plugin_manager.analyzers) == {"d", *FIRST_PARTY}


# Filters


def a_filter(**changed: str) -> str:
    members = {"analyzer": "'shades'", "field": "'label'", "type": "fields.String()", **changed}
    return f"Filter({', '.join(f'{key}={value}' for key, value in members.items())})"


def test_filters_are_found_by_analyzer_and_field(load, folder):
    inside = a_filter(field="'boxes.width'", type="fields.Float()", operators="('gte', 'lte')")
    any_key = a_filter(field="'more.of.it'", indexed="True")
    average = a_filter(field="'average'", type="fields.Float()")
    (folder / "shades.py").write_text(filtered(a_filter(), inside, any_key, average))
    plugin_manager = load(disabled=tuple(FIRST_PARTY))
    assert named(plugin_manager, "shades").reason is None
    fields = ("label", "boxes.width", "more.of.it", "average")
    assert list(plugin_manager.filters) == [("shades", field) for field in fields]
    assert plugin_manager.filters["shades", "boxes.width"].operators == ("gte", "lte")
    assert list(named(plugin_manager, "shades").filters) == list(plugin_manager.filters.values())


@pytest.mark.parametrize(
    ("filters", "reason"),
    [
        (["'label'"], "returned a str, which is no Filter"),
        ([a_filter(analyzer="'exif'")], "on an analyzer of the plugin; unknown analyzer exif"),
        ([a_filter(field="'labl'")], r"shades\.labl: unknown field labl; did you mean label"),
        ([a_filter(field="'mean'")], "unknown field mean"),
        ([a_filter(field="'boxes.height'")], "unknown field height; there are width"),
        ([a_filter(field="'label.x'")], "label is a String, with nothing inside"),
        ([a_filter(field="'more.$where'")], "begin with"),
        ([a_filter(field="'more..x'")], "empty"),
        ([a_filter(field="7")], "field must be a key of the result"),
        ([a_filter(operators="('regex',)")], "unknown operator regex; there are eq, gt, "),
        ([a_filter(operators="()")], "operators must be a tuple"),
        ([a_filter(operators="'eq'")], "operators must be a tuple"),
        ([a_filter(type="fields.String")], r"type must be a marshmallow field, such as fields\.F"),
        ([a_filter(), a_filter(operators="('ne',)")], r"shades\.label is there twice"),
        (["1 / 0"], r"clustr_register_filters\(\) raised ZeroDivisionError"),
    ],
)
def test_bad_filters_are_the_failure_of_their_plugin(load, folder, filters, reason):
    (folder / "shades.py").write_text(filtered(*filters))
    plugin_manager = load(disabled=tuple(FIRST_PARTY))
    assert named(plugin_manager, "shades").state == "failed"
    assert re.search(reason, named(plugin_manager, "shades").reason)
    assert not plugin_manager.filters
    assert not plugin_manager.analyzers


# Routes


def mounted(plugin_manager: PluginManager) -> list[tuple[str, str]]:
    """The blueprints that a web process would mount."""
    found = plugin_manager.blueprints(lambda plugin: plugin, lambda plugin, blueprints: None)
    return [(plugin.name, blueprint.name) for plugin, blueprint in found]


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("raise OSError('so what')", r"^clustr_register_blueprints\(\) raised OSError: so what$"),
        ("sys.exit()", "raised SystemExit"),
        ("return [7]", "returned a int, which is no Blueprint of flask_smorest"),
        ("return [Blueprint]", "returned a type, which is no Blueprint"),
        ("return Blueprint('a', 'b')", "raised TypeError"),
        ("pass", "returned nothing; return a list"),
    ],
)
def test_plugin_without_its_routes_is_withdrawn_as_a_whole(load, folder, body, reason):
    (folder / "routed.py").write_text(GOOD + ROUTES.format(body="return [Blueprint('a', 'b')]"))
    (folder / "bad.py").write_text(
        GOOD.replace('"good"', '"bad"') + ROUTES.format(body=body) + EVENT.format(body="1 / 0")
    )
    (folder / "dependent.py").write_text(requiring("dependent", "bad"))
    plugin_manager = load(disabled=tuple(FIRST_PARTY))
    held = plugin_manager.analyzers
    assert set(held) == {"good", "bad", "dependent"}
    assert mounted(plugin_manager) == [("routed", "a")]
    assert named(plugin_manager, "bad").state == "failed"
    assert re.search(reason, named(plugin_manager, "bad").reason)
    assert (
        named(plugin_manager, "dependent").reason == "dependent requires bad, which is not loaded"
    )
    assert set(held) == {"good"}
    assert not plugin_manager.implements("clustr_upload_stored")


# Notices


def test_hook_that_raises_is_counted_and_touches_no_other(load, folder):
    (folder / "bad.py").write_text(GOOD + EVENT.format(body="raise OSError('so what')"))
    (folder / "ending.py").write_text(HEAD + EVENT.format(body="raise SystemExit"))
    (folder / "good.py").write_text(HEAD + EVENT.format(body="upload.append('told')"))
    plugin_manager = load(disabled=tuple(FIRST_PARTY))
    told: list[str] = []
    for _ in range(2):
        plugin_manager.notify("clustr_upload_stored", upload=told)
    assert told == ["told", "told"]
    errors = {
        plugin.name: plugin.hook_errors for plugin in plugin_manager.plugins if plugin.hook_errors
    }
    assert errors == {"bad": 2, "ending": 2}


# In a process of its own: where logs go is settled once in each.
LOGGED = """
import sys
from pathlib import Path
from clustr import logs
from clustr.plugin_manager import load_plugins

logs.configure("json", "debug")
load_plugins(Path(sys.argv[1]), None, (), Path(sys.argv[2]), {}).notify(
    "clustr_upload_stored", upload=None
)
"""


def test_what_plugins_do_wrong_is_logged_but_for_secrets(folder, tmp_path):
    (folder / "bad.py").write_text(HEAD + EVENT.format(body="raise OSError('so what')"))
    (folder / "slow.py").write_text(HEAD + EVENT.format(body="time.sleep(1.01)"))
    (folder / "secretive.py").write_text(SECRETIVE)
    config = tmp_path / "plugins.toml"
    config.write_text("[secretive]\npin = 'sesame'\ncolour = 'worse'\n[slwo]\n")
    command = [sys.executable, "-c", LOGGED, str(folder), str(config)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    logged = {line["event"]: line for line in lines}
    assert logged["hook_raised"]["plugin"] == "bad"
    assert logged["hook_raised"]["hook"] == "clustr_upload_stored"
    assert logged["hook_raised"]["reason"] == "OSError: so what"
    assert logged["hook_slow"]["duration_ms"] > 1000
    assert logged["plugin_not_loaded"]["plugin"] == "secretive"
    [ignored] = [line for line in lines if line["event"] == "configuration_ignored"]
    assert ignored["reason"] == "[slwo]: unknown plugin slwo; did you mean slow?"
    assert "sesame" not in done.stderr + done.stdout


def test_only_who_implements_a_hook_is_told(load, folder):
    (folder / "good.py").write_text(HEAD + EVENT.format(body="pass"))
    plugin_manager = load(disabled=tuple(FIRST_PARTY))
    assert plugin_manager.implements("clustr_upload_stored")
    assert not plugin_manager.implements("clustr_upload_deleted")
    plugin_manager.notify("clustr_upload_deleted", upload=None)
    with pytest.raises(KeyError):
        plugin_manager.notify("clustr_upload_storred", upload=None)


# What is configured


def test_values_come_from_variables_and_files(load, folder, tmp_path):
    file = tmp_path / "word"
    file.write_text("open sesame, please\n")
    (folder / "good.py").write_text(SECRETIVE)
    toml = f"""
[good]
colour = {{ "$env" = "COLOUR" }}
names = [{{ "$env" = "COLOUR" }}, "blue"]
login = {{ user = "me", word = {{ "$file" = "{file}" }} }}
"""
    found = named(load(toml=toml, environment={"COLOUR": "red"}), "good")
    assert found.reason is None
    assert found.config == {"colour": "red", "names": ["red", "blue"]}
    assert found.secrets == {"login": {"user": "me", "word": "open sesame, please"}}


def test_lists_in_the_environment_are_separated_by_commas(load, folder):
    (folder / "good.py").write_text(SECRETIVE)
    variables = {"CLUSTR_PLUGIN__GOOD__NAMES": "red, blue,"}
    assert named(load(environment=variables), "good").config == {"names": ["red", "blue"]}


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ('{ "$env" = "NOT_THERE" }', "colour: the environment variable NOT_THERE is not set"),
        ('{ "$env" = "EMPTY" }', "colour: the environment variable EMPTY is not set"),
        ('{ "$file" = "/no/such/word" }', "colour: the file word cannot be read: No such file or"),
        ('{ "$file" = "/usr" }', "colour: the file usr cannot be read: Is a directory"),
        ('{ "$evn" = "COLOUR" }', 'colour: expected a value, or { "$env" = "NAME" } or'),
        ('{ "$env" = "COLOUR", more = 1 }', "colour: expected a value, or"),
        ('{ "$env" = 7 }', "colour: expected a value, or"),
    ],
)
def test_reference_to_nothing_names_its_key(load, folder, value, reason):
    (folder / "good.py").write_text(SECRETIVE)
    variables = {"EMPTY": "", "COLOUR": "red"}
    found = named(load(toml=f"[good]\ncolour = {value}", environment=variables), "good")
    assert found.state == "misconfigured"
    assert found.reason.startswith(reason)


@pytest.mark.parametrize(
    ("toml", "reason"),
    [
        ("token = 'sesame-7'", "token: it cannot be used; as it is a secret, no more is said"),
        ("pin = 'sesame-7'", "pin: it cannot be used; as it is a secret"),
        ("login = { word = 'sesame-7' }", r"login\.word: it cannot be used; as it is a secret"),
        ("login = { wrd = 'sesame-7' }", r"login: unknown key wrd; did you mean word\?"),
        ("pn = 'sesame-7'", r"unknown key pn; did you mean pin\?"),
        (
            "pin = 'x'\ncolour = 'odd'\nlogin = { word = 'sesame-7 it is' }",
            r"odd, with .*\(secret\)",
        ),
        ("token = 7\ncolour = 'worse'\nlogin = { word = 'sesame-7 it is' }", "raised RuntimeError"),
    ],
)
def test_secrets_are_in_no_reason_trace_or_repr(load, folder, toml, reason):
    (folder / "good.py").write_text(SECRETIVE)
    plugin_manager = load(toml=f"[good]\n{toml}")
    found = named(plugin_manager, "good")
    assert found.state == "misconfigured"
    assert re.search(reason, found.reason)
    assert "sesame" not in found.reason + repr(found) + str(found.trace)


def test_secrets_of_a_loaded_plugin_are_not_in_its_repr(load, folder):
    (folder / "good.py").write_text(SECRETIVE)
    found = named(load(toml="[good]\npin = 'x'\ntoken = 4711\ncolour = 'red'"), "good")
    assert found.secrets == {"pin": "x", "token": 4711}
    assert "red" in repr(found)
    assert "4711" not in repr(found)


def test_hash_of_the_configuration_is_of_what_is_no_secret(load, folder):
    (folder / "good.py").write_text(SECRETIVE)

    def hash_with(toml: str) -> str:
        return named(load(toml=f"[good]\n{toml}"), "good").config_hash

    red = hash_with("colour = 'red'")
    assert re.fullmatch("[0-9a-f]{16}", red)
    assert hash_with("colour = 'red'\ntoken = 7") == red
    assert hash_with("colour = 'blue'") != red


def test_configuration_of_nothing_is_told(load, folder):
    (folder / "good.py").write_text(CONFIGURED)
    toml = "[goood]\nsize = 3\n[good]\nsize = 3\n[plugins.good]\n[analyzers.blipp]\nqueue = 'http'"
    plugin_manager = load(toml=toml, environment={"CLUSTR_PLUGIN__GODO__SIZE": "3"})
    assert plugin_manager.warnings == (
        "[plugins.good] is not read; a plugin's table is just [good]",
        "[analyzers.blipp]: unknown analyzer blipp; did you mean blip?",
        "[goood]: unknown plugin goood; did you mean good?",
        "CLUSTR_PLUGIN__GODO__SIZE: unknown plugin godo; did you mean good?",
    )
    assert named(plugin_manager, "good").state == "loaded"


def test_operator_adjusts_analyzers(load, folder):
    (folder / "good.py").write_text(GOOD)
    plugin_manager = load(toml="[analyzers.good]\nqueue = 'gpu'\ntimeout = 5\nauto = false")
    good = plugin_manager.analyzers["good"]
    assert (good.queue, good.timeout, good.auto) == ("gpu", 5, False)


@pytest.mark.parametrize(
    ("toml", "reason"),
    [
        ("queue = 'fast'", "analyzers.good: queue must be one of default, http, gpu"),
        ("timeout = '5'", "analyzers.good: timeout must be seconds above 0"),
        ("timout = 5", "analyzers.good: unknown key timout; did you mean timeout?"),
        ("version = 5", "analyzers.good: unknown key version; there are auto, queue, timeout"),
    ],
)
def test_bad_adjustment_is_that_plugins_alone(load, folder, toml, reason):
    (folder / "good.py").write_text(GOOD)
    plugin_manager = load(toml=f"[analyzers.good]\n{toml}")
    assert named(plugin_manager, "good").state == "misconfigured"
    assert named(plugin_manager, "good").reason.startswith(reason)
    assert set(plugin_manager.analyzers) == set(FIRST_PARTY)


def test_finding_plugins_imports_nothing(load, install, tmp_path):
    """Not even the package in which a disabled one is."""
    install("deep", GOOD)
    site = tmp_path / "site"
    (site / "deep_package").mkdir()
    (site / "deep_package" / "__init__.py").write_text("raise SystemExit")
    (site / "deep_package" / "inside.py").write_text(GOOD)
    entry = "[clustr.plugins]\ndeep = deep_package.inside\n"
    (site / "deep-2.5.dist-info" / "entry_points.txt").write_text(entry)
    found = named(load(disabled=("deep",)), "deep")
    assert found.file == site / "deep_package" / "inside.py"
    assert "deep_package" not in sys.modules
