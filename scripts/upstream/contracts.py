"""Which census belongs to which package, and what it should say of each site."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from overlaykit.core.errors import Finding
from overlaykit.series.carried import Carried
from overlaykit.series.manifest import Target
from overlaykit.trees.tree import Tree
from xscale.census import Census, SiteRow, check_adopted, take_census
from xscale.kernels import take_kernels
from xscale.numeric.layout import ScaleLayout
from xscale.sites import CATALOGUE, FLATTEN, Role, SiteState, without_parameter

_STATES = {
    ScaleLayout.NO_PARAMETER.value: SiteState.ROW_MAJOR,
    ScaleLayout.LYING.value: SiteState.UNMARKED,
    ScaleLayout.HONEST.value: SiteState.HONEST,
}
_DANGER = "dangerous"  # The word with which the census begins to warn of a mixture.


@dataclass(frozen=True)
class Contract:
    """``expected`` gives per site the state in which the optimization is adopted."""

    expected: Mapping[str, SiteState]
    census: Callable[[Target, Tree], Census]
    check: Callable[[Census], tuple[Finding, ...]]

    def dangers(self, census: Census) -> tuple[Finding, ...]:
        """What mixtures of transposed and row-major scales the tree holds."""
        return tuple(f for f in self.check(census) if _DANGER in f.what)


def contract_of(carried: Carried) -> Contract:
    """The contract of a target's package; a series that names no sites promises
    nothing about them, and has none."""
    return _CONTRACTS.get(carried.target.package, _NONE) if carried.sites else _NONE


def _sglang(target: Target, tree: Tree) -> Census:
    # Upstream's own tests and benchmarks may call the kernels as they like.
    return take_census(tree, within=f"{target.package_root}/")


def _aiter(target: Target, tree: Tree) -> Census:
    """What the function that S8 calls returns when asked for a transposed scale."""
    del target  # Its package is where its repository has it.
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


def _check_aiter(census: Census) -> tuple[Finding, ...]:
    return tuple(
        Finding(
            f"S8's kernel: {row.detail or row.state.value}",
            path=row.path,
            line=row.line,
            site=row.site,
            expected=f"{FLATTEN} returns a transposed scale, told by its strides",
            next_step=without_parameter(FLATTEN),
        )
        for row in census.rows
        if row.state is not SiteState.HONEST
    )


_CONTRACTS = {
    "sglang": Contract({s.id: s.expected for s in CATALOGUE}, _sglang, check_adopted),
    "aiter": Contract({"S8": SiteState.HONEST}, _aiter, _check_aiter),
}
_NONE = Contract({}, lambda _, tree: Census(tree.name, ()), lambda _: ())
