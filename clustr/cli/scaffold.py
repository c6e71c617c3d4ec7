"""A new plugin: a complete project, or a drop-in, that passes its tests as it is written."""

from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from string import Template

from clustr import __version__

TEMPLATES = files("clustr.cli") / "templates"


def project(name: str, http: bool) -> Iterator[tuple[str, str]]:
    """The files of a distribution with one plugin: where each is, and what is in it.

    Args:
        http: whether its analyzer calls a service.
    """
    module = f"clustr_{name}"
    kind = "http_analyzer" if http else "analyzer"
    code = f"src/{module}/__init__.py"
    values = {
        **_names(name),
        "module": module,
        "distribution": f"clustr-{name.replace('_', '-')}",
        "version": __version__,
        "import_line": f"import {module} as plugin",
        "install": "pip install -e .",
        "test": "pip install -e .[test]\npytest",
        "code": code,
    }
    yield "pyproject.toml", _filled("pyproject", values)
    yield "README.md", _filled("readme", values)
    yield code, _filled(kind, values)
    yield f"tests/test_{name}.py", _filled(f"test_{kind}", values)
    yield ".github/workflows/test.yml", _filled("workflow", values)


def drop_in(name: str, http: bool) -> Iterator[tuple[str, str]]:
    """The same as a package in the folder of drop-ins, with its test inside."""
    kind = "http_analyzer" if http else "analyzer"
    values = {
        **_names(name),
        "import_line": f"import {name} as plugin",
        "install": f"# this folder, {name}, lies in PLUGINS_FOLDER",
        "test": f"pip install pytest\npytest test_{name}.py",
        "code": "__init__.py",
    }
    yield "__init__.py", _filled(kind, values)
    yield "README.md", _filled("readme", values)
    yield f"test_{name}.py", _filled(f"test_{kind}", values)


def write_files(folder: Path, contents: Iterator[tuple[str, str]]) -> None:
    """Write the files into a new folder.

    Raises:
        FileExistsError: it is there already.
    """
    folder.mkdir(parents=True)
    for place, text in contents:
        file = folder / place
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")


def _names(name: str) -> dict[str, str]:
    words = name.split("_")
    return {
        "name": name,
        "Class": "".join(word.capitalize() for word in words),
        "title": " ".join(words).strip().capitalize(),
    }


def _filled(template: str, values: dict[str, str]) -> str:
    text = (TEMPLATES / f"{template}.txt").read_text(encoding="utf-8")
    return Template(text).substitute(values)
