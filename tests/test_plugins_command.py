"""`clustr plugins`: it tells what there is and what is wrong, whatever plugins do."""

import io
import json
import os
import re
import shutil
import subprocess
import sys
import textwrap
import tomllib
from pathlib import Path
from typing import Any

import photographs
import pytest
from fork_server import run_program
from packaging.specifiers import SpecifierSet
from plugin_commands import run_plugins
from plugin_sources import CONFIGURED, GOOD, ROUTES, SECRETIVE, filtered, top
from running import all_processes, wait_until
from workshop import FIRST_PARTY, FIRST_PARTY_ANALYZERS, analyzer

from clustr.cli.requirements import have_common_version

# In the order of their names, in which they are loaded: what is said of each, after its state.
BROKEN = {
    "b_import_error": ("failed", "import raised ModuleNotFoundError: No module", "import nothing"),
    "c_exit": ("failed", "import raised SystemExit: 3", top("sys.exit(3)")),
    "d_misspelt": (
        "failed",
        "did you mean clustr_register_analyzers",
        GOOD.replace("register_analyzers", "register_analyser"),
    ),
    "e_signature": (
        "failed",
        r"clustr_register_analyzers\(\): unknown argument conf; did you mean config",
        GOOD.replace("analyzers(config)", "analyzers(conf)"),
    ),
    "f_name": ("conflict", "the plugin a_good has the analyzer good too", GOOD),
    "g_config": ("misconfigured", "size: Missing data for required field", CONFIGURED),
    "h_level": ("failed", "it is written for API level 7", f"{GOOD}\nCLUSTR_API = 7"),
    "i_hook": (
        "failed",
        "raised OSError: so what",
        GOOD.replace("return [", "raise OSError('so what') #"),
    ),
    "j_routes": (
        "failed",
        r"clustr_register_blueprints\(\) raised ZeroDivisionError",
        GOOD.replace('"good"', '"j"') + ROUTES.format(body="1 / 0"),
    ),
    "k_crash": ("failed", "it crashed its process, by SIGSEGV", top("ctypes.string_at(0)")),
    "l_ends": ("failed", "it ended its process, with exit code 0", top("os._exit(0)")),
    "m_hangs": ("failed", "it did not end within 5 seconds", top("time.sleep(1000)")),
}
GOOD_TWO = analyzer("two", "return {}", queue="http", requires=("good",))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two good plugins among twelve that are broken, each in its own way."""
    place = tmp_path_factory.mktemp("broken")
    (place / "plugins").mkdir()
    (place / "plugins" / "a_good.py").write_text(GOOD)
    (place / "plugins" / "z_good.py").write_text(
        top("print('noise'); os.write(1, b'more noise\\n')").replace(GOOD, GOOD_TWO)
    )
    for name, (_, _, source) in BROKEN.items():
        (place / "plugins" / f"{name}.py").write_text(source)
    return place


@pytest.fixture(scope="module")
def listed(place: Path) -> dict[str, dict[str, Any]]:
    """What `list --json` says, by the plugins' names."""
    done = run_plugins(place, "list", "--json", "--limit", "5")
    assert (done.returncode, done.stderr) == (0, "")
    return {one["name"]: one for one in json.loads(done.stdout)["data"]}


def test_list_tells_every_broken_plugin_beside_the_good_ones(listed) -> None:
    assert set(listed) == {"a_good", "z_good", *BROKEN, *FIRST_PARTY}
    for name, (state, reason, _) in BROKEN.items():
        assert listed[name]["state"] == state, name
        assert re.search(reason, listed[name]["reason"]), name
        assert listed[name]["analyzers"] == []
    good, two = listed["a_good"], listed["z_good"]
    assert (good["state"], good["reason"], good["source"]) == ("loaded", None, "folder")
    assert good["load_ms"] > 0
    [told] = two["analyzers"]
    assert (told["name"], told["version"], told["queue"]) == ("two", 1, "http")
    assert told["requires"] == ["good"]
    assert {listed[name]["state"] for name in FIRST_PARTY} == {"disabled"}


def test_service_is_unharmed_by_a_folder_of_broken_plugins(app_with, place: Path, tmp_path) -> None:
    """All but those that would end its process: for these there is `check`, before the start."""
    for name in ("a_good", *BROKEN):
        if name not in ("k_crash", "l_ends", "m_hangs"):
            shutil.copy(place / "plugins" / f"{name}.py", tmp_path)
    settings = {"PLUGINS_FOLDER": str(tmp_path), "BLIP_SERVICE_URL": "http://127.0.0.1:9"}
    client = app_with(**settings).test_client()
    told = {one["name"]: one for one in client.get("/api/plugins").get_json()["data"]}
    broken = set(BROKEN) & set(told)
    assert len(broken) == 9
    for name in broken:
        state, reason, _ = BROKEN[name]
        assert told[name]["state"] == state
        assert re.search(reason, told[name]["reason"])
    assert {told[name]["state"] for name in ("a_good", *FIRST_PARTY)} == {"loaded"}
    [good] = told["a_good"]["analyzers"]
    assert (good["auto"], good["requires"], good["formats"]) == (True, [], [])
    files = [(io.BytesIO(photographs.photograph()), "photograph.jpg")]
    answer = client.post("/api/upload", data={"files": files})
    assert answer.status_code == 201
    upload = client.get(f"/api/uploads/{answer.get_json()['data'][0]['id']}").get_json()
    assert set(upload["analyses"]) == {"good", *FIRST_PARTY_ANALYZERS}


def test_failures_to_load_have_a_traceback_of_the_plugin_alone(listed) -> None:
    trace = listed["b_import_error"]["traceback"]
    assert re.search(r'plugins/b_import_error\.py", line 1', trace)
    assert "plugin_manager" not in trace
    assert "so what" in listed["i_hook"]["traceback"]
    assert listed["a_good"]["traceback"] is None


def test_check_tells_what_is_wrong_and_what_is_worth_a_warning(place: Path) -> None:
    done = run_plugins(place, "check", "--limit", "5")
    assert done.returncode == 1
    told = dict(re.findall(r"^(\w+):(.*(?:\n  .*)*)", done.stdout, re.MULTILINE))
    assert told["a_good"] == " fine"
    assert told["z_good"] == " fine\n  warning: it prints when it is imported: more noise"
    assert {told[name] for name in FIRST_PARTY} == {" disabled"}
    for name, (state, reason, _) in BROKEN.items():
        assert re.search(rf"^\n  problem: {state}: .*{reason}", told[name]), name


def test_check_of_one_plugin(drop_in) -> None:
    heavy = """
        import sys, time, threading
        sys.path.append("modules")
        import torch
        time.sleep(1.01)
        threading.Thread(target=lambda: time.sleep(1000), daemon=True).start()
    """
    place = drop_in(textwrap.dedent(heavy) + GOOD)
    (place / "modules").mkdir()
    (place / "modules" / "torch.py").touch()
    (place / "plugins" / "other.py").write_text("1 / 0")
    done = run_plugins(place, "check", "it")
    assert (done.returncode, done.stderr) == (0, "")
    name, *warnings, tried = done.stdout.splitlines()
    assert name == "it: fine"
    assert tried == (
        "  tried: its import, its configuration, what it registers (1 analyzer); no image, because "
        "no FILE was given"
    )
    expected = ("import imports torch", "import takes ", "import begins a thread")
    for warning, said in zip(warnings, expected, strict=True):
        assert said in warning
    done = run_plugins(place, "check", "its")
    assert (done.returncode, done.stderr) == (2, "clustr: unknown plugin its; did you mean it?\n")


def test_check_imports_nothing_that_the_service_would_not_import(tmp_path: Path) -> None:
    (tmp_path / "plugins").mkdir()
    for name in ("clean-Up", "fields", "phash"):
        hangs = top("open('ran', 'w'); time.sleep(1000)")
        (tmp_path / "plugins" / f"{name}.py").write_text(hangs)
    others = ",".join({*FIRST_PARTY} - {"phash"})
    done = run_plugins(tmp_path, "check", PLUGINS_DISABLED=others)
    assert not (tmp_path / "ran").exists()
    for name in ("clean-Up: ", "fields: ", "phash: fine", "phash: "):
        assert re.search(rf"^{name.strip()}$", done.stdout, re.MULTILINE), done.stdout
    reasons = ("failed: a plugin's name must", "failed: no plugin can have", "conflict: another")
    for reason in reasons:
        assert f"\n  problem: {reason}" in done.stdout


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a file to another account")
def test_check_runs_nothing_that_another_account_may_have_put_there(drop_in) -> None:
    place = drop_in(top("open('ran', 'w')"))
    os.chown(place / "plugins" / "it.py", 65534, 65534)
    (place / "plugins").chmod(0o777)
    done = run_plugins(place, "check", "it")
    assert "  problem: failed: it.py belongs to another account, and others" in done.stdout
    assert not (place / "ran").exists()


def test_check_warns_of_a_timeout_without_effect(drop_in) -> None:
    place = drop_in(
        textwrap.dedent("""
        from marshmallow import Schema, fields
        from clustr.plugins import HttpAnalyzer, HttpConfig, hookimpl

        class It(HttpAnalyzer):
            name = service = "it"
            timeout = 20
            result_schema = Schema.from_dict({"label": fields.String()})

        class Config(HttpConfig):
            timeout = fields.Float(load_default=30.0)

        @hookimpl
        def clustr_config_schema():
            return Config

        @hookimpl
        def clustr_register_analyzers(config):
            return [It(config)]
        """)
    )
    address = {"CLUSTR_PLUGIN__IT__SERVICE_URL": "http://detector:8001"}
    done = run_plugins(place, "check", "it", **address)
    assert done.returncode == 0, done.stdout
    assert done.stdout.splitlines()[1] == (
        "  warning: it: timeout = 20 of its class is without effect; give the key timeout of its "
        "configuration that load_default"
    )
    [limit] = re.findall("timeout +(.*)", run_plugins(place, "show", "it", **address).stdout)[:1]
    assert limit == "40 seconds"
    file = place / "plugins" / "it.py"
    file.write_text(file.read_text().replace("    timeout = 20\n", ""))
    assert "warning" not in run_plugins(place, "check", "it", **address).stdout


def test_config_and_show_have_what_the_class_of_an_analyzer_says(tmp_path: Path) -> None:
    def lines(*arguments: str, **settings: str) -> str:
        return run_plugins(tmp_path, *arguments, PLUGINS_DISABLED="", **settings).stdout

    example = lines("config", "blip")
    keys = [line for line in example.splitlines() if re.match(r"# [a-z_]+ = ", line)]
    table = tomllib.loads("\n".join(line.removeprefix("# ") for line in keys))
    assert (table["concurrency"], table["max_side"]) == (8, 1024)
    (tmp_path / "plugins.toml").write_text(example.replace("# max_side = 1024", "max_side = 512"))
    described = json.loads(lines("show", "blip", "--json", CLUSTR_PLUGIN__BLIP__CONCURRENCY="4"))
    found = {key["key"]: (key["value"], key["default"]) for key in described["config"]}
    assert (found["concurrency"], found["max_side"]) == ((4, 8), (512, 1024))


def test_check_compares_what_is_required_with_what_is_installed(tmp_path: Path) -> None:
    metadata = tmp_path / "site" / "elsewhere-2.5.dist-info"
    metadata.mkdir(parents=True)
    (tmp_path / "site" / "elsewhere_module.py").write_text(GOOD)
    (metadata / "entry_points.txt").write_text("[clustr.plugins]\nelsewhere = elsewhere_module\n")
    requires = (
        "marshmallow<4",
        "no-such-package>=2",
        "Flask==3.1.*",
        "clustr>=0.1",
        "pillow>=13; python_version < '3'",
        "tensorflow; extra == 'gpu'",
        "pluggy",
    )
    lines = ["Metadata-Version: 2.1", "Name: elsewhere", "Version: 2.5"]
    lines += [f"Requires-Dist: {one}" for one in requires]
    (metadata / "METADATA").write_text("\n".join(lines) + "\n")
    done = run_plugins(tmp_path, "check", "elsewhere", PYTHONPATH="site")
    assert done.returncode == 1
    assert re.fullmatch(
        r"elsewhere:\n"
        r"  problem: it requires marshmallow<4, but 4\.\S+ is installed\n"
        r"  problem: it requires no-such-package>=2, which is not installed\n"
        r"  warning: it requires Flask==3\.1\.\*, so that Clustr cannot be given a newer one\n"
        r"  warning: it requires marshmallow<4, and Clustr requires marshmallow\S+: no version is "
        r"both\n",
        done.stdout,
    )


def test_check_warns_of_a_field_that_two_analyzers_fill(drop_in) -> None:
    filling = analyzer("it", "return {}", fields={"caption": "caption", "tags": "tags"})
    place = drop_in(filling)
    other = filling.replace('name = "it"', 'name = "other"').replace(", 'tags': 'tags'", "")
    (place / "plugins" / "other.py").write_text(other)
    warning = (
        "  warning: other and it would fill caption of uploads, and other does; [fields] in "
        "plugins.toml says which"
    )
    for name in ("it", "other"):
        done = run_plugins(place, "check", name)
        assert (done.returncode, done.stdout.splitlines()[:2]) == (0, [f"{name}: fine", warning])
    (place / "plugins.toml").write_text('[fields]\ncaption = "it"\n')
    assert "warning" not in run_plugins(place, "check").stdout


def test_check_warns_when_no_result_had_every_key(drop_in, tmp_path) -> None:
    source = analyzer("it", "return {'a': 1, **({'b': 2} if image.width > 100 else {})}")
    schema = "class Result(Schema):\n    a, b = fields.Integer(required=True), fields.Integer()\n"
    head, _, rest = source.partition("class Result(Schema):")
    place = drop_in(head + schema + rest.partition("unknown = INCLUDE\n")[2])
    for name, width in (("small.jpg", 64), ("large.jpg", 128)):
        (place / name).write_bytes(photographs.photograph(width=width))
    done = run_plugins(place, "check", "it", "small.jpg")
    assert done.returncode == 0
    assert done.stdout.splitlines()[-1] == (
        "  warning: no result that was tried has every key of its schema; the best lacks b"
    )
    done = run_plugins(place, "check", "it", "small.jpg", "large.jpg")
    assert "2 of your files" in done.stdout
    assert "warning" not in done.stdout


@pytest.mark.parametrize(
    ("one", "other", "common"),
    [
        ("<4", ">=4,<5", False),
        ("<5", ">=4,<5", True),
        (">3", "<5", True),
        ("==3.1.*", ">=3,<4", True),
        ("==2.*", ">=3", False),
        ("==3.1", "!=3.1", False),
        ("", ">=3", True),
        ("", "", True),
        (">3", "<3.0.5", True),
        ("~=4.2", ">=5", False),
    ],
)
def test_requirements_clash_when_no_version_meets_both(one: str, other: str, common: bool) -> None:
    assert have_common_version(SpecifierSet(one), SpecifierSet(other)) is common
    assert have_common_version(SpecifierSet(other), SpecifierSet(one)) is common


def test_list_for_people(drop_in) -> None:
    place = drop_in(GOOD, "[itt]\nsize = 3")
    (place / "plugins" / "odd\x1b[31m.py").write_text(GOOD)
    done = run_plugins(place, "list")
    assert done.returncode == 0
    heading, *rows = done.stdout.splitlines()
    assert heading.split() == [
        "NAME",
        "VERSION",
        "SOURCE",
        "STATE",
        "ANALYZERS",
        "LOAD",
        "REASON",
    ]
    [row] = [row for row in rows if row.startswith("it ")]
    assert re.fullmatch(r"it +- +folder +loaded +good v1 default +\d+ ms +-", row)
    [odd] = [row for row in rows if row.startswith("odd")]
    assert re.fullmatch(r"odd\?\[31m +- +folder +failed +- +\d+ ms +a plugin's name must .*", odd)
    assert "\x1b" not in done.stdout
    assert done.stderr == "warning: [itt]: unknown plugin itt; did you mean it?\n"


def test_show_tells_everything_but_secrets(drop_in) -> None:
    toml = "[it]\npin = 'x'\ntoken = 471147\ncolour = 'red'"
    source = SECRETIVE + filtered("Filter(analyzer='shades', field='label', type=fields.String())")
    place = drop_in(source, toml)
    done = run_plugins(place, "show", "it")
    assert (done.returncode, done.stderr) == (0, "")
    told = " ".join(done.stdout.split())
    for expected in (
        "state loaded, after ",
        "hooks clustr_config_schema, clustr_register_analyzers, clustr_register_filters",
        "analyzer shades v1",
        "filter analyses.shades.label",
        "result average (a number); label (text); boxes (a list of a table); more (a table)",
        'key colour value "red"',
        'key token value "(secret)"',
        "variables THE_PIN, CLUSTR_PLUGIN__IT__PIN",
        str(place / "plugins" / "it.py"),
    ):
        assert expected in told
    as_json = run_plugins(place, "show", "it", "--json").stdout
    config = {key["key"]: key for key in json.loads(as_json)["config"]}
    assert (config["pin"]["value"], config["pin"]["secret"]) == ("(secret)", True)
    assert config["colour"]["value"] == "red"
    assert "471147" not in done.stdout + as_json
    nothing = run_plugins(place, "show", "its")
    assert (nothing.returncode, nothing.stdout) == (2, "")
    assert nothing.stderr == "clustr: unknown plugin its; did you mean it?\n"


def test_show_tells_why_a_plugin_is_not_loaded(drop_in) -> None:
    done = run_plugins(drop_in(top("def deep():\n    1 / 0\ndeep()")), "show", "it")
    assert done.returncode == 0
    assert "reason     import raised ZeroDivisionError: division by zero" in done.stdout
    assert re.search(r'it\.py", line 3, in deep\n +1 / 0', done.stdout)


KEYED = (
    GOOD
    + """
from datetime import timedelta
from marshmallow import validate

class Config(Schema):
    address = fields.Url(required=True, metadata={"description": "Where the model is"})
    threshold = fields.Float(load_default=0.5, validate=validate.Range(0, 1),
                             metadata={"description": "From where on it counts."})
    mode = fields.String(load_default="fast", validate=validate.OneOf(["fast", "exact"]))
    labels = fields.List(fields.String(), load_default=["a", 'the "b"'])
    more = fields.Dict(load_default=dict)
    pause = fields.TimeDelta(load_default=timedelta(seconds=90))
    on = fields.Boolean(load_default=True)
    key = fields.String(metadata={"secret": True, "env": "MODEL_KEY"})

@hookimpl
def clustr_config_schema():
    return Config
"""
)


def test_example_of_a_configuration_is_one_when_its_lines_are_made_to_count(drop_in) -> None:
    place = drop_in(KEYED)
    # It is misconfigured as long as there is no address: that is when one asks for this.
    done = run_plugins(place, "config", "it")
    assert (done.returncode, done.stderr) == (0, "")
    assert tomllib.loads(done.stdout) == {"it": {}}
    for expected in (
        "# Where the model is\n# an address; required\n",
        "# a number, from 0 to 1\n# in the environment: CLUSTR_PLUGIN__IT__THRESHOLD\n",
        "# text, one of fast, exact\n",
        "# in the environment: MODEL_KEY or CLUSTR_PLUGIN__IT__KEY\n",
        '# address = "…"\n',
    ):
        assert expected in done.stdout
    counting = re.sub(r"^# (?=\w+ = )", "", done.stdout, flags=re.MULTILINE)
    counting = counting.replace('address = "…"', 'address = "http://model.example"')
    (place / "plugins.toml").write_text(counting)
    shown = json.loads(run_plugins(place, "show", "it", "--json", IT_KEY="sesame").stdout)
    assert (shown["state"], shown["reason"]) == ("loaded", None)
    values = {key["key"]: key["value"] for key in shown["config"]}
    assert values["labels"] == ["a", 'the "b"']
    assert values["pause"] == "0:01:30"
    assert (values["threshold"], values["on"], values["key"]) == (0.5, True, "(secret)")


def test_example_for_plugins_without_one(drop_in) -> None:
    place = drop_in(GOOD)
    done = run_plugins(place, "config", "it")
    assert (done.returncode, done.stdout) == (0, "# The plugin it takes no configuration.\n")
    drop_in("1 / 0")
    done = run_plugins(place, "config", "it")
    assert done.returncode == 2
    assert "it is not known what can be configured: it is failed: import raised" in done.stderr


@pytest.mark.parametrize(
    ("toml", "settings", "said"),
    [
        ("[it\n", {}, "plugins.toml cannot be read: "),
        ("", {"PORT": "many"}, "PORT='many': expected a whole number"),
    ],
)
def test_broken_settings_are_said_and_plugins_listed(drop_in, toml, settings, said) -> None:
    place = drop_in(GOOD, toml)
    done = run_plugins(place, "list", "--json", **settings)
    assert done.returncode == 1
    assert said in done.stderr
    assert done.stderr.startswith("clustr: ")
    assert done.stderr.count("\n") == 1
    states = {one["name"]: one["state"] for one in json.loads(done.stdout)["data"]}
    assert states["it"] == "loaded"


def test_list_imports_nothing_heavy(drop_in) -> None:
    place = drop_in(GOOD)
    done = subprocess.run(
        [sys.executable, "-m", "clustr", "plugins", "list"],
        cwd=place,
        env={
            "PATH": os.environ["PATH"],
            "XDG_STATE_HOME": str(place),  # No other service is noted there, to be asked.
            "PLUGINS_FOLDER": "plugins",
            "PYTHONPROFILEIMPORTTIME": "1",
        },
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0
    imported = set(re.findall(r"\| +([\w.]+)$", done.stderr, re.MULTILINE))
    assert "clustr.plugin_manager" in imported
    assert not imported & {"flask", "flask_smorest", "pymongo", "rq", "redis", "gunicorn", "numpy"}


def test_hook_that_hangs_is_told_too(drop_in) -> None:
    place = drop_in(GOOD.replace("return [", "time.sleep(1000) #"))
    (place / "plugins" / "other.py").write_text(GOOD)
    done = run_plugins(place, "list", "--json", "--limit", "4")
    told = {one["name"]: one for one in json.loads(done.stdout)["data"]}
    assert told["it"]["reason"] == "loading it: it did not end within 4 seconds"
    assert told["other"]["state"] == "loaded"


LEAVES_ONE = """
import os, time
from clustr.cli.subprocess_check import run_in_child

def leave_one(send):
    if pid := os.fork():
        send(pid)
    else:
        time.sleep(1000)

trial = run_in_child(leave_one, 20)
assert trial.failure is None
print(*trial.sent)
"""


def test_trial_ends_what_a_plugin_leaves_behind(tmp_path) -> None:
    """A process that the plugin began, and which holds what the trial listens to."""
    done = run_program(["-c", LEAVES_ONE], {}, tmp_path)
    assert done.returncode == 0, done.stderr
    pid = int(done.stdout)
    left = [process for process in all_processes() if process.pid == pid]
    wait_until(lambda: not any(process.alive() for process in left), 60)
