"""`clustr plugins run`: what an analyzer says of files, whatever it does, and without a server."""

import json
import re
import shutil
from pathlib import Path
from subprocess import CompletedProcess

import pytest
from plugin_commands import run_plugins
from plugin_sources import top
from workshop import FIRST_PARTY, analyzer, plugin

from clustr.plugins import Vector
from clustr.testing import sample_image

TRIED = {
    "looks": analyzer(
        "looks",
        """
        print("noise")
        context.log.info("seen", width=image.width)
        return {"width": image.width, "dimensions": image.results["dimensions"]}
        """,
        requires=("dimensions",),
        auto=False,
        fields={"caption": "text"},
    ),
    "ends": analyzer(
        "ends",
        """
        if image.width == 1:
            ctypes.string_at(0)
        if image.content_type == "image/png":
            raise Skip("no photograph")
        time.sleep(1000 if image.content_type == "image/webp" else 0)
        raise ValueError("nothing to see in /home/somebody/file.jpg")
        """,
        timeout=0.3,
    ),
    "deaf": analyzer(
        "deaf", "import itertools; sum(itertools.repeat(1))", timeout=0.2, batch_size=1
    ),
    "embeds": analyzer(
        "embeds",
        "return {'shape': None if image.width == 1 else [image.width, 1], 'look': b'a'}",
        vectors=(
            Vector(field="shape", dimensions=2),
            Vector(field="look", dimensions=8, kind="bits"),
        ),
    ),
    "hangs": top("time.sleep(1000)").replace('"good"', '"never"'),
    "not_set_up": plugin(
        "not_set_up",
        "def setup(self, context): raise OSError('no model')",
        "def analyze(self, image, context): return {}",
    ),
}


@pytest.fixture(scope="module")
def trying(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with plugins and samples; `dimensions`, which one requires, is switched off."""
    place = tmp_path_factory.mktemp("trying")
    (place / "plugins").mkdir()
    for name, source in TRIED.items():
        (place / "plugins" / f"{name}.py").write_text(source)
    for kind in ("jpeg", "png", "webp", "1x1", "truncated", "not_an_image"):
        shutil.copy(sample_image(kind), place)
    return place


def try_out(
    place: Path, *arguments: str, limit: int = 60, **settings: str
) -> CompletedProcess[str]:
    """Run `clustr plugins run` without the plugin that hangs, unless the settings are others."""
    switched_off = {"PLUGINS_DISABLED": "hangs"}
    return run_plugins(place, "run", *arguments, "--limit", str(limit), **switched_off | settings)


def test_run_prints_what_an_analyzer_says_after_those_it_requires(trying: Path) -> None:
    disabled = ",".join([*FIRST_PARTY, "looks"])
    switched_off = {"PLUGINS_DISABLED": disabled, "PLUGINS_ENABLED": "hangs"}
    files = ("jpeg.jpg", "truncated.jpg", "1x1.png", "not_an_image.jpg")
    done = try_out(trying, "looks", *files, "--json", limit=5, **switched_off)
    assert done.returncode == 1
    ends = [json.loads(line) for line in done.stdout.splitlines()]
    assert [(end["file"], end["state"]) for end in ends] == [
        ("jpeg.jpg", "succeeded"),
        ("truncated.jpg", "refused"),
        ("1x1.png", "succeeded"),
        ("not_an_image.jpg", "refused"),
    ]
    assert ends[0]["result"] == {"width": 160, "dimensions": {"width": 160, "height": 120}}
    assert (ends[0]["error"], ends[1]["result"], ends[1]["duration_ms"]) == (None, None, None)
    assert "broken or incomplete" in ends[1]["error"]
    assert "none of the image formats that are accepted: jpg, png" in ends[3]["error"]
    assert re.search(r"seen .*width=160", done.stderr)
    assert re.search(r"plugin_printed .*noise", done.stderr)
    done = try_out(trying, "looks", "jpeg.jpg")
    assert done.returncode == 0
    first, *rest = done.stdout.splitlines()
    assert re.fullmatch(r"jpeg\.jpg: succeeded, after \d+ ms", first)
    assert json.loads("".join(rest))["width"] == 160


def test_run_and_show_say_which_vectors_there_are(trying: Path) -> None:
    done = try_out(trying, "embeds", "jpeg.jpg", "1x1.png", "not_an_image.jpg", "--json")
    shape = {"dimensions": 2, "kind": "float16", "metric": "cosine"}
    look = {"dimensions": 8, "kind": "bits", "metric": "hamming"}
    assert [json.loads(line)["vectors"] for line in done.stdout.splitlines()] == [
        {"shape": shape, "look": look},
        {"shape": None, "look": look},
        {},
    ]
    done = try_out(trying, "embeds", "jpeg.jpg", "1x1.png")
    assert [line for line in done.stdout.splitlines() if line.startswith("  vector")] == [
        "  vector shape: 2 float16, cosine",
        "  vector look: 8 bits, hamming",
        "  vector shape: none",
        "  vector look: 8 bits, hamming",
    ]
    shown = run_plugins(trying, "show", "embeds", PLUGINS_DISABLED="hangs").stdout
    assert "  vectors    shape (2 float16, cosine); look (8 bits, hamming)\n" in shown


def test_check_does_not_call_fine_what_fails(trying: Path) -> None:
    def check(*files: str) -> list[str]:
        done = run_plugins(trying, "check", "ends", *files, PLUGINS_DISABLED="hangs")
        assert done.returncode == (0 if files == ("png.png",) else 1)
        return done.stdout.splitlines()

    lines = check("jpeg.jpg", "png.png", "not_an_image.jpg")
    assert lines[0] == "ends: 2 of 3 files failed or refused"
    assert lines[1].startswith("  tried: ")
    assert lines[2].startswith("jpeg.jpg: failed")
    assert check("jpeg.jpg")[0] == "ends: 1 of 1 files failed"
    assert check("png.png")[0] == "ends: fine"


def test_run_contains_what_a_plugin_does(trying: Path) -> None:
    files = ("1x1.png", "jpeg.jpg", "png.png", "webp.webp")
    done = try_out(trying, "ends", *files)
    assert done.returncode == 1
    assert re.fullmatch(
        r"1x1\.png: failed\n"
        r"  ends: analyze\(\): it crashed its process, by SIGSEGV\n"
        r"jpeg\.jpg: failed, after \d+ ms\n"
        r"  ValueError: nothing to see in file\.jpg \(ends\.py, line \d+, in analyze\)\n"
        r"png\.png: skipped, after \d+ ms\n"
        r"  no photograph\n"
        r"webp\.webp: failed, after (?:[3-9]\d\d|\d{4,}) ms\n"
        r"  took longer than 0\.3 seconds\n",
        done.stdout,
    )
    assert "Traceback" in done.stderr
    assert try_out(trying, "ends", "png.png").returncode == 0


def test_run_does_not_know_an_analyzer(drop_in) -> None:
    place = drop_in(TRIED["ends"])
    shutil.copy(sample_image("jpeg"), place)
    done = run_plugins(place, "run", "end", "jpeg.jpg")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "clustr: unknown analyzer end; did you mean ends?\n"


def test_run_ends_what_is_deaf_and_tells_what_waits(trying: Path) -> None:
    done = try_out(trying, "deaf", "jpeg.jpg")
    assert done.returncode == 1
    assert done.stdout.endswith("  deaf: took longer than 0.2 seconds, and was deaf\n")
    done = try_out(trying, "not_set_up", "jpeg.jpg", "png.png")
    assert done.returncode == 1
    assert done.stdout.count("\n  setup() raised OSError: no model (not_set_up.py, line ") == 2
    assert done.stdout.count(": deferred, after 0 ms\n") == 2


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ("hangs", "jpeg.jpg"),
            "clustr: the plugin hangs is failed: loading it: it did not end within 2 seconds",
        ),
        (("looks", "none.jpg"), "File 'none.jpg' does not exist."),
        (("looks",), "Missing argument 'FILE...'."),
    ],
)
def test_run_says_what_it_cannot_do(trying: Path, arguments: tuple[str, ...], said: str) -> None:
    done = try_out(trying, *arguments, limit=2)
    assert (done.returncode, done.stdout) == (2, "")
    assert said in done.stderr
