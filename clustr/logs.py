"""Logs: one structured line per event, as JSON or, on a terminal, for people.

    log = logs.logger(__name__)
    log.info("upload_stored", upload_id=upload.id, duration_ms=12.5)

What is bound with `structlog.contextvars.bind_contextvars` (the request id, for one) is in every
line that follows. Lines of other libraries' loggers come out in the same shape.

A line says nothing that is secret, and nothing that a terminal would obey: see `presentable`.
"""

import logging
import logging.config
import sys
import textwrap
import traceback
from collections.abc import Mapping
from datetime import datetime
from types import TracebackType
from typing import Any

import structlog

from clustr.domain.secrets import HIDDEN, Secret, is_secret, without_secrets

# The keys that structlog's processors set, not the caller: they need no check.
OWN_KEYS = ("level", "logger", "timestamp")
MULTILINE_KEYS = ("exception", "stack")
# What is left out on a terminal, unless LOG_LEVEL is `debug`.
ROUTINE_EVENTS = ("request", "analysis_succeeded", "analysis_skipped")
MACHINE_KEYS = ("logger", "request_id", "run")
MAX_FRAMES = 8
LONGEST_TRACEBACK = 4000
LONGEST_TEXT = 2000
MAX_DEPTH = 4
MAX_INTEGER_BITS = 1000
PLAIN_TYPES = (bool, int, float, type(None))

ExceptionInfo = tuple[type[BaseException], BaseException, TracebackType | None]


def logger(name: str) -> structlog.stdlib.BoundLogger:
    return structlog.stdlib.get_logger(name)


def configure(log_format: str, level: str) -> None:
    """Send every log line of this process to standard error.

    Args:
        log_format: `json`, `console`, or `auto`, which is `console` on a terminal.
        level: the least severe level to write, such as `info`.
    """
    logging.config.dictConfig(logging_config(log_format, level))
    _skip_unused_record_fields()
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *SHARED_PROCESSORS[:-1],
            structlog.processors.StackInfoRenderer(),
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )


def _skip_unused_record_fields() -> None:
    """Switch off what `logging` collects for each record and no line shows, such as its source.

    That takes a third of the time of a line. The switches are documented in the Logging HOWTO of
    Python, under "Optimization".
    """
    logging._srcfile = None
    logging.logThreads = logging.logProcesses = False
    logging.logMultiprocessing = False
    logging.logAsyncioTasks = False  # type: ignore[attr-defined]  # Python 3.11 lacks it.


def logging_config(log_format: str, level: str) -> dict[str, Any]:
    """The configuration for `logging.config.dictConfig`, for gunicorn, which calls it itself.

    Args:
        log_format, level: as for `configure`.
    """
    for_console = log_format == "console" or (log_format == "auto" and sys.stderr.isatty())
    is_brief = for_console and level != "debug"
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "filters": {"routine_events": {"()": RoutineEventFilter}},
        "formatters": {
            "structured": {
                "()": structlog.stdlib.ProcessorFormatter,
                "foreign_pre_chain": SHARED_PROCESSORS,
                "processors": [
                    structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                    structlog.processors.ExceptionRenderer(short_traceback),
                    presentable,
                    *([_shorten_for_console] if is_brief else []),
                    *(_console_processors() if for_console else _json_processors()),
                ],
            }
        },
        "handlers": {
            "stderr": {
                "class": "logging.StreamHandler",
                "stream": "ext://sys.stderr",
                "formatter": "structured",
                "filters": ["routine_events"] if is_brief else [],
            }
        },
        "root": {"handlers": ["stderr"], "level": level.upper()},
        "loggers": {
            # At `debug` it logs all documents that it reads and writes: captions, and secrets.
            "pymongo": {"level": "WARNING", "propagate": True},
            # Clustr logs itself what RQ logs at `info`.
            "rq": {"level": "WARNING", "propagate": True},
            "rq.worker": {"level": "WARNING", "propagate": True},
            "rq.job": {"level": "WARNING", "propagate": True},
        },
    }


class RoutineEventFilter(logging.Filter):
    """Drops the lines that are logged for each request and upload while all goes well."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether to log it."""
        event = record.msg.get("event") if isinstance(record.msg, dict) else None
        return record.levelno > logging.INFO or event not in ROUTINE_EVENTS


def _shorten_for_console(_logger: Any, _method: str, line: dict[str, Any]) -> dict[str, Any]:
    """The line with the time of day in place of the timestamp, and without `MACHINE_KEYS`."""
    moment = datetime.fromisoformat(line["timestamp"]).astimezone()
    rest = {key: value for key, value in line.items() if key not in MACHINE_KEYS}
    return {**rest, "timestamp": f"{moment:%H:%M:%S}"}


def _console_processors() -> list[Any]:
    # Where rich is installed, the default formatter shows the variables of every frame.
    formatter = structlog.dev.plain_traceback
    colors = sys.stderr.isatty()
    renderer = structlog.dev.ConsoleRenderer(
        colors=colors, exception_formatter=formatter, pad_event_to=0, pad_level=False
    )
    return [_indent_traceback, renderer]


def _indent_traceback(_logger: Any, _method: str, line: dict[str, Any]) -> dict[str, Any]:
    """The line with its traceback indented, so that no text in it can pass for another line."""
    indented = {key: textwrap.indent(line[key], "  ") for key in MULTILINE_KEYS if key in line}
    return line | indented


def _json_processors() -> list[Any]:
    return [structlog.processors.JSONRenderer(ensure_ascii=True)]


def short_traceback(exc_info: ExceptionInfo) -> str:
    """The innermost frames of an exception and of its causes, without any variable's value."""
    kind, error, trace = exc_info
    formatter = traceback.TracebackException(kind, error, trace, limit=-MAX_FRAMES, compact=True)
    text = _presentable_lines("".join(formatter.format()).rstrip())
    return text if len(text) <= LONGEST_TRACEBACK else f"…{text[-LONGEST_TRACEBACK:]}"


def presentable(_logger: Any, _method: str, line: Mapping[str, Any]) -> dict[str, Any]:
    """A structlog processor: the line without secrets, huge values and control characters.

    Every value of the line it returns can be written as JSON.
    """
    presented = {}
    for key, value in line.items():
        if key in OWN_KEYS:
            presented[key] = value
        else:
            presented[_describe_value(key)] = (
                _presentable_lines if key in MULTILINE_KEYS else _make_presentable
            )(value)
    return presented


def _make_presentable(value: Any, depth: int = 0) -> Any:
    if isinstance(value, str):
        return _presentable_text(value)
    if isinstance(value, PLAIN_TYPES):
        # Python refuses to write a whole number of more than 4,300 digits.
        if isinstance(value, int) and value.bit_length() > MAX_INTEGER_BITS:
            return "a huge number"
        return HIDDEN if is_secret(value) else value
    if depth < MAX_DEPTH:
        if isinstance(value, dict):
            pairs = (
                (_describe_value(key), _make_presentable(item, depth + 1))
                for key, item in value.items()
            )
            return dict(pairs)
        if isinstance(value, list | tuple | set | frozenset):
            return [_make_presentable(item, depth + 1) for item in value]
    return _describe_value(value)


def _describe_value(value: Any) -> str:
    """The text of a value of any type, also of one whose `__str__` raises."""
    try:
        return _presentable_text(value if isinstance(value, str) else str(value))
    except BaseException:  # It may be an object of a plugin's own making.
        return f"a {type(value).__name__} that does not say what it is"


def _presentable_text(value: str) -> str:
    if isinstance(value, Secret):
        return repr(value)
    if len(value) > LONGEST_TEXT:
        value = f"{value[:LONGEST_TEXT]}…"
    return _escape_unprintable(without_secrets(value))


def _presentable_lines(text: str) -> str:
    """A text of several lines, without secrets, each line with its control characters escaped."""
    return "\n".join(map(_escape_unprintable, without_secrets(str(text)).split("\n")))


def _escape_unprintable(text: str) -> str:
    """The text with control characters, direction marks and lone surrogates escaped.

    A terminal obeys control characters, and direction marks change how the line reads.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else _escape_character(c) for c in text)


def _escape_character(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")


SHARED_PROCESSORS: list[Any] = [
    structlog.contextvars.merge_contextvars,
    structlog.stdlib.add_log_level,
    structlog.stdlib.add_logger_name,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
    structlog.stdlib.ExtraAdder(),
]
