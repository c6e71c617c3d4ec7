"""`clustr plugins new`: what it writes is whole and passes its tests, and it takes nothing away."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from fork_server import run_program
from plugin_commands import run_plugins
from plugin_projects import PYTEST, lay_down

from clustr.cli import scaffold

LONGEST_NAME = 32


def passes_its_tests(project: Path, path: str) -> None:
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": path}
    done = run_program(PYTEST, environment, project, seconds=300)
    assert done.returncode == 0, done.stdout
    assert " passed" in done.stdout


def install(project: Path, name: str) -> Path:
    """Install it with pip, into a folder of its own, which takes seconds."""
    site = project / "site"
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--retries", "0"]
    command += ["--disable-pip-version-check", "--target", str(site), str(project)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    # Where pip cannot fetch what builds the project, it is laid down as pip would do it.
    return site if done.returncode == 0 else lay_down(project, name)


@pytest.mark.parametrize(("options", "brings"), [((), "mean"), (("--http",), "labels")])
def test_new_project_is_complete(tmp_path: Path, options: tuple[str, ...], brings: str) -> None:
    done = run_plugins(tmp_path, "new", "good_light", *options)
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
    needed = "no server but its service is needed" if options else "no server is needed"
    assert f"what it says of a file; {needed}\n" in (project / "README.md").read_text()
    source = (lay_down if options else install)(project, "good_light")
    passes_its_tests(project, str(source))
    registered = "1 filter" if options else "2 filters, 1 blueprint"
    tried = (
        "good_light: fine\n  tried: its import, its configuration, what it registers (1 analyzer, "
        f"{registered}); no image, because no FILE was given\n"
    )
    checked = run_plugins(tmp_path, "check", "good_light", PYTHONPATH=str(source))
    assert (checked.returncode, checked.stdout) == (0, tried)
    listed = json.loads(run_plugins(tmp_path, "list", "--json", PYTHONPATH=str(source)).stdout)[
        "data"
    ]
    [shown] = [one for one in listed if one["name"] == "good_light"]
    assert (shown["state"], shown["source"], shown["version"]) == ("loaded", "package", "0.1.0")
    assert brings in shown["analyzers"][0]["result"]


def test_new_drop_in_is_loaded_where_it_was_written(tmp_path: Path) -> None:
    name = "lightness_of_pictures_of_a_night"
    assert len(name) == LONGEST_NAME
    done = run_plugins(tmp_path, "new", name, "--drop-in")
    assert (done.returncode, done.stderr) == (0, "")
    passes_its_tests(tmp_path / "plugins" / name, "")
    checked = run_plugins(tmp_path, "check", name)
    assert (checked.returncode, checked.stdout.splitlines()[0]) == (0, f"{name}: fine")


def test_new_plugins_with_long_names_have_filters_of_their_own() -> None:
    filters = []
    for name in ("lightness_of_pictures_of_a_day", "lightness_of_pictures_of_a_night"):
        code = dict(scaffold.drop_in_files(name, http=False))["__init__.py"]
        filters += re.findall(r'name="(min_\w+)"', code)
    assert len({*filters}) == 2
    assert all(len(each) <= LONGEST_NAME and "__" not in each for each in filters)


@pytest.mark.parametrize("name", ["class", "json", "flask"])
def test_new_drop_in_has_no_name_that_python_uses(tmp_path: Path, name: str) -> None:
    done = run_plugins(tmp_path, "new", name, "--drop-in")
    refused = f"clustr: {name} cannot be the name of a new drop-in: Python uses it\n"
    assert (done.returncode, done.stdout, done.stderr) == (2, "", refused)
    assert not (tmp_path / "plugins" / name).exists()


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("Light", r"Light cannot be the name of a new plugin: it must match \[a-z\]"),
        ("../light", "cannot be the name of a new plugin"),
        ("bright__light", "cannot be the name of a new plugin: .* two underscores in a row"),
        ("light_", "cannot be the name of a new plugin: .* or one at its end"),
        ("analyzers", "cannot be the name of a new plugin: .* analyzers, fields, plugins are kept"),
        ("dimensions", "there is a plugin dimensions already"),
        ("light", "clustr-light cannot be made: File exists"),
    ],
)
def test_new_plugin_takes_nothing_from_others(tmp_path: Path, name: str, reason: str) -> None:
    (tmp_path / "clustr-light").mkdir()
    done = run_plugins(tmp_path, "new", name)
    assert (done.returncode, done.stdout) == (2, "")
    assert re.match(f"clustr: .*{reason}", done.stderr)
    found = {path.name for path in tmp_path.rglob("*")}
    assert found == {"clustr-light", "plugins", "plugins.toml"}
