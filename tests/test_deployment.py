"""What docs/deployment.md has an operator do, as far as it can be seen without a machine for it.

`make deployment` runs all of it on a bare Debian.
"""

import configparser
import re
import shlex
import shutil
import subprocess
from functools import partial
from pathlib import Path

import pytest
import requests
from deployment import DOCUMENT, steps
from running import start, wait_until

from clustr.supervisor.servers import free_port

ROOT = Path(__file__).parent.parent
CONFIG = ROOT / "config"
STEPS = steps(DOCUMENT.read_text())
SCRIPT = "\n".join(step.commands for step in STEPS)
UNITS = sorted(CONFIG.glob("*.service"))
PROGRAMS = ("nginx", "openssl")


def commands() -> list[list[str]]:
    """Every command of the document as words, without what is fed into it."""
    without_input = re.sub(r"<<'END'\n.*?^END$", "", SCRIPT, flags=re.MULTILINE | re.DOTALL)
    lines = without_input.replace("\\\n", " ").splitlines()
    return [shlex.split(each) for line in lines if line for each in line.split(" && ")]


def place_of(*beginning: str) -> int:
    """Which command begins in this way; there is one."""
    [place] = [n for n, words in enumerate(commands()) if words[: len(beginning)] == [*beginning]]
    return place


def installed() -> dict[str, tuple[int, str]]:
    """By their paths, the files that are installed: by which command, and from where."""
    found = {}
    for place, words in enumerate(commands()):
        if words[0] == "install" and "--directory" not in words:
            *sources, target = [word for word in words[1:] if not word.startswith("--")]
            for source in sources:
                file = target if not target.endswith("/") else f"{target}{Path(source).name}"
                found[file] = (place, source)
    return found


def folders() -> dict[str, int]:
    """By their paths, the folders that are made, and by which command."""
    made = {"/opt/clustr": place_of("python3", "-m", "venv", "/opt/clustr")}
    for place, words in enumerate(commands()):
        if words[:2] == ["install", "--directory"]:
            made |= dict.fromkeys((w for w in words[2:] if w.startswith("/")), place)
    return made


def unit(name: str) -> configparser.ConfigParser:
    read = configparser.ConfigParser(strict=False, interpolation=None)
    read.optionxform = str
    read.read(CONFIG / name)
    return read


def test_the_readme_leads_there():
    assert "(docs/deployment.md)" in (ROOT / "README.md").read_text()


@pytest.mark.parametrize("step", STEPS, ids=lambda step: step.heading)
def test_commands_are_commands(step):
    ran = subprocess.run(
        ["/bin/sh", "-n"], input=step.commands, capture_output=True, text=True, timeout=60
    )
    assert (ran.returncode, ran.stderr) == (0, "")


def test_what_is_installed_is_there():
    sources = {source for _, source in installed().values() if source.startswith("config/")}
    assert len(sources) >= 8
    assert not {source for source in sources if not (ROOT / source).is_file()}
    # Everything that a deployer edits is installed by it.
    assert {path.name for path in CONFIG.iterdir() if path.is_file()} == {
        Path(source).name for source in sources
    }


def test_accounts_are_made_before_anything_is_theirs():
    accounts = {words[-1]: n for n, words in enumerate(commands()) if words[0] == "useradd"}
    assert set(accounts) == {"clustr", "clustr-mongod"}
    for place, words in enumerate(commands()):
        for word in words:
            owner = re.fullmatch(r"--(?:owner|group)=(clustr.*)", word)
            assert owner is None or accounts[owner[1]] < place
    for each in UNITS:
        assert unit(each.name)["Service"]["User"] in accounts


def test_units_are_installed_and_known_before_they_are_enabled():
    enabled = []
    for place, words in enumerate(commands()):
        if words[:3] == ["systemctl", "enable", "--now"]:
            assert commands()[place - 1] == ["systemctl", "daemon-reload"]
            for name in words[3:]:
                assert installed()[f"/etc/systemd/system/{name}"][0] < place - 1
                enabled.append(name)
    assert sorted(enabled) == [each.name for each in UNITS]


@pytest.mark.parametrize("name", [each.name for each in UNITS])
def test_what_a_unit_names_is_made_before_it_is_started(name):
    [started] = [
        n for n, w in enumerate(commands()) if w[:2] == ["systemctl", "enable"] and name in w
    ]
    service = unit(name)["Service"]
    made = folders() | {path: place for path, (place, _) in installed().items()}
    paths = [*shlex.split(service["ExecStart"]), *service.get("ReadWritePaths", "").split()]
    paths += [service["WorkingDirectory"]] if "WorkingDirectory" in service else []
    absolute = [path for path in paths if path.startswith("/")]
    assert absolute
    for path in absolute:
        inside = re.sub(r"^(/opt/clustr)/bin/.*", r"\1", path)  # what pip puts there
        assert made[inside] < started, path
    if "gunicorn" in service["ExecStart"]:
        assert installed()["/etc/clustr/gunicorn.conf.py"][0] < started
        assert installed()["/etc/clustr/.env"][0] < started


def test_settings_name_what_is_made():
    [settings] = re.findall(r"^cat >> /etc/clustr/\.env <<'END'\n(.*?)^END$", SCRIPT, re.M | re.S)
    lines = dict(line.split("=", 1) for line in settings.split())
    assert lines["UPLOAD_FOLDER"] in folders()
    assert lines["PLUGINS_CONFIG"] in installed()
    nginx = (CONFIG / "nginx.conf").read_text()
    assert f"location {lines['ACCEL_REDIRECT']}/ {{" in nginx
    assert f"alias {lines['UPLOAD_FOLDER']}/;" in nginx
    assert f"server_name {lines['ALLOWED_HOSTS']};" in nginx
    assert lines["PROXY_HOPS"] == "1"
    assert lines["AUTH"] == "keys"
    mongod = (CONFIG / "mongod.conf").read_text()
    assert re.search(r"keyFile: (\S+)", mongod)[1] in installed()
    state = unit("clustr-mongod.service")["Service"]["StateDirectory"]
    assert re.search(r"dbPath: (\S+)", mongod)[1] == f"/var/lib/{state}"


def test_nginx_sends_on_to_tls_as_the_page_says(tmp_path):
    programs = [shutil.which(name, path="/usr/sbin:/usr/bin:/sbin:/bin") for name in PROGRAMS]
    if None in programs:
        pytest.skip(f"needs the commands {', '.join(PROGRAMS)}")
    nginx, openssl = programs
    request = "req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=test"
    files = [
        "-addext",
        "subjectAltName=IP:127.0.0.1",
        "-out",
        tmp_path / "fullchain.pem",
        "-keyout",
        tmp_path / "privkey.pem",
    ]
    subprocess.run([openssl, *request.split(), *files], check=True, capture_output=True, timeout=30)
    fronts, listens = re.findall(r"^```nginx\n(.*?)^```$", DOCUMENT.read_text(), re.M | re.S)
    before, refusing, rest = re.split(
        r"(^server \{.*?^\}\n)", (CONFIG / "nginx.conf").read_text(), maxsplit=1, flags=re.M | re.S
    )
    assert "return 421;" in refusing and rest.count("    listen 80;\n") == 1
    told = before + fronts + rest.replace("    listen 80;\n", listens)
    plain, tls = free_port(), free_port()
    for ours, here in (
        ("listen 80", f"listen 127.0.0.1:{plain}"),
        ("listen 443", f"listen 127.0.0.1:{tls}"),
        ("127.0.0.1:5000", f"127.0.0.1:{free_port()}"),
        ("/etc/ssl/clustr", str(tmp_path)),
        ("/var/log/nginx", str(tmp_path)),
    ):
        assert ours in told
        told = told.replace(ours, here)
    (tmp_path / "nginx.conf").write_text(
        f"daemon off;\npid {tmp_path}/pid;\nevents {{}}\nhttp {{\n{told}\n}}\n"
    )
    running = start([nginx, "-e", f"{tmp_path}/error.log", "-c", f"{tmp_path}/nginx.conf"])
    try:
        wait_until(lambda: (tmp_path / "pid").exists(), 60, "nginx")
        ask = partial(
            requests.get, allow_redirects=False, verify=tmp_path / "fullchain.pem", timeout=60
        )
        host = {"Host": "images.example.com"}
        led = ask(f"http://127.0.0.1:{plain}/api/uploads?page=2", headers=host)
        assert led.status_code == 308
        assert led.headers["Location"] == "https://images.example.com/api/uploads?page=2"
        for front in (f"http://127.0.0.1:{plain}", f"https://127.0.0.1:{tls}"):
            assert ask(front).status_code == 421
        assert ask(f"https://127.0.0.1:{tls}", headers=host).status_code == 502
    finally:
        running.terminate()
        running.wait(60)


def test_nginx_is_told_the_path_below_another_site(tmp_path):
    [edit] = [words for words in commands() if words[:2] == ["sed", "--in-place"]]
    copied = tmp_path / "clustr.conf"
    shutil.copy(CONFIG / "nginx.conf", copied)
    assert edit[-1] in installed()
    subprocess.run([*edit[:-1], copied], check=True, timeout=60)
    changed = set(copied.read_text().splitlines()) - set(
        (CONFIG / "nginx.conf").read_text().splitlines()
    )
    assert {line.strip() for line in changed} == {
        "location /clustr/ {",
        "proxy_pass http://clustr/;",
        "proxy_set_header X-Forwarded-Prefix /clustr;",
    }


def test_systemd_understands_the_units(tmp_path):
    """In a scratch root with what they name."""
    if not shutil.which("systemd-analyze"):
        pytest.skip("systemd-analyze says it")
    targets = Path("/usr/lib/systemd/system")
    if not targets.is_dir():
        targets = Path("/lib/systemd/system")
    units = tmp_path / "usr/lib/systemd/system"
    shutil.copytree(targets, units, symlinks=True)
    for program in ("bin/sh", "opt/clustr/bin/gunicorn", "opt/clustr/bin/clustr"):
        programs = tmp_path / program
        programs.parent.mkdir(parents=True, exist_ok=True)
        programs.write_text("")
        programs.chmod(0o755)
    mongod = tmp_path / "usr/local/bin/mongod"
    mongod.parent.mkdir(parents=True)
    shutil.copy(tmp_path / "bin/sh", mongod)
    for each in UNITS:
        shutil.copy(each, units)
    names = [each.name for each in UNITS]
    ran = subprocess.run(
        ["systemd-analyze", "verify", f"--root={tmp_path}", "--man=no", *names],
        capture_output=True,
        text=True,
        timeout=60,
    )
    said = [line for line in ran.stderr.splitlines() if "clustr" in line]
    assert (ran.returncode, said) == (0, [])
