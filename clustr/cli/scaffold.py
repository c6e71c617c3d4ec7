"""Writes a new plugin: a complete project, or a drop-in, which passes its own tests."""

from collections.abc import Iterator
from hashlib import sha256
from importlib.resources import files
from pathlib import Path
from string import Template

from clustr import __version__

TEMPLATES = files("clustr.cli") / "templates"
LONGEST_IN_FILTER = 23  # letters of the name of a plugin in that of its filter


def project_files(name: str, http: bool) -> Iterator[tuple[str, str]]:
    """Yield the relative path and the content of each file of a project with one plugin.

    Args:
        http: whether its analyzer calls a service.
    """
    module = f"clustr_{name}"
    kind = "http_analyzer" if http else "analyzer"
    code = f"src/{module}/__init__.py"
    values = {
        **_name_values(name),
        "module": module,
        "distribution": f"clustr-{name.replace('_', '-')}",
        "version": __version__,
        "import_line": f"import {module} as plugin",
        "install": "pip install -e .",
        "test": "pip install -e .[test]\npytest",
        "app": f'"{name}"',
        "path_line": "",
        "code": code,
        "needs": _needs(http),
    }
    yield "pyproject.toml", _fill_template("pyproject", values)
    yield "README.md", _fill_template("readme", values)
    yield code, _fill_template(kind, values)
    yield f"tests/test_{name}.py", _fill_template(f"test_{kind}", values)
    yield ".github/workflows/test.yml", _fill_template("workflow", values)


def drop_in_files(name: str, http: bool) -> Iterator[tuple[str, str]]:
    """Yield the same for a package in PLUGINS_FOLDER, with its test inside."""
    kind = "http_analyzer" if http else "analyzer"
    values = {
        **_name_values(name),
        "import_line": f"import {name} as plugin",
        "install": f"# this folder, {name}, lies in PLUGINS_FOLDER",
        "test": f"pip install pytest\npytest test_{name}.py",
        "code": "__init__.py",
        "app": f'"{name}", PLUGINS_FOLDER=str(Path(__file__).parents[1])',
        "path_line": "from pathlib import Path\n",
        "needs": _needs(http),
    }
    yield "__init__.py", _fill_template(kind, values)
    yield "README.md", _fill_template("readme", values)
    yield f"test_{name}.py", _fill_template(f"test_{kind}", values)


def _needs(http: bool) -> str:
    """What has to run for `clustr plugins run`."""
    return "no server but its service is needed" if http else "no server is needed"


def write_files(folder: Path, contents: Iterator[tuple[str, str]]) -> None:
    """Write the files into a new folder.

    Raises:
        FileExistsError: it is there already.
    """
    folder.mkdir(parents=True)
    for path, text in contents:
        file = folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")


def _name_values(name: str) -> dict[str, str]:
    parts = name.split("_")
    return {
        "name": name,
        "Class": "".join(word.capitalize() for word in parts),
        "title": " ".join(parts).strip().capitalize(),
        "filter": _filter_name(name),
    }


def _filter_name(name: str) -> str:
    """A name of 32 characters at most, without two underscores in a row; no plugin has the same."""
    if len(name) > LONGEST_IN_FILTER:
        digits = sha256(name.encode()).hexdigest()[:4]
        name = f"{name[: LONGEST_IN_FILTER - 5].rstrip('_')}_{digits}"
    return f"min_{name}_mean"


def _fill_template(template: str, values: dict[str, str]) -> str:
    text = (TEMPLATES / f"{template}.txt").read_text(encoding="utf-8")
    return Template(text).substitute(values)
