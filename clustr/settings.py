"""The settings: one line each, with type, default and meaning, read from the environment or `.env`.

An environment variable wins over the same name in the file `.env` of the working directory. A
value that cannot be parsed stops the start with an error that names it and says what was expected.
"""

import dataclasses
import ipaddress
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import dotenv
from marshmallow import EXCLUDE, Schema, ValidationError, fields, validate
from marshmallow.types import ErrorMessages

from clustr.domain import failure_messages
from clustr.domain.access import Rate
from clustr.domain.errors import InvalidSettings
from clustr.domain.secrets import HIDDEN
from clustr.search.terms import LANGUAGES

MEBIBYTE = 1024 * 1024
DEFAULT_RATE_LIMIT = Rate(600, "min")  # with keys

NO_TEXT: ErrorMessages = {"invalid": "expected text"}
NO_NUMBER: ErrorMessages = {"invalid": "expected a whole number"}
NO_FLAG: ErrorMessages = {"invalid": "expected true or false"}


class Text(fields.String):
    """Any text."""

    default_error_messages = NO_TEXT


class DatabaseName(Text):
    """The name of a database of MongoDB."""

    max_length_bytes = 63

    def _deserialize(self, value: Any, *args: Any, **kwargs: Any) -> str:
        name: str = super()._deserialize(value, *args, **kwargs)
        size_bytes = len(name.encode())
        if size_bytes > self.max_length_bytes or not re.fullmatch(r"""[^/\\. "$\0]+""", name):
            raise ValidationError(
                f'expected at most {self.max_length_bytes} bytes, without spaces and / \\ . " $'
            )
        return name


class Number(fields.Integer):
    """A whole number."""

    default_error_messages = NO_NUMBER


class Size(fields.Field[int]):
    """A number of bytes, or one with a binary unit (1 KB is 1,024 bytes): `50MB`, `50 MiB`."""

    _size = re.compile(r"(\d+(?:\.\d+)?)\s*(?:([KMGT]?)(?:i?B)?)", re.IGNORECASE | re.ASCII)
    _units = ("", "K", "M", "G", "T")

    def _deserialize(self, value: str, *_args: Any, **_kwargs: Any) -> int:
        match = self._size.fullmatch(value.strip())
        size_bytes = 0
        if match:
            size_bytes = int(float(match[1]) * 1024 ** self._units.index(match[2].upper()))
        if size_bytes < 1:
            raise ValidationError("expected a number of bytes, or a size such as 50MB or 2GiB")
        return size_bytes


class RequestRate(fields.Field[Rate | None]):
    """A number of requests in a time, such as `60/min`, or `off` for no limit."""

    def _deserialize(self, value: str, *_args: Any, **_kwargs: Any) -> Rate | None:
        if value.strip().lower() == "off":
            return None
        try:
            return Rate.parse(value)
        except ValueError as error:
            raise ValidationError(f"{error}, or off") from None


class Flag(fields.Boolean):
    """True or false, in the usual spellings."""

    default_error_messages = NO_FLAG


class Names(fields.Field[tuple[str, ...]]):
    """A comma-separated list."""

    def _deserialize(self, value: str, *_args: Any, **_kwargs: Any) -> tuple[str, ...]:
        return tuple(name.strip() for name in value.split(",") if name.strip())


class SigningKeys(Names):
    """A comma-separated list of secrets that nobody guesses."""

    min_length = 32

    def _deserialize(self, value: str, *args: Any, **kwargs: Any) -> tuple[str, ...]:
        keys = super()._deserialize(value, *args, **kwargs)
        if any(len(key) < self.min_length for key in keys):
            raise ValidationError(
                f"expected secrets of at least {self.min_length} characters, such as `openssl rand "
                "-hex 32` prints"
            )
        return keys


class Languages(Names):
    """A comma-separated list of languages, each by its code of two letters."""

    def _deserialize(self, value: str, *args: Any, **kwargs: Any) -> tuple[str, ...]:
        languages = super()._deserialize(value.lower(), *args, **kwargs)
        for language in languages:
            if language not in LANGUAGES:
                known = ", ".join(LANGUAGES)
                raise ValidationError(f"expected some of {known}; {language!r} is none")
        return tuple(dict.fromkeys(languages))


LOOPBACK_NAMES = ("localhost", "127.0.0.1", "[::1]")
LOOPBACK = "loopback"  # stands for the origins of all `LOOPBACK_NAMES`, with any port


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


class ExistingFolder(Folder):
    """A folder that is there."""

    def _deserialize(self, value: str, *args: Any, **kwargs: Any) -> Path:
        folder = super()._deserialize(value, *args, **kwargs)
        if not folder.is_dir():
            raise ValidationError("expected a folder that exists")
        return folder


class ExistingFile(Folder):
    """A file that is there, relative to the working directory if not absolute."""

    def _deserialize(self, value: str, *args: Any, **kwargs: Any) -> Path:
        file = super()._deserialize(value, *args, **kwargs)
        if not file.exists() or file.is_dir():
            raise ValidationError("expected a file that exists")
        return file


def url(*schemes: str) -> fields.Field[Any]:
    """A field for an address that begins with one of these schemes."""
    expected = f"expected an address that begins with {' or '.join(f'{s}://' for s in schemes)}"
    return Text(
        validate=validate.Regexp(
            rf"(?:{'|'.join(map(_escape_for_regexp, schemes))})://.+\Z", error=expected
        )
    )


def base_url() -> fields.Field[Any]:
    """A field for an address to which a path can be added."""
    field = url("http", "https")
    field.validators.append(_require_base_url)
    return field


def _require_base_url(address: str) -> None:
    try:
        parts = urlsplit(address)
        complete = bool(parts.hostname) and parts.port != 0
    except ValueError:
        complete = False
    if not complete or "?" in address or "#" in address:
        raise ValidationError(
            "expected an address without query and fragment, such as https://images.example.com or "
            "https://example.com/images"
        )


def server_url(*schemes: str) -> fields.Field[Any]:
    """A field for the address of a server, which may have a user and a password."""
    field = url(*schemes)
    field.validators.append(_require_unambiguous_credentials)
    return field


def _require_unambiguous_credentials(address: str) -> None:
    """Refuse an address in which a part of the password can be read as something else.

    A client would take that part for the host, look it up, and show it in errors.
    """
    scheme, _, rest = address.partition("://")
    if scheme != "unix" and "@" in "".join(re.split("([/?#])", rest, maxsplit=1)[1:]):
        raise ValidationError(
            "expected at most one @, before the host; write : / ? # @ in a password as "
            "%3A %2F %3F %23 %40"
        )


def _escape_for_regexp(scheme: str) -> str:
    return scheme.replace("+", r"\+")


def number(minimum: int, maximum: int | None = None) -> Number:
    """A field for a whole number within limits, both inclusive."""
    limits = f"at least {minimum}" if maximum is None else f"from {minimum} to {maximum}"
    return Number(
        validate=validate.Range(minimum, maximum, error=f"expected a whole number {limits}")
    )


class Choice(Text):
    """One of a few words, in capital or small letters."""

    def __init__(self, *values: str):
        expected = f"expected one of {', '.join(values)}"
        super().__init__(validate=validate.OneOf(values, error=expected))

    def _deserialize(self, value: str, *args: Any, **kwargs: Any) -> str:
        return super()._deserialize(value, *args, **kwargs).lower()


def setting(
    field: fields.Field[Any], default: Any, description: str, *, secret: bool = False
) -> Any:
    """Declare a setting; a secret one is not shown where it cannot be used."""
    metadata = {"field": field, "default": default, "description": description, "secret": secret}
    return dataclasses.field(default=default, metadata=metadata, repr=not secret)


@dataclasses.dataclass(frozen=True)
class Settings:
    """Every setting, named as its environment variable in lower case.

    Where a default depends on another setting, the description says so and `read_settings` fills it
    in.

    Attributes:
        given: the names, in capitals, of the settings that the environment or `.env` sets.
        environment: all variables of both; plugins read their own settings from it.
    """

    # fmt: off
    host: str = setting(Text(), "127.0.0.1", "Address to listen on")
    port: int = setting(number(1, 65535), 5000, "Port to listen on")
    web_workers: int = setting(number(1), 2, "Web processes; each serves with many threads")
    worker_nice: int = setting(number(0, 19), 19, "How much lower the priority of workers is than that of web processes and servers of the same host, from 0 to 19 (nice(2)): people come before analyses")
    reload: bool = setting(Flag(), False, "`clustr up` restarts web and workers when code, a plugin or its configuration changes (for development)")
    base_url: str = setting(base_url(), "", "Where clients reach the service, for the URLs in answers (default: the request's host)")
    upload_url_path: str = setting(Text(validate=validate.Regexp(r"(/[A-Za-z0-9._~-]+)+\Z", error="expected a path such as /uploads")), "/uploads", "Path under which files are served")
    accel_redirect: str = setting(Text(validate=validate.Regexp(r"(/[A-Za-z0-9._~-]+)+\Z", error="expected a path such as /clustr-files")), "", "Path of the internal location at which nginx has `UPLOAD_FOLDER`, to let it send the files (`X-Accel-Redirect`); only behind such an nginx")
    proxy_hops: int = setting(number(0, 10), 0, "How many proxies in front to believe in `X-Forwarded-*`")
    auth: str = setting(Choice("off", "keys"), "off", "`keys`: every request needs a key with the scope for what it does. `off`: whoever reaches the service may do everything. Has to be set where others come: when `HOST` is not on loopback, or `PROXY_HOPS`, `ACCEL_REDIRECT`, or a host elsewhere in `ALLOWED_HOSTS` or `BASE_URL` says so")
    rate_limit: Rate | None = setting(RequestRate(), None, "How many requests without a key may come from one address, such as `600/min` (`s`, `min`, `h` or `d`), or `off`. Default: `600/min` with `AUTH=keys`")
    cors_origins: tuple[str, ...] = setting(Origins(), (LOOPBACK,), "Origins whose pages may call the API (with credentials, if they like); `loopback`: all of this machine, `*`: all (these without credentials). Default: none when `HOST` is not on loopback")
    allowed_hosts: tuple[str, ...] = setting(Hosts(), (), "Names by which the service is called, besides those of loopback, `HOST` and the host of `BASE_URL` (and every address, when `HOST` stands for all of the machine); another is refused. `*`: any")
    debug_endpoints: bool = setting(Flag(), False, "Switch `/api/debug/…` on")

    data_folder: Path = setting(Folder(), Path("data"), "Where `clustr up` keeps MongoDB's and Redis's data and its logs, and each host copies of vectors")
    upload_folder: Path = setting(Folder(), Path("uploads"), "Where originals are kept (default: `uploads` in `DATA_FOLDER` when that is set)")
    allowed_extensions: tuple[str, ...] = setting(Names(), ("png", "jpg", "jpeg", "webp", "bmp", "tiff", "tif", "heic", "heif", "avif", "gif"), "Image formats to accept, by their extensions; what counts is what the bytes say. Of the default, what the installed libraries cannot read is left out")
    max_upload_size: int = setting(Size(), 50 * MEBIBYTE, "Bytes of one file at most, or a size such as `50MB` (of 1,048,576 bytes each, as `50MiB`)")
    max_request_size: int = setting(Size(), 20 * 50 * MEBIBYTE, "Bytes of one request at most, or a size such as `1GB` (default: 20 times `MAX_UPLOAD_SIZE`)")
    max_files_per_request: int = setting(number(1, 1000), 100, "Files in one request at most")
    trash_days: int = setting(number(0, 36500), 30, "Days that removed uploads stay in the trash; 0: they are removed for good at once")
    audit_days: int = setting(number(1, 36500), 90, "Days that `/api/audit` keeps who removed, restored and ordered what, made or revoked keys, and logged in")
    max_image_pixels: int = setting(number(1), 50_000_000, "Pixels (width times height) of one image at most")
    decode_memory: int = setting(Size(), 400 * MEBIBYTE, "Memory that decodes of pictures take on a host, shared out evenly among its web processes, or a size such as `400MB`. A picture that needs more than its share is decoded while no other large one is")

    url_days: int = setting(number(1, 3650), 7, "Days for which the addresses of files in answers are valid at least, with `AUTH=keys`; they expire at midnight UTC")
    url_signing_keys: tuple[str, ...] = setting(SigningKeys(), (), "Secrets that sign addresses of files: the first signs, and all are good for checking, so that one can be replaced. Default: one that is made once and kept in MongoDB", secret=True)
    files_metadata: str = setting(Choice("keep", "strip-location", "strip"), "keep", "What is sent of the metadata of originals: all; all but what may say where they were taken; or only what decides how they look. What is stored stays as it came")

    mongodb_url: str = setting(server_url("mongodb", "mongodb+srv"), "mongodb://localhost:27017", "MongoDB; when not set, `clustr up` starts one of its own", secret=True)
    mongodb_database: str = setting(DatabaseName(), "clustr", "Name of the database")
    mongodb_uploads_collection: str = setting(Text(validate=validate.Regexp(r"(?!system\.)[^$.\0]+(\.[^$.\0]+)*\Z", error="expected a name without $, with dots only between other characters, that does not begin with `system.`")), "uploads", "Name of the collection of uploads")
    redis_url: str = setting(server_url("redis", "rediss", "unix"), "redis://localhost:6379/0", "Redis; when not set, `clustr up` starts one of its own", secret=True)
    redis_prefix: str = setting(Text(validate=validate.Regexp(r"[A-Za-z0-9._:-]{1,100}\Z", error="expected 1 to 100 letters, digits and . _ : -")), "clustr:clustr", "What every key and queue in Redis begins with, which no other installation may use (default: `clustr:` and `MONGODB_DATABASE`)")

    search_languages: tuple[str, ...] = setting(Languages(), ("en",), "Languages of captions, tags and names: a search for a word also finds other forms of it, such as `dogs` for `dog`")

    plugins_folder: Path = setting(ExistingFolder(), Path("plugins"), "Folder of drop-in plugins: a file or package each. One that is set has to exist")
    plugins_enabled: tuple[str, ...] | None = setting(Names(), None, "Names of the only plugins to load (default: all that are found); one of them has to be there")
    plugins_disabled: tuple[str, ...] = setting(Names(), (), "Names of plugins not to load")
    plugins_load_seconds: int = setting(number(1, 3600), 15, "Seconds that loading one plugin may take at most; one that takes longer is not loaded, and the others are")
    plugins_config: Path = setting(ExistingFile(), Path("config/plugins.toml"), "File with a table of configuration for each plugin. One that is set has to exist")

    log_format: str = setting(Choice("auto", "json", "console"), "auto", "`json`, `console` for people, `auto`: console on a terminal")
    log_level: str = setting(Choice("debug", "info", "warning", "error"), "info", "Least severe kind of log line to write")
    # fmt: on

    given: frozenset[str] = frozenset()
    environment: Mapping[str, str] = dataclasses.field(default_factory=dict, repr=False)

    @property
    def keeps_quotas(self) -> bool:
        """Whether requests may be limited at all, by key or by address."""
        return self.auth == "keys" or self.rate_limit is not None


def declared_settings() -> list[dataclasses.Field[Any]]:
    """The fields of `Settings` that are settings, in the order in which they are declared."""
    return [field for field in dataclasses.fields(Settings) if field.metadata]


def read_environment(variables: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The environment of this or another process over the file `.env` of the working directory."""
    from_file = dotenv.dotenv_values(Path.cwd() / ".env", encoding="utf-8", interpolate=False)
    return {**{k: v for k, v in from_file.items() if v is not None}, **variables}


def read_settings(environment: Mapping[str, str] | None = None) -> Settings:
    """Read every setting.

    Args:
        environment: what to read from; by default that of `read_environment`.

    Raises:
        InvalidSettings: names every setting that cannot be used, and what was expected.
    """
    if environment is None:
        environment = read_environment()
    by_name = {field.name.upper(): field.metadata["field"] for field in declared_settings()}
    secret = {field.name.upper() for field in declared_settings() if field.metadata["secret"]}
    given = {
        name: environment[name]
        for name, field in by_name.items()
        if environment.get(name) or (name in environment and isinstance(field, Names))
    }
    problems = {
        name: f"{name}: expected text in UTF-8"
        for name in given
        if not failure_messages.is_utf8(given[name])
    }
    readable = {name: value for name, value in given.items() if name not in problems}
    try:
        loaded = Schema.from_dict(by_name)().load(readable, unknown=EXCLUDE)
    except ValidationError as error:
        for name, messages in error.normalized_messages().items():
            shown = HIDDEN if name in secret else repr(given[name])
            problems[name] = f"{name}={shown}: {', '.join(messages)}"
    if problems:
        raise InvalidSettings(problems)
    return _with_dependent_defaults(
        Settings(
            **{name.lower(): value for name, value in loaded.items()},
            given=frozenset(given),
            environment=environment,
        )
    )


def _with_dependent_defaults(settings: Settings) -> Settings:
    defaults: dict[str, Any] = {}
    for field in declared_settings():
        value = getattr(settings, field.name)
        if isinstance(value, Path):  # the defaults among them are relative to the working directory
            defaults[field.name] = value.absolute()
    if "DATA_FOLDER" in settings.given and "UPLOAD_FOLDER" not in settings.given:
        defaults["upload_folder"] = settings.data_folder / "uploads"
    if "CORS_ORIGINS" not in settings.given and not is_on_loopback(settings.host):
        defaults["cors_origins"] = ()
    if "RATE_LIMIT" not in settings.given and settings.auth == "keys":
        defaults["rate_limit"] = DEFAULT_RATE_LIMIT
    if "MAX_REQUEST_SIZE" not in settings.given:
        defaults["max_request_size"] = 20 * settings.max_upload_size
    if "REDIS_PREFIX" not in settings.given:
        defaults["redis_prefix"] = f"clustr:{settings.mongodb_database}"
    return dataclasses.replace(settings, **defaults)


# The prefix of plugins' variables, which are checked once the plugins are found.
PLUGIN_PREFIX = "CLUSTR_PLUGIN__"
# What `clustr.client` reads the key from.
KEY_OF_CLIENT = "CLUSTR_KEY"
# What Kubernetes sets in every container for each service, here for those called clustr or clustr-…:
# https://kubernetes.io/docs/concepts/services-networking/service/#environment-variables
KUBERNETES_VARIABLE = re.compile(
    r"CLUSTR(_[A-Z0-9_]+)?_(SERVICE_HOST|SERVICE_PORT(_[A-Z0-9_]+)?"
    r"|PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)"
)


def describe_unknown_variables(
    environment: Mapping[str, str], also: Iterable[str] = ()
) -> Iterator[str]:
    """A sentence for each variable that looks like a setting and is none, with a suggestion.

    A variable looks like one when it begins with `CLUSTR_`, or is one slip from a setting's name.

    Args:
        environment: all variables, by name.
        also: names of variables that are read besides the settings.
    """
    known = {field.name.upper() for field in declared_settings()} | {KEY_OF_CLIENT, *also}
    for name in sorted(environment.keys() - known):
        shown = failure_messages.as_plain_text(name)[: failure_messages.LONGEST_NAME]
        if name.startswith("CLUSTR_"):
            if not name.startswith(PLUGIN_PREFIX) and not _is_kubernetes_variable(
                name, environment[name]
            ):
                advice = _suggest_setting(name.removeprefix("CLUSTR_"), known)
                yield f"{shown} is no setting; {advice}"
        elif suggestion := _find_closest_setting(name, known):
            yield f"{shown} is no setting; did you mean {suggestion}?"


def _is_kubernetes_variable(name: str, value: str) -> bool:
    if name.endswith("_PORT") and re.match("(tcp|udp|sctp)://", value):
        return True
    return KUBERNETES_VARIABLE.fullmatch(name) is not None


def _suggest_setting(name: str, known: Iterable[str]) -> str:
    """What to use instead of a variable that begins with `CLUSTR_`; `name` is without that."""
    if suggestion := _find_closest_setting(name, known):
        return f"did you mean {suggestion}?"
    kind, *key = name.split("__")
    if key and failure_messages.is_one_typo_apart(kind, "PLUGIN"):
        return f"did you mean {PLUGIN_PREFIX}{'__'.join(key)}?"
    return f"settings have no prefix, and those of a plugin are {PLUGIN_PREFIX}<NAME>__<KEY>"


def _find_closest_setting(name: str, known: Iterable[str]) -> str | None:
    """The setting of this name, or one that differs by one slip or in case; None if none does."""
    name = name.upper()
    close = [other for other in sorted(known) if failure_messages.is_one_typo_apart(name, other)]
    return name if name in close else next(iter(close), None)


def require_auth_choice(settings: Settings, hosts: Iterable[str]) -> None:
    """Refuse to serve others without having been told who may come.

    Args:
        hosts: the names or addresses to listen on.

    Raises:
        InvalidSettings: others can come, and `AUTH` is not set.
    """
    if "AUTH" in settings.given:
        return
    for reason in _why_others_come(settings, hosts):
        raise InvalidSettings(
            {
                "AUTH": f"AUTH is not set, and {reason}: set AUTH=keys, so that every request needs "
                "a key, or AUTH=off, if a proxy in front checks who comes or everybody may do "
                "everything"
            }
        )


def _why_others_come(settings: Settings, hosts: Iterable[str]) -> Iterator[str]:
    """What says that others than those of this machine come, also through a proxy on it."""
    for host in hosts:
        if not is_on_loopback(host):
            yield f"others can reach {host}"
    if settings.proxy_hops:
        yield f"PROXY_HOPS={settings.proxy_hops} says that others come through a proxy"
    if settings.accel_redirect:
        yield "ACCEL_REDIRECT says that others come through nginx"
    for host in settings.allowed_hosts:
        if not is_on_loopback(host.strip("[]")):
            yield f"ALLOWED_HOSTS says that others call it {host}"
    host_of_base = urlsplit(settings.base_url).hostname
    if host_of_base and not is_on_loopback(host_of_base):
        yield f"BASE_URL says that others call it {host_of_base}"


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
