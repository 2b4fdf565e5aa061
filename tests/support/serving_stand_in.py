"""A server that answers like SGLang's native endpoint, with a chosen delay.

In the tests the real benchmark client measures this server. Its faults are those that
bench_serving does not report; see ``Faults``.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Faults:
    """Every nth request is refused with 500, or answered by a stream without tokens."""

    refuse_every: int = 0
    empty_every: int = 0
    flush_status: int = 200


@dataclass
class StandIn:
    """The requests that the server received, and how it answers."""

    model: str
    tpot_s: float = 0.0005
    faults: Faults = field(default_factory=Faults)
    settings: dict[str, Any] = field(default_factory=dict)
    paths: list[str] = field(default_factory=list)
    prompts: list[list[int]] = field(default_factory=list)
    port: int = 0
    announces: bool = False
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def arrived(self, path: str, prompt: list[int] | None = None) -> int:
        with self._lock:
            self.paths.append(path)
            if prompt is not None:
                self.prompts.append(prompt)
            if self.announces:
                print(f"{os.getpid()} {path}", flush=True)
            return len(self.prompts)


class Server(ThreadingHTTPServer):
    """A server that can reuse the port of one that has just ended."""

    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = 64


@contextmanager
def serving(stand_in: StandIn, port: int = 0) -> Iterator[StandIn]:
    """Serve on a loopback port (0: any free one) until the block ends."""

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            """Print nothing."""

        def do_GET(self) -> None:
            if self.path == "/v1/models":
                self._json({"data": [{"id": stand_in.model}]})
            elif self.path == "/server_info":
                self._json(
                    {
                        "model_path": stand_in.model,
                        "tp_size": 8,
                        "port": stand_in.port,
                        "random_seed": id(stand_in),
                        **stand_in.settings,
                        "internal_states": [{"last_gen_throughput": time.time()}],
                        "version": "0.0.0",
                    }
                )
            else:
                self._send(404, b"")

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            path = self.path.partition("?")[0]
            if path == "/flush_cache":
                stand_in.arrived(path)
                self._send(stand_in.faults.flush_status, b"")
            elif path == "/generate":
                asked = json.loads(body)
                self._generate(asked, stand_in.arrived(path, asked["input_ids"]))
            else:
                self._send(404, b"")

        def _generate(self, asked: dict[str, Any], number: int) -> None:
            faults = stand_in.faults
            if faults.refuse_every and number % faults.refuse_every == 0:
                self._send(500, b"refused")
                return
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream")
            self.end_headers()
            tokens = asked["sampling_params"]["max_new_tokens"]
            if faults.empty_every and number % faults.empty_every == 0:
                self._event({"error": {"message": "aborted"}})
                tokens = 0
            for count in range(1, tokens + 1):
                time.sleep(stand_in.tpot_s)
                meta = {
                    "completion_tokens": count,
                    "prompt_tokens": len(asked["input_ids"]),
                }
                self._event({"text": "t " * count, "meta_info": meta})
            self.wfile.write(b"data: [DONE]\n\n")

        def _event(self, data: dict[str, Any]) -> None:
            self.wfile.write(b"data: " + json.dumps(data).encode() + b"\n\n")
            self.wfile.flush()

        def _json(self, data: dict[str, Any]) -> None:
            self._send(200, json.dumps(data).encode())

        def _send(self, status: int, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    server = Server(("127.0.0.1", port), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    stand_in.port = server.server_port
    try:
        yield stand_in
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def main(port: int, tpot_s: float) -> None:
    """Run as a program: serve until killed, and print the pid and the path for every
    request."""
    with serving(StandIn("a-model", tpot_s, announces=True), port):
        threading.Event().wait()


if __name__ == "__main__":
    main(int(sys.argv[1]), float(sys.argv[2]))
