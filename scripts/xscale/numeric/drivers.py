"""Run one chain through the tree's own functions, from the activations to the GEMMs."""

from __future__ import annotations

import inspect
import traceback
from collections.abc import Callable
from dataclasses import replace
from types import MethodType, SimpleNamespace
from typing import Any

import torch

from xscale.numeric.cases import Case, Chain
from xscale.numeric.decoder_pass import DecoderPass, caller_of, nothing
from xscale.numeric.doubles import (
    RANKS,
    Bf16,
    Draw,
    StopRun,
    Unquantized,
    World,
    gather_for,
)
from xscale.numeric.entries import ABSORBED, NORMAL, Entry, entry_of
from xscale.numeric.island import Island
from xscale.numeric.linears import Linears, NotDriven
from xscale.numeric.results import Route
from xscale.numeric.sources import (
    CONTEXT,
    GATHER,
    HEAD_GATE,
    LATENT,
    LINEAR,
    PREPARE,
)
from xscale.numeric.stubs import Anything, double_of
from xscale.numeric.watch import tensors, unrecorded

Leaves = list[Any]
"""The tensors that a function returned or passed on, in order."""

_NAMES = {"q_b_proj": "q_b", "kv_b_proj": "kv_b", "o_proj": "o_proj"}
HEAD_GATE_READS = "head gate"
_LONG = 2048
"""Up to this number of tokens, the indexer need not select."""


def drive(case: Case, island: Island, world: World) -> Leaves:
    """Run the case's chain; the world records it."""
    world.gather = gather_for(case.chain)
    return list(tensors(Driver(case, island, world).run()))


class Driver:
    """Builds the objects that a chain runs: the tree's own, surrounded by doubles.

    ``bf16`` names a projection of the attention layer, after the latent, that the
    checkpoint leaves in bf16.
    """

    def __init__(
        self, case: Case, island: Island, world: World, bf16: str = ""
    ) -> None:
        self.case, self.island, self.world = case, island, world
        self.shape, self.m = case.shape, case.m
        self.consumer: Callable[..., Any] = island.definition(LINEAR)
        self.linears = Linears(island, world, case.format)
        self._bf16 = bf16

    def run(self) -> Any:
        """The case's chain."""
        return _DRIVERS[self.case.chain](self)

    def draw(self, what: str) -> Draw:
        """Activations that depend only on chain, shape and M."""
        seed = (what, self.case.chain.name, self.shape.name, self.m)
        return Draw(seed, self.world.device)

    def linear(
        self, name: str, n: int, k: int, then: Callable[[Any], Any] | None = None
    ) -> Any:
        """The tree's own linear and method, with unloaded weights; ``then`` converts
        the GEMM's output."""
        return self.linears.made(name, n, k, then)

    def input(self) -> Any:
        """qkv_a and wk, from the input, through the tree's own layer."""
        return DecoderPass(self).run()

    def gathered(self) -> Any:
        gather = self.world.gather
        assert gather is not None
        # Only rank 0's second turn is recorded; copies before that do not count.
        with unrecorded():
            for rank in range(RANKS):
                gather.rank()
                DecoderPass(self, rank).prepared()
        gather.all_given()
        return self.input()

    def communicator(self, rank: int, latent_of: Any = None) -> Any:
        """The layer's communicator on one rank, set up for the chain; ``latent_of`` is
        the method by which it finds the attention layer."""
        gathers = self.case.chain.gathers
        move = getattr(self.island.owner(GATHER), GATHER) if gathers else _unchanged
        self.attention_context()
        return double_of(
            self.island.owner(PREPARE),
            input_layernorm=self.world.norm(self.shape.hidden),
            qkv_latent_func=latent_of or self.qkv_latent_func(),
            _communicate_simple_fn=move,
            _context=SimpleNamespace(
                attn_tp_size=RANKS, attn_tp_rank=rank, tp_size=RANKS, tp_rank=rank
            ),
        )

    def qkv_latent_func(self) -> Any:
        """The attention layer's method, by which a communicator finds the layer."""
        if not self.case.chain.knows_projection:
            return None
        qkv_a = self.linear("qkv_a", self.shape.qkv_a, self.shape.hidden)
        return MethodType(nothing, SimpleNamespace(fused_qkv_a_proj_with_mqa=qkv_a))

    def inputs(self, rank: int) -> tuple[Any, Any]:
        """The inputs of one rank's layer: hidden states, and the residual or None."""
        draw = self.draw(f"input {rank}")
        hidden = draw(self.m, self.shape.hidden)
        self.world.buffer = hidden.new_zeros(RANKS * self.m, self.shape.hidden)
        residual = draw(self.m, self.shape.hidden)
        plain = self.case.chain in (Chain.INPUT, Chain.INPUT_NSA, Chain.INDEXER)
        return hidden, None if plain else residual

    def attention_context(self) -> Any:
        """The tree's own context, set to sparse attention or not."""
        if not self.island.has(CONTEXT):
            raise NotDriven(f"attention: the tree has no {CONTEXT}")
        context = self.island.definition(CONTEXT)()
        # Renamed between releases; the unused one does no harm.
        context.is_nsa = context.is_dsa = self.case.chain.nsa
        return context

    def attention(self, function: str, **more: Any) -> Any:
        """The attention layer with the method ``function``; its weights are not
        loaded."""
        s, world = self.shape, self.world
        latent = self.draw("latent")(self.m, s.q_lora + s.kv_lora + s.rope)
        # The release decides where to keep them: a field or a forward context.
        self.attention_context().fetch_qkv_latent = lambda: latent
        with unrecorded():
            draw = Draw("attention weights", world.device)
            w_kc = draw(s.heads, s.nope, s.kv_lora).to(world.fp8)
            w_vc = draw(s.heads, s.kv_lora, s.v).to(world.fp8)
        known: dict[str, Any] = {
            "_makes_up": lambda name: not name.endswith("_proj"),
            "q_lora_rank": s.q_lora,
            "kv_lora_rank": s.kv_lora,
            "qk_nope_head_dim": s.nope,
            "qk_rope_head_dim": s.rope,
            "qk_head_dim": s.nope + s.rope,
            "v_head_dim": s.v,
            "num_local_heads": s.heads,
            "use_nsa": self.case.chain.nsa,
            "use_dsa": self.case.chain.nsa,
            "layer_id": 0,
            "alt_stream": None,
            "rotary_emb": None,
            "next_skip_topk": None,
            "current_attention_backend": "nsa",
            "q_a_layernorm": world.norm(s.q_lora),
            "kv_a_layernorm": world.norm(s.kv_lora),
            "w_kc": w_kc,
            "w_vc": w_vc,
            "w_scale": torch.ones((), device=world.device),
        }
        for attribute, (n, k) in self.sizes().items():
            name = _NAMES[attribute]
            if attribute not in more:
                known[attribute] = (
                    Bf16(self.draw(name), n, k)
                    if name == self._bf16
                    else self.linear(name, n, k)
                )
        return double_of(self.attention_class(function), **{**known, **more})

    def sizes(self) -> dict[str, tuple[int, int]]:
        """(n, k) of the attention layer's projections after the latent."""
        s = self.shape
        return {
            "q_b_proj": (s.heads * (s.nope + s.rope), s.q_lora),
            "kv_b_proj": (s.heads * (s.nope + s.v), s.kv_lora),
            "o_proj": (s.hidden, s.heads * s.v),
        }

    def attention_class(self, function: str) -> type:
        """The attention layer itself, if it has that function; otherwise the function's
        class."""
        island = self.island
        layer: type | None = island.owner(LATENT) if island.has(LATENT) else None
        if layer is not None and (function in dir(layer) or not island.has(function)):
            return layer
        owner: type = island.owner(function)
        return owner

    def call(self, function: Any, **known: Any) -> Any:
        """Call by parameter names; unknown arguments are stubs."""
        arguments = {
            name: known[name] if name in known else Anything(name)
            for name, parameter in inspect.signature(function).parameters.items()
            if name in known or parameter.default is inspect.Parameter.empty
        }
        return function(**arguments)

    def hidden(self) -> Any:
        return self.draw("hidden")(self.m, self.shape.hidden)

    def entry(self, kind: str) -> Entry:
        """The attention layer's methods that the tree itself runs."""
        found: Entry = self.world.remembered(
            ("entry", kind), lambda: entry_of(self.island, kind)
        )
        return found

    def mla(self) -> Any:
        """q_b, from the output of the method before absorbed attention."""
        prepare = self.entry(ABSORBED).prepare
        passed_on: list[Any] = []
        layer = self.attention(prepare, indexer=_recorder_of(passed_on))
        self.linears.load()
        outputs = self.call(getattr(layer, prepare), hidden_states=self.hidden())
        return outputs, passed_on

    def mha(self) -> Any:
        """q_b and kv_b, from the output of the method before attention."""
        prepare = self.entry(NORMAL).prepare
        passed_on: list[Any] = []
        keep = _recorder_of(passed_on)
        layer = self.attention(prepare, indexer=keep)
        self.linears.load()
        _override(layer, "_set_mla_kv_buffer", keep)
        _override(layer, "_concat_and_cast_mha_k", lambda k, k_pe, _=None: (k, k_pe))
        outputs = self.call(getattr(layer, prepare), hidden_states=self.hidden())
        return outputs, passed_on

    def core(self) -> Any:
        """o_proj, from the output of the method after absorbed attention."""
        s, core = self.shape, self.entry(ABSORBED).core
        attended = self.draw("attended")(self.m, s.heads * s.kv_lora)
        layer = self.attention(core, attn_mqa=lambda *_, **__: attended)
        self.linears.load()
        draw = self.draw("core")
        return self.call(
            getattr(layer, core),
            q_pe=draw(self.m, s.heads, s.rope),
            k_pe=draw(self.m, 1, s.rope),
            q_nope_out=draw(self.m, s.heads, s.kv_lora),
            k_nope=draw(self.m, 1, s.kv_lora),
            topk_indices=None,
            llama_4_scaling=None,
        )

    def indexer_layer(self, wk: Any) -> Any:
        """The tree's indexer around the projection that reads the input's scale."""
        s, draw = self.shape, self.draw
        return double_of(
            self.island.owner(HEAD_GATE),
            alt_stream=None,
            head_dim=s.wk,
            rope_head_dim=s.wk // 2,
            index_topk=_LONG,
            wk=wk,
            wq_b=Unquantized(draw("query"), 2 * s.wk, s.q_lora),
            weights_proj=Unquantized(draw("weights"), 2, s.hidden),
            k_norm=_unchanged,
            rotary_emb=lambda _, q, k: (q, k),
            _store_index_k_cache=nothing,
        )

    def indexer(self) -> Any:
        """The indexer's head gate, from the attention's input (fp8, scale)."""
        x = DecoderPass(self).prepared()
        gated: list[Any] = []
        if not isinstance(x, tuple):
            self.world.absent.add(HEAD_GATE_READS)

        def gate(x_for_gate: Any, *_: Any, **__: Any) -> None:
            gated.append(x_for_gate)
            raise StopRun

        # From some release on, only a wk with block scales takes a pair.
        key = self.draw("key")
        wk = self.linear(
            "wk",
            self.shape.wk,
            self.shape.hidden,
            then=lambda output: key(output.shape[0], self.shape.wk),
        )
        self.linears.load()
        indexer = self.indexer_layer(wk)
        vars(indexer)[HEAD_GATE] = gate
        try:
            self.call(
                getattr(indexer, caller_of(type(indexer), HEAD_GATE)),
                x=x,
                q_lora=self.draw("q_lora")(self.m, self.shape.q_lora),
            )
        except StopRun:
            if isinstance(x, tuple):
                reads = self.world.reads
                reads.projection, reads.marked = HEAD_GATE_READS, False
                read = reads.add(Route.ELEMENTWISE, "the tree's own", x[0], x[1], None)
                read.output = gated[0]
        except Exception as error:
            if not self.refused_pair(error):
                raise
            self.world.absent.add(HEAD_GATE_READS)
        return gated

    def refused_pair(self, error: Exception) -> bool:
        """Whether the indexer itself raised, and this tree never gives it a pair: under
        sparse attention its layer hands on something else."""
        code = getattr(self.island.owner(HEAD_GATE), HEAD_GATE).__code__
        if traceback.extract_tb(error.__traceback__)[-1].filename != code.co_filename:
            return False
        sparse = replace(self.case, chain=Chain.INPUT_NSA)
        x = DecoderPass(Driver(sparse, self.island, self.world)).prepared()
        return not (isinstance(x, tuple) and len(x) == 2)


def _override(layer: Any, name: str, value: Any) -> None:
    """Replace the methods whose name begins so: releases add a platform's name."""
    for method in dir(type(layer)):
        if method.startswith(name):
            vars(layer)[method] = value


def _unchanged(hidden_states: Any, *_: Any, **__: Any) -> Any:
    return hidden_states


def _recorder_of(passed_on: list[Any]) -> Callable[..., Any]:
    def keep(*args: Any, **kwargs: Any) -> Any:
        passed_on.append((args, kwargs))
        return Anything("top-k")

    return keep


_DRIVERS: dict[Chain, Callable[[Driver], Any]] = {
    Chain.INPUT: Driver.input,
    Chain.INPUT_NSA: Driver.input,
    Chain.RESIDUAL: Driver.input,
    Chain.RESIDUAL_NSA: Driver.input,
    Chain.MLA: Driver.mla,
    Chain.MLA_NSA: Driver.mla,
    Chain.MHA: Driver.mha,
    Chain.MHA_NSA: Driver.mha,
    Chain.CORE: Driver.core,
    Chain.PREFILL_NSA: Driver.input,
    Chain.STREAMS_NSA: Driver.input,
    Chain.GATHER_C10D: Driver.gathered,
    Chain.GATHER_PYNCCL: Driver.gathered,
    Chain.GATHER_C10D_NSA: Driver.gathered,
    Chain.GATHER_PYNCCL_NSA: Driver.gathered,
    Chain.INDEXER: Driver.indexer,
}
