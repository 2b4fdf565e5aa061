"""Run one chain: the tree's own functions, from the activations to the GEMMs."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from types import MethodType, SimpleNamespace
from typing import Any

import torch

from contract.numeric.cases import Case, Chain
from contract.numeric.doubles import (
    RANKS,
    Draw,
    Enough,
    Linear,
    Norm,
    World,
    gather_for,
)
from contract.numeric.island import Island
from contract.numeric.outcomes import Route
from contract.numeric.producers import DOUBLE
from contract.numeric.sources import (
    CORE,
    GATHER,
    HEAD_GATE,
    LINEAR,
    MHA,
    MLA,
    PREPARE,
)
from contract.numeric.stubs import Anything, double_of

Leaves = list[Any]
"""The tensors that a function returned or handed on, in order."""


def drive(case: Case, island: Island, world: World) -> Leaves:
    """Run the case's chain; the world has recorded it afterwards."""
    world.gather = gather_for(case.chain)
    return list(leaves(_DRIVERS[case.chain](Driver(case, island, world))))


def leaves(value: Any) -> Iterator[Any]:
    """The tensors in a nest of tuples, lists and mappings."""
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, (tuple, list)):
        for one in value:
            yield from leaves(one)
    elif isinstance(value, dict):
        yield from leaves(list(value.values()))


class Driver:
    """Builds what a chain runs: the tree's own objects, with doubles around them."""

    def __init__(self, case: Case, island: Island, world: World) -> None:
        self.case, self.island, self.world = case, island, world
        self.shape, self.m = case.shape, case.m
        self.consumer: Callable[..., Any] = island.definition(LINEAR)

    def draw(self, what: str) -> Draw:
        """The same activations for the same chain, shape and M; no case differs."""
        seed = (what, self.case.chain.name, self.shape.name, self.m)
        return Draw(seed, self.world.device)

    def linear(self, name: str, n: int, k: int) -> Linear:
        return Linear(self.world, self.consumer, name).sized(n, k)

    def input(self) -> Any:
        """qkv_a and wk, from what prepare_attn makes."""
        hidden, residual = self.prepared(0)
        qkv_a = self.linear("qkv_a", self.shape.qkv_a, self.shape.hidden)
        wk = self.linear("wk", 128, self.shape.hidden)
        return _without_scale(hidden), residual, qkv_a(hidden), wk(hidden)

    def gathered(self) -> Any:
        gather = self.world.gather
        assert gather is not None
        # Only rank 0's second turn is the run itself; no copy counts before that.
        with torch.profiler.record_function(DOUBLE):
            for rank in range(RANKS):
                gather.rank()
                self.prepared(rank)
        gather.all_given()
        return self.input()

    def communicator(self, rank: int) -> Any:
        """The layer's communicator on one rank, told what the chain needs of it."""
        gathers = self.case.chain.gathers
        move = getattr(self.island.owner(GATHER), GATHER) if gathers else _stays
        self.attention_context()
        return double_of(
            self.island.owner(PREPARE),
            input_layernorm=Norm(self.shape.hidden, self.world.device),
            qkv_latent_func=self.qkv_latent_func(),
            _communicate_simple_fn=move,
            _context=SimpleNamespace(
                attn_tp_size=RANKS, attn_tp_rank=rank, tp_size=RANKS, tp_rank=rank
            ),
        )

    def qkv_latent_func(self) -> Any:
        """The attention layer's method, by which a communicator knows the layer."""
        if not self.case.chain.knows_projection:
            return None
        qkv_a = self.linear("qkv_a", self.shape.qkv_a, self.shape.hidden)
        return MethodType(_no_latent, SimpleNamespace(fused_qkv_a_proj_with_mqa=qkv_a))

    def prepared(self, rank: int) -> tuple[Any, Any]:
        """What one rank's prepare_attn returns: hidden states and residual."""
        communicator = self.communicator(rank)
        draw = self.draw(f"input {rank}")
        hidden = draw(self.m, self.shape.hidden)
        self.world.buffer = hidden.new_zeros(RANKS * self.m, self.shape.hidden)
        residual = draw(self.m, self.shape.hidden)
        plain = self.case.chain in (Chain.INPUT, Chain.INPUT_NSA, Chain.INDEXER)
        outputs: tuple[Any, Any] = getattr(communicator, PREPARE)(
            hidden, None if plain else residual, Anything("forward_batch"), "fp8"
        )
        return outputs

    def attention_context(self) -> Any:
        """The tree's own context, told whether the model is sparse-attention."""
        context = self.island.module(PREPARE).get_attn_tp_context()
        # Renamed between releases; the one that nobody reads does no harm.
        context.is_nsa = context.is_dsa = self.case.chain.nsa
        return context

    def attention(self, function: str, **more: Any) -> Any:
        """The attention layer that ``function`` is a method of."""
        s, world = self.shape, self.world
        latent = self.draw("latent")(self.m, s.q_lora + s.kv_lora + s.rope)
        # Where it keeps them is the release's affair: a field, or a forward context.
        self.attention_context().fetch_qkv_latent = lambda: latent
        draw = Draw("attention weights", world.device)
        return double_of(
            self.island.owner(function),
            q_lora_rank=s.q_lora,
            kv_lora_rank=s.kv_lora,
            qk_nope_head_dim=s.nope,
            qk_rope_head_dim=s.rope,
            qk_head_dim=s.nope + s.rope,
            v_head_dim=s.v,
            num_local_heads=s.heads,
            use_nsa=self.case.chain.nsa,
            use_dsa=self.case.chain.nsa,
            layer_id=0,
            alt_stream=None,
            rotary_emb=None,
            next_skip_topk=None,
            current_attention_backend="nsa",
            q_a_layernorm=Norm(s.q_lora, world.device),
            kv_a_layernorm=Norm(s.kv_lora, world.device),
            w_kc=draw(s.heads, s.nope, s.kv_lora).to(world.fp8),
            w_vc=draw(s.heads, s.kv_lora, s.v).to(world.fp8),
            w_scale=torch.ones((), device=world.device),
            q_b_proj=self.linear("q_b", s.heads * (s.nope + s.rope), s.q_lora),
            kv_b_proj=self.linear("kv_b", s.heads * (s.nope + s.v), s.kv_lora),
            o_proj=self.linear("o_proj", s.hidden, s.heads * s.v),
            **more,
        )

    def call(self, function: Any, **known: Any) -> Any:
        """Call by parameter names; what is not known is a stub."""
        arguments = {
            name: known[name] if name in known else Anything(name)
            for name, parameter in inspect.signature(function).parameters.items()
            if name in known or parameter.default is inspect.Parameter.empty
        }
        return function(**arguments)

    def hidden(self) -> Any:
        return self.draw("hidden")(self.m, self.shape.hidden)

    def mla(self) -> Any:
        """q_b, from what forward_absorb_prepare makes."""
        handed: list[Any] = []
        layer = self.attention(MLA, indexer=_keeping(handed))
        outputs = self.call(getattr(layer, MLA), hidden_states=self.hidden())
        return outputs, handed

    def mha(self) -> Any:
        """q_b and kv_b, from what forward_normal_prepare makes."""
        handed: list[Any] = []
        keep = _keeping(handed)
        layer = self.attention(MHA, indexer=keep, _set_mla_kv_buffer=keep)
        vars(layer)["_concat_and_cast_mha_k"] = lambda k_nope, k_pe, _: (k_nope, k_pe)
        outputs = self.call(getattr(layer, MHA), hidden_states=self.hidden())
        return outputs, handed

    def core(self) -> Any:
        """o_proj, from what forward_absorb_core makes."""
        s = self.shape
        attended = self.draw("attended")(self.m, s.heads * s.kv_lora)
        layer = self.attention(CORE, attn_mqa=lambda *_, **__: attended)
        draw = self.draw("core")
        return self.call(
            getattr(layer, CORE),
            q_pe=draw(self.m, s.heads, s.rope),
            k_pe=draw(self.m, 1, s.rope),
            q_nope_out=draw(self.m, s.heads, s.kv_lora),
            k_nope=draw(self.m, 1, s.kv_lora),
            topk_indices=None,
            llama_4_scaling=None,
        )

    def indexer(self) -> Any:
        """The indexer's head gate, from a pair (fp8, scale) of prepare_attn."""
        x, _ = self.prepared(0)
        gated: list[Any] = []

        def gate(x_for_gate: Any, *_: Any, **__: Any) -> None:
            gated.append(x_for_gate)
            raise Enough

        query = self.draw("query")(self.m, 1, 128)
        indexer = double_of(
            self.island.owner(HEAD_GATE),
            alt_stream=None,
            _get_q_k_bf16=lambda *_, **__: (query, query),
            _store_index_k_cache=lambda *_, **__: None,
            **{HEAD_GATE: gate},
        )
        try:
            self.call(
                getattr(indexer, _caller_of(type(indexer), HEAD_GATE)),
                x=x,
                q_lora=self.draw("q_lora")(self.m, self.shape.q_lora),
            )
        except Enough:
            if isinstance(x, tuple):
                reads = self.world.reads
                reads.projection, reads.marked = "head gate", False
                read = reads.add(Route.ELEMENTWISE, "the tree's own", x[0], x[1], None)
                read.output = gated[0]
        return gated


def _no_latent(attention: Any, *_: Any) -> None:
    """The latent is drawn; what makes it is not called."""


def _stays(hidden_states: Any, forward_batch: Any, context: Any) -> Any:
    return hidden_states


def _keeping(handed: list[Any]) -> Callable[..., Any]:
    def keep(*args: Any, **kwargs: Any) -> Any:
        handed.append((args, kwargs))
        return Anything("top-k")

    return keep


def _without_scale(hidden: Any) -> Any:
    """The scale is judged where it is read; its strides may differ by design."""
    return (hidden[0], *hidden[2:]) if isinstance(hidden, tuple) else hidden


def _caller_of(owner: type, method: str) -> str:
    callers = [
        name
        for kind in owner.__mro__
        for name, function in vars(kind).items()
        if method in getattr(getattr(function, "__code__", None), "co_names", ())
    ]
    # Of several, the one for GPUs, which every platform but the named ones shares.
    return next((n for n in callers if "cuda" in n), callers[0])


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
    Chain.GATHER_C10D: Driver.gathered,
    Chain.GATHER_PYNCCL: Driver.gathered,
    Chain.INDEXER: Driver.indexer,
}
