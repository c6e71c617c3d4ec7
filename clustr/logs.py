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

# What this module, and not what is said, puts into a line.
OWN_KEYS = ("level", "logger", "timestamp")
SEVERAL_LINES = ("exception", "stack")
# What people at a terminal do without, unless they ask for all of it with LOG_LEVEL=debug.
AS_IT_SHOULD = ("request", "analysis_succeeded", "analysis_skipped")
FOR_MACHINES = ("logger", "request_id", "run")
MOST_FRAMES = 8
LONGEST_TRACEBACK = 4000
LONGEST_TEXT = 2000
DEEPEST = 4
MOST_BITS = 1000
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
    _leave_out_what_no_line_says()
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *SHARED[:-1],
            structlog.processors.StackInfoRenderer(),
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )


def _leave_out_what_no_line_says() -> None:
    """Not look for the place in the code and the like: that takes a third of the time of a line.

    The documentation of `logging` has these switches, under "Optimization".
    """
    logging._srcfile = None
    logging.logThreads = logging.logProcesses = False
    logging.logMultiprocessing = logging.logAsyncioTasks = False


def logging_config(log_format: str, level: str) -> dict[str, Any]:
    """The configuration for `logging.config.dictConfig`, for those who call that themselves."""
    for_people = log_format == "console" or (log_format == "auto" and sys.stderr.isatty())
    briefly = for_people and level != "debug"
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "filters": {"for_people": {"()": ForPeople}},
        "formatters": {
            "structured": {
                "()": structlog.stdlib.ProcessorFormatter,
                "foreign_pre_chain": SHARED,
                "processors": [
                    structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                    structlog.processors.ExceptionRenderer(short_traceback),
                    presentable,
                    *([_brief] if briefly else []),
                    *(_for_people() if for_people else _for_machines()),
                ],
            }
        },
        "handlers": {
            "stderr": {
                "class": "logging.StreamHandler",
                "stream": "ext://sys.stderr",
                "formatter": "structured",
                "filters": ["for_people"] if briefly else [],
            }
        },
        "root": {"handlers": ["stderr"], "level": level.upper()},
        "loggers": {
            # They say at `info` what our own lines say better.
            "rq": {"level": "WARNING", "propagate": True},
            "rq.worker": {"level": "WARNING", "propagate": True},
            "rq.job": {"level": "WARNING", "propagate": True},
        },
    }


class ForPeople(logging.Filter):
    """Drops what is said of each upload while all goes well, but for that it was stored."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether to log it."""
        event = record.msg.get("event") if isinstance(record.msg, dict) else None
        return record.levelno > logging.INFO or event not in AS_IT_SHOULD


def _brief(_logger: Any, _method: str, line: dict[str, Any]) -> dict[str, Any]:
    """The line with the time of day alone, and without what only programs can use."""
    moment = datetime.fromisoformat(line["timestamp"]).astimezone()
    kept = {key: value for key, value in line.items() if key not in FOR_MACHINES}
    return {**kept, "timestamp": f"{moment:%H:%M:%S}"}


def _for_people() -> list[Any]:
    # Its default formatter draws the variables of every frame, where rich is installed.
    formatter = structlog.dev.plain_traceback
    colors = sys.stderr.isatty()
    renderer = structlog.dev.ConsoleRenderer(
        colors=colors, exception_formatter=formatter, pad_event_to=0, pad_level=False
    )
    return [_indented, renderer]


def _indented(_logger: Any, _method: str, line: dict[str, Any]) -> dict[str, Any]:
    """The line with its traceback indented: no message in that can pass for a line of its own."""
    several = {key: textwrap.indent(line[key], "  ") for key in SEVERAL_LINES if key in line}
    return line | several


def _for_machines() -> list[Any]:
    return [structlog.processors.JSONRenderer(ensure_ascii=True)]


def short_traceback(exception: ExceptionInfo) -> str:
    """The innermost frames of an exception and of its causes, without any variable's value."""
    kind, error, trace = exception
    found = traceback.TracebackException(kind, error, trace, limit=-MOST_FRAMES, compact=True)
    text = _lines("".join(found.format()).rstrip())
    return text if len(text) <= LONGEST_TRACEBACK else f"…{text[-LONGEST_TRACEBACK:]}"


def presentable(_logger: Any, _method: str, line: Mapping[str, Any]) -> dict[str, Any]:
    """The line with nothing in it that is secret, huge, or an order to a terminal.

    Whatever a value is, it can be written afterwards: a structlog processor.
    """
    shown = {}
    for key, value in line.items():
        if key in OWN_KEYS:
            shown[key] = value
        else:
            shown[_said(key)] = (_lines if key in SEVERAL_LINES else _presentable)(value)
    return shown


def _presentable(value: Any, depth: int = 0) -> Any:
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, PLAIN_TYPES):
        # Python refuses to write a whole number of more than 4,300 digits.
        if isinstance(value, int) and value.bit_length() > MOST_BITS:
            return "a huge number"
        return HIDDEN if is_secret(value) else value
    if depth < DEEPEST:
        if isinstance(value, dict):
            pairs = ((_said(key), _presentable(one, depth + 1)) for key, one in value.items())
            return dict(pairs)
        if isinstance(value, list | tuple | set | frozenset):
            return [_presentable(one, depth + 1) for one in value]
    return _said(value)


def _said(value: Any) -> str:
    """What a value of any type says of itself, if it can."""
    try:
        return _text(value if isinstance(value, str) else str(value))
    except BaseException:  # It may be an object of a plugin's own making.
        return f"a {type(value).__name__} that does not say what it is"


def _text(value: str) -> str:
    if isinstance(value, Secret):
        return repr(value)
    if len(value) > LONGEST_TEXT:
        value = f"{value[:LONGEST_TEXT]}…"
    return _escaped(without_secrets(value))


def _lines(text: str) -> str:
    """A text of several lines, each of them as it may be shown."""
    return "\n".join(map(_escaped, without_secrets(str(text)).split("\n")))


def _escaped(text: str) -> str:
    """The text, with escapes for control characters, marks of direction and halves of characters.

    A terminal would obey the first; the second show a line as something that it is not.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else _escape(c) for c in text)


def _escape(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")


SHARED = [
    structlog.contextvars.merge_contextvars,
    structlog.stdlib.add_log_level,
    structlog.stdlib.add_logger_name,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
    structlog.stdlib.ExtraAdder(),
]
