"""Compares the requirements of an installed plugin with the installed packages."""

import importlib.metadata
from collections.abc import Iterator
from importlib.metadata import Distribution

from packaging.requirements import InvalidRequirement, Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

CLUSTR = "clustr"
PINS = ("==", "===")


def unmet_requirements(distribution: Distribution) -> Iterator[str]:
    """Yield a sentence for each requirement that the installed packages do not meet."""
    for requirement in _requirements(distribution):
        installed = _installed_version(requirement.name)
        if installed is None:
            yield f"it requires {requirement}, which is not installed"
        elif not requirement.specifier.contains(installed, prereleases=True):
            yield f"it requires {requirement}, but {installed} is installed"


def pinned_requirements(distribution: Distribution) -> Iterator[str]:
    """Yield a sentence for each requirement that pins Clustr or a package that Clustr needs."""
    clustr_requirements = {
        canonicalize_name(one.name)
        for one in _requirements(importlib.metadata.distribution(CLUSTR))
    }
    for requirement in _requirements(distribution):
        is_pinned = any(one.operator in PINS for one in requirement.specifier)
        if is_pinned and canonicalize_name(requirement.name) in {*clustr_requirements, CLUSTR}:
            yield f"it requires {requirement}, so that Clustr cannot be given a newer one"


def clashing_requirements(distribution: Distribution) -> Iterator[str]:
    """Yield a sentence for each requirement that no version meets together with one of Clustr's.

    What is installed meets one of the two, so that an update can take it away.
    """
    ours = {
        canonicalize_name(requirement.name): requirement
        for requirement in _requirements(importlib.metadata.distribution(CLUSTR))
    }
    for requirement in _requirements(distribution):
        own = ours.get(canonicalize_name(requirement.name))
        if own is not None and not have_common_version(requirement.specifier, own.specifier):
            yield f"it requires {requirement}, and Clustr requires {own}: no version is both"


def have_common_version(one: SpecifierSet, other: SpecifierSet) -> bool:
    """Whether a version fits both: of those that they name, or one just above them."""
    both = one & other
    named = [specifier.version.removesuffix(".*") for specifier in both]
    tried = [version for name in named for version in (name, f"{name}.0.1", f"{name}.1")]
    return not named or any(both.contains(version, prereleases=True) for version in tried)


def _requirements(distribution: Distribution) -> Iterator[Requirement]:
    """Yield the requirements that apply to this environment, without those of extras."""
    for line in distribution.requires or ():
        try:
            requirement = Requirement(line)
        except InvalidRequirement:
            continue
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
            yield requirement


def _installed_version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None
