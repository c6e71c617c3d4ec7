"""A chat server that can be given the habits of real ones: a real HTTP server, for tests."""

import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

GOOD = {"caption": "A cat on a mat.", "tags": ["Cat", "mat"]}


def completion(content: Any, finish_reason: str = "stop", **message: Any) -> dict[str, Any]:
    """An answer as servers write it, with this content of the message."""
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1700000000,
        "model": "see:7b",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": content, **message},
                "finish_reason": finish_reason,
            }
        ],
        "usage": {"prompt_tokens": 800, "completion_tokens": 20, "total_tokens": 820},
    }


class ChatStandIn:
    """The server.

    Attributes:
        habit: called with the body of each request; returns the status and the answer.
        bodies: what was posted, in order.
        headers: of these requests.
    """

    def __init__(self) -> None:
        self.habit: Callable[[dict[str, Any]], tuple[int, Any]] = lambda _body: (
            200,
            completion(json.dumps(GOOD)),
        )
        self.bodies: list[dict[str, Any]] = []
        self.headers: list[Any] = []
        handler = type("Handler", (_Handler,), {"chat": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}/v1"
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def __enter__(self) -> "ChatStandIn":
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    chat: ChatStandIn

    def do_GET(self) -> None:
        is_models = self.path == "/v1/models"
        self._answer(200 if is_models else 404, {"object": "list", "data": [{"id": "see:7b"}]})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.chat.bodies.append(body)
        self.chat.headers.append(self.headers)
        is_chat = self.path == "/v1/chat/completions"
        self._answer(*(self.chat.habit(body) if is_chat else (404, "404 page not found")))

    def _answer(self, status: int, answer: Any) -> None:
        content = answer.encode() if isinstance(answer, str) else json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Print nothing."""
