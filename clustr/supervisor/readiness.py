"""How a child says that it is ready, and how its supervisor learns of it."""

import contextlib
import os
import socket
from collections.abc import Callable

from clustr.supervisor.forking import function_starter


class Notification:
    """A message from a child that it is ready: the protocol of systemd, see sd_notify(3).

    A call returns whether the message has come, as `Child.ready` has to; after a true answer it
    must not be called again. The child needs `address` in its environment as NOTIFY_SOCKET.
    """

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self._socket.bind("")  # the kernel chooses a name that is no file
        self.address = "@" + self._socket.getsockname()[1:].decode()

    def __call__(self) -> bool:
        try:
            ready = b"READY=1" in self._socket.recv(4096).split(b"\n")
        except BlockingIOError:
            return False
        if ready:
            self._socket.close()
        return ready


def notify_ready() -> None:
    """Tell the supervisor of this process that it is ready, if it set NOTIFY_SOCKET."""
    address = os.environ.get("NOTIFY_SOCKET", "").replace("@", "\0", 1)
    sender = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
    with sender, contextlib.suppress(OSError):  # it is not set, or nobody listens
        sender.sendto(b"READY=1", address)


class ForkedCheck:
    """A slow check for `Child.ready`: a function that runs in forks until one exits with 0.

    A call returns at once whether that has happened. The fork keeps away from the supervisor what
    the function does, such as starting threads.
    """

    def __init__(self, run: Callable[[], int]):
        self._start = function_starter(run)
        self._pid: int | None = None

    def __call__(self) -> bool:
        if self._pid is None:
            self._pid = self._start().pid
        ended, status = os.waitpid(self._pid, os.WNOHANG)
        if not ended:
            return False
        self._pid = None
        return status == 0
