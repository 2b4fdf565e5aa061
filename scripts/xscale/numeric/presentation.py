"""How an AITER presents the transposed scale that its producers are asked for.

Releases differ, backports differ from releases, and a version says neither: so both
real kernels are run, row-major and transposed, and their bytes and strides compared.
The parent's side needs neither PyTorch nor Triton; as a program this is the worker.
"""

from __future__ import annotations

import inspect
import json
import os
import pickle
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from enum import Enum
from pathlib import Path
from typing import Any

from overlaykit.core.errors import OverlayError
from overlaykit.core.python import module_command
from overlaykit.trees.tree import Tree
from xscale.numeric.cases import GROUP
from xscale.numeric.sources import Sources, aiter_sources
from xscale.sites import FLATTEN, PRODUCERS, RMS

_SCRIPTS = Path(__file__).resolve().parents[2]
_LIMIT = 300
# Rows and groups; at one row, one group or as many rows as groups the presentations
# are alike, or could be mistaken for one another.
_SIZES = ((3, 4), (5, 2))


class Presentation(Enum):
    """What a producer returns for ``transpose_scale=True``."""

    LYING = "lying"
    HONEST = "honest"
    IGNORED = "ignores the flag"
    NO_PARAMETER = "no parameter"
    OTHER = "none known"
    NOT_RUN = "not run"

    @property
    def usable(self) -> bool:
        """Whether SGLang's side can hand such a scale to a GEMM without a copy."""
        return self in (Presentation.LYING, Presentation.HONEST)


@dataclass(frozen=True)
class Presented:
    """One producer's answer; ``detail`` says how it was found, or why it was not."""

    kernel: str
    presentation: Presentation
    detail: str = ""

    def __str__(self) -> str:
        detail = f" ({self.detail})" if self.detail else ""
        return f"{self.presentation.value}{detail}"


def presentations(aiter: Tree, device: str) -> tuple[Presented, ...]:
    """Run both producers on "cpu" (interpreted) or "cuda"; never raises for AITER's
    sake: what could not be run says why."""
    try:
        sources = aiter_sources(aiter)
    except OverlayError as error:
        return not_run(error.message)
    # PyTorch itself may be found by PYTHONPATH, so that is added to.
    path = os.pathsep.join(filter(None, (str(_SCRIPTS), os.environ.get("PYTHONPATH"))))
    env = os.environ | {"PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1"}
    env.pop("TRITON_INTERPRET", None)
    if device == "cpu":
        env["TRITON_INTERPRET"] = "1"
    try:
        done = subprocess.run(
            module_command("xscale.numeric.presentation", device),
            env=env,
            input=pickle.dumps(sources),
            capture_output=True,
            timeout=_LIMIT,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return not_run(f"the kernels took more than {_LIMIT} s")
    except OSError as error:
        return not_run(f"no worker could be started: {error}")
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip().rpartition("\n")[2]
        return not_run(f"the worker ended with {done.returncode}: {said}")
    return tuple(
        Presented(row["kernel"], Presentation(row["presentation"]), row["detail"])
        for row in json.loads(done.stdout)
    )


def not_run(why: str) -> tuple[Presented, ...]:
    """The answer where neither producer could be run."""
    return tuple(Presented(name, Presentation.NOT_RUN, why) for name in PRODUCERS)


def _main(device: str) -> None:
    answer = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is no answer
    rows = _ask_all(pickle.load(sys.stdin.buffer), device)
    values = [asdict(row) | {"presentation": row.presentation.value} for row in rows]
    with answer:
        json.dump(values, answer)


def _ask_all(sources: Sources, device: str) -> tuple[Presented, ...]:
    try:
        from xscale.numeric.producers import Kernels

        kernels = Kernels(sources, compiled=device != "cpu")
    except Exception as error:
        return not_run(_told(error))
    used = ", ".join(kernels.stood_in)
    about = f"; stand-ins for {used}" if used else ""
    return tuple(
        replace(one, detail=one.detail + about) if one.detail else one
        for one in (_ask(name, kernels.functions, device) for name in PRODUCERS)
    )


def _ask(name: str, functions: Mapping[str, Any], device: str) -> Presented:
    quant = functions[name]
    if "transpose_scale" not in inspect.signature(quant).parameters:
        return Presented(name, Presentation.NO_PARAMETER)
    try:
        found = [_at(name, quant, *size, device) for size in _SIZES]
    except Exception as error:
        return Presented(name, Presentation.NOT_RUN, _told(error))
    where = "GPU" if device != "cpu" else "Triton's interpreter"
    if len(set(found)) == 1:
        sizes = ", ".join(f"M={m} G={groups}" for m, groups in _SIZES)
        return Presented(name, found[0], f"{where}, {sizes}")
    each = ", ".join(
        f"M={m} G={groups} {one.value}"
        for (m, groups), one in zip(_SIZES, found, strict=True)
    )
    return Presented(name, Presentation.OTHER, f"{where}: {each}")


def _at(
    name: str, quant: Callable[..., Any], m: int, groups: int, device: str
) -> Presentation:
    from xscale.numeric.producers import same_bits

    inputs = _inputs(name, m, groups, device)
    (true_q, truth), (q, scale) = (
        _pair(quant(*inputs, transpose_scale=asked, **_options()))
        for asked in (False, True)
    )
    if not same_bits(true_q, q) or scale.shape != (m, groups):
        return Presentation.OTHER
    if scale.stride() == (1, m):
        seen = {Presentation.HONEST: scale}
    elif scale.is_contiguous():
        stored = scale.view(groups, m).t()
        seen = {Presentation.LYING: stored, Presentation.IGNORED: scale}
    else:
        return Presentation.OTHER
    right = [one for one, values in seen.items() if same_bits(values, truth)]
    return right[0] if len(right) == 1 else Presentation.OTHER


def _inputs(name: str, m: int, groups: int, device: str) -> tuple[Any, ...]:
    """Values whose scales all differ, so that no order looks like another."""
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


def _pair(outputs: Any) -> tuple[Any, Any]:
    q, scale = outputs[0] if isinstance(outputs[0], tuple) else outputs
    return q, scale


def _told(error: Exception) -> str:
    first = str(error).strip().partition("\n")[0]
    return f"{type(error).__name__}: {first}" if first else type(error).__name__


if __name__ == "__main__":
    _main(sys.argv[1])
