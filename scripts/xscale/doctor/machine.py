"""The machine as PyTorch and Triton see it, and its environment variables."""

from __future__ import annotations

import json
import platform
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from overlaykit.cli import Result
from overlaykit.core import gitversion
from overlaykit.core.python import module_command, module_environment
from xscale.doctor.answers import ABSENT, SITES, Condition, answer, condition
from xscale.numeric.sources import SWITCH

_USE_AITER = "SGLANG_USE_AITER"
_ROCM_FILE = Path("/opt/rocm/.info/version")
_ROCM = (7, 2)
_LIMIT = 180
# These need a served model on the chip; this program never runs them.
_NEEDS_SERVING = (
    "CK's bpreshuffle GEMM reading the scale: not run",
    "the copies' absence from a decode trace: not run",
    "throughput and accuracy of a served model: not run",
)


class MachineReport(Result, frozen=True, kw_only=True):
    """The report on the machine that SGLang would run on, as this Python sees it."""

    python: str
    torch: str
    triton: str
    rocm: str
    gpu: str
    arch: str
    git: str
    not_run: tuple[str, ...]


def facts() -> dict[str, str]:
    """Import PyTorch and Triton in another process, because a broken installation may
    crash it, and return what it finds."""
    command = module_command("xscale.doctor.machine")
    try:
        done = subprocess.run(
            command,
            env=module_environment(),
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=_LIMIT,
        )
        found: dict[str, str] = json.loads(done.stdout.rpartition("\n")[2])
    except subprocess.TimeoutExpired:
        return {"error": f"importing PyTorch took more than {_LIMIT} s"}
    except OSError as error:
        return {"error": f"the process that imports PyTorch cannot be started: {error}"}
    except ValueError:
        last = done.stderr.strip().rpartition("\n")[2]
        return {"error": f"importing PyTorch exited with {done.returncode}: {last}"}
    return found


def _print_facts() -> None:
    """In the other process: print the facts on the last line, after other output."""
    facts: dict[str, str] = {}
    for find in (_torch_facts, _triton_facts):
        try:
            facts |= find()
        except Exception as error:
            facts[f"no {find.__name__}"] = f"{type(error).__name__}: {error}"
    print("\n" + json.dumps(facts), end="")


def _torch_facts() -> dict[str, str]:
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


def _triton_facts() -> dict[str, str]:
    import triton

    return {"triton": triton.__version__}


def report_of(facts: Mapping[str, str]) -> MachineReport:
    """The report on the machine."""
    # After a crash, it is unknown whether they are installed.
    absent = "not known" if "error" in facts else ABSENT
    rocm = facts.get("hip")
    if rocm is None:
        try:
            text = _ROCM_FILE.read_text(encoding="utf-8").strip()
            rocm = f"{text} in {_ROCM_FILE}, unused by torch"
        except (OSError, UnicodeDecodeError):
            rocm = ABSENT
    return MachineReport(
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
        not_run=_NEEDS_SERVING,
        notes=tuple(v for k, v in facts.items() if k == "error" or k[:3] == "no "),
    )


def machine_conditions(facts: Mapping[str, str]) -> list[Condition]:
    """SGLang's own conditions: gfx95 and ROCm 7.2 or newer."""
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
            answer("gfx95" in facts.get("arch", ""), known),
            gpu if known else torch,
            "run this on the MI350 or MI355X node, with the Python that serves; other "
            "chips use the Triton GEMM, which needs no copy",
        ),
        condition(
            f"ROCm is {wanted} or newer",
            SITES,
            answer(version >= _ROCM, known),
            f"{torch}, HIP {hip}" if hip else f"{torch}, without ROCm",
            f"install a torch built for ROCm {wanted} or newer; with an older one "
            "SGLang uses the Triton GEMM",
        ),
    ]


def environment_conditions(environ: Mapping[str, str]) -> list[Condition]:
    """The variables that SGLang and the series' switch read."""
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
            answer((used or "").lower() in ("1", "true")),
            f"{_USE_AITER}={used}" if used is not None else "not set",
            f"export {_USE_AITER}=1 for the server",
        ),
        condition(
            f"{SWITCH} is on",
            SITES,
            answer(right),
            f"{SWITCH}={switch}" if switch is not None else "not set: 1",
            change,
        ),
    ]


if __name__ == "__main__":
    _print_facts()
