"""What the series comes to on another base, where it is re-made hunk by hunk.

The engine merges; the census says which of the series' sites upstream has by now, where
the others went, and whether the result is what the series promises.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from overlaykit.core.errors import Finding, InputError
from overlaykit.planning.placement import Step
from overlaykit.rebase.adopt import lock_rebased
from overlaykit.rebase.bases import new_base, old_base
from overlaykit.rebase.compute import Rebased, rebase
from overlaykit.rebase.folder import Request
from overlaykit.rebase.routes import Regenerate, Sighting, Sites, imported_names
from overlaykit.series.carried import Carried, load_overlay
from overlaykit.series.manifest import Target
from overlaykit.series.scopes import MODULE
from overlaykit.trees.tree import EditedTree, Tree
from upstream.contracts import Contract, contract_of
from xscale.sites import SiteState

_ADOPTED = {
    SiteState.MARKED,
    SiteState.UNMARKED,
    SiteState.HONEST,
    SiteState.ASSUMES,
    SiteState.NEEDS_HONEST,
    SiteState.COPIES_UNMARKED,
}
_CONSUMER = "C"


@dataclass(frozen=True)
class Computed:
    """What a request comes to; ``made`` is None where it stops or nothing is left."""

    done: Rebased
    start: str
    made: Carried | None
    findings: tuple[Finding, ...]
    notes: tuple[str, ...]


def compute(
    root: Path, request: Request, resolutions: Mapping[str, bytes | None]
) -> Computed:
    """Re-make the series, as far as it goes; ``resolutions`` are a person's, by the
    conflict's id, None where the hunk is left out.

    Raises InputError where the request names what is not carried, or a base that is
    not to be had.
    """
    overlay = load_overlay(root)
    if request.start not in overlay:
        raise InputError(f"no target {request.start}: end the rebase with --abort")
    carried = overlay[request.start]
    clone = Path(request.clone) if request.clone else None
    onto = request.commit or request.onto
    contract = contract_of(carried)
    start = carried.target.release
    with (
        new_base(root, request.target, carried.target, onto, clone) as base,
        old_base(root, carried, clone) as pinned,
    ):
        sites = _sites(contract, carried, base.target, base.tree, request.regenerate)
        done = rebase(carried, pinned, base.tree, base.modes, sites, resolutions)
        if done.conflict is not None or not done.series.patches:
            return Computed(done, start, None, (), ())
        made, plan = lock_rebased(request.name, carried, base, done)
        after = EditedTree(base.tree, {c.path: c.after for c in plan.changes})
        found = contract.check(contract.census(base.target, after))
    ours = tuple(f for f in found if f.site in done.sites or "dangerous" in f.what)
    notes = tuple(
        f"not carried, and not as the series has it: {f.what}"
        for f in found
        if f not in ours
    )
    return Computed(done, start, made, ours, notes)


def _sites(
    contract: Contract,
    carried: Carried,
    target: Target,
    tree: Tree,
    regenerate: bool,
) -> Sites:
    """What the census says of every site of the series on the new base."""
    rows = contract.census(target, tree).rows
    named = dict.fromkeys(
        site
        for patch in carried.lock.patches
        for file in patch.files
        for hunk in file.hunks
        for site in hunk.sites
    )
    sightings = {}
    for site in named:
        here = [row for row in rows if row.site == site]
        places = tuple(
            dict.fromkeys((r.path, r.scope) for r in here if r.path and r.scope)
        )
        adopted = None
        if here and all(row.state in _ADOPTED for row in here):
            row = here[0]
            file = (row.path or "").rpartition("/")[2]
            adopted = f"upstream has {site}: {row.state.value}, {file}:{row.line}"
        sightings[site] = Sighting(places, adopted)
    producers = [s for name, s in sightings.items() if name != _CONSUMER]
    if _CONSUMER in sightings and all(s.adopted for s in producers):
        # Whatever it does: there is no scale of ours for it to read.
        known = sightings[_CONSUMER]
        why = known.adopted or "upstream has every producer of the series"
        sightings[_CONSUMER] = Sighting(known.places, why)
    make = _regenerator(contract, target, tree) if regenerate else None
    return Sites(sightings, make)


def _regenerator(contract: Contract, target: Target, tree: Tree) -> Regenerate:
    from xscale.regenerate import Edit, need_libcst, regenerate

    need_libcst()

    def make(step: Step, path: str, scope: str, data: bytes) -> bytes | None:
        census = contract.census(target, EditedTree(tree, {path: data}))
        rows = [row for row in census.rows if row.path == path]
        names = tuple(sorted(imported_names(step.hunk)))
        edit = Edit(step.locked.sites, scope, names)
        return regenerate(edit, data, rows, module_scope=scope == MODULE)

    return make
