"""Sockets that never get to the end of a request, and a proxy in front, as tests need them."""

import os
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from running import start, wait_until

from clustr.supervisor.servers import free_port

# How a slow client begins; what follows of it are single bytes.
BEGINNINGS = {
    "headers": b"POST /api/upload HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Slow: ",
    "bodies": (
        b"POST /api/upload HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 100000\r\n"
        b"Content-Type: multipart/form-data; boundary=b\r\n\r\n--b\r\n"
    ),
    "json": (
        b"POST /api/uploads/exists HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 100000\r\n"
        b"Content-Type: application/json\r\n\r\n{"
    ),
    "nowhere": (
        b"POST /api/nowhere HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 100000\r\n\r\nx"
    ),
    "idle": b"",
}


@contextmanager
def slow_sockets(url: str, kind: str, count: int) -> Iterator[list[socket.socket]]:
    """Hold so many connections open, each sending a byte every other second, or nothing."""
    address = urlsplit(url)
    done = threading.Event()
    with ExitStack() as opened:
        sockets = []
        for _ in range(count):
            connection = socket.create_connection((address.hostname, address.port), timeout=60)
            sockets.append(opened.enter_context(connection))
            connection.sendall(BEGINNINGS[kind])

        def trickle() -> None:
            while not done.wait(2):
                for connection in sockets:
                    try:
                        connection.send(b"x" if kind != "idle" else b"")
                    except OSError:
                        continue  # the server has had enough of it, as it should

        thread = threading.Thread(target=trickle)
        thread.start()
        try:
            yield sockets
        finally:
            done.set()
            thread.join()


@contextmanager
def slow_to_hang_up(url: str, count: int) -> Iterator[None]:
    """Run so many clients that read an answer to its end and close 3 s later, again and again."""
    address = urlsplit(url)
    done = threading.Event()
    answered = threading.Semaphore(0)

    def ask_again_and_again() -> None:
        while not done.is_set():
            with socket.create_connection((address.hostname, address.port), timeout=60) as client:
                client.sendall(b"GET /api/health/live HTTP/1.1\r\nConnection: close\r\n")
                client.sendall(b"Host: %s\r\n\r\n" % address.netloc.encode())
                while client.recv(65536):
                    pass
                answered.release()
                done.wait(3)

    threads = [threading.Thread(target=ask_again_and_again) for _ in range(count)]
    for thread in threads:
        thread.start()
    try:
        for _ in threads:
            assert answered.acquire(timeout=60)
        yield
    finally:
        done.set()
        for thread in threads:
            thread.join()


@contextmanager
def nginx(
    program: str,
    folder: Path,
    upstream: str,
    store: Path | None = None,
    connections: int = 1000,
    below: str = "",
) -> Iterator[str]:
    """Run nginx with the configuration that is shipped, in front of a service; its address.

    Args:
        store: the service's folder of uploads, for nginx to send files from.
        connections: how many one client may have; all clients of a test have the same address.
        below: the path of another site below which the service is, as the configuration explains.
    """
    port = free_port()
    shipped = (Path(__file__).parent.parent / "config" / "nginx.conf").read_text()
    assert "server 127.0.0.1:5000;" in shipped and "listen 80;" in shipped
    here = shipped.replace("127.0.0.1:5000", urlsplit(upstream).netloc)
    here = here.replace("listen 80", f"listen 127.0.0.1:{port}")
    assert "server_name images.example.com;" in here and "clustr_connections 100;" in here
    here = here.replace("images.example.com;", "images.example.com 127.0.0.1 localhost;")
    here = here.replace("clustr_connections 100;", f"clustr_connections {connections};")
    logged = "access_log /var/log/nginx/access.log clustr;"
    assert logged in here
    here = here.replace(logged, f"access_log {folder}/access.log clustr;")
    assert "error_log /var/log/nginx/error.log crit;" in here
    here = here.replace("/var/log/nginx/error.log", f"{folder}/error.log")
    if below:
        assert "location / {" in here and "proxy_pass http://clustr;" in here
        here = here.replace("location / {", f"location {below}/ {{")
        here = here.replace("proxy_pass http://clustr;", "proxy_pass http://clustr/;")
        here = here.replace('X-Forwarded-Prefix ""', f"X-Forwarded-Prefix {below}")
    if store:
        assert "alias /srv/clustr/uploads/;" in shipped
        here = here.replace("/srv/clustr/uploads/", f"{store}/")
    for name in ("body", "proxy", "fastcgi", "uwsgi", "scgi"):
        (folder / name).mkdir()
    (folder / "nginx.conf").write_text(
        "daemon off;\nworker_processes 1;\n"
        # Or root's nginx would serve as somebody who cannot read the folders of the tests.
        f"{'user root;' if os.geteuid() == 0 else ''}\n"
        f"pid {folder}/nginx.pid;\nerror_log {folder}/error.log;\n"
        "events { worker_connections 1024; }\n"
        "http {\naccess_log off;\n"
        f"client_body_temp_path {folder}/body;\nproxy_temp_path {folder}/proxy;\n"
        f"fastcgi_temp_path {folder}/fastcgi;\nuwsgi_temp_path {folder}/uwsgi;\n"
        f"scgi_temp_path {folder}/scgi;\n{here}\n}}\n"
    )
    command = [program, "-e", str(folder / "error.log"), "-c", str(folder / "nginx.conf")]
    running = start(command)
    try:
        wait_until(lambda: _listens(port), 60, "nginx")
        yield f"http://127.0.0.1:{port}"
    finally:
        running.terminate()
        running.wait(60)


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=60).close()
    except OSError:
        return False
    return True
