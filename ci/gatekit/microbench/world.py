"""Replacements for the tree's imports: AITER's real kernels, and constants.

The numeric proof runs each kernel twice and records it; here nothing may come between
the tree and the launch. Interpreted kernels are labelled, because they make copies.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch

from gatekit.microbench.gemms import ChainGemms
from xscale.numeric.cases import Platform, Variant
from xscale.numeric.doubles import Draw, World
from xscale.numeric.producers import DOUBLE, Kernels
from xscale.sites import GEMM, PRODUCERS


@dataclass
class ChainWorld(World):
    """One arm's world, on gfx95 with ROCm 7.2 from the tree's point of view."""

    gemms: ChainGemms = field(kw_only=True)
    _constants: dict[tuple[int, ...], Any] = field(default_factory=dict, kw_only=True)

    @classmethod
    def of(cls, kernels: Kernels, gemms: ChainGemms, device: str) -> ChainWorld:
        return cls(Platform.GFX95, Variant.INSTALLED, kernels, device, gemms=gemms)

    def answer(self, module: str, name: str) -> Any:
        """As in the base class, but timed functions have no recorders."""
        if name in PRODUCERS:
            function = self.kernels.real(name)
            return function if self.device != "cpu" else _labelled(function)
        if name == GEMM:
            return self.gemms.bpreshuffle
        if name == "gemm_a8w8_blockscale" and ".triton" in module:
            return self.gemms.triton
        return super().answer(module, name)

    def constant(self, *shape: int) -> Any:
        """bf16 values in place of a kernel's output, created at the first use."""
        if shape not in self._constants:
            self._constants[shape] = Draw(("constant", shape), self.device)(*shape)
        return self._constants[shape]

    def _batched_gemm(self, X: Any, WQ: Any, **_: Any) -> Any:
        return self.constant(WQ.shape[0], X.shape[0], WQ.shape[1])


def _labelled(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def labelled(*args: Any, **kwargs: Any) -> Any:
        with torch.profiler.record_function(DOUBLE):
            return function(*args, **kwargs)

    return labelled
