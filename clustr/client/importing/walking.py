"""Walks through folders and finds the pictures in them, one folder in memory at a time."""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from clustr.client.importing.ledger import Note, Outcome
from clustr.client.importing.sidecars import SidecarNames, sidecar_names, sidecars_of

# What network storage, Windows and macOS keep beside pictures; their names in lower case.
SYSTEM_FOLDERS = frozenset(
    {
        *("@eadir", "#recycle", "#snapshot", "@recycle", "@recently-snapshot"),
        *(".thumbnails", "thumbnails.db", "$recycle.bin", "system volume information"),
        *("__macosx", "lost+found"),
    }
)
# How files begin that may be pictures whatever they are called: JPEG, PNG, GIF, TIFF (raw files,
# too), WebP, and the formats in the container of ISO/IEC 14496-12 that pictures are kept in.
BEGINNINGS = re.compile(
    rb"\xff\xd8\xff|\x89PNG\r\n\x1a\n|GIF8|II\*\0|MM\0\*|RIFF.{4}WEBP"
    rb"|.{4}ftyp(?:hei[cx]|hev[cx]|mif1|msf1|avi[fs])",
    re.DOTALL,
)
BEGINNING_BYTES = 16


@dataclass(frozen=True, slots=True)
class Picture:
    """A file that may be a picture.

    Attributes:
        root: the folder that is imported, in which it was found.
        modified_ns: when it was last changed, in nanoseconds since 1970.
        sidecars: files beside it that say something of it.
    """

    path: Path
    root: Path
    size_bytes: int
    modified_ns: int
    sidecars: tuple[Path, ...]


def walk(root: Path, extensions: frozenset[str], note: Note) -> Iterator[Picture]:
    """Walk through a folder and all folders in it, in the order of their names.

    No link is followed: what one inside leads to is found anyway.

    Args:
        extensions: of the formats that are accepted, in lower case and without the dot. A file with
            another one is looked into.
        note: is told what is left out, but for links that lead to what is inside.
    """
    inside = root.resolve()
    pending = [root]
    while pending:
        folder = pending.pop()
        try:
            with os.scandir(folder) as entries:
                found = sorted(entries, key=lambda entry: entry.name)
        except OSError as error:
            note(Outcome.UNREADABLE, folder, error.strerror or str(error))
            continue
        folders: list[Path] = []
        beside = sidecar_names(e.name for e in found if e.is_file(follow_symlinks=False))
        unused = set(beside.values())
        for entry in found:
            path = folder / entry.name
            if entry.name.lower() in SYSTEM_FOLDERS and entry.is_dir(follow_symlinks=False):
                note(Outcome.SYSTEM_FOLDER, path, "")
            elif entry.name.startswith("."):
                note(Outcome.HIDDEN, path, "")
            elif entry.is_symlink():
                if not Path(os.path.realpath(path)).is_relative_to(inside):
                    note(Outcome.LINK_OUT, path, "")
            elif entry.is_dir(follow_symlinks=False):
                folders.append(path)
            elif entry.name.lower() not in beside:
                for picture in _pictures(entry, path, root, extensions, beside, note):
                    unused.difference_update(sidecar.name for sidecar in picture.sidecars)
                    yield picture
        for name in sorted(unused):
            note(Outcome.UNUSED_SIDECAR, folder / name, "")
        pending += reversed(folders)


def _pictures(
    entry: os.DirEntry[str],
    path: Path,
    root: Path,
    extensions: frozenset[str],
    beside: SidecarNames,
    note: Note,
) -> Iterator[Picture]:
    """Yield a file if it may be a picture."""
    try:
        if entry.is_file() and _may_be_picture(path, extensions):
            status = entry.stat()
            sidecars = tuple(path.with_name(name) for name in sidecars_of(entry.name, beside))
            yield Picture(path, root, status.st_size, status.st_mtime_ns, sidecars)
        else:
            note(Outcome.OTHER, path, "")
    except OSError as error:
        note(Outcome.UNREADABLE, path, error.strerror or str(error))


def _may_be_picture(path: Path, extensions: frozenset[str]) -> bool:
    if path.suffix[1:].lower() in extensions:
        return True
    with path.open("rb") as file:
        return BEGINNINGS.match(file.read(BEGINNING_BYTES)) is not None
