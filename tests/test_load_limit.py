"""A plugin that hangs while it is loaded is not loaded, and all others are."""

import threading
from pathlib import Path

import pytest
import requests
from plugin_sources import GOOD, ROUTES, filtered, named, top
from workshop import FIRST_PARTY, HANG_IN_C

from clustr.plugin_manager import LoadLimit, PluginManager, load_plugins, notes_folder

SLEEP = "time.sleep(1000)"
TENACIOUS = """
for _ in range(1000):
    try:
        time.sleep(1000)
    except Exception:
        pass
"""
HOOK = GOOD.replace("    return [It()]", f"    {SLEEP}")
LISTED = filtered("Filter(analyzer='shades', field='label', type=fields.String())")


def load_in_time(folder: Path, seconds: float, notes: Path | None = None) -> PluginManager:
    limit = LoadLimit(seconds, notes)
    nothing = folder.parent / "plugins.toml"
    return load_plugins(folder, None, tuple(FIRST_PARTY), nothing, {}, limit=limit)


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        (top(SLEEP), "import did not end within 1 seconds"),
        (top(TENACIOUS), "import did not end within 1 seconds"),
        (HOOK, "clustr_register_analyzers() did not end within 1 seconds"),
    ],
)
def test_plugin_that_hangs_has_failed_and_the_others_are_loaded(plugins_folder, source, reason):
    (plugins_folder / "good.py").write_text(LISTED)
    (plugins_folder / "hangs.py").write_text(source)
    plugin_manager = load_in_time(plugins_folder, 1)
    hanging = named(plugin_manager, "hangs")
    assert (hanging.state, hanging.reason) == ("failed", reason)
    assert "hangs.py" in hanging.trace
    assert "time.sleep(1000)" in hanging.trace
    assert set(plugin_manager.analyzers) == {"shades"}


def test_after_some_plugins_that_hang_the_others_have_a_part_of_the_time(
    plugins_folder, monkeypatch
):
    monkeypatch.setattr("clustr.plugin_manager.load_limit.FULL_WAITS", 1)
    for number in range(3):
        (plugins_folder / f"hangs{number}.py").write_text(top(SLEEP))
    (plugins_folder / "quick.py").write_text(LISTED)
    plugin_manager = load_in_time(plugins_folder, 3)
    first, *others = [plugin.reason for plugin in plugin_manager.not_loaded()]
    assert first == "import did not end within 3 seconds"
    short = (
        "import did not end within 0.6 seconds, which is all that is left after others that hung"
    )
    assert others == [short] * 2
    assert set(plugin_manager.analyzers) == {"shades"}


def test_routes_that_hang_withdraw_their_plugin(plugins_folder):
    (plugins_folder / "hangs.py").write_text(GOOD + ROUTES.format(body=SLEEP))
    plugin_manager = load_in_time(plugins_folder, 1)
    assert set(plugin_manager.analyzers) == {"good"}
    assert plugin_manager.blueprints(lambda plugin: plugin, lambda plugin, blueprints: None) == []
    reason = "clustr_register_blueprints() did not end within 1 seconds"
    assert named(plugin_manager, "hangs").reason == reason
    assert not plugin_manager.analyzers


def test_thread_that_gets_no_signals_can_load_plugins(plugins_folder):
    (plugins_folder / "good.py").write_text(GOOD)
    loaded: list[str] = []
    thread = threading.Thread(
        target=lambda: loaded.extend(load_in_time(plugins_folder, 1).analyzers)
    )
    thread.start()
    thread.join()
    assert loaded == ["good"]


def note(folder: Path, plugin: str, **changed: object) -> Path:
    """What is left of a process that a plugin has ended; as the limit itself writes it."""
    about = {"seconds": 3.0, "end": b"Timeout (0:00:08)!\n", **changed}
    file = folder.parent / "plugins" / f"{plugin}.py"
    with LoadLimit(about["seconds"], folder).watch(plugin, file):
        [path] = folder.iterdir()
        content = path.read_bytes()
    assert not path.exists()
    path.write_bytes(content + about["end"])
    return path


@pytest.mark.parametrize(
    ("changed", "state"),
    [
        ({}, "failed"),
        ({"seconds": 4.0}, "failed"),
        ({"seconds": 2.0}, "loaded"),  # It has more time now.
        ({"end": b""}, "loaded"),  # Somebody else has killed that process.
    ],
)
def test_plugin_that_ended_its_process_is_not_loaded_again(
    plugins_folder, tmp_path, changed, state
):
    notes = tmp_path / "notes"
    notes.mkdir()
    (plugins_folder / "good.py").write_text(GOOD)
    note(notes, "good", **changed)
    assert named(load_in_time(plugins_folder, 3.0, notes), "good").state == state


def test_plugin_that_ended_its_process_is_tried_again_once_it_is_changed(plugins_folder, tmp_path):
    notes = tmp_path / "notes"
    notes.mkdir()
    (plugins_folder / "good.py").write_text(GOOD)
    path = note(notes, "good")
    plugin = named(load_in_time(plugins_folder, 3.0, notes), "good")
    assert plugin.reason.startswith("loading it did not end within 3 seconds and held the interp")
    (plugins_folder / "good.py").write_text(f"{GOOD}\n# mended")
    assert named(load_in_time(plugins_folder, 3.0, notes), "good").state == "loaded"
    assert not path.exists()


def test_folder_that_others_can_write_to_has_no_notes(tmp_path):
    folder = notes_folder({"RUNTIME_DIRECTORY": str(tmp_path)})
    assert folder is not None
    assert folder.stat().st_mode & 0o777 == 0o700
    folder.chmod(0o777)
    assert notes_folder({"RUNTIME_DIRECTORY": str(tmp_path)}) is None


def test_service_starts_beside_plugins_that_hang(up, tmp_path):
    """One sleeps, and one keeps the interpreter, which ends the process that imports it."""
    (tmp_path / "plugins").mkdir()
    sources = {"good": LISTED, "sleeps": top(SLEEP), "keeps": top(HANG_IN_C)}
    for name, source in sources.items():
        (tmp_path / "plugins" / f"{name}.py").write_text(source)
    settings = {"PLUGINS_LOAD_SECONDS": "2", "RUNTIME_DIRECTORY": str(tmp_path)}
    running = up(PLUGINS_DISABLED=",".join(FIRST_PARTY), WEB_WORKERS="1", **settings)
    said = running.wait_until_started().output()
    assert "worker ended (exit code 1); it starts again" in said
    assert "plugin   sleeps is not loaded: import did not end within 2 seconds\n" in said
    assert "plugin   keeps is not loaded: loading it did not end within 2 seconds and held" in said

    def get(path: str) -> requests.Response:
        return requests.get(f"{running.url}{path}", timeout=10)

    states = {p["name"]: p["state"] for p in get("/api/plugins").json()["data"]}
    assert states == {
        **dict.fromkeys(FIRST_PARTY, "disabled"),
        "good": "loaded",
        "sleeps": "failed",
        "keeps": "failed",
    }
    health = get("/api/health").json()
    assert health["status"] == "degraded"
    assert set(health["services"]["plugins"]["not_loaded"]) == {"sleeps", "keeps"}
    for path in ("/api/x/sleeps", "/api/x/sleeps/some/where"):
        refused = get(path)
        assert refused.status_code == 404
        assert refused.json()["type"].endswith(":plugin_not_loaded")
        reason = "The plugin sleeps is not loaded: import did not end within 2 seconds."
        assert refused.json()["detail"] == reason
    missing = get("/api/uploads?analyses.sleeps.label=a")
    assert missing.status_code == 422
    [message] = missing.json()["errors"]["analyses.sleeps.label"]
    assert message.endswith(reason)
    [message] = get("/api/uploads?min_sharpness=0.5").json()["errors"]["min_sharpness"]
    assert " Not loaded are the plugins keeps (loading it did not end within 2 seconds" in message
    assert "; sleeps (import did not end within 2 seconds)." in message
    assert get("/api/uploads?analyses.shades.label=a").status_code == 200
