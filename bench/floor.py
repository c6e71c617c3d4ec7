"""The floor: the least bare WSGI code that does the same durable work as Clustr.

It parses the multipart body straight into the final file, hashes it, decodes it, syncs file and
folder, inserts with a majority and the journal, rings the doorbell; and sends files with sendfile.
It has no routing, no validation, no errors, no logs: what it costs is what the work costs.

    gunicorn -c python:clustr.supervisor.gunicorn_settings bench.floor:app
"""

import hashlib
import json
import os
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from wsgiref.types import StartResponse

import multipart
import orjson
import PIL.Image
import pymongo
import redis
from bson import ObjectId

PIL.Image.init()
FOLDER = Path(os.environ["UPLOAD_FOLDER"])
FOLDER.mkdir(parents=True, exist_ok=True)
ANALYZERS = ("dimensions", "blip", "exif", "palette", "phash")
CHUNK_BYTES = 64 * 1024


def app(environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
    """Answer a request."""
    if environ["REQUEST_METHOD"] == "POST":
        body = json.dumps({"data": upload(environ)}).encode()
        start_response("201 Created", [("Content-Type", "application/json")])
        return [body]
    if environ["PATH_INFO"].startswith("/uploads/"):
        return send(environ, start_response)
    if environ["PATH_INFO"].startswith("/api/uploads"):
        return read(environ, start_response)
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "2")])
    return [b"ok"]


def read(environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
    """The newest uploads by the bare query, or one upload, as they are stored."""
    key = environ["PATH_INFO"].removeprefix("/api/uploads").strip("/")
    if key:
        found = clients.uploads.find_one({"_id": ObjectId(key)})
    else:
        limit = int(environ["QUERY_STRING"].rpartition("=")[2])
        newest = [("upload_time", -1), ("_id", -1)]
        page = clients.uploads.find({}, {"analyses.result": 0}).sort(newest).limit(limit + 1)
        found = {"data": list(page)}
    body = orjson.dumps(found, default=str)
    headers = [("Content-Type", "application/json"), ("Content-Length", str(len(body)))]
    start_response("200 OK", headers)
    return [body]


def upload(environ: dict[str, Any]) -> list[dict[str, str]]:
    """Store the files of a request; their ids."""
    stored = [keep(path, digest) for path, digest in receive(environ)]
    descriptor = os.open(FOLDER, os.O_RDONLY)
    os.fsync(descriptor)
    os.close(descriptor)
    moment = datetime.now(UTC)
    analyses = [{"name": name, "state": "queued", "due_at": moment} for name in ANALYZERS]
    for document in stored:
        document |= {"upload_time": moment, "analyses": analyses, "status": "pending"}
    clients.uploads.insert_many(stored)
    pipeline = clients.redis.pipeline(transaction=False)
    for name in ANALYZERS:
        pipeline.set(f"bell:{name}", 1, nx=True, ex=10)
    for name, won in zip(ANALYZERS, pipeline.execute(), strict=True):
        if won:
            clients.redis.rpush("floor", name)
    return [{"id": str(document["_id"])} for document in stored]


def receive(environ: dict[str, Any]) -> list[tuple[Path, str]]:
    """Write each part into a file of its own; its path and SHA-256."""
    _, options = multipart.parse_options_header(environ["CONTENT_TYPE"])
    left = int(environ["CONTENT_LENGTH"])
    stream = environ["wsgi.input"]
    received = []
    with multipart.PushMultipartParser(options["boundary"], content_length=left) as parser:
        while not parser.closed:
            chunk = stream.read(min(CHUNK_BYTES, left))
            left -= len(chunk)
            for event in parser.parse(chunk):
                if isinstance(event, multipart.MultipartSegment):
                    path = FOLDER / f".{ObjectId()}"
                    file, digest = path.open("wb"), hashlib.sha256()
                elif event:
                    digest.update(event)
                    file.write(event)
                else:
                    file.flush()
                    with PIL.Image.open(path) as image:
                        image.draft("L", (max(1, image.width // 8), max(1, image.height // 8)))
                        image.load()
                    os.fsync(file.fileno())
                    file.close()
                    received.append((path, digest.hexdigest()))
    return received


def keep(path: Path, digest: str) -> dict[str, Any]:
    """Give a file its name; its document."""
    key = ObjectId()
    path.rename(FOLDER / f"{key}.jpg")
    return {"_id": key, "sha256": digest}


def send(environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
    """Send a file."""
    file = (FOLDER / environ["PATH_INFO"].rpartition("/")[2]).open("rb")
    size = os.fstat(file.fileno()).st_size
    start_response("200 OK", [("Content-Type", "image/jpeg"), ("Content-Length", str(size))])
    wrap: Callable[[Any], Iterable[bytes]] = environ["wsgi.file_wrapper"]
    return wrap(file)


class Clients:
    """The clients of MongoDB and Redis; gunicorn imports this module after it has forked."""

    def __init__(self) -> None:
        mongodb = pymongo.MongoClient(os.environ["MONGODB_URL"], w="majority", journal=True)
        self.uploads = mongodb[os.environ["MONGODB_DATABASE"]]["uploads"]
        self.redis = redis.Redis.from_url(os.environ["REDIS_URL"])


clients = Clients()
