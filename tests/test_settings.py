"""The settings: what is read, what is refused, and in which words."""

from pathlib import Path

import pytest

from clustr.errors import StartUpError
from clustr.settings import read_settings


def test_defaults_are_those_of_the_seed() -> None:
    settings = read_settings({})
    assert (settings.host, settings.port) == ("127.0.0.1", 5000)
    assert settings.upload_folder == Path.cwd() / "uploads"
    assert settings.upload_url_path == "/uploads"
    assert settings.allowed_extensions == ("png", "jpg", "jpeg", "webp", "bmp", "tiff", "tif")
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


def test_every_value_that_cannot_be_used_is_named_with_what_was_expected() -> None:
    wrong = {
        "PORT": "abc",
        "MAX_UPLOAD_SIZE": "0",
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
