"""More broken trees: producers given another projection, and other code that makes,
marks or changes a scale between its kernel and its GEMM.

Most of these leave every byte that is read right. They are unrequested copies, marks
and quantizations in places without a call of a kernel.
"""

from __future__ import annotations

from xscale.numeric import Case, Chain, Switch, Variant
from xscale.numeric.cases import APART

from .mutants import CALLS, Edit, Mutant
from .test_numeric import COMMUNICATOR, FP8_UTILS, MHA, MLA, SCALE, SRT

INDEXER = f"{SRT}/layers/attention/nsa/nsa_indexer.py"
LAYER = f"{SRT}/models/deepseek_v2.py"
LINEAR = f"{SRT}/layers/linear.py"
METHOD = f"{SRT}/layers/quantization/fp8.py"
HELPER = f"{SRT}/layers/utils/scale_helpers.py"
_MARK = "_aiter_bpreshuffle_layout"

_INPUT_NSA = (Case(Chain.INPUT_NSA, 3),)
_RESIDUAL_NSA = (Case(Chain.RESIDUAL_NSA, 3),)
_NSA = _INPUT_NSA + _RESIDUAL_NSA
_BOTH = frozenset({"S1", "S2"})


def _apart(site: str) -> tuple[Case, ...]:
    """The cases in which the site's projection has another GEMM than the rest."""
    return tuple(
        Case(chain, 3, shape)
        for shape in APART
        for chain in shape.chains or ()
        if site in chain.sites.values()
    )


def _other_projection(site: str, projection: str, of: str) -> Mutant:
    """A producer that asks about a projection that does not read its scale."""
    return Mutant(
        f"{site} given {projection}",
        f"{site} asks about a projection that does not read its scale",
        (CALLS[site].with_projection(of),),
        frozenset({site}),
        _apart(site),
    )


def _of_layer(projection: str) -> str:
    return f'getattr(self.qkv_latent_func.__self__, "{projection}", None)'


OTHER_PROJECTIONS = (
    _other_projection("S1", "wk", f'getattr({_of_layer("indexer")}, "wk", None)'),
    _other_projection("S1", "q_b", _of_layer("q_b_proj")),
    _other_projection("S2", "wk", f'getattr({_of_layer("indexer")}, "wk", None)'),
    _other_projection("S2", "o_proj", _of_layer("o_proj")),
    *(
        _other_projection(site, projection, f"self.{projection}_proj")
        for site, projections in (
            ("S3", ("kv_b",)),
            ("S4", ("kv_b",)),
            ("S5", ("kv_b",)),
            ("S6", ("kv_b",)),
            ("S7", ("q_b",)),
            ("S8", ("q_b", "kv_b")),
        )
        for projection in projections
    ),
)
"""Each producer once. Another test checks that the shapes distinguish all pairs."""


# --- between kernel and GEMM --------------------------------------------------------

_GATHERS = "local_hidden_states = local_hidden_states.contiguous()"
_GATHERS_ALL = tuple(Case(chain, m) for chain in Chain if chain.gathers for m in (3, 4))
_KEY_ALONE = "        # Compute only key, skip query\n        key, _ = self.wk(x)"
_KEY = (
    "            key, _ = self.wk(x)\n"
    "            key = self.k_norm(key)\n"
    "            k_rope, _ = torch.split(\n"
    "                key, [self.rope_head_dim, self.head_dim - self.rope_head_dim], "
    "dim=-1\n"
    "            )\n"
    "\n"
)
_CALLS_ATTENTION = (
    "        hidden_states = self.self_attn(\n            positions=positions,"
)
_LAYER_CLASS = "\nclass DeepseekV2DecoderLayer(nn.Module):"
_LOCAL = "        self.hidden_states_local = hidden_states\n"
_LATENT = (
    "            qkv_latent = self.fused_qkv_a_proj_with_mqa(hidden_states)[0]\n"
    "        return"
)
_NORMED = "        hidden_states = self._communicate_simple_fn(\n"
_Q_B = (
    "                k_nope = k_nope.unsqueeze(1)\n"
    "                q = self.q_b_proj(q)[0]"
)
_STREAM = (
    "                with torch.cuda.stream(self.alt_stream):\n"
    "                    k_nope = k_nope.unsqueeze(1)\n"
)
_MHA_INDEXER = "                _ = self.indexer(\n"
_GIVES = "for_gemm = for_ck if bpreshuffle else x_scale"
_UNMARKED = "    if not getattr(x_scale, _MARKER, False):\n"
_APPLIES = (
    "            if isinstance(x, tuple):\n"
    "                return self.w8a8_block_fp8_linear("
)
_ROW_INPUT = (
    "            input_parallel = splitted_input[self.tp_rank].contiguous()\n"
    "\n"
    "        # Matrix multiply.\n"
    "        assert self.quant_method is not None\n"
    "        # Only fuse bias"
)
_GEMM_CALL = (
    "        dtype=torch.bfloat16 if input_scale is not None else input.dtype,\n"
    "    )\n"
    "\n"
    "    if bias is not None:\n"
    "        output += bias\n"
    "\n"
    "    return output.to(\n"
    "        dtype=torch.bfloat16 if input_scale is not None else input_2d.dtype\n"
)
_PLAIN = (
    "    if not _wants_transposed(quant, projection, kwargs):\n"
    "        return quant(*args, **kwargs)\n"
)


def _layer(name: str, broken: str, code: str, **more: object) -> Mutant:
    """Code in the decoder layer, between prepare_attn and the attention."""
    fields = {"sites": _BOTH, "cases": _NSA, **more}
    edit = Edit(LAYER, _CALLS_ATTENTION, code + _CALLS_ATTENTION)
    return Mutant(name, broken, (edit,), **fields)  # type: ignore[arg-type]


def _communicator(name: str, broken: str, code: str, **more: object) -> Mutant:
    """Code at the end of prepare_attn's norm, before the gather."""
    fields = {"sites": _BOTH, "cases": _NSA, **more}
    edit = Edit(COMMUNICATOR, f"\n{_NORMED}", f"\n{code}{_NORMED}")
    return Mutant(name, broken, (edit,), **fields)  # type: ignore[arg-type]


def _helper(name: str, broken: str, body: str) -> Mutant:
    """A separate module, which the decoder layer passes the input to."""
    used = "        tidy(hidden_states)\n"
    imported = "\nfrom sglang.srt.layers.utils.scale_helpers import tidy\n\n"
    return Mutant(
        name,
        broken,
        (
            Edit(HELPER, "", body),
            Edit(LAYER, _CALLS_ATTENTION, used + _CALLS_ATTENTION),
            Edit(LAYER, _LAYER_CLASS, f"{imported}{_LAYER_CLASS}"),
        ),
        _BOTH,
        _NSA,
    )


REMAKING = (
    Mutant(
        "gather made row-major for pairs alone",
        "a triple's scale is gathered as it is",
        (
            Edit(
                COMMUNICATOR,
                _GATHERS,
                f"{_GATHERS} if len(hidden_states) == 2 else local_hidden_states",
            ),
        ),
        frozenset({"gather"}),
        _GATHERS_ALL,
    ),
    Mutant(
        "gather made row-major for triples alone",
        "a pair's scale is gathered as it is",
        (
            Edit(
                COMMUNICATOR,
                _GATHERS,
                f"{_GATHERS} if len(hidden_states) == 3 else local_hidden_states",
            ),
        ),
        frozenset({"gather"}),
        _GATHERS_ALL,
    ),
    Mutant(
        "indexer re-lays the scale",
        "wk is given a row-major copy",
        (Edit(INDEXER, _KEY, _KEY.replace("(x)", "((x[0], x[1].contiguous()))", 1)),),
        _BOTH,
        _NSA,
    ),
    Mutant(
        "indexer re-lays the scale for keys alone",
        "wk is given a row-major copy where a prefill is short",
        (
            Edit(
                INDEXER,
                _KEY_ALONE,
                _KEY_ALONE.replace("(x)", "((x[0], x[1].contiguous()))"),
            ),
        ),
        frozenset({"S2"}),
        (*_RESIDUAL_NSA, Case(Chain.PREFILL_NSA, 3)),
    ),
    Mutant(
        "indexer quantizes once more",
        "wk is given the unquantized output although there is a scale",
        (Edit(INDEXER, _KEY, _KEY.replace("(x)", "(x[2])", 1)),),
        _BOTH,
        _NSA,
    ),
    Mutant(
        "indexer re-lays and marks",
        "a copy with honest strides, with the mark copied to it",
        (
            Edit(
                INDEXER,
                _KEY,
                "            scale = x[1].t().contiguous().t()\n"
                "            vars(scale).update(vars(x[1]))\n"
                + _KEY.replace("(x)", "((x[0], scale))", 1),
            ),
        ),
        _BOTH,
        _NSA,
    ),
    _layer(
        "decoder layer clones the scale",
        "wk gets a clone; qkv_a the original",
        "        hidden_states = (\n"
        "            hidden_states[0], hidden_states[1].clone(), *hidden_states[2:]\n"
        "        )\n",
    ),
    _layer(
        "decoder layer writes the scale over itself",
        "the same values, in place",
        "        hidden_states[1].copy_(hidden_states[1].clone())\n",
    ),
    _layer(
        "decoder layer drops the scale",
        "the attention is given the unquantized output alone",
        "        hidden_states = hidden_states[2]\n",
    ),
    Mutant(
        "attention inputs are cloned",
        "qkv_a is given clones of values and scale",
        (
            Edit(
                COMMUNICATOR,
                _LOCAL,
                "        self.hidden_states_local = tuple(\n"
                "            one.clone() for one in hidden_states\n"
                "        )\n",
            ),
        ),
        _BOTH,
        _NSA,
    ),
    Mutant(
        "latent of the unquantized output",
        "qkv_a quantizes once more although there is a scale",
        (
            Edit(
                LAYER, _LATENT, _LATENT.replace("(hidden_states)", "(hidden_states[2])")
            ),
        ),
        _BOTH,
        _NSA,
    ),
    _communicator(
        "communicator re-lays the scale",
        "a copy with honest strides",
        "        hidden_states = (\n"
        "            hidden_states[0],\n"
        "            hidden_states[1].t().contiguous().t(),\n"
        "            *hidden_states[2:],\n"
        "        )\n",
    ),
    _communicator(
        "communicator quantizes without need",
        "the unquantized output is quantized once more, and dropped",
        "        hidden_states[2].float().to(torch.float8_e4m3fn)\n",
    ),
    Mutant(
        "q's scale re-made before q_b",
        "forward_mla copies it",
        (
            Edit(
                MLA,
                _Q_B,
                "                q = (q[0], q[1].contiguous())\n" + _Q_B,
            ),
        ),
        frozenset({"S3", "S4"}),
        (Case(Chain.MLA, 3), Case(Chain.MLA_NSA, 3)),
    ),
    Mutant(
        "the input's scale re-made beside q_b",
        "forward_mla copies it for the indexer, on two streams",
        (
            Edit(
                MLA,
                _STREAM,
                "                hidden_states = (\n"
                "                    hidden_states[0], hidden_states[1].contiguous()\n"
                "                )\n" + _STREAM,
            ),
        ),
        frozenset({"S2"}),
        (*_RESIDUAL_NSA, Case(Chain.STREAMS_NSA, 3)),
    ),
    Mutant(
        "the input's scale re-made in prefill",
        "forward_mha copies it for the indexer",
        (
            Edit(
                MHA,
                _MHA_INDEXER,
                "                hidden_states = (\n"
                "                    hidden_states[0], hidden_states[1].contiguous()\n"
                "                )\n" + _MHA_INDEXER,
            ),
        ),
        frozenset({"S2"}),
        (*_RESIDUAL_NSA, Case(Chain.PREFILL_NSA, 3)),
    ),
    Mutant(
        "linear method re-lays the scale",
        "each linear copies it before its GEMM",
        (
            Edit(
                METHOD,
                _APPLIES,
                _APPLIES.replace(
                    "                return",
                    "                x = (x[0], x[1].contiguous())\n"
                    "                return",
                ),
            ),
        ),
        frozenset({"S2", "S4", "S8"}),
        (*_RESIDUAL_NSA, Case(Chain.MLA, 3), Case(Chain.CORE, 3)),
    ),
    Mutant(
        "row-parallel linear makes its input contiguous",
        "o_proj's scale is copied",
        (
            Edit(
                LINEAR,
                _ROW_INPUT,
                _ROW_INPUT.replace(
                    "\n\n",
                    "\n"
                    "        if isinstance(input_parallel, tuple):\n"
                    "            input_parallel = tuple(\n"
                    "                one.contiguous() for one in input_parallel\n"
                    "            )\n\n",
                    1,
                ),
            ),
        ),
        frozenset({"S8"}),
        (Case(Chain.CORE, 3), Case(Chain.MLA, 3)),
    ),
    Mutant(
        "consumer writes into the scale",
        "the same values once more, after its GEMM",
        (
            Edit(
                FP8_UTILS,
                _GEMM_CALL,
                _GEMM_CALL.replace(
                    "    )\n\n",
                    "    )\n"
                    "    if input_scale is not None:\n"
                    "        input_scale.mul_(1.0)\n\n",
                    1,
                ),
            ),
        ),
        frozenset({"S2", "S4"}),
        (*_RESIDUAL_NSA, Case(Chain.MLA, 3)),
    ),
    Mutant(
        "consumer writes past PyTorch",
        "it doubles the scale through NumPy, after the last GEMM",
        (
            Edit(
                FP8_UTILS,
                _GEMM_CALL,
                _GEMM_CALL.replace(
                    "    )\n\n",
                    "    )\n"
                    "    if input_scale is not None and n == 512:\n"
                    "        input_scale.numpy()[...] *= 2\n\n",
                    1,
                ),
            ),
        ),
        frozenset({"S4"}),
        (Case(Chain.MLA, 3),),
    ),
    _helper(
        "a helper elsewhere writes into the scale",
        "in a module that does not mention scales",
        "def tidy(x):\n    x[1].copy_(x[1].contiguous())\n",
    ),
)

MARKING = (
    _helper(
        "a helper elsewhere marks",
        "in a module that does not spell the mark out",
        'def tidy(x):\n    setattr(x[1], "_aiter_" + "bpreshuffle_layout", True)\n',
    ),
    _communicator(
        "communicator marks again",
        "a marked scale, by functools.partial",
        "        import functools\n"
        "\n"
        "        mark = functools.partial(setattr, hidden_states[1])\n"
        f'        mark("{_MARK}", True)\n',
    ),
    _communicator(
        "communicator marks a row-major scale",
        "with the switch at 0, where one row or group hides it from the consumer",
        f"        hidden_states[1].{_MARK} = True\n",
        cases=tuple(
            Case(c, 1, switch=Switch.OFF) for c in (Chain.INPUT_NSA, Chain.RESIDUAL_NSA)
        ),
    ),
    _layer(
        "mark copied to a view",
        "bypassing setattr, on a slice of the whole scale",
        "        scale = hidden_states[1][:]\n"
        f'        scale.__dict__["{_MARK}"] = True\n'
        "        hidden_states = (hidden_states[0], scale, *hidden_states[2:])\n",
    ),
    Mutant(
        "consumer clears the mark alone",
        "the next reader copies, or there is no other reader",
        (Edit(SCALE, _GIVES, f"{_GIVES}\n    delattr(x_scale, _MARKER)"),),
        frozenset({"S1", "S4"}),
        (*_INPUT_NSA, Case(Chain.MLA, 3)),
    ),
    Mutant(
        "consumer clears the mark without delattr",
        "it removes it from the tensor's dictionary",
        (Edit(SCALE, _GIVES, f"{_GIVES}\n    vars(x_scale).pop(_MARKER)"),),
        frozenset({"S1", "S4"}),
        (*_INPUT_NSA, Case(Chain.MLA, 3)),
    ),
    Mutant(
        "a second function that marks",
        "the consumer checks strides, and marks what looks transposed",
        (
            Edit(
                SCALE,
                _UNMARKED,
                "    if x_scale.t().is_contiguous():\n"
                "        setattr(x_scale, _MARKER, True)\n" + _UNMARKED,
            ),
        ),
        frozenset({"S1", "S4"}),
        (*_INPUT_NSA, Case(Chain.MLA, 3)),
    ),
    Mutant(
        "re-laid and marked where AITER cannot",
        "the adapter copies a row-major scale and marks the copy",
        (
            Edit(
                SCALE,
                _PLAIN,
                "    if not _wants_transposed(quant, projection, kwargs):\n"
                "        outputs = quant(*args, **kwargs)\n"
                "        if isinstance(outputs[0], tuple) or not (\n"
                "            _consumer_reads_transposed(projection)\n"
                "        ):\n"
                "            return outputs\n"
                "        scale = outputs[1].t().contiguous().t()\n"
                "        setattr(scale, _MARKER, True)\n"
                "        return outputs[0], scale\n",
            ),
        ),
        frozenset({"S8"}),
        (Case(Chain.CORE, 3, variant=Variant.NO_FLATTEN),),
    ),
)

MEDDLERS = (*OTHER_PROJECTIONS, *REMAKING, *MARKING)
