"""What is said of a picture, as the service takes it with the file."""

import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from clustr.client.importing.walking import Picture

# What the service accepts.
LONGEST_CAPTION = 1000
LONGEST_TAG = 100
MOST_TAGS = 100
INVISIBLE = ("Cc", "Cs")


@dataclass(frozen=True, slots=True)
class GeneralWords:
    """What is said of all pictures of an import.

    Attributes:
        tags: for every picture.
        tags_from_folders: whether the names of the folders in which a picture is are tags of it.
    """

    tags: tuple[str, ...] = ()
    tags_from_folders: bool = False

    def of(self, picture: Picture) -> dict[str, Any]:
        """Return what is said of a picture, as the body of a `PATCH` of its upload; {}: nothing."""
        tags = [*self.tags]
        if self.tags_from_folders:
            tags += picture.path.relative_to(picture.root).parts[:-1]
        return edit(tags=tags)


def edit(tags: Iterable[str]) -> dict[str, Any]:
    """Make an edit as the service takes it: of empty words nothing is left."""
    cleaned = dict.fromkeys(clean(tag, LONGEST_TAG) for tag in tags)
    cleaned.pop("", None)
    return {"tags": {"add": [*cleaned][:MOST_TAGS]}} if cleaned else {}


def clean(text: str, longest: int) -> str:
    """Clean a text: one line, without control characters; cut where it is too long."""
    line = " ".join(text.split())
    seen = "".join(c for c in line if unicodedata.category(c) not in INVISIBLE)[:longest].strip()
    return "" if all(unicodedata.category(c)[0] == "C" for c in seen) else seen
