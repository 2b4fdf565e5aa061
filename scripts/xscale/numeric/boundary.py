"""The way into a layer whose release has layer boundaries. Worker side.

Since 0.5.21 SGLang's layers have no communicator. A layer declares its stages, and the
stack binds each of them to code that completes, moves, normalizes and quantizes. Here
the tree's own layer builds them; only the configuration and what arrives are given.
"""

from __future__ import annotations

from contextlib import nullcontext
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from xscale.numeric.doubles import RANKS, Norm, parallel
from xscale.numeric.linears import NotDriven
from xscale.numeric.sources import LAYER, STACK, START
from xscale.numeric.stubs import double_of

if TYPE_CHECKING:
    from xscale.numeric.drivers import Driver

_DENSE = SimpleNamespace(n_routed_experts=None, num_hidden_layers=4)


class BoundaryInput:
    """What arrives at one rank's layer: at the first layer without a residual, at the
    second with the first one's output."""

    def __init__(self, driver: Driver, rank: int, hidden: Any, residual: Any) -> None:
        self._driver, self._rank = driver, rank
        self._hidden, self._residual = hidden, residual

    def into(self, layer: Any, batch: Any, latent_of: Any) -> Any:
        """Build the layer's stages, put the residual into the batch, and return what
        the layer's forward receives."""
        world, island = self._driver.world, self._driver.island
        gathers = self._driver.case.chain.gathers
        if gathers:
            world.parallel = parallel(self._rank, RANKS)
        first = self._residual is None and not gathers
        norm = world.norm(self._driver.shape.hidden)
        stack = island.definition(STACK)() if island.has(STACK) else nullcontext()
        with stack:
            if not first:
                before = double_of(island.owner(LAYER))
                _build(before, 0, norm, None)
            _build(layer, 0 if first else 1, norm, latent_of)
        return self.arrive(layer, batch)

    def arrive(self, layer: Any, batch: Any) -> Any:
        """The same once more, for a layer that is built: each pass uses it up."""
        island = self._driver.island
        if self._residual is None:
            if not island.has(START):
                raise NotDriven("input: the tree's layer boundaries have no start")
            island.definition(START)(batch)
            return self._hidden
        arrived = {"hidden_states": self._hidden, "residual": self._residual}
        return layer.attn_boundary.from_pp(arrived, batch)


def _build(layer: Any, number: int, norm: Norm, latent_of: Any) -> None:
    vars(layer).update(
        config=_DENSE,
        layer_id=number,
        is_nextn=False,
        is_layer_sparse=False,
        _stage_enters_stack=number == 0,
        _stage_terminal=False,
        _stage_previous_sparse=False,
        _stage_next_sparse=False,
    )
    layer.attn_boundary, layer.ffn_boundary = layer._build_stages(
        input_layernorm=norm,
        post_attention_layernorm=norm,
        qkv_latent_func=latent_of,
    )
