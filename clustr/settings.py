"""The settings: one line each, with type, default and meaning, read from the environment or `.env`.

An environment variable wins over the same name in the file `.env` of the working directory. A
value that cannot be parsed stops the start and is named together with what was expected.
"""

import dataclasses
import ipaddress
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import dotenv
from marshmallow import EXCLUDE, Schema, ValidationError, fields, validate

from clustr import reasons
from clustr.errors import StartUpError
from clustr.secret import HIDDEN

MEBIBYTE = 1024 * 1024


class Text(fields.String):
    """Any text."""

    default_error_messages: ClassVar = {"invalid": "expected text"}


class Number(fields.Integer):
    """A whole number."""

    default_error_messages: ClassVar = {"invalid": "expected a whole number"}


class Flag(fields.Boolean):
    """True or false, in the usual spellings."""

    default_error_messages: ClassVar = {"invalid": "expected true or false"}


class Names(fields.Field[tuple[str, ...]]):
    """A comma-separated list."""

    def _deserialize(self, value: str, *_args: Any, **_kwargs: Any) -> tuple[str, ...]:
        return tuple(name.strip() for name in value.split(",") if name.strip())


LOOPBACK_NAMES = ("localhost", "127.0.0.1", "[::1]")
LOOPBACK = "loopback"  # stands for the origins of all of them, with any port


class Origins(Names):
    """A comma-separated list of origins, as browsers send them in `Origin`, `loopback` or `*`."""

    _origin = re.compile(
        rf"[*]|{LOOPBACK}|[a-z][a-z0-9+.-]*://([a-z0-9._-]+|\[[0-9a-f:.]+\])(:[0-9]{{1,5}})?",
        re.IGNORECASE,
    )

    def _deserialize(self, value: str, *args: Any, **kwargs: Any) -> tuple[str, ...]:
        origins = super()._deserialize(value, *args, **kwargs)
        for origin in origins:
            if not self._origin.fullmatch(origin):
                raise ValidationError(
                    f"expected * or scheme://host[:port] without a path, {origin!r} is none"
                )
        return origins


class Hosts(Names):
    """A comma-separated list of names and addresses of hosts, without ports, or `*`."""

    _host = re.compile(r"[*]|[a-z0-9.-]+|\[?[0-9a-f]*:[0-9a-f.:]+\]?", re.IGNORECASE)

    def _deserialize(self, value: str, *args: Any, **kwargs: Any) -> tuple[str, ...]:
        hosts = super()._deserialize(value, *args, **kwargs)
        for host in hosts:
            if not self._host.fullmatch(host):
                raise ValidationError(f"expected * or names without ports, {host!r} is none")
        return hosts


class Folder(fields.Field[Path]):
    """A folder, relative to the working directory if not absolute."""

    def _deserialize(self, value: str, *_args: Any, **_kwargs: Any) -> Path:
        return Path(value).expanduser().absolute()


def url(*schemes: str) -> fields.Field[Any]:
    """A field for an address that begins with one of these schemes."""
    expected = f"expected an address that begins with {' or '.join(f'{s}://' for s in schemes)}"
    return Text(
        validate=validate.Regexp(rf"(?:{'|'.join(map(_escape, schemes))})://.+\Z", error=expected)
    )


def server_url(*schemes: str) -> fields.Field[Any]:
    """A field for the address of a server, which may have a user and a password."""
    field = url(*schemes)
    field.validators.append(_is_read_in_one_way)
    return field


def _is_read_in_one_way(address: str) -> None:
    """Refuse an address of which a part of the password is taken for something else.

    Such a part would be looked up as a host, and turn up in errors.
    """
    scheme, _, rest = address.partition("://")
    if scheme != "unix" and "@" in "".join(re.split("([/?#])", rest, maxsplit=1)[1:]):
        raise ValidationError(
            "expected at most one @, before the host; write : / ? # @ in a password as "
            "%3A %2F %3F %23 %40"
        )


def _escape(scheme: str) -> str:
    return scheme.replace("+", r"\+")


def number(minimum: int, maximum: int | None = None) -> Number:
    """A field for a whole number within limits, both inclusive."""
    limits = f"at least {minimum}" if maximum is None else f"from {minimum} to {maximum}"
    return Number(
        validate=validate.Range(minimum, maximum, error=f"expected a whole number {limits}")
    )


def choice(*values: str) -> Text:
    return Text(validate=validate.OneOf(values, error=f"expected one of {', '.join(values)}"))


def setting(
    field: fields.Field[Any], default: Any, description: str, *, secret: bool = False
) -> Any:
    """Declare a setting; a secret one is not shown where it cannot be used."""
    metadata = {"field": field, "default": default, "description": description, "secret": secret}
    return dataclasses.field(default=default, metadata=metadata, repr=not secret)


@dataclasses.dataclass(frozen=True)
class Settings:
    """Every setting under its environment variable's name in lower case.

    Where the default depends on another setting the description says so; `read_settings` fills it
    in. `given` holds the names that the environment or `.env` set, `environment` all that they
    say: plugins have settings of their own there.
    """

    # fmt: off
    host: str = setting(Text(), "127.0.0.1", "Address to listen on")
    port: int = setting(number(1, 65535), 5000, "Port to listen on")
    web_workers: int = setting(number(1), 2, "Web processes; each serves with many threads")
    reload: bool = setting(Flag(), False, "`clustr up` restarts the web side when code changes (for development)")
    base_url: str = setting(url("http", "https"), "", "Where clients reach the service, for the URLs in answers (default: the request's host)")
    upload_url_path: str = setting(Text(validate=validate.Regexp(r"(/[A-Za-z0-9._~-]+)+\Z", error="expected a path such as /uploads")), "/uploads", "Path under which files are served")
    accel_redirect: str = setting(Text(validate=validate.Regexp(r"(/[A-Za-z0-9._~-]+)+\Z", error="expected a path such as /clustr-files")), "", "Path of the internal location at which nginx has `UPLOAD_FOLDER`, to let it send the files (`X-Accel-Redirect`); only behind such an nginx")
    proxy_hops: int = setting(number(0, 10), 0, "How many proxies in front to believe in `X-Forwarded-*`")
    cors_origins: tuple[str, ...] = setting(Origins(), (LOOPBACK,), "Origins whose pages may call the API (with credentials, if they like); `loopback`: all of this machine, `*`: all (these without credentials). Default: none when `HOST` is not on loopback")
    allowed_hosts: tuple[str, ...] = setting(Hosts(), (), "Names by which the service is called, besides those of loopback, `HOST` and the host of `BASE_URL` (and every address, when `HOST` stands for all of the machine); another is refused. `*`: any")
    debug_endpoints: bool = setting(Flag(), False, "Switch `/api/debug/…` on")

    data_folder: Path = setting(Folder(), Path("data"), "Where `clustr up` keeps MongoDB's and Redis's data and its logs")
    upload_folder: Path = setting(Folder(), Path("uploads"), "Where originals are kept (default: `uploads` in `DATA_FOLDER` when that is set)")
    allowed_extensions: tuple[str, ...] = setting(Names(), ("png", "jpg", "jpeg", "webp", "bmp", "tiff", "tif"), "Image formats to accept, by their extensions; what counts is what the bytes say. Also `gif`, `avif`, and with the extra `clustr[heic]` installed `heic`")
    max_upload_size: int = setting(number(1), 50 * MEBIBYTE, "Bytes of one file at most")
    max_request_size: int = setting(number(1), 20 * 50 * MEBIBYTE, "Bytes of one request at most (default: 20 times `MAX_UPLOAD_SIZE`)")
    max_files_per_request: int = setting(number(1, 1000), 100, "Files in one request at most")
    trash_days: int = setting(number(0, 36500), 30, "Days that removed uploads stay in the trash; 0: they are removed for good at once")
    max_image_pixels: int = setting(number(1), 50_000_000, "Pixels (width times height) of one image at most")

    mongodb_url: str = setting(server_url("mongodb", "mongodb+srv"), "mongodb://localhost:27017", "MongoDB; when not set, `clustr up` starts one of its own", secret=True)
    mongodb_database: str = setting(Text(), "clustr", "Name of the database")
    mongodb_uploads_collection: str = setting(Text(), "uploads", "Name of the collection of uploads")
    redis_url: str = setting(server_url("redis", "rediss", "unix"), "redis://localhost:6379/0", "Redis; when not set, `clustr up` starts one of its own", secret=True)

    plugins_folder: Path = setting(Folder(), Path("plugins"), "Folder of drop-in plugins: a file or package each")
    plugins_enabled: tuple[str, ...] | None = setting(Names(), None, "Names of the only plugins to load (default: all that are found)")
    plugins_disabled: tuple[str, ...] = setting(Names(), (), "Names of plugins not to load")
    plugins_config: Path = setting(Folder(), Path("config/plugins.toml"), "File with a table of configuration for each plugin")

    log_format: str = setting(choice("auto", "json", "console"), "auto", "`json`, `console` for people, `auto`: console on a terminal")
    log_level: str = setting(choice("debug", "info", "warning", "error"), "info", "Least severe kind of log line to write")
    # fmt: on

    given: frozenset[str] = frozenset()
    environment: Mapping[str, str] = dataclasses.field(default_factory=dict, repr=False)


def declared() -> list[dataclasses.Field[Any]]:
    """The fields of `Settings` that are settings, in the order in which they are declared."""
    return [field for field in dataclasses.fields(Settings) if field.metadata]


def read_environment() -> dict[str, str]:
    """The process's environment over the file `.env` of the working directory."""
    from_file = dotenv.dotenv_values(Path.cwd() / ".env", encoding="utf-8", interpolate=False)
    return {**{k: v for k, v in from_file.items() if v is not None}, **os.environ}


def read_settings(environment: Mapping[str, str] | None = None) -> Settings:
    """Read every setting.

    Args:
        environment: what to read from; by default that of `read_environment`.

    Raises:
        StartUpError: names every setting that cannot be used, and what was expected.
    """
    if environment is None:
        environment = read_environment()
    by_name = {field.name.upper(): field.metadata["field"] for field in declared()}
    secret = {field.name.upper() for field in declared() if field.metadata["secret"]}
    given = {
        name: environment[name]
        for name, field in by_name.items()
        if environment.get(name) or (name in environment and isinstance(field, Names))
    }
    if unreadable := [name for name in given if not reasons.is_utf8(given[name])]:
        raise StartUpError(f"{', '.join(unreadable)}: expected text in UTF-8")
    try:
        loaded = Schema.from_dict(by_name)().load(given, unknown=EXCLUDE)
    except ValidationError as error:
        raise StartUpError(
            "; ".join(
                f"{name}={HIDDEN if name in secret else repr(given[name])}: {', '.join(messages)}"
                for name, messages in error.normalized_messages().items()
            )
        ) from None
    return _with_dependent_defaults(
        Settings(
            **{name.lower(): value for name, value in loaded.items()},
            given=frozenset(given),
            environment=environment,
        )
    )


def _with_dependent_defaults(settings: Settings) -> Settings:
    defaults: dict[str, Any] = {}
    for field in declared():
        value = getattr(settings, field.name)
        if isinstance(value, Path):  # the defaults among them are relative to the working directory
            defaults[field.name] = value.absolute()
    if "DATA_FOLDER" in settings.given and "UPLOAD_FOLDER" not in settings.given:
        defaults["upload_folder"] = settings.data_folder / "uploads"
    if "CORS_ORIGINS" not in settings.given and not is_on_loopback(settings.host):
        defaults["cors_origins"] = ()
    if "MAX_REQUEST_SIZE" not in settings.given:
        defaults["max_request_size"] = 20 * settings.max_upload_size
    return dataclasses.replace(settings, **defaults)


def is_on_loopback(host: str) -> bool:
    """Whether what listens on this name or address can be reached from this machine alone."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def is_every_address(host: str) -> bool:
    """Whether what listens on this name or address does so on every address of the machine."""
    try:
        return ipaddress.ip_address(host).is_unspecified
    except ValueError:
        return False
