"""The first key of an installation, which `clustr up` makes where there is none."""

import os
import shlex
from dataclasses import dataclass
from pathlib import Path

from clustr.cli.keys import recording
from clustr.cli.refusals import refuse
from clustr.cli.running_service import with_started_servers
from clustr.components import build_keys
from clustr.domain.access import Scope
from clustr.domain.audit import AuditAction
from clustr.domain.errors import (
    DatabaseUnavailable,
    KeyExpired,
    KeyMistyped,
    KeyRefused,
    NameTaken,
)
from clustr.domain.key_text import new_key
from clustr.services.authentication import Authentication
from clustr.services.key_making import audit_details
from clustr.settings import Settings
from clustr.supervisor import servers
from clustr.supervisor.forking import function_starter

NAME = "first"
FILE = "first-key"
# What came of looking for the first key: exit codes of the fork that does it.
MADE, KEPT, INVALID = 0, 1, 3
PLACEHOLDER_HEADER = '"X-API-Key: $CLUSTR_KEY"'


@dataclass(frozen=True, slots=True)
class KeyOfExamples:
    """The key that the greeting of `clustr up` shows how to use.

    Attributes:
        header: for curl, quoted for a shell; it names the file, so that no terminal shows the key.
        note: a line on the first key, when it has just been made or is not valid; else empty.
        text: the key, if it is the first one, is valid, and its file is there still; else empty.
    """

    header: str
    note: str
    text: str


def key_of_examples(settings: Settings) -> KeyOfExamples:
    """Make the first key, unless there are keys, and say how it is used."""
    path = settings.data_folder / FILE
    found = _look(settings)
    if found == INVALID:
        said = f"  keys     that in {path} is not valid; set CLUSTR_KEY to one that is (clustr_…)\n"
        return KeyOfExamples(PLACEHOLDER_HEADER, said if path.exists() else "", "")
    try:
        text = path.read_text(encoding="ascii").strip()
    except OSError:
        return KeyOfExamples(PLACEHOLDER_HEADER, "", "")
    note = f"  keys     the first one, with all scopes, is in {path}\n" if found == MADE else ""
    return KeyOfExamples(f'"X-API-Key: $(cat {shlex.quote(str(path))})"', note, text)


def _look(settings: Settings) -> int:
    """Make a key with all scopes, unless there are keys; return what came of it.

    This is done in a fork, because a client of MongoDB has threads, which forks lose, and the
    caller is still to make some.
    """
    child = function_starter(lambda: _make(with_started_servers(settings)))()
    _, status = os.waitpid(child.pid, 0)
    return os.waitstatus_to_exitcode(status)


def _make(settings: Settings) -> int:
    """Make the key; return `KEPT` when there is one, or the database is away.

    The file is written first: once there is a key, `/api/health/ready` says so.
    """
    path = settings.data_folder / FILE
    try:
        with build_keys(settings) as (key_making, database, audit):
            if database.keys.any():
                return (
                    KEPT
                    if _is_valid(path, Authentication(database.keys, database.sessions))
                    else INVALID
                )
            text = new_key()
            _write(path, text)
            with recording(audit, AuditAction.CREATE_KEY, NAME) as details:
                issued = key_making.create(NAME, Scope, text=text)
                details |= audit_details(issued.key)
    except NameTaken:  # Another `clustr up` was faster, and has the key in a file of its own.
        path.unlink(missing_ok=True)
        return KEPT
    except DatabaseUnavailable:
        return KEPT
    return MADE


def _write(path: Path, text: str) -> None:
    try:
        servers.write_private(path, f"{text}\n".encode())
    except OSError as error:
        refuse(
            f"{path} cannot be written: {error.strerror}; clustr keys create makes a key without it"
        )


def _is_valid(path: Path, authentication: Authentication) -> bool:
    """Whether requests may come with the key in this file; it may be rotated, revoked or gone."""
    try:
        authentication.access_of(path.read_text(encoding="ascii").strip())
    except (OSError, UnicodeDecodeError, KeyMistyped, KeyRefused, KeyExpired):
        return False
    return True
