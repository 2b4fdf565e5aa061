"""What a kernel does, told from its name: ROCm's and CUDA's, mangled or not.

Names are matched by the parts that survive mangling. A copy is what moves bytes on one
device and computes nothing; it has more names than ``direct_copy_kernel``, and a copy
under another name must not make a claim about copies look true.
"""

from __future__ import annotations

import re
from enum import Enum

from gatekit.traces.events import Work


class Kind(Enum):
    """The roles that a verdict tells apart."""

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


# In order: the first that is found decides.
_KINDS = tuple(
    (kind, re.compile(pattern, re.IGNORECASE))
    for kind, pattern in (
        (Kind.DIRECT_COPY, r"direct_copy_kernel"),
        (
            Kind.OTHER_COPY,
            # A direction that the profiler does not know may be device to device.
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
        # In a kernel of the kinds above such a word is an option of it.
        (Kind.OTHER_COPY, r"transpose|permute|relayout|fused_copy"),
    )
)
_SCALED = re.compile(r"b_?preshuffle|block_?scale|a8w8", re.IGNORECASE)
_memory: dict[str, Kind] = {}


def kind_of(name: str) -> Kind:
    """Remembered by name: a trace has few, and each is long."""
    if name not in _memory:
        found = (kind for kind, pattern in _KINDS if pattern.search(name))
        _memory[name] = next(found, Kind.OTHER)
    return _memory[name]


def reads_scale(name: str) -> bool:
    """A GEMM that takes block scales: where a relayout would stand right before."""
    return kind_of(name) is Kind.GEMM and _SCALED.search(name) is not None


FILL, COPY = "memset", "memcpy"


def plain(name: str) -> str:
    """A kernel's name as both its launch and its record give it."""
    return name.removesuffix(" [clone .kd]").removesuffix(".kd")


def token(work: Work) -> str:
    """What ran, as both a capture and a replay give it."""
    if work.category == "kernel" and "rocclr_copyBuffer" not in work.name:
        return plain(work.name)
    return FILL if work.category == "gpu_memset" else COPY


_NOISE = re.compile(r"\([^()]*\)|<[^<>]*>|\{[^{}]*\}")
_MANGLED = re.compile(r"(?<![0-9])(\d{1,3})(?=[A-Za-z_])")


def short(name: str) -> str:
    """A few words for people: the name without its template arguments."""
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
    """The last part of the first nested name: enough to recognise a kernel by."""
    at, parts = 3 if name.startswith("_ZN") else 2, []
    while match := re.compile(r"[0-9]{1,9}").match(name, at):
        length = int(match[0])
        parts.append(name[match.end() : match.end() + length])
        at = match.end() + length
    return parts[-1] if parts else name[:60]
