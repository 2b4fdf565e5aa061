"""Profile a run, and count the kernels in its trace by role."""

from __future__ import annotations

import gzip
import json
import re
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch

from gatekit.microbench.world import Role
from gatekit.traces.kernels import Kind, kind_of
from overlaykit.cli import ROOT
from xscale.numeric.producers import DOUBLE

_DEVICE = ("kernel", "gpu_memcpy", "gpu_memset")
_PYTHON = re.compile(r'"(/[^"]*?)(\(\d+\): )')
_HOST = re.compile(r'("host_name": )"[^"]*"')
_LIBRARY = re.compile(r".*/(?:site-packages|dist-packages|python3\.\d+)/")


def profiled(run: Callable[[], Any], steps: int, place: Path) -> dict[str, Any]:
    """Profile ``steps`` runs, write the trace to ``place``, gzipped; return it.

    With the options of SGLang's profiler: stacks, which include modules, and no shapes.
    Paths of this machine become relative to their library.
    """
    profile = _profile(run, steps)
    place.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="microbench-") as folder:
        raw = Path(folder) / place.name.removesuffix(".gz")
        profile.export_chrome_trace(str(raw))
        text = raw.read_text(encoding="utf-8").replace(f"{folder}/", "")
    text = _without_paths(text)
    with gzip.GzipFile(place, "wb", mtime=0) as file:
        file.write(text.encode())
    trace: dict[str, Any] = json.loads(text)
    return trace


def warm() -> None:
    """Run a throwaway profile: the first one of a process may miss kernels."""
    _profile(lambda: torch.zeros(1, device="cuda").add_(1), 1)


def kernels(trace: dict[str, Any], steps: int) -> dict[str, float]:
    """Kernels per step by role; without device kernels, what the host labelled.

    A norm that is fused with a quantization counts as the quantization. Kernels that
    replace the attention are not counted.
    """
    events = trace["traceEvents"]
    names = [e["name"] for e in events if e.get("cat") in _DEVICE]
    kinds = Counter(map(kind_of, names))
    norms = sum(kind_of(n) is Kind.NORM_QUANT and "quant" not in n for n in names)
    found = {
        "copies": kinds[Kind.DIRECT_COPY] + kinds[Kind.OTHER_COPY],
        "norms": norms,
        "quantizations": kinds[Kind.NORM_QUANT] - norms,
        "gemms": kinds[Kind.GEMM],
    }
    # A GEMM with a split loop adds its parts in a separate kernel.
    apart = kinds[Kind.GEMM_PART] + kinds[Kind.ATTENTION]
    found["others"] = len(names) - sum(found.values()) - apart
    if not names:
        labels = Counter(e["name"] for e in events if e.get("ph") == "X")
        found = {
            "copies": _host_copies(events),
            "norms": labels[Role.NORM.label],
            "quantizations": labels[Role.QUANTIZATION.label],
            "gemms": labels[Role.GEMM.label],
            "others": 0,
        }
    return {name: count / steps for name, count in found.items()}


def modules(trace: dict[str, Any], name: str) -> int:
    """The number of calls of modules of that class."""
    called = re.compile(rf"nn\.Module: {name}_\d+$")
    return sum(
        bool(called.match(e.get("name", "")))
        for e in trace["traceEvents"]
        if e.get("cat") == "python_function"
    )


def _profile(run: Callable[[], Any], steps: int) -> Any:
    activities = [torch.profiler.ProfilerActivity.CPU]
    if torch.cuda.is_available():
        activities.append(torch.profiler.ProfilerActivity.CUDA)
    _wait()
    with torch.profiler.profile(
        activities=activities, record_shapes=False, with_stack=True
    ) as profile:
        for _ in range(steps):
            run()
        _wait()
    return profile


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def _host_copies(events: Iterable[dict[str, Any]]) -> int:
    """Copies outside kernels and their stand-ins."""
    timed = [e for e in events if e.get("ph") == "X"]
    spans = [
        (e["ts"], e["ts"] + e["dur"]) for e in timed if e["name"].startswith(DOUBLE)
    ]
    return sum(
        e["name"] == "aten::copy_"
        and not any(start <= e["ts"] <= end for start, end in spans)
        for e in timed
    )


def _without_paths(text: str) -> str:
    def relative(match: re.Match[str]) -> str:
        path = _LIBRARY.sub("", match[1])
        if path.startswith("/"):
            path = "/".join(path.split("/")[-2:])
        return f'"{path}{match[2]}'

    text = text.replace(f"{ROOT}/", "")
    text = _HOST.sub(r'\1""', text)
    text = _PYTHON.sub(relative, text)
    return text.replace(sys.prefix, "python")
