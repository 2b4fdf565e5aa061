"""llama.cpp's server, real, on loopback: ``llama_server.py MODEL SLOTS [PORT]``.

One thread a slot. Prints its URL once it answers; ends when its standard input does, so
that it never outlives the tests.
"""

from __future__ import annotations

import sys

from xllamacpp import CommonParams, Server


def main(model: str, slots: int, port: int) -> None:
    params = CommonParams()
    params.model.path = model
    params.hostnames = ["127.0.0.1"]
    params.port = port
    params.n_parallel = slots
    params.n_ctx = 1024 * slots
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
    params.warmup = False
    params.ui = False
    server = Server(params)
    print(f"{server.listening_address}/v1", flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]) if len(sys.argv) > 3 else 0)
