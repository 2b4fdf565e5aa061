"""Run the sites of a chain and see whether their fused kernels are called. Worker side.

The linears record what they receive and compute nothing: a site is live if its
projection receives what a fused kernel wrote.
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch

from xscale.numeric.doubles import World
from xscale.numeric.drivers import drive
from xscale.numeric.guards import Calls, Guard
from xscale.numeric.island import Island, described, uncompiled
from xscale.numeric.linears import NotDriven
from xscale.numeric.lives import Life, LifeCase, LifeResult, LiveState, MissedRead
from xscale.numeric.producers import STAND_IN_QUANT, Kernels
from xscale.numeric.sources import Sources
from xscale.numeric.tracing import Trace, traced
from xscale.numeric.watch import Watch, watching
from xscale.sites import CATALOGUE

_SITES = {site.id: site for site in CATALOGUE}
_OF_LINEARS = ("layers/linear.py", "layers/quantization/", "layers/parameter.py")


@dataclass(frozen=True)
class Received:
    """What a projection received: by which kernel it was made, and when."""

    projection: str
    kernel: str | None
    at: int


@dataclass
class Probe:
    """The records of one run. The linears report to it."""

    world: World
    trace: Trace
    received: list[Received] = field(default_factory=list)

    def receive(self, projection: str, x: Any) -> None:
        made = self.world.recorder.of(x[0]) if isinstance(x, tuple) else None
        kernel = made.kernel if made is not None else None
        self.received.append(Received(projection, kernel, self.trace.now))

    def of(self, projection: str) -> Received | None:
        found = (one for one in self.received if one.projection == projection)
        return next(found, None)


@dataclass
class Prober:
    """Answers for one tree."""

    sources: Sources
    kernels: Kernels
    device: str
    _calls: Calls | None = None

    def result(self, case: LifeCase) -> LifeResult:
        """Run the case once; where a site is dead, once more to describe its guard."""
        probe, raised = self._run(case, {})
        guards = {}
        for site, projection in case.asks:
            received = probe.of(projection)
            if received is not None and not _fused(received):
                guards[site] = self._guard(site, probe, received)
        known = {g.place: g.test for g in guards.values() if g is not None}
        if known:
            probe, raised = self._run(case, known)
        states = tuple(
            self._state(site, projection, probe, raised, guards.get(site))
            for site, projection in case.asks
        )
        return LifeResult(case, states)

    def _run(
        self, case: LifeCase, tests: dict[Any, Any]
    ) -> tuple[Probe, Exception | None]:
        world = World(case.platform, case.variant, self.kernels, self.device)
        island = Island(self.sources, world.answer, {})
        watch = Watch(self.sources.tree)
        world.clear(watch)
        trace = Trace(f"{self.sources.tree}/", tests)
        probe = world.probe = Probe(world, trace)
        world.looked_up = []
        raised = None
        with island.entered(), uncompiled(), torch.no_grad(), watching(watch):
            try:
                with traced(trace) if case.m else nullcontext():
                    drive(case, island, world)
            except torch.OutOfMemoryError:
                raise
            except Exception as error:
                raised = error
        return probe, raised

    @property
    def calls(self) -> Calls:
        if self._calls is None:
            self._calls = Calls(self.sources.modules)
        return self._calls

    def _guard(self, site: str, probe: Probe, received: Received) -> Guard | None:
        """The guard between the reading before this one and this one."""
        earlier = [one.at for one in probe.received if one.at < received.at]
        after, trace = max(earlier, default=0), probe.trace
        return self.calls.guard(_SITES[site], trace, after, received.at) or (
            self.calls.guard(_SITES[site], trace, 0, received.at)
        )

    def _state(
        self,
        site: str,
        projection: str,
        probe: Probe,
        raised: Exception | None,
        guard: Guard | None,
    ) -> LiveState:
        received = probe.of(projection)
        if received is None:
            why = f"{projection} is not reached"
            if isinstance(raised, NotDriven):
                why = str(raised)
            elif raised is not None:
                why = described(raised, self.sources)
            return LiveState(site, Life.NOT_RUN, reason=why)
        if _fused(received):
            call = self.calls.reached(_SITES[site], probe.trace, received.at)
            path, line = (call.path, call.line) if call is not None else (None, None)
            said = f"{received.kernel} is called"
            return LiveState(site, Life.LIVE, path, line, said)
        looked = self._missing(probe, projection)
        if guard is None:
            why = f"{projection} receives unquantized values, and no test keeps it so"
            return LiveState(site, Life.DEAD, reason=why, reads=looked)
        seen = probe.trace.seen.get(guard.place, "")
        returned = dict.fromkeys(probe.trace.returned.get(guard.place, ()))
        what = ", ".join(filter(None, (seen, *returned))) or "another branch ran"
        said = "; ".join((what, *map(str, looked)))
        return LiveState(site, Life.DEAD, guard.path, guard.line, said, looked)

    def _missing(self, probe: Probe, projection: str) -> tuple[MissedRead, ...]:
        """What the tree's own tests looked for on the projection's linear in vain, once
        for each line."""
        has = probe.world.registered.get(projection, ())
        found: dict[tuple[str, int], MissedRead] = {}
        for read in probe.world.looked_up or ():
            path = read.path.removeprefix(probe.trace.prefix)
            own = path != read.path and not any(part in path for part in _OF_LINEARS)
            if read.missing and own and read.projection == projection:
                found[path, read.line] = MissedRead(
                    path, read.line, read.function, read.name, projection, has
                )
        return tuple(found.values())


def _fused(received: Received) -> bool:
    return received.kernel not in (None, STAND_IN_QUANT)
