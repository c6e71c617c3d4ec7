"""Secrets: values that the code can use, and that no representation, log line or reason shows."""

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any
from urllib.parse import parse_qsl, quote, quote_plus, unquote, urlsplit

HIDDEN = "***"
# Shorter ones are found in ordinary words; of these only the representation is hidden.
SHORTEST_REPLACED = 4
SECRET_PARAMETER = re.compile("passw|secret|token|key|authmechanismproperties", re.IGNORECASE)

_known: set[str] = set()
_pattern: re.Pattern[str] | None = None


class Secret(str):
    """A text that is used like any other, and whose representation is `***`."""

    __slots__ = ()

    def __new__(cls, value: str) -> "Secret":
        """Make one, which `without_secrets` then knows."""
        remember([value])
        return super().__new__(cls, value)

    def __repr__(self) -> str:
        return HIDDEN


class Secrets(Mapping[str, Any]):
    """Secret values by their names; its representation has the names alone."""

    __slots__ = ("_values",)

    def __init__(self, values: Mapping[str, Any] | None = None):
        self._values = dict(values or {})

    def __getitem__(self, name: str) -> Any:
        return self._values[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __repr__(self) -> str:
        return f"{{{', '.join(f'{name!r}: {HIDDEN}' for name in self._values)}}}"


def wrapped(value: Any) -> Any:
    """The value with every text in it as a `Secret`; numbers are known as secret, too."""
    if isinstance(value, str):
        return Secret(value)
    if isinstance(value, Mapping):
        return Secrets({name: wrapped(one) for name, one in value.items()})
    if isinstance(value, list | tuple | set | frozenset):
        return type(value)(map(wrapped, value))
    if not isinstance(value, bool | None):
        remember([str(value)])
    return value


def remember(texts: Iterable[str]) -> None:
    """Have `without_secrets` replace these texts, as they are and as addresses and code have them.

    What is known stays known for the life of the process.
    """
    global _pattern
    found = {
        spelled
        for text in map(str, texts)
        if len(text) >= SHORTEST_REPLACED
        for spelled in (text, repr(text)[1:-1], quote(text, "", "utf-8", "replace"), _plus(text))
    }
    if not found <= _known:
        _known.update(found)
        longest_first = sorted(_known, key=len, reverse=True)
        _pattern = re.compile("|".join(map(re.escape, longest_first)))


def _plus(text: str) -> str:
    return quote_plus(text, "", "utf-8", "replace")


def is_secret(value: float | None) -> bool:
    """Whether a number is known to be secret."""
    return bool(_known) and str(value) in _known


def without_secrets(text: str) -> str:
    """The text with `***` in the place of every secret that this process knows."""
    return _pattern.sub(HIDDEN, text) if _pattern else text


def credentials_in(url: str) -> set[str]:
    """The passwords in an address, as they are written and as they are meant.

    What stands before the last `@` counts, whether or not it is escaped as it should be; so do
    parameters such as Redis' `password`.
    """
    _, _, rest = url.partition("://")
    before, at, _ = rest.rpartition("@")
    found = {before.partition(":")[2]} if at else set()
    try:
        parameters = parse_qsl(urlsplit(url).query)
    except ValueError:  # What is wrong with the address is found where it is used.
        parameters = []
    found |= {value for name, value in parameters if SECRET_PARAMETER.search(name)}
    return {text for one in found for text in (one, unquote(one)) if text}
