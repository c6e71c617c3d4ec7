"""gunicorn as Clustr sets it up."""

import os
import socket
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace

import pytest
from fork_server import run_program

from clustr.supervisor import gunicorn_settings
from clustr.supervisor.servers import free_port


def run_gunicorn(folder: Path, settings: str, application: str, **environment: str):
    arguments = ["-m", "gunicorn", "-c", settings, application]
    return run_program(arguments, {"PATH": os.environ["PATH"], **environment}, folder)


@pytest.mark.parametrize(
    "settings", ["config/gunicorn.conf.py", "python:clustr.supervisor.gunicorn_settings"]
)
def test_bad_setting_is_said_in_one_line(settings):
    root = Path(__file__).parent.parent
    ran = run_gunicorn(root, settings, "wsgi:app", PORT="seventy")
    assert ran.returncode != 0
    assert ran.stderr == "clustr: PORT='seventy': expected a whole number\n"


def test_what_it_binds_to_counts_and_not_only_the_setting_host(tmp_path):
    (tmp_path / "own.py").write_text(
        "from clustr.supervisor.gunicorn_settings import *\nbind = ['unix:it.sock', '0.0.0.0:0']\n"
    )
    ran = run_gunicorn(tmp_path, "own.py", "wsgi:app")
    assert ran.returncode != 0
    assert "AUTH is not set, and others can reach 0.0.0.0" in ran.stderr
    assert "Traceback" not in ran.stderr


def test_application_that_cannot_start_says_so_without_a_trace(tmp_path):
    (tmp_path / "unable.py").write_text("""
from clustr.domain.errors import StartUpError
def create():
    raise StartUpError("SOMETHING is missing")
""")
    settings = "python:clustr.supervisor.gunicorn_settings"
    ran = run_gunicorn(tmp_path, settings, "unable:create()", PORT=str(free_port()))
    assert ran.returncode == 4
    assert "clustr: SOMETHING is missing\n" in ran.stderr
    assert "Traceback" not in ran.stderr


def test_as_many_files_may_be_open_as_the_system_allows(tmp_path):
    (tmp_path / "own.py").write_text("""
import resource
from clustr.supervisor.gunicorn_settings import *
bind = "unix:it.sock"
resource.setrlimit(resource.RLIMIT_NOFILE, (256, 512))
""")
    (tmp_path / "told.py").write_text("""
import resource
from clustr.domain.errors import StartUpError
def create():
    raise StartUpError(str(resource.getrlimit(resource.RLIMIT_NOFILE)))
""")
    assert "clustr: (512, 512)\n" in run_gunicorn(tmp_path, "own.py", "told:create()").stderr


def test_connections_of_silent_clients_are_given_up(monkeypatch):
    monkeypatch.setattr(gunicorn_settings, "SILENCE_SECONDS", 1)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        gunicorn_settings.when_ready(SimpleNamespace(LISTENERS=[SimpleNamespace(sock=listener)]))
        with socket.create_connection(listener.getsockname()) as client:
            server, _ = listener.accept()
            with closing(server):
                server.setblocking(True)  # as gunicorn does
                with pytest.raises(BlockingIOError):
                    server.recv(1)
                client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                with pytest.raises(TimeoutError):
                    server.sendall(bytes(100_000_000))


def test_proxies_are_not_believed():
    assert gunicorn_settings.secure_scheme_headers == {}
    assert gunicorn_settings.forwarder_headers == ""
