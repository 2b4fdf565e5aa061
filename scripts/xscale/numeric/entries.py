"""Which of the attention layer's methods the tree itself runs. Worker side.

The tree's own ``forward_prepare`` and ``forward_core`` run with its own dispatch; the
methods that they select are replaced by recorders. Only the kind of batch is given:
absorbed attention, as in decoding, or not, as in a short prefill.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

from xscale.numeric.island import Island
from xscale.numeric.linears import NotDriven
from xscale.numeric.sources import DISPATCH, LATENT
from xscale.numeric.stubs import Anything, double_of

ABSORBED, NORMAL = "MLA", "MHA"
"""The tree's names of the two kinds."""

_METHOD = re.compile(r"forward_\w+_(prepare|core)")
_REGISTRY = "AttentionBackendRegistry"


@dataclass(frozen=True)
class Entry:
    """The names of the methods before and after the attention itself."""

    prepare: str
    core: str


def entry_of(island: Island, kind: str) -> Entry:
    """Raises NotDriven if the tree's own layer calls no such methods."""
    if not island.has(LATENT, DISPATCH):
        raise NotDriven("attention: the tree has no DeepseekV2AttentionMLA to enter")
    owner = island.owner(LATENT)
    called: list[str] = []
    layer = double_of(owner)
    for name in dir(owner):
        if _METHOD.fullmatch(name):
            vars(layer)[name] = _recorder(called, name)
    with dispatching(island, kind):
        hidden = SimpleNamespace(shape=(1, 1))
        state = layer.forward_prepare(
            **_stubs(layer.forward_prepare, hidden_states=hidden)
        )
        layer.forward_core(state)
    if len(called) != 2:
        found = ", ".join(called) or "nothing"
        raise NotDriven(f"attention: for {kind} the tree's own layer calls {found}")
    return Entry(*called)


@contextmanager
def dispatching(island: Island, kind: str) -> Iterator[None]:
    """The tree's own dispatch sees a backend that answers ``kind``."""
    module = island.module(LATENT)
    before = getattr(module, _REGISTRY)
    answer = getattr(module.AttnForwardMethod, kind)
    setattr(module, _REGISTRY, SimpleNamespace(get_handler=lambda _: lambda *_: answer))
    try:
        yield
    finally:
        setattr(module, _REGISTRY, before)


def _recorder(called: list[str], name: str) -> Callable[..., Any]:
    def record(*_: Any, **__: Any) -> tuple[()]:
        called.append(name)
        return ()

    return record


def _stubs(function: Any, **known: Any) -> dict[str, Any]:
    from inspect import Parameter, signature

    return {
        name: known.get(name, Anything(name))
        for name, parameter in signature(function).parameters.items()
        if name in known or parameter.default is Parameter.empty
    }
