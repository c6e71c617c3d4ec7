"""What captioners have in common: a setting, the shape of results, and what is kept of their words.

A caption is one line, and tags are those worth having, without what is no text.
"""

import re
import unicodedata
from collections.abc import Iterable

from marshmallow import Schema, fields

from clustr.plugins.http import HttpConfig

LONGEST_CAPTION = 1000
MOST_TAGS = 100
LONGEST_TAG = 100

# What embeds, overrides or isolates a direction (UAX #9), and so turns the text around it.
TURNS = "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"

# How models begin a caption without saying anything of the picture.
OPENING = re.compile(
    r"(?:in )?(?:this|the|an?|these) (?:image|picture|photo|photograph)s?,? "
    r"(?:(?:that |which )?(?:shows?|depicts?|features?|displays?|captures?|portrays?|presents?)"
    r"|showing|depicting|featuring|of|we (?:can )?see|you can see|there (?:is|are)|is of)[ :]+"
    r"|this is (?:an?|the) (?:image|picture|photo|photograph) (?:of|showing) "
    r"|here is (?:an?|the) (?:image|picture|photo|photograph) (?:of|showing) "
    r"|(?:caption|description): ",
    re.IGNORECASE,
)


class CaptionConfig(HttpConfig):
    """What can be configured of a plugin that asks a captioner; to be subclassed for more."""

    cut_opening = fields.Boolean(
        load_default=True,
        metadata={"description": "Whether to cut what says nothing, such as: This image shows"},
    )


class CaptionResult(Schema):
    """What is stored of a captioner's answer."""

    caption = fields.String(
        required=True, metadata={"description": "One line that says what is to be seen"}
    )
    tags = fields.List(
        fields.String(), required=True, metadata={"description": "Words for what is to be seen"}
    )


def clean_text(text: str, length: int) -> str:
    """One line of at most `length` characters that are text.

    That is without control characters, halves, and what turns the text around it; direction marks
    and joiners stay.
    """
    kept = (c for c in text if c.isspace() or _is_text(c))
    return " ".join("".join(kept).split())[:length].rstrip()


def clean_caption(text: str, cut_opening: bool = True) -> str:
    """A caption of one line.

    Args:
        cut_opening: whether to cut what says nothing, such as "This image shows".
    """
    caption = clean_text(text, LONGEST_CAPTION)
    opening = OPENING.match(caption) if cut_opening else None
    rest = caption[opening.end() :] if opening else ""
    if not rest:
        return caption
    return rest[0].upper() + rest[1:] if caption[0].isupper() else rest


def clean_tags(tags: Iterable[str], most: int = MOST_TAGS) -> list[str]:
    """Tags in lower case, each once, in their order; nothing is added or put into the singular.

    Those are the same that a search does not tell apart: by NFKC, and without regard to case.

    Args:
        most: how many to keep.
    """
    texts = (clean_text(tag, LONGEST_TAG).lower().strip(" .,;:#\"'") for tag in tags)
    by_form: dict[str, str] = {}
    for text in filter(None, texts):
        by_form.setdefault(unicodedata.normalize("NFKC", text).casefold(), text)
    return list(by_form.values())[:most]


def _is_text(character: str) -> bool:
    return unicodedata.category(character) not in ("Cc", "Cs") and character not in TURNS
