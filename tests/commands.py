"""Running commands of Clustr in tests, each in a process of its own, quickly.

Most of the time that a command takes is for its imports. So one process imports everything, and
forks a process for each command, as the fork server of `multiprocessing` does it.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

from running import start

# It reads requests from its standard input, a line of JSON each, and answers with the exit code, or
# null when it has killed the command. What has no threads can be forked safely.
SERVER = """
import gc, importlib, json, os, select, signal, sys
from clustr.__main__ import COMMANDS, main

for command in COMMANDS.values():
    importlib.import_module(command.partition(":")[0])
gc.freeze()

def serve():
    for line in sys.stdin:
        request = json.loads(line)
        pid = os.fork()
        if pid == 0:
            return request
        ended = select.select([os.pidfd_open(pid)], [], [], request["seconds"])[0]
        if not ended:
            os.killpg(pid, signal.SIGKILL)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        print(json.dumps(code if ended else None), flush=True)
    os._exit(0)

request = serve()
os.setsid()
for descriptor, name in enumerate((os.devnull, *request["outputs"])):
    os.dup2(os.open(name, os.O_RDWR | os.O_APPEND), descriptor)
os.chdir(request["folder"])
os.environ.clear()
os.environ.update(request["environment"])
sys.path[0:1] = [os.getcwd(), *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
main(request["arguments"], prog_name="clustr")
"""


RunPlugins = Callable[..., subprocess.CompletedProcess[str]]


class Commands:
    """Runs commands until it is closed."""

    def __init__(self) -> None:
        # How Python buffers what is printed is settled by variables when it starts.
        self._server = start(
            [sys.executable, "-c", SERVER],
            env={"PATH": os.environ["PATH"]},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )

    def run(
        self, folder: Path, environment: Mapping[str, str], *arguments: str, seconds: float = 60
    ) -> subprocess.CompletedProcess[str]:
        """Run `clustr` with these arguments in a folder, and with this environment alone."""
        assert self._server.stdin
        assert self._server.stdout
        with tempfile.NamedTemporaryFile() as output, tempfile.NamedTemporaryFile() as errors:
            request = {
                "folder": str(folder),
                "environment": dict(environment),
                "arguments": arguments,
                "outputs": [output.name, errors.name],
                "seconds": seconds,
            }
            self._server.stdin.write(json.dumps(request).encode() + b"\n")
            self._server.stdin.flush()
            code = json.loads(self._server.stdout.readline())
            said, errors_said = output.read().decode(), errors.read().decode()
        assert code is not None, f"not within {seconds} seconds: clustr {arguments}\n{errors_said}"
        return subprocess.CompletedProcess(arguments, code, said, errors_said)

    def close(self) -> None:
        self._server.kill()
        self._server.communicate()
