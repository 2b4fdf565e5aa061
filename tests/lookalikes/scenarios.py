"""The ways in which upstream can make a hunk's place look like another's.

All of them are edits on the pinned release's own files, so that the series' own
patches are what is applied. A scenario says what the right answer is; the runner
finds out what each tool answers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from lookalikes.edits import above, below, deeper, drop, put, swap, take

Files = dict[str, str]

_METHODS = "python/sglang/srt/models/deepseek_common/attention_forward_methods"
COMMUNICATOR = "python/sglang/srt/layers/communicator.py"
FP8_UTILS = "python/sglang/srt/layers/quantization/fp8_utils.py"
MLA = f"{_METHODS}/forward_mla.py"
MHA = f"{_METHODS}/forward_mha.py"
MLA_ROCM = f"{_METHODS}/forward_mla_rocm.py"

ATTN = "LayerCommunicator.prepare_attn"
LINEAR = "aiter_w8a8_block_fp8_linear"
CORE = "DeepseekMLAForwardMixin.forward_absorb_core"
NOWHERE = ""


@dataclass(frozen=True)
class Scenario:
    """One drift and its right answer.

    ``lands`` says whether the engine must put all hunks in; ``states`` are those of
    the hunks that make it refuse, or all of them where it lands. ``homes`` names the
    scope in which an edit belongs by now, where it is not the pinned one, or NOWHERE;
    ``moved`` the file. What ``copy`` begins and ends with is a copy, in the right
    scope, of the place that is meant. ``upstream`` numbers the hunks that upstream has
    taken. ``nested`` files lie in a plain folder of somebody else's repository, and
    not in a clone.
    """

    name: str
    what: str
    patch: str
    path: str
    drift: Callable[[Files], None]
    lands: bool
    states: frozenset[str]
    homes: Mapping[str, str] = field(default_factory=dict)
    moved: str = ""
    copy: tuple[str, str] | None = None
    upstream: tuple[int, ...] = ()
    nested: bool = False


SCENARIOS: list[Scenario] = []


def _scenario(
    what: str,
    patch: str,
    path: str,
    states: str,
    *,
    lands: bool = False,
    homes: Mapping[str, str] | None = None,
    moved: str = "",
    copy: tuple[str, str] | None = None,
    upstream: tuple[int, ...] = (),
    nested: bool = False,
) -> Callable[[Callable[[Files], None]], Callable[[Files], None]]:
    def add(drift: Callable[[Files], None]) -> Callable[[Files], None]:
        name = drift.__name__.replace("_", "-")
        wanted = frozenset(states.split(", "))
        SCENARIOS.append(
            Scenario(
                name, what, patch, path, drift, lands, wanted,
                homes or {}, moved, copy, upstream, nested,
            )
        )  # fmt: skip
        return drift

    return add


# What upstream does to the code that the hunks are about.


def _rewrite_attn(text: str) -> str:
    """prepare_attn as upstream might rewrite it: one helper for both branches."""
    body = take(text, ATTN)
    return put(text, ATTN, swap(body, "_unq_bf16", "unquantized", 4))


def _twin_communicator(text: str, name: str = "TboLayerCommunicator") -> str:
    """A second class that differs from LayerCommunicator by its name alone."""
    block = take(text, "LayerCommunicator")
    return swap(block, "class LayerCommunicator:", f"class {name}:")


def _rewrite_linear(text: str) -> str:
    """The linear function under other local names."""
    body = take(text, LINEAR)
    return put(text, LINEAR, body.replace("x_scale", "act_scale"))


def _twin_linear(text: str, name: str = "aiter_w8a8_block_int8_linear") -> str:
    return swap(take(text, LINEAR), f"def {LINEAR}(", f"def {name}(")


def _twin_core(text: str, name: str = "forward_absorb_core_cuda") -> str:
    return swap(take(text, CORE), "def forward_absorb_core(", f"def {name}(")


_CONSUMER = """\
    # if input_scale not None, input is quanted
    if input_scale is not None:
        q_input = input_2d
        x_scale = input_scale
        if not use_triton:
            x_scale = x_scale.transpose(-1, -2).contiguous().view(*x_scale.shape)
    else:
        q_input, x_scale = aiter_per1x128_quant(
            input_2d,
            quant_dtype=aiter.dtypes.fp8,
            transpose_scale=not use_triton,
        )
"""
_FLATTEN = """\
                attn_bmm_output = attn_bmm_output.transpose(0, 1)
                attn_bmm_output = fused_flatten_fp8_group_quant(
                    attn_bmm_output, group_size=128, dtype_quant=torch.float8_e4m3fn
                )
"""


# A twin, and what became of the original.


@_scenario(
    "a twin class above the original, the original rewritten",
    "0002", COMMUNICATOR, "conflict, misplaced",
)  # fmt: skip
def twin_above_original_rewritten(files: Files) -> None:
    text = files[COMMUNICATOR]
    twin = _twin_communicator(text)
    files[COMMUNICATOR] = above(_rewrite_attn(text), "LayerCommunicator", twin)


@_scenario(
    "a twin class below the original, the original rewritten",
    "0002", COMMUNICATOR, "conflict, misplaced",
)  # fmt: skip
def twin_below_original_rewritten(files: Files) -> None:
    text = files[COMMUNICATOR]
    twin = _twin_communicator(text)
    files[COMMUNICATOR] = below(_rewrite_attn(text), "LayerCommunicator", twin)


@_scenario(
    "a twin class above the original, the original as it was",
    "0002", COMMUNICATOR, "clean, offset", lands=True,
)  # fmt: skip
def twin_above_original_intact(files: Files) -> None:
    text = files[COMMUNICATOR]
    twin = _twin_communicator(text)
    files[COMMUNICATOR] = above(text, "LayerCommunicator", twin)


@_scenario(
    "classes reordered: a twin in the original's place, the original at the end",
    "0002", COMMUNICATOR, "misplaced",
)  # fmt: skip
def classes_reordered(files: Files) -> None:
    text = files[COMMUNICATOR]
    original = take(text, "LayerCommunicator")
    text = put(text, "LayerCommunicator", _twin_communicator(text))
    files[COMMUNICATOR] = text + "\n\n" + original


@_scenario(
    "the original deleted, a twin left in its place",
    "0002", COMMUNICATOR, "misplaced", homes={ATTN: NOWHERE},
)  # fmt: skip
def original_deleted(files: Files) -> None:
    text = files[COMMUNICATOR]
    files[COMMUNICATOR] = put(text, "LayerCommunicator", _twin_communicator(text))


@_scenario(
    "names traded: the original has the twin's name, a rewritten class has its own",
    "0002", COMMUNICATOR, "conflict, misplaced", homes={ATTN: NOWHERE},
)  # fmt: skip
def names_traded(files: Files) -> None:
    text = files[COMMUNICATOR]
    successor = take(_rewrite_attn(text), "LayerCommunicator")
    text = put(text, "LayerCommunicator", _twin_communicator(text))
    files[COMMUNICATOR] = below(text, "TboLayerCommunicator", successor)


@_scenario(
    "a function rewritten, a twin of its old self above",
    "0001", FP8_UTILS, "misplaced",
)  # fmt: skip
def function_rewritten(files: Files) -> None:
    text = files[FP8_UTILS]
    files[FP8_UTILS] = above(_rewrite_linear(text), LINEAR, _twin_linear(text))


@_scenario(
    "the same class defined twice: an old copy above, the rewritten one below",
    "0002", COMMUNICATOR, "ambiguous",
    homes={ATTN: "LayerCommunicator#2.prepare_attn"},
)  # fmt: skip
def defined_twice(files: Files) -> None:
    text = files[COMMUNICATOR]
    old = take(text, "LayerCommunicator")
    files[COMMUNICATOR] = above(_rewrite_attn(text), "LayerCommunicator", old)


@_scenario(
    "the same method defined twice in its class, the rewritten one last",
    "0002", COMMUNICATOR, "ambiguous",
    homes={ATTN: "LayerCommunicator.prepare_attn#2"},
)  # fmt: skip
def method_defined_twice(files: Files) -> None:
    text = files[COMMUNICATOR]
    old = take(text, ATTN)
    files[COMMUNICATOR] = above(_rewrite_attn(text), ATTN, old)


@_scenario(
    "the function defined in an if and in its else",
    "0001", FP8_UTILS, "conflict", homes={LINEAR: NOWHERE},
)  # fmt: skip
def defined_in_if_and_else(files: Files) -> None:
    text = files[FP8_UTILS]
    old = take(text, LINEAR)
    new = take(_rewrite_linear(text), LINEAR)
    both = f"if _use_new_linear:\n{deeper(new)}\nelse:\n{deeper(old)}"
    files[FP8_UTILS] = put(text, LINEAR, both)


# Files.


@_scenario(
    "the class moved to another file, a twin stays",
    "0002", COMMUNICATOR, "misplaced", homes={ATTN: NOWHERE},
)  # fmt: skip
def moved_to_another_file(files: Files) -> None:
    text = files[COMMUNICATOR]
    place = COMMUNICATOR.replace("communicator.py", "layer_communicator.py")
    head = text[: text.index("def _fused_rmsnorm_fp8_per_token_quant(")]
    files[place] = head + "\n" + take(text, "LayerCommunicator")
    files[COMMUNICATOR] = put(text, "LayerCommunicator", _twin_communicator(text))


_NEW_PLACE = COMMUNICATOR.replace("layers/", "layers/communication/")
_OLD_COPY = COMMUNICATOR.replace("layers/", "layers/legacy/")


@_scenario(
    "the file renamed",
    "0002", COMMUNICATOR, "renamed", lands=True, moved=_NEW_PLACE,
)  # fmt: skip
def file_renamed(files: Files) -> None:
    files[_NEW_PLACE] = files.pop(COMMUNICATOR)


@_scenario(
    "the file renamed and rewritten, an old copy kept elsewhere",
    "0002", COMMUNICATOR, "gone", moved=_NEW_PLACE,
)  # fmt: skip
def file_renamed_old_copy_kept(files: Files) -> None:
    text = files.pop(COMMUNICATOR)
    files[_OLD_COPY] = text
    files[_NEW_PLACE] = _rewrite_attn(text)


def _split_mla(files: Files, left: str) -> None:
    """Move forward_absorb_core to a file of its own; leave ``left``."""
    text = files[MLA]
    head = text[: text.index("    def init_mla_forward(")]
    files[MLA_ROCM] = head + take(text, CORE)
    files[MLA] = put(text, CORE, left) if left else drop(text, CORE)


@_scenario(
    "the file split: the function moved to NAME_rocm.py",
    "0005", MLA, "gone", moved=MLA_ROCM,
)  # fmt: skip
def file_split(files: Files) -> None:
    _split_mla(files, "")


@_scenario(
    "the file split: the function moved to NAME_rocm.py, a twin left",
    "0005", MLA, "misplaced", moved=MLA_ROCM,
)  # fmt: skip
def file_split_twin_left(files: Files) -> None:
    _split_mla(files, _twin_core(files[MLA]))


@_scenario(
    "the file replaced by NAME_rocm.py and NAME_cuda.py, both with the function",
    "0005", MLA, "gone", moved=MLA_ROCM,
)  # fmt: skip
def file_replaced_by_two(files: Files) -> None:
    text = files.pop(MLA)
    files[MLA_ROCM] = put(text, CORE, take(text, CORE).replace("128", "group_size"))
    files[MLA.replace(".py", "_cuda.py")] = text


# Upstream did it too.


@_scenario(
    "already upstream, word for word",
    "0002", COMMUNICATOR, "upstreamed", lands=True, upstream=(1, 2, 3, 4),
)  # fmt: skip
def upstreamed(files: Files) -> None:
    """Nothing but the hunks themselves."""


@_scenario(
    "already upstream, in other words",
    "0001", FP8_UTILS, "conflict",
)  # fmt: skip
def superseded(files: Files) -> None:
    old = _CONSUMER.splitlines(True)[3:6]
    new = (
        "        x_scale = input_scale\n"
        "        if not use_triton and not is_column_major(x_scale):\n"
        "            x_scale = x_scale.t().contiguous().view(*x_scale.shape)\n"
    )
    files[FP8_UTILS] = swap(files[FP8_UTILS], "".join(old), new)


@_scenario(
    "partly upstream: two hunks of four",
    "0002", COMMUNICATOR, "clean, upstreamed", lands=True, upstream=(1, 2),
)  # fmt: skip
def partly_upstreamed(files: Files) -> None:
    """Nothing but the hunks themselves."""


@_scenario(
    "upstream made the change in another branch, and rewrote this one",
    "0004", MHA, "conflict",
)  # fmt: skip
def upstreamed_in_another_branch(files: Files) -> None:
    text = files[MHA]
    text = swap(
        text,
        "                q, _, _, _ = fused_rms_fp8_group_quant(\n",
        "                q, *_ = fused_rms_fp8_group_quant(\n",
    )
    files[MHA] = swap(
        text,
        "                    q_quanted, q_lora, _, _ = fused_rms_fp8_group_quant(\n",
        "                    q, _, _, _ = quant_pretransposed_scale(\n"
        "                        fused_rms_fp8_group_quant,\n",
    )


# Upstream moved the block within, or out of, its function.


@_scenario(
    "the block moved into an if",
    "0001", FP8_UTILS, "conflict",
)  # fmt: skip
def block_reindented(files: Files) -> None:
    guarded = "    if not _is_fp8_fnuz:\n" + deeper(_CONSUMER)
    files[FP8_UTILS] = swap(files[FP8_UTILS], _CONSUMER, guarded)


@_scenario(
    "the function split in two, the block in its new helper",
    "0001", FP8_UTILS, "conflict", homes={LINEAR: "_aiter_quantize_input"},
)  # fmt: skip
def function_split(files: Files) -> None:
    text = files[FP8_UTILS]
    call = (
        "    q_input, x_scale = _aiter_quantize_input(\n"
        "        input_2d, input_scale, use_triton\n"
        "    )\n"
    )
    helper = (
        "def _aiter_quantize_input(input_2d, input_scale, use_triton):\n"
        f"{_CONSUMER}    return q_input, x_scale\n"
    )
    files[FP8_UTILS] = above(swap(text, _CONSUMER, call), LINEAR, helper)


_COPY = ("    # The same again.\n", "    if use_triton:\n        gemm_a8w8")


@_scenario(
    "the block stands twice in its function",
    "0001", FP8_UTILS, "ambiguous", copy=_COPY,
)  # fmt: skip
def block_twice_in_its_function(files: Files) -> None:
    twice = f"{_CONSUMER}{_COPY[0]}{_CONSUMER}"
    files[FP8_UTILS] = swap(files[FP8_UTILS], _CONSUMER, twice)


@_scenario(
    "the block copied below within its function, the original rewritten",
    "0001", FP8_UTILS, "conflict", copy=_COPY,
)  # fmt: skip
def block_copied_original_rewritten(files: Files) -> None:
    new = _CONSUMER.replace("x_scale", "act_scale")
    files[FP8_UTILS] = swap(files[FP8_UTILS], _CONSUMER, f"{new}{_COPY[0]}{_CONSUMER}")


_GATHER = """\
            gathered_hidden_states = []
            for local_hidden_states in hidden_states:
                with use_symmetric_memory(
                    get_tp_group(),
                    disabled=not is_allocation_symmetric(),
                ):
                    output = torch.empty(
                        (
                            local_hidden_states.shape[0] * context.attn_tp_size,
                            *local_hidden_states.shape[1:],
                        ),
                        dtype=local_hidden_states.dtype,
                        device=local_hidden_states.device,
                    )
                attn_tp_all_gather_into_tensor(
                    output,
                    local_hidden_states,
                )
                gathered_hidden_states.append(output)
"""
_SAME_GUARD = ("    def _scattered_to_tp_attn_full(", "            # The original.\n")


@_scenario(
    "the block copied above, under the same if, the original rewritten",
    "0002", COMMUNICATOR, "ambiguous", copy=_SAME_GUARD,
)  # fmt: skip
def block_copied_under_the_same_if(files: Files) -> None:
    new = swap(_GATHER, "in hidden_states:", "in all_of(hidden_states):")
    new = swap(new, "with use_symmetric_memory(", "with symmetric_memory(")
    twice = f"{_GATHER}{_SAME_GUARD[1]}{new}"
    files[COMMUNICATOR] = swap(files[COMMUNICATOR], _GATHER, twice)


_IMPORTS = """\
    if _is_gfx95_supported:
        from aiter.ops.triton.fused_fp8_quant import fused_rms_fp8_group_quant

        from sglang.srt.layers.quantization.rocm_mxfp4_utils import (
            fused_rms_mxfp4_quant,
        )
"""
_GUARD = "if _use_aiter:\n    from aiter.ops.rmsnorm import add_rmsnorm_quant"


@_scenario(
    "module level: the imports rewritten, a twin of them under another if",
    "0002", COMMUNICATOR, "misplaced",
    copy=("if _is_legacy_aiter:\n", "def _fused_rmsnorm_fp8_per_token_quant("),
)  # fmt: skip
def imports_under_another_if(files: Files) -> None:
    text = swap(
        files[COMMUNICATOR],
        _IMPORTS,
        "    if _is_gfx95_supported:\n"
        "        from aiter.ops.fused import fused_rms_fp8_group_quant\n"
        "        from aiter.ops.fused import fused_rms_mxfp4_quant\n",
    )
    marker = "def _fused_rmsnorm_fp8_per_token_quant("
    files[COMMUNICATOR] = swap(
        text, marker, f"if _is_legacy_aiter:\n{_IMPORTS}\n\n{marker}"
    )


# Harmless drift.


@_scenario(
    "an insertion far above",
    "0002", COMMUNICATOR, "offset", lands=True,
)  # fmt: skip
def insertion_far_above(files: Files) -> None:
    marker = "import logging\n"
    added = marker + "".join(f"import spare_{n}\n" for n in range(40))
    files[COMMUNICATOR] = swap(files[COMMUNICATOR], marker, added)


@_scenario(
    "a neighbouring line changed",
    "0002", COMMUNICATOR, "clean, merged", lands=True,
)  # fmt: skip
def neighbour_changed(files: Files) -> None:
    files[COMMUNICATOR] = swap(
        files[COMMUNICATOR],
        "                        # indexer can skip redundant FP8 dequantization.\n",
        "                        # indexer can skip one redundant dequantization.\n",
    )


@_scenario(
    "trailing blanks on a context line",
    "0002", COMMUNICATOR, "clean, merged", lands=True,
)  # fmt: skip
def trailing_blanks(files: Files) -> None:
    line = "                        # indexer can skip redundant FP8 dequantization."
    files[COMMUNICATOR] = swap(files[COMMUNICATOR], f"{line}\n", f"{line}  \n")


@_scenario(
    "the file converted to CRLF",
    "0002", COMMUNICATOR, "conflict",
)  # fmt: skip
def converted_to_crlf(files: Files) -> None:
    files[COMMUNICATOR] = files[COMMUNICATOR].replace("\n", "\r\n")


@_scenario(
    "no drift, but plain files inside somebody else's repository",
    "0002", COMMUNICATOR, "clean", lands=True, nested=True,
)  # fmt: skip
def nested_in_another_repository(files: Files) -> None:
    """The pinned files."""
