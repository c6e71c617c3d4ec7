"""Plugins that are projects of their own, as they are where somebody has installed them."""

import tomllib
from pathlib import Path

# What others have installed beside Clustr for its own tests is of no use to those of a plugin, and
# importing it takes most of the time of a run.
ALONE = "-p no:anyio -p no:hypothesispytest -p no:schemathesis -p no:xdist -p no:xdist.looponfail"
PYTEST = ["-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "error", *ALONE.split()]


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
