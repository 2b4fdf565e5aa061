"""Layers that are the tree's own from the input's norm to the attention's output.

The proof's pass through a decoder layer is run here from end to end and again and
again: the tree's quantization method registers the weights, its layer detects their
format, its guards decide. Nothing that decides is given. A layer's input does not
depend on the layer before it, so a difference does not grow.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from torch import nn

from gatekit.microbench import launches
from gatekit.microbench.world import ChainWorld, Role, labelled
from xscale.numeric.cases import Case, Chain, Shape
from xscale.numeric.decoder_pass import DecoderPass, caller_of, nothing
from xscale.numeric.doubles import StopRun
from xscale.numeric.drivers import Driver
from xscale.numeric.entries import ABSORBED, dispatching
from xscale.numeric.island import Island
from xscale.numeric.situations import SMALL_M_MODULE
from xscale.numeric.sources import HEAD_GATE, LATENT
from xscale.numeric.stubs import Anything

_FIRST, _LATER = Chain.INPUT_NSA, Chain.RESIDUAL_NSA


class _Reached(Exception):
    """The small-M GEMM of the tree would be launched now."""


class Constant:
    """A linear whose output no activation scale affects: the same values each time."""

    reduce_results = False

    def __init__(self, world: ChainWorld, columns: int) -> None:
        self._world, self._columns = world, columns

    def __call__(self, x: Any, *_: Any, **__: Any) -> tuple[Any, None]:
        return self._world.constant(x.shape[0], self._columns), None


class WholeLayer(DecoderPass):
    """A layer with all four projections, up to the output of its attention."""

    def __init__(self, driver: Driver, world: ChainWorld) -> None:
        super().__init__(driver)
        self._chain_world = world
        self.kept: list[Any] | None = None
        layer = self._layer(self._attention())
        # Setting it up has used up what arrives.
        self._forward_of_layer = prefilled(
            layer.forward, forward_batch=self._batch, residual=self._arrived[1]
        )
        self._layer_built = layer

    def run(self) -> None:
        """One pass; ``kept`` collects what the projections return, if it is a list."""
        hidden = self._before.arrive(self._layer_built, self._batch)
        try:
            self._forward_of_layer(hidden_states=hidden)
        except StopRun:
            return
        raise AssertionError("the layer does not stop after its attention")

    def _prepared(self, prepare: Callable[..., Any], *args: Any, **named: Any) -> Any:
        return prepare(*args, **named)

    def _attention(self) -> Any:
        driver, shape, world = self._driver, self._shape, self._chain_world
        attended = world.constant(driver.m, shape.heads * shape.kv_lora)
        projections = {
            attribute: driver.linear(name, *driver.sizes()[attribute], then=self._keep)
            for attribute, name in (("q_b_proj", "q_b"), ("o_proj", "o_proj"))
        }
        attention = driver.attention(
            LATENT,
            use_nsa=True,
            use_dsa=True,
            indexer=self._indexer(),
            attn_mqa=lambda *_, **__: attended,
            fused_qkv_a_proj_with_mqa=driver.linear(
                "qkv_a", shape.qkv_a, shape.hidden, then=self._keep
            ),
            _set_mla_kv_buffer=nothing,
            **projections,
        )
        # The layer must fetch the value that its own projection stored.
        vars(driver.attention_context()).pop("fetch_qkv_latent", None)
        return attention

    def _indexer(self) -> Any:
        driver, shape = self._driver, self._shape
        wk = driver.linear("wk", shape.wk, shape.hidden, then=self._keep_and_stop)
        indexer = driver.indexer_layer(wk)
        vars(indexer)["wq_b"] = Constant(self._chain_world, 2 * shape.wk)
        forward = prefilled(getattr(indexer, caller_of(type(indexer), HEAD_GATE)))

        def call(_: Any, **known: Any) -> None:
            try:
                forward(**known)
            except StopRun:
                return
            raise AssertionError("the indexer does not call its wk")

        # A module is callable; the class belongs to this double alone.
        type(indexer).__call__ = call
        return indexer

    def _keep(self, output: Any) -> Any:
        if self.kept is not None:
            self.kept.append(output)
        return output

    def _keep_and_stop(self, output: Any) -> Any:
        """Later code of the indexer reads no scale."""
        self._keep(output)
        raise StopRun


class OwnStack(nn.Module):  # type: ignore[misc]
    """Layers in sequence, each with weights of its own."""

    def __init__(
        self, island: Island, world: ChainWorld, shape: Shape, m: int, depth: int
    ) -> None:
        super().__init__()
        _launchable(island, world)
        self._island = island
        self.passes = [
            WholeLayer(Driver(Case(chain, m, shape), island, world), world)
            for chain in (_FIRST, *(_LATER,) * (depth - 1))
        ]

    def forward(self, depth: int) -> tuple[()]:
        """Run the first ``depth`` layers."""
        with dispatching(self._island, ABSORBED):
            for one in self.passes[:depth]:
                one.run()
        return ()

    @contextmanager
    def keeping(self) -> Iterator[list[Any]]:
        """Collect what every projection returns."""
        outputs: list[Any] = []
        for one in self.passes:
            one.kept = outputs
        try:
            yield outputs
        finally:
            for one in self.passes:
                one.kept = None


def prefilled(function: Callable[..., Any], **known: Any) -> Any:
    """The function with stubs for all parameters without a default; those of ``known``
    that it has are given."""
    parameters = inspect.signature(function).parameters
    stubs = {
        name: Anything(name)
        for name, parameter in parameters.items()
        if parameter.default is inspect.Parameter.empty
    }
    given = {name: value for name, value in known.items() if name in parameters}
    return partial(function, **{**stubs, **given})


def _launchable(island: Island, world: ChainWorld) -> None:
    """Let the tree's own module decide about its small-M GEMM, and replace the launch.

    It compiles a HIP kernel and gives it raw addresses. What it asks before that is
    asked here; where it would launch, another GEMM of one launch runs.
    """
    if SMALL_M_MODULE not in island.sources.modules:
        return
    module: Any = importlib.import_module(SMALL_M_MODULE)
    real = module.try_smallm_fp8_bs_linear
    if hasattr(real, "launchable"):
        return
    gemm = labelled(launches.small_m_gemm, Role.GEMM, world.device)

    def launch(x: Any, weight: Any, w_scale: Any, *only_ask: bool) -> Any:
        try:
            return real(x, weight, w_scale, *only_ask)
        except _Reached:
            return gemm(x, weight, w_scale)

    def reached() -> Any:
        raise _Reached

    module._mod, module.hip_lib = object(), reached
    launch.launchable = True  # type: ignore[attr-defined]
    module.try_smallm_fp8_bs_linear = launch
