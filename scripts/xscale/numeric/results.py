"""The result of a case: plain data that crosses processes and goes into JSON."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from overlaykit.core.errors import Finding
from xscale.numeric.cases import Case

COPIED = "reads a copy of the scale"
"""What the finding says of a reading whose scale was copied."""


class Route(Enum):
    """How a consumer addresses a scale."""

    BPRESHUFFLE = "bpreshuffle"
    TRITON = "Triton"
    CK_ROW_MAJOR = "CK, row-major"
    ELEMENTWISE = "elementwise"


@dataclass(frozen=True)
class Spot:
    """A line of the tree's own code that ran; ``caller`` is the line of the tree that
    called its function, or ''."""

    path: str
    line: int
    function: str
    caller: str = ""

    def __str__(self) -> str:
        return f"{self.path}:{self.line}, in {self.function}"


@dataclass(frozen=True)
class Reading:
    """One scale as one consumer read it.

    ``site`` is the producer's, or "gather" or "indexer". ``producer`` names the kernel
    that wrote the fp8 tensor, ``stand_in`` the GEMM that read it. ``bytes`` says
    whether the consumer sees, through its own addressing, exactly the bits that the
    kernel computed. ``copies`` is 1 if it does not read the storage that the kernel
    wrote. ``values`` and ``gemm`` compare with the pristine tree; without one they are
    None. ``asked`` says whether the kernel was asked for a transposed scale, and
    ``can_transpose`` whether this AITER's kernel has the parameter for it. ``spoiled``
    are the lines that left a wrong scale with other values than it had before them, and
    ``copied_at`` those that moved it to another storage.
    """

    site: str
    projection: str
    route: Route
    shape: tuple[int, int]
    strides: tuple[int, int]
    producer: str
    stand_in: str
    marked: bool
    bytes: bool
    copies: int
    wrong: int = 0
    values: bool | None = None
    gemm: bool | None = None
    asked: bool = False
    can_transpose: bool = True
    spoiled: tuple[Spot, ...] = ()
    copied_at: tuple[Spot, ...] = ()


@dataclass(frozen=True)
class CaseResult:
    """The verdict on one case; ``ok`` if it has no findings.

    ``relayouts`` counts the operations that copy a scale outside AITER's kernels.
    ``outputs`` compares all returned values with the pristine tree's. ``asked`` says
    whether any producer was asked for a transposed scale. ``reached_stubs`` names the
    stubs that received one. ``raised_at`` is the innermost line of the tree that the
    error passed.
    """

    case: Case
    readings: tuple[Reading, ...]
    relayouts: int
    seconds: float
    asked: bool = False
    outputs: bool | None = None
    raised: str | None = None
    detail: str = ""
    findings: tuple[Finding, ...] = ()
    reached_stubs: tuple[str, ...] = ()
    raised_at: Spot | None = None

    @property
    def ok(self) -> bool:
        return not self.findings

    @property
    def wrong_sites(self) -> frozenset[str]:
        return frozenset(f.site for f in self.findings if f.site is not None)
