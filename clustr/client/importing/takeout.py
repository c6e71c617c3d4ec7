"""Words from the JSON that Google Takeout has beside each picture, and how those files are named.

The name is that of the picture with `.supplemental-metadata` (formerly nothing), cut after 46
characters, and `.json`. Of two pictures with the same name the second is `name(1).jpg`, and its
JSON has the `(1)` before `.json`. (Observed; Google documents none of it.)
"""

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

from clustr.client.importing.errors import UnreadableFile
from clustr.client.importing.words import Words
from clustr.domain import json_input

LONGEST_NAME = 46
SUFFIX = ".supplemental-metadata"
NUMBERED = re.compile(r"(.+)(\([0-9]+\))(\.[^.]*)", re.DOTALL)
EDITED = re.compile(r"(.+)-edited((?:\([0-9]+\))?\.[^.]*)", re.DOTALL)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# Of a picture without any date Takeout says this.
NO_TIME = 0


def takeout_names(picture: str) -> Iterator[str]:
    """The names that the JSON of a picture can have, the likeliest first."""
    yield from _names(picture, "")
    if numbered := NUMBERED.fullmatch(picture):
        stem, number, extension = numbered.groups()
        yield from _names(stem + extension, number)
    if edited := EDITED.fullmatch(picture):  # It has none of its own.
        yield from takeout_names("".join(edited.groups()))


def _names(picture: str, number: str) -> Iterator[str]:
    yield f"{picture[:LONGEST_NAME]}{number}.json"
    full = picture + SUFFIX
    for length in range(len(full), len(picture), -1):
        yield f"{full[:length]}{number}.json"


def read_takeout(content: bytes, picture: str) -> Words:
    """Read description, time and people, who become tags.

    Args:
        picture: the name of the picture. Where its JSON has a cut name, others may have the same.

    Returns:
        nothing of a JSON that is not of this picture.

    Raises:
        UnreadableFile: it is no JSON.
    """
    try:
        said = json_input.loads(content, max_bytes=len(content))
    except json_input.InvalidJSON as error:
        raise UnreadableFile(str(error)) from error
    if not isinstance(said, dict) or not _is_about(said.get("title"), picture):
        return Words()
    description, people = said.get("description"), said.get("people")
    return Words(
        caption=description if isinstance(description, str) else "",
        tags=tuple(_names_of(people)) if isinstance(people, list) else (),
        taken_at=_time(said.get("photoTakenTime")),
    )


def _is_about(title: Any, picture: str) -> bool:
    """Whether a JSON with this title is of this picture; a name that is whole says enough."""
    if len(picture) <= LONGEST_NAME or not isinstance(title, str):
        return True
    stem = picture.rpartition(".")[0]
    numbered = NUMBERED.fullmatch(picture)
    return title.startswith((stem, numbered[1])) if numbered else title.startswith(stem)


def _names_of(people: list[Any]) -> Iterator[str]:
    for person in people:
        if isinstance(person, dict) and isinstance(name := person.get("name"), str):
            yield name


def _time(said: Any) -> str:
    """A time in ISO 8601 from the seconds since 1970; empty when there is none."""
    try:
        seconds = int(said["timestamp"])
        return "" if seconds == NO_TIME else (EPOCH + timedelta(seconds=seconds)).isoformat()
    except (LookupError, TypeError, ValueError, OverflowError):
        return ""
