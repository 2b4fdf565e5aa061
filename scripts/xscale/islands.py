"""Import single modules of a package that cannot be imported whole.

The ``__init__`` files of SGLang and AITER pull in ROCm, torchvision and more on
the way to any one module. Behind parents that only carry a ``__path__``, the
module itself, and whatever it really needs, is the checkout's own file.

Needs nothing but the standard library; what the island imports is its affair.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

BPRESHUFFLE_SCALE = "sglang.srt.layers.quantization.bpreshuffle_scale"
SGLANG_PARENTS = (
    "sglang",
    "sglang.srt",
    "sglang.srt.layers",
    "sglang.srt.layers.quantization",
    "sglang.test",
    "sglang.test.ci",
)
AITER_PARENTS = ("aiter", "aiter.ops", "aiter.ops.triton")


@contextmanager
def empty_packages(root: Path, *names: str) -> Iterator[Mapping[str, ModuleType]]:
    """Make the packages ``names``, parents first, importable from under ``root``.

    Their ``__init__`` does not run; their other modules are found as ever. Yields
    the packages by name. On the way out every module of theirs leaves
    ``sys.modules``, and whatever was there before returns, so that two checkouts
    can be loaded one after the other; functions already taken stay usable, their
    late imports do not.

    Raises ModuleNotFoundError for a package that the checkout does not hold.
    """
    families = {name.partition(".")[0] for name in names}
    before = _withdraw(families)
    packages: dict[str, ModuleType] = {}
    try:
        for name in names:
            directory = root.joinpath(*name.split("."))
            if not directory.is_dir():
                raise ModuleNotFoundError(f"no package {name}: {directory} is missing")
            package = ModuleType(name)
            package.__path__ = [str(directory)]
            sys.modules[name] = packages[name] = package
            parent, _, child = name.rpartition(".")
            if parent:
                setattr(sys.modules[parent], child, package)
        importlib.invalidate_caches()
        yield packages
    finally:
        _withdraw(families)
        sys.modules.update(before)


def stub(name: str, **attributes: Any) -> None:
    """Stand in for the module ``name``, for as long as its island lasts."""
    module = ModuleType(name)
    vars(module).update(attributes)
    sys.modules[name] = module


def aiter_fp8_quant(checkout: Path, fp8_dtype: object) -> ModuleType:
    """AITER's real ``fused_fp8_quant``, with ``fp8_dtype`` as its default dtype.

    Its kernels run natively, or on the CPU if ``TRITON_INTERPRET=1`` was set before
    Triton was first imported in this process.
    """
    with empty_packages(checkout, *AITER_PARENTS) as packages:
        # aiter.utility.dtypes would ask ROCm which GPU this is.
        vars(packages["aiter"])["dtypes"] = SimpleNamespace(fp8=fp8_dtype)
        return importlib.import_module("aiter.ops.triton.fused_fp8_quant")


def _withdraw(families: set[str]) -> dict[str, ModuleType]:
    names = [name for name in sys.modules if name.partition(".")[0] in families]
    return {name: sys.modules.pop(name) for name in names}
