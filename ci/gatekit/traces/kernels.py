"""Classify kernels by name, for ROCm and CUDA, mangled or not.

Patterns match the parts of names that survive mangling. A copy moves bytes on one
device and computes nothing. It has more names than ``direct_copy_kernel``; a copy under
another name must not make a claim about copies look true.
"""

from __future__ import annotations

import re
from enum import Enum

from gatekit.traces.events import Work


class Kind(Enum):
    """The kinds of kernels that a verdict distinguishes."""

    DIRECT_COPY = "direct copy"
    OTHER_COPY = "other copy"
    TRANSFER = "transfer"
    GEMM = "gemm"
    GEMM_PART = "gemm part"
    ATTENTION = "attention"
    NORM_QUANT = "norm or quantization"
    OTHER = "other"

    @property
    def is_copy(self) -> bool:
        return self in (Kind.DIRECT_COPY, Kind.OTHER_COPY)


# The first match decides.
_KINDS = tuple(
    (kind, re.compile(pattern, re.IGNORECASE))
    for kind, pattern in (
        (Kind.DIRECT_COPY, r"direct_copy_kernel"),
        (
            Kind.OTHER_COPY,
            # An unknown direction may be device to device.
            r"Memcpy (?!HtoD|DtoH|HtoH|HtoA|AtoH)|CatArrayBatchedCopy"
            r"|rocclr_copyBuffer|copy_?device_?to_?device|copy_kernel|_to_copy"
            r"|fused_clone|transpose_kernel|batched_transpose|permute_kernel"
            r"|contiguous_kernel",
        ),
        (Kind.TRANSFER, r"^Mem(?:cpy|set) |rocclr_fillBuffer"),
        (Kind.GEMM_PART, r"gemm\w*_reduce|splitk\w*reduce|reduce_splitk"),
        (Kind.ATTENTION, r"fmha|attention|flash|attn|mla_(?:a8w8|decode|prefill|fwd)"),
        (Kind.GEMM, r"gemm|gemv|Cijk_|nvjet|cublas|cutlass|xmma|matmul|_mm_kernel"),
        (Kind.NORM_QUANT, r"norm|rms|quant|silu|act_and_mul"),
        # In kernels of the kinds above, these words name an option.
        (Kind.OTHER_COPY, r"transpose|permute|relayout|fused_copy"),
    )
)
_SCALED = re.compile(r"b_?preshuffle|block_?scale|a8w8", re.IGNORECASE)
_memory: dict[str, Kind] = {}


def kind_of(name: str) -> Kind:
    """The kind of a kernel, cached by name."""
    if name not in _memory:
        found = (kind for kind, pattern in _KINDS if pattern.search(name))
        _memory[name] = next(found, Kind.OTHER)
    return _memory[name]


def reads_scale(name: str) -> bool:
    """Whether it is a GEMM with block scales, which may need a relayout before it."""
    return kind_of(name) is Kind.GEMM and _SCALED.search(name) is not None


FILL, COPY = "memset", "memcpy"


def plain(name: str) -> str:
    """The name without suffixes, equal in the launch and in the GPU record."""
    return name.removesuffix(" [clone .kd]").removesuffix(".kd")


def token(work: Work) -> str:
    """A name for the work that is equal in a capture and its replay."""
    if work.category == "kernel" and "rocclr_copyBuffer" not in work.name:
        return plain(work.name)
    return FILL if work.category == "gpu_memset" else COPY


_NOISE = re.compile(r"\([^()]*\)|<[^<>]*>|\{[^{}]*\}")
_MANGLED = re.compile(r"(?<![0-9])(\d{1,3})(?=[A-Za-z_])")


def short(name: str) -> str:
    """A short name for display, without template arguments."""
    if "direct_copy_kernel" in name:
        return "direct_copy_kernel"
    if name.startswith("_Z"):
        return _demangled(name)
    if name.startswith("Cijk_"):
        tile = re.search(r"MT\d+x\d+x\d+", name)
        return f"Cijk {tile[0]}" if tile else "Cijk"
    plain, before = name.removeprefix("void ").replace("(anonymous namespace)", ""), ""
    while plain != before:
        plain, before = _NOISE.sub("", plain), plain
    words = plain.split("::")[-1].strip(" >)&,")
    return words.split("(")[0].split("<")[0] or name[:60]


def _demangled(name: str) -> str:
    """The last part of the first nested name, enough to recognise a kernel."""
    at, parts = 3 if name.startswith("_ZN") else 2, []
    while match := re.compile(r"[0-9]{1,9}").match(name, at):
        length = int(match[0])
        parts.append(name[match.end() : match.end() + length])
        at = match.end() + length
    return parts[-1] if parts else name[:60]
