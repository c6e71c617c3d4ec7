"""The take-over of the database and the folder of Clustr's predecessor.

It works on the database and the storage of this host and not over HTTP, because it writes what no
client may say: when a picture was uploaded, and what an analyzer has found.

Each upload is stored by one insert, with its old time and words, under an `Idempotency-Key` made of
its old id. So a take-over that was killed before it noted the old id finds the upload again.
"""

import os
import stat
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import partial
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from clustr.database import NotTaken, OldIds, Predecessor, PredecessorUpload
from clustr.domain.models import Analysis, NewUpload, State, status_of
from clustr.plugins.captions import clean_caption, clean_tags
from clustr.services.intake import Intake, IntakeOptions, ReceivedFile

REQUEST_ID = "import-from-predecessor"
CAPTIONER = "blip"
# Below that of every analyzer, so that `stale` selects what a newer captioner could do better.
VERSION = 0
PROVENANCE = {
    "plugin": "predecessor",
    "plugin_version": None,
    "model": {"name": "captioner of the predecessor"},
    "config_hash": "",
}
CHUNK_BYTES = 1 << 20


class Kind(StrEnum):
    """What can come of an upload of the predecessor."""

    TAKEN = "taken"
    PRESENT = "present"
    NOT_TAKEN = "not taken"
    FACES_LOST = "faces lost"


@dataclass(frozen=True, slots=True)
class Result:
    """What came of an upload of the predecessor.

    Attributes:
        name: its old id; the key of its document when it has none.
        reason: why it, or something of it, was not taken.
    """

    kind: Kind
    name: str
    reason: str = ""
    size_bytes: int = 0


class TakeOver:
    """Takes over what the predecessor has."""

    def __init__(self, predecessor: Predecessor, intake: Intake, old_ids: OldIds):
        self._predecessor = predecessor
        self._intake = intake
        self._old_ids = old_ids

    def run(self, folder: Path) -> Iterator[Result]:
        """Take over one upload after the other.

        Args:
            folder: where the predecessor stored its files; nothing beside it is read.

        Raises:
            StartUpError: there are no uploads where the predecessor is said to have them.
            DatabaseUnavailable, StorageFull: what was taken until then stays.
        """
        for key, name in self._predecessor.list_keys():
            try:
                before = self._predecessor.read(key)
                if self._old_ids.has(name):
                    yield Result(Kind.PRESENT, name)
                    continue
                yield self._take(before, folder)
            except NotTaken as error:
                yield Result(Kind.NOT_TAKEN, name, str(error))
                continue
            if before.has_faces:
                yield Result(Kind.FACES_LOST, name, "Its faces are not taken over.")

    def _take(self, before: PredecessorUpload, folder: Path) -> Result:
        options = IntakeOptions(
            key=f"\npredecessor {before.id}",  # No client can send a line end in its key.
            amend=partial(as_it_was, before),
        )
        with open_below(folder, before) as content, self._intake.receiving() as session:
            file = session.open()
            while chunk := content.read(CHUNK_BYTES):
                file.write(chunk)
            received = [ReceivedFile(before.original_name, file)]
            accepted, refused = self._intake.accept(received, REQUEST_ID, options)
        if refused:
            error = refused[0].error
            raise NotTaken(f"{error.code}: {error}")
        upload = accepted[0].upload
        self._old_ids.add(before.id, before.filename, upload.id)
        return Result(Kind.TAKEN, before.id, size_bytes=upload.size)


def as_it_was(before: PredecessorUpload, upload: NewUpload) -> NewUpload:
    """Return a new upload with the time and the words that it had.

    Without words it is left to the captioner, as every new upload is.
    """
    upload = replace(upload, upload_time=before.upload_time)
    caption, tags = clean_caption(before.caption, cut_opening=False), clean_tags(before.tags)
    if not caption and not tags:
        return upload
    result = {"caption": caption, "tags": tags}
    captioned = Analysis(
        CAPTIONER, VERSION, State.SUCCEEDED, result=result, provenance={**PROVENANCE}
    )
    others = [released(analysis) for analysis in upload.analyses if analysis.name != CAPTIONER]
    analyses = (captioned, *others)
    return replace(
        upload,
        analyses=analyses,
        status=status_of([analysis.state for analysis in analyses]),
        caption=caption or None,
        tags=tuple(tags),
    )


def released(analysis: Analysis) -> Analysis:
    """Return an analysis that does not wait for the captioner alone any more."""
    if analysis.state is State.WAITING and analysis.requires == (CAPTIONER,):
        return replace(analysis, state=State.QUEUED)
    return analysis


def open_below(folder: Path, before: PredecessorUpload) -> BinaryIO:
    """Open the file of an upload.

    It lies under its name in the folder, or under one of the ends of its path: that may be of
    another machine, or of a container.

    Raises:
        NotTaken: there is none, it cannot be read, or its name leads out of the folder.
    """
    names = [PurePosixPath(before.filename), PurePosixPath(before.file_path)]
    if any(".." in name.parts for name in names):
        raise NotTaken("The name of its file has .. in it, which may lead out of the folder.")
    tried = [names[0].parts]
    tried += [names[1].parts[-length:] for length in range(1, len(names[1].parts) + 1)]
    for parts in tried:
        if parts and not parts[0].startswith("/"):
            try:
                return open_file(folder, parts)
            except (FileNotFoundError, NotADirectoryError):
                continue
            except (OSError, ValueError) as error:
                raise NotTaken(f"Its file {'/'.join(parts)} cannot be read: {error}.") from error
    raise NotTaken(f"There is no file {before.filename} in the folder.")


def open_file(folder: Path, parts: tuple[str, ...]) -> BinaryIO:
    """Open a file in a folder; no link on the way to it is followed.

    Raises:
        OSError: there is no file, a link instead, or it cannot be read.
        ValueError: its name has a null character.
    """
    *folders, name = parts
    with ExitStack() as opened:
        within = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        opened.callback(os.close, within)
        for inner in folders:
            flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
            within = os.open(inner, flags, dir_fd=within)
            opened.callback(os.close, within)
        # A named pipe would keep the opening waiting without a writer.
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK
        file = os.fdopen(os.open(name, flags, dir_fd=within), "rb")
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise OSError("it is no regular file")
    return file
