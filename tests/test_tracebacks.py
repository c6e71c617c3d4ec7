"""Where in its plugin something failed is logged, and kept for operators."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from plugin_sources import HEAD
from workshop import Program, Workshop

from clustr.api.schemas.uploads import UploadSchema
from clustr.plugin_manager import author_traceback
from clustr.plugin_manager.plugin import plugin_line

FRAGILE = """
def boxes_of(answer):
    return answer["boxes"]

class It(Analyzer):
    name = "it"
    version = {version}
    result_schema = Result

    def analyze(self, image, context):
        {analyze}

@hookimpl
def clustr_register_analyzers(config):
    return [It()]
"""
SCHEMA = "class Result(Schema):\n    class Meta:\n        unknown = INCLUDE\n"
IMPORTS = (
    "import json\nfrom marshmallow import INCLUDE, Schema, fields\nfrom clustr.plugins import *\n"
)


def write(workshop: Workshop, analyze: str, version: int = 1) -> None:
    source = IMPORTS + SCHEMA + FRAGILE.format(version=version, analyze=analyze)
    # Python takes a file of the same second and size for the one that it has compiled.
    workshop.write("it", f"{source}# version {'.' * version}\n")


def work(workshop: Workshop) -> Program:
    done = workshop.horse("it", "run")
    assert done.process.wait(60) == 0
    return done


def test_traceback_of_the_author_is_logged_and_kept_off_the_wire(workshop: Workshop) -> None:
    write(workshop, "return boxes_of(json.loads('{}'))")
    [upload_id] = workshop.upload()
    done = workshop.command("analyses", "traceback", upload_id, "it")
    assert (done.returncode, done.stdout) == (
        1,
        "There is no traceback: it is queued.\n",
    )
    logged = work(workshop).lines()
    done = workshop.command("analyses", "traceback", upload_id, "it")
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    file = workshop.plugins / "it.py"
    assert lines[0] == "Traceback (most recent call last):"
    assert lines[1].startswith(f'  File "{file}", line ')
    assert lines[1].endswith(", in analyze")
    assert lines[2:4] == [
        "    return boxes_of(json.loads('{}'))",
        f'  File "{file}", line 9, in boxes_of',
    ]
    assert lines[4:] == ['    return answer["boxes"]', "KeyError: 'boxes'"]
    [raised] = [line for line in logged if line["event"] == "analyzer_raised"]
    assert raised["exception"] == done.stdout.rstrip("\n")
    answer = workshop.app.test_client().get(f"/api/uploads/{upload_id}")
    assert "boxes_of(" not in answer.text
    error = answer.get_json()["analyses"]["it"]["error"]
    assert error == "KeyError: 'boxes' (it.py, line 9, in boxes_of)"


def test_where_code_took_too_long_is_kept_and_gone_after_the_next_run(workshop: Workshop) -> None:
    workshop.analyzer("it", "time.sleep(1000)", timeout=0.2, max_attempts=1)
    [upload_id] = workshop.upload()
    work(workshop)
    assert "time.sleep(1000)" in workshop.command("analyses", "traceback", upload_id, "it").stdout
    workshop.analyzer("it", "return {}")
    workshop.app.test_client().post(f"/api/uploads/{upload_id}/analyses/it")
    work(workshop)
    assert workshop.state_of(upload_id, "it") == "succeeded"
    assert "traceback" not in workshop.stored(upload_id, "it")
    assert workshop.command("analyses", "traceback", upload_id, "it").returncode == 1


def test_failure_outside_of_the_plugin_is_repeated(workshop: Workshop) -> None:
    write(workshop, "return 7")
    [upload_id] = workshop.upload()
    work(workshop)
    done = workshop.command("analyses", "traceback", upload_id, "it")
    assert (done.returncode, done.stdout) == (
        1,
        "There is no traceback: it failed, but not in code of its plugin: "
        f"{workshop.analysis(upload_id, 'it').error}\n",
    )
    assert "returned int instead of a dict" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("0" * 24, "it"), f"There is no upload {'0' * 24} with an analysis by it."),
        (("not-an-id", "it"), "not-an-id"),
    ],
)
def test_traceback_of_nothing_is_refused(workshop: Workshop, arguments, reason) -> None:
    done = workshop.command("analyses", "traceback", *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert reason in done.stderr


def test_failed_analysis_says_the_version_that_failed(workshop: Workshop) -> None:
    write(workshop, "return {}", version=1)
    [upload_id] = workshop.upload()
    client = workshop.app.test_client()

    def run(analyze: str, version: int) -> dict[str, Any]:
        write(workshop, analyze, version)
        workshop.renew()
        nonlocal client
        client = workshop.app.test_client()
        client.post(f"/api/uploads/{upload_id}/analyses/it")
        work(workshop)
        upload = client.get(f"/api/uploads/{upload_id}").get_json()
        assert not UploadSchema().validate(upload)
        [listed] = client.get("/api/uploads?fields=analyses").get_json()["data"]
        found = upload["analyses"]["it"]
        assert {**listed["analyses"]["it"], "result": found["result"]} == found
        return found

    assert "failed_version" not in run("return {}", 1)
    failed = run("raise Fail('no')", 2)
    assert (failed["status"], failed["version"], failed["failed_version"]) == ("failed", 1, 2)
    assert "failed_version" not in run("return {}", 3)


def test_worker_that_dies_leaves_the_version_that_failed(workshop: Workshop) -> None:
    write(workshop, "import os; os._exit(3)", version=4)
    workshop.write("it", (workshop.plugins / "it.py").read_text())
    [upload_id] = workshop.upload()
    workshop.worker()
    assert workshop.end_of(upload_id, "it").failed_version == 4


VIEW = """
from flask import abort
from flask_smorest import Blueprint

@hookimpl
def clustr_register_blueprints(config, library):
    blueprint = Blueprint("views", __name__)

    @blueprint.route("/<how>")
    def view(how):
        if how == "missing":
            abort(404)
        if how == "ends":
            raise SystemExit(3)
        return {{}}[how]

    return [blueprint]
"""


def test_view_that_raises_is_logged_with_the_name_of_its_plugin(app_with, tmp_path, capfd) -> None:
    (tmp_path / "plugins").mkdir()
    (tmp_path / "plugins" / "looks.py").write_text(HEAD + VIEW.format())
    client = app_with(LOG_FORMAT="json").test_client()
    for how, status in (("boxes", 500), ("ends", 500), ("missing", 404)):
        assert client.get(f"/api/x/looks/{how}").status_code == status
    logged = [json.loads(line) for line in capfd.readouterr().err.splitlines() if line[:1] == "{"]
    raised = [line for line in logged if line["event"] == "view_raised"]
    assert [line["plugin"] for line in raised] == ["looks", "looks"]
    assert raised[0]["reason"].startswith("KeyError: 'boxes' (looks.py, line ")
    assert raised[1]["reason"].startswith("SystemExit: 3 (looks.py, line ")


def raised_by(source: str, tmp_path, package: bool = False, name: str = "code.py") -> BaseException:
    """What the function `run` of this code raises, in a file or in a package beside another."""
    folder = tmp_path / "package"
    folder.mkdir()
    if package:
        (folder / "__init__.py").touch()
    path = folder / name
    path.write_text(source)
    namespace: dict[str, Callable[[], None]] = {}
    exec(compile(source, str(path), "exec"), namespace)
    with pytest.raises(BaseException) as caught:
        namespace["run"]()
    caught.value.__traceback__ = caught.value.__traceback__.tb_next  # without this test
    return caught.value


def test_long_traceback_is_cut_to_ten_lines(tmp_path) -> None:
    error = raised_by("def run():\n    run()\n", tmp_path)
    lines = author_traceback(error).splitlines()
    assert len(lines) == 10
    assert lines[-1].startswith("RecursionError: ")


def test_frames_of_libraries_are_left_out(tmp_path) -> None:
    error = raised_by("import json\ndef run():\n    json.loads('{')\n", tmp_path, package=True)
    lines = author_traceback(error).splitlines()
    assert [line.strip() for line in lines[1:3]] == [
        f'File "{tmp_path}/package/code.py", line 3, in run',
        "json.loads('{')",
    ]
    assert len(lines) == 4
    assert lines[3].startswith("JSONDecodeError: ")


@pytest.mark.parametrize(
    ("source", "place"),
    [
        ("def run():\n    return [(lambda: {}[n])() for n in 'a']\n", "line 2, in run"),
        ("run = lambda: {}['a']\n", "line 1"),
    ],
)
def test_place_names_the_folder_of_a_package_and_the_function(source, place, tmp_path) -> None:
    error = raised_by(source, tmp_path, name="__init__.py")
    assert plugin_line(error) == f"package/__init__.py, {place}"


def test_traceback_without_code_of_a_plugin_is_none() -> None:
    assert author_traceback(KeyError("boxes")) is None
