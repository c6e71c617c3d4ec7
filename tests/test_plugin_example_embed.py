"""The example `embed`, installed from its folder: vectors, similar uploads, and commands."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import photographs
import pytest
from plugin_projects import lay_down
from test_plugins_new import passes_its_tests
from workshop import Workshop

EXAMPLE = Path(__file__).parent.parent / "docs/plugins/examples/embed"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where a copy of it is installed."""
    project = tmp_path_factory.mktemp("examples") / "embed"
    shutil.copytree(EXAMPLE, project)
    return lay_down(project, "embed")


def test_its_tests_pass(site: Path) -> None:
    passes_its_tests(site.parent, str(site))


def test_it_finds_and_exports_what_workers_have_analyzed(
    workshop: Workshop, site: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(site))  # For the web side, which is in this process.
    workshop.renew()
    path = {"PYTHONPATH": str(site)}
    cat = photographs.picture("cat", 300)
    smaller = photographs.encode(cat.resize((200, 133)), "jpg", quality=60)
    contents = [photographs.encode(cat, "png"), smaller, photographs.photograph("png", "rocket")]
    ids = workshop.upload(*contents)
    running = workshop.run("-m", "clustr", "worker", **path)
    for upload_id in ids:
        assert workshop.end_of(upload_id, "embed").state == "succeeded"
    running.stop()
    client = workshop.app.test_client()
    answer = client.get(f"/api/uploads/{ids[0]}/similar?by=embed").get_json()
    assert [one["id"] for one in answer["data"]] == ids[1:]
    assert answer["data"][0]["distance"] < 0.01 < answer["data"][1]["distance"]

    def command(*arguments: str) -> Any:
        done = workshop.command("x", "embed", *arguments, **path)
        assert done.returncode == 0, done.stderr
        return done.stdout

    found = json.loads(command("nearest", ids[0], "--json"))
    assert [one["id"] for one in found] == ids[1:]
    file = workshop.folder / "vectors.npz"
    assert json.loads(command("export", str(file), "--json"))["vectors"] == 3
    exported = np.load(file)
    assert exported["ids"].tolist() == sorted(ids)
    assert exported["vectors"].shape == (3, 48)
    assert command("export", str(file), "--tag", "none") == f"Wrote 0 vectors to {file}.\n"
    workshop.renew()
