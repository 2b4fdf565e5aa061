"""For every shape, M, arm and mode: compare values, count copies, measure times."""

from __future__ import annotations

import gc
import statistics
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from gatekit.microbench.arms import Arm, Trees
from gatekit.microbench.model import Weights
from gatekit.microbench.profiling import kernels, modules, profiled, warm
from gatekit.microbench.results import Cell, Row, Time
from gatekit.microbench.runner import ArmIsland, ForwardPass, Runner, arm_islands
from gatekit.microbench.timing import interleaved, ratio
from overlaykit.core.errors import EnvironmentFailure, Finding, InputError
from xscale.numeric import compiler
from xscale.numeric.cases import (
    DEEPSEEK_V3,
    DEEPSEEK_V32,
    GLM51,
    GLM51_TP4,
    SMALL,
    TUNED_OUTPUT,
    Shape,
)
from xscale.numeric.island import spot_of
from xscale.numeric.producers import Kernels, same_bits

_TRACED = 3
"""Layers in a trace: the first, which has no residual, and two regular ones."""
_STEPS = 2
_ATTENTION = "DeepseekV2AttentionMLA"
_AGAIN = "again"
_EAGER_SHARE = 4
_ROUNDING = 0.1
"""Of the norm of a GEMM's output: q_b reads what two quantizations have rounded, each
by 3 % on average. A scale in the wrong order is off by more than half."""

Say = Callable[[str], None]


@dataclass(frozen=True)
class Plan:
    """What to run. Without ``rounds``, nothing is timed."""

    device: str
    shapes: tuple[Shape, ...]
    rows: tuple[int, ...]
    layers: int
    rounds: int = 0


def on_gpu(trees: Trees, layers: int, rounds: int) -> Plan:
    """The models' shapes. The weights of that many layers exceed a cache."""
    rows = (1, 4, 16, 64, 256, 1024)
    shapes = (GLM51, GLM51_TP4, DEEPSEEK_V32) if trees.revived else (GLM51, DEEPSEEK_V3)
    return Plan("cuda", shapes, rows, layers, rounds)


def interpreted() -> Plan:
    """A small plan for a CPU that covers every route; nothing is timed."""
    return Plan("cpu", (SMALL, TUNED_OUTPUT), (1, 3), 2)


class Workload:
    """The arms, loaded: AITER's kernels and every arm's modules."""

    def __init__(self, trees: Trees, plan: Plan) -> None:
        """Raises EnvironmentFailure if a GEMM of the chain is missing or wrong."""
        self.plan, self._own = plan, trees.revived
        compiler.postpone()
        loaded = Kernels(trees.kernels, compiled=plan.device != "cpu")
        self._arm_islands = arm_islands(trees.arms, loaded, plan.device)
        gemms = self._arm_islands[Arm.PRISTINE].gemms
        gemms.check(plan.device)
        self.stand_in = gemms.stand_in
        if plan.rounds:
            warm()

    def cells(self, out: Path, say: Say) -> Iterator[Cell]:
        """Run the plan; traces are written to ``out``."""
        for shape in self.plan.shapes:
            world = self._arm_islands[Arm.PRISTINE].world
            weights = None if self._own else Weights(world)
            for m in self.plan.rows:
                try:
                    yield self._cell(shape, m, weights, out, say)
                except torch.OutOfMemoryError as error:
                    finding = Finding(
                        f"out of memory at {shape.name}, M={m}",
                        found=str(error).partition("\n")[0],
                        next_step="free GPU memory, or give fewer --layers",
                    )
                    raise EnvironmentFailure("cannot continue", (finding,)) from error
                gc.collect()

    def _cell(
        self, shape: Shape, m: int, weights: Weights | None, out: Path, say: Say
    ) -> Cell:
        plan = self.plan
        say(f"{shape.name}, M={m}: kernels and values")
        runners = {
            arm: self._runner(arm_island, weights, shape, m)
            for arm, arm_island in self._arm_islands.items()
        }
        depth = min(_TRACED, plan.layers)
        seen = {arm: runner.seen(depth) for arm, runner in runners.items()}
        examined = CellChecks(seen, depth, exact=not self._own)
        slug = f"{shape.name.lower().replace(' ', '-').replace('=', '')}-m{m}"
        for arm, runner in runners.items():
            say(f"{shape.name}, M={m}: traces of {arm.value}")
            examined.compare(arm, "eager", seen[arm].outputs)
            folder = f"traces/{slug}/{arm.value.replace(' ', '-')}"
            examined.eager(runner, out, f"{folder}-eager")
            if plan.rounds:
                examined.replayed(runner, m, out, f"{folder}-replay")
        times: Mapping[tuple[str, str], Time] = {}
        noise = None
        if plan.rounds:
            say(f"{shape.name}, M={m}: times")
            times, noise = _timed(runners, plan)
        by_layer = seen[Arm.PRISTINE]
        return Cell(
            shape=shape.name,
            m=m,
            layers=plan.layers,
            bpreshuffle=by_layer.bpreshuffle // depth,
            triton=by_layer.triton // depth,
            differing=tuple(examined.differing),
            rows=tuple(examined.rows(times)),
            noise=noise,
        )

    def _runner(
        self, arm_island: ArmIsland, weights: Weights | None, shape: Shape, m: int
    ) -> Runner:
        """Raises InputError if the tree's own code raises."""
        try:
            return Runner(arm_island, weights, shape, m, self.plan.layers)
        except Exception as error:
            spot = spot_of(error, arm_island.sources)
            if spot is None or isinstance(error, torch.OutOfMemoryError):
                raise
            finding = Finding(
                f"{arm_island.arm.value} raises {type(error).__name__} at "
                f"{shape.name}, M={m}",
                path=spot.path,
                line=spot.line,
                found=str(error),
                next_step="give an AITER that this SGLang runs with",
            )
            raise InputError("the trees do not run together", (finding,)) from error


class CellChecks:
    """Collects the values and counts of a cell's arms.

    All arms compute the same bits if they are ``exact``. They do not if one quantizes
    what a norm has rounded to bf16 and another what it has not: then a replay has the
    bits of its own arm's eager run, and the arms differ by no more than rounding.
    """

    def __init__(
        self, seen: Mapping[Arm, ForwardPass], depth: int, exact: bool
    ) -> None:
        self._seen, self._depth, self._exact = seen, depth, exact
        self.differing: list[str] = []
        self._rows: list[tuple[str, str, dict[str, float], int, str]] = []

    def compare(self, arm: Arm, mode: str, outputs: tuple[Any, ...]) -> None:
        """Record the arm and mode if any output is not as it must be."""
        pristine = self._seen[Arm.PRISTINE].outputs
        own = pristine if self._exact else self._seen[arm].outputs
        right = all(same_bits(a, b) for a, b in zip(own, outputs, strict=True))
        if right and not self._exact:
            right = all(_near(a, b) for a, b in zip(pristine, outputs, strict=True))
        if not right:
            self.differing.append(f"{arm.value}, {mode}")

    def eager(self, runner: Runner, out: Path, folder: str) -> None:
        place = f"{folder}/chain-TP-0-DECODE.trace.json.gz"
        with runner.arm_island.entered():
            trace = profiled(partial(runner.forward, self._depth), _STEPS, out / place)
        self._row(runner.arm_island, "eager", trace, place)

    def replayed(self, runner: Runner, m: int, out: Path, folder: str) -> None:
        """Capture under the profiler, compare what a replay writes, and profile it."""
        captures: list[tuple[Callable[[], None], tuple[Any, ...]]] = []
        capture = out / folder / "capture_traces" / f"bs_{m}_rank0.json.gz"
        profiled(lambda: captures.append(runner.captured(self._depth)), 1, capture)
        ((replay, outputs),) = captures
        for output in outputs:
            output.zero_()
        replay()
        self.compare(runner.arm_island.arm, "replay", outputs)
        place = f"{folder}/chain-TP-0-DECODE.trace.json.gz"
        self._row(
            runner.arm_island, "replay", profiled(replay, _STEPS, out / place), place
        )

    def _row(
        self, arm_island: ArmIsland, mode: str, trace: dict[str, Any], place: str
    ) -> None:
        counts = kernels(trace, _STEPS)
        called = modules(trace, _ATTENTION)
        self._rows.append((arm_island.arm.value, mode, counts, called, place))

    def rows(self, times: Mapping[tuple[str, str], Time]) -> Iterable[Row]:
        for arm, mode, counts, called, place in self._rows:
            yield Row(
                arm=arm,
                mode=mode,
                **{name: count / self._depth for name, count in counts.items()},
                attentions=called,
                traced=self._depth * _STEPS,
                trace=place,
                time=times.get((arm, mode)),
            )


def _timed(
    runners: Mapping[Arm, Runner], plan: Plan
) -> tuple[dict[tuple[str, str], Time], float]:
    """Times by arm and mode, and the noise: an arm against a second graph of itself."""
    replays = {arm.value: runner.graph() for arm, runner in runners.items()}
    replays[_AGAIN] = runners[Arm.PRISTINE].graph()
    graphs = {name: partial(_between, run=replay) for name, replay in replays.items()}
    found = {"replay": interleaved(graphs, plan.rounds)}
    noise = ratio(found["replay"].pop(_AGAIN), found["replay"][Arm.PRISTINE.value])
    eagers = {arm.value: partial(_eager, runner) for arm, runner in runners.items()}
    found["eager"] = interleaved(eagers, -(-plan.rounds // _EAGER_SHARE))
    times = {
        (arm, mode): Time(
            median_us=round(statistics.median(samples) / plan.layers, 3),
            minimum_us=round(min(samples) / plan.layers, 3),
            to_pristine=round(ratio(samples, by_arm[Arm.PRISTINE.value]), 4),
            to_bound=(
                round(ratio(samples, by_arm[Arm.BOUND.value]), 4)
                if Arm.BOUND.value in by_arm
                else None
            ),
        )
        for mode, by_arm in found.items()
        for arm, samples in by_arm.items()
    }
    return times, round(abs(noise - 1), 4)


def _near(left: Any, right: Any) -> bool:
    """Whether two outputs differ by no more than what fp8's rounding explains."""
    off = (left.float() - right.float()).norm() / left.float().norm()
    return bool(off <= _ROUNDING)


def _between(
    start: Callable[[], None], stop: Callable[[], None], run: Callable[[], Any]
) -> None:
    start()
    run()
    stop()


def _eager(runner: Runner, start: Callable[[], None], stop: Callable[[], None]) -> None:
    # Entering the island takes longer than the run and is not measured.
    with runner.arm_island.entered():
        torch.cuda.synchronize()
        _between(start, stop, partial(runner.forward, runner.depth))
