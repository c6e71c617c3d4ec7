"""Clients that the usual generators make: without a warning, compiled strictly, and used for real.

`make clients` runs this; it installs the generators from npm and PyPI, and takes minutes. The
client of openapi-python-client is in `make test`.
"""

import base64
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import photographs
import pytest
from calling import get
from running import Up

HERE = Path(__file__).parent
GENERATED = "generated"
# What openapi-generator says of every document, also of one with a single operation; and of a query
# parameter that is a word of Python, for which it makes no model: `var_if` in the client.
ALWAYS_SAID = (
    "Failed to get the schema name: null",
    "Could not compute datatypeWithEnum from",
    "If (reserved word) cannot be used as model name.",
)
# A later version of the service has keys, and says so.
WITHOUT_KEYS = "security-defined"


@pytest.fixture(scope="module")
def folder(service: Up, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with the generators, the programs that use clients, and the document."""
    place = tmp_path_factory.mktemp("clients")
    for file in HERE.glob("*.*"):
        shutil.copy(file, place)
    (place / GENERATED).mkdir()
    (place / GENERATED / "openapi.json").write_bytes(get(service, "/openapi.json").content)
    run(place, "npm", "install", "--no-audit", "--no-fund", "--loglevel=error")
    yield place


def run(folder: Path, *command: str, **environment: str) -> str:
    """Run a program to its good end, and return all that it printed."""
    ended = subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, **environment},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=300,
    )
    assert ended.returncode == 0, ended.stdout
    return ended.stdout


def tool(folder: Path, name: str, *arguments: str, **environment: str) -> None:
    """Run a tool of npm, which has nothing to warn of."""
    printed = run(folder, f"node_modules/.bin/{name}", *arguments, **environment)
    assert "warn" not in printed.lower(), printed


def openapi_generator(folder: Path, language: str, output: str) -> None:
    """Generate a client with openapi-generator, which comes in a wheel, but without its Java."""
    if shutil.which("java") is None:
        pytest.skip("openapi-generator needs Java, and there is no java on PATH")
    wheel = "openapi-generator-cli==7.26.0"
    run(folder, sys.executable, "-m", "pip", "install", "-q", "--target=generator", wheel)
    jar = "generator/openapi_generator_cli/openapi-generator.jar"
    described = json.loads((folder / GENERATED / "openapi.json").read_text())
    assert described["servers"]
    arguments = ["-i", f"{GENERATED}/openapi.json", "-g", language, "-o", f"{GENERATED}/{output}"]
    printed = run(folder, "java", "-jar", jar, "generate", *arguments)
    warned = [line for line in printed.splitlines() if " WARN " in line]
    assert not [line for line in warned if not any(said in line for said in ALWAYS_SAID)], warned


def walk(folder: Path, service: Up, program: str) -> None:
    """Compile a program that uses a client as strictly as can be, and run it."""
    run(folder, "node_modules/.bin/tsc", "--project", project(folder, program))
    images = [base64.b64encode(content).decode() for content in pictures(program)]
    printed = run(folder, "node_modules/.bin/tsx", program, service.url, *images)
    assert printed.endswith("walked\n")


def project(folder: Path, program: str) -> str:
    name = f"tsconfig.{program}.json"
    (folder / name).write_text(json.dumps({"extends": "./tsconfig.json", "files": [program]}))
    return name


def pictures(program: str) -> list[bytes]:
    first = sum(program.encode())
    return [photographs.unique("jpg", 100_000 + 10 * first + number) for number in range(3)]


def test_linters_find_no_error(folder: Path) -> None:
    rules = {WITHOUT_KEYS: "off"}
    (folder / "redocly.yaml").write_text(json.dumps({"extends": ["recommended"], "rules": rules}))
    (folder / ".spectral.yaml").write_text('extends: ["spectral:oas"]\n')
    run(folder, "node_modules/.bin/redocly", "lint", f"{GENERATED}/openapi.json")
    run(folder, "node_modules/.bin/spectral", "lint", f"{GENERATED}/openapi.json")


def test_openapi_typescript(folder: Path, service: Up) -> None:
    tool(
        folder,
        "openapi-typescript",
        f"{GENERATED}/openapi.json",
        "-o",
        f"{GENERATED}/openapi_typescript.ts",
    )
    walk(folder, service, "openapi_typescript.ts")


def test_hey_api(folder: Path, service: Up) -> None:
    tool(folder, "openapi-ts", "-i", f"./{GENERATED}/openapi.json", "-o", f"{GENERATED}/hey_api")
    walk(folder, service, "hey_api.ts")


def test_orval(folder: Path, service: Up) -> None:
    tool(folder, "orval", "--config", "orval.config.cjs", CLUSTR_URL=service.url)
    walk(folder, service, "orval.ts")


def test_openapi_zod_client(folder: Path, service: Up) -> None:
    tool(folder, "openapi-zod-client", f"{GENERATED}/openapi.json", "-o", f"{GENERATED}/zodios.ts")
    walk(folder, service, "zodios.ts")


def test_openapi_generator_typescript_fetch(folder: Path, service: Up) -> None:
    openapi_generator(folder, "typescript-fetch", "typescript_fetch")
    walk(folder, service, "typescript_fetch.ts")


def test_openapi_generator_python(folder: Path, service: Up) -> None:
    openapi_generator(folder, "python", "python")
    client = f"{GENERATED}/python"
    run(folder, sys.executable, "-m", "pip", "install", "-q", "--target=installed", f"./{client}")
    files = []
    for number, content in enumerate(pictures("python")):
        files.append(folder / f"{number}.jpg")
        files[-1].write_bytes(content)
    program = [sys.executable, "openapi_generator_python.py", service.url, *map(str, files)]
    printed = run(folder, *program, PYTHONPATH=str(folder / "installed"))
    assert printed.endswith("walked\n")
