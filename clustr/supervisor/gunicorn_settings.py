"""gunicorn's settings: the names at the end of this module are gunicorn's own.

    gunicorn -c python:clustr.supervisor.gunicorn_settings wsgi:app

Changes for a deployment go into `config/gunicorn.conf.py`, which starts from these. What is not set
here keeps gunicorn's default, such as the limits for request lines and headers, and the refusal of
ambiguous requests.
"""

import gc
import json
import logging
import mmap
import os
import resource
import signal
import socket
import struct
import sys
import time
from importlib import import_module
from uuid import uuid4

from gunicorn import util
from gunicorn.arbiter import Arbiter
from gunicorn.workers.gthread import ThreadWorker

from clustr.domain.errors import StartUpError
from clustr.imaging import decode_limits
from clustr.logs import logger, logging_config
from clustr.settings import read_settings, require_auth_choice
from clustr.supervisor.forking import die_with_parent
from clustr.supervisor.gunicorn_worker import BoundedThreadWorker

SILENCE_SECONDS = 30
RETRY_SECONDS = 1.0

log = logger(__name__)

_start_failed = mmap.mmap(-1, 1)  # shared with the workers, which are forks
_has_served = mmap.mmap(-1, 1)


class Worker(BoundedThreadWorker):
    """Clustr's worker, which reports in one line why it cannot start."""

    def load_wsgi(self) -> None:
        """Load the application; if it cannot start, report why in one line.

        Then end gunicorn, unless a worker has served already: in that case something became
        unavailable since, such as the file system of the uploads, and the other workers go on.
        gunicorn has an exit code for a start that fails, but crashes when a second worker ends with
        it.
        """
        try:
            super().load_wsgi()
            _has_served[0] = 1
            log.info("web_process_ready", pid=self.pid)
        except StartUpError as error:
            sys.stderr.write(f"clustr: {error}\n")
            if _has_served[0]:
                time.sleep(RETRY_SECONDS)
                sys.exit()  # gunicorn starts another.
            _start_failed[0] = 1
            os.kill(self.ppid, signal.SIGTERM)
            sys.exit()


def write_problem(client: socket.socket, status: int, reason: str, detail: str) -> None:
    """Answer what cannot be read as a request, in the form and with the headers of other errors.

    The application does not see such a request, so the headers that it adds are repeated here.

    Args:
        status, reason: of the status line.
        detail: gunicorn's error, for the log only.
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


# gunicorn would send a page that repeats parts of the request, and has no setting to change that.
util.write_error = write_problem


def on_starting(server: Arbiter) -> None:
    """Load the application's modules before the workers are forked, which then share their memory.

    With `--reload`, each worker loads them itself, or a change of them would have no effect.

    Each file that is being received is open until its request ends, and there may be more of them
    than the 1,024 that are the usual soft limit (RLIMIT_NOFILE of setrlimit(2)).
    """
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    addresses = server.cfg.address  # `bind` of a deployment may be another than HOST
    try:
        require_auth_choice(_settings, [a[0] for a in addresses if isinstance(a, tuple)])
    except StartUpError as error:
        sys.exit(f"clustr: {error}")
    if not server.cfg.reload:
        import_module("clustr.app")
        gc.freeze()  # A collection would write to each object, and so copy it.


def on_exit(server: Arbiter) -> None:
    """Exit with gunicorn's code for a failed start, if a worker could not load the application."""
    if _start_failed[0]:
        sys.exit(Arbiter.APP_LOAD_ERROR)


class SilentClientFilter(logging.Filter):
    """Drops the traceback that gunicorn logs for each client that stays silent for too long."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether to log it."""
        error = record.exc_info[1] if record.exc_info else None
        return not isinstance(error, BlockingIOError | TimeoutError)


def when_ready(server: Arbiter) -> None:
    """Limit how long connections wait for clients that stop sending or receiving in the middle.

    gunicorn waits for them without end, and each holds a thread. The accepted sockets inherit the
    time-outs for receiving (SO_RCVTIMEO of socket(7)) and for unacknowledged data
    (TCP_USER_TIMEOUT of tcp(7)).
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


def _bind_address(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


bind = _bind_address(_settings.host, _settings.port)
workers = _settings.web_workers
worker_class = Worker
# Clients that send slowly hold three fifths of them at most, and requests that wait a fifth.
threads = 100
worker_connections = 1000
keepalive = 15
timeout = 60  # for a process whose main thread does not react; a slow request is not that
graceful_timeout = 5

# gunicorn's heartbeats are files; on a disk, a slow disk would delay them.
worker_tmp_dir = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # noqa: S108

control_socket_disable = True

# The application decides which `X-Forwarded-*` to trust (PROXY_HOPS), not gunicorn.
secure_scheme_headers: dict[str, str] = {}
forwarder_headers = ""

accesslog = None  # the application logs its requests itself, with their ids
logconfig_dict = logging_config(_settings.log_format, _settings.log_level)
logconfig_dict["filters"]["silent"] = {"()": SilentClientFilter}
_level = "INFO" if _settings.log_level == "debug" else _settings.log_level.upper()
_logger = {"level": _level, "propagate": True, "filters": ["silent"]}
logconfig_dict["loggers"]["gunicorn.error"] = _logger
