#!/usr/bin/env python3
"""Measure the host's time per call site: a producer and the consumer of its scale.

Eagerly, every layer pays for this Python in every step, whatever the GPU does. The
designs are those of ci/microbench.py. They run in turn within each round, around a
quantization that returns a ready tensor at once; its own call is subtracted. The pin's
time is that of its copy, which on a GPU launches a kernel: give ``--device cuda``.
"""

from __future__ import annotations

import argparse
import gc
import importlib
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "scripts"), str(ROOT / "ci")]

import torch  # noqa: E402

from xscale.islands import (  # noqa: E402
    BPRESHUFFLE_SCALE,
    SGLANG_PARENTS,
    empty_packages,
    stub,
)

EVIDENCE = ROOT / "docs" / "evidence" / "host-time"
COMMAND = "bench/host_time.py"
CARRIED = Path("overlay/sglang/python")
MODULE = CARRIED.joinpath(*BPRESHUFFLE_SCALE.split(".")).with_suffix(".py")

NOTHING = "the quantization, called directly"
PIN = "the pin: a copy before CK's GEMM"
PULL_REQUEST = "the pull request's design"
SERIES = "this series"
BEFORE = "this series before"

CK, TRITON = (6144, 2048), (2112, 7168)
"""Weights of a projection that CK's GEMM reads, and of one that Triton's does."""
TABLE = [(1024 * number, 7168) for number in range(1, 14)] + [TRITON]
"""As long as the release's own table, with the hit at its end."""
M, GROUPS = 64, 48
CALLS = 50
"""Calls per sample: long beside the clock, short beside a scheduler's time slice."""

Site = Callable[[], Any]


def sites(before: Path | None, device: str) -> dict[str, dict[str, Site]]:
    """The site of each design, for a projection of either GEMM, by its name."""
    pull_request = _design("pull_request")
    pin = ModuleType("pin")
    vars(pin).update(
        quant_pretransposed_scale=_design("bound").quant_pretransposed_scale,
        # It copies a scale that has no mark, as the release does.
        x_scale_for_gemm=pull_request.x_scale_for_gemm,
    )
    arms = {NOTHING: None, PIN: pin, PULL_REQUEST: pull_request}
    if before is not None:
        arms[BEFORE] = _module(before.read_bytes())
    arms[SERIES] = _module((ROOT / MODULE).read_bytes())
    return {
        name: {
            "CK": _site(module, CK, True, device),
            "Triton": _site(module, TRITON, False, device),
        }
        for name, module in arms.items()
    }


def _site(
    module: ModuleType | None, size: tuple[int, int], ck: bool, device: str
) -> Site:
    """S3's call, and its consumer."""
    projection = torch.nn.Module()
    weight = torch.empty(size, dtype=torch.float8_e4m3fn, device="meta")
    projection.weight = torch.nn.Parameter(weight, requires_grad=False)
    x = torch.empty(M, GROUPS * 128, dtype=torch.bfloat16, device=device)
    scale = torch.empty(M, GROUPS, device=device)
    fp8 = torch.float8_e4m3fn

    def quant(
        inp1: Any,
        inp1_weight: Any,
        inp1_epsilon: Any,
        inp2: Any = None,
        inp2_weight: Any = None,
        inp2_epsilon: Any = None,
        group_size: int = 128,
        dtype_quant: Any = fp8,
        res1: Any = None,
        output_unquantized_inp1: bool = False,
        transpose_scale: bool = False,
    ) -> Any:
        # A new tensor, as a kernel's wrapper allocates one, so that it has no mark.
        return (inp1, scale.detach()), None, None, None

    if module is None:

        def nothing() -> Any:
            return quant(
                *(x, x, 1e-6, x, x, 1e-6),
                group_size=128,
                dtype_quant=fp8,
                res1=None,
                output_unquantized_inp1=True,
            )

        return nothing
    producer: Any = vars(module)["quant_pretransposed_scale"]
    consumer: Any = vars(module)["x_scale_for_gemm"]

    def site() -> Any:
        (_, produced), _, _, _ = producer(
            quant,
            projection,
            *(x, x, 1e-6, x, x, 1e-6),
            group_size=128,
            dtype_quant=fp8,
            res1=None,
            output_unquantized_inp1=True,
        )
        return consumer(produced, bpreshuffle=ck)

    return site


def _module(source: bytes) -> ModuleType:
    """The overlay's module, with its switch unset."""
    os.environ.pop("SGLANG_AITER_PRETRANSPOSED_SCALE", None)
    module = ModuleType("bpreshuffle_scale")
    exec(compile(source, str(MODULE), "exec"), vars(module))
    return module


def _design(name: str) -> ModuleType:
    return importlib.import_module(f"gatekit.microbench.designs.{name}")


def measure(
    found: Mapping[str, Mapping[str, Site]], rounds: int
) -> dict[str, dict[str, list[float]]]:
    """Microseconds per call by design and route; the first round is not counted."""
    times: dict[str, dict[str, list[float]]] = {
        name: {route: [] for route in by_route} for name, by_route in found.items()
    }
    gc.disable()
    for number in range(rounds + 1):
        for name, by_route in found.items():
            for route, site in by_route.items():
                if torch.cuda.is_initialized():
                    torch.cuda.synchronize()
                started = time.perf_counter()
                for _ in range(CALLS):
                    site()
                took = time.perf_counter() - started
                if number:
                    times[name][route].append(1e6 * took / CALLS)
    gc.enable()
    return times


def table(times: Mapping[str, Mapping[str, list[float]]]) -> str:
    """Median (minimum) per site, without the direct call's."""
    routes = list(times[NOTHING])
    lines = [
        "| design | " + " | ".join(f"{route}'s GEMM" for route in routes) + " |",
        "|---|" + "---:|" * len(routes),
    ]
    for name, by_route in times.items():
        cells = []
        for route, samples in by_route.items():
            less = [0.0] if name == NOTHING else times[NOTHING][route]
            middle = statistics.median(samples) - statistics.median(less)
            cells.append(f"{middle:.2f} ({min(samples) - min(less):.2f})")
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument(
        "--before",
        metavar="FILE",
        type=Path,
        help="also time this copy of the module, as it was: git show REV:PATH > FILE",
    )
    parser.add_argument("--write", action="store_true", help=f"write {EVIDENCE}.*")
    options = parser.parse_args()
    with empty_packages(ROOT / CARRIED, *SGLANG_PARENTS[:4]):
        stub(
            "sglang.srt.layers.quantization.fp8_utils",
            _use_aiter_bpreshuffle_gfx95=True,
            use_aiter_triton_gemm_w8a8_tuned_gfx950=lambda n, k: (n, k) in TABLE,
        )
        with torch.no_grad():
            times = measure(sites(options.before, options.device), options.rounds)
    flags = f" --rounds {options.rounds} --device {options.device}"
    flags += " --before FILE" if options.before else ""
    device = platform.machine()
    if options.device == "cuda":
        device = f"{torch.cuda.get_device_name()} and its host ({device})"
    page = "\n".join(
        (
            "# The host's time per call site",
            "",
            f"Written by `{COMMAND}{flags} --write`: {options.rounds} rounds of "
            f"{CALLS} calls after one to warm up, the designs in turn within each "
            "round; microseconds for a producer and one consumer, median (minimum), "
            "without the direct call, which the first row has.",
            "",
            table(times),
            "",
            f"Scales of {M} x {GROUPS}, without gradients, on {device}, "
            f"{os.cpu_count()} cores, Python {platform.python_version()}, PyTorch "
            f"{torch.__version__}, load {os.getloadavg()[0]:.1f}. On Triton's route "
            "the scale is row-major, but for the pull request's, which copies it back.",
            "",
        )
    )
    print(page)
    if options.write:
        EVIDENCE.with_suffix(".md").write_text(page, encoding="utf-8")
        data = {"command": f"{COMMAND}{flags} --write", "microseconds": times}
        EVIDENCE.with_suffix(".json").write_text(json.dumps(data, indent=1) + "\n")


if __name__ == "__main__":
    main()
