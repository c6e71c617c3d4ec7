"""gunicorn's settings: the names at the end of this module are gunicorn's own.

    gunicorn -c python:clustr.supervisor.gunicorn_settings wsgi:app

What a deployer changes goes into `config/gunicorn.conf.py`, which begins with these. What is not
set here stays as gunicorn has it, such as its limits for request lines and headers, and that it
refuses or drops what could be read in two ways.
"""

import json
import logging
import mmap
import os
import signal
import socket
import struct
import sys
import time
from uuid import uuid4

from gunicorn import util
from gunicorn.arbiter import Arbiter
from gunicorn.workers.gthread import ThreadWorker

from clustr.domain.errors import StartUpError
from clustr.imaging import decode_limits
from clustr.logs import logger, logging_config
from clustr.settings import read_settings
from clustr.supervisor.gunicorn_worker import BoundedThreadWorker
from clustr.supervisor.processes import die_with_parent

SILENCE_SECONDS = 30
RETRY_SECONDS = 1.0

log = logger(__name__)

_start_failed = mmap.mmap(-1, 1)  # shared with the workers, which are forks
_serves = mmap.mmap(-1, 1)


class Worker(BoundedThreadWorker):
    """Our worker; why it cannot start it says in one line."""

    def load_wsgi(self) -> None:
        """Load the application; if it cannot start, say why in one line.

        Then end the rest, unless one has served already: what it needs went away since, such as the
        file system of the uploads, and the others can do without. gunicorn has an exit code for a
        start that fails, but fails itself when a second worker ends with it.
        """
        try:
            super().load_wsgi()
            _serves[0] = 1
            log.info("web_process_ready", pid=self.pid)
        except StartUpError as error:
            sys.stderr.write(f"clustr: {error}\n")
            if _serves[0]:
                time.sleep(RETRY_SECONDS)
                sys.exit()  # gunicorn starts another.
            _start_failed[0] = 1
            os.kill(self.ppid, signal.SIGTERM)
            sys.exit()


def write_problem(client: socket.socket, status: int, reason: str, detail: str) -> None:
    """Answer what cannot be read as a request, in the form and with the headers of other errors.

    Nothing of the application has seen it; what it would have added has to be said here again.
    """
    request_id = uuid4().hex
    log.info("request_unreadable", status=status, detail=detail, request_id=request_id)
    problem = {
        "type": f"urn:clustr:problem:{reason.lower().replace(' ', '_')}",
        "title": reason,
        "status": status,
        "detail": "This cannot be read as a request." if status < 500 else reason,
        "instance": "",
        "request_id": request_id,
    }
    body = json.dumps(problem).encode()
    head = (
        f"HTTP/1.1 {status} {reason}\r\n"
        "Connection: close\r\n"
        "Content-Type: application/problem+json\r\n"
        f"Content-Length: {len(body)}\r\n"
        f"X-Request-ID: {request_id}\r\n"
        "X-Content-Type-Options: nosniff\r\n"
        "Content-Security-Policy: default-src 'none'; sandbox\r\n"
        "Referrer-Policy: no-referrer\r\n\r\n"
    )
    util.write_nonblock(client, head.encode() + body)


# gunicorn would send a page that repeats what was sent, and has no place to give it another.
util.write_error = write_problem


def on_exit(server: Arbiter) -> None:
    """Give the exit code of a start that failed."""
    if _start_failed[0]:
        sys.exit(Arbiter.APP_LOAD_ERROR)


class NoSilentClients(logging.Filter):
    """Drops the traceback that gunicorn logs for each client that stays silent for too long."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether to log it."""
        error = record.exc_info[1] if record.exc_info else None
        return not isinstance(error, BlockingIOError | TimeoutError)


def when_ready(server: Arbiter) -> None:
    """Close connections of clients that fall silent in the middle of a request or of an answer.

    gunicorn waits for them without end, each holding a thread. How long to wait for something to
    receive (socket(7)) and to get rid of what is sent (tcp(7)), the accepted sockets inherit.
    """
    for listener in server.LISTENERS:
        limit = struct.pack("@ll", SILENCE_SECONDS, 0)
        listener.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, limit)
        if listener.sock.family != socket.AF_UNIX:
            milliseconds = SILENCE_SECONDS * 1000
            listener.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, milliseconds)


def post_fork(server: Arbiter, worker: ThreadWorker) -> None:
    die_with_parent(server.pid)
    decode_limits.share_with(server.cfg.workers)


try:
    _settings = read_settings()
except StartUpError as _error:
    sys.exit(f"clustr: {_error}")


def _address(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


bind = _address(_settings.host, _settings.port)
workers = _settings.web_workers
worker_class = Worker
threads = 80  # those that send slowly hold three quarters of them at most
worker_connections = 1000
keepalive = 15
timeout = 60  # for a process whose main thread does not react; a slow request is not that
graceful_timeout = 5

# Heartbeats are files; on a disk they could wait for it.
worker_tmp_dir = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # noqa: S108

control_socket_disable = True

# Whom to believe in `X-Forwarded-*` is the application's to decide (PROXY_HOPS).
secure_scheme_headers: dict[str, str] = {}
forwarder_headers = ""

accesslog = None  # the application logs its requests itself, with their ids
logconfig_dict = logging_config(_settings.log_format, _settings.log_level)
logconfig_dict["filters"]["silent"] = {"()": NoSilentClients}
_level = "INFO" if _settings.log_level == "debug" else _settings.log_level.upper()
_logger = {"level": _level, "propagate": True, "filters": ["silent"]}
logconfig_dict["loggers"]["gunicorn.error"] = _logger
