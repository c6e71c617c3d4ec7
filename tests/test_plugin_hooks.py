"""What plugins bring besides analyzers, and are told: filters, routes and notices."""

import json
import re
import subprocess
import sys
from datetime import UTC, datetime

import photographs
import pytest
from plugin_sources import (
    EVENT,
    GOOD,
    HEAD,
    ROUTES,
    SECRETIVE,
    filtered,
    named,
    requiring,
)
from trash import remove, trash_of, whole
from workshop import FIRST_PARTY

from clustr.components import build_plugin_manager, build_worker
from clustr.plugin_manager import PluginManager

# Filters


def a_filter(**changed: str) -> str:
    members = {"analyzer": "'shades'", "field": "'label'", "type": "fields.String()", **changed}
    return f"Filter({', '.join(f'{key}={value}' for key, value in members.items())})"


def objects(field: str = "'boxes'", operators: str = "('eq',)", **types: str) -> str:
    """The source of a filter of the objects of a list."""
    keys = ", ".join(f"{key!r}: {type}" for key, type in types.items())
    return a_filter(field=field, operators=operators, type=f"{{{keys}}}")


def test_names_of_filters_do_not_clash_between_plugins(load, plugins_folder):
    (plugins_folder / "shades.py").write_text(filtered(a_filter(name="'shade'")))
    other = filtered(a_filter(analyzer="'tints'", name="'shade'"))
    (plugins_folder / "tints.py").write_text(other.replace('"shades"', '"tints"'))
    plugin_manager = load()
    assert named(plugin_manager, "shades").state == "loaded"
    tints = named(plugin_manager, "tints")
    assert (tints.state, tints.reason) == ("conflict", "the plugin shades has a filter shade too")


def test_filters_are_found_by_analyzer_and_field(load, plugins_folder):
    inside = a_filter(field="'boxes.width'", type="fields.Float()", operators="('gte', 'lte')")
    any_key = a_filter(field="'more.of.it'", indexed="True")
    average = a_filter(field="'average'", type="fields.Float()")
    (plugins_folder / "shades.py").write_text(filtered(a_filter(), inside, any_key, average))
    plugin_manager = load(disabled=tuple(FIRST_PARTY))
    assert named(plugin_manager, "shades").reason is None
    fields = ("label", "boxes.width", "more.of.it", "average")
    assert [(f.analyzer, f.field) for f in plugin_manager.filters] == [
        ("shades", field) for field in fields
    ]
    assert plugin_manager.filters[1].operators == ("gte", "lte")
    assert list(named(plugin_manager, "shades").filters) == plugin_manager.filters


@pytest.mark.parametrize(
    ("filters", "reason"),
    [
        (["'label'"], "returned a str, which is no Filter"),
        ([a_filter(analyzer="'exif'")], "on an analyzer of the plugin; unknown analyzer exif"),
        ([a_filter(field="'labl'")], r"shades\.labl: unknown field labl; did you mean label"),
        ([a_filter(field="'mean'")], "unknown field mean"),
        ([a_filter(field="'boxes.height'")], "unknown field height; there are corners, width"),
        ([a_filter(field="'label.x'")], "label is a String, with nothing inside"),
        ([a_filter(field="'more.$where'")], "begin with"),
        ([a_filter(field="'more..x'")], "empty"),
        ([a_filter(field="7")], "field must be a key of the result"),
        ([a_filter(operators="('regex',)")], "unknown operator regex; there are eq, gt, "),
        ([a_filter(operators="()")], "operators must be a tuple"),
        ([a_filter(operators="'eq'")], "operators must be a tuple"),
        ([a_filter(type="fields.String")], r"type must be a marshmallow field, such as fields\.F"),
        ([a_filter(), a_filter(operators="('ne', 'eq')")], r"shades\.label is there twice .* eq"),
        ([a_filter(name="'min_size'")], "Clustr itself has the parameter min_size"),
        ([a_filter(name="'Label'")], "its name must match"),
        ([a_filter(name="'a__gte'")], "without two underscores"),
        ([a_filter(name="'a'", operators="('eq', 'ne')")], "a name is for one operator"),
        (
            [a_filter(name="'a'"), a_filter(name="'a'", operators="('ne',)")],
            "two of its filters have the name a",
        ),
        ([a_filter(title="7")], "name, title and summary must be text"),
        ([a_filter(internal="'no'")], "indexed and internal must be True or False"),
        ([objects()], "needs one key at least"),
        ([objects(width="fields.Float()", operators="('gte',)")], "takes no operators"),
        ([objects(height="fields.Float()")], "unknown key of its objects height; there are"),
        ([objects(width="3")], "the type of the key width must be a marshmallow field"),
        ([objects(corners="fields.Float()")], "key corners must be a text, a number"),
        ([objects(field="'label'", x="fields.String()")], "for a field that is a list of objects"),
        (["1 / 0"], r"clustr_register_filters\(\) raised ZeroDivisionError"),
    ],
)
def test_bad_filters_are_the_failure_of_their_plugin(load, plugins_folder, filters, reason):
    (plugins_folder / "shades.py").write_text(filtered(*filters))
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
def test_plugin_without_its_routes_is_withdrawn_as_a_whole(load, plugins_folder, body, reason):
    (plugins_folder / "routed.py").write_text(
        GOOD + ROUTES.format(body="return [Blueprint('a', 'b')]")
    )
    (plugins_folder / "bad.py").write_text(
        GOOD.replace('"good"', '"bad"') + ROUTES.format(body=body) + EVENT.format(body="1 / 0")
    )
    (plugins_folder / "dependent.py").write_text(requiring("dependent", "bad"))
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


def test_hook_that_raises_is_counted_and_touches_no_other(load, plugins_folder):
    (plugins_folder / "bad.py").write_text(GOOD + EVENT.format(body="raise OSError('so what')"))
    (plugins_folder / "ending.py").write_text(HEAD + EVENT.format(body="raise SystemExit"))
    (plugins_folder / "good.py").write_text(HEAD + EVENT.format(body="upload.append('told')"))
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


def test_what_plugins_do_wrong_is_logged_but_for_secrets(plugins_folder, tmp_path):
    (plugins_folder / "bad.py").write_text(HEAD + EVENT.format(body="raise OSError('so what')"))
    (plugins_folder / "slow.py").write_text(HEAD + EVENT.format(body="time.sleep(1.01)"))
    (plugins_folder / "secretive.py").write_text(SECRETIVE)
    config = tmp_path / "plugins.toml"
    config.write_text("[secretive]\npin = 'sesame'\ncolour = 'worse'\n[slwo]\n")
    command = [sys.executable, "-c", LOGGED, str(plugins_folder), str(config)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    logged = {line["event"]: line for line in lines}
    assert logged["hook_raised"]["plugin"] == "bad"
    assert logged["hook_raised"]["hook"] == "clustr_upload_stored"
    place = r"\(bad.py, line \d+, in clustr_upload_stored\)"
    assert re.fullmatch(rf"OSError: so what {place}", logged["hook_raised"]["reason"])
    assert logged["hook_slow"]["duration_ms"] > 1000
    assert logged["plugin_not_loaded"]["plugin"] == "secretive"
    [ignored] = [line for line in lines if line["event"] == "configuration_ignored"]
    assert ignored["reason"] == "[slwo]: unknown plugin slwo; did you mean slow?"
    assert "sesame" not in done.stderr + done.stdout


def test_only_who_implements_a_hook_is_told(load, plugins_folder):
    (plugins_folder / "good.py").write_text(HEAD + EVENT.format(body="pass"))
    plugin_manager = load(disabled=tuple(FIRST_PARTY))
    assert plugin_manager.implements("clustr_upload_stored")
    assert not plugin_manager.implements("clustr_upload_deleted")
    plugin_manager.notify("clustr_upload_deleted", upload=None)
    with pytest.raises(KeyError):
        plugin_manager.notify("clustr_upload_storred", upload=None)


HANGING = """
import threading
from clustr.plugins import hookimpl

@hookimpl
def clustr_upload_deleted(upload):
    threading.Event().wait()
"""


def test_a_hook_that_hangs_holds_no_worker_up(workshop, monkeypatch, capsys):
    monkeypatch.setattr("clustr.services.plugin_events.HANG_SECONDS", 0.2)
    workshop.write("hanging", HANGING)
    ids = workshop.upload(photographs.photograph(), photographs.one_pixel())
    for upload_id in ids:
        assert remove(workshop, upload_id) == 204
    long_ago = {"$set": {"trash.at": datetime(2020, 1, 1, tzinfo=UTC)}}
    trash_of(workshop).update_many({}, long_ago)
    worker = build_worker(workshop.settings, build_plugin_manager(workshop.settings))
    worker.reconciler.run_once()
    worker.database.close()
    assert [whole(workshop, upload_id) for upload_id in ids] == ["gone", "gone"]
    logged = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    [hanging] = [line for line in logged if line["event"] == "hook_hangs"]
    assert (hanging["plugin"], hanging["hook"]) == ("hanging", "clustr_upload_deleted")
