"""Small made-up traces: one module for each layer, each with two kernels.

They have times and fields that no known profiler writes, but that one may write.
"""

from __future__ import annotations

from typing import Any

from support.profiler_traces import Document, Event

MODULE, LAYERS = "Attn", 3
QUANT = "fused_rms_fp8_group_quant_kernel"
GEMM = "ck_gemm_a8w8_blockscale_bpreshuffle_kernel"
COPY = "void at::native::direct_copy_kernel_cuda(int)"
# Microseconds: a module's start, and how long it and what it calls take.
FIRST, EVERY, LASTS, LAUNCH, KERNEL = 1000.0, 100.0, 60.0, 3.0, 2.0
_THREAD = {"pid": 5, "tid": 5}


def module(name: str, at: float, lasts: float) -> Event:
    """A call of a module."""
    frame = {"ph": "X", "cat": "python_function", "name": f"nn.Module: {name}"}
    return {**frame, **_THREAD, "ts": at, "dur": lasts, "args": {}}


def call(
    name: str, number: int, at: float, lasts: float = LAUNCH, **args: Any
) -> Event:
    """A call of the runtime."""
    event = {"ph": "X", "cat": "cuda_runtime", "name": name, **_THREAD}
    return {**event, "ts": at, "dur": lasts, "args": {"correlation": number, **args}}


def ran(name: str, number: int, at: float) -> Event:
    """A kernel."""
    event = {"ph": "X", "cat": "kernel", "name": name, "pid": 0, "tid": 3}
    place = {"device": 0, "stream": 3, "correlation": number}
    return {**event, "ts": at, "dur": KERNEL, "args": place}


def document(events: list[Event]) -> Document:
    """A trace of these."""
    rank = {"backend": "nccl", "rank": 0, "world_size": 1}
    device = {"id": 0, "name": "AMD Instinct MI355X"}
    return {
        "deviceProperties": [device],
        "distributedInfo": rank,
        "traceEvents": events,
    }


def start(layer: int) -> float:
    """The start time of a layer's module."""
    return FIRST + EVERY * layer


def eager(copies: tuple[tuple[float, float], ...] = ()) -> Document:
    """Every layer's module with its kernels, and copies whose launches begin and end at
    these times (in microseconds) after the module starts."""
    events: list[Event] = []
    for layer in range(LAYERS):
        at, number = start(layer), 10 * (layer + 1)
        launches = [(QUANT, at + 10, LAUNCH), (GEMM, at + 20, LAUNCH)]
        launches += [(COPY, at + a, round(b - a, 3)) for a, b in copies]
        events.append(module(f"{MODULE}_{layer}", at, LASTS))
        for place, (name, begins, lasts) in enumerate(sorted(launches, key=_at)):
            launch = call("hipLaunchKernel", number + place, begins, lasts, kernel=name)
            events += [launch, ran(name, number + place, at + 5 + 10 * place)]
    return document(events)


def _at(launch: tuple[str, float, float]) -> float:
    return launch[1]


def capture_of(trace: Document) -> Document:
    """The same trace recorded into a graph, without any executed kernel."""
    events = [event for event in trace["traceEvents"] if event["cat"] != "kernel"]
    return document(events)


def replay_of(trace: Document) -> Document:
    """The graph's replay: one launch and all kernels."""
    kernels = [event for event in trace["traceEvents"] if event["cat"] == "kernel"]
    for event in kernels:
        event["args"]["correlation"] = 777
    return document([call("hipGraphLaunch", 777, 900.0), *kernels])
