"""``verify --numeric`` as its users run it: exit codes, what it says, bad input."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from conftest import Checkouts, Pins, run_verb

_METHODS = "python/sglang/srt/models/deepseek_common/attention_forward_methods"


def errors(*arguments: object) -> tuple[int, str]:
    done = run_verb("verify", "--numeric", *map(str, arguments))
    return done.returncode, done.stderr


def test_unpatched_and_as_json(
    pins: Pins, laid_out: dict[str, Path], kernels: None
) -> None:
    """The release as it is holds: by its own lights nothing is wrong with it."""
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
    checkouts: Checkouts, slim: Callable[..., Path], kernels: None
) -> None:
    clone = slim()
    (clone / _METHODS / "forward_mha.py").unlink()
    code, said = errors(clone, checkouts.aiter)
    assert code == 2
    assert "forward_normal_prepare" in said
    assert "forward_absorb_prepare" not in said


def test_no_aiter(checkouts: Checkouts, tmp_path: Path) -> None:
    code, said = errors(checkouts.sglang)
    assert code == 5 and "--aiter" in said
    code, said = errors(checkouts.sglang, "--aiter", tmp_path)
    assert code == 5 and str(tmp_path) in said


def test_aiter_without_its_kernels(
    checkouts: Checkouts, tmp_path: Path, kernels: None
) -> None:
    (tmp_path / "aiter/ops/triton").mkdir(parents=True)
    code, said = errors(checkouts.sglang, "--aiter", tmp_path)
    assert code == 2 and "fused_rms_fp8_group_quant" in said


def test_aiter_that_cannot_be_imported(
    slim: Callable[..., Path], checkouts: Checkouts, kernels: None
) -> None:
    """A part of an AITER: the wrappers, without what they import."""
    code, said = errors(checkouts.sglang, "--aiter", slim("aiter"))
    assert code == 5
    assert "cannot be imported" in said and "aiter.ops.triton.utils" in said


@pytest.mark.parametrize("module", ["torch", "triton", "numpy"])
def test_something_not_installed(
    checkouts: Checkouts,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    kernels: None,
    module: str,
) -> None:
    """As seen by the worker; its sitecustomize hides what is to be missing."""
    hide = f"import sys\nsys.modules[{module!r}] = None\n"
    (tmp_path / "sitecustomize.py").write_text(hide, encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    code, said = errors(checkouts.sglang, checkouts.aiter)
    assert code == 5
    assert module in said.lower()
    assert "requirements-kernels.txt" in said


def test_options_of_the_proof_alone(checkouts: Checkouts) -> None:
    done = run_verb("verify", str(checkouts.sglang), "--full")
    assert done.returncode == 2
    assert "--numeric" in done.stderr
