"""What is said of a picture, as the service takes it with the file."""

import unicodedata
from dataclasses import dataclass
from typing import Any

# What the service accepts.
LONGEST_CAPTION = 1000
LONGEST_TAG = 100
MOST_TAGS = 100
INVISIBLE = ("Cc", "Cs")


@dataclass(frozen=True, slots=True)
class Words:
    """What is said of a picture; what is empty is not said.

    Attributes:
        taken_at: when it was taken, in ISO 8601.
    """

    caption: str = ""
    tags: tuple[str, ...] = ()
    taken_at: str = ""

    def supplemented_by(self, other: "Words") -> "Words":
        """Return these with what the other says besides: its tags, and what is empty here."""
        return Words(
            self.caption or other.caption,
            (*self.tags, *other.tags),
            self.taken_at or other.taken_at,
        )

    def as_edit(self) -> dict[str, Any]:
        """Return them as the body of a `PATCH`, within what the service accepts; {}: nothing."""
        edit: dict[str, Any] = {}
        if caption := clean(self.caption, LONGEST_CAPTION):
            edit["caption"] = caption
        tags = dict.fromkeys(clean(tag, LONGEST_TAG) for tag in self.tags)
        tags.pop("", None)
        if tags:
            edit["tags"] = {"add": [*tags][:MOST_TAGS]}
        if self.taken_at:
            edit["taken_at"] = self.taken_at
        return edit

    def too_long(self) -> str:
        """Say what of them the service does not accept; empty when it accepts all."""
        cut = []
        if len(self.caption) > LONGEST_CAPTION:
            cut.append(f"the caption after {LONGEST_CAPTION} characters")
        if any(len(tag) > LONGEST_TAG for tag in self.tags):
            cut.append(f"tags after {LONGEST_TAG} characters")
        if len({*self.tags}) > MOST_TAGS:
            cut.append(f"the tags after {MOST_TAGS} of them")
        return (
            f"it has more words than the service takes; cut were {' and '.join(cut)}" if cut else ""
        )


def clean(text: str, longest: int) -> str:
    """Clean a text: one line, without control characters; cut where it is too long."""
    line = " ".join(text.split())
    seen = "".join(c for c in line if unicodedata.category(c) not in INVISIBLE)[:longest].strip()
    return "" if all(unicodedata.category(c)[0] in "CZ" for c in seen) else seen
