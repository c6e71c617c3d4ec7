"""A new operator on a bare Debian: `make deployment` runs the commands of docs/deployment.md there.

For root, with debootstrap. The Debian is a folder in which a systemd of its own is the first
process, so that `systemctl` is the real one and units run as they would. The network is this
machine's, so the ports of nginx, gunicorn, MongoDB and Redis have to be free.
"""

import argparse
import contextlib
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urljoin

import debian
from debian import HERE, step, variables

DOCUMENT = HERE / "docs/deployment.md"
CLONE = "/usr/src/clustr"
PICTURE = "/usr/src/picture.png"
NAME = "images.example.com"
FRONT = "http://127.0.0.1"
PORTS = (80, 5000, 6379, 27017)
SYSTEMD = "systemd,systemd-sysv,dbus"
SERVICES = ("clustr-mongod", "clustr-web", "clustr-worker")
PROCESSED_SECONDS = 120

# What a container manager does: https://systemd.io/CONTAINER_INTERFACE/
BOOT = """
set -e
root=$1 cgroup=$2
echo $$ > "$cgroup/cgroup.procs"
exec unshare --mount --pid --uts --ipc --cgroup --fork --kill-child /bin/sh -c '
set -e
mount --bind "$1" "$1"
cd "$1"
mount -t proc proc proc
mount --bind proc/sys proc/sys
mount -o remount,bind,ro proc/sys
mount -t sysfs -o ro sysfs sys
mount -t cgroup2 cgroup2 sys/fs/cgroup
mount -t tmpfs -o mode=755 tmpfs dev
for name in null zero full random urandom tty; do
    touch "dev/$name"
    mount --bind "/dev/$name" "dev/$name"
done
mkdir dev/pts dev/shm
mount -t devpts -o newinstance,ptmxmode=0666 devpts dev/pts
mount -t tmpfs -o mode=1777 tmpfs dev/shm
ln -s pts/ptmx dev/ptmx
ln -s /proc/self/fd dev/fd
ln -s fd/0 dev/stdin
ln -s fd/1 dev/stdout
ln -s fd/2 dev/stderr
mount -t tmpfs -o mode=755 tmpfs run
pivot_root . .  # below a chroot there are no namespaces of users, which units ask for
umount --lazy .
cd /
exec /usr/bin/env -i container=clustr /lib/systemd/systemd --log-target=journal
' boot "$root"
"""


class Step(NamedTuple):
    """A block of commands of the document, and the heading that it is under."""

    heading: str
    commands: str


def steps(document: str) -> list[Step]:
    """All commands of the document, in their order."""
    found, heading = [], ""
    for part in re.findall(r"^## [^\n]+$|^```sh\n.*?^```$", document, re.MULTILINE | re.DOTALL):
        if part.startswith("## "):
            heading = part[3:]
        else:
            found.append(Step(heading, part.removeprefix("```sh\n").removesuffix("```")))
    return found


class Machine(NamedTuple):
    """A Debian that runs: its folder, and the process id of its systemd."""

    root: Path
    systemd: int

    def command(self, *command: str) -> list[str]:
        enter = ["nsenter", "--target", str(self.systemd), "--mount", "--pid", "--uts", "--ipc"]
        enter += ["--cgroup", "--root", f"--wd={self.inside(CLONE)}"]
        return [*enter, "/usr/bin/env", "-i", *variables({"HOME": "/root"}), *command]

    def inside(self, path: str) -> Path:
        """Where a file of the Debian is from outside."""
        return self.root / path.removeprefix("/")

    def shell(self, commands: str) -> str:
        """Run commands to their good end; gives what they print."""
        ran = subprocess.run(
            self.command("/bin/sh", "-euc", commands),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        if ran.returncode:
            print(ran.stdout)
            print(self.journal())
            sys.exit(f"make deployment: this ended with {ran.returncode}: {commands}")
        return ran.stdout

    def journal(self) -> str:
        arguments = ["--no-pager", "--lines=60", *(f"--unit={name}" for name in SERVICES)]
        command = self.command("journalctl", *arguments)
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout


def main() -> None:
    """Make a Debian, install Clustr there as the document says, and use it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--suite", default="trixie", help="which Debian")
    parser.add_argument("--mirror", help="where its packages are, if not where debootstrap looks")
    parser.add_argument("--folder", default="/var/tmp", help="where there are 3 GB")
    options = parser.parse_args()
    if os.geteuid() != 0 or shutil.which("debootstrap") is None:
        sys.exit("make deployment: this is for root, with debootstrap")
    require_free_ports()
    with tempfile.TemporaryDirectory(prefix="clustr-deployment-", dir=options.folder) as folder:
        root = Path(folder)
        root.chmod(0o755)
        step(f"Debian {options.suite}")
        debian.make(root, options.suite, options.mirror, f"--include={SYSTEMD}")
        debian.copy_repository(root, CLONE)
        with booted(root) as machine:
            follow(machine, steps(DOCUMENT.read_text(encoding="utf-8")))


def require_free_ports() -> None:
    for port in PORTS:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            sys.exit(f"make deployment: port {port} is in use here")


@contextlib.contextmanager
def booted(root: Path) -> Iterator[Machine]:
    """Have systemd run in the folder, as the first process of its own, for the block."""
    for hierarchy in (Path("/sys/fs/cgroup"), Path("/sys/fs/cgroup/unified")):
        if (hierarchy / "cgroup.procs").exists():
            break
    else:
        sys.exit("make deployment: systemd needs cgroups of the second version")
    cgroup = Path(tempfile.mkdtemp(prefix="clustr-", dir=hierarchy))
    command = ["/bin/sh", "-c", BOOT, "boot", str(root), str(cgroup)]
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True)
    try:
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        until(lambda: process.poll() is None and children.read_text().split(), 30, "systemd")
        machine = Machine(root, int(children.read_text().split()[0]))
        until(lambda: is_booted(machine), 60, "the end of its start")
        print(machine.shell("systemctl --version | head -n 1; cat /etc/debian_version"), end="")
        yield machine
    finally:
        process.kill()
        process.wait()
        until(lambda: removed(cgroup), 30, "the end of its processes")


def is_booted(machine: Machine) -> bool:
    """Whether it has started; what a container lacks, such as kernel modules, may have failed."""
    command = machine.command("systemctl", "is-system-running")
    state = subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    return state in ("running", "degraded")


def removed(cgroup: Path) -> bool:
    """Remove a cgroup with all that are below it; whether nothing runs there any more."""
    try:
        for folder, _, _ in os.walk(cgroup, topdown=False):
            Path(folder).rmdir()
    except OSError:
        return False
    return True


def follow(machine: Machine, document: list[Step]) -> None:
    """Run what the document says, and see after each part that it is so."""
    afterwards: dict[str, Callable[[Machine], object]] = {
        "Web processes and workers": see_units,
        "nginx": see_service,
        "Below a path of another site": see_service_below_a_path,
        "Another release": partial(see_processed, below="/clustr"),
    }
    for number, (heading, commands) in enumerate(document):
        step(heading)
        print("".join(f"$ {line}\n" for line in commands.splitlines()), end="")
        printed = machine.shell(commands).splitlines()
        print("\n".join(printed[-3:]))
        is_last = number + 1 == len(document) or document[number + 1].heading != heading
        if is_last and heading in afterwards:
            afterwards.pop(heading)(machine)
    if afterwards:
        sys.exit(f"make deployment: no commands are under {', '.join(afterwards)}")


def see_units(machine: Machine) -> None:
    """The units run, harden themselves, and may write nothing but the images."""
    for name in SERVICES:
        print(
            name, machine.shell(f"systemctl is-active {name}; systemctl is-enabled {name}").split()
        )
        levels = machine.shell(f"systemd-analyze security --no-pager {name}").splitlines()
        print(levels[-1].strip("→ "))
        status = machine.shell(f"systemctl status --no-pager --lines=0 {name}")
        print("\n".join(line for line in status.splitlines() if "─" in line or "Memory" in line))


def see_service(machine: Machine) -> None:
    """What a user sees behind nginx: without a key nothing; the rest is tried without keys."""
    until(lambda: ask("/api/health/live")[0] == 200, 60, "that it serves")
    see_problem("without a key", *ask("/api/uploads"), 401)
    machine.shell("echo AUTH=off >> /etc/clustr/.env; systemctl restart clustr-web")
    upload = see_processed(machine)
    status, headers, body = ask(f"/uploads/{upload['filename']}")
    see("the original, sent by nginx", status == 200 and len(body) == upload["size"])
    see("its ETag is the service's", headers["ETag"].count('"') == 2)
    see("another name", ask("/api/uploads", host="elsewhere.example")[0] == 421)
    health = json.loads(ask("/api/health")[2])
    see("health", health["status"] == "healthy", health["services"]["queue"])
    workers = health["services"]["queue"]["workers"]
    see("two workers", set(workers.values()) == {2}, workers)
    reload(machine)


def see_service_below_a_path(machine: Machine) -> None:
    """The same below /clustr, and what nginx says itself."""
    upload = see_processed(machine, "/clustr")
    see("its URL", upload["url"].startswith(f"http://{NAME}/clustr/uploads/"), upload["url"])
    address = f"/clustr/uploads/{upload['filename']}"
    see("the original", ask(address)[0] == 200, address)
    status, headers, _ = ask(f"/clustr/api/uploads/{upload['id']}/thumbnail?size=200")
    see("a thumbnail", status == 200, headers["Content-Type"])
    for name in ("docs", "redoc", "api/health/page"):
        status, _, page = ask(f"/clustr/{name}")
        links = re.findall(r'(?:src|href)="(?!data:)([^"#]+)"', page.decode())
        answers = {link: ask(urljoin(f"/clustr/{name}", link))[0] for link in links}
        good = status == 200 and set(answers.values()) == {200}
        see(f"/clustr/{name} with all that it links to", good, answers)
    servers = json.loads(ask("/clustr/openapi.json")[2])["servers"]
    see("the OpenAPI document", servers == [{"url": "/clustr"}], servers)
    see("nothing outside", ask("/api/uploads")[0] == 404)
    status, headers, body = ask("/clustr/api/upload", too_large())
    see_problem("a request of 1,100 MB", status, headers, body, 413)
    machine.shell("systemctl stop clustr-web")
    see_problem("while it is stopped", *ask("/clustr/api/uploads"), 502)
    machine.shell("systemctl start clustr-web")
    wait_until_ready("/clustr")


def see_processed(machine: Machine, below: str = "") -> dict[str, Any]:
    """Upload a picture, and see that it is processed."""
    wait_until_ready(below)
    # So large that libvips reduces it, which has to be able to do so inside the unit.
    code = 'import sys; from PIL import Image; Image.new("RGB", (5000, 4000)).save(sys.argv[1])'
    machine.shell(f"/opt/clustr/bin/python -c '{code}' {PICTURE}")
    status, _, body = ask(f"{below}/api/upload", form(machine.inside(PICTURE)))
    see("an upload", status == 201, body.decode()[:200])
    address = f"{below}/api/uploads/{json.loads(body)['data'][0]['id']}"

    def upload() -> dict[str, Any]:
        return json.loads(ask(address)[2])

    until(lambda: upload()["status"] == "processed", PROCESSED_SECONDS, "that it is processed")
    analyses = {name: each["status"] for name, each in upload()["analyses"].items()}
    see("it is processed", set(analyses.values()) <= {"succeeded", "skipped"}, analyses)
    return upload()


def reload(machine: Machine) -> None:
    """A reload takes a changed setting, but none that is wrong; the main processes stay."""
    main = "systemctl show --property=MainPID --value clustr-web clustr-worker"
    before = machine.shell(main).split()
    machine.shell("echo MAX_UPLOAD_SIZE=1KiB >> /etc/clustr/.env")
    machine.shell("systemctl reload clustr-web clustr-worker")
    picture = machine.inside(PICTURE)
    until(lambda: ask("/api/upload", form(picture))[0] == 413, 30, "the changed setting")
    machine.shell("sed --in-place '/^MAX_UPLOAD_SIZE=1KiB/d' /etc/clustr/.env")
    children = f"cat /proc/{before[0]}/task/{before[0]}/children"
    old = set(machine.shell(children).split())
    machine.shell("systemctl reload clustr-web clustr-worker")
    until(lambda: not old & set(machine.shell(children).split()), 60, "the old processes")
    status, _, body = ask("/api/upload", form(picture))
    see("the setting as it was", status == 201, body.decode()[:200])
    machine.shell("echo ALLOWED_EXTENSIONS=jpg,svg >> /etc/clustr/.env")
    machine.shell("! systemctl reload clustr-web")
    machine.shell("sed --in-place '/^ALLOWED_EXTENSIONS=jpg,svg/d' /etc/clustr/.env")
    see("a reload that is refused", ask("/api/health/ready")[0] == 200, "the old ones go on")
    see("reload", machine.shell(main).split() == before, f"main processes still {before}")
    see_processed(machine)


class Form(NamedTuple):
    """A body of a request, its type, and its length where it is another one than of the body."""

    body: bytes
    content_type: str
    length: int


def form(picture: Path) -> Form:
    head = f'Content-Disposition: form-data; name="files"; filename="{picture.name}"'
    body = b"--between\r\n%s\r\n\r\n%s\r\n--between--\r\n" % (head.encode(), picture.read_bytes())
    return Form(body, "multipart/form-data; boundary=between", len(body))


def too_large() -> Form:
    return Form(b"", "multipart/form-data; boundary=between", 1_100_000_000)


def ask(path: str, form: Form | None = None, host: str = NAME) -> tuple[int, Any, bytes]:
    """Ask the front; gives the status, the headers and the body of its answer."""
    headers = {"Host": host}
    if form:
        headers |= {"Content-Type": form.content_type, "Content-Length": str(form.length)}
    request = urllib.request.Request(f"{FRONT}{path}", form and form.body, headers)
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, answer.headers, answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.headers, error.read()


def see_problem(what: str, status: int, headers: Any, body: bytes, right: int) -> None:
    kind = headers["Content-Type"]
    good = status == right and kind == "application/problem+json"
    see(what, good and json.loads(body)["status"] == right, f"{status} {kind} {body.decode()}")


def wait_until_ready(below: str) -> None:
    until(lambda: ask(f"{below}/api/health/ready")[0] == 200, 60, "that it is ready")


def see(what: str, good: bool, shown: object = "") -> None:
    print(f"  {'ok ' if good else 'NOT'} {what}  {shown}", flush=True)
    if not good:
        sys.exit(f"make deployment: {what} is not as it should be")


def until(condition: Callable[[], Any], seconds: float, what: str) -> None:
    limit = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > limit:
            sys.exit(f"make deployment: waited {seconds} s in vain for {what}")
        time.sleep(0.2)


if __name__ == "__main__":
    main()
