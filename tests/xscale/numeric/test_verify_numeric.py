"""``verify --numeric`` as users run it: exit codes, messages, bad input."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from conftest import Checkouts, Pins, run_verb
from overlaykit.core.errors import EnvironmentFailure, InputError
from xscale.aiter_tree import aiter_at
from xscale.numeric import Case, CaseResult, Chain

from .test_numeric import FP8_UTILS, edited

pytestmark = pytest.mark.slow("the numeric proof is run by its verb")

Prove = Callable[..., tuple[CaseResult, ...]]

_METHODS = "python/sglang/srt/models/deepseek_common/attention_forward_methods"


def errors(*arguments: object) -> tuple[int, str]:
    # One worker: a second one would only start, and say the same.
    done = run_verb("verify", "--numeric", "--jobs", "1", *map(str, arguments))
    return done.returncode, done.stderr


def test_unpatched_and_as_json(
    pins: Pins, laid_out: dict[str, Path], kernels: None
) -> None:
    """The unpatched release passes: it keeps everything that it promises."""
    done = run_verb(
        "verify",
        "--numeric",
        "--json",
        str(laid_out["sglang"]),
        "--aiter",
        str(laid_out["aiter"]),
    )
    assert done.returncode == 0, done.stderr
    (result,) = json.loads(done.stdout)["results"]
    assert result["cases"] == result["right"] > 0
    assert result["base"] is not None
    assert {row["site"] for row in result["numeric"]} >= {"S1", "S8", "gather"}
    assert all(row["gemm"] == row["compared"] for row in result["numeric"])


def test_a_function_that_cannot_be_found(
    laid_out: dict[str, Path], checkouts: Checkouts, tmp_path: Path, kernels: None
) -> None:
    clone = tmp_path / "clone"
    shutil.copytree(laid_out["sglang"], clone, symlinks=True)
    (clone / _METHODS / "forward_mha.py").unlink()
    code, said = errors(clone, checkouts.aiter)
    # What needs it is not driven; the rest is run.
    assert code == 1
    assert said.count("NotDriven: attention: for MHA") == 3
    sites = {line.split()[1] for line in said.splitlines() if "  site  " in line}
    # S2's cases with prefill enter it too.
    assert sites == {"S2", "S5", "S6", "S7"}


def test_no_aiter(checkouts: Checkouts, tmp_path: Path) -> None:
    code, said = errors(checkouts.sglang)
    assert code == 5 and "--aiter" in said
    for path in (tmp_path, tmp_path / "nowhere"):
        code, said = errors(checkouts.sglang, "--aiter", path)
        assert code == 2 and str(path) in said and "ops/triton" in said


def test_the_package_itself_is_an_aiter(checkouts: Checkouts, tmp_path: Path) -> None:
    package = aiter_at(checkouts.aiter / "aiter")
    assert package.read("aiter/__init__.py")
    with pytest.raises(InputError):
        aiter_at(tmp_path)


def test_aiter_without_its_kernels(
    checkouts: Checkouts, tmp_path: Path, kernels: None
) -> None:
    (tmp_path / "aiter/ops/triton").mkdir(parents=True)
    code, said = errors(checkouts.sglang, "--aiter", tmp_path)
    assert code == 2 and "fused_rms_fp8_group_quant" in said


def test_aiter_that_cannot_be_imported(
    slim: Callable[..., Path], checkouts: Checkouts, kernels: None
) -> None:
    """A part of an AITER: the wrappers without their imports."""
    code, said = errors(checkouts.sglang, "--aiter", slim("aiter"))
    assert code == 5
    assert "cannot be imported" in said and "aiter.ops.triton.utils" in said


@pytest.mark.parametrize("module", ["torch", "triton", "numpy"])
def test_a_missing_package(
    checkouts: Checkouts,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    kernels: None,
    module: str,
) -> None:
    """As seen by the worker; a sitecustomize hides the module."""
    hide = f"import sys\nsys.modules[{module!r}] = None\n"
    (tmp_path / "sitecustomize.py").write_text(hide, encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    code, said = errors(checkouts.sglang, checkouts.aiter)
    assert code == 5
    assert module in said.lower()
    assert "--group kernels" in said


def test_a_torch_without_float8(
    checkouts: Checkouts,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    kernels: None,
) -> None:
    """A real PyTorch; every process deletes the types at its start."""
    take = "import torch\ndel torch.float8_e4m3fn, torch.float8_e4m3fnuz\n"
    (tmp_path / "sitecustomize.py").write_text(take, encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    code, said = errors(checkouts.sglang, checkouts.aiter)
    assert code == 5
    assert "no float8 types" in said and "--group kernels" in said


def test_no_gpu(
    checkouts: Checkouts, monkeypatch: pytest.MonkeyPatch, kernels: None
) -> None:
    """If there are GPUs, none is visible."""
    for name in ("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES"):
        monkeypatch.setenv(name, "")
    code, said = errors(checkouts.sglang, checkouts.aiter, "--device", "cuda")
    assert code == 5
    assert "no GPU" in said and "--device cpu" in said


def test_out_of_memory(pins: Pins, prove: Prove) -> None:
    """PyTorch's own error, raised by the tree's code, because a CPU does not raise it.

    This shows how the error gets from the case through the worker to the caller, not
    that a full device raises it.
    """
    starts = "    n, k = weight.shape\n\n    if _use_aiter_bpreshuffle_gfx95:"
    fails = 'raise torch.OutOfMemoryError("HIP out of memory. Tried 2 GiB")\n\n    '
    tree = edited(
        pins.patched("sglang"),
        FP8_UTILS,
        (starts, starts.replace("if _use", f"{fails}if _use")),
    )
    with pytest.raises(EnvironmentFailure) as caught:
        prove(tree, [Case(Chain.MLA, 3)])
    (finding,) = caught.value.findings
    assert caught.value.exit_code == 5
    assert "out of memory" in finding.what and "absorbed q; M=3" in finding.what
    assert "Tried 2 GiB" in (finding.found or "") and finding.next_step
    # The next run has a new worker, and passes.
    assert all(o.ok for o in prove(pins.patched("sglang"), [Case(Chain.MLA, 3)]))


def test_options_that_need_numeric(checkouts: Checkouts) -> None:
    done = run_verb("verify", str(checkouts.sglang), "--full")
    assert done.returncode == 2
    assert "--numeric" in done.stderr
