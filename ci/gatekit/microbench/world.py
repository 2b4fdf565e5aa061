"""Replacements for the tree's imports: AITER's real kernels, and constants.

The numeric proof runs each kernel twice and records it; here nothing may come between
the tree and the launch. Interpreted kernels are labelled, because they make copies.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

import torch

from gatekit.microbench import launches
from gatekit.microbench.gemms import ChainGemms
from xscale.numeric.cases import Platform, Variant
from xscale.numeric.doubles import Draw, Norm, World
from xscale.numeric.producers import DOUBLE, FLATTEN, Kernels
from xscale.sites import GEMM, PRODUCERS


class Role(Enum):
    """What a launch is for. ``value`` ends its label in a CPU's profile."""

    NORM = "norm"
    QUANTIZATION = "quantization"
    GEMM = "GEMM"
    ATTENTION = "attention"

    @property
    def label(self) -> str:
        return f"{DOUBLE} {self.value}"


class LaunchedNorm(Norm):
    """RMSNorm in one launch."""

    def __init__(self, width: int, device: str) -> None:
        super().__init__(width, device)
        self._run = labelled(launches.rms_norm, Role.NORM, device)

    def __call__(self, x: Any, residual: Any = None, *_: Any) -> Any:
        return self._run(x, self.weight, self.variance_epsilon, residual)


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
            return self._labelled(self.kernels.real(name), Role.QUANTIZATION)
        if name == "get_hip_quant":
            quant = launches.quantization(self.kernels.real(FLATTEN))
            return lambda _: self._labelled(quant, Role.QUANTIZATION)
        if name == "fused_qk_rmsnorm":
            return self._labelled(launches.two_norms, Role.NORM)
        if name == GEMM:
            return self._labelled(self.gemms.bpreshuffle, Role.GEMM)
        if name == "gemm_a8w8_blockscale" and ".triton" in module:
            return self._labelled(self.gemms.triton, Role.GEMM)
        return super().answer(module, name)

    def norm(self, width: int) -> Norm:
        return LaunchedNorm(width, self.device)

    def constant(self, *shape: int) -> Any:
        """bf16 values in place of a kernel's output, created at the first use."""
        if shape not in self._constants:
            self._constants[shape] = Draw(("constant", shape), self.device)(*shape)
        return self._constants[shape]

    def _batched_gemm(self, X: Any, WQ: Any, YQ: Any = None, **_: Any) -> Any:
        if YQ is None:
            return self.constant(WQ.shape[0], X.shape[0], WQ.shape[1])
        values = self.constant(*YQ.shape)
        self._labelled(launches.fill, Role.ATTENTION)(YQ, values)
        return YQ

    def _labelled(self, function: Callable[..., Any], role: Role) -> Any:
        return labelled(function, role, self.device)


def labelled(function: Callable[..., Any], role: Role, device: str) -> Any:
    """The function; interpreted, its work has a label in a profile."""
    if device != "cpu":
        return function

    @functools.wraps(function)
    def run(*args: Any, **kwargs: Any) -> Any:
        with torch.profiler.record_function(role.label):
            return function(*args, **kwargs)

    return run
