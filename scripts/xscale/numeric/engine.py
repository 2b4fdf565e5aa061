"""Run cases on a tree and on its pristine counterpart, and judge them. Worker side."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from xscale.numeric.behind import Fault, drive_behind
from xscale.numeric.cases import Case, Platform, Switch, Variant
from xscale.numeric.doubles import World
from xscale.numeric.drivers import Leaves, drive
from xscale.numeric.island import (
    Island,
    described,
    spot_of,
    spot_of_function,
    uncompiled,
)
from xscale.numeric.judge import Run, behind_result, judge
from xscale.numeric.lives import LifeCase, LifeResult
from xscale.numeric.probing import Prober
from xscale.numeric.producers import Kernels
from xscale.numeric.results import CaseResult
from xscale.numeric.selftest import ModuleCase
from xscale.numeric.selftest.running import module_outcome
from xscale.numeric.situations import BehindCase
from xscale.numeric.sources import SWITCH, Sources
from xscale.numeric.watch import Watch, Watched, watching


@dataclass
class Engine:
    """One tree, one AITER, one device, and the engine of the pristine tree. Islands
    and pristine runs are cached."""

    tree: Sources
    kernels: Kernels
    device: str
    pristine: Engine | None = None
    _islands: dict[tuple[Any, ...], tuple[Island, World]] = field(default_factory=dict)
    _runs: dict[Case, Run] = field(default_factory=dict)
    _prober: Prober | None = None

    def outcome(self, case: Case) -> CaseResult | LifeResult:
        """Run and judge one case; an exception in the tree is part of the verdict."""
        if isinstance(case, LifeCase):
            if self._prober is None:
                self._prober = Prober(self.tree, self.kernels, self.device)
            return self._prober.result(case)
        if isinstance(case, ModuleCase):
            world = World(case.platform, case.variant, self.kernels, self.device)
            return module_outcome(case, self.tree, world)
        started = time.perf_counter()
        run = self._run(case)
        if isinstance(case, BehindCase):
            return behind_result(case, run, time.perf_counter() - started)
        base = self.pristine.run_as_pristine(case) if self.pristine else None
        seconds = time.perf_counter() - started
        return judge(case, run, base, self.tree, seconds)

    def run_as_pristine(self, case: Case) -> Run:
        """The case's run on a tree without the series."""
        # It has no switch and requests nothing in which variants differ.
        case = Case(case.chain, case.m, case.shape, platform=case.platform)
        if case not in self._runs:
            self._runs[case] = self._run(case)
        return self._runs[case]

    def _run(self, case: Case) -> Run:
        island, world = self._island(case.platform, case.variant, case.switch)
        watch = Watch(self.tree.tree)
        world.clear(watch)
        raised, raised_at, outputs = None, None, []
        with island.entered(), uncompiled(), torch.no_grad(), watching(watch):
            try:
                if isinstance(case, BehindCase):
                    drive_behind(case, island, world)
                else:
                    outputs = drive(case, island, world)
            except torch.OutOfMemoryError:
                raise
            except Fault as fault:
                raised = str(fault)
                raised_at = spot_of_function(fault.function, self.tree)
            except Exception as error:
                raised = described(error, self.tree)
                raised_at = spot_of(error, self.tree)
        run = _frozen(world, outputs, raised, watch.finish())
        return replace(run, raised_at=raised_at)

    def _island(
        self, platform: Platform, variant: Variant, switch: Switch
    ) -> tuple[Island, World]:
        key = (platform, variant, switch)
        if key not in self._islands:
            world = World(platform, variant, self.kernels, self.device)
            environ = {SWITCH: switch.value}
            self._islands[key] = Island(self.tree, world.answer, environ), world
        return self._islands[key]


def _frozen(world: World, outputs: Leaves, raised: str | None, watched: Watched) -> Run:
    recorder, reads = world.recorder, world.reads.all
    return Run(
        reads,
        {id(read): recorder.of(read.q) for read in reads},
        outputs,
        any(one.asked for one in recorder.by_pointer.values()),
        raised,
        recorder.calls,
        recorder.changed(),
        watched,
        frozenset(world.absent),
    )
