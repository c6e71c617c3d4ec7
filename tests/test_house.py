"""What keeps the code and its documents in order: imports, names, links and docstrings."""

import ast
import functools
import inspect
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import clustr_plugins
import pytest

from clustr.__main__ import COMMANDS
from clustr.cli.plugins import plugins
from clustr.plugins import hooks
from clustr.settings import declared_settings, read_settings

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
ARCHITECTURE = (ROOT / "docs/architecture.md").read_text()
CONTRACTS = (ROOT / "setup.cfg").read_text()
OF_PLUGINS = ("BLIP_SERVICE_URL", "TIME_ZONE")  # settings that are read by plugins
SOURCES = [p for folder in ("clustr", "plugins") for p in sorted((ROOT / folder).rglob("*.py"))]


@functools.cache
def nodes_of(path: Path) -> list[ast.AST]:
    """All that a file of Python consists of."""
    return list(ast.walk(ast.parse(path.read_text())))


def imports_of(path: Path) -> set[str]:
    """The modules that a file imports, wherever in it."""
    found: set[str] = set()
    for node in nodes_of(path):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add(f"{'.' * node.level}{node.module or ''}")
    return found


def test_import_contracts_hold() -> None:
    command = [Path(sys.executable).parent / "lint-imports", "--no-cache"]
    lint = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert lint.returncode == 0, lint.stdout


def test_first_party_plugins_import_the_public_package_only() -> None:
    folder = Path(clustr_plugins.__file__).parent
    files = list(folder.rglob("*.py"))
    assert {file.stem for file in files} >= {"blip", "dimensions", "dates"}
    for file in files:
        ours = {name for name in imports_of(file) if re.match(r"\.|clustr", name)}
        if file.parent != folder:  # A plugin may be a package of modules.
            ours = {name for name in ours if not re.match(r"\.\w", name)}
        assert ours <= {"clustr.plugins"}, file


def test_numpy_is_not_loaded_before_something_is_analyzed() -> None:
    """It takes 10 MB of each process, and web processes analyze nothing."""
    modules = ["clustr.app", "clustr.worker.rq_worker"]
    modules += [f"clustr_plugins.{m.name}" for m in pkgutil.iter_modules(clustr_plugins.__path__)]
    heavy = "sys.exit(bool({'numpy', 'simsimd'} & {*sys.modules}))"
    program = f"import sys, {', '.join(modules)}; {heavy}"
    subprocess.run([sys.executable, "-c", program], check=True)


def test_nobody_imports_the_top_level_folders() -> None:
    for source in [*SOURCES, *(ROOT / "tests").glob("*.py"), ROOT / "wsgi.py"]:
        roots = {name.split(".")[0] for name in imports_of(source)}
        assert not roots & {"plugins", "config"}, source


def test_every_setting_is_in_the_readme_with_its_default() -> None:
    rows = dict(re.findall(r"^\| `([A-Z_]+)` \| (.*?) \|", README, re.MULTILINE))
    names = {field.name.upper() for field in declared_settings()}
    assert set(rows) - set(OF_PLUGINS) == names
    for field in declared_settings():
        default = field.metadata["default"]
        shown = ", ".join(default) if isinstance(default, tuple) else str(default)
        expected = {"False": "off", "None": "all", "": "none"}.get(shown, shown)
        assert rows[field.name.upper()].strip("`") == expected, field.name


def test_every_setting_is_in_the_example() -> None:
    example = (ROOT / "config/example.env").read_text()
    lines = re.findall(r"^# ([A-Z_]+)=(\S+)", example, re.MULTILINE)
    here = {"PLUGINS_FOLDER": str(ROOT), "PLUGINS_CONFIG": str(ROOT / "setup.cfg")}
    read_settings(dict(lines) | here)
    names = [*(field.name.upper() for field in declared_settings()), *OF_PLUGINS]
    assert sorted(name for name, _ in lines) == sorted(names)


def test_every_hook_is_documented() -> None:
    specified = [name for name in vars(hooks) if name.startswith("clustr_")]
    assert len(specified) >= 7
    for name in specified:
        assert len(getattr(hooks, name).__doc__.splitlines()) > 2, name
        arguments = ", ".join(inspect.signature(getattr(hooks, name)).parameters)
        assert f"`{name}({arguments})`" in README, name
        assert (ROOT / f"docs/plugins/hooks/{name}.md").is_file(), name


def test_every_command_is_documented() -> None:
    for name in COMMANDS:
        assert re.search(rf"`clustr {name}\b", README), name
    for name in plugins.commands:
        assert re.search(rf"`clustr plugins {name}\b", README), name


def test_clustr_has_few_folders_and_each_says_what_is_in_it() -> None:
    entries = [p for p in (ROOT / "clustr").iterdir() if p.suffix == ".py" or p.is_dir()]
    assert len([p for p in entries if p.name != "__pycache__"]) <= 24
    for package in (ROOT / "clustr").rglob("__init__.py"):
        if package.parent != ROOT / "clustr":
            docstring = ast.get_docstring(ast.parse(package.read_text())) or ""
            assert len(re.findall(r"[.:](?:\s|$)", docstring)) >= 2, package


def imports_of_packages() -> dict[str, set[str]]:
    """The packages and modules at the top of `clustr` that each of them imports."""
    root = ROOT / "clustr"
    files: dict[str, list[Path]] = {}
    for file in root.rglob("*.py"):
        files.setdefault(file.relative_to(root).parts[0].removesuffix(".py"), []).append(file)
    del files["__init__"]
    found: dict[str, set[str]] = {package: set() for package in files}
    for package in files:
        for node in (node for file in files[package] for node in nodes_of(file)):
            if isinstance(node, ast.ImportFrom) and re.match(r"clustr\b", node.module or ""):
                inside = (node.module or "").split(".")[1:2]
                found[package] |= set(inside or [alias.name for alias in node.names])
        found[package] = found[package] & set(files) - {package}
    return found


def reached(package: str, imports: dict[str, set[str]]) -> set[str]:
    """What a package imports, directly or by way of others."""
    return imports[package].union(*(reached(other, imports) for other in imports[package]))


def test_the_diagram_of_the_packages_is_that_of_the_imports() -> None:
    """An arrow is left out when what it leads to is reached by way of another package as well."""
    imports = imports_of_packages()
    lines = ["graph TD"]
    for package, others in sorted(imports.items()):
        indirect = set().union(*(reached(other, imports) for other in others))
        lines += [f"    {package} --> {other}" for other in sorted(others - indirect)]
    [diagram] = re.findall(r"```mermaid\n(.*?)\n```", ARCHITECTURE, re.DOTALL)
    assert diagram.splitlines() == lines
    assert all(f"`{package}" in ARCHITECTURE for package in set(imports) - {"__main__"})


def test_the_way_of_an_upload_leads_through_what_is_there() -> None:
    names = re.findall(r"`(clustr\.[\w.]+)`", ARCHITECTURE)
    assert len(names) > 10
    for name in names:
        assert pkgutil.resolve_name(name), name


def test_contributing_names_places_that_are_there() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text()
    places = re.findall(r"`((?:clustr|plugins|tests|docs|bench|config)/[\w./]*)`", text)
    assert len(places) > 10
    assert not [place for place in places if not (ROOT / place).exists()]


def test_links_of_the_readme_lead_somewhere() -> None:
    targets = re.findall(r"\]\((?!http)([^)#]+)", README)
    assert len(targets) >= 8
    assert not [target for target in targets if not (ROOT / target).exists()]


def test_every_test_that_keeps_a_promise_exists() -> None:
    pages = [(ROOT / "docs" / name).read_text() for name in ("reliability.md", "security.md")]
    named = set(re.findall(r"`(test_\w+)`", "".join(pages)))
    text = "".join(path.read_text() for path in (ROOT / "tests").glob("test_*.py"))
    assert len(named) > 80
    assert not {name for name in named if f"def {name}(" not in text}


REGISTRIES = re.compile(
    r"\b(?:deb|security|ftp|snapshot)\.debian\.org|\b(?:archive|ports)\.ubuntu\.com"
    r"|\b(?:pypi|files\.pythonhosted)\.org|\bregistry\.(?:npmjs|yarnpkg)\b"
    r"|\b(?:ghcr|docker|quay)\.io|\bcrates\.io|\bproxy\.golang\.org|\brubygems\.org"
)


def test_nothing_names_the_host_of_a_package_registry() -> None:
    """Where packages come from is for the tools and their configuration to say."""
    if not (ROOT / ".git").exists():
        pytest.skip("this is no clone, but a copy")
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True)
    files = [ROOT / name.decode() for name in listed.stdout.split(b"\0") if name]
    texts = {file: file.read_bytes().decode(errors="replace") for file in files if file.is_file()}
    assert len(texts) > 300
    named = {str(file): REGISTRIES.findall(text) for file, text in texts.items()}
    assert not {file: hosts for file, hosts in named.items() if hosts}


def test_every_public_thing_has_a_docstring() -> None:
    missing = []
    for source in SOURCES:
        for node in nodes_of(source):
            if isinstance(node, ast.ClassDef | ast.Module) and not ast.get_docstring(node):
                public = isinstance(node, ast.Module) or not node.name.startswith("_")
                inner = isinstance(node, ast.ClassDef) and node.name in ("Meta",)
                if public and not inner:
                    missing.append(f"{source.relative_to(ROOT)}: {getattr(node, 'name', 'module')}")
    assert not missing


def test_the_example_in_the_readme_works(tmp_path: Path) -> None:
    """The analyzer in ten lines is loaded and named as the README says."""
    (code,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    (tmp_path / "brightness.py").write_text(code)
    script = (
        "import sys; from pathlib import Path; from clustr.plugin_manager import load_plugins\n"
        "manager = load_plugins(Path(sys.argv[1]), ('brightness',), (), Path('none'), {})\n"
        "print(*manager.analyzers)"
    )
    command = [sys.executable, "-c", script, str(tmp_path)]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert printed.split() == ["brightness"]
