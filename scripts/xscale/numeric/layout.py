"""The layouts in which AITER's quantizations return a transposed scale."""

from __future__ import annotations

from enum import Enum

import msgspec

from xscale.sites import PRODUCERS


class ScaleLayout(Enum):
    """What a producer returns for ``transpose_scale=True``."""

    LYING = "lying"
    HONEST = "honest"
    IGNORED = "ignores the flag"
    NO_PARAMETER = "no parameter"
    OTHER = "none known"
    NOT_RUN = "not run"

    @property
    def usable(self) -> bool:
        """Whether SGLang can pass such a scale to a GEMM without a copy."""
        return self in (ScaleLayout.LYING, ScaleLayout.HONEST)


# In JSON the field is still called "presentation": reports are an interface.
class ProducerLayout(msgspec.Struct, frozen=True, rename={"layout": "presentation"}):
    """The layout of one producer's scale; ``detail`` says how it was determined, or
    why it was not."""

    kernel: str
    layout: ScaleLayout
    detail: str = ""

    def __str__(self) -> str:
        detail = f" ({self.detail})" if self.detail else ""
        return f"{self.layout.value}{detail}"


def not_run(why: str) -> tuple[ProducerLayout, ...]:
    """The result if neither producer can be run."""
    return tuple(ProducerLayout(name, ScaleLayout.NOT_RUN, why) for name in PRODUCERS)
