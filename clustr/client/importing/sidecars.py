"""Which files beside a picture say something of it, and what."""

from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path

from clustr.client.importing.errors import UnreadableFile
from clustr.client.importing.takeout import read_takeout, takeout_names
from clustr.client.importing.words import Words
from clustr.client.importing.xmp import read_xmp

XMP, JSON = ".xmp", ".json"
# Programs keep the history of an editing in XMP, too.
MAX_BYTES = 4 * 1024 * 1024

# The names of a folder's files that may be sidecars, by the same in lower case.
SidecarNames = Mapping[str, str]


def sidecar_names(names: Iterable[str]) -> SidecarNames:
    """Pick the names of files that may be sidecars."""
    return {name.lower(): name for name in names if name.lower().endswith((XMP, JSON))}


def sidecars_of(picture: str, names: SidecarNames) -> Iterator[str]:
    """The sidecars of a picture: its XMP, which somebody edits, before what Takeout says."""
    if not names:  # Most folders have none, and Takeout has many ways to name one.
        return
    stem = picture.rpartition(".")[0]
    for candidates in ((picture + XMP, stem + XMP), takeout_names(picture)):
        found = (names.get(candidate.lower()) for candidate in candidates)
        yield from islice(filter(None, found), 1)


def read_sidecar(path: Path, picture: str) -> Words:
    """Read what a sidecar says of a picture.

    Raises:
        UnreadableFile: it cannot be read; the message says why.
    """
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise UnreadableFile(error.strerror or str(error)) from error
    if len(content) > MAX_BYTES:
        raise UnreadableFile(f"it has more than {MAX_BYTES} bytes")
    if path.suffix.lower() == XMP:
        return read_xmp(content)
    return read_takeout(content, picture)
