"""Run the situations behind a producer's guard in a tree's own code.

A situation holds if the tree's own code gets through it; its fault is the error, or
what was seen instead. Worker side.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import torch

from xscale.numeric.cases import Chain
from xscale.numeric.decoder_pass import DecoderPass
from xscale.numeric.doubles import Bf16, Unquantized, World
from xscale.numeric.drivers import Driver
from xscale.numeric.entries import ABSORBED, NORMAL
from xscale.numeric.island import Island
from xscale.numeric.linears import NotDriven
from xscale.numeric.situations import (
    FUSED_ROPE_MODULE,
    LORA_MODULE,
    NEEDS,
    SMALL_M_MODULE,
    Behind,
    BehindCase,
)
from xscale.numeric.stubs import Anything

_GUARD = "sglang.srt.models.deepseek_common.utils"
_PREFIX = 5
_WRITER = "_aiter_fused_fp8_prepare_and_store"
_KEY = "_get_k_bf16"
_ROPE = "forward_absorb_fused_mla_rope_prepare"
_AFTER_LATENT = (Chain.MLA, Chain.MLA_NSA, Chain.MHA, Chain.MHA_NSA, Chain.CORE)


class Fault(Exception):
    """What was seen instead. ``function`` is the one of the tree that it is about."""

    def __init__(self, what: str, function: Any) -> None:
        super().__init__(what)
        self.function = function


def drive_behind(case: BehindCase, island: Island, world: World) -> None:
    """Raises the tree's own error, or Fault."""
    world.gather = None
    needs = NEEDS.get(case.situation)
    if needs is not None and needs not in island.sources.modules:
        raise NotDriven(f"the tree has no {needs}")
    _SITUATIONS[case.situation](Driver(case, island, world))


def _prefix(driver: Driver) -> None:
    """The KV cache gives more rows than the batch has."""
    prepare, s, rows = driver.entry(NORMAL).prepare, driver.shape, _PREFIX + driver.m
    width, read = s.heads * (s.nope + s.v), driver.draw("read back")
    kv_b = driver.linear(
        "kv_b", width, s.kv_lora, then=lambda o: read(o.shape[0], width)
    )
    layer = driver.attention(
        prepare,
        kv_b_proj=kv_b,
        indexer=Anything("indexer"),
        dcp_size=1,
        kv_cache_dtype="auto",
    )
    driver.linears.load()
    cached = read(rows, s.kv_lora), read(rows, 1, s.rope)
    for name in dir(type(layer)):
        if name.startswith("_get_mla_kv_buffer"):
            vars(layer)[name] = lambda *_: cached
        elif name.startswith("_set_mla_kv_buffer"):
            vars(layer)[name] = lambda *_: None
    batch: Any = Anything("forward_batch")
    batch.mha_one_shot = True
    batch.extend_prefix_lens_cpu = [_PREFIX]
    q, k, *_ = driver.call(
        getattr(layer, prepare),
        positions=None,
        hidden_states=driver.hidden(),
        forward_batch=batch,
    )
    if (q.shape[0], k.shape[0]) != (driver.m, rows):
        what = f"{k.shape[0]} keys for a prefix and batch of {rows} rows"
        raise Fault(what, getattr(type(layer), prepare))


def _lora(driver: Driver) -> None:
    """The tree's own correction adds to what the absorbed BMM returns."""
    core, s = driver.entry(ABSORBED).core, driver.shape
    importlib.import_module(LORA_MODULE)
    attended = driver.draw("attended")(driver.m, s.heads * s.kv_lora)
    adapter = Unquantized(driver.draw("adapted"), *driver.sizes()["kv_b_proj"])
    buffers = torch.zeros(1), torch.zeros(1)
    vars(adapter).update(
        set_lora=True,
        A_buffer=buffers[0],
        B_buffer=buffers[1],
        lora_backend=SimpleNamespace(batch_info=Anything("batch info")),
    )
    layer = driver.attention(
        core, attn_mqa=lambda *_, **__: attended, kv_b_proj=adapter
    )
    driver.linears.load()
    draw = driver.draw("core")
    driver.call(
        getattr(layer, core),
        q_pe=draw(driver.m, s.heads, s.rope),
        k_pe=draw(driver.m, 1, s.rope),
        q_nope_out=draw(driver.m, s.heads, s.kv_lora),
        k_nope=draw(driver.m, 1, s.kv_lora),
        topk_indices=None,
        llama_4_scaling=None,
    )


def _bf16_wk(driver: Driver) -> None:
    """The attention input goes to a wk that the checkpoint leaves in bf16."""
    x, s = DecoderPass(driver).prepared(), driver.shape
    indexer = driver.indexer_layer(Bf16(driver.draw("wk"), s.wk, s.hidden))
    if not hasattr(type(indexer), _WRITER):
        # Before the fused writer, wk is read where the key is made.
        driver.call(getattr(indexer, _KEY), x=x, positions=None)
        return
    vars(indexer).update(
        n_heads=2,
        softmax_scale=1.0,
        wq_b=Unquantized(driver.draw("q"), 2 * s.wk, 1),
        k_norm=Anything("k_norm"),
        _aiter_fused_fp8_rope_caches=lambda *_: (None, None),
    )
    driver.call(
        getattr(indexer, _WRITER), x=x, q_lora=driver.draw("q_lora")(driver.m, s.q_lora)
    )


def _bf16_projection(driver: Driver) -> None:
    """Each projection after the latent in turn is one that the checkpoint leaves in
    bf16, beside others in block FP8. Whoever hands it a pair asked another one."""
    for chain in _AFTER_LATENT:
        case = replace(driver.case, chain=chain)
        for name in chain.sites:
            Driver(case, driver.island, driver.world, bf16=name).run()


def _fused_rope(driver: Driver) -> None:
    """The fused decode gets the attention input."""
    x, s = DecoderPass(driver).prepared(), driver.shape
    module: Any = importlib.import_module(FUSED_ROPE_MODULE)
    prepare = getattr(module.DeepseekMLAFusedRopeRocmForwardMixin, _ROPE)
    draw = driver.draw("fused rope")

    def projection(width: int) -> Unquantized:
        return Unquantized(draw, width, 1)

    layer = driver.attention(
        _ROPE,
        fused_qkv_a_proj_with_mqa=projection(s.q_lora + s.kv_lora + s.rope),
        q_b_proj=projection(s.heads * (s.nope + s.rope)),
        kv_b_proj=projection(1),
        o_proj=projection(1),
        w_kc=torch.zeros(s.heads, s.nope, s.kv_lora, device=driver.world.device),
        w_scale=1.0,
        rotary_emb=Anything("rotary embedding"),
    )
    batch: Any = Anything("forward_batch")
    batch.batch_size = driver.m
    before = module.get_attn_backend
    module.get_attn_backend = lambda: SimpleNamespace(
        forward_metadata=(None,) * 7, num_kv_splits=1
    )
    try:
        arguments = {"hidden_states": x, "forward_batch": batch}
        q_input = driver.call(prepare.__get__(layer), **arguments)[0]
    finally:
        module.get_attn_backend = before
    if q_input.dtype != torch.bfloat16:
        raise Fault(f"q is kept in {q_input.dtype}, without a scale", prepare)


def _subclass(driver: Driver) -> None:
    """The constructor of a subclass, which may add gates and norms, comes first."""
    guard = importlib.import_module(_GUARD)._is_block_scale_fp8
    kind: Any = driver.attention_class(driver.entry(ABSORBED).prepare)
    q_b = driver.linear("q_b", *driver.sizes()["q_b_proj"])
    driver.linears.load()
    if not guard(q_b):
        return
    if "keep_bf16_input" not in kind.__init__.__code__.co_names:
        what = (
            "the constructor treats a subclass as it treats itself: its gates and "
            "norms get (fp8, scale)"
        )
        raise Fault(what, kind.__init__)
    q_b.keep_bf16_input = True
    if guard(q_b):
        raise Fault("a projection that keeps bf16 is handed (fp8, scale)", guard)


def _small_m(driver: Driver) -> None:
    """q_b has a shape that the small-M GEMM serves: GLM's at TP=4."""
    if SMALL_M_MODULE not in driver.island.sources.modules:
        raise NotDriven(f"the tree has no {SMALL_M_MODULE}")
    module: Any = importlib.import_module(SMALL_M_MODULE)
    real, tables = module.try_smallm_fp8_bs_linear, module.SHAPES
    served: list[int] = []

    def tried(x: Any, weight: Any, scale: Any, *only_ask: bool) -> Any:
        if any(only_ask):
            return real(x, weight, scale, *only_ask)
        table = tables.get(tuple(weight.shape), ())
        if not any(x.shape[0] <= most for most, *_ in table):
            return None
        served.append(x.shape[0])
        return x.new_zeros(x.shape[0], weight.shape[0])

    driver.shape = replace(driver.shape, heads=16, nope=192, rope=64, q_lora=2048)
    module.try_smallm_fp8_bs_linear = tried
    try:
        for rows, wanted in ((32, [32]), (33, [])):
            served.clear()
            driver.m = rows
            driver.mla()
            if served != wanted:
                how = "does not reach" if wanted else "reaches"
                what = f"q_b_proj of {rows} rows {how} the small-M GEMM"
                prepare = driver.entry(ABSORBED).prepare
                raise Fault(what, getattr(driver.attention_class(prepare), prepare))
    finally:
        module.try_smallm_fp8_bs_linear = real


_SITUATIONS: dict[Behind, Callable[[Driver], None]] = {
    Behind.PREFIX: _prefix,
    Behind.LORA: _lora,
    Behind.BF16_WK: _bf16_wk,
    Behind.BF16_PROJECTION: _bf16_projection,
    Behind.FUSED_ROPE: _fused_rope,
    Behind.SUBCLASS: _subclass,
    Behind.SMALL_M: _small_m,
}
