"""gunicorn's settings: the names at the end of this module are gunicorn's own.

    gunicorn -c python:clustr.gunicorn_settings wsgi:app

What a deployer changes goes into `config/gunicorn.conf.py`, which begins with these. What is not
set here stays as gunicorn has it, such as its limits for request lines and headers, and that it
refuses or drops what could be read in two ways.
"""

import os
import socket
import struct
import sys

from gunicorn.arbiter import Arbiter
from gunicorn.errors import AppImportError
from gunicorn.workers.gthread import ThreadWorker

from clustr.errors import StartUpError
from clustr.logs import logging_config
from clustr.processes import die_with_parent
from clustr.settings import read_settings

SILENCE_SECONDS = 30


class Worker(ThreadWorker):
    def load_wsgi(self) -> None:
        """Load the application; when it cannot start, say so in one line and do not try again."""
        try:
            super().load_wsgi()
        except StartUpError as error:
            raise AppImportError(f"clustr: {error}") from error


def when_ready(server: Arbiter) -> None:
    """Close connections that are silent in the middle of a request or of an answer.

    gunicorn waits for them without end, each holding a thread. Accepted sockets inherit these
    time limits from the listening one (socket(7), on Linux).
    """
    limit = struct.pack("@ll", SILENCE_SECONDS, 0)
    for listener in server.LISTENERS:
        for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
            listener.sock.setsockopt(socket.SOL_SOCKET, option, limit)


def post_fork(server: Arbiter, worker: ThreadWorker) -> None:
    die_with_parent(server.pid)


try:
    _settings = read_settings()
except StartUpError as _error:
    sys.exit(f"clustr: {_error}")


def _address(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


bind = _address(_settings.host, _settings.port)
workers = _settings.web_workers
worker_class = Worker
threads = 80  # slow clients hold one each; two processes serve on beside 64 of them, measured
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
logconfig_dict["loggers"]["gunicorn.error"] = {"level": "INFO", "propagate": True}
