"""AITER's real quantizations in the variants of the matrix; each call is recorded."""

from __future__ import annotations

import functools
import hashlib
import importlib
import inspect
import sys
import tempfile
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType, SimpleNamespace
from typing import Any

import torch

from overlaykit.core.paths import check_path
from xscale.islands import empty_packages
from xscale.numeric.cases import GROUP, Variant
from xscale.numeric.layout import ScaleLayout
from xscale.numeric.sources import Sources
from xscale.numeric.stand_ins import stand_ins
from xscale.numeric.watch import DOUBLE, Watch, is_unrecorded, unrecorded
from xscale.sites import FLATTEN, PARAMETER, PRODUCERS, RMS

STAND_IN_QUANT = "stand-in per-1x128 quantization"
TRITON_GEMM = "gemm_a8w8_blockscale"


@dataclass(frozen=True)
class Produced:
    """One fp8 tensor (M, K) with its scale.

    ``truth`` is (M, G), row-major, from an independent row-major run of the same kernel
    on the same input. ``q_right`` says whether that run gave the same fp8 bits.
    ``can_transpose`` says whether the kernel has the parameter for it.
    """

    kernel: str
    q: Any
    scale: Any
    truth: Any
    q_right: bool
    asked: bool
    can_transpose: bool = True


@dataclass
class Recorder:
    """All fp8 tensors of one run, by pointer. It keeps them alive, so no pointer
    recurs."""

    by_pointer: dict[int, Produced] = field(default_factory=dict)
    kept: list[Produced] = field(default_factory=list)
    calls: int = 0
    watch: Watch | None = None
    _written: list[Any] = field(default_factory=list)

    def clear(self, watch: Watch | None = None) -> None:
        """Forget the last run; the kernels of the next one are reported to
        ``watch``."""
        for one in (self.by_pointer, self.kept, self._written):
            one.clear()
        self.calls, self.watch = 0, watch

    def produced(self, one: Produced, requester: FrameType | None = None) -> None:
        """``requester`` is the call that requested a transposed scale."""
        self.by_pointer[one.q.data_ptr()] = one
        self.kept.append(one)
        self._written.append((raw(one.q).clone(), raw(one.scale).clone()))
        if self.watch is not None:
            self.watch.produced(one, requester)

    def called(self) -> None:
        """The tree itself called a quantization."""
        self.calls += 1

    def of(self, q: Any) -> Produced | None:
        return self.by_pointer.get(q.data_ptr())

    def changed(self) -> list[Produced]:
        """The tensors whose bytes differ from what their kernel wrote."""
        return [
            one
            for one, before in zip(self.kept, self._written, strict=True)
            if not all(map(torch.equal, (raw(one.q), raw(one.scale)), before))
        ]


class Kernels:
    """AITER's functions, loaded from source. Their Triton kernels run for real.

    ``stand_ins`` names the packages that their modules import, that are not installed
    and that the interpreter does not need (see :mod:`xscale.numeric.stand_ins`).
    """

    def __init__(self, sources: Sources, compiled: bool) -> None:
        self._compiled = compiled
        self._memory: dict[str, Any] = {}
        # On disk, because Triton reads its kernels' sources from files.
        self._folder = tempfile.TemporaryDirectory(prefix="numeric-aiter-")
        root = Path(self._folder.name)
        for path, data in sources.modules.values():
            check_path(path)
            place = root / path
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(data)
        packages = {
            ".".join(parts[:end])
            for module in sources.modules
            for parts in [module.split(".")]
            for end in range(1, len(parts))
        } - set(sources.modules)
        for package in packages:
            (root / package.replace(".", "/")).mkdir(parents=True, exist_ok=True)
        self.functions: dict[str, Any] = {}
        absent = nullcontext(set[str]()) if compiled else stand_ins()
        with absent as used, empty_packages(root, *sorted(packages)) as loaded:
            # aiter.utility.dtypes would query ROCm for the GPU.
            dtypes = SimpleNamespace(fp8=torch.float8_e4m3fn, bf16=torch.bfloat16)
            vars(loaded["aiter"])["dtypes"] = dtypes
            for name, definition in sources.places.items():
                module = importlib.import_module(definition.module)
                self.functions[name] = getattr(module, name)
            self.stand_ins = tuple(sorted(used))

    @property
    def triton_gemm(self) -> Any:
        """AITER's ``gemm_a8w8_blockscale``; None if this AITER has none."""
        return self.functions.get(TRITON_GEMM)

    def recorded(self, name: str, variant: Variant, recorder: Recorder) -> Any:
        """The producer ``name`` of this variant's AITER, with its calls recorded."""
        real = self.real(name)
        function = _with_layout(name, real, variant)
        can_transpose = PARAMETER in inspect.signature(function).parameters

        @functools.wraps(function)
        def record(*args: Any, **kwargs: Any) -> Any:
            if not is_unrecorded():
                recorder.called()
            caller = sys._getframe(1)
            with unrecorded():
                bound = inspect.signature(function).bind(*args, **kwargs)
                asked = bool(bound.arguments.get(PARAMETER))
                outputs = function(*args, **kwargs)
                q, scale = q_and_scale(outputs)
                bound.arguments.pop(PARAMETER, None)
                true_q, truth = q_and_scale(real(*bound.args, **bound.kwargs))
                right = same_bits(q, true_q)
                truth = truth.contiguous()
                one = Produced(name, q, scale, truth, right, asked, can_transpose)
                recorder.produced(one, caller if asked else None)
                return outputs

        return record

    def real(self, name: str) -> Any:
        """AITER's function; with the interpreter, the same input is computed only once.

        A call with bit-identical arguments returns copies of the first results, with
        their strides: the interpreter is deterministic and slow.
        """
        real = self.functions[name]
        if self._compiled:
            return real

        @functools.wraps(real)
        def remembered(*args: Any, **kwargs: Any) -> Any:
            bound = inspect.signature(real).bind(*args, **kwargs)
            key = _digest(name, bound)
            if key not in self._memory:
                self._memory[key] = real(*args, **kwargs)
            return _copied(self._memory[key])

        return remembered


def _with_layout(name: str, real: Any, variant: Variant) -> Any:
    if variant is Variant.INSTALLED:
        return real
    layout = _LAYOUTS[variant][name]
    if layout is ScaleLayout.NO_PARAMETER:
        return _without_parameter(real)
    return _laid_out(real, layout)


_LAYOUTS: Mapping[Variant, Mapping[str, ScaleLayout]] = {
    variant: {RMS: rms, FLATTEN: flatten}
    for variant, rms, flatten in (
        (Variant.NO_FLATTEN, ScaleLayout.LYING, ScaleLayout.NO_PARAMETER),
        (Variant.LYING_FLATTEN, ScaleLayout.LYING, ScaleLayout.LYING),
        (Variant.HONEST_FLATTEN, ScaleLayout.LYING, ScaleLayout.HONEST),
        (Variant.HONEST, ScaleLayout.HONEST, ScaleLayout.HONEST),
        (Variant.IGNORED, ScaleLayout.IGNORED, ScaleLayout.IGNORED),
    )
}


def _laid_out(real: Any, layout: ScaleLayout) -> Any:
    """Wrap ``real`` so that its transposed scale has strides (1, M), or has strides (G,
    1), or is not transposed at all."""
    native = PARAMETER in inspect.signature(real).parameters

    def present(*args: Any, **kwargs: Any) -> Any:
        bound = signature.bind(*args, **kwargs)
        asked = bound.arguments.pop(PARAMETER, False)
        asked = asked and layout is not ScaleLayout.IGNORED
        if asked and native:
            bound.arguments[PARAMETER] = True
        outputs = real(*bound.args, **bound.kwargs)
        if not asked:
            return outputs
        q, scale = q_and_scale(outputs)
        m, groups = scale.shape
        # (G, M) as stored, for either layout that the kernel's own wrapper returns.
        if not native:
            stored = scale.t().contiguous()
        else:
            stored = scale.view(groups, m) if scale.is_contiguous() else scale.t()
        honest = layout is ScaleLayout.HONEST
        pair = (q, stored.t() if honest else stored.view(m, groups))
        return (pair, *outputs[1:]) if isinstance(outputs[0], tuple) else pair

    signature = inspect.signature(real)
    if not native:
        extra = inspect.Parameter(
            PARAMETER, inspect.Parameter.POSITIONAL_OR_KEYWORD, default=False
        )
        parameters = [*signature.parameters.values(), extra]
        signature = signature.replace(parameters=parameters)
    functools.update_wrapper(present, real)
    vars(present)["__signature__"] = signature
    return present


def _without_parameter(real: Any) -> Any:
    """``real`` without its parameter ``transpose_scale``."""
    signature = inspect.signature(real)
    kept = [p for n, p in signature.parameters.items() if n != PARAMETER]
    signature = signature.replace(parameters=kept)

    def old(*args: Any, **kwargs: Any) -> Any:
        bound = signature.bind(*args, **kwargs)
        return real(*bound.args, **bound.kwargs)

    functools.update_wrapper(old, real)
    vars(old)["__signature__"] = signature
    return old


def stand_in_quant(recorder: Recorder) -> Callable[..., Any]:
    """Replaces AITER's HIP quantization of a bf16 tensor, which needs an AMD GPU."""

    def quant(x: Any, quant_dtype: Any, transpose_scale: bool = False) -> Any:
        if not is_unrecorded():
            recorder.called()
        with unrecorded():
            m, k = x.shape
            blocks = x.float().view(m, k // GROUP, GROUP)
            largest = torch.finfo(quant_dtype).max
            truth = blocks.abs().amax(-1).clamp_min(1e-10) / largest
            q = (blocks / truth.unsqueeze(-1)).clamp(-largest, largest)
            q = q.view(m, k).to(quant_dtype)
            scale = truth
            if transpose_scale:
                scale = truth.t().contiguous().view(truth.shape)
            one = Produced(STAND_IN_QUANT, q, scale, truth, True, transpose_scale)
            recorder.produced(one)
            return q, scale

    return quant


def raw(tensor: Any) -> Any:
    """The bytes from the tensor's data pointer on, as many as its elements occupy."""
    flat = torch.as_strided(tensor, (tensor.numel(),), (1,), tensor.storage_offset())
    return flat.view(torch.uint8)


def same_bits(left: Any, right: Any) -> bool:
    """Whether shapes, dtypes and the bits of every element agree, with any strides."""
    if left.shape != right.shape or left.dtype != right.dtype:
        return False
    bits = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
    kind = bits[left.element_size()]
    return bool(torch.equal(left.view(kind), right.view(kind)))


def q_and_scale(outputs: Any) -> tuple[Any, Any]:
    """A producer's quantized values and scales, among its other outputs."""
    q, scale = outputs[0] if isinstance(outputs[0], tuple) else outputs
    return q, scale


def _digest(name: str, bound: inspect.BoundArguments) -> str:
    digest = hashlib.sha256(name.encode())
    for key, value in bound.arguments.items():
        if isinstance(value, torch.Tensor):
            data = value.detach().contiguous().view(torch.uint8)
            digest.update(f"{key}={value.dtype}{tuple(value.shape)}".encode())
            digest.update(data.numpy().tobytes())
        else:
            digest.update(f"{key}={value!r};".encode())
    return digest.hexdigest()


def _copied(outputs: Any) -> Any:
    if isinstance(outputs, tuple):
        return tuple(_copied(one) for one in outputs)
    return outputs.clone() if isinstance(outputs, torch.Tensor) else outputs


__all__ = [
    "DOUBLE",
    "FLATTEN",
    "PRODUCERS",
    "STAND_IN_QUANT",
    "TRITON_GEMM",
    "Kernels",
    "Produced",
    "Recorder",
    "raw",
    "same_bits",
    "stand_in_quant",
]
