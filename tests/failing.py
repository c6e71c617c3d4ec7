"""Methods that fail where no real outage can be made to hit: at one call among many."""

from typing import Any

import pytest

from clustr.domain.errors import DatabaseUnavailable


def unavailable(*_: Any, **__: Any) -> None:
    """Stands in for a method that finds MongoDB away."""
    raise DatabaseUnavailable


def fail_once(
    monkeypatch: pytest.MonkeyPatch, owner: type, name: str, error: type[Exception]
) -> None:
    """Have the first call of this method fail; those after it do what they always do."""
    method = getattr(owner, name)

    def fail(*_: Any, **__: Any) -> None:
        monkeypatch.setattr(owner, name, method)
        raise error

    monkeypatch.setattr(owner, name, fail)
