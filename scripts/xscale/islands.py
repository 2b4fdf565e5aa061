"""Import single modules of a package that cannot be imported whole.

The ``__init__`` files of SGLang and AITER import ROCm, torchvision and more. Here their
parent packages are replaced by ones that only have a ``__path__``; the module itself
and its real dependencies are the checkout's own files.

Needs only the standard library; the imported modules may need more.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator, Mapping, Set
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

    Their ``__init__`` does not run; their other modules are found as usual. Yields the
    packages by name. On exit all their modules are removed from ``sys.modules`` and the
    previous ones are restored, so two checkouts can be loaded one after the other.
    Functions that were taken remain usable, but their later imports do not.

    Raises ModuleNotFoundError if the checkout does not have a package.
    """
    families = {name.partition(".")[0] for name in names}
    before = removed(families)
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
        removed(families)
        sys.modules.update(before)


def stub(name: str, **attributes: Any) -> None:
    """Replace the module ``name`` until the packages are removed."""
    module = ModuleType(name)
    vars(module).update(attributes)
    sys.modules[name] = module


def aiter_fp8_quant(checkout: Path, fp8_dtype: object) -> ModuleType:
    """AITER's real ``fused_fp8_quant``, with ``fp8_dtype`` as its default dtype.

    Its kernels run on the GPU, or on the CPU if ``TRITON_INTERPRET=1`` was set before
    this process first imported Triton.
    """
    with empty_packages(checkout, *AITER_PARENTS) as packages:
        # aiter.utility.dtypes would query ROCm for the GPU.
        vars(packages["aiter"])["dtypes"] = SimpleNamespace(fp8=fp8_dtype)
        return importlib.import_module("aiter.ops.triton.fused_fp8_quant")


def removed(families: Set[str]) -> dict[str, ModuleType]:
    """Remove the modules of these packages from ``sys.modules``; return them."""
    names = [name for name in sys.modules if name.partition(".")[0] in families]
    return {name: sys.modules.pop(name) for name in names}
