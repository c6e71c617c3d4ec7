"""Logs: one structured line per event, as JSON or, on a terminal, for people.

    log = logs.logger(__name__)
    log.info("upload_stored", upload_id=upload.id, duration_ms=12.5)

What is bound with `structlog.contextvars.bind_contextvars` (the request id, for one) is in every
line that follows. Lines of other libraries' loggers come out in the same shape.
"""

import logging.config
import sys
from typing import Any

import structlog

SHARED = [
    structlog.contextvars.merge_contextvars,
    structlog.stdlib.add_log_level,
    structlog.stdlib.add_logger_name,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
    structlog.stdlib.ExtraAdder(),
]


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
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {
            "structured": {
                "()": structlog.stdlib.ProcessorFormatter,
                "foreign_pre_chain": SHARED,
                "processors": [
                    structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                    *(_for_people() if for_people else _for_machines()),
                ],
            }
        },
        "handlers": {
            "stderr": {
                "class": "logging.StreamHandler",
                "stream": "ext://sys.stderr",
                "formatter": "structured",
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


def _for_people() -> list[Any]:
    return [structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())]


def _for_machines() -> list[Any]:
    return [
        structlog.processors.format_exc_info,
        structlog.processors.JSONRenderer(ensure_ascii=True, default=str),
    ]
