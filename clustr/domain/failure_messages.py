"""Messages about failures in foreign code, without secrets and absolute paths, for all readers."""

import difflib
import re
from collections.abc import Iterable
from urllib.parse import urlsplit, urlunsplit

from clustr.domain.secrets import without_secrets

LONGEST = 1000
LONGEST_NAME = 100
# An absolute path. After a letter or a colon it is part of an address or of a content type.
PATH = re.compile(r"(?<![\w:/.~-])(?:/[^/\s'\"<>|:;,()]+)+")


def as_plain_text(value: object) -> str:
    """Any value as a text that can be stored and shown, without secrets."""
    try:
        text = str(value)
    except BaseException:  # The exception of a plugin may have a `__str__` that raises.
        text = f"a {type(value).__name__} that does not say what it is"
    redacted = without_secrets(text)[:LONGEST]
    return redacted.encode("utf-8", "replace").decode("utf-8").replace("\0", "")


def is_utf8(text: str) -> bool:
    """Whether a text can be encoded in UTF-8; a lone surrogate cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def without_paths(text: str) -> str:
    """The text with absolute paths reduced to the names of files."""
    return PATH.sub(lambda found: found[0].rpartition("/")[2], text)


def without_credentials(url: str) -> str | None:
    """The address without user, password, query and fragment; None if it cannot be parsed."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return None
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit((parts.scheme, host, parts.path, "", "")) if host else None


def describe_exception(error: BaseException) -> str:
    """The class and the message of an exception, without secrets and absolute paths."""
    message = without_paths(as_plain_text(error))
    return f"{type(error).__name__}: {message}" if message else type(error).__name__


def format_size(size_bytes: int) -> str:
    """A size for people, in units of 1,024 as in settings, with the number of bytes."""
    for unit, each in (("GB", 1024**3), ("MB", 1024**2), ("KB", 1024)):
        if size_bytes >= each:
            return f"{round(size_bytes / each, 1):g} {unit} ({size_bytes} bytes)"
    return f"{size_bytes} bytes"


def is_one_typo_apart(name: str, other: str) -> bool:
    """Whether two names differ by one extra, missing or wrong letter, or by two swapped ones."""
    shorter, longer = sorted((name, other), key=len)
    letters = enumerate(zip(shorter, longer, strict=False))
    same = next((number for number, (a, b) in letters if a != b), len(shorter))
    shorter, longer = shorter[same:], longer[same:]
    if len(shorter) < len(longer):
        return shorter == longer[1:]
    swapped = shorter[:2] == longer[1::-1] and shorter[2:] == longer[2:]
    return shorter[1:] == longer[1:] or swapped


def unknown_name(what: str, name: str, known: Iterable[str]) -> str:
    """The message that a name is unknown, with a similar known name, or else all known names.

    Args:
        what: the kind of name, such as `key`.
    """
    known, name = sorted(known), name[:LONGEST_NAME]
    close = difflib.get_close_matches(name, known, n=1)
    if close:
        return f"unknown {what} {name}; did you mean {close[0]}?"
    return f"unknown {what} {name}; there are {', '.join(known) if known else 'none'}"
