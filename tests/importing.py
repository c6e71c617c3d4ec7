"""What tests of `clustr import` use: a folder, the command, and a proxy that loses answers."""

import csv
import itertools
import json
import re
import socket
import subprocess
import threading
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import photographs
from socket_servers import Server
from web_side import WebSide
from workshop import Program

_numbers = itertools.count()


def another_picture() -> bytes:
    """A picture that no other test has."""
    return photographs.unique(number=next(_numbers))


class Import:
    """A folder with pictures, and imports of it into a service.

    Attributes:
        folder: what is imported.
    """

    def __init__(self, web: WebSide, place: Path, key: str):
        self.web = web
        self.folder = place / "pictures"
        self.folder.mkdir()
        self._report = place / "report.csv"
        self._environment = {"CLUSTR_KEY": key, "XDG_CACHE_HOME": str(place)}

    def add(self, name: str, content: bytes | str | None = None) -> Path:
        """Write a file, by default a picture, whose name may contain folders."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        content = another_picture() if content is None else content
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    def add_many(self, count: int) -> set[str]:
        """Write so many pictures; their names."""
        names = {f"{self.folder.parent.name}-{number}.jpg" for number in range(count)}
        for name in names:
            self.add(name)
        return names

    def add_photographs(self, count: int) -> dict[str, str]:
        """Write so many pieces of photographs, each with a caption beside it; by their names."""
        captions = {f"{n}.jpg": f"Picture {n}: »of {count}«" for n in range(count)}
        for name, caption in captions.items():
            self.add(name, photographs.piece(next(_numbers)))
            self.add(f"{name}.json", json.dumps({"title": name, "description": caption}))
        return captions

    def arguments(self, *more: str, url: str | None = None) -> list[str]:
        report = ["--report", str(self._report)]
        return ["import", str(self.folder), "--url", url or self.web.url, *report, *more]

    def run(
        self, *more: str, url: str | None = None, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        """Import the folder, to the end."""
        arguments = self.arguments(*more, url=url)
        return self.web.workshop.command(*arguments, **{**self._environment, **environment})

    def start(self, *more: str, url: str | None = None) -> Program:
        """Begin to import the folder."""
        command = ["-m", "clustr", *self.arguments(*more, url=url)]
        return self.web.workshop.run(*command, **self._environment)

    def report(self) -> dict[str, tuple[str, str]]:
        """The report: for each file, by its name, the code and why."""
        with self._report.open(newline="") as file:
            return {Path(r["path"]).name: (r["code"], r["detail"]) for r in csv.DictReader(file)}

    def has_report(self) -> bool:
        return self._report.exists()

    def uploads(self) -> list[dict[str, Any]]:
        """What the service has of the files in the folder, as it is stored."""
        hashes = [sha256(p.read_bytes()).hexdigest() for p in self.folder.rglob("*") if p.is_file()]
        return [*self.web.workshop.collection.find({"sha256": {"$in": hashes}})]

    def count(self, tag: str) -> int:
        """How many uploads with this tag the service has."""
        return self.web.workshop.collection.count_documents({"tags": tag})

    def upload(self, name: str) -> dict[str, Any]:
        """The one upload of the file with this name."""
        content = (self.folder / name).read_bytes()
        (found,) = self.web.workshop.collection.find({"sha256": sha256(content).hexdigest()})
        return found


def counts(ran: subprocess.CompletedProcess[str]) -> dict[str, int]:
    """The table at the end of an import."""
    rows = re.findall(r"^ *([\d,]+) +(?:[\d.]+ \S*[bB]\S* +)?(\S.*?) *$", ran.stdout, re.MULTILINE)
    return {what: int(count.replace(",", "")) for count, what in rows}


class Proxy(Server):
    """A proxy in front of a service, which may lose answers.

    Args:
        treat: called with the number of each request to `path`, from 1, once the service has
            answered it; what it returns is sent instead of the answer, None to send the answer.
    """

    def __init__(self, url: str, treat: Callable[[int], bytes | None], path: str = "/api/upload"):
        address = urlsplit(url)
        self.service = (address.hostname, address.port)
        self.treat = treat
        self.path = path.encode()
        self.requests = 0
        self._counting = threading.Lock()
        super().__init__(self._forward)

    def _forward(self, _server: Server, connection: socket.socket) -> None:
        """Pass one request on, and its answer back."""
        received = b""
        while b"\r\n\r\n" not in received:
            received += (data := connection.recv(65536))
            if not data:
                return
        begin, _, rest = received.partition(b"\r\n\r\n")
        begin = (
            re.sub(rb"(?i)\r\nConnection: [^\r]*", b"", begin) + b"\r\nConnection: close\r\n\r\n"
        )
        length = re.search(rb"(?i)\r\nContent-Length: (\d+)", begin)
        left = int(length[1]) - len(rest) if length else 0
        with socket.create_connection(self.service, timeout=30) as onward:
            onward.sendall(begin + rest)
            while left > 0:
                onward.sendall(data := connection.recv(65536))
                left -= len(data)
            answer = b"".join(iter(lambda: onward.recv(65536), b""))
        self.reply(connection, begin, answer)

    def reply(self, connection: socket.socket, begin: bytes, answer: bytes) -> None:
        """Send what the service has answered to the request that begins so."""
        if begin.split()[1].partition(b"?")[0] == self.path:
            with self._counting:
                number = self.requests = self.requests + 1
            instead = self.treat(number)
            answer = answer if instead is None else instead
        connection.sendall(answer)


def page(status: str, title: str) -> bytes:
    """A page of HTML, as proxies answer."""
    body = f"<html><head><title>{title}</title></head><body><hr>nginx</body></html>"
    lines = [f"HTTP/1.1 {status}", "Connection: close", f"Content-Length: {len(body)}"]
    return "\r\n".join([*lines, "Content-Type: text/html", "", body]).encode()


def head(status: str, *headers: str) -> bytes:
    """An answer without a body."""
    lines = [f"HTTP/1.1 {status}", "Connection: close", "Content-Length: 0", *headers, "", ""]
    return "\r\n".join(lines).encode()
