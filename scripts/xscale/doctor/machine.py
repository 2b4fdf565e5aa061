"""The machine: what PyTorch and Triton say of it, and what the environment sets."""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from overlaykit.cli import Result
from overlaykit.core import gitversion
from overlaykit.core.python import module_command
from xscale.doctor.answers import ABSENT, SITES, Condition, condition, told
from xscale.numeric.sources import SWITCH

_SCRIPTS = Path(__file__).resolve().parents[2]
_USE_AITER = "SGLANG_USE_AITER"
_ROCM_FILE = Path("/opt/rocm/.info/version")
_ROCM = (7, 2)
_LIMIT = 180
# Asked of the chip itself, which takes a served model: no run of this program tells.
_ONLY_SERVING_TELLS = (
    "CK's bpreshuffle GEMM reading the scale: not run",
    "the copies' absence from a decode trace: not run",
    "throughput and accuracy of a served model: not run",
)


class Machine(Result, frozen=True, kw_only=True):
    """What SGLang would run on, as this Python sees it."""

    python: str
    torch: str
    triton: str
    rocm: str
    gpu: str
    arch: str
    git: str
    not_run: tuple[str, ...]


def facts() -> dict[str, str]:
    """What a process of its own learns by importing PyTorch and Triton, which may
    crash on a broken installation."""
    path = os.pathsep.join(filter(None, (str(_SCRIPTS), os.environ.get("PYTHONPATH"))))
    env = os.environ | {"PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1"}
    command = module_command("xscale.doctor.machine")
    try:
        done = subprocess.run(
            command,
            env=env,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=_LIMIT,
        )
        found: dict[str, str] = json.loads(done.stdout.rpartition("\n")[2])
    except subprocess.TimeoutExpired:
        return {"error": f"importing PyTorch took more than {_LIMIT} s"}
    except OSError as error:
        return {"error": f"no process to import PyTorch in could be started: {error}"}
    except ValueError:
        said = done.stderr.strip().rpartition("\n")[2]
        return {"error": f"importing PyTorch ended with {done.returncode}: {said}"}
    return found


def _look_around() -> None:
    """The other process: prints the facts as one line, after whatever others print."""
    facts: dict[str, str] = {}
    for ask in (_ask_torch, _ask_triton):
        try:
            facts |= ask()
        except Exception as error:
            facts[f"no {ask.__name__}"] = f"{type(error).__name__}: {error}"
    print("\n" + json.dumps(facts), end="")


def _ask_torch() -> dict[str, str]:
    import torch

    facts = {"torch": torch.__version__}
    if torch.version.hip:
        facts["hip"] = torch.version.hip
    if torch.cuda.is_available():
        properties: Any = torch.cuda.get_device_properties(0)
        facts["gpu"] = properties.name
        if torch.version.hip:
            facts["arch"] = properties.gcnArchName.partition(":")[0]
    return facts


def _ask_triton() -> dict[str, str]:
    import triton

    return {"triton": triton.__version__}


def examined(facts: Mapping[str, str]) -> Machine:
    """The machine's part of the report."""
    # A crash leaves open what it kept from being asked.
    absent = "not known" if "error" in facts else ABSENT
    rocm = facts.get("hip")
    if rocm is None:
        try:
            text = _ROCM_FILE.read_text(encoding="utf-8").strip()
            rocm = f"{text} in {_ROCM_FILE}, unused by torch"
        except (OSError, UnicodeDecodeError):
            rocm = ABSENT
    return Machine(
        target="machine",
        tree=platform.platform(),
        outcome="examined",
        python=platform.python_version(),
        torch=facts.get("torch", absent),
        triton=facts.get("triton", absent),
        rocm=rocm,
        gpu=facts.get("gpu", absent),
        arch=facts.get("arch", absent),
        git=gitversion.description(),
        not_run=_ONLY_SERVING_TELLS,
        notes=tuple(v for k, v in facts.items() if k == "error" or k[:3] == "no "),
    )


def machine_conditions(facts: Mapping[str, str]) -> list[Condition]:
    """SGLang's own predicate: gfx95 with ROCm 7.2 or newer."""
    known = "torch" in facts
    torch = f"torch {facts['torch']}" if known else f"torch {ABSENT}"
    hip = facts.get("hip", "")
    numbers = re.match(r"(\d+)\.(\d+)", hip)
    version = (int(numbers[1]), int(numbers[2])) if numbers else (0, 0)
    gpu = facts.get("arch") or facts.get("gpu") or "no GPU that torch can use"
    wanted = ".".join(map(str, _ROCM))
    return [
        condition(
            "the GPU is a gfx95",
            SITES,
            told("gfx95" in facts.get("arch", ""), known),
            gpu if known else torch,
            "run this on the MI350 or MI355X node, with the Python that serves; other "
            "chips take the Triton GEMM, which has no copy to save",
        ),
        condition(
            f"ROCm is {wanted} or newer",
            SITES,
            told(version >= _ROCM, known),
            f"{torch}, HIP {hip}" if hip else f"{torch}, without ROCm",
            f"install a torch built for ROCm {wanted} or newer; with an older one "
            "SGLang keeps to the Triton GEMM",
        ),
    ]


def environment_conditions(environ: Mapping[str, str]) -> list[Condition]:
    """What SGLang asks of its environment, and the series' switch."""
    used = environ.get(_USE_AITER)
    switch = environ.get(SWITCH)
    right = switch in (None, "1", "check")
    if switch == "0":
        change = f"unset {SWITCH}, or set it to 1: 0 turns the series off"
    else:
        change = f"set {SWITCH} to 0, 1 or check: SGLang raises on anything else"
    return [
        condition(
            f"{_USE_AITER} is set",
            SITES,
            told((used or "").lower() in ("1", "true")),
            f"{_USE_AITER}={used}" if used is not None else "not set",
            f"export {_USE_AITER}=1 for the server",
        ),
        condition(
            f"{SWITCH} is on",
            SITES,
            told(right),
            f"{SWITCH}={switch}" if switch is not None else "not set: 1",
            change,
        ),
    ]


if __name__ == "__main__":
    _look_around()
