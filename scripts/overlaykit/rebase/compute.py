"""Rebases the series onto another base, as a pure function.

The inputs are the series, the pinned contents, the new base and the maintainer's
resolutions; the result is the patches or the first conflict. Only the resolutions are
stored between two runs, each under a digest of the contents that it resolves. So
computing an interrupted rebase again resumes it.

A hunk is carried if git merges it and :mod:`overlaykit.planning.placement` finds it in
its place. It is dropped if upstream has its change. Otherwise it is a conflict. A clean
merge does not show that the hunk is still needed, so routes are found first.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from overlaykit.core.objects import blob_id
from overlaykit.planning.landing import land
from overlaykit.planning.placement import MergeStep
from overlaykit.planning.plan import HunkPlan, State
from overlaykit.rebase.conflicts import Conflict, conflict_of, scopes_changed
from overlaykit.rebase.moves import land_moved
from overlaykit.rebase.outcomes import HunkOutcome, RebasedHunk, header_of
from overlaykit.rebase.routes import Key, Route, Sites, find_routes
from overlaykit.repository.merge import MergeStore
from overlaykit.series.carried import Carried
from overlaykit.series.patches import Patch, apply_hunks
from overlaykit.series.quilt import Series
from overlaykit.series.remake import Contents, remake
from overlaykit.trees.tree import EditedTree, Tree

Resolutions = Mapping[str, bytes | None]
"""The maintainer's contents, by conflict id; None leaves the hunk out. The digest
of a patch leaves all of it out."""


@dataclass(frozen=True)
class Rebased:
    """The new series, complete unless there is a ``conflict``.

    ``files`` has the resulting contents. With no patch and no conflict, nothing is left
    to carry.
    """

    series: Series
    files: Mapping[str, bytes]
    hunks: tuple[RebasedHunk, ...]
    conflict: Conflict | None = None

    @property
    def sites(self) -> tuple[str, ...]:
        """The sites that the new series carries."""
        return tuple(dict.fromkeys(s for h in self.hunks if h.kept for s in h.sites))


def rebase(
    carried: Carried,
    base: Tree,
    tree: Tree,
    modes: Mapping[str, str],
    sites: Sites,
    resolutions: Resolutions,
) -> Rebased:
    """Rebase the series from ``base``, its pinned release, onto ``tree``.

    ``modes`` has the git modes of the tree's files that are not 100644.
    """
    dropped = _left_out(carried, resolutions)
    while True:
        routes = find_routes(carried, tree, sites, dropped)
        run = _Run(carried, base, tree, modes, sites, resolutions, routes)
        done = run.all()
        found = {k: why for k, why in run.upstreamed.items() if k not in dropped}
        if not found or done.conflict:
            return done
        # Drop what only these hunks needed, such as an import, in another pass.
        dropped |= found


def _left_out(carried: Carried, resolutions: Resolutions) -> dict[Key, str]:
    """The hunks of the patches that the maintainer leaves out."""
    return {
        Key(patch.name, diff.path, hunk.number): "left out with its whole patch"
        for patch in carried.series.patches
        if patch.sha256 in resolutions
        for diff in patch.files
        for hunk in diff.hunks
    }


@dataclass
class _Run:
    """One pass over the series, with known routes."""

    carried: Carried
    base: Tree
    tree: Tree
    modes: Mapping[str, str]
    sites: Sites
    resolutions: Resolutions
    routes: Mapping[Key, Route]
    files: dict[str, bytes] = field(default_factory=dict)
    hunks: list[RebasedHunk] = field(default_factory=list)
    upstreamed: dict[Key, str] = field(default_factory=dict)
    conflict: Conflict | None = None

    def all(self) -> Rebased:
        patches: list[Patch] = []
        pinned = {path: self._pinned(path) for path in self.carried.series.paths}
        with MergeStore() as store:
            for number, patch in enumerate(self.carried.series.patches):
                before = dict(self.files)
                first = len(self.hunks)
                for step, route in self._steps(number, pinned):
                    self._carry(step, route, store)
                    if self.conflict:
                        return self._result(patches)
                changes = {
                    path: Contents(
                        self.modes.get(path, "100644"),
                        before.get(path) or self.tree.read(path) or b"",
                        data,
                    )
                    for path, data in self.files.items()
                    if data != (before.get(path) or self.tree.read(path))
                }
                if changes:
                    header = header_of(patch, self.hunks[first:])
                    patches.append(remake(patch.name, header, changes, store))
        return self._result(patches)

    def _result(self, patches: list[Patch]) -> Rebased:
        hunks = tuple(self.hunks)
        return Rebased(Series(tuple(patches)), self.files, hunks, self.conflict)

    def _pinned(self, path: str) -> bytes:
        data = self.base.read(path)
        if data is None or blob_id(data) != self.carried.chains[path][0]:
            raise ValueError(f"{self.base.name} is not the pin: {path}")
        return data

    def _steps(
        self, number: int, pinned: dict[str, bytes]
    ) -> Iterator[tuple[MergeStep, Route]]:
        patch = self.carried.series.patches[number]
        locked = self.carried.lock.patches[number]
        for diff, file in zip(patch.files, locked.files, strict=True):
            states = [pinned[diff.path]]
            whole = self.carried.series.patched(diff.path, self._pinned(diff.path))
            for count in range(len(diff.hunks)):
                after = apply_hunks(pinned[diff.path], diff.hunks[: count + 1])
                assert after is not None
                states.append(after)
            pinned[diff.path] = states[-1]
            for at, (hunk, known) in enumerate(
                zip(diff.hunks, file.hunks, strict=True)
            ):
                old, new = states[at : at + 2]
                step = MergeStep(patch, hunk, known, diff.path, old, new, whole)
                yield step, self.routes[Key(patch.name, diff.path, hunk.number)]

    def _carry(self, step: MergeStep, route: Route, store: MergeStore) -> None:
        if route.dropped:
            self._note(
                step, HunkOutcome.DROPPED, None, None, route.scope, route.dropped
            )
            return
        for where in route.paths:
            if self.conflict is None:
                self._carry_to(step, where, route.scope, store)

    def _carry_to(
        self, step: MergeStep, where: str | None, scope: str, store: MergeStore
    ) -> None:
        now = EditedTree(self.tree, self.files)
        data = now.read(where) if where is not None else None
        if where is None or data is None:
            plan = step.plan(State.GONE, "the file is gone and has no successor")
            self._resolve_or_stop(step, plan, None, scope, None, None, store)
            return
        plan, after, marked = self._land(step, where, scope, data, store)
        if plan.state is State.UPSTREAMED:
            self._already_in(step, plan, where, scope, data, store)
        elif plan.state.lands:
            self.files[where] = after
            moved = (where, scope) != (step.path, step.locked.scope)
            outcome = HunkOutcome.MOVED if moved else HunkOutcome.CARRIED
            self._note(step, outcome, plan.state, where, scope, plan.detail)
        else:
            self._resolve_or_stop(step, plan, where, scope, data, marked, store)

    def _land(
        self, step: MergeStep, where: str, scope: str, data: bytes, store: MergeStore
    ) -> tuple[HunkPlan, bytes, bytes | None]:
        """Merge the file if git can follow it, else only the function that moved."""
        follows = where == step.path or self.tree.read(step.path) is None
        if follows and scope == step.locked.scope:
            return *land(step, where, data, store), None
        return land_moved(step, where, scope, data, store)

    def _already_in(
        self, step: MergeStep, plan: HunkPlan, where: str, scope: str, data: bytes,
        store: MergeStore,
    ) -> None:  # fmt: skip
        """Note a hunk that is in the file, from upstream or from a resolution."""
        pristine = self.tree.read(where)
        if pristine is not None and data != pristine:
            plain, *_ = self._land(step, where, scope, pristine, store)
            if plain.state is not State.UPSTREAMED:
                detail = "the resolution of an earlier hunk includes it"
                self._note(step, HunkOutcome.RESOLVED, None, where, scope, detail)
                return
        key = Key(step.patch.name, step.path, step.hunk.number)
        self.upstreamed[key] = plan.detail
        self._note(step, HunkOutcome.DROPPED, plan.state, where, scope, plan.detail)

    def _resolve_or_stop(
        self,
        step: MergeStep,
        plan: HunkPlan,
        where: str | None,
        scope: str,
        data: bytes | None,
        marked: bytes | None,
        store: MergeStore,
    ) -> None:
        """A hunk that does not merge: resolve it, regenerate it, or stop."""
        conflict = conflict_of(
            step, plan, where, data, marked, self._scopes(step, where, scope), store
        )
        if conflict.id in self.resolutions:
            self._resolved(step, conflict, scope, self.resolutions[conflict.id])
            return
        make = self.sites.regenerate
        if make and where is not None and data is not None:
            made = make(step, where, scope, data)
            if made is not None and made != data:
                changed = scopes_changed(data, made)
                if changed is not None and changed <= conflict.scopes:
                    self.files[where] = made
                    self._note(
                        step, HunkOutcome.REGENERATED, plan.state, where, scope,
                        "regenerated from its purpose: its text could not be merged",
                    )  # fmt: skip
                    return
        self.conflict = conflict

    def _resolved(
        self, step: MergeStep, conflict: Conflict, scope: str, data: bytes | None
    ) -> None:
        if data is None or data == conflict.upstream:
            detail = "left out by the maintainer"
            self._note(step, HunkOutcome.DROPPED, None, None, scope, detail)
            return
        assert conflict.path is not None and conflict.upstream is not None
        self.files[conflict.path] = data
        changed = scopes_changed(conflict.upstream, data) or set()
        if scope not in changed and len(changed - conflict.scopes) == 1:
            [scope] = changed - conflict.scopes
        self._note(step, HunkOutcome.RESOLVED, None, conflict.path, scope, "")

    def _scopes(self, step: MergeStep, where: str | None, scope: str) -> frozenset[str]:
        """The scopes that this patch may change in a file of the new base."""
        return frozenset({scope}) | {
            route.scope
            for key, route in self.routes.items()
            if key.patch == step.patch.name and where in route.paths
        }

    def _note(
        self,
        step: MergeStep,
        outcome: HunkOutcome,
        landing: State | None,
        path: str | None,
        scope: str,
        detail: str,
    ) -> None:
        self.hunks.append(
            RebasedHunk(
                step.patch.name,
                step.hunk.number,
                step.path,
                step.locked.scope,
                step.locked.sites,
                outcome,
                landing,
                path,
                scope,
                detail,
            )
        )
