"""The settings: what is read, what is refused, and in which words."""

import re
from pathlib import Path

import pytest

from clustr.domain.errors import InvalidSettings, StartUpError
from clustr.domain.failure_messages import is_one_typo_apart
from clustr.settings import (
    declared_settings,
    describe_unknown_variables,
    read_environment,
    read_settings,
)


def test_defaults_are_those_of_the_seed() -> None:
    settings = read_settings({})
    assert (settings.host, settings.port) == ("127.0.0.1", 5000)
    assert settings.upload_folder == Path.cwd() / "uploads"
    assert settings.upload_url_path == "/uploads"
    extensions = ["png", "jpg", "jpeg", "webp", "bmp", "tiff", "tif", "heic", "heif", "avif", "gif"]
    assert settings.allowed_extensions == (*extensions,)
    assert settings.mongodb_url == "mongodb://localhost:27017"
    assert (settings.mongodb_database, settings.mongodb_uploads_collection) == ("clustr", "uploads")
    assert settings.given == frozenset()


def test_a_file_like_the_seeds_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".env").write_text(
        "# Server settings\n"
        "HOST=0.0.0.0  # Listen on all interfaces\n"
        "PORT=8000     # Custom port\n"
        "RELOAD=False  # Disable auto-reload in production\n"
        "\n"
        "UPLOAD_FOLDER=/path/to/custom/storage\n"
        "MONGODB_URL=mongodb://localhost:27017\n"
        "BLIP_SERVICE_URL=http://localhost:8001\n"
    )
    monkeypatch.chdir(tmp_path)
    for name in ("HOST", "PORT", "RELOAD", "UPLOAD_FOLDER", "MONGODB_URL"):
        monkeypatch.delenv(name, raising=False)
    settings = read_settings()
    assert (settings.host, settings.port, settings.reload) == ("0.0.0.0", 8000, False)
    assert settings.upload_folder == Path("/path/to/custom/storage")
    assert "MONGODB_URL" in settings.given
    monkeypatch.setenv("PORT", "9000")
    assert read_settings().port == 9000


def read_by_systemd(text: str) -> dict[str, str]:
    """What `EnvironmentFile=` makes of a file, as far as the example goes: systemd.exec(5)."""
    lines = [line.strip() for line in text.splitlines()]
    assert not re.search("[\"'\\\\]", "".join(lines)), "these it reads in ways of its own"
    said = [line.partition("=") for line in lines if line and line[0] not in "#;"]
    return {name: value for name, _, value in said}


def test_the_example_is_read_alike_from_env_and_by_systemd(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    example = (Path(__file__).parent.parent / "config/example.env").read_text()
    uncommented = re.sub(r"^# ([A-Z_]+=)", r"\1", example, flags=re.MULTILINE)
    (tmp_path / ".env").write_text(uncommented)
    monkeypatch.chdir(tmp_path)
    variables = read_by_systemd(uncommented)
    for name in variables:
        monkeypatch.delenv(name, raising=False)
    assert len(variables) > 30
    here = {"PLUGINS_FOLDER": str(tmp_path), "PLUGINS_CONFIG": str(tmp_path / ".env")}
    from_file = read_settings({**read_environment(), **here})
    from_systemd = read_settings({**variables, **here})
    for field in declared_settings():
        assert getattr(from_file, field.name) == getattr(from_systemd, field.name)
    assert from_file.max_upload_size == 100 * 2**20


def test_every_value_that_cannot_be_used_is_named_with_what_was_expected() -> None:
    wrong = {
        "PORT": "abc",
        "MAX_UPLOAD_SIZE": "0",
        "MAX_REQUEST_SIZE": "50 apples",
        "LOG_LEVEL": "loud",
        "PLUGINS_FOLDER": "/nowhere",
        "PLUGINS_CONFIG": "/nowhere.toml",
        "RELOAD": "perhaps",
        "REDIS_URL": "localhost",
        "MONGODB_URL": "http://localhost",
        "LOG_FORMAT": "xml",
        "UPLOAD_URL_PATH": "uploads",
        "BASE_URL": "example.com",
        "CORS_ORIGINS": "https://one.example, two.example",
        "ALLOWED_HOSTS": "one.example, two.example:8080",
    }
    with pytest.raises(StartUpError) as caught:
        read_settings(wrong)
    sentences = str(caught.value).split("; ")
    assert len(sentences) == len(wrong)
    for sentence in sentences:
        name = sentence.partition("=")[0]
        shown = "***" if name in ("MONGODB_URL", "REDIS_URL") else repr(wrong[name])
        assert sentence.startswith(f"{name}={shown}: ") and "expected" in sentence, sentence


def test_lists_are_separated_by_commas_and_may_be_empty() -> None:
    settings = read_settings({"ALLOWED_EXTENSIONS": "png, jpg,,", "PLUGINS_ENABLED": ""})
    assert settings.allowed_extensions == ("png", "jpg")
    assert settings.plugins_enabled == ()


@pytest.mark.parametrize(
    "origin",
    [
        "*",
        "https://app.example.com",
        "HTTP://LOCALHOST:3000",
        "http://192.0.2.7:8080",
        "http://[2001:db8::7]:8080",
        "capacitor://localhost",
        "chrome-extension://aapbdbdomjkkjkaonfhkkikfgjllcleb",
    ],
)
def test_an_origin_is_a_scheme_a_host_and_perhaps_a_port(origin: str) -> None:
    settings = read_settings({"CORS_ORIGINS": f"https://one.example, {origin}"})
    assert settings.cors_origins == ("https://one.example", origin)


@pytest.mark.parametrize(
    "origin",
    [
        "app.example.com",
        "localhost:3000",
        "https://app.example.com/",
        "https://app.example.com/path",
        "https://app.example.com?query",
        "https://app.example.com#fragment",
        "https://me@app.example.com",
        "https://app.example.com:",
        "https://app.example.com:port",
        "https://app.example.com https://two.example",
        "https://*.example.com",
        "https://[a-z]+.example.com",
        "https://bücher.example",
        "https://",
        "//app.example.com",
        "null",
        "**",
    ],
)
def test_what_no_browser_sends_as_an_origin_is_refused(origin: str) -> None:
    """It would never match, and whoever set it would look for the reason elsewhere."""
    with pytest.raises(StartUpError) as caught:
        read_settings({"CORS_ORIGINS": f"https://one.example,{origin}"})
    said = str(caught.value)
    assert said.startswith("CORS_ORIGINS=")
    assert f"{origin!r} is none" in said
    assert "expected * or scheme://host[:port]" in said


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.2", "localhost", "::1"])
def test_pages_of_this_machine_may_call_what_serves_it_alone(host: str) -> None:
    assert read_settings({"HOST": host}).cors_origins == ("loopback",)
    assert read_settings({"HOST": host, "CORS_ORIGINS": ""}).cors_origins == ()


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.7", "images.example.com"])
def test_no_page_may_call_by_default_what_is_served_elsewhere(host: str) -> None:
    assert read_settings({"HOST": host}).cors_origins == ()
    assert read_settings({"HOST": host, "CORS_ORIGINS": "loopback"}).cors_origins == ("loopback",)


@pytest.mark.parametrize("host", ["*", "images.example.com", "192.0.2.7", "2001:db8::7", "[::1]"])
def test_a_host_is_a_name_or_an_address(host: str) -> None:
    assert read_settings({"ALLOWED_HOSTS": f"a.example, {host}"}).allowed_hosts[1] == host


@pytest.mark.parametrize("host", ["https://a.example", "a.example:80", "a/b", "*.example", "a b"])
def test_what_is_no_host_is_refused(host: str) -> None:
    with pytest.raises(StartUpError, match="ALLOWED_HOSTS"):
        read_settings({"ALLOWED_HOSTS": host})


@pytest.mark.parametrize("name", ["MONGODB_DATABASE", "MONGODB_UPLOADS_COLLECTION"])
def test_names_that_mongodb_refuses_are_refused_before(name: str) -> None:
    for good in ("clustr", "my-photos_2", "photos:2024", "фото"):
        assert getattr(read_settings({name: good}), name.lower()) == good
    for bad in (".photos", "photos.", "my..photos", "photos$", "$photos", "photos\0"):
        with pytest.raises(StartUpError, match=f"{name}=.*: expected "):
            read_settings({name: bad})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("MONGODB_DATABASE", f"my{character}photos") for character in ' ./\\"'),
        ("MONGODB_DATABASE", 64 * "d"),
        ("MONGODB_DATABASE", 32 * "ф"),  # two bytes each
        ("MONGODB_UPLOADS_COLLECTION", "system.photos"),
    ],
)
def test_names_of_one_kind_that_mongodb_refuses(name: str, value: str) -> None:
    with pytest.raises(StartUpError, match=f"{name}=.*: expected "):
        read_settings({name: value})


def test_what_is_empty_counts_as_not_set() -> None:
    settings = read_settings({"MONGODB_URL": "", "PORT": ""})
    assert settings.mongodb_url == "mongodb://localhost:27017"
    assert "MONGODB_URL" not in settings.given


def test_defaults_that_depend_on_others(tmp_path: Path) -> None:
    settings = read_settings({"DATA_FOLDER": str(tmp_path), "MAX_UPLOAD_SIZE": "1000"})
    assert settings.upload_folder == tmp_path / "uploads"
    assert settings.max_request_size == 20_000
    settings = read_settings({"DATA_FOLDER": str(tmp_path), "UPLOAD_FOLDER": str(tmp_path / "u")})
    assert settings.upload_folder == tmp_path / "u"


def test_problems_are_told_by_the_names_of_their_settings() -> None:
    with pytest.raises(InvalidSettings) as caught:
        read_settings({"PORT": "abc", "HOST": "\udcff", "RELOAD": "yes"})
    assert caught.value.problems == {
        "HOST": "HOST: expected text in UTF-8",
        "PORT": "PORT='abc': expected a whole number",
    }


@pytest.mark.parametrize("level", ["INFO", "Warning", "debug"])
def test_words_may_be_in_capital_letters(level: str) -> None:
    settings = read_settings({"LOG_LEVEL": level, "LOG_FORMAT": "JSON"})
    assert (settings.log_level, settings.log_format) == (level.lower(), "json")


@pytest.mark.parametrize(
    "text, size_bytes",
    [
        ("52428800", 52428800),
        ("50MB", 50 * 2**20),
        ("50 MiB", 50 * 2**20),
        ("50m", 50 * 2**20),
        ("1.5 GB", 3 * 2**29),
        ("10kb", 10 * 2**10),
        ("1TiB", 2**40),
        ("7 b", 7),
    ],
)
def test_a_size_may_have_a_unit(text: str, size_bytes: int) -> None:
    assert read_settings({"MAX_UPLOAD_SIZE": text}).max_upload_size == size_bytes
    assert read_settings({"MAX_REQUEST_SIZE": text}).max_request_size == size_bytes


@pytest.mark.parametrize("text", ["0", "0.5", "-1", "1e6", "MB", "50 XB", "50MBps", "1,5MB", "5 0"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(StartUpError, match="expected a number of bytes, or a size such as 50MB"):
        read_settings({"MAX_UPLOAD_SIZE": text})


@pytest.mark.parametrize(
    "url", ["https://images.example.com", "http://[::1]:8080/", "https://example.com/images"]
)
def test_a_base_url_is_an_address_to_which_a_path_can_be_added(url: str) -> None:
    assert read_settings({"BASE_URL": url}).base_url == url


@pytest.mark.parametrize(
    "url",
    [
        "https://a.example/?b=c",
        "https://a.example?",
        "https://a.example/#top",
        "https://:8080",
        "https://a.example:port",
        "https://a.example:99999",
        "https://[::1",
    ],
)
def test_a_base_url_with_a_query_or_without_a_host_is_refused(url: str) -> None:
    with pytest.raises(StartUpError, match=r"BASE_URL=.* expected an address without query"):
        read_settings({"BASE_URL": url})


def test_a_file_and_a_folder_that_are_set_have_to_be_there(tmp_path: Path) -> None:
    (tmp_path / "a file").touch()
    kinds = {"PLUGINS_FOLDER": "a folder", "PLUGINS_CONFIG": "a file"}
    for setting, kind in kinds.items():
        for wrong in ("nowhere", "a file" if kind == "a folder" else "."):
            with pytest.raises(StartUpError, match=f"^{setting}=.*: expected {kind} that exists$"):
                read_settings({setting: str(tmp_path / wrong)})
    there = {"PLUGINS_FOLDER": str(tmp_path), "PLUGINS_CONFIG": str(tmp_path / "a file")}
    assert read_settings(there).plugins_folder == tmp_path
    assert not read_settings({}).plugins_config.is_relative_to(tmp_path)  # nor is it there


@pytest.mark.parametrize(
    "name, meant",
    [
        ("UPLAOD_FOLDER", "did you mean UPLOAD_FOLDER?"),
        ("UPLOAD_FOLDR", "did you mean UPLOAD_FOLDER?"),
        ("PORTS", "did you mean PORT?"),
        ("MONGODB_URI", "did you mean MONGODB_URL?"),
        ("port", "did you mean PORT?"),
        ("FACE_SERVICE_URI", "did you mean FACE_SERVICE_URL?"),
        ("CLUSTR_PORT", "did you mean PORT?"),
        ("CLUSTR_UPLAOD_FOLDER", "did you mean UPLOAD_FOLDER?"),
        ("CLUSTR_PLUGINS__BLIP__TIMEOUT", "did you mean CLUSTR_PLUGIN__BLIP__TIMEOUT?"),
        ("CLUSTR_COLOR", "settings have no prefix"),
        ("CLUSTR_PLUGIN_BLIP_TIMEOUT", "those of a plugin are CLUSTR_PLUGIN__<NAME>__<KEY>"),
    ],
)
def test_a_name_that_is_no_setting_is_told_with_what_was_meant(name: str, meant: str) -> None:
    [sentence] = describe_unknown_variables({name: "5000", "PORT": "5000"}, ["FACE_SERVICE_URL"])
    assert sentence.startswith(f"{name} is no setting; ")
    assert meant in sentence


def test_names_that_others_set_are_not_told() -> None:
    of_a_shell = ("HOME", "PATH", "LANG", "TERM", "SHELL", "USER", "PWD", "LOGNAME", "HOSTNAME")
    of_kubernetes = {
        "CLUSTR_SERVICE_HOST": "10.96.7.1",
        "CLUSTR_SERVICE_PORT": "5000",
        "CLUSTR_SERVICE_PORT_HTTP": "5000",
        "CLUSTR_PORT": "tcp://10.96.7.1:5000",
        "CLUSTR_PORT_5000_TCP": "tcp://10.96.7.1:5000",
        "CLUSTR_PORT_5000_TCP_PROTO": "tcp",
        "CLUSTR_PORT_5000_TCP_PORT": "5000",
        "CLUSTR_PORT_5000_TCP_ADDR": "10.96.7.1",
        "CLUSTR_WEB_SERVICE_HOST": "10.96.7.2",
        "CLUSTR_WEB_PORT": "tcp://10.96.7.2:80",
    }
    of_plugins = {"CLUSTR_PLUGIN__BLIP__TIMEOUT": "3", "FACE_SERVICE_URL": "http://faces"}
    settings = {"PORT": "5000", "UPLOAD_FOLDER": "/srv"}
    environment = dict.fromkeys(of_a_shell, "x") | of_kubernetes | of_plugins | settings
    assert not list(describe_unknown_variables(environment, ["FACE_SERVICE_URL"]))


@pytest.mark.parametrize("other", ["abcd", "bcde", "abXde", "abcdeX", "Xabcde", "abdce", "bacde"])
def test_one_slip(other: str) -> None:
    assert is_one_typo_apart("abcde", other)
    assert is_one_typo_apart(other, "abcde")


@pytest.mark.parametrize("other", ["", "abc", "aXXde", "badce", "edcba", "abcdeXX", "cbade"])
def test_more_than_one_slip(other: str) -> None:
    assert not is_one_typo_apart("abcde", other)
    assert not is_one_typo_apart(other, "abcde")
