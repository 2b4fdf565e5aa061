"""The figures as a page of Markdown."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from gatekit.microbench.arms import Arm
from gatekit.microbench.results import Bench, Cell, Claim
from overlaykit.core.markdown import table_lines


def page(bench: Bench, picture: str | None) -> str:
    """The contents of ``Bench`` as Markdown; ``picture`` is the plot's file."""
    return "\n".join(
        (
            f"# The projection chain, measured on {bench.ran_with['device']}",
            "",
            *_about(bench),
            "",
            *_claims(bench.claims),
            *(("", f"![Time per layer over M]({picture})") if picture else ()),
            *(line for shape in _shapes(bench.cells) for line in _shape(bench, shape)),
            "",
        )
    )


def _about(bench: Bench) -> Iterator[str]:
    versions = ", ".join(
        f"{name} {version}" for name, version in bench.ran_with.items()
    )
    yield f"`{bench.command}`, {bench.seconds} s, with {versions}."
    yield f"SGLang's code is that of {bench.tree}; AITER is {bench.aiter}."
    yield ""
    yield from _revived(bench) if _is_revived(bench) else _designs(bench)
    yield ""
    yield "| arm | is |"
    yield "|---|---|"
    for name, about in bench.arms.items():
        yield f"| {name} | {about} |"
    if bench.rounds:
        yield ""
        yield (
            f"Times are microseconds per layer by the device's events, over "
            f"{bench.rounds} rounds, the arms in turn within each: median, (minimum), "
            "and the median over rounds of the ratio to the pin in the same round. "
            "Eager times hold Python's own, and are what the host needs, not the "
            "device. Noise is how far from 1 the pin is to a second graph of itself."
        )


def _is_revived(bench: Bench) -> bool:
    return Arm.GUARD_ALONE.value in bench.arms


def _designs(bench: Bench) -> Iterator[str]:
    yield (
        f"Where the tree calls CK's GEMM, what ran is {bench.gemm}. "
        "The chain is a layer's three quantizations and four GEMMs (qkv_a, wk, q_b, "
        "o_proj), through the tree's own functions; attention, the batched GEMMs "
        "around it and RoPE are left out, as they are the same in every design. A "
        "model's layer takes longer than this chain, so a part of this chain's time "
        "is not the same part of a model's."
    )


def _revived(bench: Bench) -> Iterator[str]:
    yield (
        "The tree's own code decides: its quantization method registers the weights "
        "(native block FP8), its layer detects their format, its decoder layer runs "
        "from the input's norm to o_proj, its indexer to wk. Each layer has an input "
        "of its own. Attention, RoPE and wq_b, which quantizes afresh in every arm, "
        "are constants; the batched GEMM before o_proj is a launch that writes them. "
        "A model's layer takes longer than this chain, so a part of this chain's time "
        "is not the same part of a model's."
    )
    yield ""
    yield (
        f"Where the tree calls CK's GEMM, what ran is {bench.gemm}. AITER's other HIP "
        "kernels are replaced by kernels of one launch each: the quantization of bf16 "
        "by AITER's Triton kernel that also flattens, the norms and the GEMM of few "
        "rows that quantizes by itself by Triton kernels of this benchmark. The "
        "tree's own code decides where that GEMM runs."
    )
    yield ""
    yield (
        "Not run: prefill (S5 to S7, whose producers are not in a decoding step); the "
        "indexer's fused fp8 writer, which the chain does not enter: wk is reached "
        "through its other path; carried all-reduce fusions, which bypass S1 and S2; "
        "the HIP kernels themselves."
    )
    yield ""
    yield (
        "Upstream's producers write a transposed scale whichever GEMM reads it, and "
        "Triton's reads it slower than a row-major one where there are many rows: see "
        "DeepSeek's shapes. The arm with strides (1, M) everywhere shows the same for "
        "sglang 0.5.11 (microbench-h200.md)."
    )


def _claims(claims: Sequence[Claim]) -> Iterator[str]:
    yield "| | holds | found |"
    yield "|---|---|---|"
    for claim in claims:
        kind = "control" if claim.control else "claim"
        holds = "yes" if claim.holds else "**no**"
        yield f"| {kind}: {claim.what} | {holds} | {claim.found} |"


def _shapes(cells: Sequence[Cell]) -> list[str]:
    return list(dict.fromkeys(cell.shape for cell in cells))


def _shape(bench: Bench, shape: str) -> Iterator[str]:
    cells = [cell for cell in bench.cells if cell.shape == shape]
    first = cells[0]
    arms = list(bench.arms)
    yield ""
    yield f"## {shape}"
    yield ""
    called = (
        f"Of four GEMMs per layer CK's bpreshuffle GEMM is called for "
        f"{first.bpreshuffle}, Triton's for {first.triton}"
    )
    if _is_revived(bench):
        few = [str(cell.m) for cell in cells if cell.small_m]
        yield called + (
            f", at M = {', '.join(few)} one quantizes by itself." if few else "."
        )
        yield (
            "Launches per layer, as separate norms + quantizations + GEMMs, eager / "
            "replayed where they differ:"
        )
    else:
        yield f"{called}. Copies per layer, eager / replayed:"
    yield ""
    shown = _launches if _is_revived(bench) else _copies
    yield from table_lines(("M", *arms), (shown(cell, arms) for cell in cells))
    bound = ("series to bound",) if Arm.BOUND.value in arms else ()
    for mode in ("replay", "eager"):
        if not any(row.time for row in first.rows if row.mode == mode):
            continue
        yield ""
        yield "Replayed from a graph:" if mode == "replay" else "Eager:"
        yield ""
        header = ("M", *arms, *bound, "noise")
        yield from table_lines(header, (_times(cell, arms, mode) for cell in cells))


def _copies(cell: Cell, arms: Sequence[str]) -> Iterator[str]:
    yield str(cell.m)
    for arm in arms:
        yield " / ".join(f"{row.copies:g}" for row in cell.rows if row.arm == arm)


def _launches(cell: Cell, arms: Sequence[str]) -> Iterator[str]:
    yield str(cell.m)
    for arm in arms:
        found = [
            f"{row.norms:g} + {row.quantizations:g} + {row.gemms:g} = "
            f"{row.norms + row.quantizations + row.gemms:g}"
            for row in cell.rows
            if row.arm == arm
        ]
        yield " / ".join(dict.fromkeys(found))


def _times(cell: Cell, arms: Sequence[str], mode: str) -> Iterator[str]:
    yield str(cell.m)
    yield from (_time(cell, arm, mode) for arm in arms)
    if Arm.BOUND.value in arms:
        time = cell.row(Arm.SERIES.value, mode).time
        yield f"{time.to_bound:.3f}" if time and time.to_bound else "-"
    noise = cell.noise if mode == "replay" else None
    yield f"{noise:.2%}" if noise is not None else "-"


def _time(cell: Cell, arm: str, mode: str) -> str:
    time = cell.row(arm, mode).time
    if time is None:
        return "-"
    return f"{time.median_us:.1f} ({time.minimum_us:.1f}) {time.to_pristine:.3f}"
