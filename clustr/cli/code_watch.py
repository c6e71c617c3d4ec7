"""Notices changes of code, for `RELOAD`."""

from collections.abc import Iterator
from pathlib import Path

from clustr.plugin_manager import find_candidates
from clustr.settings import Settings

CLUSTR = Path(__file__).parent.parent


class CodeWatch:
    """Tells whether Clustr's code, a plugin or the configuration of plugins has changed.

    A call returns whether that has happened since the one before.
    """

    def __init__(self, settings: Settings):
        self._settings = settings
        self._state = self._read_state()

    def __call__(self) -> bool:
        before, self._state = self._state, self._read_state()
        return self._state != before

    def _read_state(self) -> dict[Path, tuple[int, int]]:
        """The time of the last change and the size of each file."""
        state = {}
        for file in self._files():
            try:
                found = file.stat()
            except OSError:  # It has just been removed.
                continue
            state[file] = found.st_mtime_ns, found.st_size
        return state

    def _files(self) -> Iterator[Path]:
        yield from CLUSTR.rglob("*.py")
        yield self._settings.plugins_config
        for candidate in find_candidates(self._settings.plugins_folder):
            if candidate.file is None:
                continue
            if candidate.file.name == "__init__.py":
                yield from candidate.file.parent.rglob("*.py")
            else:
                yield candidate.file
