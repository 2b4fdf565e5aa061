"""Run cases of a tree, and of its pristine counterpart, and judge them. Worker side."""

from __future__ import annotations

import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch

from contract.numeric.cases import Case, Platform, Switch, Variant
from contract.numeric.doubles import World
from contract.numeric.drivers import Leaves, drive
from contract.numeric.gemms import Read
from contract.numeric.island import Island, uncompiled
from contract.numeric.judge import Run, judge
from contract.numeric.outcomes import Outcome
from contract.numeric.producers import DOUBLE, Kernels
from contract.numeric.selftest import ModuleCase
from contract.numeric.selftest.running import module_outcome
from contract.numeric.sources import SWITCH, Sources


@dataclass
class Engine:
    """One tree, one AITER, one device. Islands and pristine runs are kept."""

    tree: Sources
    kernels: Kernels
    pristine: Sources | None
    device: str
    _islands: dict[tuple[Any, ...], tuple[Island, World]] = field(default_factory=dict)
    _pristine_runs: dict[Case, Run] = field(default_factory=dict)

    def outcome(self, case: Case) -> Outcome:
        """Run and judge one case; what the tree raises is part of the verdict."""
        if isinstance(case, ModuleCase):
            world = World(case.platform, case.variant, self.kernels, self.device)
            return module_outcome(case, self.tree, world)
        started = time.perf_counter()
        run = self._run(self.tree, case)
        base = self._pristine_run(case) if self.pristine is not None else None
        seconds = time.perf_counter() - started
        return judge(case, run, base, self.tree, seconds)

    def _pristine_run(self, case: Case) -> Run:
        # A pristine tree has no switch and asks for nothing that variants differ in.
        case = Case(case.chain, case.m, case.shape, platform=case.platform)
        if case not in self._pristine_runs:
            assert self.pristine is not None
            self._pristine_runs[case] = self._run(self.pristine, case)
        return self._pristine_runs[case]

    def _run(self, sources: Sources, case: Case) -> Run:
        island, world = self._island(sources, case.platform, case.variant, case.switch)
        world.clear()
        raised, outputs = None, []
        events: Any = ()
        with island.entered(), uncompiled(), torch.no_grad(), _profiled() as profile:
            try:
                outputs = drive(case, island, world)
            except torch.OutOfMemoryError:
                raise
            except Exception as error:
                raised = _told(error, sources)
        events = profile.events()
        return _frozen(world, outputs, raised, relayouts(events, world))

    def _island(
        self, sources: Sources, platform: Platform, variant: Variant, switch: Switch
    ) -> tuple[Island, World]:
        key = (id(sources), platform, variant, switch)
        if key not in self._islands:
            world = World(platform, variant, self.kernels, self.device)
            environ = {SWITCH: switch.value}
            self._islands[key] = Island(sources, world.answer, environ), world
        return self._islands[key]


def relayouts(events: Any, world: World) -> int:
    """Copies of something as large as a scale, outside doubles and AITER's kernels.

    Every copy of a tensor into another order ends in ``aten::copy_``, on any device.
    """
    events = list(events)
    spans = [e.time_range for e in events if e.name == DOUBLE]
    shapes = {
        shape
        for one in world.recorder.shapes()
        for shape in (one, one[::-1])
        if len(shape) == 2
    }
    return sum(
        event.name == "aten::copy_"
        and bool(event.input_shapes)
        and tuple(event.input_shapes[0]) in shapes
        and not any(
            s.start <= event.time_range.start and event.time_range.end <= s.end
            for s in spans
        )
        for event in events
    )


def _frozen(world: World, outputs: Leaves, raised: str | None, copies: int) -> Run:
    reads: list[Read] = world.reads.all
    producers = {id(read): world.recorder.of(read.q) for read in reads}
    asked = any(one.asked for one in world.recorder.by_pointer.values())
    return Run(reads, producers, outputs, copies, asked, raised)


@contextmanager
def _profiled() -> Iterator[Any]:
    with torch.profiler.profile(
        activities=[torch.profiler.ProfilerActivity.CPU], record_shapes=True
    ) as profile:
        yield profile


def _told(error: Exception, sources: Sources) -> str:
    """The error, and the innermost line of the tree's own code that it came from."""
    text = f"{type(error).__name__}: {error}"
    frames = traceback.extract_tb(error.__traceback__)
    own = [f for f in frames if f.filename.startswith(f"{sources.tree}/")]
    if own:
        path = own[-1].filename.removeprefix(f"{sources.tree}/")
        text += f" ({path}:{own[-1].lineno}, in {own[-1].name})"
    return text
