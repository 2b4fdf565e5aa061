"""The survey as a Markdown page and as JSON."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from overlaykit.core.errors import Finding
from releases.survey import CaseVerdict, Surveyed
from xscale.census import SiteRow
from xscale.liveness import Life, LiveState
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

For each release: the census of its source, and a run of its own functions on AITER's
own kernels with the reduced matrix of `verify.py --numeric`. No code treats a release
by name; the commands are the same as on the patched pin. AITER is the pinned one with
our patch. The matrix also returns the kernels' results in the layouts of other AITERs,
so each release also runs with the layout of the AITER that it was made for.

If the census warns but the run is right, the run decides: the census reads source code
and cannot always see strides. Without a run, a warning is an open question.

| Word | Meaning |
|---|---|
| right | every scale that a GEMM reads is bit for bit what the kernel computed |
| with a finding | the values are right, but a scale is copied or a site is dead |
| **wrong** | a GEMM or the indexer reads other values |
| raises | the function fails in some cases of a site, and runs in others |
| not run | the function fails in every case of a site: the proof does not cover it |
| run | right readings / all readings of a site, over all of its calls |
| live | the release's own layer called the fused kernel, as on gfx95 with ROCm 7.2 |
| dead | it did not; the guard that kept it from the kernel is named |
"""

_BY_FORMAT = """\
## Live by format

Which sites call their fused kernel, by the format of the checkpoint. The release's own
quantization method registers the weights, its own detection says what they are, and its
own decoder layer passes that on.
"""

_MEANING = """\
## What this means

- **0.5.10.post1** has no bpreshuffle GEMM: its scales are row-major, and its GEMM reads
  row-major scales. **0.5.11 to 0.5.12.post1** are the state that the series starts
  from: all producers write row-major scales and the consumer copies. Every value is
  right, at the cost of one copy per GEMM.
- **0.5.13 and 0.5.13.post1** adopt the transposed scale in part. S1 to S7 are
  transposed, but S8 is not, and the consumer no longer copies: it treats every scale as
  transposed. On gfx95 with ROCm 7.2 `o_proj` reads scrambled scales on both routes;
  only M = 1 is right, because one row cannot be scrambled. This is the defect of SGLang
  27798. The gather of scattered input and the indexer's dequantization of a pair are
  also wrong: neither knows that the bytes behind a contiguous view are transposed.
- **0.5.14** transposes S8 too, so S1 to S8 are right without a copy. The gather and the
  indexer's pair are still wrong. S8 passes `transpose_scale` without a fallback: an
  AITER whose flatten has no such parameter raises a TypeError.
- **0.5.15 to 0.5.17** revert the change: the kernels write row-major scales, and the
  caller makes a column-major copy with honest strides. In the cases that were run, the
  values at S1 to S8 are right. The copy is back, now also before the Triton GEMM, where
  0.5.11 had none. The consumer copies again through a helper, which does nothing to a
  scale with honest strides. The gather is still unsafe: c10d refuses the strides,
  raw-pointer NCCL loses them, and the Triton route sets new strides. S8 passes
  `transpose_scale=False` to the kernel, so it still raises on an AITER whose flatten
  has no such parameter.
- **From 0.5.18** all eight sites are dead for native block FP8. The ROCm paths of S3 to
  S8 are in `*_rocm.py`, and the test before each call reads `weight_scale`. So does the
  layer's own detection of the format, which decides S1 and S2. Such layers have only
  `weight_scale_inv` (SGLang 39410). This is unchanged up to the newest release here.
  compressed-tensors' block FP8 registers `weight_scale` and is live. With every site
  dead each projection quantizes its own input, so every value is right and nothing is
  copied; what is lost is the fusion. From 0.5.22 S1 to S8 would write transposed scales
  with honest strides again. What goes wrong when the guard is opened is another run:
  `verify.py --numeric --open all`.
- `?` is a call outside the catalogue: one row for each consumer that reads its scale,
  and one if it could not be paired with a consumer. Nothing here runs these calls; the
  census follows each one to a projection, through the linear class and the quantization
  method to the consumer.
- **`deepseek_v4.py`** requests a transposed scale in each release from 0.5.13 on. Up to
  0.5.14 the consumer treats it as transposed. In **0.5.15, 0.5.15.post1 and 0.5.16**
  the consumer relies on the strides, which are row-major: its GEMM reads scrambled
  scales. This is the defect of SGLang 31490. From 0.5.17 the strides are honest, and
  the same consumer is right.
- `fused_clamp_act_mul` in `deepseek_v2.py` changes with its consumer in each release,
  and its scale is read correctly. From 0.5.17 on, the fused all-reduce of
  `layernorm.py` and its fallbacks return their scale from a method; the census does not
  find its reader.
"""


def page(found: Sequence[Surveyed], ran_with: Mapping[str, str]) -> str:
    """The survey as Markdown."""
    run = "; ".join(f"{k}: {v}" for k, v in ran_with.items())
    head = _HEAD.format(command=COMMAND, ran_with=textwrap.fill(run, 88))
    overview = _table(
        ("release", "producers", "consumer", "`?`", *(v.value for v in CaseVerdict)),
        (_overview(one) for one in found),
    )
    formats = list(dict.fromkeys(name for one in found for name in one.lives))
    by_format = _table(
        ("release", *formats),
        ((one.version, *(_states(one.lives[f]) for f in formats)) for one in found),
    )
    parts = [head, "## Overview", "", *overview, ""]
    parts += [_BY_FORMAT, *by_format, "", _MEANING]
    for one in found:
        parts += [f"## {one.version}", "", *_release(one), ""]
    return "\n".join(parts).rstrip() + "\n"


def _overview(one: Surveyed) -> Iterable[str]:
    consumers = [r.state.value for r in one.census if r.site == "C"]
    others = sum(row.site == UNKNOWN_SITE for row in one.census)
    alarming = (CaseVerdict.WRONG, CaseVerdict.RAISES)
    return (
        one.version,
        _producers(one.census),
        ", ".join(consumers),
        str(others),
        *(_count(one.verdicts.get(v.value), v in alarming) for v in CaseVerdict),
    )


def _states(states: Iterable[LiveState]) -> str:
    """For example ``S1-S7 live; S8 dead``."""
    sites: dict[str, list[str]] = {}
    for one in states:
        why = f": {one.reason}" if one.state is Life.NOT_RUN else ""
        sites.setdefault(one.state.value + why, []).append(one.site)
    return "; ".join(f"{_span(names)} {state}" for state, names in sites.items())


def _count(cases: int | None, alarming: bool) -> str:
    if cases is None:
        return "-"
    return f"**{cases}**" if cases and alarming else str(cases)


def _producers(census: Iterable[SiteRow]) -> str:
    """For example ``S1-S7 transposed and unmarked; S8 row-major``."""
    states: dict[str, list[str]] = {}
    for row in census:
        if row.role is Role.PRODUCER and row.site != UNKNOWN_SITE:
            state = row.state.value + (", dead" if row.live is False else "")
            states.setdefault(state, []).append(row.site)
    return "; ".join(
        f"{_span(sorted(set(sites)))} {state}" for state, sites in states.items()
    )


def _span(sites: list[str]) -> str:
    """Sites in a short form: a range if they are neighbours in the catalogue."""
    at = _SITES.index(sites[0])
    whole = len(sites) > 2 and sites == _SITES[at : at + len(sites)]
    return f"{sites[0]}-{sites[-1]}" if whole else ", ".join(sites)


def _release(one: Surveyed) -> Iterable[str]:
    yield from _table(("site", "where", "census", "live", "run"), _rows(one))
    groups = (
        ("The census warns:", [f"{f.what} ({_where(f)})" for f in one.dangers]),
        ("The run finds:", [_finding(f) for f in one.findings]),
        ("Dead for native block FP8:", _guards(one)),
        ("Not run:", [f"{site}: {why}" for site, why in one.not_run.items()]),
        ("The proof cannot run:", one.missing),
    )
    for title, lines in groups:
        if lines:
            yield from ("", title, "", *(f"- {line}" for line in lines))


def _guards(one: Surveyed) -> list[str]:
    """Each guard once, with the sites that it keeps dead."""
    sites: dict[str, list[str]] = {}
    for state in next(iter(one.lives.values()), ()):
        if state.state is Life.DEAD:
            sites.setdefault(f"{state.at}: {state.reason}", []).append(state.site)
    return [f"{_span(names)}: {guard}" for guard, names in sites.items()]


def _rows(one: Surveyed) -> Iterable[tuple[str, ...]]:
    for row in one.census:
        where = ""
        if row.path:
            where = f"{row.path.rpartition('/')[2]}:{row.line} `{row.scope}`"
        ran = _ran(one, row.site) if row.path and row.role is Role.PRODUCER else ""
        live = {True: "live", False: "dead", None: ""}[row.live]
        yield row.site, where, row.state.value + _read_by(row), live, ran
    for site in ("gather", "indexer"):
        if ran := _ran(one, site):
            yield site, "", "", "", ran


def _read_by(row: SiteRow) -> str:
    """The consumer of a call outside the catalogue."""
    if row.site != UNKNOWN_SITE:
        return ""
    if row.consumer is None:
        return "; **could not be paired**"
    return f"; read by {row.consumer.rpartition('/')[2]}"


def _ran(one: Surveyed, site: str) -> str:
    """For each route, right readings / all readings."""
    routes = [s for s in one.sites if s.site == site]
    if not routes:
        return "not run" if site in one.not_run else ""
    counts = (
        f"{s.route} {s.bytes}/{s.readings}"
        if s.bytes == s.readings
        else f"**{s.route} {s.bytes}/{s.readings}**"
        for s in routes
    )
    return ", ".join(counts)


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
"""Fields that the page shows elsewhere, or that need a tree to compare with."""


def _filled(value: Any) -> Any:
    """The value without empty fields and those of ``_LEFT_OUT``."""
    if isinstance(value, dict):
        return {
            name: _filled(inner)
            for name, inner in value.items()
            if name not in _LEFT_OUT and inner not in (None, "", (), [], {})
        }
    return [*map(_filled, value)] if isinstance(value, list | tuple) else value


def _lives(one: Surveyed) -> dict[str, Any]:
    """Each format's states; the page has the guards."""
    return {
        "lives": {
            form: {state.site: state.state.value for state in states}
            for form, states in one.lives.items()
        }
    }


def write(
    root: Path, found: Sequence[Surveyed], ran_with: Mapping[str, str]
) -> list[Path]:
    """Write page and data; returns their paths."""
    releases = [_filled(msgspec.to_builtins(one)) | _lives(one) for one in found]
    document = {"command": COMMAND, "ran_with": ran_with, "releases": releases}
    data = msgspec.json.format(msgspec.json.encode(document), indent=1)
    (root / PAGE).write_text(page(found, ran_with), encoding="utf-8")
    (root / DATA).write_bytes(data + b"\n")
    return [root / PAGE, root / DATA]
