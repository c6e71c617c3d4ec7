"""The first key of an installation, which `clustr up` makes where there is none."""

import os
import shlex
from dataclasses import dataclass

from clustr.cli.refusals import refuse
from clustr.cli.running_service import with_started_servers
from clustr.components import build_keys
from clustr.domain.access import Scope
from clustr.domain.audit import COMMAND_LINE, AuditAction
from clustr.domain.errors import DatabaseUnavailable, NameTaken
from clustr.settings import Settings
from clustr.supervisor import servers
from clustr.supervisor.processes import function_starter

NAME = "first"
FILE = "first-key"


@dataclass(frozen=True, slots=True)
class KeyOfExamples:
    """The key that the greeting of `clustr up` shows how to use.

    Attributes:
        header: for curl, quoted for a shell; it names the file, so that no terminal shows the key.
        note: a line on the first key, when it has just been made; else empty.
        text: the key, if it is the first one and its file is there still; else empty.
    """

    header: str
    note: str
    text: str


def key_of_examples(settings: Settings) -> KeyOfExamples:
    """Make the first key, unless there are keys, and say how it is used."""
    path = settings.data_folder / FILE
    is_new = _is_made(settings)
    try:
        text = path.read_text(encoding="ascii").strip()
    except OSError:
        return KeyOfExamples('"X-API-Key: $CLUSTR_KEY"', "", "")
    note = f"  keys     the first one, with all scopes, is in {path}\n" if is_new else ""
    return KeyOfExamples(f'"X-API-Key: $(cat {shlex.quote(str(path))})"', note, text)


def _is_made(settings: Settings) -> bool:
    """Make a key with all scopes, unless there are keys; return whether it was made.

    This is done in a fork, because a client of MongoDB has threads, which forks lose, and the
    caller is still to make some.
    """
    child = function_starter(lambda: _make(with_started_servers(settings)))()
    _, status = os.waitpid(child.pid, 0)
    return os.waitstatus_to_exitcode(status) == 0


def _make(settings: Settings) -> int:
    """Make the key, and return 0; 1 when there are keys, or the database is away."""
    try:
        with build_keys(settings) as (key_making, keys, audit):
            if keys.any():
                return 1
            with audit.record(AuditAction.CREATE_KEY, COMMAND_LINE) as details:
                details["name"] = NAME
                issued = key_making.create(NAME, Scope)
    except (DatabaseUnavailable, NameTaken):  # Another `clustr up` may have been faster.
        return 1
    path = settings.data_folder / FILE
    try:
        servers.write_private(path, f"{issued.text}\n".encode())
    except OSError as error:
        refuse(
            f"{path} cannot be written: {error.strerror}; clustr keys rotate {NAME} prints the key"
        )
    return 0
