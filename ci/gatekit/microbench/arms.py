"""The compared designs, each as the modules of a tree that has it.

All are based on a pinned release: without the series, with it, or with it and another
module in place of its own. Where upstream has the layout already and a guard keeps it
dead, the third is the release with that guard open and nothing else changed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path

from overlaykit.applying.targets import FoundTarget, find_targets
from overlaykit.cli import ROOT
from overlaykit.core.errors import CannotApply, Finding, InputError
from overlaykit.planning.plan import Plan, plan_apply, plan_unapply
from overlaykit.series.carried import load_overlay
from overlaykit.series.patches import Patch
from overlaykit.trees.tree import EditedTree, Tree
from xscale.aiter_tree import aiter_at
from xscale.islands import BPRESHUFFLE_SCALE
from xscale.liveness import NATIVE_BLOCK_FP8, modules_of
from xscale.numeric.situations import SMALL_M_MODULE
from xscale.numeric.sources import Sources, aiter_sources, sglang_sources

_DESIGNS = Path(__file__).parent / "designs"


class Arm(Enum):
    """A design. ``value`` is its name in results and file names."""

    PRISTINE = "pristine"
    PULL_REQUEST = "pull-request"
    SERIES = "series"
    STRIDES = "upstream-newest"
    BOUND = "bound"
    GUARD_ALONE = "guard alone"


_ABOUT = {
    Arm.PRISTINE: "the pin as released: a copy of the scale before each CK GEMM",
    Arm.PULL_REQUEST: "the pull request's design: a mark; a copy back for Triton",
    Arm.SERIES: "this series",
    Arm.STRIDES: "upstream's newest convention: strides (1, M) everywhere, no marks",
    Arm.BOUND: "no relayout anywhere: scales laid out before, producers as by default",
    Arm.GUARD_ALONE: "the release with its guard open, by the last patch alone",
}
_ABOUT_REVIVED = {
    **_ABOUT,
    Arm.PRISTINE: "the release: its guard keeps every fused quantization from running",
}

DESIGNS = (Arm.PRISTINE, Arm.PULL_REQUEST, Arm.SERIES, Arm.STRIDES, Arm.BOUND)
REVIVED = (Arm.PRISTINE, Arm.GUARD_ALONE, Arm.SERIES)
"""The arms of a release in which upstream has the layout, dead."""

_OWN_CODE = "the pull request's own code, from the tree given"

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
    own_pull_request: bool = False

    @property
    def revived(self) -> bool:
        """Whether the layout is upstream's own, so that its layers must run whole."""
        return Arm.GUARD_ALONE in self.arms

    @property
    def about(self) -> dict[str, str]:
        """What each arm is."""
        texts = _ABOUT_REVIVED if self.revived else _ABOUT
        if self.own_pull_request:
            texts = {**texts, Arm.PULL_REQUEST: _OWN_CODE}
        return {arm.value: texts[arm] for arm in self.arms}


def trees_at(sglang: Path, aiter: Path, pull_request: Path | None = None) -> Trees:
    """The arms, from trees of the pinned releases, with or without the series.

    ``pull_request`` is an SGLang with the pull request's commits, whose own code then
    runs in place of its design. AITER of another release is run unchanged.

    Raises InputError if a path contains no such tree, CannotApply if SGLang is neither
    the pin nor the pin with the series.
    """
    one = _sglang_at(sglang)
    pristine = _planned(one.tree, plan_unapply(one.carried, one.tree))
    patched = _planned(pristine, plan_apply(one.carried, pristine))
    arms = _designs(pristine, patched)
    if arms is None:
        alone = applied_alone(one.carried.series.patches[-1], pristine)
        arms = {
            arm: sglang_sources(
                tree, (*modules_of(tree, NATIVE_BLOCK_FP8), SMALL_M_MODULE)
            )
            for arm, tree in zip(REVIVED, (pristine, alone, patched), strict=True)
        }
    if pull_request is not None:
        if Arm.PULL_REQUEST not in arms:
            raise InputError(
                f"{one.carried.target.release} is not compared with the pull request"
            )
        arms[Arm.PULL_REQUEST] = sglang_sources(_sglang_at(pull_request).tree)
    kernels, aiter_name = _kernels(aiter)
    return Trees(
        one.carried.target.release,
        aiter_name,
        arms,
        aiter_sources(kernels),
        own_pull_request=pull_request is not None,
    )


def _sglang_at(path: Path) -> FoundTarget:
    for one in find_targets([path], load_overlay(ROOT)):
        if one.carried.target.package == "sglang":
            return one
    raise InputError(f"{path} contains no SGLang")


def _designs(pristine: Tree, patched: Tree) -> dict[Arm, Sources] | None:
    """None if the series has no module that another design can replace."""
    series = sglang_sources(patched)
    if BPRESHUFFLE_SCALE not in series.modules:
        return None
    arms = {Arm.PRISTINE: sglang_sources(pristine), Arm.SERIES: series}
    for arm, file in _REPLACEMENTS.items():
        place = series.modules[BPRESHUFFLE_SCALE][0]
        module = {BPRESHUFFLE_SCALE: (place, (_DESIGNS / file).read_bytes())}
        arms[arm] = replace(series, modules={**series.modules, **module})
    return {arm: arms[arm] for arm in DESIGNS}


def applied_alone(patch: Patch, tree: Tree) -> Tree:
    """The tree with one patch of a series and none of those before it.

    The context above a change may be what an earlier patch wrote; it is left out until
    the rest is found.

    Raises CannotApply if a hunk has no one place.
    """
    changes: dict[str, bytes | None] = {}
    for diff in patch.files:
        data = tree.read(diff.path) or b""
        for hunk in diff.hunks:
            old, new = list(hunk.old), list(hunk.new)
            while old and data.count(b"".join(old)) != 1 and old[0] == new[0]:
                del old[0], new[0]
            if not old or data.count(b"".join(old)) != 1:
                finding = Finding(
                    f"hunk {hunk.number} of {patch.name} has no one place without the "
                    "patches before it",
                    path=diff.path,
                    next_step="measure a base whose last patch stands alone",
                )
                raise CannotApply(f"{patch.name} does not apply alone", (finding,))
            data = data.replace(b"".join(old), b"".join(new))
        changes[diff.path] = data
    return EditedTree(tree, changes)


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
