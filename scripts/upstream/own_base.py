"""The sites on the base that a series is made for, before and after its patches.

A series may be made for a release that has the layout already, and mend or open what
is there. Then it says nothing about a patch that upstream "has" its sites: only a patch
that makes a site transposed is replaced by a release in which upstream did so.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from overlaykit.series.carried import Carried
from overlaykit.series.patches import apply_hunks
from overlaykit.trees.tree import EditedTree, Tree
from upstream.contracts import ADOPTED, Contract
from xscale.census import Census

Place = tuple[str, str]
"""A path and a scope."""


@dataclass(frozen=True)
class OwnBase:
    """The base of a series. A census is taken when its answer is first needed."""

    contract: Contract
    carried: Carried
    tree: Tree

    def places(self, site: str) -> tuple[Place, ...]:
        """The places of the site in the release itself."""
        return places_of(self._released, site)

    def hunks(self, site: str) -> frozenset[Place]:
        """The places of the hunks that name the site."""
        return frozenset(
            (file.path, hunk.scope)
            for patch in self.carried.lock.patches
            for file in patch.files
            for hunk in file.hunks
            if site in hunk.sites
        )

    def adopters(self, site: str) -> frozenset[str]:
        """The patches that make the site transposed; none if the release has it so.

        A single patch that names the site is the one. Of several, it is the first
        after which the census finds the site transposed.
        """
        if is_adopted(self._released, site):
            return frozenset()
        naming = [
            patch.name
            for patch in self.carried.lock.patches
            if any(site in hunk.sites for file in patch.files for hunk in file.hunks)
        ]
        if len(naming) > 1:
            after = (
                p for p, one in self._prefixes if p in naming and is_adopted(one, site)
            )
            naming = [*after][:1]
        return frozenset(naming)

    @cached_property
    def _released(self) -> Census:
        return self.contract.census(self.carried.target, self.tree)

    @cached_property
    def _prefixes(self) -> tuple[tuple[str, Census], ...]:
        """The census after each patch."""
        return tuple(
            (name, self.contract.census(self.carried.target, tree))
            for name, tree in self._trees()
        )

    def _trees(self) -> Iterator[tuple[str, Tree]]:
        files: dict[str, bytes | None] = {
            new.path: new.data for new in self.carried.new_files
        }
        for patch in self.carried.series.patches:
            for diff in patch.files:
                before = files.get(diff.path) or self.tree.read(diff.path)
                after = None if before is None else apply_hunks(before, diff.hunks)
                if after is None:
                    raise ValueError(f"{patch.name} does not apply to {self.tree.name}")
                files[diff.path] = after
            yield patch.name, EditedTree(self.tree, dict(files))


def places_of(census: Census, site: str) -> tuple[Place, ...]:
    """The places of a site, in the order of the census."""
    found = (
        (row.path, row.scope)
        for row in census.rows
        if row.site == site and row.path and row.scope
    )
    return tuple(dict.fromkeys(found))


def is_adopted(census: Census, site: str) -> bool:
    """Whether every call of the site has the change, in any form."""
    states = {row.state for row in census.rows if row.site == site}
    return bool(states) and states <= ADOPTED
