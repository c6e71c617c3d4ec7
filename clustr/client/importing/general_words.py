"""What is said of each picture: by whoever imports, and by the files beside it."""

from dataclasses import dataclass
from typing import Any

from clustr.client.importing.errors import UnreadableFile
from clustr.client.importing.ledger import Note, Outcome
from clustr.client.importing.sidecars import read_sidecar
from clustr.client.importing.walking import Picture
from clustr.client.importing.words import Words


@dataclass(frozen=True, slots=True)
class GeneralWords:
    """What is said of all pictures of an import.

    Attributes:
        tags: for every picture.
        tags_from_folders: whether the names of the folders in which a picture is are tags of it.
    """

    tags: tuple[str, ...] = ()
    tags_from_folders: bool = False

    def with_sidecars(self, picture: Picture, note: Note) -> dict[str, Any]:
        """Return all that is said of a picture, as the body of a `PATCH` of its upload.

        Args:
            note: is told of sidecars that cannot be read as a whole.
        """
        folders = picture.path.relative_to(picture.root).parts[:-1]
        words = Words(tags=(*self.tags, *(folders if self.tags_from_folders else ())))
        for sidecar in picture.sidecars:
            try:
                words = words.supplemented_by(read_sidecar(sidecar, picture.path.name))
            except UnreadableFile as error:
                note(Outcome.WORDS_LOST, sidecar, str(error))
        if cut := words.too_long():
            note(Outcome.WORDS_LOST, picture.path, cut)
        return words.as_edit()
