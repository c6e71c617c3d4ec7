"""One large upload: a TIFF that is mostly padding, with its directory at the end."""

import http.client
import multiprocessing
import os
import struct
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from bench.load import BOUNDARY
from bench.service import Contender

SIDE = 2000  # pixels, so that the picture has 4 megapixels
CHUNK = bytes(1024 * 1024)


@dataclass(frozen=True)
class Large:
    """What one large upload came to.

    Attributes:
        rate: megabytes a second.
        grown: megabytes that the web processes grew by at most, all together.
        written: bytes that they wrote, for each byte of the body.
        worst_wait: milliseconds that another client waited at most for a trivial route.
    """

    rate: float
    grown: float
    written: float
    worst_wait: float


def tiff_parts(size: int) -> Iterator[bytes]:
    """An uncompressed grey TIFF of `size` bytes, in parts."""
    pixels = SIDE * SIDE
    entries = [
        (256, 4, SIDE),  # width
        (257, 4, SIDE),  # height
        (258, 3, 8),  # bits per sample
        (259, 3, 1),  # no compression
        (262, 3, 1),  # black is zero
        (273, 4, 8),  # where the pixels are
        (277, 3, 1),  # samples per pixel
        (278, 4, SIDE),  # rows per strip
        (279, 4, pixels),  # bytes of the strip
    ]
    directory = struct.pack("<H", len(entries))
    for tag, kind, value in entries:
        directory += struct.pack("<HHI", tag, kind, 1) + struct.pack("<I", value)
    directory += struct.pack("<I", 0)
    yield struct.pack("<2sHI", b"II", 42, size - len(directory))
    left = size - 8 - len(directory)
    while left:
        yield CHUNK[: min(left, len(CHUNK))]
        left -= min(left, len(CHUNK))
    yield directory


def large_upload(contender: Contender, size: int) -> Large:
    """Upload a file of `size` bytes and watch what it costs others."""
    processes = children(contender.pid)
    before, written = memory(processes), bytes_written(processes)
    grown, done = [0.0], threading.Event()
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        waiting = pool.apply_async(worst_wait, (contender.url, size))
        sending = pool.apply_async(send, (contender.url, size))

        def watch() -> None:
            while not done.wait(0.02):
                grown[0] = max(grown[0], memory(processes) - before)

        watcher = threading.Thread(target=watch)
        watcher.start()
        seconds = sending.get()
        done.set()
        watcher.join()
        wait = waiting.get()
    return Large(
        rate=size / seconds / 1e6,
        grown=grown[0] / 1e6,
        written=(bytes_written(processes) - written) / size,
        worst_wait=wait * 1000,
    )


def send(url: str, size: int) -> float:
    """Send the file; seconds from the first byte to the answer."""
    address = urlsplit(url)
    head = (
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="files"; '
        'filename="large.tif"\r\nContent-Type: image/tiff\r\n\r\n'
    ).encode()
    tail = f"\r\n--{BOUNDARY}--\r\n".encode()
    connection = http.client.HTTPConnection(address.hostname, address.port, timeout=120)
    began = time.perf_counter()
    connection.putrequest("POST", "/api/upload")
    connection.putheader("Content-Type", f"multipart/form-data; boundary={BOUNDARY}")
    connection.putheader("Content-Length", str(len(head) + size + len(tail)))
    connection.endheaders(head)
    for part in tiff_parts(size):
        connection.send(part)
    connection.send(tail)
    answer = connection.getresponse()
    body = answer.read()
    assert answer.status == 201, (answer.status, body[:500])
    return time.perf_counter() - began


def worst_wait(url: str, size: int) -> float:
    """The longest that a trivial route took, while the file was sent."""
    address = urlsplit(url)
    connection = http.client.HTTPConnection(address.hostname, address.port, timeout=60)
    worst, ends_at = 0.0, time.perf_counter() + size / 2e9
    while time.perf_counter() < ends_at:
        began = time.perf_counter()
        connection.request("GET", "/api/health/live")
        connection.getresponse().read()
        worst = max(worst, time.perf_counter() - began)
        time.sleep(0.005)
    return worst


def children(pid: int) -> Sequence[int]:
    """Those of a process, unless it has ended."""
    with suppress(FileNotFoundError, ProcessLookupError):
        return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return []


def family(pid: int) -> list[int]:
    """A process, its children, theirs and so on."""
    return [pid, *(each for child in children(pid) for each in family(child))]


def memory(processes: Sequence[int]) -> int:
    """Bytes that these processes have in memory."""
    pages = sum(int(Path(f"/proc/{pid}/statm").read_text().split()[1]) for pid in processes)
    return pages * os.sysconf("SC_PAGE_SIZE")


def bytes_written(processes: Sequence[int]) -> int:
    """Bytes that these processes have caused to be written to disks."""
    lines = "".join(Path(f"/proc/{pid}/io").read_text() for pid in processes).splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("write_bytes"))
