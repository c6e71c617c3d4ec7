"""A workshop: plugins that a test writes, on real servers, with real workers as processes."""

import io
import itertools
import json
import os
import shutil
import signal
import subprocess
import textwrap
import threading
from collections.abc import Mapping
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import photographs
from bson import ObjectId
from flask import Flask
from fork_server import fork_server, run_program
from pymongo import MongoClient
from pymongo.collection import Collection
from redis import Redis
from running import (
    Process,
    Servers,
    all_processes,
    descendants,
    ensure_ready,
    freeze,
    start,
    wait_until,
)

from clustr import logs
from clustr.api.http.request_context import EXTENSION
from clustr.app import create_app
from clustr.components import WebProcess
from clustr.domain.models import UNFINISHED, Analysis, Upload
from clustr.settings import Settings, read_settings
from clustr.supervisor import servers as programs

FIRST_PARTY = sorted(
    entry.name for entry in entry_points(group="clustr.plugins") if entry.dist.name == "clustr"
)

# That for chat servers has no analyzer before an address is set.
FIRST_PARTY_ANALYZERS = {*FIRST_PARTY} - {"openai"}

PLUGIN = """
import ctypes, os, re, signal, sys, time
from pathlib import Path
from marshmallow import INCLUDE, Schema, fields
from clustr.plugins import *

class Result(Schema):
    class Meta:
        unknown = INCLUDE

class It(Analyzer):
    name = "{name}"
    result_schema = Result
{members}

@hookimpl
def clustr_register_analyzers(config):
    return [It()]
"""

# Code in C that never ends and keeps the interpreter, so that no signal is seen to; it waits for a
# lock that it has itself, which takes no time of the processor.
HANG_IN_C = (
    "mutex = ctypes.create_string_buffer(64); lock = ctypes.PyDLL(None).pthread_mutex_lock; "
    "lock(mutex); lock(mutex)"
)

# One answer to one call for an analyzer, as its kept process gives it.
HORSE = """
import sys
from socket import AF_UNIX, SHUT_WR, SOCK_SEQPACKET, socketpair
from clustr.worker import jobs
from clustr import logs
from clustr.components import build_plugin_manager
from clustr.settings import read_settings
settings = read_settings()
logs.configure("json", "info")
jobs.configure(settings, build_plugin_manager(settings))
analyzer, run = sys.argv[1:]
worker, line = socketpair(AF_UNIX, SOCK_SEQPACKET)
worker.send(run.encode())
worker.shutdown(SHUT_WR)
sys.exit(jobs.answer_calls(analyzer, line))
"""

_numbers = itertools.count()
# One for each workshop: another may still be used, as that of a whole session.
_redis_databases = itertools.count(1)


def analyzer(name: str, analyze: str, **attributes: Any) -> str:
    """The source of a plugin with one analyzer, which has this body of `analyze`."""
    return plugin(
        name,
        *(f"{attribute} = {value!r}" for attribute, value in attributes.items()),
        "def analyze(self, image, context):\n" + textwrap.indent(textwrap.dedent(analyze), "    "),
    )


def plugin(name: str, *members: str) -> str:
    """The source of a plugin with one analyzer, whose class has these members."""
    indented = textwrap.indent("\n".join(members), "    ")
    return PLUGIN.format(name=name, members=indented)


def another(document: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    """A document like this one, of an upload with an id, a file and bytes of its own."""
    key = ObjectId()
    sha256 = f"{key}".rjust(64, "0")
    own = {"_id": key, "filename": f"{key}.jpg", "sha256": sha256, "original_sha256": sha256}
    return {**document, **own, **more}


def end_leases(uploads: Collection[dict[str, Any]]) -> None:
    """Make it so late that the leases of analyses have ended, and those of what runs but once."""
    ended = {"$subtract": ["$$this.lease_until", 60_000]}
    running = {"$eq": ["$$this.state", "running"]}
    moved = {"$mergeObjects": ["$$this", {"lease_until": ended}]}
    analyses = {"$map": {"input": "$analyses", "in": {"$cond": [running, moved, "$$this"]}}}
    uploads.update_many({}, [{"$set": {"analyses": analyses}}])
    moved = {"until": {"$subtract": ["$until", 60_000]}}
    uploads.database["leases"].update_many({}, [{"$set": moved}])


class Program:
    """A process that was started, with its output in a file."""

    def __init__(self, arguments: list[str], environment: Mapping[str, str], folder: Path):
        self._log = folder / f"log-{next(_numbers)}"
        kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
        with Path(os.devnull).open() as nothing, self._log.open("ab") as output:
            streams = [nothing.fileno(), output.fileno(), output.fileno()]
            self.process = fork_server().start(arguments, kept | dict(environment), folder, streams)
        self.pid = self.process.pid

    def output(self) -> str:
        return self._log.read_text(errors="replace")

    def lines(self) -> list[dict[str, Any]]:
        """What it logged."""
        return [json.loads(line) for line in self.output().splitlines() if line.startswith("{")]

    def alive(self) -> bool:
        return self.process.poll() is None

    def stop(self, seconds: float = 60) -> int:
        self.process.terminate()
        return self.process.wait(seconds)

    def signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def children(self) -> list[Process]:
        """Those it made itself; in a worker the reconciler, what does jobs, then the others."""
        made = [p for p in all_processes() if p.parent_pid == self.pid and p.alive()]
        # The kernel counts hundredths of a second, in which several may start.
        return sorted(made, key=lambda process: (int(process.started_at), process.pid))

    def horses(self) -> list[Process]:
        """In a worker, the processes in which analyzers run."""
        return [p for child in self.children() for p in descendants(child.pid) if p.alive()]

    def end(self) -> None:
        family = descendants(self.pid)
        if self.alive():
            self.process.kill()
            self.process.wait()
        for one in family:
            one.kill()


class Workshop:
    """Settings for servers of one's own, a folder for plugins, and ways to use them.

    Args:
        settings: by their names in capitals, besides those that every workshop has.
    """

    def __init__(self, folder: Path, servers: Servers, **settings: str):
        number = next(_numbers)
        self._making = threading.Lock()
        self._app: Flask | None = None
        self._app_is_fresh = False  # nobody has used it since the last call of `empty`
        self.folder = folder
        self.plugins = folder / "plugins"
        self.plugins.mkdir()
        self.environment = {
            "MONGODB_URL": servers.mongodb_url,
            "MONGODB_DATABASE": f"workshop{number}",
            "REDIS_URL": servers.redis_url.replace("/0", f"/{next(_redis_databases)}"),
            "DATA_FOLDER": str(folder / "data"),
            "PLUGINS_FOLDER": str(self.plugins),
            "PLUGINS_DISABLED": ",".join(FIRST_PARTY),
            "LOG_FORMAT": "json",
            "WORKER_NICE": "0",  # Tests wait for workers, beside other tests.
            **settings,
        }
        self._started: list[Program] = []
        self.redis = Redis.from_url(self.environment["REDIS_URL"])
        self._mongo: MongoClient[dict[str, Any]] = MongoClient(
            self.environment["MONGODB_URL"], tz_aware=True
        )

    @property
    def settings(self) -> Settings:
        return read_settings(self.environment)

    def key(self, name: str) -> str:
        """What an installation calls this in Redis."""
        return f"{self.settings.redis_prefix}:{name}"

    @property
    def app(self) -> Flask:
        """The web side; made once the plugins are written, by one thread of several."""
        with self._making:
            self._app = self._app or create_app(self.settings)
            self._app_is_fresh = False
            return self._app

    @property
    def web(self) -> WebProcess:
        """What the web side works with."""
        return self.app.extensions[EXTENSION]

    @property
    def collection(self) -> Collection[dict[str, Any]]:
        """The uploads as they are in MongoDB."""
        return self._mongo[self.settings.mongodb_database][self.settings.mongodb_uploads_collection]

    def write(self, name: str, source: str) -> None:
        """Write a plugin; a web side that was already used by this test does not load it."""
        if self._app_is_fresh:
            self.renew()
        (self.plugins / f"{name}.py").write_text(source)

    def analyzer(self, name: str, analyze: str, **attributes: Any) -> None:
        """Write a plugin with one analyzer, which has this body of `analyze`."""
        self.write(name, analyzer(name, analyze, **attributes))

    def upload(self, *contents: bytes, request_id: str = "request") -> list[str]:
        """Upload files in one request; the ids of the uploads."""
        contents = contents or (photographs.photograph(),)
        files = [(io.BytesIO(content), "photograph.jpg") for content in contents]
        headers = {"X-Request-ID": request_id}
        client = self.app.test_client()
        answer = client.post("/api/upload", data={"files": files}, headers=headers)
        assert answer.status_code == 201, answer.text
        return [one["id"] for one in answer.get_json()["data"]]

    def get(self, upload_id: str) -> Upload:
        return self.web.database.uploads.get(upload_id)

    def analysis(self, upload_id: str, name: str) -> Analysis:
        return next(a for a in self.get(upload_id).analyses if a.name == name)

    def end_of(self, upload_id: str, name: str, seconds: float = 60) -> Analysis:
        """The analysis once it has reached its end."""
        wait_until(
            lambda: self.analysis(upload_id, name).state not in UNFINISHED,
            seconds,
            f"an end of {name}",
        )
        return self.analysis(upload_id, name)

    def state_of(self, upload_id: str, name: str) -> str:
        return self.analysis(upload_id, name).state

    def wait_for_state(self, upload_id: str, name: str, state: str) -> Analysis:
        """The analysis in this state, in which it may not stay."""

        def found() -> Analysis | None:
            analysis = self.analysis(upload_id, name)
            return analysis if analysis.state == state else None

        return wait_until(found, 60, f"{name} {state}")

    def stored(self, upload_id: str, name: str) -> dict[str, Any]:
        """The analysis as it is in MongoDB."""
        documents = self.collection.find({"analyses.name": name})
        document = next(d for d in documents if str(d["_id"]) == upload_id)
        return next(a for a in document["analyses"] if a["name"] == name)

    def end_leases(self) -> None:
        """Make it so late that the lease of everything that is being worked on has ended."""
        end_leases(self.collection)

    def empty(self, *kept: str) -> None:
        """Make it as it was when it was new, except for its indexes and the plugins of these names.

        It cannot put right what a test did to its settings, or to the upload folder itself.
        """
        self.end_programs()
        compiled = self.plugins / "__pycache__"
        plugins = [p for p in self.plugins.iterdir() if p.stem not in kept and p != compiled]
        if plugins:
            self.renew()
            shutil.rmtree(compiled, ignore_errors=True)  # of a file that may be of the same second
        self._app_is_fresh = True
        logs.configure(self.settings.log_format, self.settings.log_level)  # for this sys.stderr
        store = self.settings.upload_folder
        stored = [p for p in store.glob("*") if p.name not in (".clustr-store", ".incoming")]
        stored += (store / ".incoming").glob("*")
        own = (self.plugins, self.folder / "data")
        others = [p for p in self.folder.iterdir() if p not in own]
        for path in (*plugins, *stored, *others):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
        installation = self.key("installation").encode()
        for key in set(self.redis.scan_iter()) - {installation}:
            self.redis.delete(key)
        database = self.collection.database
        for name in database.list_collection_names():
            database[name].delete_many({"_id": {"$ne": "installation"}})

    def forget_installation(self) -> None:
        """Remove all that MongoDB and Redis hold of this one."""
        self.forget_keys()
        database = self.collection.database
        for name in database.list_collection_names():
            database[name].delete_many({})

    def forget_keys(self) -> None:
        """Remove all that Redis holds of this one, also whose it is."""
        for key in self.redis.scan_iter(self.key("*")):
            self.redis.delete(key)

    def renew(self) -> None:
        """Have the web side made again, with the plugins that there are then."""
        if self._app:
            self.web.close()
            self._app = None

    def run(self, *arguments: str, **environment: str) -> Program:
        """Run Python with these arguments and the settings."""
        running = Program([*arguments], {**self.environment, **environment}, self.folder)
        self._started.append(running)
        return running

    def command(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run a command of `clustr` to its end, without a terminal."""
        settings = {"PATH": os.environ["PATH"], **self.environment, **environment}
        return run_program(["-m", "clustr", *arguments], settings, self.folder)

    def worker(self, *arguments: str, **environment: str) -> Program:
        """Run `clustr worker`."""
        return self.run("-m", "clustr", "worker", *arguments, **environment)

    def analyze(self, name: str) -> None:
        """Run an analyzer on all that is queued for it.

        A process ends after a second, which a machine that is busy may need for one analysis.
        """
        queued = {"analyses": {"$elemMatch": {"name": name, "state": "queued"}}}

        def none_is_left() -> bool:
            assert self.horse(name, f"run-{next(_numbers)}").process.wait(60) == 0
            return not self.collection.find_one(queued)

        wait_until(none_is_left, 180, f"the end of what is queued for {name}")

    def horse(self, analyzer: str, run: str) -> Program:
        """Answer one call for an analyzer, in a process of its own."""
        return self.run("-c", HORSE, analyzer, run)

    def __enter__(self) -> "Workshop":
        return self

    def end_programs(self) -> None:
        for program in self._started:
            program.end()
        self._started.clear()

    def __exit__(self, *_: object) -> None:
        self.end_programs()
        self.renew()
        self.redis.close()
        self._mongo.close()


class Outage(Servers):
    """Servers that can be frozen, killed, and started again where they were."""

    def process(self, name: str) -> subprocess.Popen[bytes]:
        return self._started[("mongod", "redis-server").index(name)]

    def freeze(self, name: str) -> None:
        freeze(self.process(name))

    def thaw(self, name: str) -> None:
        self.process(name).send_signal(signal.SIGCONT)

    def kill(self, name: str) -> None:
        process = self.process(name)
        process.kill()
        process.wait()

    def start_again(self, name: str) -> None:
        if name == "mongod":
            program = programs.find_program(programs.MONGOD)
            arguments = programs.mongod_arguments(program, self.mongodb_port, self._folder)
        else:
            arguments = self.redis_arguments()
        index = ("mongod", "redis-server").index(name)
        self._started[index] = start(arguments)
        if name == "mongod":
            ensure_ready(self.mongodb_port, self.passwords)
        else:
            wait_until(lambda: programs.redis_answers(self.redis_port, self.passwords), 60, "Redis")
