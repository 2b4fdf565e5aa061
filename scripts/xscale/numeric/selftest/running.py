"""Test one promise of a tree's scale module. Worker side."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator

import torch

from overlaykit.core.errors import Finding
from xscale.numeric.doubles import World
from xscale.numeric.island import Island
from xscale.numeric.results import CaseResult
from xscale.numeric.selftest.capture import capture
from xscale.numeric.selftest.cases import MODULE, ModuleCase, Promise
from xscale.numeric.selftest.checking import every_bit, first_uses
from xscale.numeric.selftest.compiling import compiled
from xscale.numeric.selftest.consumer import consumer
from xscale.numeric.selftest.gate import gate
from xscale.numeric.selftest.quantizers import FORMATS, Quantizer, scales
from xscale.numeric.selftest.subject import (
    PRODUCER,
    Missing,
    Subject,
    Wrong,
    describe,
    load,
    marked,
)
from xscale.numeric.sources import SWITCH, Sources


def _switch(subject: Subject) -> Iterator[Wrong]:
    """If it is not set, it is on; with an invalid value the module does not load."""
    for value in (None, *_BAD):
        island = Island(subject.island.sources, subject.world.answer, {SWITCH: value})
        # The outer island's modules are removed while this one is entered.
        with island.entered():
            try:
                inner = load(subject.case, island, subject.world)
                outputs = inner.produce(Quantizer(scales(3, 2, subject.device)), None,
                                        **FORMATS)  # fmt: skip
            except ValueError:
                outputs = None
        if value is None and (outputs is None or not marked(outputs[0][1])):
            yield Wrong("the switch is not on by default", "a marked scale", "none")
        elif value is not None and outputs is not None:
            yield Wrong(
                "an invalid value of the switch is accepted",
                f"an error at {SWITCH}={value!r}",
                "none",
            )


_BAD = ("", "true", "2", "CHECK", "01")
_TESTS: dict[Promise, Callable[[Subject], Iterator[Wrong]]] = {
    Promise.SWITCH: _switch,
    Promise.GATE: gate,
    Promise.CONSUMER: consumer,
    Promise.EVERY_BIT: every_bit,
    Promise.FIRST_USES: first_uses,
    Promise.CAPTURE: capture,
    Promise.COMPILED: compiled,
}


def module_outcome(case: ModuleCase, sources: Sources, world: World) -> CaseResult:
    """Each case has its own island, because a module keeps its warnings and counts."""
    started = time.perf_counter()
    wrong = list(_tested(case, sources, world))
    seconds = time.perf_counter() - started
    return CaseResult(case, (), 0, seconds, findings=tuple(_findings(case, wrong)))


def _tested(case: ModuleCase, sources: Sources, world: World) -> Iterator[Wrong]:
    island = Island(sources, world.answer, {SWITCH: case.switch.value})
    with island.entered(), torch.no_grad():
        try:
            yield from _TESTS[case.promise](load(case, island, world))
        except torch.OutOfMemoryError:
            raise
        except Missing as error:
            expected = f"one module with {PRODUCER} and its switch"
            yield Wrong("the scale module cannot be tested", expected, str(error))
        except Exception as error:
            yield Wrong("the scale module raises", "no error", describe(error))


def _findings(case: ModuleCase, wrong: Iterable[Wrong]) -> Iterator[Finding]:
    """One finding per kind of fault, with the first example."""
    alike: dict[str, list[Wrong]] = {}
    for one in wrong:
        alike.setdefault(one.what, []).append(one)
    for what, same in alike.items():
        more = f"; {len(same)} times alike" if len(same) > 1 else ""
        yield Finding(
            f"{what} ({case})",
            site=MODULE,
            expected=same[0].expected,
            found=f"{same[0].found}{more}",
            next_step="run verify.py without --numeric: it names the file in which the "
            "tree differs from the series",
        )
