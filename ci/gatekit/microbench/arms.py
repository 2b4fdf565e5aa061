"""The compared designs, each as the modules of a tree that has it.

All are based on the pinned release: without the series, with it, or with it and another
module in place of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path

from overlaykit.applying.targets import find_targets
from overlaykit.cli import ROOT
from overlaykit.core.errors import CannotApply, InputError
from overlaykit.planning.plan import Plan, plan_apply, plan_unapply
from overlaykit.series.carried import load_overlay
from overlaykit.trees.tree import EditedTree, Tree
from xscale.aiter_tree import aiter_at
from xscale.islands import BPRESHUFFLE_SCALE
from xscale.numeric.sources import Sources, aiter_sources, sglang_sources

_DESIGNS = Path(__file__).parent / "designs"


class Arm(Enum):
    """A design. ``value`` is its name in results and file names."""

    PRISTINE = "pristine"
    PULL_REQUEST = "pull-request"
    SERIES = "series"
    STRIDES = "upstream-newest"
    BOUND = "bound"

    @property
    def about(self) -> str:
        return _ABOUT[self]


_ABOUT = {
    Arm.PRISTINE: "the pin as released: a copy of the scale before each CK GEMM",
    Arm.PULL_REQUEST: "the pull request's design: a mark; a copy back for Triton",
    Arm.SERIES: "this series",
    Arm.STRIDES: "upstream's newest convention: strides (1, M) everywhere, no marks",
    Arm.BOUND: "no relayout anywhere: scales laid out before, producers as by default",
}

_REPLACEMENTS = {
    Arm.PULL_REQUEST: "pull_request.py",
    Arm.STRIDES: "strides.py",
    Arm.BOUND: "bound.py",
}


@dataclass(frozen=True)
class Trees:
    """The sources to run: SGLang's modules per arm, and AITER's for all arms."""

    release: str
    aiter: str
    arms: Mapping[Arm, Sources]
    kernels: Sources


def trees_at(sglang: Path, aiter: Path) -> Trees:
    """The arms, from trees of the pinned releases, with or without the series.

    AITER of another release is run unchanged.

    Raises InputError if a path contains no such tree, CannotApply if SGLang is neither
    the pin nor the pin with the series.
    """
    found = [
        one
        for one in find_targets([sglang], load_overlay(ROOT))
        if one.carried.target.package == "sglang"
    ]
    if not found:
        raise InputError(f"{sglang} contains no SGLang")
    one = found[0]
    pristine = _planned(one.tree, plan_unapply(one.carried, one.tree))
    patched = _planned(pristine, plan_apply(one.carried, pristine))
    series = sglang_sources(patched)
    arms = {Arm.PRISTINE: sglang_sources(pristine), Arm.SERIES: series}
    for arm, file in _REPLACEMENTS.items():
        place = series.modules[BPRESHUFFLE_SCALE][0]
        module = {BPRESHUFFLE_SCALE: (place, (_DESIGNS / file).read_bytes())}
        arms[arm] = replace(series, modules={**series.modules, **module})
    kernels, aiter_name = _kernels(aiter)
    return Trees(
        one.carried.target.release,
        aiter_name,
        {arm: arms[arm] for arm in Arm},
        aiter_sources(kernels),
    )


def _planned(tree: Tree, plan: Plan) -> Tree:
    if plan.findings:
        raise CannotApply(
            f"{tree.name} is neither the pinned release nor the pinned release with "
            "the series",
            plan.findings,
        )
    return EditedTree(tree, {change.path: change.after for change in plan.changes})


def _kernels(path: Path) -> tuple[Tree, str]:
    """AITER, with the series if it is the pin, and its description."""
    tree = aiter_at(path)
    for carried in load_overlay(ROOT).values():
        if carried.target.package == "aiter":
            plan = plan_apply(carried, tree)
            if not plan.findings:
                name = f"{carried.target.release}, with the series"
                return _planned(tree, plan), name
    return tree, "of another release than the pinned one, as it is"
