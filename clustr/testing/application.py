"""A real application for the tests of a plugin's routes and filters, with servers of its own."""

import copy
import itertools
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from functools import cached_property
from pathlib import Path
from typing import Any
from uuid import uuid4

import PIL.Image
from click.testing import CliRunner, Result
from flask import Flask
from flask.testing import FlaskClient

from clustr.analysis.ends import End
from clustr.analysis.runner import Runner
from clustr.analysis.work_slice import WorkSlice
from clustr.api.http.request_context import EXTENSION
from clustr.app import create_app
from clustr.components import WebProcess, build_plugin_library
from clustr.database.replica_set import ensure_primary
from clustr.domain import failure_messages
from clustr.domain.models import State
from clustr.plugin_manager import Plugin, PluginState, commands_of
from clustr.plugins import Analyzer, Library, Outcome
from clustr.queue import Queue
from clustr.settings import read_settings
from clustr.supervisor import servers
from clustr.testing.run import as_file

START_SECONDS = 60.0
POLL_SECONDS = 0.05
LARGEST_CLAIM = 1000

# Ends with the process that started it, however that ends.
TIED = """
import os, sys
from clustr.supervisor.forking import die_with_parent
die_with_parent(int(sys.argv[1]))
os.execv(sys.argv[2], sys.argv[2:])
"""

_numbers = itertools.count(1)


class OwnServers:
    """A MongoDB and a Redis for tests, which `clustr install-servers` installs.

    Args:
        folder: where their data is.

    Raises:
        StartUpError: one of them is not installed; the message says how to have it.
    """

    def __init__(self, folder: Path):
        mongod, redis = servers.find_program(servers.MONGOD), servers.find_program(servers.REDIS)
        for name in ("mongodb", "redis", "log"):
            (folder / name).mkdir(parents=True)
        passwords = servers.make_passwords(folder)
        mongodb_port, redis_port = servers.free_port(), servers.free_port()
        self.mongodb_url = servers.mongodb_url(mongodb_port, passwords)
        self.redis_url = servers.redis_url(redis_port, passwords)
        self._processes = [
            self._start(servers.mongod_arguments(mongod, mongodb_port, folder)),
            self._start(servers.redis_arguments(redis, redis_port, folder)),
        ]
        ensure_primary(
            servers.LOOPBACK,
            mongodb_port,
            servers.REPLICA_SET,
            passwords.mongodb_key,
            servers.MONGODB_USER,
            passwords.mongodb,
            START_SECONDS,
        )
        deadline = time.monotonic() + START_SECONDS
        while not servers.redis_answers(redis_port, passwords) and time.monotonic() < deadline:
            time.sleep(POLL_SECONDS)

    def _start(self, arguments: list[str]) -> "subprocess.Popen[bytes]":
        tied = [sys.executable, "-c", TIED, str(os.getpid()), *arguments]
        return subprocess.Popen(tied, start_new_session=True, stdout=subprocess.DEVNULL)

    def stop(self) -> None:
        for process in self._processes:
            process.kill()
            process.wait()


class PluginApplication:
    """The web application with plugins of the test, and no worker: what is analyzed says the test.

    Args:
        plugin: the name of the plugin whose `library` and commands these are.

    Attributes:
        app: the Flask application.
        client: calls it, as clients do over HTTP (`flask.testing.FlaskClient`).
    """

    def __init__(
        self, own_servers: OwnServers, folder: Path, plugin: str, settings: Mapping[str, str]
    ):
        number = next(_numbers)
        self._settings = read_settings(
            {
                "MONGODB_URL": own_servers.mongodb_url,
                "MONGODB_DATABASE": f"test{number}",
                "REDIS_URL": own_servers.redis_url,
                "DATA_FOLDER": str(folder),
                "PLUGINS_ENABLED": plugin,
                **settings,
            }
        )
        self.app: Flask = create_app(self._settings)
        self.client: FlaskClient = self.app.test_client()
        self._queue = Queue(self._settings.redis_url, self._settings.redis_prefix)
        # Else an upload would have no analysis whose service nobody has set and nobody has found.
        for name in self._components.default_services.not_configured:
            self._components.database.default_services.mark_configured(name)
        self._components.default_services.refresh()
        self._opened = ExitStack()
        self._opened.callback(self._components.database.close)
        try:
            names = (plugin, *(self._settings.plugins_enabled or ()))
            self._plugin, *_ = [self._loaded_plugin(name) for name in names]
        except ValueError:
            self.close()
            raise

    def _loaded_plugin(self, name: str) -> Plugin:
        """The plugin of this name.

        Raises:
            ValueError: there is none, or it is not loaded.
        """
        plugins = {plugin.name: plugin for plugin in self._components.plugin_manager.plugins}
        if name not in plugins:
            raise ValueError(failure_messages.unknown_name("plugin", name, plugins))
        plugin = plugins[name]
        if plugin.state is not PluginState.LOADED:
            raise ValueError(f"the plugin {name} is {plugin.state}: {plugin.reason}")
        return plugin

    @cached_property
    def library(self) -> Library:
        """The library that commands of the plugin are given."""
        return self._opened.enter_context(
            build_plugin_library(self._settings, self._components.plugin_manager, self._plugin)
        )

    def invoke(self, command: str, *arguments: str) -> Result:
        """Run a command of the plugin, as `clustr x PLUGIN COMMAND` does.

        Args:
            command: its name.
            arguments: what follows it on the command line.

        Returns:
            what click's tests are given: `exit_code`, and `output` with `stdout` and `stderr`. What
            the command raises, other than exceptions of click, is raised.

        Raises:
            ValueError: the plugin has no command of this name.
        """
        commands = commands_of(self._plugin, self.library)
        if command not in commands:
            raise ValueError(failure_messages.unknown_name("command", command, commands))
        return CliRunner().invoke(commands[command], arguments, catch_exceptions=False)

    @property
    def _components(self) -> WebProcess:
        components: WebProcess = self.app.extensions[EXTENSION]
        return components

    def make_upload(
        self,
        image: Path | PIL.Image.Image | None = None,
        *,
        results: Mapping[str, dict[str, Any] | Outcome] | None = None,
    ) -> dict[str, Any]:
        """Upload an image, and store these results of analyzers as if a worker had made them.

        Args:
            image: a file, such as one of `sample_image`; or a picture, which is written as a PNG;
                by default a picture that no other upload has.
            results: by the analyzers' names what `analyze` returns or raises. Each is checked as a
                worker checks it; one whose analyzer has `auto = False` is asked for. Analyses
                without one stay `queued`.

        Returns:
            the upload, as `GET /api/uploads/{id}` answers.

        Raises:
            ValueError: it is refused, or a result does not fit; the message says why.
        """
        if image is None:
            image = PIL.Image.new("RGB", (64, 48), (next(_numbers) % 256, next(_numbers) % 256, 7))
        with as_file(image) as path, path.open("rb") as file:
            answer = self.client.post("/api/upload", data={"files": [(file, path.name)]})
        if answer.status_code != 201:
            raise ValueError(f"the image is refused: {answer.get_data(as_text=True)}")
        upload_id: str = answer.get_json()["data"][0]["id"]
        given = dict(results or {})
        for name, analyzer in self._components.plugin_manager.analyzers.items():
            if name in given:
                self._store_result(upload_id, analyzer, given.pop(name))
        if given:
            known = ", ".join(self._components.plugin_manager.analyzers) or "none"
            raise ValueError(f"there is no analyzer {', '.join(given)}; there are {known}")
        upload: dict[str, Any] = self.client.get(f"/api/uploads/{upload_id}").get_json()
        return upload

    def _store_result(self, upload_id: str, analyzer: Analyzer, result: Any) -> None:
        components, run = self._components, uuid4().hex
        # Accepting the upload orders no analysis that is made only when it is asked for.
        components.analysis_jobs.run_again(upload_id, analyzer.name, only_missing=True)
        analyses = components.database.analyses
        plugin = components.plugin_manager.plugin_of(analyzer)
        runner = Runner(_analyzer_that_returns(analyzer, result), plugin)
        work = WorkSlice(
            components.database,
            components.storage,
            self._queue,
            components.plugin_manager,
            runner,
            run,
        )
        try:
            runner.prepare()
            claims = work.claim(LARGEST_CLAIM, probing=False)
            mine = [claimed for claimed in claims if claimed.upload.id == upload_id]
            if not mine:
                raise ValueError(_why_without_work(analyzer))
            image = work.image_of(mine[0].upload)
            [end] = [image] if isinstance(image, End) else [e for _, e in runner.run([image])]
            if end.state is State.FAILED and not isinstance(result, Outcome):
                raise ValueError(f"{analyzer.name}: {end.error}")
            work.write_ends([(mine[0], end)])
        finally:
            analyses.release(analyzer.name, run)
            work.threads.shutdown()
            runner.close()

    def close(self) -> None:
        self._opened.close()


def _why_without_work(analyzer: Analyzer) -> str:
    """Why an upload can have no work for an analyzer whose analysis was ordered."""
    reasons = []
    if analyzer.requires:
        required = ", ".join(analyzer.requires)
        reasons.append(f"it requires {required}, whose results have to be given")
    if analyzer.formats:
        reasons.append(f"it looks at {', '.join(sorted(analyzer.formats))} only")
    return f"{analyzer.name} has no work at this upload: {'; '.join(reasons)}"


def _analyzer_that_returns(analyzer: Analyzer, result: Any) -> Analyzer:
    """A copy of an analyzer that looks at nothing and needs nothing, and always has this result."""

    def analyze(_self: Analyzer, _image: Any, _context: Any) -> Any:
        if isinstance(result, Outcome):
            raise result
        return result

    members: dict[str, Callable[..., Any]] = {
        "analyze": analyze,
        "setup": lambda _self, _context: None,
        "model_info": lambda _self, _context: {},
        "teardown": lambda _self: None,
    }
    given = copy.copy(analyzer)
    given.__class__ = type(type(analyzer).__name__, (type(analyzer),), members)
    given.batch_size = 1
    return given
