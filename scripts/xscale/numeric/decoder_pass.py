"""Run the input's scale through the tree's own decoder layer. Worker side."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from functools import partial
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import torch

from xscale.numeric.chains import Chain
from xscale.numeric.doubles import StopRun, Unquantized
from xscale.numeric.sources import HEAD_GATE, LATENT, LAYER, PREPARE
from xscale.numeric.stubs import Anything, double_of

if TYPE_CHECKING:
    from xscale.numeric.drivers import Driver


class DecoderPass:
    """A pass of S1's or S2's scale through the tree's own layer to both readers.

    The decoder layer's forward runs with the tree's attention layer, linears and
    indexer, until the indexer's wk has read the scale; later code has no scale of these
    sites. The chain selects decoding, prefill or a second stream.
    """

    def __init__(self, driver: Driver) -> None:
        self._driver, self._chain = driver, driver.case.chain
        self._world, self._shape = driver.world, driver.shape
        self._outputs: list[Any] = []

    def run(self) -> Any:
        """Return the output of prepare_attn, to compare it with the pristine tree's."""
        driver = self._driver
        hidden, residual = driver.inputs(0)
        self._world.capturing = self._chain is Chain.STREAMS_NSA
        layer = self._layer()
        with _streams(), suppress(StopRun):
            driver.call(
                layer.forward,
                hidden_states=hidden,
                residual=residual,
                forward_batch=self._batch(),
            )
        return self._outputs

    def _layer(self) -> Any:
        driver = self._driver
        attention = self._attention()
        bound = attention.prepare_qkv_latent
        # A plain function is not bound to a layer, so no projection can be found by it.
        unbound = partial(_called, bound)
        communicator = driver.communicator(
            0, bound if self._chain.knows_projection else unbound
        )
        prepare = getattr(communicator, PREPARE)
        vars(communicator)[PREPARE] = partial(self._prepared, prepare)
        # Without tokens, the attention returns at once.
        communicator.prepare_mlp = _enough
        layer = double_of(driver.island.owner(LAYER), layer_communicator=communicator)
        layer.self_attn = attention
        if self._world.platform.gfx95:
            layer._gfx95_quant_format = self._format(layer)
        return layer

    def _format(self, layer: Any) -> Any:
        """The quantization that the layer detects for its attention's weights."""
        detect = getattr(type(layer), "_detect_gfx95_quant_format", None)
        return detect(layer) if detect is not None else "fp8"

    def _prepared(self, prepare: Callable[..., Any], *args: Any, **named: Any) -> Any:
        hidden, residual, *rest = prepare(*args, **named)
        self._outputs += [without_scale(hidden), residual]
        return (hidden, residual, *rest)

    def _attention(self) -> Any:
        driver, shape = self._driver, self._shape
        draw = driver.draw("unquantized")
        method = "MHA" if self._chain is Chain.PREFILL_NSA else "MLA"
        methods = driver.island.module(LATENT).AttnForwardMethod
        attention = driver.attention(
            LATENT,
            # The indexer also receives a pair, and handles it itself.
            use_nsa=True,
            use_dsa=True,
            indexer=self._indexer(),
            alt_stream=Stream() if self._chain is Chain.STREAMS_NSA else None,
            dispatch_attn_forward_method=lambda *_: getattr(methods, method),
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

    def _batch(self) -> Any:
        """Decoding, or a prefill that is so short that only keys are computed."""
        prefill = self._chain is Chain.PREFILL_NSA
        batch: Any = Anything("forward_batch")
        batch.forward_mode.is_extend_without_speculative = lambda: prefill
        batch.forward_mode.is_decode_or_idle = lambda: not prefill
        length = SimpleNamespace(item=lambda: 1)
        batch.seq_lens_cpu = SimpleNamespace(max=lambda: length)
        return batch


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
