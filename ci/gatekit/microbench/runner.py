"""One arm at one shape and M, to run eagerly, capture and replay."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from gatekit.microbench.arms import Arm
from gatekit.microbench.gemms import ChainGemms
from gatekit.microbench.model import Stack, Weights, stack
from gatekit.microbench.own_layers import OwnStack
from gatekit.microbench.world import ChainWorld
from xscale.numeric.cases import Shape, Switch
from xscale.numeric.island import Island, uncompiled
from xscale.numeric.producers import Kernels
from xscale.numeric.sources import SWITCH, Sources

_WARM = 2


class ArmIsland:
    """The island of an arm, used for all shapes."""

    def __init__(
        self, arm: Arm, sources: Sources, kernels: Kernels, compiled: bool, device: str
    ) -> None:
        self.arm, self.device = arm, device
        self.sources = sources
        self.gemms = ChainGemms(kernels, compiled)
        self.world = ChainWorld.of(kernels, self.gemms, device)
        environ = {SWITCH: Switch.ON.value}
        self._island = Island(sources, self.world.answer, environ)

    @contextmanager
    def entered(self) -> Iterator[Island]:
        with self._island.entered() as island, uncompiled(), torch.no_grad():
            yield island


@dataclass(frozen=True)
class ForwardPass:
    """The outputs of one forward pass, including every GEMM's, and GEMM calls by
    route."""

    outputs: tuple[Any, ...]
    bpreshuffle: int
    triton: int


class Runner:
    """The layers of one arm, for ``m`` tokens."""

    def __init__(
        self,
        arm_island: ArmIsland,
        weights: Weights | None,
        shape: Shape,
        m: int,
        depth: int,
    ) -> None:
        """Without ``weights``, the layers are the tree's own, with their own."""
        self.arm_island, self.depth = arm_island, depth
        world = arm_island.world
        with arm_island.entered() as island:
            self._stack: Stack | OwnStack
            if weights is None:
                self._stack = OwnStack(island, world, shape, m, depth)
            else:
                laid_out = arm_island.arm is Arm.BOUND
                self._stack = stack(island, world, weights, shape, m, depth, laid_out)
            for _ in range(_WARM):
                self._stack(depth)

    def forward(self, depth: int) -> Any:
        """Only inside ``entered()``."""
        return self._stack(depth)

    def seen(self, depth: int) -> ForwardPass:
        """Run once eagerly."""
        with self.arm_island.entered():
            self.arm_island.gemms.calls[:] = 0, 0
            outputs = self._kept(lambda: self._stack(depth))
            return ForwardPass(outputs, *self.arm_island.gemms.calls)

    def captured(self, depth: int) -> tuple[Callable[[], None], tuple[Any, ...]]:
        """A graph's replay function, and the tensors it writes, including every
        GEMM's."""
        graph = torch.cuda.CUDAGraph()

        def capture() -> Any:
            with torch.cuda.graph(graph):
                return self._stack(depth)

        with self.arm_island.entered():
            outputs = self._kept(capture)
        return graph.replay, outputs

    def graph(self) -> Callable[[], None]:
        """A graph's replay function for timing; it keeps no extra outputs."""
        graph = torch.cuda.CUDAGraph()
        with self.arm_island.entered(), torch.cuda.graph(graph):
            self._stack(self.depth)
        replay: Callable[[], None] = graph.replay
        return replay

    def _kept(self, run: Callable[[], Any]) -> tuple[Any, ...]:
        with self._stack.keeping() as outputs:
            last = run()
            return (*outputs, *last)


def arm_islands(
    arms: Mapping[Arm, Sources], kernels: Kernels, device: str
) -> dict[Arm, ArmIsland]:
    compiled = device != "cpu"
    return {
        arm: ArmIsland(arm, sources, kernels, compiled, device)
        for arm, sources in arms.items()
    }
