"""Renews the files of other projects that Clustr's pages load; `make assets` runs it.

    python docs/assets.py                  # the versions that are stated
    python docs/assets.py redoc@<version>  # another version of one of them

Versions and checksums are in the `ASSETS.toml` beside the files. For a version that is stated there
the files must have the checksums that are stated there; for another one they are written anew.
"""

import fnmatch
import hashlib
import shutil
import subprocess
import sys
import tarfile
import tempfile
import tomllib
from pathlib import Path

CLUSTR = Path(__file__).parents[1] / "clustr"
FOLDERS = [CLUSTR / "api" / "static", CLUSTR / "web" / "static"]
LIST = "ASSETS.toml"

HEAD = """\
# What others wrote in this folder, whole and unmodified. `make assets` writes this list and
# refuses a file whose SHA-256 is another; `python docs/assets.py redoc@<version>` takes another
# version.
"""


def main(wanted: list[str]) -> None:
    """Fetch every package of the list, at the version stated or the one in `wanted`.

    Args:
        wanted: `name@version` for each package that shall have another version.
    """
    if shutil.which("npm") is None:
        sys.exit("`make assets` fetches with npm, which is not on PATH; it comes with Node.js.")
    lists = {folder: tomllib.loads((folder / LIST).read_text()) for folder in FOLDERS}
    versions = dict(each.partition("@")[::2] for each in wanted)
    if unknown := versions.keys() - set().union(*lists.values()):
        sys.exit(f"Not in any {LIST}: {', '.join(sorted(unknown))}.")
    # All is checked before anything is written, so that a refusal leaves the folders as they were.
    contents = {}
    for folder, packages in lists.items():
        for name, package in packages.items():
            version = versions.get(name, package["version"])
            fetched = fetch(name, version, package, check=version == package["version"])
            contents |= {folder / file: content for file, content in fetched.items()}
            package["version"] = version
    for path, content in contents.items():
        path.write_bytes(content)
    for folder, packages in lists.items():
        (folder / LIST).write_text(HEAD + "".join(table(*each) for each in packages.items()))


def fetch(name: str, version: str, package: dict, check: bool) -> dict[str, bytes]:
    """The contents of the package's files by name; their checksums go into `package`."""
    contents = {}
    with tempfile.TemporaryDirectory() as scratch:
        command = ["npm", "pack", "--loglevel=error", "--ignore-scripts", f"{name}@{version}"]
        if subprocess.run(command, cwd=scratch, stdout=subprocess.DEVNULL).returncode:
            sys.exit(f"npm could not fetch {name}@{version}.")
        (archive,) = Path(scratch).glob("*.tgz")
        with tarfile.open(archive) as tar:
            for file in package["files"]:
                found = fnmatch.filter(tar.getnames(), f"package/{file['from']}")
                if len(found) != 1:
                    sys.exit(f"{name}@{version} has {len(found)} files {file['from']}, not one.")
                content = contents[file["name"]] = tar.extractfile(found[0]).read()
                sha256 = hashlib.sha256(content).hexdigest()
                if check and sha256 != file["sha256"]:
                    sys.exit(f"{file['name']} of {name}@{version} has another SHA-256: {sha256}.")
                file["sha256"] = sha256
    return contents


def table(name: str, package: dict) -> str:
    """The package as a table in TOML."""
    keys = "".join(f'{key} = "{package[key]}"\n' for key in ("version", "licence", "source"))
    files = "".join(
        "    { " + ", ".join(f'{key} = "{value}"' for key, value in file.items()) + " },\n"
        for file in package["files"]
    )
    return f"\n[{name}]\n{keys}files = [\n{files}]\n"


if __name__ == "__main__":
    main(sys.argv[1:])
