"""The tree's own quantized linears: it registers the weights, and it processes them.

Only the weights' values are made here. Which attributes a linear has, and which GEMM it
calls, is decided by the tree's own quantization method. Worker side.
"""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from xscale.numeric.doubles import Draw, World
from xscale.numeric.formats import Format
from xscale.numeric.island import Island
from xscale.numeric.sources import KINDS
from xscale.numeric.watch import unrecorded
from xscale.sites import MARKER

_KINDS = {"q_b": KINDS[1], "kv_b": KINDS[1], "o_proj": KINDS[2]}
"""The class of each projection's linear; others use the first class."""
_ONES = 127
"""1.0 as an exponent of eight bits."""


class NotDriven(Exception):
    """Something in this tree cannot be driven; the message says what and why."""


@dataclass(frozen=True)
class AttributeRead:
    """A parameter that was looked up on a projection's linear, or is missing there."""

    projection: str
    name: str
    missing: bool
    path: str
    line: int
    function: str


class _Projection:
    """Mixin for a class of linears: records what reads it and what it receives."""

    world: World
    projection: str
    output_size: int
    then: Callable[[Any], Any]

    def __getattr__(self, name: str) -> Any:
        real: Any = super()
        try:
            value = real.__getattr__(name)
        except AttributeError:
            self._looked_up(name, missing=True)
            raise
        self._looked_up(name, missing=False)
        return value

    def _looked_up(self, name: str, missing: bool) -> None:
        if name[0] != "_" and self.world.looked_up is not None:
            frame = sys._getframe(2)
            code = frame.f_code
            read = AttributeRead(
                self.projection,
                name,
                missing,
                code.co_filename,
                frame.f_lineno,
                getattr(code, "co_qualname", code.co_name),
            )
            self.world.looked_up.append(read)

    def forward(self, x: Any, *args: Any, **kwargs: Any) -> Any:
        reads, watch = self.world.reads, self.world.recorder.watch
        scale = x[1] if isinstance(x, tuple) else None
        reads.projection = self.projection
        reads.marked = bool(getattr(scale, MARKER, False))
        reads.mark_known = watch is None or watch.knows_mark_on(scale)
        if self.world.probe is not None:
            self.world.probe.receive(self.projection, x)
            rows = x[0] if isinstance(x, tuple) else x
            draw = Draw((self.projection, "output"), self.world.device)
            return self.then(draw(rows.shape[0], self.output_size)), None
        real: Any = super()
        output, bias = real.forward(x, *args, **kwargs)
        return self.then(output), bias


class Linears:
    """Makes linears of one format, in the order in which a model does: the weights are
    registered, the layers around them are made, and then the weights are loaded."""

    def __init__(self, island: Island, world: World, form: Format) -> None:
        self._island, self._world, self._format = island, world, form
        self._unloaded: list[Any] = []

    def made(
        self, name: str, n: int, k: int, then: Callable[[Any], Any] | None = None
    ) -> Any:
        """A linear whose weights are registered and not loaded; ``then`` converts the
        GEMM's output."""
        kind = _KINDS.get(name, KINDS[0])
        if not self._island.has(kind):
            raise NotDriven(f"linear {name}: the tree has no layers/linear.{kind}")
        with unrecorded(), torch.device(self._world.device), _gfx95():
            linear = self._made(self._island.owner(kind), name, n, k, then)
        self._unloaded.append((linear, name))
        return linear

    def load(self) -> None:
        """Load the weights of all linears that were made, as after a checkpoint was
        read."""
        with unrecorded(), torch.device(self._world.device), _gfx95():
            for linear, name in self._unloaded:
                for parameter, values in linear.named_parameters(recurse=False):
                    fill(name, parameter, values.data)
                linear.quant_method.process_weights_after_loading(linear)
                names = [n for n, _ in linear.named_parameters(recurse=False)]
                self._world.registered[name] = tuple(names)
        self._unloaded.clear()

    def _made(
        self, owner: type, name: str, n: int, k: int, then: Callable[[Any], Any] | None
    ) -> Any:
        ours = {
            "world": self._world,
            "projection": name,
            "then": staticmethod(then or _as_it_is),
        }
        kind: Any = type(owner.__name__, (_Projection, owner), ours)
        known = {
            "bias": False,
            "params_dtype": torch.bfloat16,
            "quant_config": self._config(),
            "prefix": f"model.layers.0.self_attn.{name}",
            "reduce_results": False,
            "tp_rank": 0,
            "tp_size": 1,
            "parallel_group": "replicated",
        }
        parameters = inspect.signature(owner).parameters
        return kind(k, n, **{p: v for p, v in known.items() if p in parameters})

    def _config(self) -> Any:
        reader = self._format.reader
        if reader is None:
            method = self._format.config.get("quant_method")
            raise NotDriven(f"the format {self._format}: unknown method {method!r}")
        module = f"sglang.srt.{reader[0].replace('/', '.')}"
        if module not in self._island.sources.modules:
            raise NotDriven(f"the format {self._format}: the tree has no {reader[0]}")
        if (needs := reader[2]) and self._island.stubs(needs):
            raise NotDriven(f"the format {self._format}: {needs} is not installed")
        owner = getattr(importlib.import_module(module), reader[1])
        # The loader adds the model's mapping.
        return owner.from_config({"packed_modules_mapping": {}} | self._format.config)


@contextmanager
def _gfx95() -> Iterator[None]:
    """Some schemes ask for the device's capability, which on ROCm is the number of its
    architecture: 9.5 for gfx950."""
    before = torch.cuda.get_device_capability
    torch.cuda.get_device_capability = lambda *_: (9, 5)
    try:
        yield
    finally:
        torch.cuda.get_device_capability = before


def fill(name: str, parameter: str, values: Any) -> None:
    """Random values, the same for the same projection and size on every device."""
    key = (name, parameter, tuple(values.shape), values.dtype, values.device)
    if key not in _values:
        seed = int.from_bytes(repr(key[:3]).encode(), "big") % (1 << 62)
        generator = torch.Generator("cpu").manual_seed(seed)
        if values.dtype == torch.uint8:
            made = torch.full(values.shape, _ONES, dtype=torch.uint8)
        elif "scale" in parameter:
            made = torch.rand(values.shape, generator=generator, device="cpu") + 0.5
        else:
            made = torch.randn(values.shape, generator=generator, device="cpu")
        _values[key] = made.to(values.dtype).to(values.device)
    values.copy_(_values[key])


_values: dict[tuple[Any, ...], Any] = {}


def _as_it_is(output: Any) -> Any:
    return output
