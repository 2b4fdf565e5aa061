"""The overlay's scale module against upstream's unit test and AITER's real kernels.

Run as a script, this file is its own worker: Triton chooses between interpreter and GPU
when it is first imported, and two checkouts need two sets of modules, so each job runs
in a separate process.

    test_overlay_module.py unit SGLANG
    test_overlay_module.py produce SGLANG AITER RESULTS
"""

from __future__ import annotations

import importlib
import logging
import os
import re
import runpy
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="the scale module needs PyTorch")

UNIT_TEST = "test/registered/unit/layers/quantization/test_bpreshuffle_scale.py"
SWITCH = "SGLANG_AITER_PRETRANSPOSED_SCALE"
FP8 = torch.float8_e4m3fn
# As in patience.py, which this file cannot import when it runs as a program.
TIMEOUT_S = 1200

# All layouts coincide at M = 1, and 4 is also the number of groups.
ROWS = (1, 2, 3, 4, 17)
RMS_CASES = ("rms", "rms residual", "rms second input")
FLATTEN_CASES = ("flatten 4x128", "flatten 3x256")
CASES = tuple((kernel, m) for kernel in (*RMS_CASES, *FLATTEN_CASES) for m in ROWS)


@dataclass(frozen=True)
class Produced:
    """What one real kernel wrote for one input, in both layouts.

    ``scale`` is returned to the producer's caller; ``for_ck`` and ``for_triton`` are
    what the consumer passes to each GEMM. All share storage if nothing was copied.
    ``complaint`` is the error of check mode for the same call.
    """

    q: Any
    row_major_q: Any
    row_major: Any
    scale: Any
    for_ck: Any
    for_triton: Any
    marked: bool
    copies: int
    warnings: int
    complaint: str


Results = dict[tuple[str, int], Produced]


@pytest.fixture(scope="module")
def patched(checkouts: Any, tmp_path_factory: pytest.TempPathFactory) -> Results:
    return produced(checkouts.sglang, checkouts.aiter, tmp_path_factory)


@pytest.fixture(scope="module")
def pristine(checkouts: Any, tmp_path_factory: pytest.TempPathFactory) -> Results:
    return produced(checkouts.sglang, checkouts.pristine_aiter, tmp_path_factory)


@pytest.mark.slow("kernels under Triton's interpreter")
def test_upstream_unit_test_passes(checkouts: Any) -> None:
    said = run_worker("unit", checkouts.sglang)
    ran = re.search(r"^Ran (\d+) tests in", said, re.MULTILINE)
    assert ran and int(ran[1]) > 0, said
    assert said.rstrip().endswith("OK"), f"a test was skipped:\n{said}"


@pytest.mark.slow("kernels under Triton's interpreter")
@pytest.mark.parametrize("m", ROWS)
@pytest.mark.parametrize("kernel", RMS_CASES + FLATTEN_CASES)
def test_both_gemms_read_what_the_row_major_kernel_computes(
    patched: Results, kernel: str, m: int
) -> None:
    """CK reads by bytes and Triton by strides, without a copy."""
    case = patched[kernel, m]
    assert same_bits(case.q, case.row_major_q)
    assert same_bits(read_by_ck(case.for_ck), case.row_major)
    assert same_bits(case.for_triton, case.row_major)
    assert case.marked
    assert case.copies == 0
    assert case.for_triton.stride() == (1, m) or m == 1
    assert not case.complaint


@pytest.mark.slow("kernels under Triton's interpreter")
@pytest.mark.parametrize("m", [m for m in ROWS if m > 1])
@pytest.mark.parametrize("kernel", RMS_CASES + FLATTEN_CASES)
def test_the_cases_distinguish_the_layouts(
    patched: Results, kernel: str, m: int
) -> None:
    row_major = patched[kernel, m].row_major
    assert row_major.shape[1] > 1
    assert not same_bits(read_by_ck(row_major), row_major)


@pytest.mark.slow("kernels under Triton's interpreter")
@pytest.mark.parametrize("m", ROWS)
@pytest.mark.parametrize("kernel", RMS_CASES + FLATTEN_CASES)
def test_patched_aiter_computes_what_pristine_aiter_does(
    patched: Results, pristine: Results, kernel: str, m: int
) -> None:
    """The same q and scale values in either layout, bit for bit."""
    new, old = patched[kernel, m], pristine[kernel, m]
    assert same_bits(new.row_major_q, old.row_major_q)
    assert same_bits(new.row_major, old.row_major)
    assert new.row_major.stride() == old.row_major.stride()
    assert same_bits(new.q, old.q)
    assert same_bits(new.scale, old.scale)


@pytest.mark.slow("kernels under Triton's interpreter")
@pytest.mark.parametrize("m", ROWS)
@pytest.mark.parametrize("kernel", FLATTEN_CASES)
def test_pristine_flatten_falls_back_to_row_major(
    pristine: Results, kernel: str, m: int
) -> None:
    case = pristine[kernel, m]
    assert not case.marked
    assert case.scale.is_contiguous()
    assert same_bits(case.scale, case.row_major)
    assert same_bits(read_by_ck(case.for_ck), case.row_major)
    assert same_bits(case.for_triton, case.row_major)


@pytest.mark.slow("kernels under Triton's interpreter")
@pytest.mark.parametrize("m", ROWS)
@pytest.mark.parametrize("kernel", RMS_CASES)
def test_pristine_rms_is_already_copy_free(
    pristine: Results, kernel: str, m: int
) -> None:
    case = pristine[kernel, m]
    assert case.marked
    assert case.copies == 0
    assert same_bits(read_by_ck(case.for_ck), case.row_major)
    assert not case.complaint


@pytest.mark.slow("kernels under Triton's interpreter")
def test_one_warning_and_only_from_pristine_aiter(
    patched: Results, pristine: Results
) -> None:
    assert sum(case.warnings for case in patched.values()) == 0
    warned = [key for key, case in pristine.items() if case.warnings]
    assert warned == [(FLATTEN_CASES[0], ROWS[0])]
    assert pristine[warned[0]].warnings == 1


def same_bits(left: Any, right: Any) -> bool:
    """Whether shapes, dtypes and the bits of every element agree, with any strides."""
    if left.shape != right.shape or left.dtype != right.dtype:
        return False
    bits = torch.uint8 if left.element_size() == 1 else torch.int32
    return bool(torch.equal(left.view(bits), right.view(bits)))


def read_by_ck(x_scale: Any) -> Any:
    """(M, G) values as CK reads them: from the data pointer on, as (G, M)."""
    m, groups = x_scale.shape
    return x_scale.as_strided((groups, m), (m, 1)).t()


def produced(
    sglang: Path, aiter: Path, tmp_path_factory: pytest.TempPathFactory
) -> Results:
    pytest.importorskip("triton", reason="AITER's producers are Triton kernels")
    pytest.importorskip("numpy", reason="Triton's interpreter needs it")
    results = tmp_path_factory.mktemp("produced") / "results.pt"
    run_worker("produce", sglang, aiter, results)
    loaded = torch.load(results, weights_only=True)
    assert set(loaded) == set(CASES)
    return {key: Produced(**fields) for key, fields in loaded.items()}


def run_worker(*arguments: object) -> str:
    env = os.environ | {
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONPATH": str(Path(__file__).parents[2] / "scripts"),
        "TRITON_INTERPRET": "1",
    }
    env.pop(SWITCH, None)
    done = subprocess.run(
        [sys.executable, __file__, *map(str, arguments)],
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        timeout=TIMEOUT_S,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


# --- the worker -----------------------------------------------------------------


def run_unit_test(sglang: Path) -> None:
    """Run the test like upstream's CI: find its registration, then ``python3
    test_file.py``."""
    from xscale.islands import SGLANG_PARENTS, empty_packages

    test = sglang / UNIT_TEST
    sys.argv = [str(test)]
    with empty_packages(sglang / "python", *SGLANG_PARENTS):
        ci_register = importlib.import_module("sglang.test.ci.ci_register")
        (registered,) = ci_register.collect_tests([str(test)], sanity_check=True)
        assert registered.backend.name == "CPU" and not registered.disabled
        runpy.run_path(str(test), run_name="__main__")


def produce(sglang: Path, aiter: Path, results: Path) -> None:
    """Run every case through the overlay's producer and consumer, into ``results``."""
    from xscale.islands import (
        BPRESHUFFLE_SCALE,
        SGLANG_PARENTS,
        aiter_fp8_quant,
        empty_packages,
        stub,
    )

    kernels = aiter_fp8_quant(aiter, FP8)
    with empty_packages(sglang / "python", *SGLANG_PARENTS):
        stub(
            "sglang.srt.layers.quantization.fp8_utils",
            _use_aiter_bpreshuffle_gfx95=True,
        )
        module = importlib.import_module(BPRESHUFFLE_SCALE)
        warnings = Warnings()
        module.logger.addHandler(warnings)

        found = {
            key: vars(run_case(module, warnings, quant, args, kwargs))
            for key, quant, args, kwargs in cases(kernels)
        }
    torch.save(found, results)


def cases(
    kernels: Any,
) -> Iterator[
    tuple[tuple[str, int], Callable[..., Any], tuple[Any, ...], dict[str, Any]]
]:
    """The calls SGLang makes, with its arguments, on small inputs."""
    group_128 = {"group_size": 128, "dtype_quant": FP8}
    for kernel, m in CASES:
        draw = Draw(seed=m)
        if kernel.startswith("flatten"):
            heads, width = map(int, kernel.split()[1].split("x"))
            # The attention output is transposed, not contiguous, at this call.
            args: tuple[Any, ...] = (draw(heads, m, width).transpose(0, 1),)
            yield (kernel, m), kernels.fused_flatten_fp8_group_quant, args, group_128
        else:
            second = kernel == "rms second input"
            args = (
                draw(m, 512),
                draw(512),
                1e-6,
                draw(m, 256) if second else None,
                draw(256) if second else None,
                1e-6 if second else None,
            )
            kwargs = group_128 | {
                "res1": draw(m, 512) if kernel == "rms residual" else None,
                "output_unquantized_inp1": second,
            }
            yield (kernel, m), kernels.fused_rms_fp8_group_quant, args, kwargs


def run_case(
    module: Any,
    warnings: Warnings,
    quant: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> Produced:
    row_major_q, row_major = first_pair(quant(*args, **kwargs))
    warnings.count = 0
    q, scale = first_pair(
        module.quant_pretransposed_scale(quant, None, *args, **kwargs)
    )
    readers = [module.x_scale_for_gemm(scale, flag) for flag in (True, False)]
    return Produced(
        q=q,
        row_major_q=row_major_q,
        row_major=row_major,
        scale=scale.detach(),
        for_ck=readers[0].detach(),
        for_triton=readers[1].detach(),
        marked=getattr(scale, "_aiter_bpreshuffle_layout", False),
        copies=sum(r.data_ptr() != scale.data_ptr() for r in readers),
        warnings=warnings.count,
        complaint=complaint_of_check_mode(module, quant, args, kwargs),
    )


def complaint_of_check_mode(
    module: Any,
    quant: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> str:
    module._MODE = "check"
    try:
        _, scale = first_pair(
            module.quant_pretransposed_scale(quant, None, *args, **kwargs)
        )
        for flag in (True, False):
            module.x_scale_for_gemm(scale, flag)
    except RuntimeError as error:
        return str(error)
    finally:
        module._MODE = "1"
    return ""


def first_pair(outputs: Any) -> tuple[Any, Any]:
    q, scale = outputs[0] if isinstance(outputs[0], tuple) else outputs
    return q, scale


class Warnings(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.count = 0

    def emit(self, record: logging.LogRecord) -> None:
        self.count += 1


class Draw:
    """Reproducible bfloat16 activations."""

    def __init__(self, seed: int) -> None:
        self.generator = torch.Generator().manual_seed(seed)

    def __call__(self, *shape: int) -> Any:
        return torch.randn(shape, generator=self.generator).to(torch.bfloat16)


if __name__ == "__main__":
    jobs: dict[str, Callable[..., None]] = {"unit": run_unit_test, "produce": produce}
    jobs[sys.argv[1]](*map(Path, sys.argv[2:]))
