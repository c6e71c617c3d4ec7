"""What an installed plugin says it needs, beside what is installed."""

import importlib.metadata
from collections.abc import Iterator
from importlib.metadata import Distribution

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

CLUSTR = "clustr"
PINS = ("==", "===")


def unmet_requirements(distribution: Distribution) -> Iterator[str]:
    """Each requirement that what is installed does not meet, in one sentence."""
    for requirement in _requirements(distribution):
        installed = _version(requirement.name)
        if installed is None:
            yield f"it requires {requirement}, which is not installed"
        elif not requirement.specifier.contains(installed, prereleases=True):
            yield f"it requires {requirement}, but {installed} is installed"


def pinned_requirements(distribution: Distribution) -> Iterator[str]:
    """Each requirement that nails down a package that Clustr needs too, in one sentence."""
    ours = {
        canonicalize_name(one.name)
        for one in _requirements(importlib.metadata.distribution(CLUSTR))
    }
    for requirement in _requirements(distribution):
        exactly = any(one.operator in PINS for one in requirement.specifier)
        if exactly and canonicalize_name(requirement.name) in {*ours, CLUSTR}:
            yield f"it requires {requirement}, so that Clustr cannot be given a newer one"


def _requirements(distribution: Distribution) -> Iterator[Requirement]:
    """What it requires here and without any of its extras."""
    for line in distribution.requires or ():
        try:
            requirement = Requirement(line)
        except InvalidRequirement:
            continue
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
            yield requirement


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None
