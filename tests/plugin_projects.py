"""Plugins that are projects of their own, as they are where somebody has installed them."""

import tomllib
from pathlib import Path


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
