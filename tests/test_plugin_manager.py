"""Finding and loading plugins: a broken one is listed, and touches no other."""

import os
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from plugin_sources import (
    BRIGHTNESS,
    GOOD,
    named,
    requiring,
)
from workshop import FIRST_PARTY, FIRST_PARTY_ANALYZERS, analyzer, plugin

from clustr.components import build_plugin_manager
from clustr.domain.errors import StartUpError
from clustr.plugin_manager.registration import problem_with_level
from clustr.settings import read_settings

REPOSITORY = Path(__file__).parents[1]


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
def test_F8c_broken_plugin_is_listed_with_its_reason_beside_the_good_ones(
    load, plugins_folder, kind
):
    source, reason = BROKEN[kind]
    (plugins_folder / "broken.py").write_text(source)
    (plugins_folder / "a_good_one.py").write_text(analyzer("first", "return {}"))
    (plugins_folder / "the_good_one.py").write_text(analyzer("last", "return {}"))
    plugin_manager = load()
    assert named(plugin_manager, "broken").state == "failed"
    assert re.search(reason, named(plugin_manager, "broken").reason)
    assert named(plugin_manager, "broken").analyzers == ()
    for name in ("a_good_one", "the_good_one", *FIRST_PARTY):
        assert (named(plugin_manager, name).state, named(plugin_manager, name).reason) == (
            "loaded",
            None,
        )
    assert set(plugin_manager.analyzers) == {"first", "last", *FIRST_PARTY_ANALYZERS}


@pytest.mark.parametrize("kind", BROKEN)
def test_reasons_are_one_storable_text_without_absolute_paths(load, plugins_folder, kind):
    (plugins_folder / "broken.py").write_text(BROKEN[kind][0])
    reason = named(load(), "broken").reason
    reason.encode()
    assert str(plugins_folder) not in reason
    assert str(REPOSITORY) not in reason
    assert not re.search(r"(^|[\s'\"(])/\w", reason)


def test_brightness_of_the_design_is_loaded(load, plugins_folder):
    (plugins_folder / "brightness.py").write_text(BRIGHTNESS)
    found = named(load(), "brightness")
    assert (found.state, found.source) == ("loaded", "folder")
    [brightness] = found.analyzers
    assert brightness.summary == "Mean luminance of the image"


def test_bad_file_names_are_listed_with_what_is_allowed(load, plugins_folder):
    (plugins_folder / "Not-A-Name.py").write_text(GOOD)
    assert named(load(), "Not-A-Name").state == "failed"
    assert "rename it" in named(load(), "Not-A-Name").reason


def test_analyzer_of_another_plugin_is_a_conflict(load, plugins_folder):
    (plugins_folder / "one.py").write_text(GOOD)
    (plugins_folder / "two.py").write_text(GOOD + "\n# another one\n")
    plugin_manager = load()
    assert named(plugin_manager, "one").state == "loaded"
    assert named(plugin_manager, "two").state == "conflict"
    assert named(plugin_manager, "two").reason == "the plugin one has the analyzer good too"
    assert plugin_manager.plugin_of(plugin_manager.analyzers["good"]).name == "one"


def test_plugin_of_an_installed_ones_name_is_a_conflict(load, plugins_folder):
    (plugins_folder / "blip.py").write_text(GOOD)
    plugin_manager = load()
    both = [plugin for plugin in plugin_manager.plugins if plugin.name == "blip"]
    assert [(p.source, p.state) for p in both] == [
        ("package", "loaded"),
        ("folder", "conflict"),
    ]
    assert both[1].reason == "another plugin has the same name"
    assert "good" not in plugin_manager.analyzers


def test_same_file_is_loaded_once(load, plugins_folder):
    shutil.copytree(REPOSITORY / "plugins", plugins_folder, dirs_exist_ok=True)
    plugin_manager = load()
    assert sorted(plugin.name for plugin in plugin_manager.plugins) == FIRST_PARTY
    assert {plugin.state for plugin in plugin_manager.plugins} == {"loaded"}


def test_packages_are_plugins_too(load, plugins_folder):
    package = plugins_folder / "whole"
    package.mkdir()
    (package / "words.py").write_text("NAME = 'good'\n")
    source = GOOD.replace('name = "good"', "name = NAME")
    (package / "__init__.py").write_text("from .words import NAME\n" + source)
    plugin_manager = load()
    assert named(plugin_manager, "whole").state == "loaded"
    assert "good" in plugin_manager.analyzers


def test_what_is_no_plugin_is_left_alone(load, plugins_folder):
    (plugins_folder / "_private.py").write_text("raise SystemExit")
    (plugins_folder / ".hidden.py").write_text("raise SystemExit")
    (plugins_folder / "notes.txt").write_text("raise SystemExit")
    (plugins_folder / "data").mkdir()
    (plugins_folder / "__pycache__").mkdir()
    (plugins_folder / "gone.py").symlink_to(plugins_folder / "nowhere.py")
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
    load, plugins_folder, where, mode, owner, state
):
    if "/" in where:
        (plugins_folder / "good").mkdir()
        (plugins_folder / "good" / "__init__.py").write_text(GOOD)
        (plugins_folder / "good" / "more.py").touch()
    else:
        (plugins_folder / where).write_text(GOOD)
    os.chown(plugins_folder / where, owner, owner)
    plugins_folder.chmod(mode)
    good = named(load(), "good")
    assert good.state == state
    if state == "failed":
        assert good.reason.startswith(f"{Path(where).name} belongs to another account, and others")


def test_folder_need_not_exist(load, plugins_folder):
    plugins_folder.rmdir()
    assert set(load().analyzers) == FIRST_PARTY_ANALYZERS


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
    assert set(plugin_manager.analyzers) == FIRST_PARTY_ANALYZERS


def test_disabled_plugins_are_listed_but_not_imported(load, plugins_folder):
    (plugins_folder / "noisy.py").write_text("raise RuntimeError")
    plugin_manager = load(disabled=("noisy", "blip"))
    for name in ("noisy", "blip"):
        assert named(plugin_manager, name).state == "disabled"
        assert named(plugin_manager, name).reason == "switched off by the settings"
    assert set(plugin_manager.analyzers) == FIRST_PARTY_ANALYZERS - {"blip"}


def test_only_enabled_plugins_are_loaded(load, plugins_folder):
    (plugins_folder / "good.py").write_text(GOOD)
    plugin_manager = load(enabled=("good",))
    assert set(plugin_manager.analyzers) == {"good"}
    assert {named(plugin_manager, name).state for name in FIRST_PARTY} == {"disabled"}
    assert set(load(enabled=()).analyzers) == set()
    assert set(load(enabled=("good", "blip"), disabled=("good",)).analyzers) == {"blip"}


def test_reserved_names_are_no_plugins(load, plugins_folder):
    (plugins_folder / "analyzers.py").write_text(GOOD)
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


def test_analyzers_come_after_those_that_they_require(load, plugins_folder):
    (plugins_folder / "a.py").write_text(requiring("a", "b", "dimensions"))
    (plugins_folder / "b.py").write_text(requiring("b", "c"))
    (plugins_folder / "c.py").write_text(requiring("c"))
    order = list(load().analyzers)
    assert order.index("c") < order.index("b") < order.index("a")
    assert order.index("dimensions") < order.index("a")


def test_who_requires_one_that_is_not_loaded_is_not_loaded_either(load, plugins_folder):
    (plugins_folder / "a.py").write_text(requiring("a", "b"))
    (plugins_folder / "b.py").write_text(requiring("b", "c"))
    (plugins_folder / "c.py").write_text(requiring("c") + "\n1 / 0")
    (plugins_folder / "d.py").write_text(requiring("d", "dimensions"))
    plugin_manager = load(disabled=("exif",))
    assert named(plugin_manager, "a").reason == "a requires b, which is not loaded"
    assert named(plugin_manager, "b").reason == "b requires c, which is not loaded"
    assert [named(plugin_manager, name).state for name in "abcd"] == ["failed"] * 3 + ["loaded"]
    assert "a" not in plugin_manager.analyzers
    assert named(load(disabled=("dimensions",)), "d").state == "failed"


def test_circle_of_requirements_is_a_conflict_of_its_plugins_alone(load, plugins_folder):
    (plugins_folder / "a.py").write_text(requiring("a", "b"))
    (plugins_folder / "b.py").write_text(requiring("b", "a"))
    (plugins_folder / "c.py").write_text(requiring("c", "a"))
    (plugins_folder / "d.py").write_text(requiring("d"))
    plugin_manager = load()
    for name in "ab":
        assert named(plugin_manager, name).state == "conflict"
        assert re.search(
            "a requires b requires a|b requires a requires b", named(plugin_manager, name).reason
        )
    assert named(plugin_manager, "c").reason == "c requires a, which is not loaded"
    assert set(plugin_manager.analyzers) == {"d", *FIRST_PARTY_ANALYZERS}


def test_only_plugins_that_are_not_there_stop_the_start_of_every_process(plugins_folder):
    """Those of a host take a part of the settings each; all build their plugins in one way."""
    given = {"PLUGINS_FOLDER": str(plugins_folder)}
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
