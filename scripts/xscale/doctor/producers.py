"""An AITER: its version, and the layout of the scales that its producers return."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping

from overlaykit.cli import ROOT, Result
from overlaykit.core.versions import installed_version
from overlaykit.planning.plan import Standing, locate
from overlaykit.series.carried import load_overlay
from overlaykit.trees.tree import DirectoryTree
from xscale.doctor.answers import ABSENT, Condition, answer, condition
from xscale.numeric.layout import ProducerLayout, ScaleLayout, not_run
from xscale.numeric.layout_probe import probe_layouts
from xscale.numeric.sources import SWITCH
from xscale.sites import CATALOGUE, FLATTEN, RMS, without_parameter

_AITER_PACKAGES = {"aiter", "amd-aiter"}
_SITES_OF = {
    kernel: tuple(site.id for site in CATALOGUE if site.kernel == kernel)
    for kernel in (RMS, FLATTEN)
}


class AiterReport(Result, frozen=True, kw_only=True):
    """The report on an AITER and what its producers return."""

    version: str
    producers: tuple[ProducerLayout, ...]


def layouts(
    aiter: DirectoryTree | None, facts: Mapping[str, str], device: str
) -> tuple[ProducerLayout, ...]:
    """Run both producers on "cpu", on "cuda", or with "auto" on the GPU if there is
    one."""
    if aiter is None:
        return not_run(f"AITER {ABSENT}")
    if "error" in facts:
        return not_run(facts["error"])
    if missing := [name for name in ("torch", "triton") if name not in facts]:
        return not_run(f"{' and '.join(missing)} {ABSENT}")
    if device == "auto":
        device = "cuda" if "gpu" in facts else "cpu"
    if device == "cuda" and "gpu" not in facts:
        return not_run("no GPU that torch can use")
    return probe_layouts(aiter, device)


def report_of(
    aiter: DirectoryTree | None, imported: bool, producers: tuple[ProducerLayout, ...]
) -> AiterReport:
    """The report on AITER; ``imported``: this Python would import it."""
    ran = any(p.layout is not ScaleLayout.NOT_RUN for p in producers)
    return AiterReport(
        target="aiter",
        tree=aiter.name if aiter is not None else ABSENT,
        outcome="examined" if ran else "not run",
        version=_version(aiter, imported) if aiter is not None else ABSENT,
        producers=producers,
    )


def producer_conditions(
    producers: Iterable[ProducerLayout], aiter: DirectoryTree | None
) -> list[Condition]:
    """The conditions that each producer returns a transposed scale."""
    return [
        condition(
            f"AITER's {one.kernel} writes its scale transposed",
            _SITES_OF[one.kernel],
            answer(one.layout.usable, one.layout is not ScaleLayout.NOT_RUN),
            str(one),
            _change_aiter(one, aiter),
        )
        for one in producers
    ]


def _change_aiter(one: ProducerLayout, aiter: DirectoryTree | None) -> str:
    if aiter is None:
        return "install AITER for this Python, or name one with --aiter PATH"
    if one.layout is ScaleLayout.NOT_RUN:
        return "fix the reason given, or use another --device or --aiter"
    if one.layout is not ScaleLayout.NO_PARAMETER:
        return f"the GEMM would misread it: serve with {SWITCH}=0, or replace AITER"
    step = without_parameter(one.kernel)
    if one.kernel == FLATTEN and _is_carried(aiter):
        step = f"run scripts/apply.py {aiter.root}, or {step}"
    return f"{step}; until then its scale is copied as before"


def _is_carried(aiter: DirectoryTree) -> bool:
    """Whether ``scripts/apply.py`` has patches for this AITER."""
    return any(
        locate(carried, aiter).standing(carried) is Standing.PRISTINE
        for carried in load_overlay(ROOT).values()
        if carried.target.package == "aiter"
    )


def _version(tree: DirectoryTree, imported: bool) -> str:
    """The version of the distribution, or the one in the package itself."""
    package = tree.root / (tree.layout.inside("aiter/") or "")
    # An editable installation's metadata is not beside its package.
    return installed_version(
        package, _AITER_PACKAGES, sys.path if imported else ()
    ) or (ABSENT)
