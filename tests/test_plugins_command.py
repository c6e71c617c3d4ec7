"""`clustr plugins`: it tells what there is and what is wrong, whatever plugins do."""

import io
import json
import os
import re
import resource
import shutil
import subprocess
import sys
import textwrap
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import photographs
import pytest
from running import all_processes, wait_until
from test_plugin_host import CONFIGURED, GOOD, ROUTES, SECRETIVE, filtered
from workshop import FIRST_PARTY, analyzer, plugin

from clustr.testing import sample_image


def top(code: str) -> str:
    """A plugin that does this when it is imported."""
    return f"import ctypes, os, sys, time\n{code}\n{GOOD}"


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
    "m_hangs": ("failed", "it did not end within 3 seconds", top("time.sleep(1000)")),
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


def run(place: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run `clustr plugins` where no server is."""
    (place / "plugins").mkdir(exist_ok=True)
    (place / "plugins.toml").touch()
    nowhere = {"MONGODB_URL": "mongodb://127.0.0.1:1", "REDIS_URL": "redis://127.0.0.1:1"}
    return subprocess.run(
        [sys.executable, "-m", "clustr", "plugins", *arguments],
        cwd=place,
        env={
            "PATH": os.environ["PATH"],
            "PLUGINS_FOLDER": "plugins",
            "PLUGINS_CONFIG": "plugins.toml",
            "PLUGINS_DISABLED": ",".join(FIRST_PARTY),
            **nowhere,
            **environment,
        },
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.fixture
def drop_in(tmp_path: Path) -> Callable[..., Path]:
    """Makes a place with one plugin, `it`."""

    def drop_in(source: str, toml: str = "") -> Path:
        (tmp_path / "plugins").mkdir(exist_ok=True)
        (tmp_path / "plugins" / "it.py").write_text(source)
        (tmp_path / "plugins.toml").write_text(toml)
        return tmp_path

    return drop_in


@pytest.fixture(scope="module")
def listed(place: Path) -> dict[str, dict[str, Any]]:
    """What `list --json` says, by the plugins' names."""
    done = run(place, "list", "--json", "--limit", "3")
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
    assert set(upload["analyses"]) == {"good", *FIRST_PARTY}


def test_failures_to_load_have_a_traceback_of_the_plugin_alone(listed) -> None:
    trace = listed["b_import_error"]["traceback"]
    assert re.search(r'plugins/b_import_error\.py", line 1', trace)
    assert "plugin_host" not in trace
    assert "so what" in listed["i_hook"]["traceback"]
    assert listed["a_good"]["traceback"] is None


def test_check_tells_what_is_wrong_and_what_is_worth_a_warning(place: Path) -> None:
    done = run(place, "check", "--limit", "3")
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
    done = run(place, "check", "it")
    assert (done.returncode, done.stderr) == (0, "")
    name, *warnings = done.stdout.splitlines()
    assert name == "it: fine"
    expected = ("import imports torch", "import takes 1.", "import begins a thread")
    for warning, said in zip(warnings, expected, strict=True):
        assert said in warning
    done = run(place, "check", "its")
    assert (done.returncode, done.stderr) == (2, "clustr: unknown plugin its; did you mean it?\n")


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
    done = run(tmp_path, "check", "elsewhere", PYTHONPATH="site")
    assert done.returncode == 1
    assert re.fullmatch(
        r"elsewhere:\n"
        r"  problem: it requires marshmallow<4, but 4\.\S+ is installed\n"
        r"  problem: it requires no-such-package>=2, which is not installed\n"
        r"  warning: it requires Flask==3\.1\.\*, so that Clustr cannot be given a newer one\n",
        done.stdout,
    )


def test_list_for_people(drop_in) -> None:
    place = drop_in(GOOD, "[itt]\nsize = 3")
    (place / "plugins" / "odd\x1b[31m.py").write_text(GOOD)
    done = run(place, "list")
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
    done = run(place, "show", "it")
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
    as_json = run(place, "show", "it", "--json").stdout
    config = {key["key"]: key for key in json.loads(as_json)["config"]}
    assert (config["pin"]["value"], config["pin"]["secret"]) == ("(secret)", True)
    assert config["colour"]["value"] == "red"
    assert "471147" not in done.stdout + as_json
    nothing = run(place, "show", "its")
    assert (nothing.returncode, nothing.stdout) == (2, "")
    assert nothing.stderr == "clustr: unknown plugin its; did you mean it?\n"


def test_show_tells_why_a_plugin_is_not_loaded(drop_in) -> None:
    done = run(drop_in(top("def deep():\n    1 / 0\ndeep()")), "show", "it")
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
    done = run(place, "config", "it")
    assert (done.returncode, done.stderr) == (0, "")
    assert tomllib.loads(done.stdout) == {"it": {}}
    for expected in (
        "# Where the model is\n# an address; required\n",
        "# a number, from 0 to 1\n# in the environment: CLUSTR_PLUGIN__IT__THRESHOLD\n",
        "# text, one of fast, exact\n",
        "# in the environment: MODEL_KEY or CLUSTR_PLUGIN__IT__KEY\n",
        "# address = …\n",
    ):
        assert expected in done.stdout
    counting = re.sub(r"^# (?=\w+ = )", "", done.stdout, flags=re.MULTILINE)
    counting = counting.replace("address = …", 'address = "http://model.example"')
    (place / "plugins.toml").write_text(counting)
    shown = json.loads(run(place, "show", "it", "--json", IT_KEY="sesame").stdout)
    assert (shown["state"], shown["reason"]) == ("loaded", None)
    values = {key["key"]: key["value"] for key in shown["config"]}
    assert values["labels"] == ["a", 'the "b"']
    assert values["pause"] == "0:01:30"
    assert (values["threshold"], values["on"], values["key"]) == (0.5, True, "(secret)")


def test_example_for_plugins_without_one(drop_in) -> None:
    place = drop_in(GOOD)
    done = run(place, "config", "it")
    assert (done.returncode, done.stdout) == (0, "# The plugin it takes no configuration.\n")
    drop_in("1 / 0")
    done = run(place, "config", "it")
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
    done = run(place, "list", "--json", **settings)
    assert done.returncode == 1
    assert said in done.stderr
    assert done.stderr.startswith("clustr: ")
    assert done.stderr.count("\n") == 1
    states = {one["name"]: one["state"] for one in json.loads(done.stdout)["data"]}
    assert states["it"] == "loaded"


def test_list_is_quick_and_imports_nothing_heavy(drop_in) -> None:
    """A second on an idle machine; here, of the processor's time, for others work beside it."""
    place = drop_in(GOOD)
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert run(place, "list", PLUGINS_DISABLED="").returncode == 0
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 1.0
    done = run(place, "list", PYTHONPROFILEIMPORTTIME="1")
    imported = set(re.findall(r"\| +([\w.]+)$", done.stderr, re.MULTILINE))
    assert "clustr.plugin_manager" in imported
    assert not imported & {"flask", "flask_smorest", "pymongo", "rq", "redis", "gunicorn", "numpy"}


def test_hook_that_hangs_is_told_too(drop_in) -> None:
    place = drop_in(GOOD.replace("return [", "time.sleep(1000) #"))
    (place / "plugins" / "other.py").write_text(GOOD)
    done = run(place, "list", "--json", "--limit", "2")
    told = {one["name"]: one for one in json.loads(done.stdout)["data"]}
    assert told["it"]["reason"] == "loading it: it did not end within 2 seconds"
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


def test_trial_ends_what_a_plugin_leaves_behind() -> None:
    """A process that the plugin began, and which holds what the trial listens to."""
    command = [sys.executable, "-c", LEAVES_ONE]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    pid = int(done.stdout)
    left = [process for process in all_processes() if process.pid == pid]
    wait_until(lambda: not any(process.alive() for process in left), 5)


# An analyzer on files

TRIED = {
    "looks": analyzer(
        "looks",
        """
        print("noise")
        context.log.info("seen", width=image.width)
        return {"width": image.width, "dimensions": image.results["dimensions"]}
        """,
        requires=("dimensions",),
        auto=False,
        fields={"caption": "text"},
    ),
    "ends": analyzer(
        "ends",
        """
        if image.width == 1:
            ctypes.string_at(0)
        if image.content_type == "image/png":
            raise Skip("no photograph")
        time.sleep(1000 if image.content_type == "image/webp" else 0)
        raise ValueError("nothing to see in /home/somebody/file.jpg")
        """,
        timeout=0.3,
    ),
    "deaf": analyzer(
        "deaf", "import itertools; sum(itertools.repeat(1))", timeout=0.2, batch_size=1
    ),
    "hangs": top("time.sleep(1000)").replace('"good"', '"never"'),
    "not_set_up": plugin(
        "not_set_up",
        "def setup(self, context): raise OSError('no model')",
        "def analyze(self, image, context): return {}",
    ),
}


@pytest.fixture(scope="module")
def trying(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with plugins and samples; `dimensions`, which one requires, is switched off."""
    place = tmp_path_factory.mktemp("trying")
    (place / "plugins").mkdir()
    for name, source in TRIED.items():
        (place / "plugins" / f"{name}.py").write_text(source)
    for kind in ("jpeg", "png", "webp", "1x1", "truncated", "not_an_image"):
        shutil.copy(sample_image(kind), place)
    return place


def try_out(place: Path, *arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
    """Run `clustr plugins run` without the plugin that hangs, unless the settings are others."""
    return run(place, "run", *arguments, "--limit", "1", **{"PLUGINS_DISABLED": "hangs"} | settings)


def test_run_prints_what_an_analyzer_says_after_those_it_requires(trying: Path) -> None:
    disabled = ",".join([*FIRST_PARTY, "looks"])
    switched_off = {"PLUGINS_DISABLED": disabled, "PLUGINS_ENABLED": "hangs"}
    files = ("jpeg.jpg", "truncated.jpg", "1x1.png", "not_an_image.jpg")
    done = try_out(trying, "looks", *files, "--json", **switched_off)
    assert done.returncode == 1
    ends = [json.loads(line) for line in done.stdout.splitlines()]
    assert [(end["file"], end["state"]) for end in ends] == [
        ("jpeg.jpg", "succeeded"),
        ("truncated.jpg", "refused"),
        ("1x1.png", "succeeded"),
        ("not_an_image.jpg", "refused"),
    ]
    assert ends[0]["result"] == {"width": 160, "dimensions": {"width": 160, "height": 120}}
    assert (ends[0]["error"], ends[1]["result"], ends[1]["duration_ms"]) == (None, None, None)
    assert "broken or incomplete" in ends[1]["error"]
    assert "none of the image formats that are accepted: jpg, png" in ends[3]["error"]
    assert re.search(r"seen .*width=160", done.stderr)
    assert re.search(r"plugin_printed .*noise", done.stderr)
    done = try_out(trying, "looks", "jpeg.jpg")
    assert done.returncode == 0
    first, *rest = done.stdout.splitlines()
    assert re.fullmatch(r"jpeg\.jpg: succeeded, after \d+ ms", first)
    assert json.loads("".join(rest))["width"] == 160


def test_run_contains_what_a_plugin_does(trying: Path) -> None:
    files = ("1x1.png", "jpeg.jpg", "png.png", "webp.webp")
    done = try_out(trying, "ends", *files)
    assert done.returncode == 1
    assert re.fullmatch(
        r"1x1\.png: failed\n"
        r"  ends: analyze\(\): it crashed its process, by SIGSEGV\n"
        r"jpeg\.jpg: failed, after \d+ ms\n"
        r"  ValueError: nothing to see in file\.jpg\n"
        r"png\.png: skipped, after \d+ ms\n"
        r"  no photograph\n"
        r"webp\.webp: failed, after 3\d\d ms\n"
        r"  took longer than 0\.3 seconds\n",
        done.stdout,
    )
    assert "Traceback" in done.stderr
    assert try_out(trying, "ends", "png.png").returncode == 0


def test_run_does_not_know_an_analyzer(drop_in) -> None:
    place = drop_in(TRIED["ends"])
    shutil.copy(sample_image("jpeg"), place)
    done = run(place, "run", "end", "jpeg.jpg")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "clustr: unknown analyzer end; did you mean ends?\n"


def test_run_ends_what_is_deaf_and_tells_what_waits(trying: Path) -> None:
    done = try_out(trying, "deaf", "jpeg.jpg")
    assert done.returncode == 1
    assert done.stdout.endswith("  deaf: took longer than 0.2 seconds, and was deaf\n")
    done = try_out(trying, "not_set_up", "jpeg.jpg", "png.png")
    assert done.returncode == 1
    assert done.stdout.count("\n  setup() raised OSError: no model\n") == 2
    assert done.stdout.count(": deferred, after 0 ms\n") == 2


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ("hangs", "jpeg.jpg"),
            "clustr: the plugin hangs is failed: loading it: it did not end within 1 seconds",
        ),
        (("looks", "none.jpg"), "File 'none.jpg' does not exist."),
        (("looks",), "Missing argument 'FILE...'."),
    ],
)
def test_run_says_what_it_cannot_do(trying: Path, arguments: tuple[str, ...], said: str) -> None:
    done = try_out(trying, *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert said in done.stderr


# A new plugin


def passes_its_tests(project: Path, path: str) -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "error"]
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": path}
    done = subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    assert " passed" in done.stdout


def install(project: Path, name: str) -> Path:
    """Install it with pip, into a folder of its own, which takes seconds."""
    site = project / "site"
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--retries", "0"]
    command += ["--disable-pip-version-check", "--target", str(site), str(project)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    # Where pip cannot fetch what builds the project, it is laid down as pip would do it.
    return site if done.returncode == 0 else lay_down(project, name)


def lay_down(project: Path, name: str) -> Path:
    """Let it be found with nothing fetched: its code, and what its project says."""
    said = tomllib.loads((project / "pyproject.toml").read_text())["project"]
    metadata = project / "src" / f"{said['name'].replace('-', '_')}-{said['version']}.dist-info"
    metadata.mkdir()
    entries = said["entry-points"]["clustr.plugins"]
    assert list(entries) == [name]
    (metadata / "entry_points.txt").write_text(f"[clustr.plugins]\n{name} = {entries[name]}\n")
    lines = [f"Name: {said['name']}", f"Version: {said['version']}"]
    lines += [f"Requires-Dist: {one}" for one in said["dependencies"]]
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\n" + "\n".join(lines) + "\n")
    return project / "src"


@pytest.mark.parametrize(("options", "brings"), [((), "mean"), (("--http",), "labels")])
def test_new_project_is_complete(tmp_path: Path, options: tuple[str, ...], brings: str) -> None:
    done = run(tmp_path, "new", "good_light", *options)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "Wrote clustr-good-light; its README.md says how to go on.\n"
    project = tmp_path / "clustr-good-light"
    written = {str(path.relative_to(project)) for path in project.rglob("*") if path.is_file()}
    assert written == {
        "pyproject.toml",
        "README.md",
        "src/clustr_good_light/__init__.py",
        "tests/test_good_light.py",
        ".github/workflows/test.yml",
    }
    source = (lay_down if options else install)(project, "good_light")
    passes_its_tests(project, str(source))
    checked = run(tmp_path, "check", "good_light", PYTHONPATH=str(source))
    assert (checked.returncode, checked.stdout) == (0, "good_light: fine\n")
    listed = json.loads(run(tmp_path, "list", "--json", PYTHONPATH=str(source)).stdout)["data"]
    [shown] = [one for one in listed if one["name"] == "good_light"]
    assert (shown["state"], shown["source"], shown["version"]) == ("loaded", "package", "0.1.0")
    assert brings in shown["analyzers"][0]["result"]


def test_new_drop_in_is_loaded_where_it_was_written(tmp_path: Path) -> None:
    done = run(tmp_path, "new", "light", "--drop-in")
    assert (done.returncode, done.stderr) == (0, "")
    passes_its_tests(tmp_path / "plugins" / "light", "")
    checked = run(tmp_path, "check", "light")
    assert (checked.returncode, checked.stdout) == (0, "light: fine\n")


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("Light", r"Light cannot be the name of a plugin: it must match \[a-z\]"),
        ("../light", "cannot be the name of a plugin"),
        ("analyzers", "cannot be the name of a plugin: .* analyzers and plugins are kept"),
        ("dimensions", "there is a plugin dimensions already"),
        ("light", "clustr-light cannot be made: File exists"),
    ],
)
def test_new_plugin_takes_nothing_from_others(tmp_path: Path, name: str, reason: str) -> None:
    (tmp_path / "clustr-light").mkdir()
    done = run(tmp_path, "new", name)
    assert (done.returncode, done.stdout) == (2, "")
    assert re.match(f"clustr: .*{reason}", done.stderr)
    found = {path.name for path in tmp_path.rglob("*")}
    assert found == {"clustr-light", "plugins", "plugins.toml"}
