"""The server: `POST /caption` and `GET /health`, as the predecessor's captioner had them."""

import struct
import time
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Semaphore
from typing import Any

from flask import Flask, Response, jsonify, request
from PIL import Image, ImageOps
from werkzeug.exceptions import HTTPException
from werkzeug.serving import BaseWSGIServer, WSGIRequestHandler

from clustr.captioner.batches import BATCH_SIZE, MAX_WAITING, Batches, Busy
from clustr.captioner.tags import tags_of

FORMATS = ("JPEG", "PNG", "WEBP")
MAX_REQUEST_BYTES = 32 * 1024 * 1024
MAX_PIXELS = 50_000_000
# What Pillow raises on images that are broken; its `OSError` has no number, and one of the system
# has.
BROKEN_IMAGE = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    LookupError,
    TypeError,
    ArithmeticError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
    Image.DecompressionBombWarning,
)
# The model looks at 384 pixels a side; a JPEG is decoded at about that size.
SIDE = 384
# A decode may take 150 MB, so few are under way.
DECODES = 2
# Enough for all that may wait and are captioned, and for some who ask for health or too many.
THREADS = MAX_WAITING + 2 * BATCH_SIZE
CONNECTION_SECONDS = 30
RETRY_AFTER_SECONDS = 2


def create_app(batches: Batches, model: str) -> Flask:
    """The application.

    Args:
        batches: captions images.
        model: its name, which `GET /health` answers with.
    """
    app = Flask(__name__, static_folder=None)
    app.config["MAX_CONTENT_LENGTH"] = MAX_REQUEST_BYTES
    Image.MAX_IMAGE_PIXELS = MAX_PIXELS
    decodes = Semaphore(DECODES)

    @app.get("/health")
    def health() -> Any:
        return {"status": "healthy", "model": model}

    @app.post("/caption")
    def caption() -> Any:
        began = time.monotonic()
        file = request.files.get("image")
        if file is None:
            return _refusal(400, "Send the image as the part `image` of a form.")
        try:
            with decodes:
                image = read(file.stream)
        except BROKEN_IMAGE as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise
            reason = f"{type(error).__name__}: {error}"
            app.logger.warning("%r cannot be read: %s", file.filename, reason)
            return _refusal(422, "The image cannot be read: send a whole JPEG, PNG or WebP.")
        try:
            text = batches.caption(image)
        except Busy:
            return _try_again(f"{MAX_WAITING} images wait already; try again.")
        seconds = round(time.monotonic() - began, 3)
        words = {"caption": text, "tags": tags_of(text)}
        return {"filename": file.filename or "", **words, "processing_time": seconds}

    @app.errorhandler(MemoryError)
    def ask_again(error: MemoryError) -> Any:
        app.logger.error("There is not enough memory.", exc_info=error)
        return _try_again("The captioner has not enough memory at the moment; try again.")

    @app.errorhandler(HTTPException)
    def refuse(error: HTTPException) -> Any:
        return _refusal(error.code or 500, error.description or error.name)

    return app


def _refusal(status: int, detail: str) -> Response:
    answer = jsonify({"detail": detail})
    answer.status_code = status
    return answer


def _try_again(detail: str) -> Response:
    answer = _refusal(503, detail)
    answer.headers["Retry-After"] = str(RETRY_AFTER_SECONDS)
    return answer


def read(stream: Any) -> Image.Image:
    """The image of a file, upright and in RGB, about as large as the model needs it."""
    with Image.open(stream, formats=FORMATS) as image:
        image.draft("RGB", (SIDE, SIDE))
        picture = ImageOps.exif_transpose(image).convert("RGB")
        picture.thumbnail((2 * SIDE, 2 * SIDE))
        return picture


class Handler(WSGIRequestHandler):
    """One that waits no longer for a client, and prints a line for what went wrong alone."""

    timeout = CONNECTION_SECONDS

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        if str(code) >= "500":
            super().log_request(code, size)


class Server(BaseWSGIServer):
    """A server with a bounded number of threads."""

    multithread = True

    def __init__(self, host: str, port: int, app: Flask):
        super().__init__(host, port, app, handler=Handler)
        self._threads = ThreadPoolExecutor(THREADS, "request")

    def process_request(self, request: Any, client_address: Any) -> None:
        self._threads.submit(self._serve, request, client_address)

    def _serve(self, request: Any, client_address: Any) -> None:
        try:
            self.finish_request(request, client_address)
        except Exception:  # A client that went away; others are served.
            self.handle_error(request, client_address)
        finally:
            self.shutdown_request(request)


def serve(host: str, port: int, app: Flask, announce: Callable[[str], None]) -> None:
    """Serve until the process is ended.

    Raises:
        OSError: the address is taken, or not one of this host's.
    """
    server = Server(host, port, app)
    announce(f"http://{f'[{host}]' if ':' in host else host}:{server.server_port}")
    server.serve_forever()
