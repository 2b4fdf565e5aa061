"""Layers of the model as modules that a profiler sees, around the tree's own code.

Modules have SGLang's class names and structure: the first norm and quantization are
before the attention module, everything else is inside it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from torch import nn

from gatekit.microbench.own_layers import prefilled
from gatekit.microbench.world import ChainWorld
from xscale.numeric.cases import GROUP, Case, Chain, Shape
from xscale.numeric.doubles import Linear
from xscale.numeric.drivers import Driver
from xscale.numeric.island import Island
from xscale.numeric.sources import CORE, MLA, PREPARE
from xscale.numeric.stubs import Anything

_INDEXER = 128
_BLOCK = [GROUP, GROUP]


class BlockFp8Linear(nn.Module):  # type: ignore[misc]
    """A quantized linear: the tree's own consumer on (q, scale)."""

    def __init__(self, consumer: Callable[..., Any], weight: Any, scale: Any) -> None:
        super().__init__()
        self._consumer = consumer
        self.register_buffer("weight", weight)
        self.register_buffer("weight_scale_inv", scale)

    def forward(self, x: Any) -> tuple[Any, None]:
        output = self._consumer(
            input=x[0],
            weight=self.weight,
            block_size=_BLOCK,
            weight_scale=self.weight_scale_inv,
            input_scale=x[1],
            bias=None,
        )
        return output, None


class ReplicatedLinear(BlockFp8Linear):
    pass


class ColumnParallelLinear(BlockFp8Linear):
    pass


class RowParallelLinear(BlockFp8Linear):
    pass


class Indexer(nn.Module):  # type: ignore[misc]
    """The part of the sparse attention's indexer that reads the input's scale."""

    def __init__(self, wk: BlockFp8Linear) -> None:
        super().__init__()
        self.wk = wk

    def forward(self, x: Any, **_: Any) -> None:
        self.wk(x)


class AttentionModule(nn.Module):  # type: ignore[misc]
    """The attention layer; the tree's mixin is added as a base (``attention_class``).

    Unset attributes are stubs, as everywhere on an island.
    """

    def __init__(self, attributes: dict[str, Any]) -> None:
        super().__init__()
        for name, value in attributes.items():
            setattr(self, name, value)
        self._prepare = prefilled(getattr(self, MLA))
        self._core = getattr(self, CORE)

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            if name.startswith("__"):
                raise
            stub = Anything(f"self.{name}")
            object.__setattr__(self, name, stub)
            return stub

    def forward(self, hidden_states: Any) -> Any:
        latent = self.fused_qkv_a_proj_with_mqa(hidden_states)[0]
        self.context.fetch_qkv_latent = lambda: latent
        return self._core(*self._prepare(hidden_states=hidden_states))


class DeepseekV2DecoderLayer(nn.Module):  # type: ignore[misc]
    """A layer, up to the output of its attention."""

    def __init__(self, communicator: Any, attention: AttentionModule) -> None:
        super().__init__()
        self._prepare = partial(
            getattr(communicator, PREPARE),
            forward_batch=Anything("forward_batch"),
            quant_format="fp8",
        )
        self.self_attn = attention

    def forward(self, hidden_states: Any, residual: Any) -> tuple[Any, Any]:
        hidden_states, residual = self._prepare(hidden_states, residual)
        return self.self_attn(hidden_states), residual


class Stack(nn.Module):  # type: ignore[misc]
    """The layers in sequence."""

    def __init__(self, layers: list[DeepseekV2DecoderLayer], hidden: Any) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self._hidden = hidden

    def forward(self, depth: int) -> tuple[Any, Any]:
        """The output and the residual after the first ``depth`` layers."""
        hidden_states, residual = self._hidden, None
        for layer in self.layers[:depth]:
            hidden_states, residual = layer(hidden_states, residual)
        return hidden_states, residual

    @contextmanager
    def keeping(self) -> Iterator[list[Any]]:
        """Collect what every projection returns."""
        outputs: list[Any] = []

        def keep(_: Any, __: Any, output: Any) -> None:
            outputs.append(output[0])

        handles = [
            one.register_forward_hook(keep)
            for one in self.modules()
            if isinstance(one, BlockFp8Linear)
        ]
        try:
            yield outputs
        finally:
            for handle in handles:
                handle.remove()


class Weights:
    """The weights of a shape: separate memory per layer, shared by all arms."""

    def __init__(self, world: ChainWorld) -> None:
        self._world = world
        self._known: dict[tuple[int, str], tuple[Any, Any]] = {}

    def of(self, layer: int, name: str, n: int, k: int) -> tuple[Any, Any]:
        """(n, k) in fp8 and its block scales."""
        key = layer, name
        if key not in self._known:
            made = Linear(self._world, lambda **_: None, name).sized(n, k)
            self._known[key] = made.weight.clone(), made.weight_scale_inv.clone()
        return self._known[key]


class PreparedScaleConsumer:
    """A consumer that attaches the scale in CK's layout, prepared at the first call, to
    the scale it is given."""

    def __init__(self, consumer: Callable[..., Any]) -> None:
        self._consumer, self._scale = consumer, None

    def __call__(self, *, input_scale: Any, **rest: Any) -> Any:
        if self._scale is None:
            self._scale = input_scale.t().contiguous().view(input_scale.shape)
        input_scale.laid_out = self._scale
        return self._consumer(input_scale=input_scale, **rest)


def stack(
    island: Island,
    world: ChainWorld,
    weights: Weights,
    shape: Shape,
    m: int,
    depth: int,
    laid_out: bool,
) -> Stack:
    """``depth`` layers for ``m`` tokens. Only while the island is entered."""
    # The chain only selects sparse attention and names the random draws.
    driver = Driver(Case(Chain.RESIDUAL_NSA, m, shape), island, world)
    attention = attention_class(island.owner(MLA))
    attended = world.constant(m, shape.heads * shape.kv_lora)
    known = vars(driver.attention(MLA, attn_mqa=lambda *_, **__: attended))
    layers = []
    for number in range(depth):
        linear = partial(_linear, driver.consumer, weights, number, laid_out=laid_out)
        attributes = {
            **known,
            "context": driver.attention_context(),
            "layer_id": number,
            "fused_qkv_a_proj_with_mqa": linear(
                ReplicatedLinear, "qkv_a", shape.qkv_a, shape.hidden
            ),
            "q_b_proj": linear(
                ColumnParallelLinear,
                "q_b",
                shape.heads * (shape.nope + shape.rope),
                shape.q_lora,
            ),
            "o_proj": linear(
                RowParallelLinear, "o_proj", shape.hidden, shape.heads * shape.v
            ),
            "indexer": Indexer(linear(ReplicatedLinear, "wk", _INDEXER, shape.hidden)),
        }
        layers.append(
            DeepseekV2DecoderLayer(driver.communicator(0), attention(attributes))
        )
    return Stack(layers, driver.hidden())


def attention_class(owner: type) -> type[AttentionModule]:
    """A module with the name of SGLang's attention module and the tree's own
    methods."""
    return type("DeepseekV2AttentionMLA", (AttentionModule, owner), {})


def _linear(
    consumer: Callable[..., Any],
    weights: Weights,
    layer: int,
    kind: type[BlockFp8Linear],
    name: str,
    n: int,
    k: int,
    *,
    laid_out: bool,
) -> BlockFp8Linear:
    return kind(
        PreparedScaleConsumer(consumer) if laid_out else consumer,
        *weights.of(layer, name, n, k),
    )
