"""What the transposed scale costs in generated code, compiled for gfx950 on a CPU.

AITER's own wrappers are called with the arguments that SGLang passes. Instead of
launching the kernel, Triton's warm-up compiles it for those arguments. Triton
specializes code by them (integers that are 1 or divisible by 16, aligned pointers), so
the code is what a launch would get. No signature is spelled out.

The code is compiled and not run: it shows what the GPU has to do, not how fast. Needs
PyTorch and a Triton with its AMD backend, but no GPU.
"""

from __future__ import annotations

import importlib
import inspect
import os
import re
import sys
import tempfile
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

from overlaykit.core.errors import EnvironmentFailure, InputError
from xscale.islands import AITER_PARENTS, empty_packages
from xscale.sites import FLATTEN, RMS

ARCH = "gfx950"
TOKENS = (1, 4, 64, 1000)  # one; small; divisible by 16; large but not divisible
PLACES = ("aiter.ops.triton.quant", "aiter.ops.triton")  # newest first
MODULE = "fused_fp8_quant"
TRANSPOSED = {"transpose_scale": True}


@dataclass(frozen=True)
class Case:
    """A producer as the ``sites`` call it; ``shape`` is (N,) or (heads, v_dim)."""

    kernel: str
    shape: tuple[int, ...]
    sites: str
    form: tuple[str, ...] = ()

    def arguments(self, m: int) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The arguments that the sites pass for ``m`` tokens, with their strides."""
        import torch

        def empty(*shape: int) -> Any:
            return torch.empty(shape, dtype=torch.bfloat16)

        group_128 = {"group_size": 128, "dtype_quant": torch.float8_e4m3fn}
        n = self.shape[0]
        if self.kernel == FLATTEN:
            return (empty(n, m, self.shape[1]).transpose(0, 1),), group_128
        x = empty(m, n)
        second: tuple[Any, ...] = (None, None, None)
        if "second input" in self.form:
            # One GEMM makes q, the kv latent and rope: both inputs are slices.
            x, latent, _ = empty(m, n + 512 + 64).split([n, 512, 64], dim=-1)
            second = (latent, empty(512), 1e-6)
        return (x, empty(n), 1e-6, *second), group_128 | {
            "res1": empty(m, n) if "residual" in self.form else None,
            "output_unquantized_inp1": "bf16 too" in self.form,
        }


CASES = (
    *(
        Case(RMS, (n,), sites, form)
        for n in (512, 2048, 6144)
        for sites, form in (
            ("S1 S6", ()),
            ("S1 S5 S7", ("bf16 too",)),
            ("S2", ("residual",)),
            ("S2", ("residual", "bf16 too")),
            ("S4", ("second input",)),
            ("S3", ("second input", "bf16 too")),
        )
    ),
    Case(FLATTEN, (8, 256), "S8", ("GLM-5.1 TP=8",)),
    Case(FLATTEN, (16, 128), "S8", ("DeepSeek-V3 TP=8",)),
)


@dataclass(frozen=True)
class Code:
    """Figures of one binary. All are costs, except ``waves``.

    ``binary`` numbers the binaries of a case, for both layouts: the same number means
    the same binary. ``code_bytes`` counts the instructions only, because the code
    object also contains the paths of its sources. ``lds_bytes`` is per workgroup.
    ``waves`` is the compiler's estimate of how many fit on a SIMD. ``mix`` counts each
    instruction.
    """

    binary: int
    instructions: int
    code_bytes: int
    vgprs: int
    agprs: int
    sgprs: int
    vgpr_spills: int
    sgpr_spills: int
    scratch_bytes: int
    lds_bytes: int
    global_loads: int
    global_stores: int
    waves: int
    mix: Mapping[str, int]


FIGURES = tuple(f.name for f in fields(Code) if f.name not in ("binary", "mix"))


@dataclass(frozen=True)
class Row:
    """One case, for all M that share both binaries."""

    case: Case
    tokens: tuple[int, ...]
    default: Code
    transposed: Code

    @property
    def changes(self) -> Mapping[str, int]:
        """The figures that differ: transposed minus row-major."""
        old, new = asdict(self.default), asdict(self.transposed)
        return {f: new[f] - old[f] for f in FIGURES if new[f] != old[f]}

    @property
    def verdict(self) -> str:
        """``same``, ``less`` or ``more``, and the differences."""
        by = ", ".join(f"{d:+d} {f.replace('_', ' ')}" for f, d in self.changes.items())
        costs = any((d < 0) == (f == "waves") for f, d in self.changes.items())
        return f"{'more' if costs else 'less'}: {by}" if by else "same"


def compare(aiter: Path, cases: Sequence[Case] = CASES) -> tuple[Row, ...]:
    """Compile the cases from the AITER in ``aiter``, row-major and transposed.

    ``aiter`` is the directory that holds the package: a checkout or a site-packages.
    Raises InputError if a kernel or its ``transpose_scale`` is missing, and
    EnvironmentFailure if PyTorch is missing, or a Triton that compiles for AMD.
    """
    with _default_settings(), _pretended_gpu():
        module = _load(aiter)
        for kernel in sorted({case.kernel for case in cases}):
            _check(module, kernel)
        return tuple(row for case in cases for row in _rows(module, case))


def _rows(module: ModuleType, case: Case) -> Iterator[Row]:
    codes: dict[str, Code] = {}
    pairs: dict[tuple[str, str], list[int]] = {}
    for m in TOKENS:
        old, new = (_compile(module, case, m, order) for order in ({}, TRANSPOSED))
        for binary in (old, new):
            codes.setdefault(binary.hash, _code(binary, len(codes) + 1))
        pairs.setdefault((old.hash, new.hash), []).append(m)
    for hashes, tokens in pairs.items():
        yield Row(case, tuple(tokens), *(codes[x] for x in hashes))


def _check(module: ModuleType, kernel: str) -> None:
    for name in (kernel, f"_{kernel}_kernel"):
        if not hasattr(module, name):
            raise InputError(f"{module.__file__} has no kernel {name}")
    if "transpose_scale" not in inspect.signature(vars(module)[kernel]).parameters:
        lacking = f"{kernel} of {module.__file__} has no transpose_scale parameter"
        raise InputError(f"{lacking}: apply patches/aiter")


def _compile(module: ModuleType, case: Case, m: int, order: Mapping[str, Any]) -> Any:
    name = f"_{case.kernel}_kernel"
    wrapper, kernel = getattr(module, case.kernel), getattr(module, name)
    compiled: list[Any] = []

    class Recorder:
        def __getitem__(self, grid: Any) -> Any:
            return lambda *a, **k: compiled.append(kernel.warmup(*a, grid=grid, **k))

    args, kwargs = case.arguments(m)
    vars(module)[name] = Recorder()
    try:
        wrapper(*args, **kwargs, **order)
    except Exception as error:
        raise EnvironmentFailure(f"{name} does not compile: {error!r}") from error
    finally:
        vars(module)[name] = kernel
    (binary,) = compiled
    return binary


def _code(binary: Any, number: int) -> Code:
    text = binary.asm["amdgcn"]
    body = text.partition(f"\n{binary.name}:")[2].partition("\n.Lfunc_end")[0]
    # Directives begin with a dot, comments with a semicolon, labels at the margin.
    mnemonics = re.findall(r"^\t([a-z]\w*)", body, re.MULTILINE)
    stated = dict(re.findall(r"^[-; ]*\.?(\w+)(?:: +| = )(\d+)", text, re.MULTILINE))
    memory = re.findall(r"^(?:global|buffer|flat)_(load|store)_",
                        "\n".join(mnemonics), re.MULTILINE)  # fmt: skip
    try:
        return Code(
            binary=number,
            instructions=len(mnemonics),
            code_bytes=int(stated["codeLenInByte"]),
            vgprs=int(stated["vgpr_count"]),
            agprs=int(stated["agpr_count"]),
            sgprs=int(stated["sgpr_count"]),
            vgpr_spills=int(stated["vgpr_spill_count"]),
            sgpr_spills=int(stated["sgpr_spill_count"]),
            scratch_bytes=int(stated["private_segment_fixed_size"]),
            lds_bytes=binary.metadata.shared,
            global_loads=memory.count("load"),
            global_stores=memory.count("store"),
            waves=int(stated["Occupancy"]),
            mix=dict(Counter(mnemonics)),
        )
    except KeyError as missing:
        raise EnvironmentFailure(f"this Triton's AMDGCN lacks {missing}") from missing


@contextmanager
def _default_settings() -> Iterator[None]:
    """Ignore the caller's settings, use an empty cache, write no bytecode to AITER."""
    before, writes_none = dict(os.environ), sys.dont_write_bytecode
    with tempfile.TemporaryDirectory() as cache, warnings.catch_warnings():
        # Triton announces its next release's defaults; the page names this release.
        warnings.filterwarnings("ignore", "TRITON_DEFAULT_FP_FUSION")
        for name in before:
            if name.startswith(("TRITON_", "AMDGCN_")):
                del os.environ[name]
        os.environ["TRITON_CACHE_DIR"] = cache
        sys.dont_write_bytecode = True
        try:
            yield
        finally:
            sys.dont_write_bytecode = writes_none
            os.environ.clear()
            os.environ.update(before)


@contextmanager
def _pretended_gpu() -> Iterator[None]:
    """Make Triton compile for ``ARCH`` on any machine."""
    try:
        import torch  # noqa: F401
        import triton
        from triton.backends.compiler import GPUTarget
        from triton.compiler.compiler import make_backend
    except ImportError as error:
        raise EnvironmentFailure(f"this needs PyTorch and Triton: {error}") from error
    if not isinstance(triton.language.sum, triton.JITFunction):
        raise EnvironmentFailure("Triton only interprets: unset TRITON_INTERPRET")
    target = GPUTarget("hip", ARCH, 64)
    try:
        make_backend(target)
    except RuntimeError as error:
        raise EnvironmentFailure(f"this Triton has no AMD backend: {error}") from error
    gpu = SimpleNamespace(
        get_current_target=lambda: target,
        get_current_device=lambda: 0,
        get_current_stream=lambda device: 0,
    )
    driver = triton.runtime.driver
    # The driver's own property would search for a GPU and fail without one.
    before = vars(driver).get("_active", vars(driver).get("active"))
    driver.set_active(gpu)
    try:
        yield
    finally:
        driver.set_active(before)


def _load(aiter: Path) -> ModuleType:
    """The module with the wrappers; its place depends on the release."""
    files = [aiter.joinpath(*place.split("."), f"{MODULE}.py") for place in PLACES]
    place = next((p for p, f in zip(PLACES, files, strict=True) if f.is_file()), None)
    if place is None:
        raise InputError(f"no AITER kernels here: neither {files[0]} nor {files[1]}")
    import torch

    try:
        with empty_packages(aiter, *dict.fromkeys((*AITER_PARENTS, place))) as packages:
            # aiter.utility.dtypes would query ROCm for the GPU.
            dtypes = SimpleNamespace(fp8=torch.float8_e4m3fn)
            vars(packages["aiter"])["dtypes"] = dtypes
            return importlib.import_module(f"{place}.{MODULE}")
    except Exception as error:
        lacking = f"{place}.{MODULE} of {aiter} cannot be imported: {error!r}"
        raise InputError(lacking) from error
