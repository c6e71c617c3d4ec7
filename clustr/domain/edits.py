"""What a person writes about an upload."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True)
class TagEdit:
    """A person's edit of the tags: it replaces all of them, or adds some and removes others.

    A tag that differs from an existing one only in case is not added: the spelling stays.

    Attributes:
        set: the new tags, which replace all others; None to add and remove.
    """

    set: tuple[str, ...] | None = None
    add: tuple[str, ...] = ()
    remove: tuple[str, ...] = ()


# New values for some of `caption`, `original_name`, `tags` and `taken_at`; None for what was there
# before any edit.
Edit = Mapping[str, str | datetime | TagEdit | None]
NO_EDIT: Edit = {}
