"""Rebase the series to another base, hunk by hunk.

The engine merges. The census finds the sites that upstream has adopted, where the other
sites moved, and whether the result keeps the promise of the series.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from overlaykit.core.errors import Finding, InputError
from overlaykit.planning.placement import MergeStep
from overlaykit.rebase.adopt import lock_rebased
from overlaykit.rebase.bases import new_base, old_base
from overlaykit.rebase.compute import Rebased, rebase
from overlaykit.rebase.folder import Request
from overlaykit.rebase.imports import missing_imports
from overlaykit.rebase.routes import Regenerate, SiteOnBase, Sites, imported_names
from overlaykit.series.carried import Carried, load_overlay
from overlaykit.series.manifest import Target
from overlaykit.series.scopes import MODULE
from overlaykit.trees.tree import EditedTree, Tree
from upstream.contracts import Contract, contract_of
from upstream.own_base import OwnBase, is_adopted, places_of

_CONSUMER = "C"


@dataclass(frozen=True)
class Computed:
    """The result of a request. ``made`` is None at a conflict or without patches."""

    done: Rebased
    start: str
    made: Carried | None
    findings: tuple[Finding, ...]
    notes: tuple[str, ...]


def compute(
    root: Path, request: Request, resolutions: Mapping[str, bytes | None]
) -> Computed:
    """Rebase the series up to the first conflict without a resolution.

    ``resolutions`` maps a conflict's id to the file that a person merged, or to None if
    the hunk is skipped.

    Raises InputError if the request names a target that is not carried, or a base that
    was not found.
    """
    overlay = load_overlay(root)
    if request.start not in overlay:
        raise InputError(f"no target {request.start}: end the rebase with --abort")
    carried = overlay[request.start]
    clone = Path(request.clone) if request.clone else None
    contract = contract_of(carried)
    start = carried.target.release
    base = new_base(root, carried, request.onto, request.commit, clone)
    with old_base(root, carried, clone) as pinned:
        own = OwnBase(contract, carried, pinned)
        sites = _sites(own, base.target, base.tree, request.regenerate)
        done = rebase(carried, pinned, base.tree, base.modes, sites, resolutions)
        if done.conflict is not None or not done.series.patches:
            return Computed(done, start, None, (), ())
        made, plan = lock_rebased(root, request.name, carried, base, done)
        after = EditedTree(base.tree, {c.path: c.after for c in plan.changes})
        found = contract.problems(contract.census(base.target, after))
        missing = missing_imports(base.target, base.tree, after, done.series)
    ours = tuple(p.finding for p in found if p.danger or p.finding.site in done.sites)
    notes = tuple(
        f"not carried, and not in the state that the series makes: {p.finding.what}"
        for p in found
        if p.finding not in ours
    )
    return Computed(done, start, made, (*missing, *ours), notes)


def _sites(own: OwnBase, target: Target, tree: Tree, regenerate: bool) -> Sites:
    """Where each site of the series is on the new base, and whether upstream has made
    it transposed since."""
    census = own.contract.census(target, tree)
    named = dict.fromkeys(
        site
        for patch in own.carried.lock.patches
        for file in patch.files
        for hunk in file.hunks
        for site in hunk.sites
    )
    on_base = {}
    for site in named:
        places = places_of(census, site)
        # Where each hunk is at its site, nothing has moved.
        was = places if own.hunks(site) <= {*places} else own.places(site)
        adopted, adopters = None, frozenset[str]()
        if is_adopted(census, site):
            row = next(row for row in census.rows if row.site == site)
            file = (row.path or "").rpartition("/")[2]
            adopted = f"upstream has {site}: {row.state.value}, {file}:{row.line}"
            adopters = own.adopters(site)
        on_base[site] = SiteOnBase(places, was, adopted, adopters)
    producers = [s for name, s in on_base.items() if name != _CONSUMER]
    if _CONSUMER in on_base and all(s.adopters for s in producers):
        # Whatever it does: there is no scale of ours for it to read.
        known = on_base[_CONSUMER]
        on_base[_CONSUMER] = replace(
            known,
            adopted=known.adopted or "upstream has every producer of the series",
            adopters=own.adopters(_CONSUMER),
        )
    make = _regenerator(own.contract, target, tree) if regenerate else None
    return Sites(on_base, make)


def _regenerator(contract: Contract, target: Target, tree: Tree) -> Regenerate:
    from xscale.regenerate import Edit, need_libcst, regenerate

    need_libcst()

    def make(step: MergeStep, path: str, scope: str, data: bytes) -> bytes | None:
        census = contract.census(target, EditedTree(tree, {path: data}))
        rows = [row for row in census.rows if row.path == path]
        names = tuple(sorted(imported_names(step.hunk)))
        edit = Edit(step.locked.sites, scope, names)
        return regenerate(edit, data, rows, module_scope=scope == MODULE)

    return make
