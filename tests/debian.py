"""A new user on a bare Debian: `make debian` makes one from nothing and does what the README says.

For root, with debootstrap. The Debian is a folder, and what runs in it has processes and mounts of
its own that end with this program. Settings of pip in the environment (PIP_...) and a certificate
that they name count there too.
"""

import argparse
import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent.parent
# The one that pip believes, where the environment names one; Debian's own file is Debian's.
CERTIFICATE = "/etc/certificate-of-packages.pem"
USER = "newcomer"
HOME = f"/home/{USER}"
# What the README says that there has to be.
PREPARE = "apt-get update --quiet && apt-get install --quiet --yes python3-venv make libcurl4"
START_SECONDS = 600  # all of it is downloaded
END_SECONDS = 120
STOP_SECONDS = 20

# Mounts that nobody else sees, and that are gone when the last process in here is.
INSIDE = """
set -e
root=$1; shift
mount --types proc proc "$root/proc"
mount --rbind /dev "$root/dev"
chroot "$@" || exit $?  # by a shell, since the first process of a namespace is told no signals
"""


def main() -> None:
    """Make a Debian, start Clustr there, upload a picture, and wait until it is processed."""
    options = read_options()
    if os.geteuid() != 0 or shutil.which("debootstrap") is None:
        sys.exit("make debian: this is for root, with debootstrap (apt-get install debootstrap)")
    with tempfile.TemporaryDirectory(prefix="clustr-debian-", dir=options.folder) as folder:
        root = Path(folder)
        root.chmod(0o755)
        step(f"Debian {options.suite}")
        make(root, options.suite, options.mirror)
        step(PREPARE)
        inside(root, "/bin/sh", "-c", PREPARE)
        inside(root, "/usr/sbin/useradd", "--create-home", "--shell", "/bin/sh", USER)
        copy_repository(root)
        inside(root, "/bin/chown", "-R", USER, HOME)
        step("make run")
        try_it(root)
        if options.test:
            step("make test")
            run(*as_user(root, "make test"))


def read_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--suite", default="trixie", help="which Debian")
    parser.add_argument("--mirror", help="where its packages are, if not where debootstrap looks")
    parser.add_argument("--folder", default="/var/tmp", help="where there are 3 GB")
    parser.add_argument("--test", action="store_true", help="run `make test` there, too")
    return parser.parse_args()


def make(root: Path, suite: str, mirror: str | None, *options: str) -> None:
    """Make a bare Debian in a folder; what is done then is printed only when it fails.

    Args:
        mirror: where its packages are, if not where debootstrap looks.
        options: of debootstrap.
    """
    arguments = ["--variant=minbase", *options, suite, str(root), *([mirror] if mirror else [])]
    made = subprocess.run(["debootstrap", *arguments], capture_output=True, text=True, check=False)
    if made.returncode:
        sys.exit(f"{made.stdout}{made.stderr}debootstrap ended with {made.returncode}")
    (root / "etc/dpkg/dpkg.cfg.d/scratch").write_text("force-unsafe-io\n")  # it is not kept


def step(what: str) -> None:
    print(f"\n== {what}", flush=True)


def run(*command: str) -> None:
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)


def inside(root: Path, *command: str) -> None:
    """Run a command as root of the Debian, to its good end."""
    run(*in_namespaces(root, str(root), "/usr/bin/env", "-i", *variables({}), *command))


def in_namespaces(root: Path, *chroot: str) -> list[str]:
    apart = ["unshare", "--mount", "--pid", "--fork", "--kill-child"]
    return [*apart, "/bin/sh", "-c", INSIDE, "inside", str(root), *chroot]


def as_user(root: Path, command: str, **settings: str) -> list[str]:
    """The command line that runs a command of the shell in the user's copy of the repository."""
    user = ["--userspec", USER, str(root), "/usr/bin/env", "-i", *variables(settings)]
    return in_namespaces(root, *user, "/bin/sh", "-c", f"cd {HOME}/clustr && exec {command}")


def variables(settings: Mapping[str, str]) -> list[str]:
    """The environment in the Debian: nothing of ours but how to reach packages."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if name.startswith("PIP_") or name.lower().endswith("_proxy")
    }
    plain = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": HOME, "LANG": "C.UTF-8"}
    plain |= {"DEBIAN_FRONTEND": "noninteractive"}
    if "PIP_CERT" in kept:
        plain["PIP_CERT"] = CERTIFICATE
    return [f"{name}={value}" for name, value in {**kept, **plain, **settings}.items()]


def copy_repository(root: Path, folder: str = f"{HOME}/clustr") -> None:
    """Copy what a clone would have, as it is now, and the certificate that pip believes.

    Args:
        folder: where to, in the Debian.
    """
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=HERE,
        check=True,
        capture_output=True,
        text=True,
    )
    for name in filter(None, listed.stdout.split("\0")):
        copy(HERE / name, root / folder[1:] / name)
    if certificate := os.environ.get("PIP_CERT"):
        copy(Path(certificate), root / CERTIFICATE[1:])


def copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(source, target)


def try_it(root: Path) -> None:
    """Start Clustr as the README says, upload its sample, and see that it is processed."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    began = time.monotonic()
    with running(as_user(root, "make run", PORT=str(port), LOG_LEVEL="warning")) as process:
        wait_for(lambda: answers(url), START_SECONDS, process, "it does not serve")
        print(f"{url} serves after {time.monotonic() - began:.0f} s", flush=True)
        sample = root / HOME[1:] / "clustr/data/sample.jpg"
        wait_for(sample.exists, 10, process, "there is no sample")
        uploaded = post(url, sample)
        address = f"{url}/api/uploads/{uploaded['id']}"
        wait_for(
            lambda: ask(address)["status"] == "processed", END_SECONDS, process, "not processed"
        )
        upload = ask(address)
        print(json.dumps({n: upload[n] for n in ("id", "status", "dimensions", "analyses")}))
        os.killpg(process.pid, signal.SIGINT)  # as Ctrl-C does
        process.wait(STOP_SECONDS)
        if answers(url):
            sys.exit("make debian: it still serves after Ctrl-C")


@contextlib.contextmanager
def running(command: list[str]) -> Iterator[subprocess.Popen[bytes]]:
    """Run a command in a group of processes of its own, which ends with the block."""
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True)
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


def wait_for(condition: Any, seconds: float, process: subprocess.Popen[bytes], else_: str) -> None:
    limit = time.monotonic() + seconds
    while not condition():
        if process.poll() is not None:
            sys.exit(f"make debian: make run has ended with {process.returncode}")
        if time.monotonic() > limit:
            sys.exit(f"make debian: {else_} after {seconds} seconds")
        time.sleep(0.5)


def answers(url: str) -> bool:
    try:
        return ask(f"{url}/api/health/ready")["status"] == "ready"
    except OSError:
        return False


def ask(url: str) -> Any:
    with urllib.request.urlopen(url, timeout=10) as answer:
        return json.load(answer)


def post(url: str, picture: Path) -> Any:
    """Upload a picture; gives what is said of it."""
    boundary = "between-parts"
    head = f'Content-Disposition: form-data; name="files"; filename="{picture.name}"'
    body = f"--{boundary}\r\n{head}\r\n\r\n".encode() + picture.read_bytes()
    request = urllib.request.Request(
        f"{url}/api/upload",
        body + f"\r\n--{boundary}--\r\n".encode(),
        {"Content-Type": f"multipart/form-data; boundary={boundary}"},
    )
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.load(answer)["data"][0]


if __name__ == "__main__":
    main()
