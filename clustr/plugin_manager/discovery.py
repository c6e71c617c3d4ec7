"""Finding plugins, without importing anything of them."""

import filecmp
import importlib.metadata
import importlib.util
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.machinery import ModuleSpec, PathFinder
from importlib.metadata import Distribution
from pathlib import Path
from types import ModuleType

ENTRY_POINTS = "clustr.plugins"
FIRST_PARTY = "clustr"


@dataclass(frozen=True, slots=True)
class Candidate:
    """A place where a plugin is.

    Attributes:
        distribution: what was installed, when it was.
        load: imports it.
        file: its code, when it is known where that is.
    """

    name: str
    distribution: Distribution | None
    load: Callable[[], ModuleType]
    file: Path | None

    @property
    def version(self) -> str | None:
        return self.distribution.version if self.distribution else None

    @property
    def source(self) -> str:
        return "package" if self.distribution else "folder"


def find_candidates(folder: Path) -> Iterator[Candidate]:
    """Installed plugins, the first-party ones before others, then drop-ins, each by name."""
    found = importlib.metadata.entry_points(group=ENTRY_POINTS)
    files: list[Path] = []
    for entry in sorted(found, key=lambda e: (e.dist.name != FIRST_PARTY, e.name)):
        file = _file_of(entry.module)
        files += [file] if file else []
        yield Candidate(entry.name, entry.dist, entry.load, file)
    if not folder.is_dir():
        return
    for path in sorted(folder.iterdir()):
        file = path / "__init__.py" if path.is_dir() else path
        if path.name.startswith(("_", ".")) or file.suffix != ".py" or not file.is_file():
            continue
        if not any(_same(file, installed) for installed in files):
            yield Candidate(path.stem, None, lambda f=file: _import_file(f), file)


def problem_with_owner(file: Path) -> str | None:
    """Why a drop-in must not be run as this process: somebody else may have put it there.

    It belongs to another account, and is where others than the owner of the folder may write.
    """
    package = file.parent if file.name == "__init__.py" else None
    folders = [package, package.parent] if package else [file.parent]
    if not any(folder.stat().st_mode & 0o022 for folder in folders):
        return None
    for each in package.rglob("*") if package else [file]:
        if each.stat().st_uid not in (os.getuid(), 0):
            return (
                f"{each.name} belongs to another account, and others may write to its folder: "
                "let it belong to the account of the service, or take the right to write from them"
            )
    return None


def _file_of(module: str) -> Path | None:
    """The file of a module that may not be importable.

    Its parents are not imported for it, as `importlib.util.find_spec` would do.
    """
    top, *below = module.split(".")
    try:
        spec: ModuleSpec | None = importlib.util.find_spec(top)
        for name in below:
            spec = PathFinder.find_spec(name, spec.submodule_search_locations) if spec else None
    except (ImportError, ValueError, AttributeError):  # What is wrong is said when it is loaded.
        return None
    return Path(spec.origin) if spec and spec.has_location and spec.origin else None


def _same(file: Path, other: Path) -> bool:
    try:
        return filecmp.cmp(file, other, shallow=False)
    except OSError:  # One that cannot be read is listed with that as the reason.
        return False


def _import_file(file: Path) -> ModuleType:
    is_package = file.name == "__init__.py"
    name = f"clustr_dropin_{file.parent.name if is_package else file.stem}"
    spec = importlib.util.spec_from_file_location(
        name, file, submodule_search_locations=[str(file.parent)] if is_package else None
    )
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module
