"""Run the input's scale through the tree's own decoder layer. Worker side."""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from xscale.numeric.boundary import BoundaryInput
from xscale.numeric.chains import Chain
from xscale.numeric.doubles import StopRun, Unquantized
from xscale.numeric.entries import ABSORBED, NORMAL, dispatching
from xscale.numeric.linears import NotDriven
from xscale.numeric.sources import HEAD_GATE, LATENT, LAYER, PREPARE, STAGES
from xscale.numeric.stubs import Anything, double_of

if TYPE_CHECKING:
    from xscale.numeric.drivers import Driver


class DecoderPass:
    """A pass of S1's or S2's scale through the tree's own layer to both readers.

    The decoder layer's forward runs with the tree's attention layer, linears and
    indexer, until the indexer's wk has read the scale; later code has no scale of these
    sites. The chain selects decoding, prefill or a second stream. The layer's own
    detection says which quantization its weights have.
    """

    def __init__(self, driver: Driver, rank: int = 0) -> None:
        self._driver, self._chain = driver, driver.case.chain
        self._world, self._shape = driver.world, driver.shape
        self._rank = rank
        self._outputs: list[Any] = []
        self._hidden: Any = None
        self._batch = _batch(self._chain is Chain.PREFILL_NSA)
        if not driver.island.has(LAYER, LATENT):
            raise NotDriven("input: the tree has no DeepseekV2DecoderLayer to enter")

    def run(self) -> Any:
        """Return the attention's input, to compare it with the pristine tree's."""
        self._world.capturing = self._chain is Chain.STREAMS_NSA
        self._forward(self._layer(self._attention()))
        return self._outputs

    def prepared(self) -> Any:
        """The attention's input on this rank; the pass ends there."""
        attention = self._attention()
        vars(attention)["forward"] = _enough
        self._forward(self._layer(attention))
        return self._hidden

    def _forward(self, layer: Any) -> None:
        hidden, residual = self._arrived
        kind = NORMAL if self._chain is Chain.PREFILL_NSA else ABSORBED
        with _streams(), dispatching(self._driver.island, kind), suppress(StopRun):
            try:
                self._driver.call(
                    layer.forward,
                    hidden_states=hidden,
                    residual=residual,
                    forward_batch=self._batch,
                )
            except Exception as error:
                arrived = self._hidden is not None
                if isinstance(error, StopRun) or self._chain.nsa or not arrived:
                    raise
                # A layer without sparse attention has no indexer, so an indexer may
                # refuse its pair. Its wk is then any second reader of the input.
                if not self._driver.refused_pair(error):
                    raise
                self._outputs.append(layer.self_attn.indexer.wk(self._hidden))

    def _layer(self, attention: Any) -> Any:
        driver = self._driver
        bound = attention.prepare_qkv_latent
        # A plain function is not bound to a layer, so no projection can be found by it.
        latent_of = bound if self._chain.knows_projection else partial(_called, bound)
        layer = double_of(driver.island.owner(LAYER))
        layer.self_attn = attention
        self._arrived = driver.inputs(self._rank)
        _detect(layer)
        if driver.island.has(STAGES):
            self._before = BoundaryInput(driver, self._rank, *self._arrived)
            self._arrived = self._before.into(layer, self._batch, latent_of), None
            # Without tokens, the attention returns at once.
            vars(layer.ffn_boundary)["prepare"] = _enough
            watched, name = layer.attn_boundary, "prepare"
        elif driver.island.has(PREPARE):
            layer.layer_communicator = driver.communicator(self._rank, latent_of)
            layer.layer_communicator.prepare_mlp = _enough
            watched, name = layer.layer_communicator, PREPARE
        else:
            raise NotDriven(f"input: the tree has neither {PREPARE} nor {STAGES}")
        vars(watched)[name] = partial(self._prepared, getattr(watched, name))
        # As in a server: the layer exists before its weights are read.
        driver.linears.load()
        return layer

    def _prepared(self, prepare: Callable[..., Any], *args: Any, **named: Any) -> Any:
        prepared = prepare(*args, **named)
        if self._driver.island.has(STAGES):
            self._hidden, residual = prepared, self._batch.residual_stream.residual
        else:
            self._hidden, residual = prepared[:2]
        self._outputs += [without_scale(self._hidden), residual]
        return prepared

    def _attention(self) -> Any:
        driver, shape = self._driver, self._shape
        draw = driver.draw("unquantized")
        attention = driver.attention(
            LATENT,
            # The indexer also receives a pair, and handles it itself.
            use_nsa=True,
            use_dsa=True,
            indexer=self._indexer(),
            alt_stream=Stream() if self._chain is Chain.STREAMS_NSA else None,
            fused_qkv_a_proj_with_mqa=driver.linear(
                "qkv_a", shape.qkv_a, shape.hidden, then=self._latent
            ),
            **{name: Unquantized(draw, *size) for name, size in driver.sizes().items()},
            _set_mla_kv_buffer=nothing,
        )
        # The layer must fetch the value that its own communicator stored.
        vars(driver.attention_context()).pop("fetch_qkv_latent", None)
        return attention

    def _latent(self, output: Any) -> Any:
        """Random values: the GEMM's stand-in computes only some columns, of another
        width."""
        shape = self._shape
        width = shape.q_lora + shape.kv_lora + shape.rope
        return self._driver.draw("latent")(output.shape[0], width)

    def _indexer(self) -> Any:
        driver, shape = self._driver, self._shape
        wk = driver.linear("wk", shape.wk, shape.hidden, then=_enough)
        indexer = driver.indexer_layer(wk)
        forward = getattr(indexer, caller_of(type(indexer), HEAD_GATE))

        def call(_: Any, **known: Any) -> Any:
            return driver.call(forward, **known)

        # A module is callable; the class belongs to this double alone.
        type(indexer).__call__ = call
        return indexer


def _batch(prefill: bool) -> Any:
    """Decoding, or a prefill that is so short that only keys are computed."""
    batch: Any = Anything("forward_batch")
    batch.forward_mode.is_extend_without_speculative = lambda: prefill
    batch.forward_mode.is_decode_or_idle = lambda: not prefill
    batch.seq_lens_cpu = torch.ones(1, dtype=torch.int32)
    return batch


def _detect(layer: Any) -> None:
    """Run what the layer's constructor runs to learn its weights' quantization.

    These are its assignments of a method's result that needs nothing but the layer.
    """
    constructor = inspect.getsource(type(layer).__mro__[2].__dict__["__init__"])
    for node in ast.walk(ast.parse(textwrap.dedent(constructor))):
        if (
            isinstance(node, ast.Assign)
            and isinstance(call := node.value, ast.Call)
            and not (call.args or call.keywords)
            and ast.unparse(call.func).startswith("self._")
            and "quant_format" in ast.unparse(call.func)
        ):
            for target in node.targets:
                assert isinstance(target, ast.Attribute)
                setattr(layer, target.attr, eval(ast.unparse(call), {"self": layer}))


def _called(function: Callable[..., Any], *args: Any, **named: Any) -> Any:
    return function(*args, **named)


def _enough(*_: Any, **__: Any) -> Any:
    raise StopRun


class Stream:
    """A second stream on a machine without streams: its work runs in sequence."""

    def wait_stream(self, _: Any) -> None:
        return


@contextmanager
def _streams() -> Iterator[None]:
    cuda: Any = torch.cuda
    before = cuda.current_stream, cuda.stream
    cuda.current_stream, cuda.stream = Stream, nullcontext
    try:
        yield
    finally:
        cuda.current_stream, cuda.stream = before


def nothing(*_: Any, **__: Any) -> None:
    """Replaces a method whose result is not used here."""


def without_scale(hidden: Any) -> Any:
    """Leave out the scale: it is judged where it is read, and its strides may
    differ."""
    return (hidden[0], *hidden[2:]) if isinstance(hidden, tuple) else hidden


def caller_of(owner: type, method: str) -> str:
    callers = [
        name
        for kind in owner.__mro__
        for name, function in vars(kind).items()
        if method in getattr(getattr(function, "__code__", None), "co_names", ())
    ]
    # If there are several, the one for GPUs: it is the default for other platforms.
    return next((n for n in callers if "cuda" in n), callers[0])
