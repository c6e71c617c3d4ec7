"""`clustr config`: what it says of settings, and that nothing has to be running for that."""

import subprocess
from pathlib import Path

import pytest
from fork_server import run_program


@pytest.fixture
def config(tmp_path: Path):
    """Runs `clustr config` with arguments in a folder of its own; keywords are variables."""

    def config(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return run_program(["-m", "clustr", "config", *arguments], environment, tmp_path)

    return config


def test_nothing_wrong_is_said_and_0(config, tmp_path):
    (tmp_path / ".env").write_text("PORT=8000  # of ours\nLOG_LEVEL=INFO\n")
    kubernetes = {"CLUSTR_PORT": "tcp://10.96.7.1:5000", "CLUSTR_SERVICE_HOST": "10.96.7.1"}
    done = config("check", PLUGINS_DISABLED="palette", MAX_UPLOAD_SIZE="50MB", **kubernetes)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "Nothing is wrong with the settings.\n"


@pytest.mark.parametrize(
    ("setting", "reason"),
    [
        ({"HOST": "0.0.0.0"}, "others can reach 0.0.0.0"),
        ({"PROXY_HOPS": "2"}, "PROXY_HOPS=2 says that others come through a proxy"),
    ],
)
def test_it_is_said_that_nothing_says_who_may_come(config, setting, reason):
    done = config("check", PLUGINS_DISABLED="palette", **setting)
    assert done.returncode == 1
    assert done.stdout.startswith(f"problem: AUTH is not set, and {reason}: ")


def test_everything_wrong_is_said_at_once_and_1(config, tmp_path):
    done = config(
        "check",
        PORT="abc",
        BASE_URL="https://a.example/?b=c",
        PLUGINS_FOLDER="/nowhere",
        PLUGINS_CONFIG="/nowhere.toml",
        PLUGINS_ENABLED="dimensons",
        ALLOWED_EXTENSIONS="jpg,xcf",
    )
    assert (done.returncode, done.stderr) == (1, "")
    lines = done.stdout.splitlines()
    for begin in (
        "problem: PORT='abc': expected a whole number",
        "problem: BASE_URL='https://a.example/?b=c': expected an address without query",
        "problem: PLUGINS_FOLDER='/nowhere': expected a folder that exists",
        "problem: PLUGINS_CONFIG='/nowhere.toml': expected a file that exists",
        "problem: PLUGINS_ENABLED='dimensons': unknown plugin dimensons; did you mean dimensions?",
        "problem: ALLOWED_EXTENSIONS: xcf: expected some of jpg",
    ):
        assert [line for line in lines if line.startswith(begin)], begin


def test_what_is_set_without_effect_is_said_and_1(config, tmp_path):
    (tmp_path / ".env").write_text("UPLAOD_FOLDER=/srv\n")
    done = config(
        "check",
        CLUSTR_PORT="5000",
        CLUSTR_PLUGINS__BLIP__TIMEOUT="3",
        CLUSTR_PLUGIN__BLP__TIMEOUT="3",
        BLIP_SERVICE_URI="http://captioner",
        PLUGINS_DISABLED="palet",
    )
    assert (done.returncode, done.stderr) == (1, "")
    assert sorted(done.stdout.splitlines()) == [
        f"without effect: {said}"
        for said in (
            "BLIP_SERVICE_URI is no setting; did you mean BLIP_SERVICE_URL?",
            "CLUSTR_PLUGINS__BLIP__TIMEOUT is no setting; did you mean "
            "CLUSTR_PLUGIN__BLIP__TIMEOUT?",
            "CLUSTR_PLUGIN__BLP__TIMEOUT: unknown plugin blp; did you mean blip?",
            "CLUSTR_PORT is no setting; did you mean PORT?",
            "PLUGINS_DISABLED: unknown plugin palet; did you mean palette?",
            "UPLAOD_FOLDER is no setting; did you mean UPLOAD_FOLDER?",
        )
    ]


def test_what_keeps_a_plugin_from_working_is_said_and_1(config):
    done = config("check", CLUSTR_PLUGIN__BLIP__TIMEOT="3")
    assert done.returncode == 1
    assert done.stdout.startswith("problem: the plugin blip is misconfigured: ")
    assert "timeot; did you mean timeout?" in done.stdout


def test_values_and_where_they_come_from_are_shown_without_secrets(config, tmp_path):
    (tmp_path / ".env").write_text("PORT=8000\nHOST=0.0.0.0\n")
    address = "mongodb://librarian:correct-horse@db1,db2/?replicaSet=rs0"
    done = config("show", MONGODB_URL=address, PORT="9000", PLUGINS_DISABLED="exif,phash")
    assert (done.returncode, done.stderr) == (0, "")
    shown = {row.split()[0]: row.split()[1:] for row in done.stdout.splitlines()}
    assert shown["HOST"] == [".env", "0.0.0.0"]
    assert shown["PORT"] == ["environment", "9000"]
    assert shown["CORS_ORIGINS"] == ["default"]  # because of HOST
    assert shown["UPLOAD_FOLDER"] == ["default", str(tmp_path / "uploads")]
    assert " ".join(shown["URL_SIGNING_KEYS"]) == "default made at the first start"
    assert shown["PLUGINS_DISABLED"] == ["environment", "exif,phash"]
    assert shown["MONGODB_URL"] == ["environment", "mongodb://db1,db2/"]
    assert "correct-horse" not in done.stdout and "librarian" not in done.stdout


def test_a_short_h_is_help_too(config):
    done = config("-h")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == config("--help").stdout


def test_what_can_be_used_is_shown_when_something_cannot(config):
    done = config("show", PORT="abc", HOST="::1", REDIS_URL="redis://:correct-horse@[queue/0")
    assert done.returncode == 1
    assert done.stderr.startswith("clustr: ")
    assert "PORT='abc': expected a whole number" in done.stderr
    assert "correct-horse" not in done.stdout + done.stderr
    assert done.stdout.splitlines()[0].split() == ["HOST", "environment", "::1"]


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"PROXY_HOPS": "1"}, "AUTH is not set, and "),
        ({"ALLOWED_EXTENSIONS": "jpg,svg"}, "ALLOWED_EXTENSIONS: svg: expected some of "),
    ],
    ids=["AUTH", "formats"],
)
def test_a_reload_is_refused_when_new_web_processes_would_not_start(config, settings, problem):
    """Its unit reloads only when this command succeeds; the old ones would end in any case."""
    done = config("show", "--web", **settings)
    assert done.returncode == 1
    assert done.stderr.startswith(f"clustr: {problem}")
    # Workers need neither.
    done = config("show", **settings)
    assert (done.returncode, done.stderr) == (0, "")
