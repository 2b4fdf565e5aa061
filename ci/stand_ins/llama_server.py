"""Run llama.cpp's server on loopback: ``llama_server.py MODEL SLOTS [PORT]``.

The stand-in for SGLang's server on machines without a GPU. Each slot has one thread. It
prints its URL when it is ready, and ends when its parent process ends in any way.
"""

from __future__ import annotations

import ctypes
import signal
import sys

from xllamacpp import CommonParams, Server

_SET_PDEATHSIG = 1


def main(model: str, slots: int, port: int) -> None:
    ctypes.CDLL(None).prctl(_SET_PDEATHSIG, signal.SIGKILL)
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
    signal.pause()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]) if len(sys.argv) > 3 else 0)
