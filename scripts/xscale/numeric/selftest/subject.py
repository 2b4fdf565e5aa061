"""A tree's loaded scale module, with the tree's own consumer."""

from __future__ import annotations

import importlib
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from xscale.numeric.doubles import Linear, World
from xscale.numeric.gemms import Gemms, Read
from xscale.numeric.island import Island, uncompiled
from xscale.numeric.selftest.cases import ModuleCase
from xscale.numeric.selftest.quantizers import Quantizer, caller
from xscale.numeric.sources import LINEAR, SWITCH
from xscale.sites import MARKER

PRODUCER, CONSUMER = "quant_pretransposed_scale", "x_scale_for_gemm"


class Missing(Exception):
    """The tree has the switch but not the functions that it controls."""


@dataclass(frozen=True)
class Wrong:
    """One broken promise."""

    what: str
    expected: str
    found: str


@dataclass
class Subject:
    """The module under test. Use it only while the island is entered."""

    case: ModuleCase
    world: World
    island: Island
    module: ModuleType
    made: int = 0

    @property
    def device(self) -> str:
        return self.world.device

    @property
    def linear(self) -> Callable[..., Any]:
        function: Callable[..., Any] = self.island.definition(LINEAR)
        return function

    def call_site(self) -> Callable[..., Any]:
        """A new caller, not yet used by any case."""
        self.made += 1
        return caller(self.made)

    def produce(
        self,
        quantizer: Quantizer,
        projection: Any = None,
        *args: Any,
        site: Callable[..., Any] | None = None,
        which: bool = True,
        **kwargs: Any,
    ) -> Any:
        """Call the producer as a call site does, with a new quantizer function."""
        site = site or self.call_site()
        function = quantizer.function(f"quant_of_{site.__name__}")
        producer = getattr(self.module, PRODUCER)
        return site(which, producer, function, projection, *args, **kwargs)

    def for_gemm(self, scale: Any, bpreshuffle: bool) -> Any:
        return getattr(self.module, CONSUMER)(scale, bpreshuffle)

    def projection(self, n: int, k: int) -> Linear:
        return Linear(self.world, self.linear, "projection").sized(n, k)

    def read(self, projection: Linear, q: Any, scale: Any) -> Read:
        """The input of the GEMM in the tree's own linear."""
        self.world.reads.all = []
        projection((q, scale))
        return self.world.reads.all[-1]

    @contextmanager
    def gemms_replaced(self, **by_route: Callable[..., Any]) -> Iterator[None]:
        """Replace the consumer's GEMMs, by the names of their doubles."""
        names = vars(self.island.module(LINEAR))
        before = {
            name: value
            for name, value in names.items()
            if isinstance(getattr(value, "__self__", None), Gemms)
        }
        names.update({name: by_route[v.__name__] for name, v in before.items()})
        try:
            yield
        finally:
            names.update(before)


def load(case: ModuleCase, island: Island, world: World) -> Subject:
    """Load the module that has the switch; raises Missing if it is incomplete."""
    homes = [
        name
        for name, (_, data) in island.sources.modules.items()
        if SWITCH.encode() in data and f"def {PRODUCER}".encode() in data
    ]
    if len(homes) != 1:
        raise Missing(f"{len(homes)} modules with {SWITCH} define {PRODUCER}")
    with uncompiled():
        island.module(LINEAR)  # first: it imports the other
        module = importlib.import_module(homes[0])
    if not callable(getattr(module, CONSUMER, None)):
        raise Missing(f"{homes[0]} has no {CONSUMER}")
    return Subject(case, world, island, module)


@contextmanager
def logged(naming: str = SWITCH) -> Iterator[list[str]]:
    """Collect the logged warnings that contain ``naming``, by default the switch."""
    warnings: list[str] = []

    class Keeping(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if naming in (message := record.getMessage()):
                warnings.append(message)

    handler = Keeping(logging.WARNING)
    logging.getLogger().addHandler(handler)
    try:
        yield warnings
    finally:
        logging.getLogger().removeHandler(handler)


def marked(scale: Any) -> bool:
    """Whether a scale is marked as transposed."""
    return bool(getattr(scale, MARKER, False))


def describe(error: Exception) -> str:
    """The error's type and the first line of its message."""
    return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"
