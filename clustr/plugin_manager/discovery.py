"""Finding plugins without importing them."""

import filecmp
import hashlib
import importlib.metadata
import importlib.util
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from importlib.machinery import ModuleSpec, PathFinder
from importlib.metadata import Distribution, EntryPoint
from pathlib import Path
from types import ModuleType

ENTRY_POINTS = "clustr.plugins"
FIRST_PARTY = "clustr"


@dataclass(frozen=True, slots=True)
class Candidate:
    """A plugin that can be loaded.

    Attributes:
        distribution: the package that it was installed with; None for a drop-in.
        load: imports its module.
        file: the file of its code, if known.
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

    def problem_with_owner(self) -> str | None:
        """Why this process must not import it; None if it may.

        Another account may have put a drop-in there: a file belongs to neither this account nor
        root, and the group or others may write to its folder.
        """
        if self.distribution or not self.file:
            return None
        package = self.file.parent if self.file.name == "__init__.py" else None
        folders = [package, package.parent] if package else [self.file.parent]
        if not any(folder.stat().st_mode & 0o022 for folder in folders):
            return None
        for each in package.rglob("*") if package else [self.file]:
            if each.stat().st_uid not in (os.getuid(), 0):
                return (
                    f"{each.name} belongs to another account, and others may write to its folder: "
                    "let it belong to the account of the service, or take the right to write from "
                    "them"
                )
        return None


def find_candidates(folder: Path) -> Iterator[Candidate]:
    """Installed plugins, first-party ones first, then drop-ins; each group sorted by name."""
    found = importlib.metadata.entry_points(group=ENTRY_POINTS)
    files: list[Path] = []
    for entry in sorted(found, key=lambda e: (not _is_first_party(e), e.name)):
        file = _module_file(entry.module)
        files += [file] if file else []
        yield Candidate(entry.name, entry.dist, entry.load, file)
    if not folder.is_dir():
        return
    for path in sorted(folder.iterdir()):
        file = path / "__init__.py" if path.is_dir() else path
        if path.name.startswith(("_", ".")) or file.suffix != ".py" or not file.is_file():
            continue
        if not any(_is_same_file(file, installed) for installed in files):
            yield Candidate(path.stem, None, partial(_import_file, file), file)


def _is_first_party(entry: EntryPoint) -> bool:
    return entry.dist is not None and entry.dist.name == FIRST_PARTY


def code_hash(file: Path | None) -> str:
    """A hash of a plugin's code, of 16 hexadecimal digits; empty if the code cannot be read.

    Args:
        file: its file. For one of the name `__init__.py`, all Python files of the package count.
    """
    if file is None:
        return ""
    files = sorted(file.parent.rglob("*.py")) if file.name == "__init__.py" else [file]
    digest = hashlib.sha256()
    try:
        for each in files:
            content = each.read_bytes()
            digest.update(f"{each.relative_to(file.parent)}:{len(content)}:".encode())
            digest.update(content)
    except OSError:  # Loading an unreadable plugin reports that as the reason.
        return ""
    return digest.hexdigest()[:16]


def _module_file(module: str) -> Path | None:
    """The file of a module, without importing its parents as `importlib.util.find_spec` does.

    None if it is unknown; the module need not be importable.
    """
    top, *below = module.split(".")
    try:
        spec: ModuleSpec | None = importlib.util.find_spec(top)
        for name in below:
            spec = PathFinder.find_spec(name, spec.submodule_search_locations) if spec else None
    except (ImportError, ValueError, AttributeError):  # Loading the plugin reports the error.
        return None
    return Path(spec.origin) if spec and spec.has_location and spec.origin else None


def _is_same_file(file: Path, other: Path) -> bool:
    try:
        return filecmp.cmp(file, other, shallow=False)
    except OSError:  # Loading an unreadable plugin reports that as the reason.
        return False


def _import_file(file: Path) -> ModuleType:
    is_package = file.name == "__init__.py"
    name = f"clustr_dropin_{file.parent.name if is_package else file.stem}"
    spec = importlib.util.spec_from_file_location(
        name, file, submodule_search_locations=[str(file.parent)] if is_package else None
    )
    assert spec is not None and spec.loader is not None  # Its name ends in .py.
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module
