"""Secrets: values that no `repr`, log line or failure message shows."""

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any
from urllib.parse import parse_qsl, quote, quote_plus, unquote, urlsplit

from clustr.domain.key_text import BEGINNING, FORM, prefix_of

HIDDEN = "***"
# Shorter secrets would match in ordinary words; only their `repr` is hidden.
SHORTEST_REPLACED = 4
SECRET_PARAMETER = re.compile("passw|secret|token|key|authmechanismproperties", re.IGNORECASE)

_known_secrets: set[str] = set()
_secrets_pattern: re.Pattern[str] | None = None


class Secret(str):
    """A text that is used like any other, and whose representation is `***`."""

    __slots__ = ()

    def __new__(cls, value: str) -> "Secret":
        """Make a secret, which `without_secrets` replaces from now on."""
        register_secrets([value])
        return super().__new__(cls, value)

    def __repr__(self) -> str:
        return HIDDEN


class Secrets(Mapping[str, Any]):
    """Secret values by their names; its `repr` has only the names."""

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


def wrap_secrets(value: Any) -> Any:
    """The value with every text in it as a `Secret`; numbers are registered as secrets, too."""
    if isinstance(value, str):
        return Secret(value)
    if isinstance(value, Mapping):
        return Secrets({name: wrap_secrets(one) for name, one in value.items()})
    if isinstance(value, list | tuple | set | frozenset):
        return type(value)(map(wrap_secrets, value))
    if not isinstance(value, bool | None):
        register_secrets([str(value)])
    return value


def register_secrets(texts: Iterable[str]) -> None:
    """Have `without_secrets` replace these texts, also as they are written in URLs and in `repr`.

    They stay registered for the life of the process.
    """
    global _secrets_pattern
    found = {
        spelled
        for text in map(str, texts)
        if len(text) >= SHORTEST_REPLACED
        for spelled in (
            text,
            repr(text)[1:-1],
            quote(text, "", "utf-8", "replace"),
            _quote_plus(text),
        )
    }
    if not found <= _known_secrets:
        _known_secrets.update(found)
        longest_first = sorted(_known_secrets, key=len, reverse=True)
        _secrets_pattern = re.compile("|".join(map(re.escape, longest_first)))


def _quote_plus(text: str) -> str:
    return quote_plus(text, "", "utf-8", "replace")


def is_secret(value: float | None) -> bool:
    """Whether a number is registered as a secret."""
    return bool(_known_secrets) and str(value) in _known_secrets


def without_secrets(text: str) -> str:
    """The text with `***` in the place of every registered secret, and of what can be a key.

    The beginning of a key is left, by which it is known in the list of keys.
    """
    if BEGINNING in text:
        text = FORM.sub(lambda key: f"{prefix_of(key[0])}{HIDDEN}", text)
    return _secrets_pattern.sub(HIDDEN, text) if _secrets_pattern else text


def credentials_in(url: str) -> set[str]:
    """The passwords in an address, both as written and percent-decoded.

    The user information ends at the last `@`, even if it is not escaped as it should be. Parameters
    such as Redis' `password` are included.
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
