"""The survey as a page for people and as JSON."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from overlaykit.core.errors import Finding
from releases.survey import Surveyed, Verdict
from xscale.census import SiteRow
from xscale.sites import CATALOGUE, UNKNOWN_SITE, Role

COMMAND = ".venv/bin/python tests/releases"
PAGE = Path("docs/evidence/upstream-releases.md")
DATA = PAGE.with_suffix(".json")

_SITES = [site.id for site in CATALOGUE]
_HEAD = """\
# What the unpatched releases do

Made by `{command}` from the packages in `releases.lock`;
do not edit.

{ran_with}.

Per release the census of its source, and its own functions run on AITER's own kernels
through the reduced matrix of `verify.py --numeric`. No release is told apart by name:
what is listed was found, by the same commands as on the patched pin. AITER is the
pinned one with our patch; the matrix re-presents what its kernels computed as other
AITERs return it, so a release meets the one that it was made for among others.

Where the census warns and the run is right, the run decides: the census reads source
and cannot always see strides. Where nothing was run, its warning is a question.

| Words | Mean |
|---|---|
| right | each scale is, where a GEMM reads it, bit for bit what the kernel computed |
| with a finding | the values are right, but a scale is copied or a site is dead |
| **wrong** | some GEMM, or the indexer, reads other values |
| raises | the function fails on some of the cases of a site, and runs on others |
| not run | a site fails on all of its cases: the proof says nothing of it |
| run | right of all readings of a site, whichever of its calls the run took |
| live | a fused kernel made the scale when the site was run as on gfx95, ROCm 7.2 |
"""

_MEANING = """\
## What this means

- **0.5.10.post1** has no bpreshuffle GEMM: row-major scales and a GEMM that reads them.
  **0.5.11 to 0.5.12.post1** are the state that the series starts from: all producers
  row-major, the consumer copies; right everywhere, at one copy per GEMM.
- **0.5.13 and 0.5.13.post1** adopt the transposed scale by half. S1 to S7 are
  transposed; S8 is not, and the consumer has stopped copying and takes every scale for
  transposed: on gfx95 with ROCm 7.2 `o_proj` reads scrambled scales on both routes,
  right only at M = 1, where there is nothing to scramble. This is the defect of SGLang
  27798. The gather of scattered input and the indexer's dequantization of a pair are
  wrong as well: neither knows that the bytes behind a contiguous view are transposed.
- **0.5.14** transposes S8 too, so S1 to S8 are right without a copy. The gather and the
  indexer's pair are as wrong as before, and S8 asks for `transpose_scale` with no
  fallback: an AITER whose flatten has no such parameter raises a TypeError.
- **0.5.15 to 0.5.17** take it back: kernels are asked for row-major scales, and the
  caller makes a column-major copy with honest strides before handing them on. Where it
  was run, the values at S1 to S8 are right; the copy is back, now also in front of the
  Triton GEMM, where 0.5.11 had none. The consumer copies once more through a helper,
  which does nothing to a scale whose strides are honest. The gather is still unsafe:
  c10d refuses the strides, raw-pointer NCCL loses them, and the Triton route re-strides
  what it gets. S8 names `transpose_scale` to the kernel, if only as False, and so still
  raises on an AITER whose flatten has no such parameter.
- **How S1 and S2 were run** differs from 0.5.16 on: there the way through the decoder
  layer, the attention layer and the indexer asks for more of the model than the proof
  has, so `prepare_attn` and the two linears are run by themselves, as far as they go.
- **From 0.5.18** the ROCm paths of S3 to S8 stand in `*_rocm.py` under other function
  names. The census follows them there; the proof does not. The census finds them dead
  for native block FP8, by reading: the predicate on the way to each call reads
  `weight_scale`, and such layers register only `weight_scale_inv` (SGLang 39410). Up to
  the newest release here that is unchanged, so that from 0.5.22, where S1 to S8 write
  the scale transposed again and tell it by its strides, nothing of S3 to S8 runs for
  the models that this series is about. From 0.5.21 `prepare_attn` and the gather are
  elsewhere too, and the proof says that it cannot find them. Nothing is claimed here of
  whether the bytes of those releases are right.
- `?` is a call that the catalogue does not foresee: a row for what reads its scale,
  and one for what could not be paired with a reader. Nothing here runs them; the
  census follows each to a projection, through the linear class and the quantization
  method to the consumer.
- **`deepseek_v4.py`** asks for a transposed scale in each release from 0.5.13 on. Up to
  0.5.14 the consumer takes it so. In **0.5.15, 0.5.15.post1 and 0.5.16** the consumer
  goes by the strides, which do not tell: its GEMM reads scrambled scales. This is the
  defect of SGLang 31490. From 0.5.17 the strides tell, and the same consumer is right.
- `fused_clamp_act_mul` in `deepseek_v2.py` changes with its consumer in each release,
  and is read right. The fused all-reduce of `layernorm.py` and its fallbacks, from
  0.5.17 on, return their scale from a method; who reads it is not seen.
"""


def page(found: Sequence[Surveyed], ran_with: Mapping[str, str]) -> str:
    """The survey as Markdown."""
    run = "; ".join(f"{k}: {v}" for k, v in ran_with.items())
    head = _HEAD.format(command=COMMAND, ran_with=textwrap.fill(run, 88))
    overview = _table(
        ("release", "producers", "consumer", "`?`", *(v.value for v in Verdict)),
        (_overview(one) for one in found),
    )
    parts = [head, "## Overview", "", *overview, "", _MEANING]
    for one in found:
        parts += [f"## {one.version}", "", *_release(one), ""]
    return "\n".join(parts).rstrip() + "\n"


def _overview(one: Surveyed) -> Iterable[str]:
    consumers = [r.state.value for r in one.census if r.site == "C"]
    others = sum(row.site == UNKNOWN_SITE for row in one.census)
    alarming = (Verdict.WRONG, Verdict.RAISES)
    return (
        one.version,
        _producers(one.census),
        ", ".join(consumers),
        str(others),
        *(_count(one.verdicts.get(v.value), v in alarming) for v in Verdict),
    )


def _count(cases: int | None, alarming: bool) -> str:
    if cases is None:
        return "-"
    return f"**{cases}**" if cases and alarming else str(cases)


def _producers(census: Iterable[SiteRow]) -> str:
    """``S1-S7 transposed and unmarked; S8 row-major``."""
    states: dict[str, list[str]] = {}
    for row in census:
        if row.role is Role.PRODUCER and row.site != UNKNOWN_SITE:
            state = row.state.value + (", dead" if row.live is False else "")
            states.setdefault(state, []).append(row.site)
    return "; ".join(
        f"{_span(sorted(set(sites)))} {state}" for state, sites in states.items()
    )


def _span(sites: list[str]) -> str:
    """Neighbours of the catalogue by their ends."""
    at = _SITES.index(sites[0])
    whole = len(sites) > 2 and sites == _SITES[at : at + len(sites)]
    return f"{sites[0]}-{sites[-1]}" if whole else ", ".join(sites)


def _release(one: Surveyed) -> Iterable[str]:
    yield from _table(("site", "where", "census", "run"), _rows(one))
    groups = (
        ("The census warns:", [f"{f.what} ({_where(f)})" for f in one.dangers]),
        ("Run, it finds:", [_finding(f) for f in one.findings]),
        ("Not run:", [f"{site}: {why}" for site, why in one.not_run.items()]),
        ("The proof cannot run at all:", one.missing),
    )
    for title, lines in groups:
        if lines:
            yield from ("", title, "", *(f"- {line}" for line in lines))


def _rows(one: Surveyed) -> Iterable[tuple[str, ...]]:
    for row in one.census:
        where = ""
        if row.path:
            where = f"{row.path.rpartition('/')[2]}:{row.line} `{row.scope}`"
        ran = _ran(one, row.site) if row.path and row.role is Role.PRODUCER else ""
        yield row.site, where, row.state.value + _read_by(row), ran
    for site in ("gather", "indexer"):
        if ran := _ran(one, site):
            yield site, "", "", ran


def _read_by(row: SiteRow) -> str:
    """Of a call outside the catalogue: by which consumer."""
    if row.site != UNKNOWN_SITE:
        return ""
    if row.consumer is None:
        return "; **could not be paired**"
    return f"; read by {row.consumer.rpartition('/')[2]}"


def _ran(one: Surveyed, site: str) -> str:
    """Per route how many readings are right, of all."""
    routes = [s for s in one.sites if s.site == site]
    if not routes:
        return "not run" if site in one.not_run else ""
    counts = (
        f"{s.route} {s.bytes}/{s.readings}"
        if s.bytes == s.readings
        else f"**{s.route} {s.bytes}/{s.readings}**"
        for s in routes
    )
    live = "live" if site in one.live else "dead"
    return f"{live if site.startswith('S') else ''} {', '.join(counts)}".strip()


def _where(finding: Finding) -> str:
    return f"{(finding.path or '').rpartition('/')[2]}:{finding.line}"


def _finding(finding: Finding) -> str:
    return f"{finding.site}: {finding.what}: {finding.found}"


def _table(header: Iterable[str], rows: Iterable[Iterable[str]]) -> Iterable[str]:
    head = tuple(header)
    yield f"| {' | '.join(head)} |"
    yield "|---" * len(head) + "|"
    for row in rows:
        yield f"| {' | '.join(row)} |"


_LEFT_OUT = {
    *("next_step", "expected", "kernel", "role", "detail", "stand_ins"),
    *("compared", "values", "gemm"),
}
"""Said better elsewhere, or nothing without a tree to compare with."""


def _told(value: Any) -> Any:
    """Without what is empty or says nothing here."""
    if isinstance(value, dict):
        return {
            name: _told(inner)
            for name, inner in value.items()
            if name not in _LEFT_OUT and inner not in (None, "", (), [], {})
        }
    return [*map(_told, value)] if isinstance(value, list | tuple) else value


def write(
    root: Path, found: Sequence[Surveyed], ran_with: Mapping[str, str]
) -> list[Path]:
    """Write page and data; returns their paths."""
    releases = [_told(msgspec.to_builtins(one)) for one in found]
    document = {"command": COMMAND, "ran_with": ran_with, "releases": releases}
    data = msgspec.json.format(msgspec.json.encode(document), indent=1)
    (root / PAGE).write_text(page(found, ran_with), encoding="utf-8")
    (root / DATA).write_bytes(data + b"\n")
    return [root / PAGE, root / DATA]
