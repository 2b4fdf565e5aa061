"""Determines the layout of an AITER's transposed scales by running its producers.

Releases differ, backports differ from releases, and a version number shows neither. So
both kernels run, row-major and transposed, and their bytes and strides are compared.
The parent process needs neither PyTorch nor Triton; run as a program, this module is
the worker process.
"""

from __future__ import annotations

import inspect
import os
import pickle
import subprocess
import sys
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from overlaykit.core.errors import OverlayError
from overlaykit.core.python import module_command
from overlaykit.trees.tree import Tree
from xscale.numeric.cases import GROUP
from xscale.numeric.device import worker_environment
from xscale.numeric.layout import ProducerLayout, ScaleLayout, not_run
from xscale.numeric.sources import Sources, aiter_sources
from xscale.sites import FLATTEN, PRODUCERS, RMS

_LIMIT = 300
# Rows and groups. With one row, one group, or as many rows as groups, the layouts are
# the same or could be mistaken for one another.
_SIZES = ((3, 4), (5, 2))


def probe_layouts(aiter: Tree, device: str) -> tuple[ProducerLayout, ...]:
    """Run both producers on "cpu" (interpreted) or "cuda".

    A producer that cannot be run is reported with the reason; nothing is raised.
    """
    try:
        sources = aiter_sources(aiter)
    except OverlayError as error:
        return not_run(error.message)
    try:
        done = subprocess.run(
            module_command("xscale.numeric.layout_probe", device),
            env=worker_environment(device),
            input=pickle.dumps(sources),
            capture_output=True,
            timeout=_LIMIT,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return not_run(f"the kernels took more than {_LIMIT} s")
    except OSError as error:
        return not_run(f"the worker process cannot be started: {error}")
    if done.returncode:
        last = done.stderr.decode(errors="replace").strip().rpartition("\n")[2]
        return not_run(f"the worker process exited with {done.returncode}: {last}")
    return msgspec.json.decode(done.stdout, type=tuple[ProducerLayout, ...])


def _main(device: str) -> None:
    results = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what libraries print must not get into the results
    layouts = _probe_all(pickle.load(sys.stdin.buffer), device)
    with results:
        results.write(msgspec.json.encode(layouts))


def _probe_all(sources: Sources, device: str) -> tuple[ProducerLayout, ...]:
    try:
        from xscale.numeric.producers import Kernels

        kernels = Kernels(sources, compiled=device != "cpu")
    except Exception as error:
        return not_run(_describe(error))
    used = ", ".join(kernels.stand_ins)
    about = f"; stand-ins for {used}" if used else ""
    return tuple(
        msgspec.structs.replace(one, detail=one.detail + about) if one.detail else one
        for one in (_probe(name, kernels.functions, device) for name in PRODUCERS)
    )


def _probe(name: str, functions: Mapping[str, Any], device: str) -> ProducerLayout:
    quant = functions[name]
    if "transpose_scale" not in inspect.signature(quant).parameters:
        return ProducerLayout(name, ScaleLayout.NO_PARAMETER)
    try:
        found = [_layout_at(name, quant, *size, device) for size in _SIZES]
    except Exception as error:
        return ProducerLayout(name, ScaleLayout.NOT_RUN, _describe(error))
    where = "GPU" if device != "cpu" else "Triton's interpreter"
    if len(set(found)) == 1:
        sizes = ", ".join(f"M={m} G={groups}" for m, groups in _SIZES)
        return ProducerLayout(name, found[0], f"{where}, {sizes}")
    each = ", ".join(
        f"M={m} G={groups} {one.value}"
        for (m, groups), one in zip(_SIZES, found, strict=True)
    )
    return ProducerLayout(name, ScaleLayout.OTHER, f"{where}: {each}")


def _layout_at(
    name: str, quant: Callable[..., Any], m: int, groups: int, device: str
) -> ScaleLayout:
    from xscale.numeric.producers import q_and_scale, same_bits

    inputs = _inputs(name, m, groups, device)
    (true_q, truth), (q, scale) = (
        q_and_scale(quant(*inputs, transpose_scale=transpose, **_options()))
        for transpose in (False, True)
    )
    if not same_bits(true_q, q) or scale.shape != (m, groups):
        return ScaleLayout.OTHER
    if scale.stride() == (1, m):
        seen = {ScaleLayout.HONEST: scale}
    elif scale.is_contiguous():
        stored = scale.view(groups, m).t()
        seen = {ScaleLayout.LYING: stored, ScaleLayout.IGNORED: scale}
    else:
        return ScaleLayout.OTHER
    right = [one for one, values in seen.items() if same_bits(values, truth)]
    return right[0] if len(right) == 1 else ScaleLayout.OTHER


def _inputs(name: str, m: int, groups: int, device: str) -> tuple[Any, ...]:
    """Values whose scales all differ, so that every order can be recognized."""
    import torch

    generator = torch.Generator().manual_seed(m * groups)
    x = torch.randn(m, groups, GROUP, generator=generator)
    x *= torch.linspace(1, 4, m * groups).view(m, groups, 1)
    x = x.to(device, torch.bfloat16)
    if name == FLATTEN:
        return (x,)
    assert name == RMS
    width = groups * GROUP
    return x.view(m, width), torch.ones(width, dtype=x.dtype, device=device), 1e-6


def _options() -> dict[str, Any]:
    import torch

    return {"group_size": GROUP, "dtype_quant": torch.float8_e4m3fn}


def _describe(error: Exception) -> str:
    first = str(error).strip().partition("\n")[0]
    return f"{type(error).__name__}: {first}" if first else type(error).__name__


if __name__ == "__main__":
    _main(sys.argv[1])
