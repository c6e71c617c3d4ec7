"""`clustr keys`: makes keys, lists and rotates them, and revokes them."""

import os
import pwd
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any

import click
from marshmallow import ValidationError

from clustr import logs
from clustr.cli.refusals import refuse, refuse_errors
from clustr.cli.running_service import read_settings_of_running_service
from clustr.components import build_keys
from clustr.database import Database, Key, now
from clustr.domain.access import OWN, UNITS_SECONDS, Rate, Scope
from clustr.domain.audit import COMMAND_LINE, AuditAction
from clustr.domain.errors import DatabaseRefused, DatabaseUnavailable, NotFound
from clustr.domain.failure_messages import format_size
from clustr.services.audit import AuditLog
from clustr.services.key_making import GRACE, IssuedKey, KeyMaking, audit_details
from clustr.settings import Size
from clustr.supervisor import servers


def parse_duration(text: str) -> timedelta:
    """Read a time such as `90d`."""
    match = re.fullmatch(rf"([0-9]{{1,5}})({'|'.join(UNITS_SECONDS)})", text)
    if match is None:
        raise ValueError(f"expected a number and one of {', '.join(UNITS_SECONDS)}: 90d")
    return timedelta(seconds=int(match[1]) * UNITS_SECONDS[match[2]])


def parse_size(text: str) -> int:
    """Read a size such as `5GB`, as settings have them."""
    try:
        size_bytes: int = Size().deserialize(text)
    except ValidationError as error:
        raise ValueError(error.messages[0]) from error
    return size_bytes


def parsed_by(parse: Callable[[str], Any]) -> Callable[..., Any]:
    """Make a callback for an option whose text has to be read."""

    def callback(_context: click.Context, _parameter: click.Parameter, text: str | None) -> Any:
        try:
            return None if text is None else parse(text)
        except ValueError as error:
            raise click.BadParameter(str(error)) from error

    return callback


DURATION = parsed_by(parse_duration)
RATE = parsed_by(Rate.parse)
SIZE = parsed_by(parse_size)


@click.group()
def keys() -> None:
    """Make keys for `AUTH=keys`, list them, rotate them, revoke them.

    It talks to the database, so it works without a key, and while the service does not run.
    """


@contextmanager
def keys_of_service() -> Iterator[tuple[KeyMaking, Database, AuditLog]]:
    """What `build_keys` builds, for the block, whose errors are said in one line."""
    settings = read_settings_of_running_service()
    logs.configure(settings.log_format, "error")
    with refuse_errors():
        try:
            with build_keys(settings) as found:
                yield found
        except DatabaseUnavailable as error:
            is_given = "MONGODB_URL" in settings.given
            if is_given or servers.read_addresses(settings.data_folder):
                raise
            wants = "wants a user" if isinstance(error, DatabaseRefused) else "does not answer"
            refuse(
                f"MONGODB_URL is not set here, and the MongoDB at its default {wants}; is this the "
                "folder of .env?"
            )


@contextmanager
def recording(audit: AuditLog, action: AuditAction, name: str) -> Iterator[dict[str, str]]:
    """Record in the audit log what the block does to the key of this name.

    Yields:
        the details of the entry.
    """
    with audit.record(action, COMMAND_LINE) as details:
        details |= {"name": name, "os_user": operating_system_user()}
        yield details


def operating_system_user() -> str:
    """The name of the account that runs this process, or its number where it has no name."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())


@keys.command()
@click.argument("name")
@click.option(
    "--scopes",
    required=True,
    metavar="SCOPE,…",
    help=f"What it may do: {', '.join(Scope)}; {OWN}: with the uploads alone that it brought.",
)
@click.option(
    "--expires",
    callback=DURATION,
    help="How long it is valid; by default without end.",
)
@click.option("--rate", callback=RATE, help="How many requests it may send: 60/min.")
@click.option(
    "--bytes-per-day",
    callback=SIZE,
    help="How many bytes it may send in a day: 5GB.",
)
def create(
    name: str,
    scopes: str,
    expires: timedelta | None,
    rate: Rate | None,
    bytes_per_day: int | None,
) -> None:
    """Make a key, and print it: it is shown once, and nobody can see it again."""
    named = [scope.strip() for scope in scopes.split(",") if scope.strip()]
    with (
        keys_of_service() as (key_making, database, audit),
        recording(audit, AuditAction.CREATE_KEY, name) as details,
    ):
        issued = key_making.create(
            name,
            named,
            expires_at=None if expires is None else now() + expires,
            rate=rate,
            bytes_per_day=bytes_per_day,
        )
        details |= audit_details(issued.key)
        seen = database.view_of(name).counters.totals() if issued.key.own_only else None
    if seen and seen.uploads:
        click.echo(f"Uploads of this name that it sees: {seen.uploads:,}", err=True)
    print_issued(issued)


@keys.command(name="list")
def list_keys() -> None:
    """List all keys, the newest first; of each only the beginning is known."""
    with keys_of_service() as (_, database, _):
        for key in database.keys.newest_first():
            click.echo(describe(key))


@keys.command()
@click.argument("name")
@click.option(
    "--grace",
    callback=DURATION,
    default=f"{GRACE.days}d",
    show_default=True,
    help="How long the one that it replaces goes on.",
)
@click.option(
    "--expires",
    callback=DURATION,
    help="How long the new one is valid; by default like that.",
)
def rotate(name: str, grace: timedelta, expires: timedelta | None) -> None:
    """Give a key another text, and print that; the one before goes on for a while."""
    with (
        keys_of_service() as (key_making, _, audit),
        recording(audit, AuditAction.ROTATE_KEY, name) as details,
    ):
        issued = key_making.rotate(name, grace, None if expires is None else now() + expires)
        details |= audit_details(issued.key)
        details["grace_seconds"] = str(int(grace.total_seconds()))
    print_issued(issued)


@keys.command()
@click.argument("name")
@click.option(
    "--shares",
    "with_shares",
    is_flag=True,
    help="Revoke the addresses that it gave to others, too, even if the key was revoked before; by "
    "default they go on.",
)
def revoke(name: str, with_shares: bool) -> None:
    """Make a key invalid for good, within seconds."""
    with (
        keys_of_service() as (_, database, audit),
        recording(audit, AuditAction.REVOKE_KEY, name) as details,
    ):
        shares = database.shares.count_made_by(name)
        try:
            database.keys.revoke(name)
        except NotFound:
            if not (with_shares and shares):
                raise
        if with_shares:
            shares = database.shares.remove_all_made_by(name)
            details["revoked_shares"] = str(shares)
    click.echo(f"{name} is revoked; in 5 seconds at the latest no process takes it any more.")
    if with_shares:
        click.echo(f"Shares that it made, revoked with it: {shares:,}")
    elif shares:
        click.echo(
            f"Shares that it made, which go on: {shares:,}. `clustr keys revoke {name} --shares` "
            "ends them."
        )


def print_issued(issued: IssuedKey) -> None:
    """Print the text of a key alone to standard output, for scripts, and the rest beside it."""
    click.echo(f"{describe(issued.key)}\nIt is shown this once:", err=True)
    click.echo(issued.text)


def describe(key: Key) -> str:
    """What there is to know of a key, in a line."""
    facts = [f"{key.name}  {key.prefix}…  {','.join(key.scope_names)}"]
    if key.rate:
        facts.append(str(key.rate))
    if key.bytes_per_day:
        facts.append(f"{format_size(key.bytes_per_day)} a day")
    if key.revoked_at:
        facts.append(f"revoked {_date(key.revoked_at)}")
    elif key.expires_at:
        verb = "expires" if key.expires_at > now() else "expired"
        facts.append(f"{verb} {_date(key.expires_at)}")
    if key.replaced_until and key.replaced_until > now() and not key.revoked_at:
        facts.append(f"the one before goes on until {_date(key.replaced_until)}")
    facts.append(f"used {_date(key.last_used_at)}" if key.last_used_at else "never used")
    return "  ".join(facts)


def _date(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M} UTC"
