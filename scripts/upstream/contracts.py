"""Which census belongs to which package, and the expected state of each site."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from overlaykit.core.errors import Finding
from overlaykit.series.carried import Carried
from overlaykit.series.manifest import Target
from overlaykit.trees.tree import Tree
from xscale.census import Census, Problem, SiteRow, kept_census, problems
from xscale.kernels import take_kernels
from xscale.numeric.layout import ScaleLayout
from xscale.sites import CATALOGUE, FLATTEN, Role, SiteState, without_parameter

_STATES = {
    ScaleLayout.NO_PARAMETER.value: SiteState.ROW_MAJOR,
    ScaleLayout.LYING.value: SiteState.UNMARKED,
    ScaleLayout.HONEST.value: SiteState.HONEST,
}

ADOPTED = {
    SiteState.MARKED,
    SiteState.UNMARKED,
    SiteState.HONEST,
    SiteState.COPIES_UNMARKED,
    SiteState.ASSUMES,
    SiteState.NEEDS_HONEST,
}
"""The states of a site in which upstream has the change, in any form."""


@dataclass(frozen=True)
class Contract:
    """``expected`` maps each site to its state in a tree that has the optimization."""

    expected: Mapping[str, SiteState]
    census: Callable[[Target, Tree], Census]
    problems: Callable[[Census], tuple[Problem, ...]]
    runs: bool = False
    """Whether the package's own code can be run to see which sites are live."""

    def check(self, census: Census) -> tuple[Finding, ...]:
        """What keeps the tree from having the optimization everywhere."""
        return tuple(problem.finding for problem in self.problems(census))

    def dangers(self, census: Census) -> tuple[Problem, ...]:
        """The mixes of transposed and row-major scales that give wrong values."""
        return tuple(found for found in self.problems(census) if found.danger)


def contract_of(carried: Carried) -> Contract:
    """The contract of a target's package. A series that names no sites has none."""
    return _CONTRACTS.get(carried.target.package, _NONE) if carried.sites else _NONE


def _sglang(target: Target, tree: Tree) -> Census:
    # Only the package: upstream's tests and benchmarks may call kernels in any way.
    return kept_census(tree, within=f"{target.package_root}/")


def _aiter(target: Target, tree: Tree) -> Census:
    """The layout that the function called at S8 returns for ``transpose_scale``."""
    del target  # AITER's package lies at the same path in its repository.
    [row] = [row for row in take_kernels(tree) if row.kernel == FLATTEN]
    if row.path is None:
        state = SiteState.GONE
    else:
        state = _STATES.get(row.layout, SiteState.UNKNOWN)
    detail = f"{row.layout}; {row.detail}" if row.detail else row.layout
    found = SiteRow(
        "S8", Role.PRODUCER, FLATTEN, row.path, FLATTEN, row.line, state, detail
    )
    return Census(tree.name, (found,))


def _aiter_problems(census: Census) -> tuple[Problem, ...]:
    return tuple(
        Problem(
            Finding(
                f"S8's kernel: {row.detail or row.state.value}",
                path=row.path,
                line=row.line,
                site=row.site,
                expected=f"{FLATTEN} returns a transposed scale with strides (1, M)",
                next_step=without_parameter(FLATTEN),
            )
        )
        for row in census.rows
        if row.state is not SiteState.HONEST
    )


_CONTRACTS = {
    "sglang": Contract({s.id: s.expected for s in CATALOGUE}, _sglang, problems, True),
    "aiter": Contract({"S8": SiteState.HONEST}, _aiter, _aiter_problems),
}
_NONE = Contract({}, lambda _, tree: Census(tree.name, ()), lambda _: ())
