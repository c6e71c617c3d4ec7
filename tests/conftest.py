"""Fixtures that more than one file of tests uses."""

import shutil
import subprocess
import uuid
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import browsing
import editing
import made_vectors
import pytest
import traces
from blip_caller import Caller
from blip_stand_in import BlipStandIn
from closed import Closed
from flask import Flask
from fsck_store import Store, opened
from made_vectors import Gallery
from PIL import Image
from playwright.sync_api import Browser
from plugin_sources import Load
from pymongo import MongoClient
from pymongo.collection import Collection
from running import Servers, Up
from sent_commands import listen
from web_side import WebSide
from workshop import Workshop

from clustr.analysis.http_session import Session
from clustr.api.http.request_context import EXTENSION
from clustr.app import create_app
from clustr.components import VECTORS_FOLDER
from clustr.database import Database
from clustr.imaging import pillow_setup
from clustr.imaging.formats import Format, formats_for
from clustr.imaging.images import InspectedImage, open_displayed
from clustr.imaging.images import inspect as inspect_image
from clustr.plugin_manager import PluginManager, load_plugins
from clustr.settings import read_settings

# Formats of the tests of images; others are allowed by those that want them.
DEFAULT_FORMATS = formats_for(("png", "jpg", "jpeg", "webp", "bmp", "tif", "tiff"))


@pytest.fixture(scope="session")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    """A real MongoDB and a real Redis; one pair for each process of pytest-xdist."""
    running = Servers(tmp_path_factory.mktemp("servers"))
    try:
        running.start()
        yield running
    finally:
        running.end()


@pytest.fixture
def drop_in(tmp_path: Path) -> Callable[..., Path]:
    """Makes a place with one plugin, `it`."""

    def drop_in(source: str, toml: str = "") -> Path:
        (tmp_path / "plugins").mkdir(exist_ok=True)
        (tmp_path / "plugins" / "it.py").write_text(source)
        (tmp_path / "plugins.toml").write_text(toml)
        return tmp_path

    return drop_in


@pytest.fixture
def plugins_folder(tmp_path: Path) -> Path:
    """A folder for plugins."""
    folder = tmp_path / "plugins"
    folder.mkdir()
    return folder


@pytest.fixture
def load(tmp_path: Path, plugins_folder: Path) -> Load:
    """Loads the plugins of the folder, with this configuration."""

    def load(
        enabled: tuple[str, ...] | None = None,
        disabled: tuple[str, ...] = (),
        toml: str = "",
        environment: Mapping[str, str] | None = None,
    ) -> PluginManager:
        config = tmp_path / "plugins.toml"
        config.write_text(toml)
        return load_plugins(plugins_folder, enabled, disabled, config, environment or {})

    return load


@pytest.fixture
def up(tmp_path: Path) -> Iterator[Callable[..., Up]]:
    """Runs `clustr up` in the folder of the test; keywords are settings."""
    started: list[Up] = []

    def run(*arguments: str, own_python: bool = False, **environment: str) -> Up:
        started.append(Up(tmp_path, environment, arguments, own_python))
        return started[-1]

    yield run
    for one in reversed(started):
        one.end()


@pytest.fixture(scope="session")
def blip() -> Iterator[BlipStandIn]:
    """The captioner of `service`."""
    with BlipStandIn() as running:
        yield running


@pytest.fixture
def caller(tmp_path: Path) -> Iterator[Caller]:
    """Calls the analyzer `blip`, with a captioner of its own."""
    with BlipStandIn() as captioner, Session() as http:
        yield Caller(tmp_path, http, captioner)


@pytest.fixture(scope="session")
def service(tmp_path_factory: pytest.TempPathFactory, blip: BlipStandIn) -> Iterator[Up]:
    """A `clustr up` for all tests that need no settings of their own: its default ones."""
    settings = {
        "DEBUG_ENDPOINTS": "true",
        "BLIP_SERVICE_URL": blip.url,
        "AUTH": "off",
        "ALLOWED_HOSTS": browsing.HOST,
    }
    running = Up(tmp_path_factory.mktemp("service"), settings, ())
    try:
        yield running.wait_until_started()
    finally:
        running.end()


@pytest.fixture(scope="session")
def web(tmp_path_factory: pytest.TempPathFactory, servers: Servers) -> Iterator[WebSide]:
    """The web side alone, for tests that need neither analyzers nor settings of their own."""
    with Workshop(tmp_path_factory.mktemp("web"), servers) as workshop:
        yield WebSide(workshop, processes=2)


@pytest.fixture(scope="module")
def web_with(
    tmp_path_factory: pytest.TempPathFactory, servers: Servers
) -> Iterator[Callable[..., WebSide]]:
    """Runs the web side alone, without analyzers; keywords are settings."""
    with ExitStack() as opened:

        def run(processes: int = 2, **settings: str) -> WebSide:
            folder = tmp_path_factory.mktemp("web")
            workshop = opened.enter_context(Workshop(folder, servers, **settings))
            return WebSide(workshop, processes)

        yield run


@pytest.fixture(scope="module")
def service_with(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Up]]:
    """Runs a `clustr up` for the tests of one file; keywords are settings."""
    started: list[Up] = []

    def run(own_python: bool = False, **settings: str) -> Up:
        started.append(Up(tmp_path_factory.mktemp("service"), settings, (), own_python))
        return started[-1].wait_until_started()

    yield run
    for one in reversed(started):
        one.end()


@pytest.fixture(scope="session")
def app_workshop(tmp_path_factory: pytest.TempPathFactory, servers: Servers) -> Iterator[Workshop]:
    """The servers' database and keys for all that `app_with` builds: its indexes are made once."""
    with Workshop(tmp_path_factory.mktemp("apps"), servers) as workshop:
        yield workshop


@pytest.fixture
def app_with(
    app_workshop: Workshop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., Flask]]:
    """Builds the web application in this process; keywords are settings."""
    app_workshop.forget_installation()
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)  # put back afterwards
    monkeypatch.chdir(tmp_path)
    built: list[Flask] = []
    addresses = {
        name: app_workshop.environment[name]
        for name in ("MONGODB_URL", "MONGODB_DATABASE", "REDIS_URL")
    }

    def build(**settings: str) -> Flask:
        built.append(create_app(read_settings({**addresses, **settings})))
        return built[-1]

    yield build
    for app in built:
        app.extensions[EXTENSION].close()


@pytest.fixture(scope="module")
def shared_workshop(
    tmp_path_factory: pytest.TempPathFactory, servers: Servers
) -> Iterator[Workshop]:
    """The workshop of all tests of a file; a test asks for `workshop` instead."""
    with Workshop(tmp_path_factory.mktemp("workshop"), servers) as workshop:
        yield workshop


@pytest.fixture
def workshop(shared_workshop: Workshop) -> Iterator[Workshop]:
    """A workshop without uploads and plugins, whose indexes are there already."""
    shared_workshop.empty()
    yield shared_workshop
    shared_workshop.end_programs()


@pytest.fixture(scope="module")
def shared_saying_workshop(shared_workshop: Workshop) -> Workshop:
    fields = {"caption": "caption", "tags": "tags", "taken_at": "when"}
    said = str(shared_workshop.folder / "said")
    shared_workshop.analyzer("says", editing.SAYS.format(said=said), fields=fields)
    return shared_workshop


@pytest.fixture
def saying_workshop(shared_saying_workshop: Workshop) -> Iterator[Workshop]:
    """A workshop without uploads, whose analyzer `says` returns what a test writes for it."""
    shared_saying_workshop.empty("says")
    yield shared_saying_workshop
    shared_saying_workshop.end_programs()


@pytest.fixture(scope="module")
def shared_vector_gallery(
    servers: Servers, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Workshop]:
    listen()
    with Workshop(tmp_path_factory.mktemp("similar"), servers) as workshop:
        workshop.write("it", made_vectors.PLUGIN.format(vectors=made_vectors.VECTORS))
        yield workshop


@pytest.fixture
def vector_gallery(shared_vector_gallery: Workshop) -> Iterator[Gallery]:
    """A gallery whose uploads have made-up vectors, and no files of them yet."""
    shared_vector_gallery.empty("it")
    shared_vector_gallery.renew()
    folder = shared_vector_gallery.settings.data_folder / VECTORS_FOLDER
    shutil.rmtree(folder, ignore_errors=True)
    yield Gallery(shared_vector_gallery)
    shared_vector_gallery.end_programs()


@pytest.fixture
def upload_id(saying_workshop: Workshop) -> str:
    """An upload with a caption and tags by the analyzer `says`."""
    said = saying_workshop.folder / "said"
    said.write_text('{"caption": "a cat", "tags": ["cat", "sofa"]}')
    (upload_id,) = saying_workshop.upload()
    editing.work(saying_workshop)
    return upload_id


@pytest.fixture(scope="module")
def closed(tmp_path_factory: pytest.TempPathFactory, servers: Servers) -> Iterator[Closed]:
    """A web side that asks for keys, and sends files without metadata."""
    settings = {"AUTH": "keys", "FILES_METADATA": "strip", "PLUGINS_ENABLED": ""}
    with Workshop(tmp_path_factory.mktemp("closed"), servers, **settings) as workshop:
        yield Closed(workshop.app)


@pytest.fixture
def own_workshop(tmp_path: Path, servers: Servers) -> Iterator[Workshop]:
    """A workshop that no other test gets, for what `Workshop.empty` cannot put right."""
    with Workshop(tmp_path, servers) as workshop:
        yield workshop


@pytest.fixture(scope="module")
def mongo_database(servers) -> Iterator[Any]:
    """A database of the tests' own, to look into."""
    with MongoClient(servers.mongodb_url, tz_aware=True) as client:
        yield client[f"database-{uuid.uuid4().hex}"]


@pytest.fixture
def collection(mongo_database) -> Collection[dict[str, Any]]:
    for name in mongo_database.list_collection_names():
        if not name.startswith("system."):
            mongo_database[name].delete_many({})
    return mongo_database["uploads"]


@pytest.fixture(scope="module")
def open_database(servers, mongo_database) -> Iterator[Database]:
    database = Database(servers.mongodb_url, mongo_database.name, "uploads", timeout_seconds=10)
    database.make_indexes()
    yield database
    database.close()


@pytest.fixture
def database(open_database, collection) -> Database:
    """Our database, which is empty."""
    return open_database


@pytest.fixture(scope="module")
def store_workshop(
    tmp_path_factory: pytest.TempPathFactory, servers: Servers
) -> Iterator[Workshop]:
    """Uploads are looked at by the analyzer `known`, which nobody runs."""
    with opened(tmp_path_factory.mktemp("workshop"), servers) as workshop:
        yield workshop


@pytest.fixture
def store(store_workshop: Workshop) -> Store:
    """A store with four uploads, for `clustr fsck`."""
    store_workshop.empty("known")
    made = Store(store_workshop)
    made.add(4)
    return made


@pytest.fixture
def own_store(tmp_path: Path, servers: Servers) -> Iterator[Store]:
    """The same for tests that do something to the folder itself or to the settings."""
    with opened(tmp_path, servers) as workshop:
        made = Store(workshop)
        made.add(4)
        yield made


@pytest.fixture
def prepared(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Loads the formats into this process, for as long as the test takes."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)  # put back afterwards
    with warnings.catch_warnings():
        pillow_setup.prepare(50_000_000)
        yield


@pytest.fixture
def inspect(tmp_path: Path) -> Callable[..., InspectedImage]:
    """Inspects a file with these bytes."""

    def inspect(
        content: bytes, allowed: tuple[Format, ...] = DEFAULT_FORMATS, limit_time: bool = False
    ) -> InspectedImage:
        # The name says nothing, as that of a file that is being received.
        with (tmp_path / "incoming").open("w+b") as file:
            file.write(content)
            return inspect_image(file, allowed, limit_time)

    return inspect


@pytest.fixture(name="opened")
def open_image(tmp_path: Path) -> Callable[[bytes], Image.Image]:
    """Decodes a file with these bytes."""

    def open_image(content: bytes) -> Image.Image:
        path = tmp_path / "incoming"
        path.write_bytes(content)
        return open_displayed(path)

    return open_image


@pytest.fixture(scope="session")
def strace() -> None:
    """For tests that trace system calls."""
    if reason := traces.impossible():
        pytest.skip(reason)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A real browser; not for a whole session, in which its loop would stand in others' way."""
    path = browsing.installed()
    if path is None:
        pytest.skip(f"no browser is installed: none of {', '.join(browsing.BROWSERS)} is on PATH")
    with browsing.running(path) as chromium:
        yield chromium


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A certificate for 127.0.0.1 that its own key signed, and the key."""
    if not (openssl := shutil.which("openssl")):
        pytest.skip("needs the command openssl")
    folder = tmp_path_factory.mktemp("tls")
    certificate, key = folder / "certificate.pem", folder / "key.pem"
    request = "req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=test"
    names = ["-addext", "subjectAltName=IP:127.0.0.1", "-out", certificate, "-keyout", key]
    subprocess.run([openssl, *request.split(), *names], check=True, capture_output=True)
    return certificate, key
